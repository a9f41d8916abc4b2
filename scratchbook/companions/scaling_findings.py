"""What chapter 06f's recorded runs say: laws, their errors ahead, costs; and the page's tables.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from scratchbook.accounting import total_parameters
from scratchbook.companions import distributed_ways as ways
from scratchbook.companions.scaling_costs import ROWS, SEQ_LEN
from scratchbook.companions.scaling_figures import parabola
from scratchbook.companions.scaling_runs import BATCH, LADDER
from scratchbook.companions.scaling_runs import SEQ_LEN as RUN_SEQ_LEN
from scratchbook.config import ModelConfig
from scratchbook.distributed.data_parallel import RankBatches
from scratchbook.distributed.zero import zero_bytes
from scratchbook.evaluation.comparing import verdict
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator
from scratchbook.teaching.figures import table_html
from scratchbook.teaching.results import Result, load_result
from scratchbook.training.optim import build_optimizer
from scratchbook.training.planning import training_flops_per_token
from scratchbook.training.scaling_law import (
    bootstrap_laws,
    fit_scaling_law,
    isoflop_minimum,
    power_law,
)

STEP_TOKENS = ROWS * SEQ_LEN
SHARE = "best size's exponent"


def recorded(name: str) -> Result:
    """One of the chapter's recorded results: "isoflop", "costs" or "ways"."""
    return load_result(f"06f_scaling_and_distributed.{name}")


def counter_rows(seq_len: int = 64) -> list[dict[str, Any]]:
    """Operations of a training step, ours and by torch's counter, for models of several kinds."""
    kinds = {"plain": {}, "shared heads": {"num_kv_heads": 2},
             "tied, GELU": {"tie_embeddings": True, "feedforward": "gelu"},
             "latent attention": {"latent_dim": 16}}
    rows = []
    for name, changes in kinds.items():
        config = ModelConfig(256, seq_len, 4, 128, 4, **changes)
        model, ids = DecoderLM(config), torch.zeros(1, seq_len, dtype=torch.long)
        for block in model.blocks:
            block.attention.impl = "eager"
        with FlopCounterMode(display=False) as counter:
            F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
        ours = training_flops_per_token(config, seq_len) * seq_len
        rows.append({"model": name, "counter, 10⁶": counter.get_total_flops() / 1e6,
                     "ours, 10⁶": ours / 1e6, "apart, %": 100 * abs(
                         ours / counter.get_total_flops() - 1),
                     "for a parameter and token": ours / seq_len / total_parameters(config)})
    return rows


def scaling(numbers: Mapping[str, Any], times: int = 200) -> dict[str, Any]:
    """Best sizes, the law with its intervals, and how wrong both are ten times ahead."""
    rate = numbers["runs"][-1]["rate"]
    target = max(numbers["runs"], key=lambda run: run["budget"])
    runs = [run for run in numbers["runs"] if run["rate"] == rate and run is not target]
    budgets = sorted({run["budget"] for run in runs})
    minima = [_minimum(runs, budget) for budget in budgets]
    law, laws = fit_scaling_law(*_columns(runs)), bootstrap_laws(*_columns(runs), times=times)
    shares = sorted(each.beta / (each.alpha + each.beta) for each in laws)
    ahead = sorted(each.loss(target["parameters"], target["tokens"]) for each in laws)
    low, high = (_middle_95(values) for values in (shares, ahead))
    drawn = _drawn_minima(runs, budgets, times)
    exponents = sorted(power_law(budgets, [size for size, _ in each])[1] for each in drawn)
    bests = sorted(_ahead(budgets, [loss for _, loss in each], target["budget"])
                   for each in drawn)
    spread = _middle_95(bests)
    found = {"budget": target["budget"], "loss": target["loss"],
             "parameters": target["parameters"],
             "best size": _ahead(budgets, [row["size"] for row in minima], target["budget"]),
             "by the law": {"predicted": law.loss(target["parameters"], target["tokens"]),
                            "low": high[0], "high": high[1]},
             "by a power": {"predicted": _ahead(budgets, [row["loss"] for row in minima],
                                                target["budget"]),
                            "low": spread[0], "high": spread[1]}}
    return {"runs": runs, "minima": minima, "law": law, "rate": rate,
            "exponent": (power_law(budgets, [row["size"] for row in minima])[1],
                         *_middle_95(exponents)),
            "law exponent": (law.beta / (law.alpha + law.beta), *low), "target": found,
            "backtest": backtest(runs, budgets),
            "some runs": laws_of_some(runs, target)}


