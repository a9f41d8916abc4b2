"""What a setting does to the time of a step: the 27M code model, one thing changed at a time.

    python -m tests.bench.bench_settings            about a minute; records the result
    python -m tests.bench.bench_settings --quick    a smaller model; records nothing

Milliseconds of CPU for whole steps on one thread, optimizer included, each the median over
interleaved rounds. Beside them: the operations of a step, as counted, over those of the first.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch

from scratchbook.accounting import total_parameters
from scratchbook.config import PRESETS
from scratchbook.training.planning import measured_speed, training_flops_per_token
from scratchbook.training.recipes import RECIPES, Recipe

BASE = replace(RECIPES["code-27m"], train=replace(RECIPES["code-27m"].train, precision="fp32"))
ROUNDS, STEPS = 2, 2


def changed(model: dict | None = None, train: dict | None = None, data: dict | None = None
            ) -> Recipe:
    """The recipe with some fields changed."""
    return replace(BASE, model=BASE.model.with_(**model or {}),
                   train=replace(BASE.train, **train or {}), data=replace(BASE.data, **data or {}))


VARIANTS = {
    "as noted": changed(), "64 tokens for 128": changed(data={"seq_len": 64}),
    "4 rows for 8": changed(train={"batch_size": 4}),
    "12 layers for 6": replace(BASE, model=PRESETS["mini-46m"]),
    "3 layers for 6": changed(model={"num_layers": 3}),
    "bfloat16": changed(train={"precision": "bf16"}),
}


def measure(rounds: int = ROUNDS, steps: int = STEPS, small: bool = False) -> dict:
    """All rows, by name."""
    torch.set_num_threads(1)
    shrink = {"vocab_size": 512, "d_model": 64, "num_heads": 4, "head_dim": None, "d_ff": None,
              "num_kv_heads": None}
    recipes = {name: replace(recipe, model=recipe.model.with_(**shrink)) if small else recipe
               for name, recipe in VARIANTS.items()}
    spent: dict[str, list[float]] = {name: [] for name in recipes}
    for _ in range(rounds):
        for name, recipe in recipes.items():
            tokens = recipe.train.batch_size * recipe.data.seq_len
            spent[name].append(1000 * tokens / measured_speed(recipe, steps))
    first = _flops(recipes["as noted"])
    return {name: {"parameters": total_parameters(recipe.model),
                   "milliseconds": statistics.median(spent[name]), "rounds": spent[name],
                   "hours_of_20000_steps": statistics.median(spent[name]) / 180,
                   "times_the_operations": _flops(recipe) / first}
            for name, recipe in recipes.items()}


def _flops(recipe: Recipe) -> float:
    tokens = recipe.train.batch_size * recipe.data.seq_len
    return tokens * training_flops_per_token(recipe.model, recipe.data.seq_len)


def main() -> None:
    """Measure, print, and record unless it was the quick one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model; record nothing")
    options = parser.parse_args()
    found = measure(small=options.quick)
    base = found["as noted"]["milliseconds"]
    for name, row in found.items():
        print(f"{name:18} {row['milliseconds']:8.1f} ms, {row['milliseconds'] / base:.2f} of the "
              f"first; operations {row['times_the_operations']:.2f}")
    if not options.quick:
        from scratchbook.teaching import record

        record("training_settings", found, seeds=[0],
               command="python -m tests.bench.bench_settings")


if __name__ == "__main__":
    main()
