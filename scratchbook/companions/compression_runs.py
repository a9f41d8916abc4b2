"""The experiments of chapter 07: students and their controls, rounding within training.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from scratchbook.companions.compression_material import (
    BUDGET,
    FULL,
    QUICK,
    RATES,
    TUNING_SEED,
    WAYS,
    Sizes,
    bits,
    judged_on,
    kept,
    mark,
    new_student,
    recipe,
    round_later,
    teach,
    windows,
)
from scratchbook.companions.sparsity_runs import sparsity
from scratchbook.compression import quantize
from scratchbook.compression.distillation import agreement
from scratchbook.compression.measuring import writing_speed
from scratchbook.compression.shrinking import keep_layers, spread_layers
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.tokenizers.base import Tokenizer

__all__ = ["distillation", "qat", "sparsity"]
LONGER = "hard labels, as many seconds"
PROGRESSIVE = ["progressive, hard labels", "progressive"]
PAIRS = [["soft labels", "hard labels"], ["+ features", "soft labels"],
         ["+ attention", "soft labels"], ["progressive", "progressive, hard labels"]]


def distillation(model: DecoderLM, tokenizer: Tokenizer, seeds: Sequence[int], full: bool,
                 runs: Path | None = None, sizes: Sizes | None = None) -> dict[str, Any]:
    """Students by each way and their controls, the same steps, batches and first weights.

    In full every way has the best of some rates, chosen by runs that are judged on other text
    than the results; what is added to soft labels has theirs. Quick takes one rate for all.
    "progressive" takes away layers of the teacher in stages; its control starts from the same
    layers, loses the same ones, and never hears the teacher. Features and attention are matched
    in full only; there one more control has hard labels for as many CPU seconds as soft ones take.

    Shapes:   -> {"bits", "agreement", "kl", "seconds": {way: [by seed]}, "rates": {way: rate},
              "tried": {way: {rate: bits}}, "edge": {way: "smallest" or "largest" of them},
              "tokens": {way: read by one student}, "pairs": [[way, control]], "parameters",
              "steps", "longer steps", "teacher": bits, "speed",
              "judged", "seq_len": of the text that is judged}
    Chapter:  chapters/07_compression.ipynb
    """
    sizes = sizes or (FULL if full else QUICK)
    one = partial(_taught, model, tokenizer, sizes, runs)
    ladder = _ladder(model)
    names = [*(name for name in WAYS if full or "+" not in name), *PROGRESSIVE]
    steps = dict.fromkeys(names, sizes.student_steps) | dict.fromkeys(
        PROGRESSIVE, sizes.grown_steps)
    pairs = [pair for pair in PAIRS if pair[0] in names]
    tuned = _untuned(names)
    if full:
        tuned, steps[LONGER] = _tuned_ways(one, steps)
        names, pairs = [*names, LONGER], [*pairs, ["soft labels", LONGER]]
    rows = [{name: one(name, steps[name], tuned["rates"][name], seed) for name in names}
            for seed in seeds]
    student = new_student(model, BUDGET, 0)
    found = {key: {name: [row[name][key] for row in rows] for name in names}
             for key in ("bits", "agreement", "kl", "seconds")}
    window = sizes.batch_size * sizes.seq_len
    return found | tuned | {
        "pairs": pairs, "steps": sizes.student_steps, "longer steps": steps.get(LONGER),
        "progressive steps": sizes.grown_steps, "layers": ladder,
        "tokens": {name: window * steps[name] * (len(ladder) if name in PROGRESSIVE else 1)
                   for name in names},
        "parameters": sum(p.numel() for p in student.parameters()), **judged_on(sizes),
        "teacher": bits(model, windows(tokenizer, sizes)),
        "speed": _speeds(model, student, 3 if full else 1)}


def _untuned(names: Sequence[str]) -> dict[str, dict]:
    """What `_chosen` returns where nothing was tried: one rate for all that start alike."""
    middle = {kind: rates[len(rates) // 2] for kind, rates in RATES.items()}
    return {"rates": {name: middle["grown" if name in PROGRESSIVE else "student"]
                      for name in names}, "tried": {}, "edge": {}}


def _tuned_ways(one: Callable[..., Mapping[str, float]], steps: Mapping[str, int]
                ) -> tuple[dict[str, dict], int]:
    """What `_chosen` returns for all ways, and the steps of hard labels for as many seconds."""
    def of(names: Sequence[str], kind: str, counts: Mapping[str, int]) -> dict[str, dict]:
        return _tried({name: partial(one, name, counts[name]) for name in names}, RATES[kind])

    trials = of(["hard labels", "soft labels"], "student", steps)
    longer = round(steps["hard labels"] * _times(trials))
    trials |= of([LONGER], "student", {LONGER: longer}) | of(PROGRESSIVE, "grown", steps)
    tuned = _chosen(trials)
    tuned["rates"] |= {name: tuned["rates"]["soft labels"] for name in steps if "+" in name}
    return tuned, longer


def _tried(ways: Mapping[str, Callable[[float, int], Mapping]], rates: Sequence[float]
           ) -> dict[str, dict[float, Mapping]]:
    """A run of each way at each rate; the ways take turns, so that their seconds compare."""
    rows = {rate: {name: one(rate, TUNING_SEED) for name, one in ways.items()} for rate in rates}
    return {name: {rate: rows[rate][name] for rate in rates} for name in ways}


def _chosen(trials: Mapping[str, Mapping[float, Mapping]]) -> dict[str, dict]:
    """The rate whose run ends best for each way; "edge" names those with none beyond theirs."""
    tried = {name: {rate: row["bits"] for rate, row in rows.items()}
             for name, rows in trials.items()}
    best = {name: min(found, key=found.__getitem__) for name, found in tried.items()}
    ends = {name: {min(found): "smallest", max(found): "largest"} for name, found in tried.items()}
    return {"rates": best, "edge": {name: ends[name][rate] for name, rate in best.items()
                                    if rate in ends[name]},
            "tried": {name: {str(rate): loss for rate, loss in found.items()}
                      for name, found in tried.items()}}


def _times(trials: Mapping[str, Mapping[float, Mapping]]) -> float:
    """How many times the CPU seconds of hard labels soft ones took, the middle of all pairs."""
    hard, soft = trials["hard labels"], trials["soft labels"]
    return statistics.median(soft[rate]["seconds"] / hard[rate]["seconds"] for rate in hard)


def _ladder(model: DecoderLM) -> list[int]:
    """How many layers stay after each stage: two thirds, then one third."""
    layers = len(model.blocks)
    return sorted({max(1, layers * 2 // 3), max(1, layers // 3)} - {layers}, reverse=True)


def _taught(model: DecoderLM, tokenizer: Tokenizer, sizes: Sizes, runs: Path | None, name: str,
            steps: int, rate: float, seed: int) -> dict[str, float]:
    """One run by one way: bits, agreement, divergence and the CPU seconds that it trained."""
    data = windows(tokenizer, sizes, seed)
    progressive = name in PROGRESSIVE
    how = WAYS["soft labels"] if name == "progressive" else WAYS.get(name)

    def make() -> dict[str, float]:
        student, stages = model, _ladder(model)
        if not progressive:
            student, stages = new_student(model, BUDGET, seed), [0]
        seconds = 0.0
        for layers in stages:
            if layers:
                student = keep_layers(student, spread_layers(len(student.blocks), layers))
            config = recipe(steps, rate, sizes, seed, "adamw" if progressive else "muon")
            done = teach(student, model, data, config, how)
            seconds += done.progress.cpu_seconds
        judged = done.evaluations[-1][1] / math.log(2) / data.bytes_per_token
        alike = {} if seed == TUNING_SEED else agreement(student, model, data)
        return {"bits": judged, "seconds": seconds} | alike

    return kept(make, runs, what=name, rate=rate, seed=seed, steps=steps, sizes=asdict(sizes),
                how=how and asdict(how), teacher=mark(model), data=data.fingerprint())


def _speeds(teacher: DecoderLM, student: DecoderLM, rounds: int) -> dict[str, float]:
    """Tokens a second on one thread, in turns; "ratio" is the middle of the rounds."""
    writes = {name: partial(generate, model, temperature=0.0)
              for name, model in (("teacher", teacher), ("student", student))}
    rows = [{name: writing_speed(write, [1, 2, 3], 16, 1) for name, write in writes.items()}
            for _ in range(rounds)]
    found = {name: statistics.median(row[name] for row in rows) for name in writes}
    return found | {"ratio": statistics.median(row["student"] / row["teacher"] for row in rows)}


def qat(model: DecoderLM, tokenizer: Tokenizer, seeds: Sequence[int], full: bool,
        runs: Path | None = None, sizes: Sizes | None = None, kind: str = "int4",
        group_size: int | str = "channel") -> dict[str, Any]:
    """Rounded as it is; trained on and then rounded; trained on with the rounding in place.

    The two that train see the same batches for the same steps; in full each has the best of some
    rates, judged after rounding, on other text than the results.

    Shapes:   -> {"bits": {way: [by seed]}, "kind", "steps", "rates": {way: rate}, "whole": bits,
              "tried", "edge", "judged", "seq_len": as of `distillation`}
    Chapter:  chapters/07_compression.ipynb
    """
    sizes = sizes or (FULL if full else QUICK)
    ways = {name: partial(_trained_on, model, tokenizer, sizes, runs, (kind, group_size), name)
            for name in ("trained on, then rounded", "QAT")}
    middle = RATES["rounded"][len(RATES["rounded"]) // 2]
    tuned = _chosen(_tried(ways, RATES["rounded"])) if full else {
        "rates": dict.fromkeys(ways, middle), "tried": {}, "edge": {}}
    found = {name: [one(tuned["rates"][name], seed)["bits"] for seed in seeds]
             for name, one in ways.items()}
    data = windows(tokenizer, sizes)
    rounded = bits(quantize(copy.deepcopy(model), kind, group_size), data)
    said = {"channel": "a row", "tensor": "a matrix"}.get(group_size, f"{group_size} weights")
    return tuned | {
        "bits": {"rounded": [rounded] * len(seeds)} | found, "steps": sizes.grown_steps,
        "kind": f"{kind}, a scale for {said}", "whole": bits(model, data), **judged_on(sizes)}


def _trained_on(model: DecoderLM, tokenizer: Tokenizer, sizes: Sizes, runs: Path | None,
                scheme: tuple[str, int | str], name: str, rate: float, seed: int
                ) -> dict[str, float]:
    data = windows(tokenizer, sizes, seed)

    def make() -> dict[str, float]:
        config = recipe(sizes.grown_steps, rate, sizes, seed, "adamw")
        return {"bits": bits(round_later(model, data, config, *scheme, inside=name == "QAT"), data)}

    return kept(make, runs, what=name, rate=rate, seed=seed, sizes=asdict(sizes), scheme=scheme,
                teacher=mark(model), data=data.fingerprint())
