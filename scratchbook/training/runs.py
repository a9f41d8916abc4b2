"""The folder of a run: config, log, checkpoints, and who is writing it.

    RUN/config.json     the model's and the training's settings
    RUN/tokenizer.json  absent when the ids are bytes
    RUN/log.jsonl       one line per step, one per evaluation
    RUN/checkpoints/    step_000500/{model.safetensors, optimizer.safetensors, state.json}
    RUN/best, RUN/last  the name of a checkpoint
    RUN/lock            names the process that is training; empty when none is

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from torch import nn

from scratchbook.config import ModelConfig, RopeSettings
from scratchbook.data.batches import Batches
from scratchbook.model import DecoderLM
from scratchbook.runtime import with_new_names, write_atomically
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.training.checkpoint import checkpoints, folder_of, load_checkpoint
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

    Raises:   FileNotFoundError when there is no run or no such checkpoint; ValueError when the
              run does not say what its model is like
    Chapter:  chapters/06_training.ipynb
    """
    run = Path(path)
    config = read_config(run)
    folder = _find(run, which)
    if config["model"] is None:
        raise ValueError(f"{run} was trained on a model without a config: build that model and "
                         "fill it by load_checkpoint")
    entries = dict(config["model"])
    model = DecoderLM(ModelConfig(**entries | {"rope": RopeSettings(**entries["rope"])}))
    state = load_checkpoint(folder, model)
    tokenizer = run / "tokenizer.json"
    return OpenRun(model.eval(), Tokenizer.load(tokenizer) if tokenizer.is_file()
                   else ByteTokenizer(), config, state["step"], folder)


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
    return config | {"train": with_new_names(config["train"])}


def _find(run: Path, which: str | int) -> Path:
    found = {folder.name: folder for folder in checkpoints(run)}
    if not found:
        raise FileNotFoundError(f"{run} holds no checkpoint yet")
    name = folder_of(run, which).name if isinstance(which, int) else which
    if which in ("best", "last"):
        pointer = run / which
        name = pointer.read_text(encoding="utf-8") if pointer.is_file() else max(found)
    if name not in found:
        raise FileNotFoundError(f"{run} has no checkpoint {name}; it has {', '.join(found)}")
    return found[name]


def mark_best(run: Path, step: int) -> None:
    """Name the checkpoint of a step as the best so far."""
    write_atomically(run / "best", folder_of(run, step).name)


@contextmanager
def open_log(folder: Path | None, model: nn.Module, data: Batches, config: TrainConfig,
             tokenizer: Tokenizer | ByteTokenizer | None = None) -> Iterator[JsonLog]:
    """Take the folder for this process, write its config or compare it, and open its log.

    Raises:   ValueError when another process trains here, or the folder holds another run
    """
    if folder is None:
        yield JsonLog(None)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with taken(folder):
        _write_config(folder, model, data, config)
        if isinstance(tokenizer, Tokenizer):
            tokenizer.save(folder / "tokenizer.json")
        elif tokenizer is not None:
            (folder / "tokenizer.json").unlink(missing_ok=True)
        yield JsonLog(folder)


def _write_config(folder: Path, model: nn.Module, data: Batches, config: TrainConfig) -> None:
    sizes = getattr(model, "config", None)
    entries = {"model": asdict(sizes) if sizes is not None else None, "train": asdict(config),
               "data": {"first_batch": _fingerprint(data)}}
    entries = json.loads(json.dumps(entries))
    path = folder / "config.json"
    if path.is_file():
        before = read_config(folder)
        changed = [f"{part}.{name}: {old} there, {(entries[part] or {}).get(name)} here"
                   for part in entries for name, old in (before.get(part) or {}).items()
                   if (entries[part] or {}).get(name) != old]
        if changed and checkpoints(folder):
            raise ValueError(f"{folder} holds another run ({'; '.join(changed[:3])}): give it the "
                             "same config and text to go on with it, or take another folder")
    write_atomically(path, json.dumps(entries, indent=1) + "\n")


def _fingerprint(data: Batches) -> str:
    """Tells another text, tokenizer or length of windows, without keeping the text."""
    ids, targets, _ = data.batch(0, 1)
    return hashlib.sha256(repr((ids.tolist(), targets.tolist())).encode()).hexdigest()[:16]


@contextmanager
def taken(folder: Path) -> Iterator[None]:
    """Hold RUN/lock. The system lets go of it when the process ends, however that happens.

    Raises:   ValueError when another process holds it
    """
    with (folder / "lock").open("a+", encoding="utf-8", errors="replace") as file:
        if not _lock(file):
            file.seek(0)
            raise ValueError(f"{folder} is in use: {file.read() or 'a process'} trains there. "
                             "Wait for it, stop it, or take another folder")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def is_training(run: Path) -> bool:
    """Whether a process trains in this folder right now."""
    path = run / "lock"
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open(encoding="utf-8") as file:
        return not _lock(file, shared=True)


def _lock(file: TextIO, shared: bool = False) -> bool:
    """Lock an open file; False where another process has. Closing it unlocks it."""
    try:
        import fcntl
    except ImportError:  # Windows: nobody is kept out
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that knows no locks
        return True
    return True


@contextmanager
def interrupts_held() -> Iterator[list[int]]:
    """Ctrl-C waits for the end of the block, which sees it in the list; a second one acts at once.

    Raises:   KeyboardInterrupt at the end of the block, when one was held
    """
    held: list[int] = []

    def hold(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        held.append(number)

    ours = (threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    if ours:
        signal.signal(signal.SIGINT, hold)
    try:
        yield held
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if held:
        raise KeyboardInterrupt