def _columns(runs: Sequence[Mapping]) -> tuple[list[float], list[float], list[float]]:
    return tuple([run[key] for run in runs] for key in ("parameters", "tokens", "loss"))


def _middle_95(values: Sequence[float]) -> tuple[float, float]:
    cut = round(0.025 * len(values))
    return values[cut], values[-1 - cut]


def _minimum(runs: Sequence[Mapping], budget: float) -> dict[str, Any]:
    own = [run for run in runs if run["budget"] == budget]
    sizes, losses = [run["parameters"] for run in own], [run["loss"] for run in own]
    size, loss = isoflop_minimum(sizes, losses)
    u = (torch.tensor(sizes, dtype=torch.float64) / size).log()
    powers = torch.stack([torch.ones_like(u), u, u**2], dim=-1)
    bend = torch.linalg.lstsq(powers, torch.tensor(losses, dtype=torch.float64)).solution[2]
    return {"budget": budget, "size": size, "loss": loss, "fewest steps": min(map(_steps, own)),
            "tokens for each": statistics.fmean(run["flops"] for run in own) / size / 6 / size,
            "curve": parabola(sizes, size, loss, float(bend))}


def _drawn_minima(runs: Sequence[Mapping], budgets: Sequence[float], times: int
                  ) -> list[list[tuple[float, float]]]:
    """Best size and loss of each budget, its runs drawn again with replacement.

    Draws in which a parabola has no bottom are left out.
    """
    generator, drawn = named_generator(0, "bootstrap of minima"), []
    for _ in range(times):
        bottoms = []
        for budget in budgets:
            own = [run for run in runs if run["budget"] == budget]
            picks = torch.randint(len(own), (len(own),), generator=generator).tolist()
            try:
                bottoms.append(isoflop_minimum([own[i]["parameters"] for i in picks],
                                               [own[i]["loss"] for i in picks]))
            except ValueError:
                break
        else:
            drawn.append(bottoms)
    return drawn


def _ahead(budgets: Sequence[float], values: Sequence[float], target: float) -> float:
    """What a power of the budget through these values says at another one."""
    factor, exponent = power_law(budgets, values)
    return factor * target**exponent


