"""The living figure of bit widths rounds and measures as torch does, on chapter 00's model."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import torch

from scratchbook.companions.live_weights import page_weights
from tests.node import run_figure
from tests.test_live_tiny_model import LETTERS, build, chapter, from_page, ids_for  # noqa: F401

SIZES = [1 + number % 2 for number in range(len(LETTERS))]  # bytes of a letter


def rounded(weight: torch.Tensor, bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales: absmax, groups along the rows."""
    groups = weight.reshape(-1, group)
    scales = groups.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    codes = torch.where(scales > 0, groups / scales, 0.0).round()
    return codes, scales


def rounding_cases() -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(4, 16, generator=generator)
    weights[2, 8:] = 0  # a group of zeros has scale 0
    return [{"weights": weights.flatten().tolist(), "bits": bits, "group": group,
             "codes": codes.int().flatten().tolist(), "scales": scales.flatten().tolist()}
            for bits, group in itertools.product((2, 4, 8), (8, 16, 64))
            for codes, scales in [rounded(weights, bits, group)]]


def model_case(names: dict, bits: int, sharing: str, seed: int) -> dict:
    weights = page_weights(build(names, len(LETTERS), 2, seed), LETTERS, context=32)
    model, size = from_page(names, weights), 0
    for parameter in model.parameters():
        group = {"matrix": parameter.numel(), "row": parameter.shape[1]}.get(sharing, 16)
        if bits == 16:
            size += 2 * parameter.numel()
            continue
        codes, scales = rounded(parameter.data, bits, group)
        parameter.data = (codes * scales).view_as(parameter)
        size += math.ceil(parameter.numel() * bits / 8) + 2 * scales.numel()
    ids = ids_for(weights, seed) + ids_for(weights, seed + 50)  # longer than one window
    return {"weights": weights, "bits": bits, "sharing": sharing, "ids": ids, "sizes": SIZES,
            "bpb": bits_per_byte(model, ids, weights["config"]["context"]), "bytes": size}


@torch.no_grad()
def bits_per_byte(model: torch.nn.Module, ids: list[int], context: int) -> float:
    bits, size = 0.0, 0
    for start in range(0, len(ids) - 1, context):
        window = torch.tensor(ids[start : start + context + 1])
        logits = model(window[None, :-1])[0].log_softmax(-1)
        bits -= logits[torch.arange(len(window) - 1), window[1:]].sum().item() / math.log(2)
        size += sum(SIZES[i] for i in window[1:].tolist())
    return bits / size


def test_the_javascript_equals_torch(chapter: dict, tmp_path: Path) -> None:  # noqa: F811
    models = [model_case(chapter, bits, sharing, seed) for seed, (bits, sharing) in enumerate(
        itertools.product((2, 4, 8, 16), ("matrix", "row", "16")))]
    assert run_figure("bit_width", tmp_path, {"rounding": rounding_cases(), "models": models})
