"""Columns that meet large inputs are made larger before rounding: AWQ.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from scratchbook.compression.gptq import Inputs, calibrate, output_size
from scratchbook.compression.layers import PackedWeight, replace_layers, targets
from scratchbook.compression.quantize import Scheme, quantized

POWERS = 20  # how many steps from 0, which changes nothing, to 1


def awq_scale(weight: Tensor, inputs: Inputs, scheme: Scheme) -> Tensor:
    """By how much to multiply each column so that rounding moves the outputs least.

    The mean size of the column's input to a power from 0 to 1, the best of 20.

    Shapes:   weight (rows, columns) -> (columns,)
    Paper:    Lin et al. (2024), arXiv:2306.00978, section 3.2
    Chapter:  chapters/07_compression.ipynb
    """
    best, least = torch.ones_like(inputs.sizes), float("inf")
    for step in range(POWERS):
        scale = inputs.sizes.clamp(min=1e-4 * inputs.sizes.max().clamp(min=1e-30)) ** (
            step / POWERS)
        scale = scale / (scale.max() * scale.min()).sqrt()
        moved = quantized(weight * scale, scheme) / scale - weight
        error = output_size(moved, inputs.products).item()
        if error < least:
            best, least = scale, error
    return best


def quantize_awq(model: nn.Module, batches: Iterable[Tensor], kind: str = "int4",
                 group_size: int | str | None = None, symmetric: bool = True,
                 double: bool = False, skip: Collection[str] = ()) -> nn.Module:
    """`quantize` by AWQ; layers divide their input by the scale that their columns were given.

    Embeddings, and what is tied to one, are rounded to the nearest code.

    Raises:   ValueError as `quantize` and `calibrate` do
    Chapter:  chapters/07_compression.ipynb
    """
    scheme = Scheme(kind, group_size, symmetric, double)
    layers = targets(model, scheme, skip)
    tables = {id(m.weight) for m in layers.values() if isinstance(m, nn.Embedding)}
    linear = {name: layer for name, layer in layers.items() if id(layer.weight) not in tables}
    inputs = calibrate(model, linear, batches)

    def make(name: str, weight: Tensor) -> tuple[PackedWeight, Tensor | None]:
        if name not in inputs:
            return PackedWeight.of(weight, scheme), None
        scale = awq_scale(weight, inputs[name], scheme)
        return PackedWeight.of(weight * scale, scheme), 1 / scale

    return replace_layers(model, layers, make)
