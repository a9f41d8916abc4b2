"""The folder of a run: config, log, checkpoints, and who is writing it.

    RUN/config.json     the model's and the training's settings
    RUN/tokenizer.json  absent when the ids are bytes
    RUN/log.jsonl       one line per step, one per evaluation
    RUN/checkpoints/    step_000500/{model.safetensors, optimizer.safetensors, state.json}
    RUN/best, RUN/last  the name of a checkpoint
    RUN/lock            the process that is training, while it does

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from scratchbook.config import ModelConfig, RopeSettings
from scratchbook.model import DecoderLM
from scratchbook.runtime import write_atomically
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.training.checkpoint import FOLDER, checkpoints, load_checkpoint
from scratchbook.training.logs import JsonLog
from scratchbook.training.settings import TrainConfig


class ByteTokenizer:
    """The tokenizer of a model that reads bytes: it has nothing to learn and no file."""

    vocab_size = 256

    def encode(self, text: str) -> list[int]:
        """The text's UTF-8 bytes."""
        return list(text.encode("utf-8"))

    def decode(self, ids: list[int]) -> str:
        """The text of bytes; what is no UTF-8 shows as U+FFFD."""
        return bytes(ids).decode("utf-8", errors="replace")


@dataclass(frozen=True)
class OpenRun:
    """A model as a checkpoint has it, ready to be used, with what belongs to it."""

    model: DecoderLM
    tokenizer: Tokenizer | ByteTokenizer
    config: dict[str, Any]
    step: int
    folder: Path


def open_run(path: str | Path, which: str | int = "best") -> OpenRun:
    """Load a run's model from its best or last checkpoint, or from that of a given step.

    A run that was never evaluated has no best checkpoint: the last one is taken then.

    Raises:   FileNotFoundError when there is no run or no such checkpoint
    Chapter:  chapters/06_training.ipynb
    """
    run = Path(path)
    config = read_config(run)
    folder = _find(run, which)
    entries = dict(config["model"])
    model = DecoderLM(ModelConfig(**entries | {"rope": RopeSettings(**entries["rope"])}))
    state = load_checkpoint(folder, model)
    tokenizer = run / "tokenizer.json"
    return OpenRun(model.eval(), Tokenizer.load(tokenizer) if tokenizer.is_file()
                   else ByteTokenizer(), config, state["step"], folder)


def read_config(run: Path) -> dict[str, Any]:
    """A run's config.json.

    Raises:   FileNotFoundError when the folder is none of a run
    """
    path = run / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run} is not the folder of a run: it holds no config.json")
    return json.loads(path.read_text(encoding="utf-8"))


def _find(run: Path, which: str | int) -> Path:
    found = {folder.name: folder for folder in checkpoints(run)}
    if not found:
        raise FileNotFoundError(f"{run} holds no checkpoint yet")
    name = f"step_{which:06d}" if isinstance(which, int) else which
    if which in ("best", "last"):
        pointer = run / which
        name = pointer.read_text(encoding="utf-8") if pointer.is_file() else max(found)
    if name not in found:
        raise FileNotFoundError(f"{run} has no checkpoint {name}; it has {', '.join(found)}")
    return found[name]


def mark_best(run: Path, checkpoint: Path) -> None:
    """Name a checkpoint as the best so far."""
    write_atomically(run / "best", checkpoint.name)


@contextmanager
def open_log(folder: Path | None, model: nn.Module, config: TrainConfig) -> Iterator[JsonLog]:
    """Take the folder for this process, write its config or compare it, and open its log.

    Raises:   ValueError when another process trains here, or the folder holds another run
    """
    if folder is None:
        yield JsonLog(None)
        return
    folder.mkdir(parents=True, exist_ok=True)
    _lock(folder)
    try:
        _write_config(folder, model, config)
        yield JsonLog(folder)
    finally:
        (folder / "lock").unlink(missing_ok=True)


def _write_config(folder: Path, model: nn.Module, config: TrainConfig) -> None:
    sizes = getattr(model, "config", None)
    entries = {"model": asdict(sizes) if sizes is not None else None, "train": asdict(config)}
    entries = json.loads(json.dumps(entries))
    path = folder / "config.json"
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [f"{part}.{name}: {old} there, {entries[part][name]} here"
                   for part in ("model", "train") for name, old in (before[part] or {}).items()
                   if (entries[part] or {}).get(name) != old]
        if changed and checkpoints(folder):
            raise ValueError(f"{folder} holds another run ({'; '.join(changed[:3])}): give it the "
                             "same config to go on with it, or take another folder")
    write_atomically(path, json.dumps(entries, indent=1) + "\n")


def _lock(folder: Path) -> None:
    path = folder / "lock"
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        owner = None
    if owner and owner["host"] == socket.gethostname() and is_running(owner["pid"]):
        raise ValueError(f"{folder} is in use: process {owner['pid']} trains there. Wait for it, "
                         "stop it, or take another folder")
    write_atomically(path, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))


def is_running(pid: int) -> bool:
    """Whether a process of this number exists on this machine (and is not this one)."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


__all__ = ["FOLDER", "ByteTokenizer", "OpenRun", "is_running", "mark_best", "open_log", "open_run",
           "read_config"]
