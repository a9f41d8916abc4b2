"""Chapter 07's pictures, tables and sentences say what their numbers say, whatever they are."""

import copy
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from scratchbook.companions import compression_figures as figures
from scratchbook.companions import compression_findings as told
from scratchbook.companions import compression_tables as tables
from scratchbook.compression import quantize, quantize_awq
from scratchbook.compression.gptq import calibrate, layer_error
from scratchbook.config import ModelConfig
from tests.random_models import random_model

SIZES = ModelConfig(vocab_size=32, max_seq_len=16, num_layers=2, d_model=32, num_heads=2, d_ff=64)

BASE = [[100.0, 50], [200.0, 50], [100.0, 50], [120.0, 50]]


def scaled(share: float) -> list[list[float]]:
    """The windows of a model with so much more bits in each."""
    return [[nats * (1 + share), tokens] for nats, tokens in BASE]


def row(name: str, size: int, share: float) -> dict:
    return {"name": name, "bytes": size, "windows": scaled(share), "tokens_per_second": 10.0,
            "speed_ratio": 1.5, "p50": 0.01, "p95": 0.02, "peak_bytes": 3e8, "tokens": 1024,
            "reader_peak_bytes": None if name == "float32" else 5e7, "needs": "training",
            "tests": {"brackets": {"share": 0.5, "low": 0.4, "high": 0.6},
                      "words": {"share": 0.0, "low": 0.0, "high": 0.1}}}


def outcome_of(outcomes: list[int]) -> dict:
    """What `run_tests` gives for one test."""
    return {"brackets": {"outcomes": outcomes, "prompts": "a", "low": 0.1, "high": 0.9,
                         "share": sum(outcomes) / len(outcomes)}}


def numbers() -> dict:
    """Made-up numbers of a run: GPTQ wins, the student does not."""
    return {
        "base": {"bits": 2.0, "bytes": 8000, "windows": BASE},
        "heat": {"int8": {"tensor": 0.02, "32": 0.001}, "int4": {"tensor": 0.9, "32": 0.05}},
        "sizes": {"int8, tensor": 2000, "int8, 32": 2250, "int4, tensor": 1000, "int4, 32": 1250},
        "rounding": {"nearest": {"error": 0.1, "windows": scaled(0.10), "bytes": 1100},
                     "nearest, zero point": {"error": 0.1, "windows": scaled(0.06), "bytes": 1130},
                     "GPTQ": {"error": 0.05, "windows": scaled(0.04), "bytes": 1100}},
        "tests": [outcome_of([1, 0] * 20), outcome_of([0] * 40)],
        "qat": {"bits": {"QAT": [2.0, 2.1, 2.0], "trained on, then rounded": [2.2, 2.3, 2.2],
                         "rounded": [2.2, 2.2, 2.2]}},
        "sparsity": {"seeds": [0, 1, 2], "curves": {
            "wanda": {"0.5": [2.0, 2.1, 2.0]}, "magnitude, per row": {"0.5": [2.5, 2.5, 2.5]},
            "wanda, per layer": {"0.5": [2.0, 2.6, 2.4]}, "magnitude": {"0.5": [2.3, 2.3, 2.3]},
            "heads": {"0.34": [3.0, 3.0, 3.0]}}},
        "distillation": {"bits": {"soft labels": [2.0, 2.3, 2.1], "hard labels": [2.1, 2.0, 2.2]},
                         "pairs": [["soft labels", "hard labels"]]},
        "pipeline": {"rows": [row("float32", 8000, 0), row("int8", 2100, 0.002),
                              row("ten", 700, 0.05), row("fifty", 160, 0.4)]}}


def test_a_change_is_a_share_of_all_bits_and_needs_the_same_windows():
    found = tables.change(BASE, scaled(0.1))
    assert found == pytest.approx((0.1, 0.1, 0.1))
    mixed = tables.change(BASE, [[200.0, 50], *BASE[1:]])
    assert mixed.value == pytest.approx(100 / 520) and mixed.low == 0
    with pytest.raises(ValueError, match="the same text"):
        tables.change(BASE, BASE[:3] + [[1.0, 49]])


