"""What makes a run the same run when it is started again: its model, its training, its data.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from scratchbook.data.batches import Batches
from scratchbook.runtime import with_new_names, write_atomically
from scratchbook.training.checkpoint import checkpoints
from scratchbook.training.settings import TrainConfig

# settings that a run may change between two starts and still be the same run
MAY_CHANGE = ("max_steps", "eval_every", "checkpoint_every", "keep_last", "patience", "compile")
OURS = ("lock", "tensorboard", "wandb")  # what may lie in a folder before its config does


def read_config(run: Path) -> dict[str, Any]:
    """A run's config.json.

    Raises:   FileNotFoundError when the folder is none of a run; ValueError when the file is
              not what a run writes
    """
    path = run / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run} is not the folder of a run: it holds no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(config["model"], dict | None) and "max_steps" in config["train"]
    except (ValueError, TypeError, KeyError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is not that of a run, or was damaged: take another folder")
    return config | {part: with_new_names(config.get(part)) for part in ("train", "data")}


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds files and is none of a run: nothing there is written over.

    Raises:   ValueError naming one of the files
    """
    if not folder.exists() or (folder / "config.json").exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file: a run needs a folder of its own")
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in OURS)
    if strangers:
        raise ValueError(f"{folder} holds {strangers[0]} and is not the folder of a run: take an "
                         f"empty one, such as {folder / 'run'}")


def write_config(folder: Path, model: nn.Module, data: Batches, config: TrainConfig,
                 tokenizer: str | None, source: dict | None = None,
                 warm_restart: bool = False) -> None:
    """Write config.json; where checkpoints lie already, only a run that goes on may do so.

    `source` says what the data were made of, `tokenizer` which one ("bytes", or a file's hash).

    Raises:   ValueError when the folder holds another run, with the way to use its weights
    """
    sizes = getattr(model, "config", None)
    entries = {"model": asdict(sizes) if sizes is not None else None, "train": asdict(config),
               "data": {**(source or {}), "sha256": fingerprint(data)}, "tokenizer": tokenizer}
    entries = json.loads(json.dumps(entries))
    if (folder / "config.json").is_file():
        before, saved = read_config(folder), checkpoints(folder)
        if saved:
            _compare(folder, before, entries)
            reached = int(saved[-1].name.removeprefix("step_"))
            _check_length(before["train"], config, reached, warm_restart)
    write_atomically(folder / "config.json", json.dumps(entries, indent=1) + "\n")


def _compare(folder: Path, before: dict, now: dict) -> None:
    changed = [f"train.{name}: {old} there, {(now['train']).get(name)} here"
               for name, old in before["train"].items()
               if name not in MAY_CHANGE and now["train"].get(name) != old]
    changed += [f"model.{name}: {old} there, {(now['model'] or {}).get(name)} here"
                for name, old in (before["model"] or {}).items()
                if (now["model"] or {}).get(name) != old]
    if (before["data"] or {}).get("sha256") != now["data"]["sha256"]:
        changed.append("the text, its tokenizer or the length of its windows is another")
    elif before.get("tokenizer") not in (None, now["tokenizer"]):
        changed.append("the tokenizer is another")
    if changed:
        raise ValueError(f"{folder} holds another run ({'; '.join(changed[:3])}). Give it the same "
                         "config and text to go on with it; or take another folder, where "
                         f"`--init-from {folder}` starts from its weights")


def _check_length(before: dict, config: TrainConfig, reached: int, warm_restart: bool) -> None:
    """Say what another number of steps means for the learning rate, or refuse it."""
    old, new = before["max_steps"], config.max_steps
    if new < reached:
        raise ValueError(f"max_steps={new}, but the run has {reached} steps already: give more, or "
                         "take another folder")
    if new == old or config.schedule == "constant" or warm_restart:
        return
    if reached >= old:
        raise ValueError(
            f"the run ended with its {config.schedule} schedule after {old} steps, and going on "
            "would throw the learning rate up again. Either say so with --warm-restart (a "
            f"schedule of its own over the {new - old} new steps), or start from its weights "
            "in another folder with --init-from")
    warnings.warn(f"max_steps is {new} now and was {old}: from step {reached} on the learning rate "
                  f"follows the {config.schedule} schedule over {new} steps, so that the run will "
                  f"not equal one of {new} steps from the start", stacklevel=2)


def fingerprint(data: Batches) -> str:
    """A hash of all that the data hold; of data without a `fingerprint`, of their first batch."""
    if hasattr(data, "fingerprint"):
        return data.fingerprint()
    ids, targets, _ = data.batch(0, 1)
    return hashlib.sha256(repr((ids.tolist(), targets.tolist())).encode()).hexdigest()
