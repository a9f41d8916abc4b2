"""Chapter 06f's findings and figures, on runs that are made up."""

import shlex

import pytest
import yaml

from scratchbook.cli import parser
from scratchbook.companions import scaling_figures as figures
from scratchbook.companions import scaling_findings as told
from scratchbook.companions.scaling_runs import BUDGETS, LADDER, RATES, SEEDS, planned, sizes
from scratchbook.runtime import data_dir
from scratchbook.training.scaling_law import ScalingLaw

LAW = ScalingLaw(E=1.0, A=140.0, B=30.0, alpha=0.55, beta=0.3)


def run(parameters, budget, seed=0, rate=0.04, noise=0.0, **more):
    tokens = budget / (7 * parameters)
    loss = LAW.loss(parameters, tokens) + noise
    return {"budget": budget, "parameters": parameters, "tokens": tokens, "flops": budget,
            "loss": loss, "seed": seed, "rate": rate, "place": 3} | more


@pytest.fixture(scope="module")
def numbers():
    best = {budget: LAW.best_size(budget, 7.0) for budget in BUDGETS}
    runs = [run(best[b] * f, b, seed, noise=0.004 * (seed - 0.5) * f) for seed in SEEDS
            for b in BUDGETS for f in (0.25, 0.5, 1.0, 2.0, 4.0)]
    tried = [run(8e4, 3e11, rate=rate) for rate in RATES if rate != 0.04]
    return {"runs": [*tried, *runs, run(LAW.best_size(1e13, 7.0), 1e13, noise=0.5)]}


def test_the_planted_law_and_the_planted_surprise_are_told(numbers):
    found = told.scaling(numbers, times=40)
    assert len(found["runs"]) == 40  # neither the tried rates nor the run that is predicted
    value, low, high = found["law exponent"]
    assert low < LAW.beta / (LAW.alpha + LAW.beta) < high
    assert abs(value - LAW.beta / (LAW.alpha + LAW.beta)) < 0.02
    bottoms, *around = found["exponent"]
    assert around[0] < bottoms < around[1] and abs(bottoms - value) < 0.05
    assert "which overlap" in told.exponent_line(found)
    apart = found | {"exponent": (0.9, 0.8, 1.0)}
    assert "which do not overlap" in told.exponent_line(apart)
    row = found["target"]["by the law"]
    assert row["predicted"] - found["target"]["loss"] == pytest.approx(-0.5, abs=0.02)
    line = told.ahead_line(found)
    assert "-0.50 off" in line.replace("-0.500", "-0.50").replace("-0.49", "-0.50") or (
        "off" in line and "does not hold it" in line)
    assert line.count("does not hold it") == 2
    size = found["target"]["best size"]
    assert size == pytest.approx(LAW.best_size(1e13, 7.0), rel=0.1)
    assert f"the bottoms put at {size:,.0f}." in line
    ahead = [each["times ahead"] for each in found["backtest"]]
    line = told.missed_line(found["backtest"])
    assert line.count("nats on average") == 1 and "ten times ahead" in line
    assert max(ahead) == pytest.approx(10) and len(ahead) == 3
    assert all(abs(each["mean error, nats"]) < 0.05 for each in found["backtest"])
    for figure, alt in (figures.plot_isoflop(found), figures.plot_ahead(found)):
        assert figure.axes and f"{found['target']['loss']:.3f}" in alt or "best size" in alt


def test_a_law_is_asked_how_far_it_is_from_its_own_runs_and_what_some_of_them_change():
    runs = [run(n, b, noise=0.3 * (n < 2e4)) | {"place": 0 if n < 2e4 else 3} for b in BUDGETS
            for n in (1e4, 3e4, 1e5, 3e5)]
    target = run(2e5, 1e13)
    rows = {row["fitted to"]: row for row in told.laws_of_some(runs, target)}
    deep = rows["two layers or more"]  # the runs of one layer were moved off the law
    assert deep["runs"] == 12 and deep["misfit"] < 1e-3 and abs(deep["off"]) < 0.01
    assert deep[told.SHARE] == pytest.approx(LAW.beta / (LAW.alpha + LAW.beta), abs=0.01)
    assert rows["all"]["misfit"] > 10 * deep["misfit"]
    assert rows["all"]["at worst"] >= rows["all"]["misfit"]
    long = sum(each["tokens"] / 1024 > 299.5 for each in runs)
    assert rows["300 steps or more"]["runs"] == long < len(runs)
    line = told.misfit_line(list(rows.values()))
    assert f"The law is {rows['all']['misfit']:.3f} nats" in line
    assert f"to {max(row['predicted'] for row in rows.values()):.2f}" in line


