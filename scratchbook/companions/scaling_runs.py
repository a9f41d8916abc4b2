"""Chapter 06f's iso-FLOP runs: four budgets, five sizes each, and one run ten times larger.

    python -m scratchbook.companions.scaling_runs

About fifteen minutes of one core; it goes on where it was stopped, one run after the other.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from scratchbook.accounting import total_parameters
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.data.corpora import library_documents
from scratchbook.runtime import repository_root, write_atomically
from scratchbook.teaching.results import record
from scratchbook.training import TrainConfig, train
from scratchbook.training.planning import training_flops_per_token
from scratchbook.training.recipes import DataConfig, Recipe
from scratchbook.training.scaling_law import isoflop_minimum, power_law

COMMAND = "python -m scratchbook.companions.scaling_runs"
SEQ_LEN, BATCH = 128, 8
LADDER = ((1, 16), (2, 24), (2, 32), (2, 48), (3, 64), (4, 96), (4, 128), (5, 160), (6, 192),
          (7, 224), (8, 256), (1, 8))  # layers and width
BUDGETS = {3e10: (11, 0, 1, 2, 3), 1e11: range(5), 3e11: range(1, 6), 1e12: range(2, 7)}
RATES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
SEEDS = (0, 1)
TARGET = 1e13


def sizes(place: int) -> ModelConfig:
    """The model at a place of the ladder; it reads bytes."""
    layers, width = LADDER[place]
    return ModelConfig(256, SEQ_LEN, layers, width, max(1, width // 32), norm="rms_no_gain",
                       feedforward="relu2", qk_norm=True)


def texts(seed: int = 0) -> Windows:
    """The standard library as bytes; of every fortieth file the beginning is held out."""
    documents = library_documents()
    held = "".join(document.text[:2000] for document in documents[::40])
    read = "".join(document.text for place, document in enumerate(documents) if place % 40)
    ids = (torch.tensor(list(text.encode()), dtype=torch.uint8) for text in (read, held))
    return Windows(*ids, SEQ_LEN, seed)


def one_run(place: int, budget: float, rate: float, seed: int, data: Windows | None = None
            ) -> dict[str, Any]:
    """Spend a budget of operations on a size; every run has the same recipe."""
    config = sizes(place)
    per_token = training_flops_per_token(config, SEQ_LEN)
    steps = max(8, round(budget / per_token / (BATCH * SEQ_LEN)))
    settings = TrainConfig(
        max_steps=steps, batch_size=BATCH, optimizer="muon", lr=rate, adamw_lr=rate / 4,
        weight_decay=0.1, schedule="linear", warmup_steps=steps // 20, max_grad_norm=None,
        eval_every=steps, seed=seed)
    model = Recipe(config, DataConfig(), settings, zero_init_residual=True).build_model()
    done = train(model, data or texts(seed), settings).progress
    return {"budget": budget, "place": place, "parameters": total_parameters(config),
            "tokens": done.tokens, "flops": per_token * done.tokens, "rate": rate, "seed": seed,
            "loss": done.best_loss, "cpu_seconds": done.cpu_seconds}


def planned(found: list[dict[str, Any]]) -> list[tuple[int, float, float, int]]:
    """Every run's place, budget, rate and seed, as far as the finished ones decide them."""
    tries = [(3, 3e11, rate, 0) for rate in RATES]
    tried = [row for row in found if (row["place"], row["budget"], row["seed"]) == (3, 3e11, 0)]
    if len(tried) < len(RATES):
        return tries
    rate = min(tried, key=lambda row: row["loss"])["rate"]
    grid = [(place, budget, rate, seed) for seed in SEEDS for budget, places in BUDGETS.items()
            for place in places]
    ran = [row for row in found if row["rate"] == rate and row["budget"] in BUDGETS]
    if len(ran) < len(grid):
        return tries + grid
    return [*tries, *grid, (nearest_best(ran), TARGET, rate, 0)]


def nearest_best(rows: list[dict[str, Any]]) -> int:
    """The place of the ladder nearest to the best size at the target, extrapolated."""
    best = [isoflop_minimum([row["parameters"] for row in rows if row["budget"] == budget],
                            [row["loss"] for row in rows if row["budget"] == budget])[0]
            for budget in BUDGETS]
    factor, exponent = power_law(list(BUDGETS), best)
    wanted = factor * TARGET**exponent
    return min(range(len(LADDER)),
               key=lambda place: abs(torch.tensor(total_parameters(sizes(place)) / wanted).log()))


def main(most: int | None = None) -> int:
    """Run what is missing, at most so many runs, and record when all are there."""
    torch.set_num_threads(1)
    file = (repository_root() or Path.cwd()) / "build" / "runs" / "06f" / "scaling.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []

    def missing() -> list[tuple[int, float, float, int]]:
        there = {(row["place"], row["budget"], row["rate"], row["seed"]) for row in found}
        return [run for run in planned(found) if run not in there]

    while missing() and most != 0:
        found.append(one_run(*missing()[0]))
        write_atomically(file, json.dumps(found, indent=1))
        print(found[-1], flush=True)
        most = None if most is None else most - 1
    if not missing():
        record("06f_scaling_and_distributed.isoflop", {"runs": found}, seeds=SEEDS,
               command=COMMAND)
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else None))
