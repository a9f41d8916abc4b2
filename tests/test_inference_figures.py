"""Chapter 07b's figures and sentences say what their data holds; loads are what they claim."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("matplotlib")

from scratchbook.companions import inference_bench as bench
from scratchbook.companions import inference_controls as controls
from scratchbook.companions import inference_figures as figures
from scratchbook.companions import inference_findings as told
from scratchbook.companions import inference_schedules as schedules
from scratchbook.companions import inference_windows as windows
from scratchbook.config import ModelConfig
from scratchbook.serving.requests import Request
from scratchbook.serving.speculation import speculate_cached
from scratchbook.teaching.figures import figure_svg
from tests.random_models import random_model

CONFIG = ModelConfig(vocab_size=400, num_layers=2, d_model=16, num_heads=2, max_seq_len=200,
                     positions="rope")
MODEL = random_model(CONFIG, seed=1)
POLICIES = {name: {"losses": [[3.0, level + noise, level - noise] for noise in (0.1, 0.2, 0.3)],
                   "read": read}
            for name, level, read in (("restart", 4.0, 1.0), ("half", 3.0, 2.0), ("odd", 4.0, 1.0))}


def test_policies_are_compared_behind_the_first_window():
    assert told.later_losses(POLICIES["restart"]) == pytest.approx([4.0, 4.0, 4.0])
    rows = told.window_rows(POLICIES)
    assert [row["verdict"] for row in rows] == ["", "lower", "no clear difference"]
    assert rows[1]["loss"] == "3.000"
    assert "half against restart: lower (-1.000 nats a token" in told.window_line(
        POLICIES, "half", "restart")
    figure, alt = figures.plot_windows(POLICIES, ("half",), failure="odd")
    assert "half: 3.00 in the first window, 2.80 in the last" in alt
    assert figure_svg(figure, alt)


def runs(*speeds):
    return [{"tokens_per_second": speed, "seconds": 1.0, "steps": 10, "first_p50": 0.1,
             "first_p95": 0.2, "last_p50": 0.3, "last_p95": 0.4} for speed in speeds]


KINDS = {kind: {"one": {"8": runs(50, 51, 52)}, "static": {"8": runs(100, 100, 100)},
                "continuous": {"8": runs(*speeds)}}
         for kind, speeds in (("mixed", (350, 360, 370)), ("equal", (90, 110, 100)))}


def test_schedules_are_told_as_they_were():
    line = told.schedule_line(KINDS, "mixed", "8")
    assert "faster, 3.60 times the throughput (95 % over 3 draws 3.35 to 3.85)" in line
    assert line.endswith("three times: met.")
    assert "no clear difference" in told.schedule_line(KINDS, "equal", "8")
    slow = {"mixed": KINDS["mixed"] | {"continuous": {"8": runs(150, 160, 155)}}}
    assert told.schedule_line(slow, "mixed", "8").endswith("three times: missed.")
    assert len(told.schedule_rows(KINDS)) == 6
    figure, alt = figures.plot_schedules(KINDS)
    assert "tokens a second, mixed, continuous: 360 at 8" in alt
    assert figure_svg(figure, alt)


def test_times_beside_a_bound():
    nine = [0.05] * 4 + [0.06] * 5
    assert told.times_line("x", nine, 0.1).endswith("met.")
    assert told.times_line("x", nine, 0.055).endswith("not settled.")
    assert told.times_line("x", nine, 0.04).endswith("missed.")


def test_speculation_is_told_as_it_was():
    row = {"draft": "d", "guesses": 2, "kept": 0.5, "draft cost": 0.1, "pass cost": 1.0,
           "predicted": 1.25, "measured": 0.8, "speeds": [0.79, 0.8, 0.81]}
    assert told.speculation_line(row).endswith(
        "measured 0.80 (95 % over 3 texts 0.78 to 0.82): slower.")
    figure, alt = figures.plot_speedups([row])
    assert "d, 2 guesses: predicted 1.25, measured 0.80" in alt
    assert figure_svg(figure, alt)


def test_the_cache_breaks_even_where_it_stays_faster():
    def rows(*pairs):
        return [{"past": 4**n, "with cache": a, "without": b} for n, (a, b) in enumerate(pairs)]
    assert bench.break_even(rows((1, 2), (2, 1), (3, 1))) == 4
    assert bench.break_even(rows((2, 1), (1, 2), (3, 1))) == 16
    assert bench.break_even(rows((2, 1))) == 1
    assert bench.break_even(rows((1, 2))) is None
    assert "behind 1 token 2 and 1" in figures.plot_cache(rows((2, 1), (5, 1)))[1]


def test_other_figures_say_their_numbers():
    row = {"tokens": 4, "at once": 1.0, "one by one": 4.0, "at once, predicted": 1.5,
           "one by one, predicted": 6.0}
    assert "takes 1 ms at once and 4 ms one by one; predicted 1.5 and 6" in figures.plot_reading(
        [row | {"tokens": 1}, row])[1]
    figure, alt = figures.draw_timelines({"a": [[0, 1], [0, None]], "b": [[0, 1]]})
    assert "a: 2 steps, 1 places empty; b: 1 steps, 0 places empty" in alt
    assert figure_svg(figure, alt)
    assert "<td" in figures.scheduler_still([[3, 4]])


def test_loads_are_what_they_claim():
    texts = [list(range(300)), list(range(50, 400))]
    mixed, equal = (schedules.load(texts, 32, 0, kind) for kind in (False, True))
    assert sum(request.max_new_tokens == schedules.LONG for request in mixed) == 4
    assert {request.max_new_tokens for request in equal} == {schedules.EQUAL}
    assert {len(request.prompt_ids) for request in equal} == {36}
    assert all(8 <= len(request.prompt_ids) <= 64 for request in mixed)
    new = [sum(request.max_new_tokens for request in load) for load in (mixed, equal)]
    assert abs(new[0] / new[1] - 1) < 0.2
    found = schedules.timed(MODEL, [request for request in schedules.load([list(range(300))], 5, 1)
                                    if request.max_new_tokens < 50], "continuous")
    assert found["new_tokens"] > 10
    assert 0 < found["first_p50"] <= found["last_p50"] <= found["seconds"]


def test_policies_keep_equally_much():
    ids = torch.randint(50, (900,), generator=torch.Generator().manual_seed(0)).tolist()
    kept = {name: policy(ids) for name, policy in windows.policies(256).items()}
    assert len(kept["truncate to half"]) == len(kept["summary"]) == len(
        kept["summary by chance"]) == len(kept["head and recent"]) == 128
    assert len(kept["restart"]) == 1
    assert kept["summary"] != kept["summary by chance"]
    assert kept["summary by chance"] == windows.policies(256)["summary by chance"](ids)
    assert all(places[-1] == 899 and places == sorted(set(places)) for places in kept.values())


def test_a_table_of_pairs_guesses_what_followed():
    table = bench.PairTable([5, 6, 5, 6, 5, 7], 400)
    cache = table.new_cache(20)
    logits = table(torch.tensor([[5]]), cache)[0, 0]
    assert logits.argmax() == 6
    assert logits[7] > logits[8]
    assert cache[0].length == 1
    written = speculate_cached(MODEL, table, [5], 12, 3)
    assert len(written.new_ids) == 12


def test_speedups_by_hand():
    assert bench.tokens_per_pass(0.5, 3) == 1.875
    assert bench.tokens_per_pass(0, 4) == 1
    assert bench.predicted_speedup(0.5, 1, 0.0, 1.0) == 1.5
    assert bench.predicted_speedup(0.5, 2, 0.1, 1.2) == pytest.approx(1.25)
    assert bench.predicted_speedup(1, 3, 1.0, 1.0) == 1.0  # as dear as the target: nothing gained


def test_first_layers_are_those_of_the_model():
    small = bench.first_layers(MODEL, 1)
    for (name, own), other in zip(small.blocks[0].named_parameters(),
                                  MODEL.blocks[0].parameters(), strict=True):
        assert torch.equal(own, other), name
    assert bench.step_cost(small, 2, 10) > 0


def test_throughput_is_told_in_its_factors():
    def one(steps, seconds):
        return [{"steps": steps, "seconds": seconds}] * 3
    kinds = {"mixed": {"static": {"8": one(10, 6.0)}, "one": {"8": one(20, 4.0)}}}
    assert told.steps_line(kinds, "mixed", "8") == (
        "Mixed load, 8 requests: static batching takes 0.50 ± 0.00 times the steps of one, and "
        "3.00 ± 0.00 times the time for each.")


def test_parts_and_rooms_are_told_as_they_were():
    assert told.parts_line({"a": [(2.0, 1.0)] * 3, "b": [(1.0, 1.0)] * 3}) == (
        "50% ± 0 of the time with a, 100% ± 0 of the time with b")
    key = "at once, while others wait"
    rows = [{"load": "stops", "gave way": 0, key: 4.0}, {"load": "stops", "gave way": 3, key: 6.0}]
    assert "reserved: 1.50 where a request stops (3 gave way)." in told.fitting_line(rows)


def test_a_model_that_guesses_for_itself_keeps_every_guess():
    prompts = [[n + 1, n + 2, n + 3] for n in range(6)]
    rows = bench.speculation_rows(MODEL, {"itself": MODEL}, prompts)
    assert [row["kept"] for row in rows] == [1.0, 1.0, 1.0]
    assert [row["guesses"] for row in rows] == list(bench.GUESSES)
    for row in rows:  # the last pass has room for fewer guesses
        assert row["guesses"] < row["tokens a pass"] <= row["tokens a pass, predicted"]
        assert len(row["speeds"]) == 4


def test_blocks_fit_more_than_room_reserved_unless_texts_come_full():
    growing = [Request([n + 1, n + 2], 30) for n in range(12)]
    (reserved, ids), (blocks, same) = (controls.fitting(MODEL, growing, 96, reserve, 4)
                                       for reserve in (True, False))
    assert ids == same
    assert all(len(each) == 30 for each in ids)
    key = "at once, while others wait"
    assert reserved[key] <= 3 < blocks[key]
    assert blocks["steps"] < reserved["steps"]
    full = [Request([n + 1] * 31, 1) for n in range(12)]
    assert controls.fitting(MODEL, full, 96, False, 4)[0][key] <= 3


def test_waits_and_shared_beginnings_are_measured():
    texts = [torch.randint(1, 400, (200,), generator=torch.Generator().manual_seed(n)).tolist()
             for n in range(30)]
    model = random_model(CONFIG.with_(max_seq_len=256), seed=1)
    longest, newcomer = controls.longest_wait(model, texts, 0, 16)
    assert 0 < longest < newcomer  # its prompt is read in many pieces
    assert controls.longest_wait(model, texts, 0, 16, comes=False)[1] == 0
    read = {(shared, kept): controls.prefix_times(model, texts, 0, shared, kept)[1]
            for shared in (True, False) for kept in (True, False)}
    assert read == {(True, True): 128 + 6 * 8, (True, False): 6 * 136,
                    (False, True): 6 * 136, (False, False): 6 * 136}
    speeds = controls.finished_rows(model, texts, (0,))
    assert set(speeds) == {"one", "static", "static, finished dropped"}
    rows = controls.pass_rows(model, (1, 2))
    assert [row["texts"] for row in rows] == [1, 2]
    assert rows[0]["times the first"] == 1
    assert controls.matrices_alone(model) > 0
