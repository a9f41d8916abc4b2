"""Mixing sources, and saying in which unit the ratio holds.

"Three to one" may mean lines, bytes or tokens. A source of short lines is many lines and few
bytes; a tokenizer made for prose gives code more tokens than its bytes deserve.

Chapter:  chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from scratchbook.data.batches import Batch, Batches
from scratchbook.runtime import named_generator


class Sizes(NamedTuple):
    """How large a text is, in three units."""

    lines: int
    bytes: int
    tokens: int


def measure(texts: Sequence[str], encode: Callable[[str], Sequence[int]]) -> Sizes:
    """Count the lines, bytes and tokens of some texts.

    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    return Sizes(sum(len(text.splitlines()) for text in texts),
                 sum(len(text.encode("utf-8")) for text in texts),
                 sum(len(encode(text)) for text in texts))


def shares(sizes: Mapping[str, Sizes], weights: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Each source's share, by unit, when it is repeated `weight` times: {source: {unit: share}}.

    Raises:   ValueError for weights that are negative, unknown, or leave nothing
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    weights = normal_weights(weights, sizes)
    amounts = {name: [weights[name] * amount for amount in sizes[name]] for name in sizes}
    totals = [sum(column) for column in zip(*amounts.values(), strict=True)]
    if not all(totals):
        raise ValueError(f"the sources that have a weight are empty: {dict(sizes)}")
    return {name: {unit: amount / total for unit, amount, total in
                   zip(Sizes._fields, row, totals, strict=True)} for name, row in amounts.items()}


def normal_weights(weights: Mapping[str, float], sources: Mapping[str, object]) -> dict[str, float]:
    """Weights that sum to one, in the order of the sources; an infinite one takes everything.

    Raises:   ValueError for weights that are negative, of unknown sources, or all zero
    """
    if set(weights) != set(sources):
        raise ValueError(f"the weights are for {', '.join(weights)}, the sources are "
                         f"{', '.join(sources)}: give each source one weight")
    if not all(w >= 0 for w in weights.values()) or not any(weights.values()):
        raise ValueError(f"weights {dict(weights)} must be 0 or more, and one above 0")
    if math.inf in weights.values():
        weights = {name: float(w == math.inf) for name, w in weights.items()}
    total = sum(weights.values())
    return {name: weights[name] / total for name in sources}


class Mixture:
    """Batches from several sources; each row's source is drawn by weight, for each step anew.

    Rows are of equal length, so the weights are shares of tokens. The draw depends on the seed
    and the step alone. `validation` reads all sources one after the other.

    Raises:   ValueError for weights that are negative, unknown or all zero
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """

    def __init__(self, sources: Mapping[str, Batches], weights: Mapping[str, float],
                 seed: int = 0):
        self.sources, self.seed = dict(sources), seed
        self.weights = normal_weights(weights, sources)

    def batch(self, step: int, size: int) -> Batch:
        """`size` rows of this step, source after source."""
        generator = named_generator(self.seed, f"mixture {step}")
        chances = torch.tensor(list(self.weights.values()))
        drawn = torch.multinomial(chances, size, replacement=True, generator=generator)
        counts = torch.bincount(drawn, minlength=len(chances)).tolist()
        parts = [source.batch(step, count) for source, count
                 in zip(self.sources.values(), counts, strict=True) if count]
        return Batch(*(None if tensors[0] is None else torch.cat(tensors)
                       for tensors in zip(*parts, strict=True)))

    def validation(self, size: int) -> Iterator[Batch]:
        """Everything held out, source after source."""
        for source in self.sources.values():
            yield from source.validation(size)
