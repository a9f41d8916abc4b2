"""What a head looks at, as numbers: motifs, and how much more they get than a matched rival.

A motif names, for some positions of a text, the keys that a head of this kind would look at, and
for each of them rival keys that differ in the supposed cause alone. The score of a head is the
attention that falls on the targets; what counts is how much more that is than on the rivals.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Motif:
    """Targets and rivals of one text: weights by which attention is summed.

    A row of `targets` is 1 at each key that the motif expects; the row of `rivals` has the same
    sum, so that a head without a preference gives both the same. Rows of zeros take no part.

    Shapes:   targets and rivals (time, keys)
    Raises:   ValueError when the two do not fit each other, or look into the future
    Chapter:  chapters/06e_pattern_mining.ipynb
    """

    targets: Tensor
    rivals: Tensor

    def __post_init__(self) -> None:
        if self.targets.shape != self.rivals.shape or self.targets.dim() != 2:
            raise ValueError(f"targets {tuple(self.targets.shape)} and rivals "
                             f"{tuple(self.rivals.shape)} must both be (time, keys)")
        if not torch.allclose(self.targets.sum(1), self.rivals.sum(1), atol=1e-4):
            raise ValueError("in some row the rivals weigh more or less than the targets: a head "
                             "without a preference would not score 0")
        if self.targets.triu(1).any() or self.rivals.triu(1).any():
            raise ValueError("a key stands behind its query: no causal head can look at it")

    @property
    def rows(self) -> int:
        """How many positions take part."""
        return int((self.targets.sum(1) > 0).sum())

    def where(self, other: Motif) -> Motif:
        """Only the positions that take part in the other motif too."""
        both = (other.targets.sum(1, keepdim=True) > 0).to(self.targets)
        return Motif(self.targets * both, self.rivals * both)


def rival_weights(key: int, candidates: Sequence[int]) -> dict[int, float]:
    """The nearest candidate on each side of a target, weighted to the target's own distance.

    With candidates 2 places before and 1 place behind the target the weights are 1/3 and 2/3, and
    their mean distance from the query is the target's: a taste for nearness that falls in a
    straight line, or flattens out, never favours the target. Where there is none before it, the
    one behind it, which is nearer to the query, takes all. No candidate behind it: no rival.

    Shapes:   candidates rising, without `key` -> {place: weight}, of sum 1, or {}
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    after = bisect_left(candidates, key)
    if after == len(candidates):
        return {}
    near = candidates[after]
    if not after:
        return {near: 1.0}
    far = candidates[after - 1]
    share = (near - key) / (near - far)  # the nearer of the two weighs more
    return {far: share, near: 1 - share}


def make_motif(pairs: Iterable[tuple[int, int]],
               candidates: Callable[[int, int], Iterable[int]], time: int) -> Motif:
    """A motif from (query, key) pairs; `candidates(query, key)` are the keys that may be rivals.

    A pair without a rival takes no part.

    Raises:   ValueError for a key that stands behind its query or outside of the text
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    pairs = list(pairs)
    taken = set(pairs)
    targets, rivals = torch.zeros(time, time), torch.zeros(time, time)
    for query, key in pairs:
        if not 0 <= key <= query < time:
            raise ValueError(f"query {query} and key {key}: keys stand before their query, and "
                             f"both within 0..{time - 1}")
        others = sorted({place for place in candidates(query, key)
                         if 0 <= place <= query and (query, place) not in taken})
        weights = rival_weights(key, others)
        targets[query, key] = 1.0 if weights else 0.0
        for place, weight in weights.items():
            rivals[query, place] += weight
    return Motif(targets, rivals)


def _any_place(query: int, key: int) -> range:
    return range(query + 1)


def previous_token(time: int, k: int = 1) -> Motif:
    """The token `k` places back, against those on both sides of it.

    Paper:    Clark et al. (2019), arXiv:1906.04341, section 3.1
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    if not 1 <= k < time - 1:
        raise ValueError(f"k={k} is not within 1..{time - 2} of a text of {time} tokens")
    return make_motif(((q, q - k) for q in range(k + 1, time)), _any_place, time)


def first_token(time: int, skip: int = 8) -> Motif:
    """The first token, seen from position `skip` on, against the second: a sink if it gets more.

    Paper:    Xiao et al. (2023), arXiv:2309.17453, section 3.1
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    if time <= skip:
        raise ValueError(f"a text of {time} tokens has none behind skip={skip}")
    return make_motif(((q, 0) for q in range(skip, time)), _any_place, time)


def induction(ids: Sequence[int] | Tensor) -> Motif:
    """What came behind the last earlier copy of this token, against its neighbours.

    Only for tokens that stood before. A copy right before is left out: what came behind it is the
    token itself.

    Paper:    Olsson et al. (2022), arXiv:2209.11895
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    pairs, last = [], {}
    ids = torch.as_tensor(ids).tolist()
    for query, token in enumerate(ids):
        if last.get(token, query) + 1 < query:
            pairs.append((query, last[token] + 1))
        last[token] = query
    return make_motif(pairs, _any_place, len(ids))


def head_scores(attention: Tensor, motif: Motif) -> tuple[Tensor, Tensor]:
    """The attention on targets and on rivals, averaged over the positions that take part.

    Shapes:   attention (..., time, keys) -> two of (...,); NaN where no position takes part
    Raises:   ValueError when the attention belongs to a text of another length
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    if attention.shape[-2:] != motif.targets.shape:
        raise ValueError(f"attention over {tuple(attention.shape[-2:])} positions, and a motif of "
                         f"{tuple(motif.targets.shape)}: both must come from one text")
    rows = motif.rows or float("nan")
    return tuple((attention * weights.to(attention)).sum((-2, -1)) / rows
                 for weights in (motif.targets, motif.rivals))
