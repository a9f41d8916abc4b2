"""The races of chapter 06: recipes against each other, and one recipe without each ingredient.

Every run has a folder of its own below `RUNS`, so that a race that was stopped goes on where it
stood, and one that is finished is only read.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from scratchbook.accounting import forward_flops
from scratchbook.config import PRESETS, ModelConfig
from scratchbook.data import python_manual, standard_library
from scratchbook.data.batches import Windows
from scratchbook.model import DecoderLM
from scratchbook.runtime import repository_root
from scratchbook.teaching import bound_verdict, comparisons, mean_and_spread, verdict
from scratchbook.tokenizers import BPETokenizer, CharTokenizer
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.training import TrainConfig, read_log, train
from scratchbook.training.recipes import RECIPES, Recipe
from scratchbook.training.runs import read_config

RUNS = (repository_root() or Path.cwd()) / "build" / "runs" / "06"
OURS, THEIRS = RECIPES["shakespeare-char-cpu"], RECIPES["nanogpt-char-cpu"]


def with_steps(recipe: Recipe, max_steps: int, eval_every: int | None = None) -> Recipe:
    """The same recipe over another length; the schedule stretches with it."""
    every = eval_every or max(1, max_steps // 8)
    warmup = min(recipe.train.warmup_steps, max_steps // 10)
    return replace(recipe, train=replace(recipe.train, max_steps=max_steps, eval_every=every,
                                         checkpoint_every=max_steps, warmup_steps=warmup))


def changed(recipe: Recipe, model: dict | None = None, train: dict | None = None,
            zero_init_residual: bool | None = None) -> Recipe:
    """The same recipe with some fields changed."""
    zero = recipe.zero_init_residual if zero_init_residual is None else zero_init_residual
    return replace(recipe, model=recipe.model.with_(**model or {}), zero_init_residual=zero,
                   train=replace(recipe.train, **train or {}))


RATES = {"ours": (0.005, 0.01, 0.02), "older": (0.001, 0.002, 0.004, 0.008, 0.016)}

LONG = changed(with_steps(OURS, 16_000), train={"weight_decay": 0.3, "compile": True})

WITHOUT = {  # each ingredient put back to what the older recipe has
    "Muon for matrices": {"train": {"optimizer": "adamw", "lr": 0.001}},  # its best
    "QK-norm": {"model": {"qk_norm": False}},
    "RoPE": {"model": {"positions": "learned"}},
    "weightless RMSNorm": {"model": {"norm": "layer"}},
    "ReLU²": {"model": {"feedforward": "gelu"}},
    "outputs that start at zero": {"zero_init_residual": False},
    "a falling rate": {"train": {"schedule": "constant"}},
    "a line (cosine instead)": {"train": {"schedule": "cosine"}},
    "bfloat16": {"train": {"precision": "fp32"}},
}


def run(name: str, recipe: Recipe, seed: int, runs: Path = RUNS) -> list[dict]:
    """The log of one run: trained now, gone on with, or read when it is finished.

    Raises:   ValueError when the folder holds a finished run of another recipe
    """
    recipe = replace(recipe, train=replace(recipe.train, seed=seed))
    folder = runs / f"{name.replace(' ', '_')}-{seed}"
    data, tokenizer = recipe.build_data()
    recipe = recipe.with_vocabulary(tokenizer.vocab_size)
    done = train(recipe.build_model(), data, recipe.train, folder)
    tokenizer.save(folder / "tokenizer.json")
    return done.log


def curve(log: list[dict]) -> list[tuple[float, float]]:
    """(CPU seconds of training, validation loss) of every evaluation."""
    seconds = {entry["step"]: entry["cpu_seconds"] for entry in log if "cpu_seconds" in entry}
    return [(seconds[e["step"]], e["validation_loss"]) for e in log if "validation_loss" in e]


def race(name: str, recipe: Recipe, seeds: range, runs: Path = RUNS) -> dict:
    """A recipe over several seeds: its curves, last losses, seconds and tokens per second."""
    logs = [run(name, recipe, seed, runs) for seed in seeds]
    last = [[entry for entry in log if "cpu_seconds" in entry][-1] for log in logs]
    return {"curves": [curve(log) for log in logs], "losses": [curve(log)[-1][1] for log in logs],
            "seconds": [entry["cpu_seconds"] for entry in last],
            "tokens_per_second": [entry["tokens"] / entry["cpu_seconds"] for entry in last],
            "train_losses": [sum(e["loss"] for e in log if "loss" in e and
                                 e["step"] > entry["step"] - 50) / 50
                             for log, entry in zip(logs, last, strict=True)]}


def both_sides(steps: int, seeds: range, runs: Path = RUNS) -> dict[str, dict]:
    """Ours and the older recipe in one session: the same batch, neither compiled, run in turns.

    Each side chooses its rate with the first seed; the best goes to every seed, and the seeds run
    alternately. "tried" holds what each rate came to.
    """
    found: dict[str, dict] = {}
    for name, side in (("ours", OURS), ("older", THEIRS)):
        tried = {rate: race(f"both-{name}-{rate}", at_rate(side, rate, steps), seeds[:1], runs)
                 for rate in RATES[name]}
        rate = min(tried, key=lambda rate: tried[rate]["losses"][0])
        found[name] = {"rate": rate, "steps": steps, "tried": {
            str(tried_rate): row["losses"][0] for tried_rate, row in tried.items()}}
    for place in range(len(seeds)):  # in turns, so that a busier hour meets both
        for name, side in (("ours", OURS), ("older", THEIRS)):
            rate = found[name]["rate"]
            race(f"both-{name}-{rate}", at_rate(side, rate, steps), seeds[place : place + 1], runs)
    for name, side in (("ours", OURS), ("older", THEIRS)):
        rate = found[name]["rate"]
        found[name] |= race(f"both-{name}-{rate}", at_rate(side, rate, steps), seeds, runs)
    return found


def at_rate(recipe: Recipe, rate: float, steps: int, batch_size: int = 16) -> Recipe:
    """The same recipe at another rate, length and batch; AdamW's rate beside Muon's follows."""
    share = rate / recipe.train.lr
    return changed(with_steps(recipe, steps, steps // 4), train={
        "lr": rate, "adamw_lr": recipe.train.adamw_lr * share, "batch_size": batch_size})


def ablations(steps: int, seeds: range, runs: Path = RUNS) -> dict[str, dict]:
    """The recipe as it is, and without each ingredient, at equal steps."""
    rows = {"everything": race(f"everything-{steps}", with_steps(OURS, steps, steps), seeds, runs)}
    for name, change in WITHOUT.items():
        recipe = with_steps(changed(OURS, **change), steps, steps)
        rows[name] = race(f"without-{name}-{steps}", recipe, seeds, runs)
    return rows


def newest_run(runs: Path = RUNS) -> Path | None:
    """The folder of a finished run of the recipe, if there is one."""
    found = [path for path in sorted(runs.glob("ours-*")) if read_log(path)
             and read_config(path)["train"]["max_steps"] == read_log(path)[-1]["step"]]
    return found[0] if found else None


def early_notes(steps: int, seeds: range, runs: Path = RUNS) -> dict[str, dict]:
    """The character model of the notes from which the course grew, and its four next steps.

    All are judged in bits per byte on the same held-out end of Python's manual, so that tokenizers
    can be compared. "no causal mask" is the model as the notes had it.
    """
    text = python_manual()[:600_000]
    cut = len(text) * 9 // 10
    code = "\n".join(standard_library(max_bytes=1_000_000))
    base = PRESETS["char-513k"].with_(max_seq_len=128)
    bpe = BPETokenizer(pattern="gpt2").train(text[:cut], vocab_size=1024)
    plans = {
        "as noted, causal": {}, "no causal mask": {"causal": False},
        "1 · byte pairs": {"tokenizer": bpe},
        "2 · dropout 0.1": {"model": base.with_(dropout=0.1)},
        "3 · 4 layers, 256 wide": {"model": base.with_(num_layers=4, d_model=256, head_dim=32,
                                                       d_ff=1024)},
        "4 · manual and code": {"text": text[:cut] + code}}
    cost = [sum(forward_flops(sizes, 128).values())
            for sizes in (base, plans["3 · 4 layers, 256 wide"]["model"])]
    plans["3 · at equal operations"] = plans["3 · 4 layers, 256 wide"] | {
        "steps": round(steps * cost[0] / cost[1])}
    found = {}
    for name, plan in plans.items():
        found[name] = [_noted(f"notes-{name}", seed, plan.get("steps", steps), runs,
                              plan.get("text", text[:cut]),
                              text[cut:], plan.get("model", base), plan.get("tokenizer"),
                              plan.get("causal", True)) for seed in seeds]
    return {name: {"bits_per_byte": [log[-1]["bits_per_byte"] for log in logs],
                   "seconds": [log[-2]["cpu_seconds"] for log in logs]}
            for name, logs in found.items()}


def _noted(name: str, seed: int, steps: int, runs: Path, text: str, held_out: str,
           sizes: ModelConfig, tokenizer: Tokenizer | None, causal: bool) -> list[dict]:
    tokenizer = tokenizer or CharTokenizer().train(text)
    ids = [torch.tensor(tokenizer.encode(part)) for part in (text, held_out)]
    per_token = len(held_out.encode("utf-8")) / len(ids[1])
    torch.manual_seed(seed)
    model = DecoderLM(sizes.with_(vocab_size=tokenizer.vocab_size))
    for block in model.blocks:
        block.attention.causal = causal
    config = TrainConfig(max_steps=steps, batch_size=16, lr=1e-3, warmup_steps=steps // 20,
                         eval_every=steps, checkpoint_every=steps, precision="bf16", seed=seed)
    folder = runs / f"{name.replace(' ', '_').replace('·', '')}-{seed}"
    return train(model, Windows(*ids, 128, seed, per_token), config, folder).log


def reached(sides: Mapping) -> list[float]:
    """Seed by seed, the older recipe's CPU seconds over those in which ours came as far.

    Ours is only looked at now and then, so each ratio is a lower bound; one below 1 for a seed
    where ours never came as far is 0.
    """
    found = []
    for ours, older in zip(sides["ours"]["curves"], sides["older"]["curves"], strict=True):
        seconds, loss = older[-1]
        there = [at for at, seen in ours if seen <= loss]
        found.append(seconds / there[0] if there else 0.0)
    return found


def side_rows(sides: Mapping) -> list[dict]:
    """The two sides as rows of a table, the older one first."""
    rows = []
    for name in ("older", "ours"):
        side = sides[name]
        tried = ", ".join(f"{rate}: {loss:.3f}" for rate, loss in side["tried"].items())
        edge = list(side["tried"])[-1] == str(side["rate"])
        row = {"recipe": name, "rates tried": tried + (" (the best is the last)" if edge else ""),
               "loss": _spread(side["losses"]),
               "CPU s": _spread(side["seconds"], 0), "CPU s to the older's end": ""}
        if name == "ours":
            seconds = [older[-1][0] / times if times else math.inf for older, times in
                       zip(sides["older"]["curves"], reached(sides), strict=True)]
            row["CPU s to the older's end"] = "at most " + ", ".join(f"{s:.0f}" for s in seconds)
        rows.append(row)
    return rows


def as_documented(raced: Mapping) -> list[dict]:
    """The recipes as they are documented, and what the older one's long run says of ours."""
    target = raced["nanoGPT, long"]["losses"][0]
    rows = []
    for name, batch, compiled in (("nanoGPT", 12, "no"), ("nanoGPT, long", 12, "no"),
                                  ("ours", 16, "no"), ("ours, long", 16, "yes")):
        row = raced[name]
        said = bound_verdict(row["losses"], at_most=target) if name.startswith("ours") else ""
        rows.append({"recipe": name, "batch": batch, "compiled": compiled,
                     "seeds": len(row["losses"]), "CPU s": _spread(row["seconds"], 0),
                     "loss": _spread(row["losses"]), f"at most {target:.3f}": said})
    return rows


