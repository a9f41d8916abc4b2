"""Costs, sizes, sides and rows of chapter 09: what its page says of numbers that are known."""

import re

import matplotlib
import pytest

from scratchbook.companions import smalltalk_card as card
from scratchbook.companions import smalltalk_costs as costs
from scratchbook.companions import smalltalk_figures as figures
from scratchbook.companions import smalltalk_tables as tables
from scratchbook.companions.smalltalk_training import GROUP, cost_rows, curve, difference
from scratchbook.smalltalk_model import RECIPES, load_tokenizer
from scratchbook.teaching.figures import figure_svg
from scratchbook.training.planning import plan

matplotlib.use("agg")


def apart(edit, ours, other, amber, methods):
    return {"edit": edit, "ours": ours, "tree-sitter": other, "amber": amber, "methods": methods}


def test_a_third_parser_takes_sides_and_its_word_is_weighed():
    counts = [apart("colon", True, True, False, 9), apart("colon", False, True, False, 5),
              apart("colon", True, False, False, 2)]
    line = tables.sides({"counts": counts})
    assert "differ on 7 methods: ours refuses 5 of them, tree-sitter 2" in line
    assert line.endswith("says on 5.")
    counts += [apart("as it is", True, True, False, 3), apart("as it is", True, True, True, 20)]
    assert "refuses 3 of 23 unbroken methods" in tables.sides({"counts": counts})


def test_what_the_model_read_is_audited_beside_what_was_written():
    def audit(methods, exact):
        return {"audit": {"test": {"methods": methods, "exact": exact, "compared": 50,
                                   "near": {"0.8": 0.02}}}}

    lines = tables.audit_lines(audit(3_000, 0), audit(3_001, 7))
    assert lines[0] == ("test, as written: 0 of 3,000 word for word in the training text; of 50 "
                        "long ones 2.00 % at 0.8 or more.")
    assert lines[1].startswith("test, in one style: 7 of 3,001")
    assert lines[2].startswith("Written in one style, methods become equal: 7 of 3,001 test")


def test_what_a_budget_takes_is_the_share_of_the_peak():
    cost = {"recipe": "89m", "bytes": 9e9, "tokens": 100, "hours": {costs.CARD: 12}}
    rows = costs.budget_rows({"cost": [cost, cost | {"recipe": "small"}], "epoch_tokens": 10})
    assert [row["verdict"] for row in rows] == [
        "missed", "met if at least 20% of the peak is reached",
        "met if at least 24% of the peak is reached"]
    assert rows[2]["computed"] == "1.2 hours"
    assert costs.needed(61, 24) == "missed, even at the peak"


def test_no_hours_on_a_card_for_what_runs_on_a_processor():
    cost = {"bytes": 1e9, "parameters": 7, "tokens": 1e6, "hours": {"H100": 0.5}}
    small, large = costs.cost_rows({"predicted_cpu_seconds": 7200, "cost": [
        cost | {"recipe": "small"}, cost | {"recipe": "89m"}]})
    assert (small["H100, hours"], small["a processor here, hours"]) == ("—", "2.0")
    assert (large["H100, hours"], large["a processor here, hours"]) == ("0.5", "")


def test_the_largest_size_is_read_at_the_operations_of_a_smaller_one():
    def size(parameters, each, loss):
        return {"parameters": parameters, "flops_per_step": each, "steps": [10, 20], "loss": loss,
                "bits_per_byte": 2.0}

    sizes = {"small": size(1, 1.0, [5, 4]), "mid": size(2, 2.0, [5, 3.5]),
             "large": size(3, 2.5, [4.5, 3])}
    assert [row[costs.MIDDLE] for row in costs.size_rows(sizes)] == [
        "no step measured", "4.50", "at its end"]
    assert "20 steps, and the learning rate that was chosen for large" in costs.size_line(sizes)
    figure, alt = figures.plot_sizes({"small": size(1, 1.0, [5, 4])})
    assert "4.00 nats after 2.0e+01 operations" in alt and "<svg" in figure_svg(figure, alt)


def rows_read(never=2.6, once=2.5, held=3.4):
    def interval(value):
        return {"rows": 300, "value": value, "low": value - 0.03, "high": value + 0.03}

    nats = {"never": interval(never), "once": interval(once), "more than once": interval(2.3),
            "held-out projects": interval(held)}
    return {"nats": nats, "shares": {"never": 0.364, "once": 0.369, "more than once": 0.267}}


def test_a_difference_of_two_intervals():
    found = difference({"value": 3, "low": 2.7, "high": 3.4}, {"value": 1, "low": 0.7, "high": 1.4})
    assert found == {"value": 2, "low": pytest.approx(1.5), "high": pytest.approx(2.5),
                     "verdict": "more"}
    same = {"value": 1, "low": 0.5, "high": 1.5}
    assert difference(same, same)["verdict"] == "no clear difference"


def test_the_gap_is_told_in_its_two_parts():
    line = costs.rows_line({"by_times_read": rows_read()})
    assert "36% of them never, 27% more than once" in line and "300 rows of each kind" in line
    assert "never less once +0.10 (+0.06 to +0.14), more" in line
    assert "never less more than once +0.30" in line
    assert "held-out projects less never +0.80" in line
    assert "once +0.00 (-0.04 to +0.04), no clear" in costs.rows_line(
        {"by_times_read": rows_read(once=2.6)})