def test_shares_are_told_with_their_interval():
    assert tables.percent(tables.Interval(0.012, 0.008, 0.015)) == "+1.2 % (+0.8 to +1.5)"
    assert tables.percent(tables.Interval(-0.0004, -0.001, 0.0)) == "-0.04 % (-0.10 to +0.00)"
    assert [tables.more(x) for x in (0.1, 0.0003, -1e-7)] == ["+10.0 %", "+0.03 %", "+0.00 %"]


def test_targets_are_met_missed_or_out_of_reach():
    ten, hundred = tables.target_rows(numbers()["pipeline"]["rows"])
    assert (ten["best that is small enough"], ten["verdict"]) == ("ten", "met")
    assert hundred["best that is small enough"] == "none" and hundred["verdict"] == "missed"
    assert hundred["times smaller"] == "50.0 at most"
    worse = [row("float32", 8000, 0), row("ten", 700, 0.15), row("other", 600, 0.2)]
    assert tables.target_rows(worse)[0]["verdict"] == "missed"


def test_the_decision_takes_the_least_loss_that_is_small_enough():
    found = told.decision_rows(numbers(), wanted=(3.5, 5, 10, 100))
    assert [line["take"] for line in found] == [
        "int8, scale for 32 weights", "int4, scale for a row, GPTQ", "ten",
        "nothing on this page is that small"]
    without = numbers() | {"pipeline": None}
    assert told.decision_rows(without, wanted=(10,))[0]["take"].startswith("nothing")
    (fifty,) = told.decision_rows(numbers(), wanted=(50,))
    assert fifty["take"] == "nothing within the target; smallest loss measured: fifty"
    assert {each["name"]: each["needs"] for each in told.candidates(without)} == {
        "int8, scale for a matrix": "nothing", "int8, scale for 32 weights": "nothing",
        "int4, scale for a matrix": "nothing", "int4, scale for 32 weights": "nothing",
        "int4, scale for a row, nearest, zero point": "nothing",
        "int4, scale for a row, GPTQ": "a few windows of text"}


def test_sentences_follow_the_numbers():
    lines = told.findings(numbers())
    assert "The code tests after int4 with a scale for each row: 1 worse." in lines
    rounding = next(line for line in lines if "beside the nearest code" in line)
    assert "GPTQ better (-5.5 %" in rounding
    assert "GPTQ beside nearest, zero point: better (-1.9 %" in rounding
    qat = next(line for line in lines if line.startswith("QAT"))
    assert qat.startswith("QAT against trained on, then rounded: better")
    assert "; trained on, then rounded against rounded: no clear difference (" in qat
    assert any(line.startswith("Students, at equal steps where nothing else is said: soft "
                               "labels against hard labels: no clear difference")
               for line in lines)
    pruned = next(line for line in lines if "50% of the weights zero" in line)
    assert "wanda against magnitude, per row: better" in pruned
    assert "wanda, per layer against magnitude: no clear difference" in pruned
    assert "; wanda against magnitude: better" in pruned
    assert set(told.summary_lines(numbers())) < set(lines)
    assert len(told.findings(numbers() | {"pipeline": None})) == len(lines) - 7


def test_one_seed_has_no_verdict():
    one = {"seeds": [0], "curves": {name: {"0.5": [2.0]} for pair in told.SCOPES
                                    for name in pair}}
    assert told.sparsity_line(one).endswith("(one seed: no verdict).")
    rows = told.sparsity_rows({"this": one, "recorded": numbers()["sparsity"]})
    assert [(row["run"], row["verdict"]) for row in rows] == [
        ("this", "one seed: no verdict")] * 3 + [
        ("recorded", "better"), ("recorded", "no clear difference"), ("recorded", "better")]
    assert rows[0]["its bits"] == "2.000" and rows[3]["bits"] == "2.500\u00a0±\u00a00.000"