def laws_of_some(runs: Sequence[Mapping], target: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The law fitted to all runs, and without the short ones or those of one layer.

    "misfit" is the mean distance, in nats, from the very runs that a law was fitted to.
    """
    kinds = {"all": runs, "two layers or more": [
        run for run in runs if LADDER[run["place"]][0] > 1]}
    kinds |= {f"{least} steps or more": [run for run in runs if _steps(run) >= least]
              for least in (100, 300)}
    rows = []
    for kind, some in kinds.items():
        law = fit_scaling_law(*_columns(some))
        gaps = [abs(law.loss(run["parameters"], run["tokens"]) - run["loss"]) for run in some]
        ahead = law.loss(target["parameters"], target["tokens"])
        rows.append({"fitted to": kind, "runs": len(some),
                     SHARE: law.beta / (law.alpha + law.beta),
                     "misfit": statistics.fmean(gaps), "at worst": max(gaps),
                     "predicted": ahead, "off": ahead - target["loss"]})
    return rows


def _steps(run: Mapping[str, Any]) -> int:
    return round(run["tokens"] / (BATCH * RUN_SEQ_LEN))


def backtest(runs: Sequence[Mapping], budgets: Sequence[float]) -> list[dict[str, float]]:
    """The law fitted without the largest budgets, and by how much it misses those runs."""
    rows = []
    for known in range(2, len(budgets)):
        seen = [run for run in runs if run["budget"] in budgets[:known]]
        law = fit_scaling_law(*_columns(seen))
        for budget in budgets[known:]:
            gaps = [law.loss(run["parameters"], run["tokens"]) - run["loss"] for run in runs
                    if run["budget"] == budget]
            rows.append({"fitted up to": f"{budgets[known - 1]:.0e}", "asked at": f"{budget:.0e}",
                         "times ahead": budget / budgets[known - 1],
                         "mean error, nats": statistics.fmean(gaps),
                         "worst error": max(gaps, key=abs)})
    return rows


def ahead_line(found: Mapping[str, Any]) -> str:
    """By how much each extrapolation missed the larger run, and whether its range held it."""
    said, target = [], found["target"]
    for name in ("by the law", "by a power"):
        row = target[name]
        inside = row["low"] <= target["loss"] <= row["high"]
        said.append(f"{name} {row['predicted']:.3f}, {row['predicted'] - target['loss']:+.3f} off "
                    f"(95 % of draws {row['low']:.3f} to {row['high']:.3f}, "
                    f"{'holds' if inside else 'does not hold'} it)")
    return (f"Ten times further the run of {target['parameters']:,} parameters came to "
            f"{target['loss']:.3f} nats a byte; predicted " + "; ".join(said) + ". The power "
            "tells the loss of the best size, which the bottoms put at "
            f"{target['best size']:,.0f}.")


def misfit_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """How far the law is from the runs it was fitted to, and what a choice of runs changes."""
    def span(key: str, digits: int) -> str:
        values = [row[key] for row in rows]
        return f"{min(values):.{digits}f} to {max(values):.{digits}f}"

    return (f"The law is {rows[0]['misfit']:.3f} nats on average ({rows[0]['at worst']:.3f} at "
            "worst) from the runs that it was fitted to; without the short ones or those of one "
            f"layer its exponent runs from {span(SHARE, 2)}, its forecast from "
            f"{span('predicted', 2)}.")


def exponent_line(found: Mapping[str, Any]) -> str:
    """How the best size grows with the budget, by both ways."""
    said = [f"{value:.2f} {name} ({low:.2f} to {high:.2f})" for name, (value, low, high) in (
        ("by the bottoms of the parabolas", found["exponent"]),
        ("by the law", found["law exponent"]))]
    (_, *one), (_, *other) = found["exponent"], found["law exponent"]
    overlap = max(one[0], other[0]) <= min(one[1], other[1])
    return (f"The best size grows as operations to the power {', '.join(said)}: 95 % of bootstrap "
            f"draws, which {'overlap' if overlap else 'do not overlap'}.")


def trained_wrongly(ranks: int) -> dict[str, dict[str, Any]]:
    """Two mistakes of data parallel training, made in one process: the weights of rank 0.

    Without the sum it learns from its own rows alone; a sum that is not divided is a mean times
    the number of ranks.
    """
    found = {}
    for name, data, factor in (
            ("the sum forgotten", RankBatches(ways.same_batches(), 0, ranks), 1),
            ("a sum for the mean", ways.same_batches(), ranks)):
        model = ways.same_model()
        optimizer = build_optimizer(model, **ways.OPTIONS)
        for step in range(ways.STEPS):
            optimizer.zero_grad()
            (factor * ways.mean_loss(model, data.batch(step, ways.ROWS))).backward()
            optimizer.step()
        found[name] = {"weights": {n: p.detach() for n, p in model.named_parameters()}}
    return found


def cost_rows(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Predicted and measured seconds of a step and megabytes of a process."""
    rows = []
    for name, row in numbers["sizes"].items():
        guess, found = row["predicted"], statistics.median(row["measured"]["seconds"])
        rows.append({"model": name, "10⁶ parameters": guess["parameters"] / 1e6,
                     "s, by speed": guess["by speed"], "s, by layers": guess["by layers"],
                     "s, measured": found, "MB, predicted": guess["bytes"] / 1e6,
                     "MB, measured": row["measured"]["grown"] / 1e6})
    return rows


def cost_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """The errors of the three predictions, size by size."""
    def errors(guess: str, found: str) -> str:
        return ", ".join(f"{row[guess] / row[found] - 1:+.0%}" for row in rows)

    return (f"Predicted less measured for {', '.join(row['model'] for row in rows)}: seconds by a "
            f"small model's speed {errors('s, by speed', 's, measured')}; by two thin ones "
            f"{errors('s, by layers', 's, measured')}; memory "
            f"{errors('MB, predicted', 'MB, measured')}.")


def pace_line(numbers: Mapping[str, Any]) -> str:
    """Two processes beside one on the same batch, round by round: work, and the clock.

    Of the two, rank 0 was measured; its CPU time counts twice.
    """
    one, two = ([each[nproc]["cpu"] for each in numbers["rounds"]] for nproc in ("1", "2"))
    both = [2 * each for each in two]
    work = [a / b for a, b in zip(both, one, strict=True)]
    times = [each["1"]["clock"] / each["2"]["clock"] for each in numbers["rounds"]]
    judged = verdict(both, one, "less", "more")
    return (f"CPU time for the same batch, twice that of rank 0 of two beside one process: "
            f"{judged}, {statistics.median(work):.2f} times ({min(work):.2f} to "
            f"{max(work):.2f}, {len(work)} rounds). By the clock {min(times):.1f} to "
            f"{max(times):.1f} times as fast.")


def missed_line(rows: Sequence[Mapping[str, float]]) -> str:
    """How wrong the law was about runs of ten times more operations than it had seen."""
    far = [row for row in rows if row["times ahead"] > 9]
    return "The law, asked ten times ahead of what it was fitted to, missed by " + ", ".join(
        f"{row['mean error, nats']:+.3f} nats on average ({row['worst error']:+.3f} at worst)"
        for row in far) + "."


def price_rows(numbers: Mapping[str, Any], rate: float, sustained: float = 50e12,
               tokens_for_each: int = 20) -> list[dict[str, Any]]:
    """A whole run of each larger model: on this core at its measured pace, on an assumed GPU."""
    rows = []
    for name, row in numbers["sizes"].items():
        guess, step = row["predicted"], statistics.median(row["measured"]["seconds"])
        tokens = tokens_for_each * guess["parameters"]
        flops = guess["flops"] / STEP_TOKENS * tokens
        rows.append({"model": name, "10⁶ tokens": tokens / 1e6, "operations": f"{flops:.1e}",
                     "days of this core": step / STEP_TOKENS * tokens / 86_400,
                     "GPU hours": flops / sustained / 3600,
                     "dollars": flops / sustained / 3600 * rate})
    return rows


def run_cost(parameters: float, tokens_each: float, ranks: int, speed: float, price: float
             ) -> dict[str, float]:
    """Operations by the rule of six, hours on all ranks together, and dollars.

    `speed` are the operations a second that each rank sustains, `price` its dollars an hour.
    """
    flops = 6 * parameters * tokens_each * parameters
    hours = flops / (speed * ranks) / 3600
    return {"flops": flops, "hours": hours, "dollars": hours * ranks * price}


def cost_still(start: Mapping[str, Any]) -> str:
    """A table that stands in for the living calculator where scripts are off."""
    rows = []
    for stage, way in enumerate(("data parallel", "ZeRO-1", "ZeRO-2", "ZeRO-3")):
        held = sum(zero_bytes(start["parameters"], start["ranks"], stage).values())
        rows.append({"way": way, "GB on each rank": held / 1e9})
    return table_html(rows, f"{start['parameters']:.0e} parameters on {start['ranks']} ranks")
