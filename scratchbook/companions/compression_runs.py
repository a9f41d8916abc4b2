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
PAIRS = [["soft labels", "hard labels"], ["+ features", "soft labels"],
         ["+ attention", "soft labels"], ["progressive", "progressive, hard labels"]]


def distillation(model: DecoderLM, tokenizer: Tokenizer, seeds: Sequence[int], full: bool,
                 runs: Path | None = None, sizes: Sizes | None = None) -> dict[str, Any]:
    """Students by each way and their controls, the same steps, batches and first weights.

    Rates: in full hard and soft labels each pick the best of three on a seed of their own, and
    what is added to soft labels has theirs; all else, and quick, takes the middle one.
    "progressive" takes away layers of the teacher in stages; its control starts from the same
    layers, loses the same ones, and never hears the teacher. Features and attention are matched
    in full only; there one more control has hard labels for as many CPU seconds as soft ones took.

    Shapes:   -> {"bits", "agreement", "kl", "seconds": {way: [by seed]}, "rates": {way: rate},
              "pairs": [[way, control]], "parameters", "steps", "teacher": bits, "speed"}
    Chapter:  chapters/07_compression.ipynb
    """
    sizes = sizes or (FULL if full else QUICK)
    one = partial(_taught, model, tokenizer, sizes, runs)
    names = [*(name for name in WAYS if full or "+" not in name),
             "progressive, hard labels", "progressive"]
    rates = {name: _best_rate(partial(one, name), RATES["student"], full)
             for name in ("hard labels", "soft labels")}
    rates |= {name: rates["soft labels"] if name.startswith("+") else RATES["grown"][1]
              for name in names if name not in rates}
    rows = {name: [one(name, rates[name], seed) for seed in seeds] for name in names}
    pairs = [pair for pair in PAIRS if pair[0] in names]
    if full:
        longer = _times(rows)
        rows[LONGER] = [one(LONGER, rates["hard labels"], seed, longer) for seed in seeds]
        pairs.append(["soft labels", LONGER])
    student = new_student(model, BUDGET, 0)
    found = {key: {name: [row[key] for row in by_seed] for name, by_seed in rows.items()}
             for key in ("bits", "agreement", "kl", "seconds")}
    return found | {
        "pairs": pairs, "rates": rates, "steps": sizes.student_steps,
        "progressive steps": sizes.grown_steps, "layers": _ladder(model),
        "parameters": sum(p.numel() for p in student.parameters()),
        "teacher": bits(model, windows(tokenizer, sizes)),
        "speed": _speeds(model, student, 3 if full else 1)}


def _best_rate(one: Callable[[float, int], Mapping], rates: Sequence[float], tune: bool) -> float:
    """The rate whose run with the tuning seed ends best; untuned the middle one."""
    if not tune:
        return rates[len(rates) // 2]
    return min(rates, key=lambda rate: one(rate, TUNING_SEED)["bits"])


def _times(rows: Mapping[str, Sequence[Mapping]]) -> float:
    """How many times the CPU seconds of hard labels soft ones took, the middle of all seeds."""
    return statistics.median(soft["seconds"] / hard["seconds"] for soft, hard in
                             zip(rows["soft labels"], rows["hard labels"], strict=True))


def _ladder(model: DecoderLM) -> list[int]:
    """How many layers stay after each stage: two thirds, then one third."""
    layers = len(model.blocks)
    return sorted({max(1, layers * 2 // 3), max(1, layers // 3)} - {layers}, reverse=True)


def _taught(model: DecoderLM, tokenizer: Tokenizer, sizes: Sizes, runs: Path | None, name: str,
            rate: float, seed: int, longer: float = 1.0) -> dict[str, float]:
    """One run by one way: bits, agreement, divergence and the CPU seconds that it trained."""
    data = windows(tokenizer, sizes, seed)
    progressive = name.startswith("progressive")
    how = WAYS["soft labels"] if name == "progressive" else WAYS.get(name)
    steps = round(longer * (sizes.grown_steps if progressive else sizes.student_steps))

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
        return {"bits": judged, "seconds": seconds} | agreement(student, model, data)

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

    The two that train see the same batches for the same steps; in full each picks the best of
    three rates on a seed of its own, judged after rounding.

    Shapes:   -> {"bits": {way: [by seed]}, "kind", "steps", "rates": {way: rate}, "whole": bits}
    Chapter:  chapters/07_compression.ipynb
    """
    sizes = sizes or (FULL if full else QUICK)
    one = partial(_trained_on, model, tokenizer, sizes, runs, (kind, group_size))
    names = {"trained on, then rounded": False, "QAT": True}
    rates = {name: _best_rate(partial(one, name, inside), RATES["grown"], full)
             for name, inside in names.items()}
    found = {name: [one(name, inside, rates[name], seed)["bits"] for seed in seeds]
             for name, inside in names.items()}
    data = windows(tokenizer, sizes)
    rounded = bits(quantize(copy.deepcopy(model), kind, group_size), data)
    said = {"channel": "a row", "tensor": "a matrix"}.get(group_size, f"{group_size} weights")
    return {"bits": {"rounded": [rounded] * len(seeds)} | found, "rates": rates,
            "steps": sizes.grown_steps, "kind": f"{kind}, a scale for {said}",
            "whole": bits(model, data)}


def _trained_on(model: DecoderLM, tokenizer: Tokenizer, sizes: Sizes, runs: Path | None,
                scheme: tuple[str, int | str], name: str, inside: bool, rate: float, seed: int
                ) -> dict[str, float]:
    data = windows(tokenizer, sizes, seed)

    def make() -> dict[str, float]:
        config = recipe(sizes.grown_steps, rate, sizes, seed, "adamw")
        return {"bits": bits(round_later(model, data, config, *scheme, inside=inside), data)}

    return kept(make, runs, what=name, rate=rate, seed=seed, sizes=asdict(sizes), scheme=scheme,
                teacher=mark(model), data=data.fingerprint())
