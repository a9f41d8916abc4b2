"""A training run of the Smalltalk model, beside what it was predicted to cost.

    scratchbook smalltalk train CORPUS --out RUN --train.precision bf16
    python -m scratchbook.companions.smalltalk_training RUN

records the run's curve, its processor seconds, what the other recipes would cost elsewhere, and
how the final model reads rows that it never drew, rows that it drew, and other projects.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import copy
import json
import math
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scratchbook.config import ModelConfig, RopeSettings
from scratchbook.data.packing import PackedDocuments
from scratchbook.data.token_files import read_tokens
from scratchbook.evaluation.comparing import Interval, bootstrap, verdict_on
from scratchbook.evaluation.perplexity import score_batches
from scratchbook.smalltalk_model import RECIPES, load_smalltalk, load_tokenizer, predicted_hours
from scratchbook.training.packed import TRAIN
from scratchbook.training.planning import measured_speed, plan
from scratchbook.training.recipes import DataConfig, Recipe
from scratchbook.training.settings import TrainConfig

GROUP = 50  # steps whose losses are averaged
# peaks in bfloat16 as the makers give them, without sparsity; two fifths are assumed to be reached
DEVICES = {"RTX 3060, 12 GB": 2 * 12.7e12, "RTX 4090, 24 GB": 2 * 82.6e12, "H100": 989e12}
SUSTAINED = 0.4
ROWS = 300  # of each kind that are read once more
TIMED = 3  # times that the speed is measured: the fastest was disturbed least


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


def times_drawn(data: PackedDocuments, steps: int, batch_size: int) -> Tensor:
    """How often each training row was drawn: the batches are drawn once more, of row numbers.

    Shapes:   -> (rows,)
    """
    count, probe = data.train_rows.shape[1], copy.copy(data)
    probe.train_rows, probe.masked = torch.arange(count)[None, :, None].expand(3, -1, 1), False
    drawn = [probe.batch(step, batch_size).ids[:, 0] for step in range(steps)]
    return torch.bincount(torch.cat(drawn), minlength=count)


def nats_of(model: nn.Module, data: PackedDocuments, rows: Tensor, most: int = ROWS,
            seed: int = 0) -> dict[str, Any]:
    """Nats per token on some of the rows, drawn by chance; the interval from redrawing rows.

    Shapes:   rows (3, rows, time)
    """
    chosen = random.Random(seed).sample(range(rows.shape[1]), min(most, rows.shape[1]))
    some = copy.copy(data)
    some.validation_rows = rows[:, chosen]
    found = score_batches(model, some.validation(16)).windows
    counts = [count for _, count in found]
    return {"rows": len(chosen), **bootstrap(
        [nats / count for nats, count in found], counts)._asdict()}


def by_times_read(model: nn.Module, data: PackedDocuments, steps: int, batch_size: int
                  ) -> dict[str, Any]:
    """What the gap to other projects is made of: rows never drawn, drawn once, held out.

    A row that was never drawn is of the training projects and was not learned by heart.
    """
    times = times_drawn(data, steps, batch_size)
    kinds = {"never": times == 0, "once": times == 1, "more than once": times > 1}
    nats = {name: nats_of(model, data, data.train_rows[:, where])
            for name, where in kinds.items() if where.any()}
    nats["held-out projects"] = nats_of(model, data, data.validation_rows)
    return {"rows": len(times), "nats": nats,
            "shares": {name: where.double().mean().item() for name, where in kinds.items()},
            "differences": {f"{first} less {second}": difference(nats[first], nats[second])
                            for first, second in (("held-out projects", "never"),
                                                  ("never", "once"))
                            if {first, second} <= set(nats)}}


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The first less the second, measured on different rows, from the interval of each.

    Source:   Zou and Donner (2008), Statistics in Medicine 27, 1693-1702
    """
    value = first["value"] - second["value"]
    low = value - math.hypot(first["value"] - first["low"], second["high"] - second["value"])
    high = value + math.hypot(first["high"] - first["value"], second["value"] - second["low"])
    found = Interval(value, low, high)
    return {**found._asdict(), "verdict": verdict_on(found, "less", "more")}


def account(folder: str | Path) -> dict[str, Any]:
    """The run's numbers, the cost that timed steps predict, and how the model reads its rows."""
    recipe, log = read_run(Path(folder))
    found = plan(recipe)
    speed = max(measured_speed(recipe) for _ in range(TIMED))
    steps = [entry for entry in log if "loss" in entry]
    each = found.tokens / recipe.train.max_steps
    (model, _), (data, _) = load_smalltalk(folder), recipe.build_data()
    return {"parameters": found.parameters, "max_steps": recipe.train.max_steps,
            "batch_size": recipe.train.batch_size, "seq_len": recipe.data.seq_len,
            "precision": recipe.train.precision, "steps": steps[-1]["step"],
            "tokens": steps[-1]["tokens"], "cpu_seconds": steps[-1]["cpu_seconds"],
            "predicted_cpu_seconds": steps[-1]["step"] * each / speed,
            "curve": curve(log), "cost": cost_rows(), "epoch_tokens": epoch_tokens(recipe.data),
            "by_times_read": by_times_read(model, data, steps[-1]["step"],
                                           recipe.train.batch_size),
            "validation": [entry for entry in log if "validation_loss" in entry]}


if __name__ == "__main__":
    from scratchbook.teaching import record

    if len(sys.argv) != 2:
        sys.exit(__doc__)
    record("09_smalltalk.training", account(sys.argv[1]), seeds=[0],
           command="python -m scratchbook.companions.smalltalk_training RUN")
