"""The recorded experiments of chapter 08, each a dictionary that JSON can hold.

    python -m scratchbook.companions.lora_runs          # 50 minutes of a core; goes on when stopped
    python -m scratchbook.companions.lora_runs family   # one part anew, the others as recorded

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import contextlib
import copy
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median

from torch import nn

from scratchbook.base_model import base_documents
from scratchbook.companions import lora_tasks
from scratchbook.companions.lora_bench import (
    BATCH,
    RUNS,
    STEPS,
    TUNING_SEED,
    Bench,
    Make,
    bits,
    judged,
)
from scratchbook.companions.lora_controls import apply_dora, apply_drawn
from scratchbook.companions.lora_replay import Replay, text_rows
from scratchbook.finetuning import (
    METHODS,
    apply_lora,
    apply_syntax_lora,
    class_shares,
    equal_budget,
    qlora,
    ranks_by_class,
    trainable_count,
)
from scratchbook.finetuning.data import Example, FineTuningData, bytes_of_answers
from scratchbook.finetuning.tuning_memory import measured_saved_bytes, step_bytes
from scratchbook.teaching.results import Result, load_result, record

MEASURE = "bits per byte of the answers"
RATES = {"full": (1e-4, 2e-4, 5e-4, 1e-3), "LoRA": (1e-3, 3e-3, 1e-2, 3e-2)}
SMALL_RATES = {"LoRA": (3e-3, 1e-2, 3e-2), "DoRA": (3e-3, 1e-2, 3e-2),
               "ia3": (1e-2, 3e-2, 1e-1), "prefix": (1e-1, 3e-1, 1.0),
               "bottleneck": (3e-3, 1e-2, 3e-2), "bitfit": (1e-2, 3e-2, 1e-1)}
SYNTAX_RATE = 3e-3
MARK_RATES = {"full": (5e-5, 1e-4, 2e-4, 5e-4), "LoRA": (5e-4, 1e-3, 3e-3, 1e-2)}
TARGETS = {"q, v": ("q_proj", "v_proj"), "all layers": "all-linear"}
LORA_RANK = 8
COUNTS = (25, 50, 100, 250, 500, 1000)


def lora(targets: str, lora_rank: int) -> Make:
    """Makes the adapted model; alpha is twice the rank, so that the scale is 2."""
    return lambda model: apply_lora(model, TARGETS[targets], lora_rank, 2 * lora_rank)


def whole(model: nn.Module) -> nn.Module:
    """Full fine-tuning: nothing is frozen."""
    return model.requires_grad_(True)


def tuned_lora(bench: Bench, targets: str = "all layers", lora_rank: int = LORA_RANK,
               seeds: Sequence[int] | None = None) -> dict:
    """LoRA at the rate that is best for it."""
    return bench.tuned(f"LoRA {targets} {lora_rank}", lora(targets, lora_rank), RATES["LoRA"],
                       seeds)


def tuned_full(bench: Bench) -> dict:
    """Every weight of the base, at the rate that is best for that."""
    return bench.tuned("full", whole, RATES["full"])


EXPERIMENTS = {"against": lambda bench: {"against": against(bench)},
               "code_aware": lambda bench: {"code_aware": code_aware(bench)},
               "code_again": lambda bench: {"code_again": code_again(bench)},
               "at_the_mark": lambda bench: {"at_the_mark": at_the_mark(bench)},
               "forgetting": lambda bench: {"forgetting": forgetting(bench)},
               "memory": lambda bench: {"memory": memory(bench)},
               "family": lambda bench: {"family": family(bench)},
               "grid": lambda bench: grid(bench),
               "sizes": lambda bench: {"sizes": sizes(bench)}}


def everything(seeds: Sequence[int], steps: int = STEPS, runs: Path | None = RUNS,
               only: Sequence[str] = tuple(EXPERIMENTS)) -> dict:
    """All experiments of the chapter, or some; about 50 minutes for five seeds on one core.

    Raises:   ValueError naming the experiments that there are
    """
    if unknown := [name for name in only if name not in EXPERIMENTS]:
        raise ValueError(f"no experiment is called {unknown[0]!r}; there are: "
                         f"{', '.join(EXPERIMENTS)}")
    bench = Bench(seeds, steps, runs)
    numbers = {"measure": MEASURE, "steps": steps, "batch": BATCH, "tuning seed": TUNING_SEED,
               "base": bench.known, "held out": lora_tasks.HELD_OUT}
    for name in only:
        numbers |= EXPERIMENTS[name](bench)
    return numbers


def renewed(found: Mapping, only: Sequence[str], recorded: Result) -> dict:
    """The recorded numbers with those of some experiments exchanged; "older" says which were not.

    Raises:   ValueError when they are of different bases or steps
    """
    for name in ("base", "steps", "batch", "held out"):
        if found[name] != recorded.numbers[name]:
            raise ValueError(f"{name}: {found[name]} here, {recorded.numbers[name]} in what is "
                             "recorded: record all experiments")
    kept = [name for name in EXPERIMENTS if name not in only and name in recorded.numbers]
    older = recorded.numbers.get("older", {})
    when = f"{recorded.date[:10]} at commit {recorded.commit[:10]}"
    return {**recorded.numbers, **found, "older": {name: older.get(name, when) for name in kept}}


def against(bench: Bench, counts: Sequence[int] = (1, 2, 4)) -> dict:
    """E08.1: the base, the base with solved examples in its prompt, LoRA, full fine-tuning.

    How many examples to show is chosen as a rate is: by the tuning seed.
    """
    shots = {count: prompted(bench, count, TUNING_SEED)["bits"] for count in counts}
    best = min(shots, key=lambda count: shots[count])
    some = f"{best} example{'s' * (best > 1)} in the prompt"
    found = [prompted(bench, best, seed) for seed in bench.seeds]
    plain = [judged(bench.base, bench.task(bench.seeds[0]))] * len(bench.seeds)  # draws nothing
    fixed = {"trainable": 0, "rate": None, "seconds": []}
    return {"base": _columns(plain) | fixed | {"tried": {}},
            some: _columns(found) | fixed | {
                "tried": {str(count): bit for count, bit in shots.items()}},
            "LoRA": tuned_lora(bench), "full": tuned_full(bench)}


def _columns(found: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {"bits": [run["bits"] for run in found], "accuracy": [run["exact"] for run in found]}


def prompted(bench: Bench, count: int, seed: int) -> dict[str, float]:
    """The base on the held-out answers behind `count` solved examples, drawn by the seed."""
    data = bench.task(seed)
    solved = [token for example in data.train[:count] for token in example.ids]
    asked = [Example(solved + e.ids, [False] * len(solved) + e.answer)
             for e in data.validation_examples]
    size = bytes_of_answers(asked, bench.tokenizer)
    return bench.kept(["prompt", count, seed, data.fingerprint()], lambda: judged(
        bench.base, FineTuningData(data.train[:1], asked, seed, size)))


def grid(bench: Bench, ranks: Sequence[int] = (1, 8, 16)) -> dict:
    """E08.2: ranks by targets, the first three seeds; each row at the rate tuned at rank 8."""
    cells: dict[str, dict[str, dict]] = {}
    for name in TARGETS:
        rate = tuned_lora(bench, name, seeds=bench.seeds[:3])["rate"]
        cells[name] = {str(rank): bench.tuned(f"LoRA {name} {rank}", lora(name, rank), (rate,),
                                              bench.seeds[:3]) for rank in ranks}
    return {f"grid{end}": {name: {rank: cell[what] for rank, cell in line.items()}
                           for name, line in cells.items()}
            for end, what in (("", "bits"), ("_trainable", "trainable"), ("_rates", "rate"))}


def family(bench: Bench) -> dict:
    """Every method at about the count of numbers that BitFit has, DoRA's lengths included.

    The first three seeds.
    """
    count = trainable_count("bitfit", bench.base, add_biases=True)
    options = equal_budget("lora", bench.base, count).options
    equal = trainable_count("lora", bench.base, **options)
    makes: dict[str, Make] = {"LoRA": lambda model: apply_lora(model, **options),
                              "DoRA": lambda model: apply_dora(model, equal)}
    for name, fixed in (("ia3", {}), ("prefix", {}), ("bottleneck", {}),
                        ("bitfit", {"add_biases": True})):
        own = equal_budget(name, bench.base, count, **fixed).options
        makes[name] = lambda model, name=name, own=own: METHODS[name](model, **own)
    shown = {"ia3": "IA3", "prefix": "prefix tuning", "bottleneck": "bottleneck adapters",
             "bitfit": "BitFit, biases added"}
    return {shown.get(name, name): bench.tuned(f"family {name} of {equal}", make,
                                               SMALL_RATES[name], bench.seeds[:3])
            for name, make in makes.items()}


def code_aware(bench: Bench, lora_rank: int = LORA_RANK, every: int = 4) -> dict:
    """E08.5: LoRA, its rank divided among classes of tokens, and a part gated by them.

    "steps" are those to the mark, plain LoRA's mean half-way, looked at `every` so many steps; a
    run that never came there counts as one more look than there was.
    """
    found = {name: bench.tuned(f"code {name}", make, RATES["LoRA"][:3], every=every)
             for name, make in _syntax_ways(bench, lora_rank).items() if "drawn" not in name}
    half = [min(curve, key=lambda point: abs(point[0] - bench.steps / 2))[1]
            for curve in found["plain"]["curves"]]
    for name, row in found.items():
        row["mark"], row["groups"] = mean(half), _groups(bench, lora_rank)[0][name]
        row["steps"] = [next((step for step, bit in curve if bit <= row["mark"]),
                             bench.steps + every) for curve in row["curves"]]
    return found


def code_again(bench: Bench, lora_rank: int = LORA_RANK) -> dict:
    """E08.5 once more for what had seemed better, on seeds that had no part in it; a control.

    In the control the classes are drawn for each token of the vocabulary: as many directions, the
    same gates and scales, and no syntax. All take the rate that the first time was best for plain
    LoRA and for the gated one; for the control none was looked for.
    """
    fresh = [seed + len(bench.seeds) for seed in bench.seeds]
    runs = {name: [bench.run(f"code {name}", make, SYNTAX_RATE, seed) for seed in fresh]
            for name, make in _syntax_ways(bench, lora_rank).items() if "rank" not in name}
    return {name: {"bits": [run["bits"] for run in found], "rate": SYNTAX_RATE, "seeds": fresh,
                   "trainable": found[0]["trainable"]} for name, found in runs.items()}


def _groups(bench: Bench, lora_rank: int) -> tuple[dict[str, dict[str, int]], dict[str, float]]:
    """Ranks by group of classes, for each kind of adapter; and the classes' shares."""
    shares = class_shares(bench.tokenizer, [e.ids for e in bench.task(TUNING_SEED).train])
    ranks = ranks_by_class(shares, lora_rank)
    return {"plain": {"all": lora_rank},
            "ranks by class": {name: rank for name, rank in ranks.items() if rank},
            "gated": {"all": 4, "keyword+operator+layout": 2, "name": 1,
                      "literal+comment+other": 1}}, shares


