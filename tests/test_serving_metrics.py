"""What /metrics says: every number under its own name, by hand."""

from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")

from scratchbook.serving import Stats  # noqa: E402
from scratchbook.serving.metrics import Metrics  # noqa: E402


def test_each_count_stands_under_its_own_name():
    stats = Stats(steps=3, columns=50, prompt_tokens_read=40, prompt_tokens_found=8, new_tokens=11,
                  preempted=1, blocks_in_use=7, waiting=2, running=4)
    metrics = Metrics({"one": SimpleNamespace(stats=stats, open=6),
                       "two": SimpleNamespace(stats=Stats(), open=0)})
    metrics.answered("one", 0.25, 2.0)
    metrics.answered("one", 0.5, 4.0)
    metrics.requests.labels("/v1/completions", 200).inc()
    rows = dict(row.rsplit(" ", 1) for row in metrics.text().decode().splitlines()
                if not row.startswith("#"))
    for name, value in {
            'tokens_total{kind="prompt_read",model="one"}': 40, 'running{model="one"}': 4,
            'tokens_total{kind="prompt_found",model="one"}': 8, 'unfinished{model="one"}': 6,
            'tokens_total{kind="new",model="one"}': 11, 'blocks_in_use{model="one"}': 7,
            'steps_total{model="one"}': 3, 'steps_total{model="two"}': 0,
            'first_token_seconds_sum{model="one"}': 0.75,
            'first_token_seconds_count{model="one"}': 2,
            'first_token_seconds_bucket{le="0.3",model="one"}': 1,
            'answer_seconds_sum{model="one"}': 6, 'answer_seconds_count{model="one"}': 2,
            'http_requests_total{path="/v1/completions",status="200"}': 1}.items():
        assert float(rows[f"scratchbook_{name}"]) == value, name
    assert 'scratchbook_answer_seconds_count{model="two"}' not in rows