def test_what_is_planned_follows_from_what_was_found():
    assert [plan[2] for plan in planned([])] == list(RATES)
    tried = [{"place": 3, "budget": 3e11, "seed": 0, "rate": rate, "loss": abs(rate - 0.02),
              "parameters": 8e4} for rate in RATES]
    plans = planned(tried)
    assert len(plans) == len(RATES) + 2 * sum(map(len, BUDGETS.values()))
    assert {plan[2] for plan in plans[len(RATES):]} == {0.02}
    counts = [sizes(place).d_model for place in range(len(LADDER))]
    assert len(set(counts)) == len(counts)


def test_costs_are_told_with_their_errors():
    row = {"predicted": {"parameters": 2e6, "by speed": 2.0, "by layers": 0.9, "bytes": 5e8},
           "measured": {"seconds": [1.0, 9.0, 1.0], "grown": 1e9}}
    rows = told.cost_rows({"sizes": {"one": row}})
    assert rows[0]["s, measured"] == 1.0
    line = told.cost_line(rows)
    assert "+100%" in line and "-10%" in line and "-50%" in line
    rounds = [{"1": {"clock": 1.0, "cpu": 1.0}, "2": {"clock": 0.5 + 0.01 * n, "cpu": 0.6}}
              for n in range(5)]
    line = told.pace_line({"rounds": rounds})
    assert "beside one process: more, 1.20 times (1.20 to 1.20, 5 rounds)" in line
    assert "By the clock 1.9 to 2.0 times" in line
    row["predicted"]["flops"] = 6 * 2e6 * told.STEP_TOKENS
    priced, = told.price_rows({"sizes": {"one": row}}, rate=3.0, sustained=1e12)
    assert priced["10⁶ tokens"] == 40 and priced["operations"] == "4.8e+14"
    assert priced["GPU hours"] == pytest.approx(480 / 3600)
    assert priced["dollars"] == pytest.approx(0.4)
    assert priced["days of this core"] == pytest.approx(40e6 / 512 / 86_400)


def test_the_power_is_drawn_through_to_what_it_predicts(numbers):
    found = told.scaling(numbers, times=20)
    figure, _ = figures.plot_ahead(found)
    line, = (each for each in figure.axes[0].lines if each.get_label() == "their power")
    assert line.get_xdata()[-1] == pytest.approx(1e13)
    assert line.get_ydata()[-1] == pytest.approx(found["target"]["by a power"]["predicted"])


def test_the_counter_and_the_formula_agree():
    rows = told.counter_rows(16)
    assert len(rows) == 4 and all(row["apart, %"] < 2 for row in rows)


def test_the_pipeline_and_the_memory_are_drawn():
    _, alt = figures.draw_pipeline(4, (4, 12))
    assert "4 micro-batches: 43%" in alt and "12 micro-batches: 20%" in alt
    rows = [{"way": "DDP", "parameters": 4000, "gradients": 4000, "optimizer": 8000,
             "predicted": 16_000.0}]
    assert "DDP 16 kB, formula 16" in figures.plot_memory(rows)[1]


def test_the_line_for_rented_machines_is_one_that_the_command_knows():
    task = yaml.safe_load((data_dir() / "launch/two_machines.sky.yaml").read_text("utf-8"))
    text = task["run"].replace("\\\n", " ").replace("$SKYPILOT_NUM_GPUS_PER_NODE", "8")
    text = text.replace("$SKYPILOT_NUM_NODES", str(task["num_nodes"]))
    text = text.replace('$(echo "$SKYPILOT_NODE_IPS" | head -n1)', "10.0.0.1")
    words = shlex.split(text)
    assert words[0] == "scratchbook"
    options = parser().parse_args(words[1:])
    assert (options.action, options.nproc, options.nodes) == ("launch", 8, 2)
    assert options.rendezvous == "10.0.0.1:29400" and options.restarts == 3
    inner, settings = parser().parse_known_args(options.command)
    assert inner.action == "train" and inner.preset == "code-27m"
    assert int(settings[settings.index("--train.batch_size") + 1]) % (8 * 2) == 0
