"""Chapter 06e's heads: found, grouped, taken away, and taken out for good.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scratchbook.companions.mining_material import Material, attention_maps
from scratchbook.compression.pruning import prune_heads
from scratchbook.evaluation.comparing import bootstrap, verdict_on
from scratchbook.interpret.ablation import head_effects, mean_outputs, text_losses
from scratchbook.interpret.clustering import best_clusters, silhouette
from scratchbook.interpret.mining import FLOOR, Find, Mined
from scratchbook.model import DecoderLM

FEWEST, MOST = 4, 8  # groups; two would part one outlier from all others


def round_find(find: Find) -> dict[str, Any]:
    """A find as a record keeps it."""
    return asdict(find) | {"score": round(find.score, 4), "excess": round(find.excess, 4)}


def clusters_of(mined: Mined, material: Material) -> list[dict[str, Any]]:
    """The groups of heads by their excess: size, strongest motif, silhouette, an exemplar.

    A group is named by the motif whose mean excess is highest, where that reaches `FLOOR`; else
    it has none of our names, and three pairs of tokens of its most central head are shown.
    """
    points = mined.features()
    labels, _ = best_clusters(points, MOST, FEWEST)
    apart, heads = silhouette(points, labels), next(iter(mined.targets.values())).shape[2]
    rows = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        centre = points[members].mean(0)
        strongest = int(centre.argmax())
        central = members[((points[members] - centre) ** 2).sum(1).argmin()]
        place = tuple(int(x) for x in divmod(int(central), heads))
        named = bool(centre[strongest] >= FLOOR)
        rows.append({"heads": len(members), "motif": mined.motifs[strongest] if named else "",
                     "excess": float(centre[strongest]), "nearest": mined.motifs[strongest],
                     "silhouette": float(apart[members].mean()), "central": list(place),
                     "members": [[int(x) for x in divmod(int(m), heads)] for m in members],
                     "exemplars": exemplars(material, place)})
    return sorted(rows, key=lambda row: -row["heads"])


def exemplars(material: Material, head: tuple[int, int], count: int = 3) -> list[str]:
    """Where one head looks most sharply: "query ← key (distance): weight", one from each text."""
    found = []
    for number, table in enumerate(attention_maps(material.model, material.ids[:count])):
        weights = table[head].clone()
        weights[:8] = 0  # the first rows have few places to spread over
        query, key = divmod(int(weights.argmax()), weights.shape[1])
        pieces = material.pieces(number)
        found.append(f"{pieces[query]!r} ← {pieces[key]!r} ({query - key} back): "
                     f"{weights[query, key]:.2f}")
    return found


def habits(material: Material, texts: int = 8) -> np.ndarray:
    """What no motif asks: each head's share on itself, spread (bits), and mean distance.

    Shapes:   -> (layers, heads, 3)
    """
    rows = []
    for table in attention_maps(material.model, material.ids[:texts]):
        time_ = table.shape[-1]
        distance = torch.arange(time_)[:, None] - torch.arange(time_)
        itself = table.diagonal(dim1=-2, dim2=-1)[..., 8:].mean(-1)
        bits = -(table.clamp_min(1e-9).log2() * table).sum(-1)[..., 8:].mean(-1)
        rows.append(torch.stack([itself, bits, (table * distance).sum(-1)[..., 8:].mean(-1)], -1))
    return torch.stack(rows).mean(0).numpy()


def told(values: Tensor | Sequence[float]) -> dict[str, Any]:
    """A change of the loss over texts: mean, interval and verdict."""
    change = bootstrap(torch.as_tensor(values).tolist())
    return {"mean": change.value, "low": change.low, "high": change.high,
            "verdict": verdict_on(change, "lower", "higher")}


def controls_for(head: tuple[int, int], taken: Sequence[tuple[int, int]], heads: int
                 ) -> list[tuple[int, int]]:
    """The other heads of the same layer that were not found.

    Raises:   ValueError when the layer has none
    """
    free = [(head[0], other) for other in range(heads)
            if (head[0], other) not in taken and other != head[1]]
    if not free:
        raise ValueError(f"every head of layer {head[0]} was found: there is no control")
    return free


def ablations(material: Material, heads: Sequence[tuple[int, int]], ids: Tensor,
              calibration: Tensor) -> dict[str, Tensor]:
    """The change of each text's loss without each head: {"zero": (heads, texts), "mean": ...}."""
    means = mean_outputs(material.model, [calibration])
    return {"zero": head_effects(material.model, ids, heads),
            "mean": head_effects(material.model, ids, heads, means)}