def paces(sizes: Mapping[str, Mapping]) -> list[dict[str, str]]:
    """Rows: ours beside the older recipe, both as written and both compiled, round by round."""
    rows = []
    for size, row in sizes.items():
        for how, end in (("as written", ""), ("compiled", ", compiled")):
            ours, older = row["rounds"][f"ours{end}"], row["rounds"][f"older{end}"]
            times = [a / b for a, b in zip(ours, older, strict=True)]
            rows.append({"size": size, "both": how,
                         "ours, characters per CPU s": f"{statistics.median(ours):,.0f}",
                         "the older's": f"{statistics.median(older):,.0f}",
                         "times": f"{statistics.median(times):.2f}",
                         "rounds": f"{min(times):.2f} to {max(times):.2f}",
                         "verdict": verdict(ours, older, "slower", "faster")})
    return rows


def summary_lines(sides: Mapping, raced: Mapping) -> list[str]:
    """The lines of the Summary that hold a result."""
    race = comparisons({"Ours": sides["ours"]["losses"], "the older recipe":
                        sides["older"]["losses"]}, against="the older recipe", unit="nats")[0]
    without = {name: row["losses"] for name, row in raced["without"].items()}
    costs = comparisons(without, against="everything", low="better", high="worse")
    groups = {word: [one.name for one in costs if one.word == word]
              for word in ("worse", "better", "no clear difference")}
    return [f"{race}, each at the best rate that was tried, in the same number of steps.",
            "Taken out alone: " + "; ".join(f"{word} without {', '.join(names)}"
                                            for word, names in groups.items() if names) + "."]