def test_the_gain_of_the_cut_is_parted():
    rows = {"ours": {"a": 4.0, "b": 4.0}, tables.LAYOUT: {"a": 3.2, "b": 3.2},
            tables.PLAIN: {"a": 2.0, "b": 2.0}}
    line = tables.gain_line({"chars_per_token": rows})
    assert "kept whole gives 1.60 times" in line and "beyond that, 1.25 times" in line
    assert "both together 2.00 times" in line


def test_near_answers_are_counted_among_those_compared():
    held = {"examples": 10, "compared": 8, "exact": 0, "near": 0.25}
    found = {"examples": 5, "learned_characters": 9, "projects": 1, "gini": 0.5}
    row, = tables.task_rows({"account": {"train": {"fill in": found}}, "audit": {
        "validation: fill in": held, "test: fill in": held | {"near": 0}}})
    assert row["long answers nearly told"] == "2 of 16" and row["held-out examples"] == 20


def test_a_row_of_samples_counts_messages_of_methods_alone():
    row = tables.sample_row("me", ["x ^ self foo bar", "x ^ ("], {"foo"}, 1)
    assert (row["messages in valid ones"], row["cut off"]) == (2, 1)
    assert row["of known selectors"].startswith("50 %") and row["valid"].startswith("50 %")


def test_messages_of_one_method_share_their_luck():
    def width(sources):
        low, high = re.findall(r"[(](\d+) to (\d+)",
                               tables.sample_row("me", sources, {"foo"})["of known selectors"])[0]
        return int(high) - int(low)

    known, unknown = "x ^ self" + " foo" * 20, "x ^ self" + " bar" * 20
    assert width([known, unknown] * 2) > 80  # 80 messages, but four methods
    assert width(["x ^ self foo bar"] * 40) < width(["x ^ self foo bar"] * 4)
    assert width([known] * 3) > 50  # three methods that agree are no certainty


def test_what_was_asked_of_the_shape_is_met():
    assert {row["verdict"] for row in costs.range_rows()} == {"met"}


def test_costs_of_all_recipes():
    rows = cost_rows()
    assert [row["recipe"] for row in rows] == ["small", "23m", "89m"]
    assert all(row["bytes"] < 8e9 and row["parameters"] < 1e8 for row in rows)
    assert rows[2]["hours"]["RTX 3060, 12 GB"] > 10 * rows[2]["hours"]["H100"]
    large = RECIPES["89m"].with_vocabulary(load_tokenizer().vocab_size)
    plain = plan(large).hours(0.4 * 989e12)  # without the second forward pass
    assert rows[2]["hours"]["H100"] == pytest.approx(4 / 3 * plain)


def test_a_curve_keeps_whole_groups_alone():
    log = [{"step": n, "loss": float(n), "tokens": 10 * n} for n in range(1, GROUP + 10)]
    found = curve([*log, {"step": 5, "validation_loss": 1.0}])
    assert found == {"steps": [GROUP], "tokens": [10 * GROUP], "loss": [(GROUP + 1) / 2]}


def test_the_card_on_the_page_takes_what_the_model_read():
    audit = {"test": {"methods": 3_001, "exact": 7}}
    split = {"methods": 9_000, "bytes": 2e6, "projects": 3, "methods_by_licence": {"MIT": 9_000}}
    gap = {"value": 0.005, "low": 0.004, "high": 0.006, "verdict": "worse"}
    shipping = {"corpus": {"audit": audit, "splits": {"train": split}}, "chosen": "int4",
                "roundings": {"int4": {"change": gap}}}
    run = {"parameters": 7, "seq_len": 256, "steps": 5, "tokens": 100, "cpu_seconds": 7200,
           "by_times_read": rows_read()}
    found = {"value": 0.03, "low": 0.01, "high": 0.08}
    valid = {"validity": {"all judges": found, "at_training_lengths": {"all judges": found}}}
    judged = {"model": {"step": 500},
              "copied": dict.fromkeys(("model", "people"), {"word_for_word": found}),
              "samples": dict.fromkeys(("model", "people", "a training method, whole"), valid),
              "surprise": {"methods": 600, "bits_per_character": {"model": found}},
              "completion": {"rivals": {"model": {"exact": {"value": 0.063}},
                                        "Kneser-Ney": {"exact": {"value": 0.015}}}}}
    rows = {row[""]: row["what"] for row in card.page_rows(shipping, run, judged)}
    assert rows["word for word from training"] == (
        "model 3.0 % (1.0 to 8.0); people 3.0 % (1.0 to 8.0)")
    assert "600 methods of unseen" in " ".join(rows)
    assert rows["learned from"] == "9,000 methods, 2.0 MB, of 3 projects, in one style"
    assert "7 of 3,001 test methods" in rows["held-out text in it"]
    assert "never" in rows["training"] and "+0.0050" in rows["the file beside this page"]
    assert rows["judged"] == "the weights of step 500, not rounded"
    assert rows["statements completed, the same tokens"] == "model 6.3 %, Kneser-Ney 1.5 %"
    assert card.page_rows(shipping, run, None)[-3]["what"] == tables.MISSING
