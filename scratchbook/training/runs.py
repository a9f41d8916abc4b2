"""The folder of a run: config, log, checkpoints, and who is writing it.

    RUN/config.json     the settings of model and training, what the data were, which tokenizer
    RUN/tokenizer.json  absent when the ids are bytes
    RUN/log.jsonl       one line per step, one per evaluation
    RUN/checkpoints/    step_000500/{model.safetensors, optimizer.safetensors, state.json}
    RUN/best, RUN/last  the name of a checkpoint
    RUN/lock            names the process that is training; empty when none is

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from torch import nn

from scratchbook.config import ModelConfig, RopeSettings
from scratchbook.data.batches import Batches
from scratchbook.model import DecoderLM
from scratchbook.runtime import sha256_of, write_atomically
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.training.checkpoint import checkpoints, folder_of, load_checkpoint
from scratchbook.training.identity import check_folder, read_config, write_config
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


class NoTokenizer(ByteTokenizer):
    """What a run has that was trained on ids alone: it says so when text is asked of it."""

    def __init__(self, run: Path, vocab_size: int):
        self.run, self.vocab_size = run, vocab_size

    def encode(self, text: str) -> list[int]:
        """There is no way from text to ids.

        Raises:   ValueError
        """
        raise ValueError(f"{self.run} was trained on ids, and `train` was given no tokenizer: "
                         "pass tokenizer=... there to read and write text")

    def decode(self, ids: list[int]) -> str:
        """There is no way from ids to text.

        Raises:   ValueError
        """
        return self.encode("")


@dataclass(frozen=True)
class OpenRun:
    """A model as a checkpoint has it, ready to be used, with what belongs to it."""

    model: DecoderLM
    tokenizer: Tokenizer | ByteTokenizer
    config: dict[str, Any]
    step: int
    folder: Path


def open_run(path: str | Path, which: str | int = "best",
             wrap: Callable[[DecoderLM], nn.Module] | None = None) -> OpenRun:
    """Load a run's model from its best or last checkpoint, or from that of a given step.

    A run that was never evaluated has no best checkpoint: the last one is taken then. A run of
    a model that was wrapped before it learned (LoRA) needs `wrap`, which does to a plain model
    what was done to that one; a frozen base is not in the checkpoint, so `wrap` loads it too.

    Raises:   FileNotFoundError when there is no run or no such checkpoint; ValueError when the
              run does not say what its model is like
    Chapter:  chapters/06_training.ipynb
    """
    run = Path(path)
    config = read_config(run)
    folder = find_checkpoint(run, which)
    if config["model"] is None:
        raise ValueError(f"{run} was trained on a model without a config: build that model and "
                         "fill it by load_checkpoint")
    tokenizer = _tokenizer_of(run, config)
    entries = dict(config["model"])
    model = DecoderLM(ModelConfig(**entries | {"rope": RopeSettings(**entries["rope"])}))
    vocab_size, model = model.config.vocab_size, model if wrap is None else wrap(model)
    state = load_checkpoint(folder, model)
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(f"{run}: the tokenizer has {tokenizer.vocab_size} tokens and the model "
                         f"room for {vocab_size}: they are not of the same run")
    return OpenRun(model.eval(), tokenizer, config, state["step"], folder)


def _tokenizer_of(run: Path, config: dict[str, Any]) -> Tokenizer | ByteTokenizer:
    """The tokenizer that a run's folder keeps, which must be the one that it was trained with."""
    file, known = run / "tokenizer.json", config.get("tokenizer", "unknown")
    vocab_size = (config["model"] or {}).get("vocab_size")
    untold = known in (None, "unknown") and not file.is_file()
    if known == "bytes" or (untold and vocab_size == ByteTokenizer.vocab_size):
        return ByteTokenizer()
    if untold and known is None:
        return NoTokenizer(run, vocab_size)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: without its tokenizer nothing can be said of "
                                "what this run reads and writes. Put the file back")
    if known not in (None, "unknown", sha256_of(file)):
        raise ValueError(f"{file} is not the tokenizer that this run was trained with: put that "
                         "file back")
    return Tokenizer.load(file)


def find_checkpoint(run: Path, which: str | int) -> Path:
    """The folder of a run's "best" or "last" checkpoint, or of that of a step.

    Raises:   FileNotFoundError when the run has none, or none of that name
    """
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
             tokenizer: Tokenizer | ByteTokenizer | None = None, source: dict | None = None,
             warm_restart: bool = False) -> Iterator[JsonLog]:
    """Take the folder for this process, write its config or compare it, and open its log.

    Raises:   ValueError when another process trains here, or the folder holds another run or
              files that are none of a run's
    """
    if folder is None:
        yield JsonLog(None)
        return
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with taken(folder):
        write_config(folder, model, data, config, name_of(tokenizer), source, warm_restart)
        if isinstance(tokenizer, Tokenizer):
            tokenizer.save(folder / "tokenizer.json")
        elif tokenizer is not None:
            (folder / "tokenizer.json").unlink(missing_ok=True)
        yield JsonLog(folder)


def name_of(tokenizer: Tokenizer | ByteTokenizer | None) -> str | None:
    """What tells one tokenizer from another: "bytes", or the hash of the file that it saves."""
    if not isinstance(tokenizer, Tokenizer):
        return None if tokenizer is None else "bytes"
    with TemporaryDirectory() as place:
        file = Path(place, "tokenizer.json")
        tokenizer.save(file)
        return sha256_of(file)


def start_from(model: nn.Module, run: str | Path, which: str | int = "best",
               tokenizer: Tokenizer | ByteTokenizer | None = None) -> int:
    """Fill a model with the weights of another run's checkpoint; returns that run's step.

    Raises:   FileNotFoundError when there is no run or checkpoint, ValueError when that run has
              another tokenizer, CheckpointError when its model has other sizes
    Chapter:  chapters/06_training.ipynb
    """
    run = Path(run)
    theirs = _tokenizer_of(run, read_config(run))
    if tokenizer is not None and name_of(tokenizer) != name_of(theirs):
        raise ValueError(f"{run} was trained with another tokenizer: its weights know other ids. "
                         f"Use --data.tokenizer {run / 'tokenizer.json'}")
    return load_checkpoint(find_checkpoint(run, which), model)["step"]


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
