"""A training run of the Smalltalk model, beside what it was predicted to cost.

    scratchbook smalltalk train CORPUS --out RUN --train.precision bf16
    python -m scratchbook.companions.smalltalk_training RUN

records the run's curve, its processor seconds, and what the other recipes would cost elsewhere.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scratchbook.config import ModelConfig, RopeSettings
from scratchbook.data.token_files import read_tokens
from scratchbook.smalltalk_model import RECIPES, load_tokenizer, predicted_hours
from scratchbook.training.packed import TRAIN
from scratchbook.training.planning import measured_speed, plan
from scratchbook.training.recipes import DataConfig, Recipe
from scratchbook.training.settings import TrainConfig

GROUP = 50  # steps whose losses are averaged
# peaks in bfloat16 as the makers give them, without sparsity; two fifths are assumed to be reached
DEVICES = {"RTX 3060, 12 GB": 2 * 12.7e12, "RTX 4090, 24 GB": 2 * 82.6e12, "H100": 989e12}
SUSTAINED = 0.4


def read_run(folder: Path) -> tuple[Recipe, list[dict[str, Any]]]:
    """The recipe that a run's config tells, and the entries of its log."""
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = told["model"]
    data = {name: told["data"][name] for name in DataConfig.__dataclass_fields__}
    train = {name: tuple(value) if isinstance(value, list) else value
             for name, value in told["train"].items()}
    recipe = Recipe(ModelConfig(**model | {"rope": RopeSettings(**model["rope"])}),
                    DataConfig(**data), TrainConfig(**train))
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return recipe, [json.loads(line) for line in lines if line.strip()]


def curve(log: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The mean training loss of every fifty steps, and the tokens read by then."""
    steps = [entry for entry in log if "loss" in entry]
    groups = [steps[at:at + GROUP] for at in range(0, len(steps) - GROUP + 1, GROUP)]
    return {"steps": [group[-1]["step"] for group in groups],
            "tokens": [group[-1]["tokens"] for group in groups],
            "loss": [sum(entry["loss"] for entry in group) / GROUP for group in groups]}


def cost_rows() -> list[dict[str, Any]]:
    """What each recipe asks of each device: parameters, tokens, bytes, hours. Nothing is run."""
    rows, vocab_size = [], load_tokenizer().vocab_size
    for name, recipe in RECIPES.items():
        recipe = recipe.with_vocabulary(vocab_size)
        found = plan(recipe)
        rows.append({"recipe": name, "parameters": found.parameters, "tokens": found.tokens,
                     "flops": found.flops, "bytes": sum(found.memory.values()),
                     "hours": {device: predicted_hours(recipe, SUSTAINED * peak)
                               for device, peak in DEVICES.items()}})
    return rows


def epoch_tokens(data: DataConfig) -> int:
    """How many tokens the packed training text has."""
    return len(read_tokens(Path(data.text, TRAIN), verify=False).ids)


def account(folder: str | Path) -> dict[str, Any]:
    """The run's numbers, and three timed steps of its recipe from which its cost is predicted."""
    recipe, log = read_run(Path(folder))
    found, speed = plan(recipe), measured_speed(recipe)
    steps = [entry for entry in log if "loss" in entry]
    each = found.tokens / recipe.train.max_steps
    return {"parameters": found.parameters, "max_steps": recipe.train.max_steps,
            "batch_size": recipe.train.batch_size, "seq_len": recipe.data.seq_len,
            "precision": recipe.train.precision, "steps": steps[-1]["step"],
            "tokens": steps[-1]["tokens"], "cpu_seconds": steps[-1]["cpu_seconds"],
            "predicted_cpu_seconds": steps[-1]["step"] * each / speed,
            "curve": curve(log), "cost": cost_rows(), "epoch_tokens": epoch_tokens(recipe.data),
            "validation": [entry for entry in log if "validation_loss" in entry]}


if __name__ == "__main__":
    from scratchbook.teaching import record

    if len(sys.argv) != 2:
        sys.exit(__doc__)
    record("09_smalltalk.training", account(sys.argv[1]), seeds=[0],
           command="python -m scratchbook.companions.smalltalk_training RUN")
