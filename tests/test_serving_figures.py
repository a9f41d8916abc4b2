"""Chapter 07c's tables, sentences and figures say what their data holds; its bench counts right."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")
httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

from scratchbook.companions import serving_bench as bench  # noqa: E402
from scratchbook.companions import serving_conformance as conformance  # noqa: E402
from scratchbook.companions import serving_experiments as experiments  # noqa: E402
from scratchbook.companions import serving_figures as figures  # noqa: E402
from scratchbook.companions import serving_findings as told  # noqa: E402
from scratchbook.serving.top_tokens import TopEngine  # noqa: E402
from scratchbook.serving.worker import Ticket  # noqa: E402
from scratchbook.teaching.figures import figure_svg  # noqa: E402
from tests.serving_home import ScriptedEngine, run_alone, serving, tiny_served  # noqa: E402

SERVED = tiny_served(window=512)


def level(clients: int, seconds: float, whole: float, seed: int, wrong: int = 0) -> dict:
    times = {f"{name}_{part}": whole for name in ("first", "whole")
             for part in ("mean", "p50", "p95", "p99")}
    return {"clients": clients, "places": 8, "requests": 100, "wrong": wrong, "seconds": seconds,
            "tokens": 2000, "round": seed} | times


# 10 requests a second alone, 40 with 8 clients and more
ROWS = [level(clients, 100 / rate, clients / rate * off, seed)
        for seed, off in enumerate((0.99, 1.0, 1.01))
        for clients, rate in ((1, 10), (8, 40), (32, 40))]


def test_littles_law_and_what_it_predicts():
    first, full, last = told.little_rows(ROWS)
    assert last["clients by the law"].startswith("32.00 ±")
    assert first["predicted, ms"] == full["predicted, ms"] == ""  # it is made of these
    assert last["predicted, ms"] == "800 ± 0" and first["mean latency, ms"] == "100 ± 2"
    assert "32 clients: mean latency 1.00 times" in told.little_line(ROWS)
    # alone 0.1 s, and 4 clients at 40 a second: as long as one alone
    four = [*ROWS, *(level(4, 100 / 20, 0.2, seed) for seed in range(3))]
    assert "4 clients: mean latency 1.99 times" in told.little_line(four, 4)  # of 0.99 to 1.01
    assert told.little_line(ROWS).endswith("no clear difference.")
    slow = [row | {"whole_mean": 2 * row["whole_mean"]} for row in ROWS]
    assert told.little_line(slow).endswith("longer.")


def test_growth_loss_and_cost():
    assert "throughput 4.00 ± 0.00 times (more)" in told.growth_line(ROWS, 1, 8)
    assert "throughput 1.00 ± 0.00 times (no clear difference)" in told.growth_line(ROWS, 8, 32)
    assert told.lost_line(ROWS).startswith("0 of 900 answers")
    assert told.lost_line([*ROWS, level(8, 1, 1, 3, wrong=2)]).startswith("2 of 1,000")
    rows = told.cost_rows(ROWS, [{"machine": "a", "an hour": 2.88, "currency": "USD", "seen": "x"}])
    # 800 tokens a second are 2.88 million an hour
    assert rows[0]["a million tokens, 8 clients"] == "1.0000 ± 0.0000 USD"
    assert rows[0]["with 1 client"] == "4.0000 ± 0.0000 USD"
    wider = [row | {"places": 16, "first_p50": row["first_p50"] / 2} for row in ROWS
             if row["clients"] == 32]
    assert told.places_line([*ROWS, *wider]).endswith("0.50 ± 0.00 times (shorter).")
    assert told.load_rows([*ROWS, *wider]) == told.load_rows(ROWS)
    figure, alt = figures.plot_load(ROWS)
    assert "tokens a second, throughput: 200 with 1, 800 with 32" in alt and figure_svg(figure, alt)


def test_memory_is_flat_or_is_not():
    steady = [400.0, 410, *(420 + 0.05 * (n % 2) for n in range(8))]
    line = told.memory_line(steady)
    assert "no clear difference" in line and line.endswith("at most +0.40: met.")
    line = told.memory_line([400 + 2 * n for n in range(10)])
    assert "it grows, +2.00" in line and line.endswith("missed.")


def overload(shares: dict[str, list[int]]) -> dict:
    rows = [{"way": way, "round": seed, "capacity": 32.0, "requests": 100, "answered": 90,
             "seconds": 4.5, "in_time": share, "mean_whole": 0.5, "worst": 0.75, "tries": 100,
             "longest_line": 16}
            for way, runs in shares.items() for seed, share in enumerate(runs)]
    drawn = {way: [[0.0, True, 0.5], [1.0, True, 0.25], [0.5, False, 0.1]] for way in shares}
    return {"bounds": dict.fromkeys(shares, 16), "patience": 1.0, "rows": rows, "drawn": drawn}


def test_ways_of_receiving_too_many():
    found = overload({"no bound": [20, 30, 25], "a bound": [60, 61, 62]})
    assert told.way_values(found, "share") == {"no bound": [20, 30, 25], "a bound": [60, 61, 62]}
    table = told.way_rows(found)
    assert table[1]["within 1 s"].startswith("61 ±") and table[0]["answered"] == "270 of 300"
    assert table[0]["answers a second"] == "20.0 ± 0.0"
    assert told.bound_line(found, "a bound") == (
        "A bound: by the law a mean wait of 0.50 ± 0.00 s where the line is full; the mean was "
        "1.00 ± 0.00 times that, the longest 1.50 ± 0.00.")
    figure, alt = figures.plot_overload(found)
    assert "a bound: 2 answered, 1 sent away, the longest wait 0.50 s" in alt
    assert figure_svg(figure, alt)


def test_a_second_client_waits_for_a_handler_that_keeps_the_loop():
    async def blocking(send):
        await send("a")
        time.sleep(0.3)

    async def yielding(send):
        await send("a")
        await asyncio.sleep(0.3)

    (blocked, whole, once), (free, _, often) = map(experiments.longest_wait, (blocking, yielding))
    assert blocked > 200 and whole > 250 and free < blocked / 2
    assert once <= 2 and often > 4
    figure, alt = figures.plot_waits({"blocking": [blocked], "yielding": [free]})
    assert "yielding" in alt and figure_svg(figure, alt)
    assert figure_svg(*figures.draw_path())


def test_the_longest_step_is_that_between_two_tokens():
    def tokens():
        for pause in (0.0, 0.1, 0.0):
            time.sleep(pause)
            yield pause
        time.sleep(0.3)  # behind the last one nobody waits

    assert 100 <= experiments.longest_step(tokens()) < 250


def test_who_hangs_up_frees_a_place_unless_the_server_is_deaf():
    cancel = Ticket.cancel
    heard = experiments.hang_up(SERVED, tokens=400)
    with experiments.deaf():
        unheard = experiments.hang_up(SERVED, tokens=400)
    assert Ticket.cancel is cancel
    assert unheard["written for nobody"] > 300 > 2 * heard["written for nobody"]


def test_refusals_are_told_as_they_came():
    ask = {"json": {"model": "tiny", "prompt": "a", "max_tokens": 1}}
    rows = experiments.refusals(SERVED, [
        ("plain", {}, ask), ("evil", {}, ask | {"headers": {"Host": "evil.example"}}),
        ("other dialect", {}, {"url": "/api/generate", "json": {"model": "x", "prompt": "a"}})])
    assert [row["status"] for row in rows] == [200, 403, 404]
    assert "localhost only" in rows[1]["says"] and rows[0]["says"] == "(an answer)"
    assert "'x'" in rows[2]["says"]


def test_what_is_wrong_or_missing_is_not_called_right(monkeypatch):
    pytest.importorskip("openai", reason="openai is not installed: pip install openai")
    pytest.importorskip("ollama", reason="ollama is not installed: pip install ollama")
    with experiments.Home(SERVED, TopEngine(SERVED.model)) as home:
        rows = conformance.conformance(SERVED, home.url)
        answers = {row["asked"]: row["answer"] for row in rows}
        assert answers["completions.create"] == "right" == answers["chat, stream"]
        assert answers["embeddings.create"] == "not there"
        assert answers["logit_bias"].startswith("refused: logit_bias is not supported")
        assert not [row for row in rows if row["answer"] == "wrong"]
        monkeypatch.setattr(conformance, "generate", lambda *given, **how: [70, 71, 72, 73, 74])
        rows = conformance.conformance(SERVED, home.url)
        assert [row for row in rows if row["answer"] == "wrong"]
    assert conformance.counts(rows[:1]) == "OpenAI's client: 1 right of 1."


def test_the_bench_counts_what_every_client_could_have(monkeypatch):
    monkeypatch.setattr(bench, "KINDS", [
        {"model": "tiny", "prompt": prompt, "temperature": 0, "max_tokens": tokens, "stream": True,
         "stream_options": {"include_usage": True}} for prompt in ("a", "b") for tokens in (3, 6)])
    script = SERVED.tokenizer.encode_ordinary("the cat sat on the mat " * 9)
    with serving(SERVED, ScriptedEngine(script, max_batch=2, pause=0.005)) as home:
        alone = run_alone(bench.one_by_one(home.url, bench.KINDS))
        found, seconds = run_alone(bench.closed_loop(home.url, 4, 0, 20))
    assert [each["tokens"] for each in alone] == [3, 6, 3, 6] and len(found) == 20
    row = bench.load_row(4, found, seconds, alone)
    assert row["wrong"] == 0 and row["tokens"] == sum(each["tokens"] for each in found)
    # two places for four clients: the law holds
    assert 20 / seconds * row["whole_mean"] == pytest.approx(4, rel=0.25)
    found[3]["text"] += "x"
    assert bench.load_row(4, found, seconds, alone)["wrong"] == 1


@pytest.mark.parametrize("again", [None, (1.0, 1.0)])
def test_a_full_line_is_counted_and_may_be_tried_again(monkeypatch, again):
    slept = asyncio.sleep
    monkeypatch.setattr(bench.asyncio, "sleep", lambda seconds: slept(min(seconds, 0.05)))
    ask = {"model": "tiny", "prompt": "a", "max_tokens": 10, "stream": True,
           "stream_options": {"include_usage": True}}
    script = SERVED.tokenizer.encode_ordinary("the cat sat on the mat " * 9)
    with serving(SERVED, ScriptedEngine(script, max_batch=1, pause=0.01), max_open=2) as home:
        found, longest = run_alone(bench.open_loop(home.url, 1000, [ask] * 6, again))
    statuses = [each["status"] for each in found]
    assert longest <= 2 and (set(statuses) == {200} if again else 429 in statuses)
    assert (sum(each["tries"] for each in found) > 6) == bool(again)
    assert all(each["tokens"] == 10 for each in found if each["status"] == 200)


def test_several_models_are_listed_by_name():
    other = type(SERVED)("other", SERVED.model, SERVED.tokenizer)
    assert experiments.several(SERVED, other) == ["tiny", "other"]


def test_answers_under_an_endless_load_are_all_counted(monkeypatch):
    monkeypatch.setattr(bench, "KINDS", [
        {"model": "tiny", "prompt": "a", "max_tokens": 3, "stream": True,
         "stream_options": {"include_usage": True}}])
    script = SERVED.tokenizer.encode_ordinary("the cat sat")
    with serving(SERVED, ScriptedEngine(script, pause=0.02)) as home:
        memory, answered = run_alone(bench._endless(home.url, os.getpid(), 8, 2))
        asked = len(home.engine.seen)
    assert len(memory) == 2 and memory[0] > 10
    assert asked - 8 <= answered <= asked