def _syntax_ways(bench: Bench, lora_rank: int) -> dict[str, Make]:
    groups, shares = _groups(bench, lora_rank)
    how = {"targets": "all-linear", "lora_alpha": 2 * lora_rank}
    ways: dict[str, Make] = {
        name: lambda model, ranks=ranks: apply_syntax_lora(model, bench.tokenizer, ranks, **how)
        for name, ranks in groups.items()}
    return ways | {"gated, classes drawn": lambda model: apply_drawn(
        model, bench.tokenizer, groups["gated"], shares, seed=TUNING_SEED, **how)}


def sizes(bench: Bench, counts: Sequence[int] = COUNTS, full: Sequence[int] = (25, 100)
          ) -> dict:
    """E08.4: more and more examples, at the rates that 200 chose, the first three seeds.

    The steps are the same, but for counts that need more to be read once. Full fine-tuning is run
    at the counts of `full` alone.
    """
    ways = {"LoRA": (lora("all layers", LORA_RANK), tuned_lora(bench)["rate"], counts),
            "full": (whole, tuned_full(bench)["rate"], full)}
    return {way: {str(count): [bench.run(way, make, rate, seed, count,
                                         max(bench.steps, -(-count // BATCH)))["bits"]
                               for seed in bench.seeds[:3]] for count in some}
            for way, (make, rate, some) in ways.items()}


def forgetting(bench: Bench) -> dict:
    """E08.6: two tasks one after the other; what changes on both and on the base's own text.

    The first three seeds.
    """
    rates = {"full": tuned_full(bench)["rate"], "LoRA": tuned_lora(bench)["rate"]}
    text, old = _own_text(bench)
    held = (text, *(bench.task(0, name=name) for name in lora_tasks.TASKS))  # same for all seeds
    before = [bits(bench.base, some) for some in held]
    ways: dict[str, list] = {}
    for way in ("full", "full, replay", "LoRA", "LoRA, replay"):
        lr = rates[way.split(",")[0]]
        runs = [bench.kept([f"in turn {way}", lr, seed, bench.steps, text.fingerprint()],
                           lambda way=way, lr=lr, seed=seed: _in_turn(
                               bench, way, lr, held, old, seed)) for seed in bench.seeds[:3]]
        ways[way] = [[[run[row][column] for run in runs]
                      for column in range(1 + len(lora_tasks.TASKS))]
                     for row in range(len(lora_tasks.TASKS))]
    return {"tasks": ["base text", *lora_tasks.TASKS], "base bits": before[0],
            "ways": {way: [[[cell - start for cell in column]
                            for column, start in zip(row, before, strict=True)] for row in rows]
                     for way, rows in ways.items()}}


def _in_turn(bench: Bench, way: str, lr: float, held: Sequence[FineTuningData],
             old: Sequence[Example], seed: int) -> list[list[float]]:
    """Bits on each held-out part after each task: rows are what was learned last."""
    data = [bench.task(seed, name=name) for name in lora_tasks.TASKS]
    model = bench.made(lora("all layers", LORA_RANK) if way.startswith("LoRA") else whole, seed)
    rows = []
    for number, some in enumerate(data):
        past = [old, *(earlier.train for earlier in data[:number])]
        bench.learn(model, Replay(some, past) if "replay" in way else some, lr, seed)
        rows.append([bits(model, part) for part in held])
    return rows


def at_the_mark(bench: Bench, part: float = 1 / 3, steps: int = 80, every: int = 4) -> dict:
    """E08.6 by rate: each run stops at the first look that finds the task at the mark.

    The mark is `part` of the base's bits on "calls", chosen before any of these runs. One seed,
    the tuning seed: a picture of what the rate does, and no verdict.
    """
    text = _own_text(bench)[0]
    mark = part * judged(bench.base, bench.task(0))["bits"]
    key = [mark, steps, every, text.fingerprint()]
    return {"mark": mark, "steps": steps, "every": every, "base bits": bits(bench.base, text),
            "tried": {way: {f"{lr:g}": bench.kept(
                [f"mark {way}", lr, TUNING_SEED, *key], lambda way=way, lr=lr: _to_the_mark(
                    bench, way, lr, (mark, steps, every), text)) for lr in rates}
                      for way, rates in MARK_RATES.items()}}


class _Reached(Exception):
    """The task is at the mark."""


def _to_the_mark(bench: Bench, way: str, lr: float, when: tuple[float, int, int],
                 text: FineTuningData) -> dict:
    """{"reached": whether, "step", "task": bits, "text": bits of the base's own text}."""
    mark, steps, every = when
    data = bench.task(TUNING_SEED)
    model = bench.made(lora("all layers", LORA_RANK) if way == "LoRA" else whole, TUNING_SEED)
    at = {"step": 0, "task": float("inf")}

    def look(step: int, model: nn.Module) -> None:
        if step and step % every == 0:
            at.update(step=step, task=bits(model, data))
            if at["task"] <= mark:
                raise _Reached

    with contextlib.suppress(_Reached):
        bench.learn(model, data, lr, TUNING_SEED, steps, on_step=look)
    return at | {"reached": at["task"] <= mark, "text": bits(model, text)}


def _own_text(bench: Bench) -> tuple[FineTuningData, list[Example]]:
    """The base's own text: what is held out, as data; and rows of what it was trained on."""
    read, held_out = base_documents()
    own = text_rows(held_out, bench.tokenizer, rows=24, length=128)
    return (FineTuningData(own[:1], own, 0, bytes_of_answers(own, bench.tokenizer)),
            text_rows(read, bench.tokenizer, rows=200, length=32))


def memory(bench: Bench, rounds: int = 5) -> list[dict]:
    """E08.3: bytes by formula and as measured, and a step's time, all ways in turns."""
    models: Mapping[str, nn.Module] = {
        "full": whole(copy.deepcopy(bench.base)),
        "LoRA": lora("all layers", LORA_RANK)(copy.deepcopy(bench.base)),
        "QLoRA": qlora(copy.deepcopy(bench.base), "all-linear", LORA_RANK,
                       2 * LORA_RANK)}
    batch = bench.task(0).batch(0, BATCH)
    spent: dict[str, list[float]] = {way: [] for way in models}
    for _ in range(rounds):
        for way, model in models.items():
            start = time.perf_counter()
            model.zero_grad()
            logits = model.train()(batch.ids)
            nn.functional.cross_entropy(logits.transpose(1, 2), batch.targets).backward()
            spent[way].append(1000 * (time.perf_counter() - start))
    rows = []
    for way, model in models.items():
        found = step_bytes(model, *batch.ids.shape)
        rows.append({"way": way, "weights": found["weights"], "gradients": found["gradients"],
                     "optimizer": found["optimizer"], "saved, formula": found["saved"],
                     "saved, measured": measured_saved_bytes(model, batch.ids, batch.targets),
                     "ms a step": median(spent[way])})
    return rows


def main(only: Sequence[str]) -> None:
    """Record all experiments, or some of them beside what is recorded of the others."""
    found = everything(range(5), only=only or tuple(EXPERIMENTS))
    if only:
        found = renewed(found, only, load_result("08_lora_runs"))
    record("08_lora_runs", found, seeds=list(range(5)),
           command="python -m scratchbook.companions.lora_runs")


if __name__ == "__main__":
    main(sys.argv[1:])
