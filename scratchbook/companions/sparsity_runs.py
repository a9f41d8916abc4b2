"""Experiment E07.4: how bits per byte rise as weights go, by score, with and without retraining.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scratchbook.companions.compression_material import (
    FULL,
    QUICK,
    Sizes,
    bits,
    judged_on,
    kept,
    mark,
    recipe,
    windows,
)
from scratchbook.compression.measuring import disk_bytes
from scratchbook.compression.pruning import (
    Masks,
    Scores,
    apply_masks,
    linears,
    magnitude_scores,
    masks_kept,
    masks_of_lowest,
    movement_scores,
    n_of_m_masks,
    prune_channels,
    prune_heads,
    wanda_scores,
)
from scratchbook.compression.sparse_files import save_sparse
from scratchbook.data.batches import Windows
from scratchbook.model import DecoderLM
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.training import train

SHARES = (0.25, 0.5, 0.75)  # of the weights; quick takes the middle one
RETRAINED = {"magnitude": 0.75, "movement": 0.75, "wanda": 0.75, "2:4 wanda": 0.5}
RATE = 0.00015  # of retraining and of the steps that movement watches
WATCHED = 3  # times the steps of retraining, while movement is scored
SCOPES = {  # weights are compared within a matrix or a row: as in the papers, and the other way
    "magnitude": "layer", "movement": "layer", "wanda": "row",
    "magnitude, per row": "row", "wanda, per layer": "layer"}
PARTS = SHARES  # of the heads, or of the channels, that go


def sparsity(model: DecoderLM, tokenizer: Tokenizer, seeds: Sequence[int], full: bool,
             runs: Path | None = None, sizes: Sizes | None = None) -> dict[str, Any]:
    """Bits per byte by the share of all linear layers' weights that are gone; lists are by seed.

    Heads and channels have the share that goes with them: half of the heads is less than half.

    The seed draws what Wanda and movement look at, and the batches of retraining. In full one
    share of every score is retrained as well, its mask kept, over three seeds; quick takes one
    seed and one share, and retrains nothing. Sizes are of files of `save_sparse`.

    Shapes:   -> {"dense": bits, "curves": {name: {share: [by seed]}}, "bytes": {name: {share:
              bytes}}, "steps": of movement and retraining, "seeds", "judged",
              "seq_len"}
    Chapter:  chapters/07_compression.ipynb
    """
    sizes, seeds = sizes or (FULL if full else QUICK), list(seeds)[:3 if full else 1]
    found = [kept(partial(_curves, model, windows(tokenizer, sizes, seed), sizes, seed, full),
                  runs, what="sparsity by share and scope", seed=seed, full=full,
                  sizes=asdict(sizes), teacher=mark(model)) for seed in seeds]
    curves = {name: {share: [row["bits"][name][share] for row in found] for share in shares}
              for name, shares in found[0]["bits"].items()}
    return {"dense": bits(model, windows(tokenizer, sizes)), "curves": curves,
            "bytes": found[0]["bytes"], "steps": sizes.grown_steps, "seeds": seeds,
            **judged_on(sizes)}


def _curves(model: DecoderLM, data: Windows, sizes: Sizes, seed: int, full: bool
            ) -> dict[str, Mapping]:
    """All curves of one seed."""
    calibration = [data.batch(step, sizes.batch_size).ids for step in range(4)]
    shares, parts = (SHARES, PARTS) if full else (SHARES[1:2], PARTS[1:2])
    scores = {"magnitude": magnitude_scores(model), "wanda": wanda_scores(model, calibration),
              "movement": watched(model, data, sizes, seed)}
    masks: dict[str, dict[str, Masks]] = {
        name: {str(share): masks_of_lowest(scores[name.split(",")[0]], share, scope)
               for share in shares} for name, scope in SCOPES.items()}
    masks |= {f"2:4 {name}": {"0.5": n_of_m_masks(scores[name])} for name in ("magnitude", "wanda")}
    found: dict[str, dict] = {"bits": {}, "bytes": {}}
    for name, by_share in masks.items():
        for share, mask in by_share.items():
            _note(found, name, share, *_masked(model, mask, data))
            if full and float(share) == RETRAINED.get(name):
                _note(found, f"{name}, retrained", share,
                      *_masked(model, mask, data, sizes, seed))
    for name, part in itertools.product(("heads", "channels"), parts):
        small = without_parts(model, scores["wanda"], name, part)
        _note(found, name, share_gone(model, small), bits(small, data), size_of(small))
    return found


def _note(found: dict[str, dict], name: str, share: str, loss: float, size: int) -> None:
    found["bits"].setdefault(name, {})[share] = loss
    found["bytes"].setdefault(name, {})[share] = size


def watched(model: DecoderLM, data: Windows, sizes: Sizes, seed: int) -> Scores:
    """Movement's scores: a copy trains for a while, and only its scores are kept.

    The paper watches a whole fine-tuning. Sums over a few steps are little more than noise, and
    what they drop has nothing to do with how large a weight is.
    """
    trained = copy.deepcopy(model)
    with movement_scores(trained) as scores:
        train(trained, data, recipe(WATCHED * sizes.grown_steps, RATE, sizes, seed, "adamw"))
    return scores


def _masked(model: DecoderLM, masks: Masks, data: Windows, sizes: Sizes | None = None,
            seed: int = 0) -> tuple[float, int]:
    """Bits and bytes without the masked weights; with sizes, after retraining the others."""
    small = copy.deepcopy(model)
    apply_masks(small, masks)
    if sizes is not None:
        with masks_kept(small, masks):
            train(small, data, recipe(sizes.grown_steps, RATE, sizes, seed, "adamw"))
    return bits(small, data), size_of(small)


@torch.no_grad()
def without_parts(model: DecoderLM, scores: Scores, name: str, part: float = 0.5) -> DecoderLM:
    """A copy without that part of its heads, or of its channels."""
    small = copy.deepcopy(model)
    if name == "heads":
        prune_heads(small, scores, max(1, round((1 - part) * model.config.num_kv_heads)))
    else:
        prune_channels(small, scores, max(1, round((1 - part) * model.config.d_ff)))
    return small


def share_gone(model: DecoderLM, small: DecoderLM) -> str:
    """The share of the linear layers' weights that a smaller copy lacks, such as "0.34"."""
    whole, left = (sum(layer.weight.numel() for layer in linears(each).values())
                   for each in (model, small))
    return f"{1 - left / whole:.2f}"


def size_of(model: DecoderLM) -> int:
    """The bytes of a model's file with its zeros left out."""
    with tempfile.TemporaryDirectory() as folder:
        return disk_bytes(save_sparse(model, Path(folder) / "model.safetensors"))