def test_shares_are_told_apart_where_every_score_was_measured():
    found = copy.deepcopy(numbers()["sparsity"])
    for number, curve in enumerate(found["curves"].values()):
        curve["0.75"] = [4.0 - number, 4.1 - number, 4.0 - number]
    found["curves"]["wanda"]["0.9"] = [5.0] * 3
    assert list(told.by_share(found["curves"])) == ["0.5", "0.75"]
    line = told.sparsity_line(found)
    assert "; wanda against magnitude: better (-0.27" in line.split("75% of")[0]
    assert "75% of the weights zero, untrained since, bits per byte: wanda against" in line
    assert "; wanda against magnitude: worse (+3.00" in line.split("75% of")[1]
    assert [line["zero"] for line in told.sparsity_rows({"recorded": found})] == (
        ["50%"] * 3 + ["75%"] * 3)


def test_the_table_of_pruning_says_how_much_text_judged(monkeypatch):
    captions = []
    monkeypatch.setattr(told, "table", lambda rows, caption: captions.append(caption))
    found = numbers()["sparsity"] | {"judged": 8192, "seq_len": 128}
    told.show_sparsity({"this run": found | {"judged": 64}, "recorded": found})
    assert captions[0].endswith("this run 64 tokens in windows of 128, "
                                "recorded 8,192 tokens in windows of 128")


def test_every_target_is_met_or_missed():
    rows = told.goal_rows(numbers()["pipeline"]["rows"])
    assert [(line["nearest"], line["verdict"]) for line in rows] == [
        ("ten", "met"), ("none", "missed"), ("fifty", "missed"), ("fifty", "met"),
        ("int8", "missed"), ("int8", "missed"), ("int8", "missed")]
    assert rows[0]["measured"].startswith("11.4 times smaller, +5.0 %")
    assert rows[2]["measured"] == "300 MB" and rows[5]["measured"] == "1.5 times"
    fast = [each | {"tokens_per_second": 31, "speed_ratio": 60.0, "reader_peak_bytes": None}
            for each in numbers()["pipeline"]["rows"]]
    assert [line["verdict"] for line in told.goal_rows(fast)[3:]] == ["met"] * 3


def test_rows_of_the_tables():
    rows = numbers()["pipeline"]["rows"]
    assert tables.pipeline_rows(rows)[2]["times smaller"] == "11.4"
    assert tables.speed_of_rows(rows)[0]["with numpy alone"] == "not read"
    assert tables.speed_of_rows(rows)[1]["with numpy alone"] == "50 MB"
    assert tables.test_rows(rows)[0] == {"model": "float32", "brackets": "50% (40% to 60%)"}
    assert tables.test_rows([{"name": "x"}]) == []
    nearest, _, gptq = tables.rounding_rows(numbers()["rounding"], BASE)
    assert nearest["than nearest"] == "" and gptq["than nearest"].startswith("better, -5.5 %")
    assert tables.seed_rows({"QAT": [2.0, 2.12345]}) == [
        {"way": "QAT", "seed 0": "2.0000", "seed 1": "2.1235"}]


def test_lines_below_the_tables_follow_the_rows():
    rows = [each | {"parameters": 10} for each in numbers()["pipeline"]["rows"]]
    rows += [row("int4", 900, 0.1) | {"parameters": 10, "speed_ratio": 0.8},
             row("int4, QAT", 900, 0.1) | {"parameters": 10, "speed_ratio": 1.25},
             row("student, int4", 90, 0.9) | {"parameters": 2, "speed_ratio": 7.0}]
    assert told.scatter_line(rows) == ("The 2 rows of int4 with all layers write 0.80 to 1.25 "
                                       "times as many tokens a second as float32; they compute "
                                       "nearly alike, so smaller differences mean nothing here.")
    for each, passed in zip(rows, (60, 60, 51, 20, 60, 60, 60), strict=True):
        each["tests"] = {"brackets": {"passed": passed, "total": 80, "share": passed / 80},
                         "words": {"passed": 0, "total": 40, "share": 0.0}}
    assert ": 75.0% in float32, 63.7% in ten. " in told.tests_line(rows)
    assert told.tests_line(rows[:2]) == "No file is ten times smaller."
    assert told.price_line(rows).startswith("int8 beside float32: +0.20 % (+0.20 to +0.20) bits")
    assert told.price_line(rows).endswith("the first token after 10 ms instead of 10.")