def every_head(model: DecoderLM) -> list[tuple[int, int]]:
    """(layer, head) of all."""
    return [(layer, head) for layer, block in enumerate(model.blocks)
            for head in range(block.attention.num_heads)]


def as_scores(model: DecoderLM, worth: Tensor) -> dict[str, Tensor]:
    """What `prune_heads` reads: each head's columns of o_proj filled with its worth, from 0 up.

    Shapes:   worth (layers, heads)
    """
    lifted = worth - worth.min()
    return {f"blocks.{layer}.attention.o_proj":
            lifted[layer].repeat_interleave(block.attention.head_dim).expand(
                block.attention.o_proj.weight.shape).clone()
            for layer, block in enumerate(model.blocks)}


def norms(model: DecoderLM) -> Tensor:
    """The simplest worth: how large each head's columns of o_proj are; (layers, heads)."""
    return torch.stack([block.attention.o_proj.weight.detach().unflatten(
        1, (block.attention.num_heads, -1)).norm(dim=(0, 2)) for block in model.blocks])


def pruned(model: DecoderLM, worth: Tensor, keep: int) -> DecoderLM:
    """A copy that keeps in every layer the `keep` heads of the highest worth."""
    smaller = copy.deepcopy(model)
    prune_heads(smaller, as_scores(smaller, worth), keep)
    return smaller.eval()


@torch.no_grad()
def seconds_per_pass(models: Sequence[DecoderLM], ids: Tensor, rounds: int = 15
                     ) -> list[list[float]]:
    """Processor seconds of one pass, the models in turns: for each model all rounds."""
    found: list[list[float]] = [[] for _ in models]
    for model in models:
        model(ids[:1])
    for _ in range(rounds):
        for model, seconds in zip(models, found, strict=True):
            began = time.process_time()
            model(ids)
            seconds.append(time.process_time() - began)
    return found


def pruning(material: Material, worth: Tensor, ids: Tensor, keeps: Sequence[int],
            seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Heads taken out by their worth, by their norm and by chance: loss, differences, speed.

    Neither `worth` nor the averages behind it may come from `ids`. The chance is drawn once for
    each seed, and its losses are averaged text by text.
    """
    model, rows = material.model, []
    whole = text_losses(model, ids)
    for keep in keeps:
        ours = pruned(model, worth, keep)
        drawn = [pruned(model, torch.rand(worth.shape, generator=torch.Generator().manual_seed(
            seed)), keep) for seed in seeds]
        chance = torch.stack([text_losses(each, ids) for each in drawn])  # (seeds, texts)
        kept, by_norm = (text_losses(each, ids) for each in (
            ours, pruned(model, norms(model), keep)))
        speeds = seconds_per_pass([model, ours], ids[:8])
        rows.append({"keep": keep, "of": model.config.num_heads, "whole": whole.mean().item(),
                     "by evidence": told(kept - whole), "by chance": told(chance.mean(0) - whole),
                     "chance runs": (chance.mean(1) - whole.mean()).tolist(),
                     "by norm": told(by_norm - whole),
                     "evidence against chance": told(kept - chance.mean(0)),
                     "evidence against norm": told(kept - by_norm),
                     "seconds": speeds, "parameters": [sum(p.numel() for p in each.parameters())
                                                      for each in (model, ours)]})
    return rows
