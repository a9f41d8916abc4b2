"""The living figure of chapter 07b takes the steps of the package's engine."""

from __future__ import annotations

import random
from pathlib import Path

from scratchbook.config import ModelConfig
from scratchbook.serving import Engine, Request
from scratchbook.serving.engine import SCHEDULES
from tests.node import run_figure
from tests.random_models import random_model

MODEL = random_model(ModelConfig(vocab_size=300, num_layers=1, d_model=8, num_heads=2,
                                 max_seq_len=64, positions="rope"))


def make_case(seed: int) -> dict:
    """An engine of any size, some requests, and what it says and holds behind each step."""
    chosen = random.Random(seed)
    options = {"places": chosen.randint(1, 5), "blocks": chosen.choice([6, 8, 30]), "size": 4,
               "chunk": chosen.choice([3, 6, 16]), "schedule": SCHEDULES[seed % 3]}
    requests = [[chosen.randint(1, 14), chosen.randint(1, 9)] for _ in range(chosen.randint(1, 9))]
    engine = Engine(MODEL, options["blocks"], options["size"], options["places"],
                    options["chunk"], options["schedule"], prefix_cache=False)
    for prompt, new in requests:
        engine.submit(Request([chosen.randrange(300) for _ in range(prompt)], new))
    wanted = []
    while not engine.idle:
        events = engine.step()
        wanted.append({
            "tokens": [event.request for event in events if event.token is not None],
            "running": [[job.number, job.table.length, len(job.new_ids)]
                        for job in engine._running],
            "waiting": [job.number for job in engine._waiting],
            "blocks": [list(job.table.blocks) for job in engine._running]})
    return {"options": options, "requests": requests, "wanted": wanted}


def test_the_javascript_equals_the_package(tmp_path: Path) -> None:
    assert run_figure("scheduler", tmp_path, [make_case(seed) for seed in range(90)])