def findings(numbers: Mapping) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    lines = []
    if "filmed" in numbers:
        first, last = numbers["filmed"]
        equal, tensors = numbers["bit for bit"]
        ill = {name: named for name, named in numbers["named"].items() if name != "healthy"}
        lines += [f"The filmed run went from {first:.2f} to {last:.2f} nats per byte; of a run "
                  f"killed and resumed, {equal} of {tensors} tensors agreed in every bit.",
                  f"Of {len(ill)} planted illnesses {sum(map(bool, ill.values()))} were noticed, "
                  "with one seed, planted to be noticed; "
                  f"the healthy run was accused of {len(numbers['named']['healthy'])}."]
    if "sides" in numbers:
        times = reached(numbers["sides"])
        lines.append("The older recipe took at least "
                     + ", ".join(f"{ratio:.1f}" for ratio in times)
                     + " times the CPU seconds of ours to the loss where it ended, seed by seed.")
    if "without" in numbers:
        base = numbers["without"]["everything"]["losses"]
        costs = {name: mean_and_spread([a - b for a, b in zip(row["losses"], base, strict=True)])
                 for name, row in numbers["without"].items() if name != "everything"}
        dearest = max(costs, key=lambda name: costs[name][0])
        lines.append("The dearest ingredient: {}, {:.3f} ± {:.3f} nats.".format(
            dearest, *costs[dearest]))
    return lines


def _spread(values: Sequence[float], digits: int = 3) -> str:
    mean, half = mean_and_spread(values)
    return f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


if __name__ == "__main__":  # about twelve minutes on one core; goes on where it was stopped
    from scratchbook.teaching import record

    record("training_race", both_sides(1000, range(3)), seeds=[0, 1, 2],
           command="python -m scratchbook.companions.training_race")
