"""Chapter 06e's controls: vectors drawn anew, another text's motif, the delimiter before the last.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scratchbook.companions.mining_heads import told
from scratchbook.companions.mining_material import Material, mined
from scratchbook.evaluation.comparing import Interval
from scratchbook.interpret.ablation import ablated, mean_outputs
from scratchbook.interpret.clustering import adjusted_rand, best_clusters
from scratchbook.interpret.code_motifs import TokenText, delimiter_motif, method_motif
from scratchbook.interpret.mining import Find, Mined, find_heads
from scratchbook.interpret.patterns import Motif
from scratchbook.model import DecoderLM

SHARED = ("everywhere", "within a text", "nowhere")  # equal tokens have equal vectors
SAME_KIND = {"delimiter": delimiter_motif, "method head": method_motif}


def untrained(model: DecoderLM, seed: int) -> DecoderLM:
    """The same model as a seed draws it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DecoderLM(model.config).eval()


@contextmanager
def fresh_vectors(model: DecoderLM, shared: str, seed: int) -> Iterator[DecoderLM]:
    """Within the block token vectors are noise of the table's size, drawn anew for every text.

    Shared "within a text", equal tokens of one text have equal vectors; "nowhere", every place
    has its own; "everywhere" leaves the model's table as it is.

    Raises:   ValueError for another word
    """
    if shared not in SHARED:
        raise ValueError(f"shared={shared!r} is none of {', '.join(SHARED)}")
    draw = torch.Generator().manual_seed(seed)
    size = model.token_embedding.weight.detach().std()

    def replace(module: nn.Module, inputs: tuple[Tensor, ...], vectors: Tensor) -> Tensor | None:
        if shared == "everywhere":
            return None
        if shared == "nowhere":
            return torch.randn(vectors.shape, generator=draw) * size  # (texts, time, d_model)
        places = [row.unique(return_inverse=True)[1] for row in inputs[0]]
        return torch.stack([torch.randn(len(row), vectors.shape[-1], generator=draw)[row]
                            for row in places]) * size

    hook = model.token_embedding.register_forward_hook(replace)
    try:
        yield model
    finally:
        hook.remove()


def false_finds(material: Material, motifs: list, seeds: Sequence[int],
                shared: str = "everywhere") -> list[dict[str, Any]]:
    """What untrained models yield: tests at 5 % each, with Holm, and large enough besides."""
    rows = []
    for seed in seeds:
        with fresh_vectors(untrained(material.model, seed), shared, seed) as model:
            finds = find_heads(mined(model, material.ids, motifs))
        rows.append({"tests": len(finds), "alone": sum(find.p <= 0.05 for find in finds),
                     "holm": sum(find.significant for find in finds),
                     "found": sum(find.found for find in finds),
                     "by motif": Counter(find.motif for find in finds if find.significant)})
    return rows


def of_another_text(material: Material, motifs: Sequence[dict[str, Motif]]) -> Mined:
    """The scores with each text's motifs laid over the next text: equal distances, other tokens."""
    return mined(material.model, material.ids, [*motifs[1:], motifs[0]])


def halves_agree(table: Mined, most: int, fewest: int) -> float:
    """How far the groups of heads by the even texts and those by the odd ones are the same."""
    return adjusted_rand(*(best_clusters(table.of(slice(start, None, 2)).features(), most,
                                         fewest)[0] for start in (0, 1)))


# the last of its kind, or every one? ------------------------------------------------------------


def times(targets: np.ndarray, rivals: np.ndarray, draws: int = 2000, seed: int = 0
          ) -> np.ndarray:
    """How many times the attention on rivals that on targets is: first of all texts, then redrawn.

    Shapes:   (texts,) each -> (1 + draws,)
    """
    chosen = np.random.default_rng(seed).integers(len(targets), size=(draws, len(targets)))
    chosen = np.concatenate([np.arange(len(targets))[None], chosen])
    return targets[chosen].mean(1) / rivals[chosen].mean(1).clip(1e-9)


def _interval(values: np.ndarray) -> Interval:
    return Interval(float(values[0]), *map(float, np.quantile(values[1:], (0.025, 0.975))))


def last_or_every(material: Material, finds: Sequence[Find]) -> list[dict[str, Any]]:
    """Each found delimiter or method head at the last one and at the one before, beside neighbours.

    Positions are those that have both. A head that looks at every delimiter, less with distance,
    gives both as many times what the tokens beside them get.
    """
    texts = [TokenText(tuple(material.pieces(number)), material.language)
             for number in range(len(material.ids))]
    motifs = []
    for text in texts:
        both = {name: (make(text), make(text, 1)) for name, make in SAME_KIND.items()}
        motifs.append({f"{name} {skip}": pair[skip].where(pair[1 - skip])
                       for name, pair in both.items() for skip in (0, 1)})
    table, rows = mined(material.model, material.ids, motifs), []
    for find in finds:
        if not (find.found and find.motif in SAME_KIND):
            continue
        sides = [[side[f"{find.motif} {skip}"][:, find.layer, find.head]
                  for side in (table.targets, table.rivals)] for skip in (0, 1)]
        known = ~np.isnan(sides[0][0])
        last, before = (times(*(side[known] for side in pair)) for pair in sides)
        rows.append({"motif": find.motif, "layer": find.layer, "head": find.head,
                     "texts": int(known.sum()), "last": _interval(last),
                     "before": _interval(before), "ratio": _interval(last / before)})
    return rows


# does the one need the other? -------------------------------------------------------------------


def without_earlier(material: Material, finds: Sequence[Find], others: Tensor
                    ) -> dict[str, Any] | None:
    """The induction heads' excess without the strongest previous-token head below them.

    Controls are the other heads of its layer; each is held at its mean over `others`. None where
    there are no such heads.
    """
    earlier = [find for find in finds if find.found and find.motif == "previous token"]
    if not earlier:
        return None
    first = max(earlier, key=lambda find: find.excess)
    heads = [(find.layer, find.head) for find in finds
             if find.found and find.motif == "induction" and find.layer > first.layer]
    if not heads:
        return None
    motifs = [{"induction": each["induction"]} for each in material.motifs()]
    means = mean_outputs(material.model, [others])

    def excess(removed: list[tuple[int, int]]) -> np.ndarray:
        with ablated(material.model, removed, means) as model:
            table = mined(model, material.ids, motifs)
        gaps = table.targets["induction"] - table.rivals["induction"]  # (texts, layers, heads)
        return np.mean([gaps[:, layer, head] for layer, head in heads], axis=0)

    whole, without = excess([]), excess([(first.layer, first.head)])
    rest = [excess([(first.layer, head)]) for head in range(material.model.config.num_heads)
            if head != first.head]
    return {"head": [first.layer, first.head], "induction heads": len(heads),
            "whole": float(whole.mean()), "without": float(without.mean()),
            "others": [float(each.mean()) for each in rest], "change": told(without - whole),
            "against others": told(without - np.mean(rest, axis=0))}
