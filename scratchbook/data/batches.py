"""What a training loop eats: batches that depend on the seed and the step, and on nothing else.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from scratchbook.runtime import named_generator

IGNORED = -100  # a target that counts for nothing, as in torch's cross_entropy


class Batch(NamedTuple):
    """Ids, the ids that should follow each of them, and who may look at whom.

    Shapes:   ids and targets (batch, time), mask (batch, 1, time, time) or None
    """

    ids: Tensor
    targets: Tensor
    mask: Tensor | None = None

    def part(self, start: int, stop: int) -> Batch:
        """Some rows of it."""
        mask = None if self.mask is None else self.mask[start:stop]
        return Batch(self.ids[start:stop], self.targets[start:stop], mask)


class Batches(Protocol):
    """What `scratchbook.training.train` asks of its data."""

    def batch(self, step: int, size: int) -> Batch:
        """The batch of one step: the same whenever it is asked for, so that runs can resume."""
        ...

    def validation(self, size: int) -> Iterator[Batch]:
        """Everything held out, in order; the last batch may be smaller."""
        ...


class Windows:
    """Windows of equal length from one long row of ids, each with the ids that follow.

    Training draws them anywhere; validation cuts its ids without overlap or remainder: what
    does not fill a window is left out. `bytes_per_token` turns nats per token into bits per
    byte; for byte ids it is 1, and None where the ids do not spell the text.

    Shapes:   train_ids and validation_ids (tokens,): a tensor, or a memory-mapped array
    Raises:   ValueError when either is too short for one window and its targets, or seq_len < 1
    Chapter:  chapters/06_training.ipynb
    """

    def __init__(self, train_ids: Tensor | np.ndarray, validation_ids: Tensor | np.ndarray,
                 seq_len: int, seed: int = 0, bytes_per_token: float | None = 1.0):
        if seq_len < 1:
            raise ValueError(f"seq_len={seq_len}: a window has at least 1 id")
        for name, ids in (("train_ids", train_ids), ("validation_ids", validation_ids)):
            if len(ids) <= seq_len:
                raise ValueError(f"{name} holds {len(ids)} ids: windows of seq_len={seq_len} "
                                 f"need at least {seq_len + 1}")
        self.train_ids, self.validation_ids = train_ids, validation_ids
        self.seq_len, self.seed, self.bytes_per_token = seq_len, seed, bytes_per_token

    def fingerprint(self) -> str:
        """A hash of every id and of how they are cut: equal hashes, equal batches."""
        return hash_of(self.train_ids, self.validation_ids, note=f"{self.seq_len} {self.seed}")

    def batch(self, step: int, size: int) -> Batch:
        """`size` windows drawn for this step.

        Shapes:   -> ids and targets (size, time)
        """
        generator = named_generator(self.seed, f"batch {step}")
        starts = torch.randint(len(self.train_ids) - self.seq_len, (size, 1), generator=generator)
        places = starts + torch.arange(self.seq_len + 1)  # (size, time + 1)
        return _shifted(self.train_ids, places)

    def validation(self, size: int) -> Iterator[Batch]:
        """The held-out ids in order, `size` windows at a time.

        Shapes:   yields ids and targets (up to size, time)
        """
        count = (len(self.validation_ids) - 1) // self.seq_len
        for first in range(0, count, size):
            rows = torch.arange(first, min(first + size, count))[:, None]
            places = rows * self.seq_len + torch.arange(self.seq_len + 1)
            yield _shifted(self.validation_ids, places)


def hash_of(*parts: Tensor | np.ndarray, note: str = "") -> str:
    """SHA-256 over whole arrays of numbers, a piece at a time, and a note."""
    digest = hashlib.sha256(note.encode())
    for part in parts:
        digest.update(repr(tuple(part.shape)).encode())
        for start in range(0, len(part), 1 << 20):
            piece = torch.as_tensor(part[start : start + (1 << 20)]).cpu()
            digest.update(np.asarray(piece, dtype="<i8").tobytes())
    return digest.hexdigest()


def _shifted(ids: Tensor | np.ndarray, places: Tensor) -> Batch:
    if isinstance(ids, Tensor):
        rows = ids[places]
    else:  # a memory-mapped file: only what is asked for is read
        rows = torch.from_numpy(ids[places.numpy()].astype(np.int64))
    rows = rows.long()
    return Batch(rows[:, :-1].clone(), rows[:, 1:].clone())  # no shared memory: callers may edit
