"""Every head against every motif: scores over texts, and which of them are found.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scratchbook.interpret.head_tests import holm, swap_test
from scratchbook.interpret.patterns import Motif, head_scores

LEVEL = 0.05  # the chance of one false find or more among all tests
FLOOR = 0.1  # share of the attention that targets must get above their rivals


@dataclass(frozen=True)
class Mined:
    """The scores of all heads on all texts, for every motif.

    Shapes:   targets and rivals: for each motif (texts, layers, heads); NaN where a text has
              none of the motif
    Chapter:  chapters/06e_pattern_mining.ipynb
    """

    targets: dict[str, np.ndarray]
    rivals: dict[str, np.ndarray]

    @property
    def motifs(self) -> list[str]:
        """Their names."""
        return list(self.targets)

    def of(self, texts: slice) -> Mined:
        """The same of some texts only."""
        return Mined(*({name: scores[texts] for name, scores in side.items()}
                       for side in (self.targets, self.rivals)))

    def mean_targets(self) -> dict[str, np.ndarray]:
        """The attention on targets, the mean over texts: (layers, heads) for each motif."""
        return {name: _mean(scores) for name, scores in self.targets.items()}

    def excess(self) -> dict[str, np.ndarray]:
        """How much more that is than the attention on rivals: (layers, heads) for each motif."""
        return {name: _mean(self.targets[name] - self.rivals[name]) for name in self.motifs}

    def features(self) -> np.ndarray:
        """One row for each head, one column for each motif: its excess.

        Shapes:   -> (layers * heads, motifs)
        """
        return np.stack([np.nan_to_num(each).ravel() for each in self.excess().values()], 1)


def _mean(scores: np.ndarray) -> np.ndarray:
    known = ~np.isnan(scores)
    total, count = np.where(known, scores, 0).sum(0), known.sum(0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def mine(maps: Iterable[Tensor | Sequence[Tensor]], motifs: Iterable[Mapping[str, Motif]]) -> Mined:
    """Score every head on every text.

    Shapes:   maps: for each text (layers, heads, time, keys), or a list of layers
    Raises:   ValueError when maps and motifs differ in number, or there is no text
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    sides: tuple[dict[str, list], dict[str, list]] = ({}, {})
    for attention, known in zip(maps, motifs, strict=True):
        attention = torch.stack([*attention]) if not isinstance(attention, Tensor) else attention
        for name, motif in known.items():
            for side, scores in zip(sides, head_scores(attention, motif), strict=True):
                side.setdefault(name, []).append(scores.double().cpu().numpy())
    if not sides[0]:
        raise ValueError("there is no text: give at least one map and its motifs")
    targets, rivals = ({name: np.stack(rows) for name, rows in side.items()} for side in sides)
    return Mined(targets, rivals)


@dataclass(frozen=True)
class Find:
    """One head tested for one motif."""

    motif: str
    layer: int
    head: int
    score: float  # attention on targets
    excess: float  # above that on rivals
    p: float
    p_holm: float  # corrected for all heads and motifs that were tested
    texts: int  # that have the motif

    @property
    def significant(self) -> bool:
        """Whether the excess is no chance, at the level for all tests together."""
        return self.p_holm <= LEVEL

    @property
    def found(self) -> bool:
        """Whether it is no chance, and large enough to speak of."""
        return self.significant and self.excess >= FLOOR


def find_heads(mined: Mined, draws: int = 19_999, seed: int = 0) -> list[Find]:
    """Test every head for every motif, and correct by Holm over all of them together.

    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    rows, p_values = [], []
    scores, excess = mined.mean_targets(), mined.excess()
    for name in mined.motifs:
        gaps = mined.targets[name] - mined.rivals[name]  # (texts, layers, heads)
        texts = int((~np.isnan(gaps[:, 0, 0])).sum())
        p = swap_test(gaps.reshape(len(gaps), -1), draws, seed)
        p_values.append(p)
        rows += [(name, *divmod(head, gaps.shape[2]), texts) for head in range(len(p))]
    p, corrected = np.concatenate(p_values), holm(np.concatenate(p_values))
    return [Find(name, layer, head, float(scores[name][layer, head]),
                 float(excess[name][layer, head]), float(p[i]), float(corrected[i]), texts)
            for i, (name, layer, head, texts) in enumerate(rows)]
