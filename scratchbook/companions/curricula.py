"""In which order and in which dress a model meets its texts: what chapter 06b compares.

Each class has the two methods that `scratchbook.training.train` asks for.

Chapter:  chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from scratchbook.data.batches import Batch, Batches, Windows
from scratchbook.runtime import named_generator


class InOrder:
    """Documents read once from the first to the last, whatever order they are given in.

    They are laid end to end and cut into windows, so that every order costs the same tokens.

    Shapes:   documents: tensors (their bytes,), validation_ids (bytes,)
    Raises:   ValueError when `batch` is asked for more than there is
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """

    bytes_per_token = 1.0

    def __init__(self, documents: Sequence[Tensor], validation_ids: Tensor, seq_len: int):
        self.ids = torch.cat(list(documents))
        self.held_out = Windows(self.ids, validation_ids, seq_len)
        self.seq_len = seq_len

    def batch(self, step: int, size: int) -> Batch:
        """The next `size` windows.

        Shapes:   -> ids and targets (size, time)
        """
        start, length = step * size * self.seq_len, size * self.seq_len
        part = self.ids[start : start + length + 1]
        if len(part) <= length:
            raise ValueError(f"step {step} would read past the {len(self.ids)} ids that there are")
        return Batch(part[:-1].view(size, self.seq_len), part[1:].view(size, self.seq_len))

    def validation(self, size: int) -> Iterator[Batch]:
        """The held-out windows in order."""
        return self.held_out.validation(size)


class GrowingContext:
    """Windows that get longer while the run goes on; every step has the same number of tokens.

    `stages` are (share of the run, time), in order; `size` counts rows of the longest.

    Shapes:   train_ids and validation_ids (bytes,)
    Raises:   ValueError for shares that do not sum to one, or times that do not divide the last
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """

    bytes_per_token = 1.0

    def __init__(self, train_ids: Tensor, validation_ids: Tensor, steps: int,
                 stages: Sequence[tuple[float, int]], longest: int, seed: int = 0):
        shares, times = zip(*stages, strict=True)
        if not math.isclose(sum(shares), 1) or any(longest % time for time in times):
            raise ValueError(f"stages={stages}: shares must sum to 1, times divide {longest}")
        self.steps, self.shares, self.longest = steps, shares, longest
        self.windows = [Windows(train_ids, validation_ids, time, seed) for time in times]
        self.held_out = Windows(train_ids, validation_ids, longest)

    def stage(self, step: int) -> int:
        """Which stage a step belongs to."""
        ends = torch.tensor(self.shares).cumsum(0) * self.steps
        return min(int((step >= ends.round()).sum()), len(self.windows) - 1)

    def batch(self, step: int, size: int) -> Batch:
        """`size` rows of the longest, or as many more of a shorter one.

        Shapes:   -> ids and targets (size * longest / time, time)
        """
        windows = self.windows[self.stage(step)]
        return windows.batch(step, size * self.longest // windows.seq_len)

    def validation(self, size: int) -> Iterator[Batch]:
        """The held-out ids in windows of the longest."""
        return self.held_out.validation(size)


class TokenDropout:
    """Replaces a share of the ids that are read, not of those to be guessed, by a blank.

    Raises:   ValueError for a share outside 0..1
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """

    bytes_per_token = 1.0

    def __init__(self, data: Batches, share: float, blank: int = 0, seed: int = 0):
        if not 0 <= share < 1:
            raise ValueError(f"share={share} is not within 0..1")
        self.data, self.share, self.blank, self.seed = data, share, blank, seed

    def batch(self, step: int, size: int) -> Batch:
        """The batch of the step with blanks in it.

        Shapes:   as those of the data
        """
        batch = self.data.batch(step, size)
        generator = named_generator(self.seed, f"dropout {step}")
        drop = torch.rand(batch.ids.shape, generator=generator) < self.share
        return batch._replace(ids=batch.ids.masked_fill(drop, self.blank))

    def validation(self, size: int) -> Iterator[Batch]:
        """What is held out stays as it is."""
        return self.data.validation(size)


PHRASES = [("for example", "for instance"), ("is used to", "serves to"), ("must be", "has to be"),
           ("is called", "is named"), ("contains", "holds"), ("returns", "gives back"),
           ("the following", "these"), ("in order to", "to"), ("such as", "like")]


def paraphrase(text: str, share: float, seed: int = 0) -> str:
    """Put other words for some phrases, each with the given chance, in both directions.

    Every text has draws of its own, which the seed and the text decide.

    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    other = dict(PHRASES) | {b: a for a, b in PHRASES if b != "to"}
    generator = named_generator(seed, f"paraphrase {text}")

    def change(match: re.Match) -> str:
        drawn = torch.rand((), generator=generator).item()
        return other[match[0]] if drawn < share else match[0]

    return re.sub(r"\b(?:" + "|".join(sorted(other, key=len, reverse=True)) + r")\b", change, text)


def difficulty(documents: Sequence[Tensor]) -> list[float]:
    """Bits per byte of each document under the counts of all neighbouring pairs of bytes.

    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    pairs: Counter = Counter()
    firsts: Counter = Counter()
    for ids in documents:
        row = ids.tolist()
        pairs.update(zip(row, row[1:], strict=False))
        firsts.update(row[:-1])
    found = []
    for ids in documents:
        row = ids.tolist()
        bits = [-math.log2(pairs[a, b] / firsts[a]) for a, b in zip(row, row[1:], strict=False)]
        found.append(sum(bits) / max(1, len(bits)))
    return found