def test_the_pipeline_is_shown_beside_a_scale_for_each_row(monkeypatch, capsys):
    captions = []
    monkeypatch.setattr(told, "table", lambda rows, caption: captions.append(caption))
    rows = [each | {"parameters": 10} for each in numbers()["pipeline"]["rows"]]
    for each in rows:
        each["tests"] = {"brackets": {"passed": 1, "total": 2, "share": 0.5, "low": 0, "high": 1}}
    rows.append(rows[1] | {"name": "int4"})
    told.show_pipeline({"rows": rows, "empty_peak_bytes": 2e8}, random_model(SIZES), 10**6)
    assert "importing torch alone: 200 MB" in captions[1] and len(captions) == 3
    times = float(capsys.readouterr().out.split("squeezed: ")[1].split(" times")[0])
    assert 20 < times < 200


def test_a_rate_says_whether_there_was_one_beyond_it():
    found = {"rates": {"a": 0.08, "b": 0.16, "+ c": 0.08}, "edge": {"b": "largest"},
             "tried": {"a": {}, "b": {}}}
    assert [row["which is"] for row in tables.rate_rows(found)] == [
        "between others", "the largest that was tried", "that of soft labels"]
    assert tables.rate_rows(found | {"tried": {}})[0]["which is"] == "given"


def test_a_record_of_an_older_page_is_none(monkeypatch):
    for numbers_, expected in (({"text": 1}, {"text": 1}), ({"heat": 1}, None)):
        monkeypatch.setattr(tables, "load_result", lambda _, given=numbers_: SimpleNamespace(
            numbers=given))
        assert tables.recorded() == expected


def test_code_tests_are_compared_on_the_same_prompts():
    (same,) = tables.test_changes(outcome_of([1, 0] * 20), outcome_of([1, 0] * 20), "int4")
    assert same["verdict"] == "no clear difference" and same["float32"] == "50% (10% to 90%)"
    (worse,) = tables.test_changes(outcome_of([1] * 40), outcome_of([0] * 40), "int4")
    assert worse["verdict"] == "worse" and worse["int4"].startswith("0%")
    assert tables.test_changes(outcome_of([0] * 40), outcome_of([0] * 40), "int4") == []


def test_parts_of_a_model_count_what_is_tied_once():
    model = random_model(SIZES.with_(tie_embeddings=True))
    rows = tables.part_sizes(model)
    assert sum(line["weights"] for line in rows) == sum(p.numel() for p in model.parameters())
    assert "head" not in {line["part"] for line in rows}


def test_errors_of_layers_count_the_scale_of_the_inputs():
    model = random_model(SIZES)
    ids = torch.arange(24).view(2, 12) % model.config.vocab_size
    names = {"blocks.0.attention.q_proj": model.blocks[0].attention.q_proj}
    seen = calibrate(model, names, [ids])
    plain = quantize(copy.deepcopy(model), "int4", "channel")
    (name, inputs), = seen.items()
    expected = layer_error(model.get_submodule(name).weight, plain.get_submodule(name).dequantize(),
                           inputs.products)
    assert tables.layer_errors(model, plain, seen) == pytest.approx(expected)
    scaled_too = quantize_awq(copy.deepcopy(model), [ids], "int8", "channel")
    assert tables.layer_errors(model, scaled_too, seen) < 0.05


def test_figures_say_what_they_show():
    told = []
    for figure, alt in (
            figures.plot_heat({"int8": {"channel": 0.001, "32": 0.0},
                               "int4": {"channel": 0.2, "32": 0.1}}),
            figures.plot_curves({"magnitude": {"0.5": [2.0, 3.0], "0.25": 2.0}}, 1.9),
            figures.plot_frontier(numbers()["pipeline"]["rows"]),
            figures.plot_levels(torch.linspace(-1, 1, 101), {"even": torch.linspace(-1, 1, 16)})):
        told.append(alt)
        plt.close(figure)
    assert "int4 a row +20.0 %, 32 weights +10.0 %" in told[0]
    assert told[1].endswith("magnitude: 25% gone 2.00, 50% gone 2.50.")
    assert "ten 11.4 times smaller, +5.0 %" in told[2]
    assert "even 8" in told[3]


def test_without_scripts_there_is_a_table():
    assert "<table>" in figures.bits_still({"int8": {"32": 0.001}})
