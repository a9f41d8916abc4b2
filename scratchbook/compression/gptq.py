"""Rounding that looks at what comes in: calibration, and GPTQ, column after column.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from scratchbook.compression.layers import PackedWeight, replace_layers, targets
from scratchbook.compression.quantize import Scheme, choose_scales, from_codes, to_codes
from scratchbook.generation import eval_mode

BLOCK = 64  # columns that are rounded before those behind them are told


@dataclass
class Inputs:
    """What came into a layer during calibration: all that the errors of its outputs depend on.

    Shapes:   products (columns, columns), the mean of x x^T; sizes (columns,), the mean of |x|
    """

    products: Tensor
    sizes: Tensor
    rows: int = 0

    def add(self, x: Tensor) -> None:
        """Count the vectors of one more batch in; x (..., columns)."""
        x = x.detach().float().flatten(0, -2)
        self.rows += len(x)
        self.products += (x.T @ x - len(x) * self.products) / self.rows
        self.sizes += (x.abs().sum(0) - len(x) * self.sizes) / self.rows


@torch.no_grad()
def calibrate(model: nn.Module, layers: dict[str, nn.Module], batches: Iterable[Tensor]
              ) -> dict[str, Inputs]:
    """Run the model over a few batches and keep what its linear layers see.

    Shapes:   each batch is what the model is called with, ids (batch, time)
    Raises:   ValueError when nothing, or something that is not finite, came into a layer
    """
    found, batches = {}, list(batches)
    with ExitStack() as hooks, eval_mode(model):
        for name, layer in layers.items():
            width = layer.weight.shape[0 if hasattr(layer, "nf") else 1]
            device = layer.weight.device
            found[name] = Inputs(torch.zeros(width, width, device=device),
                                 torch.zeros(width, device=device))
            hook = layer.register_forward_pre_hook(
                partial(lambda inputs, _, given: inputs.add(given[0]), found[name]))
            hooks.callback(hook.remove)
        for batch in batches:
            model(batch)
    for name, inputs in found.items():
        if not inputs.rows or not inputs.products.isfinite().all():
            raise ValueError(f"{name} saw {inputs.rows} vectors in {len(batches)} batches, or NaN: "
                             "calibrate on text that runs through all of the model, or skip it")
    return found


def output_size(weight: Tensor, products: Tensor) -> Tensor:
    """The mean square of a layer's outputs, summed over all outputs.

    Shapes:   weight (rows, columns), products (columns, columns) -> (), float64
    """
    weight = weight.detach().double()
    return (weight @ products.double() * weight).sum()


def layer_error(weight: Tensor, rounded: Tensor, products: Tensor) -> float:
    """How far the outputs of a layer move, as a share of their size: 0 is not at all.

    Shapes:   weight and rounded (rows, columns), products (columns, columns)
    """
    gap = rounded.detach().double() - weight.detach().double()
    return (output_size(gap, products) / output_size(weight, products)).sqrt().item()


def gptq(weight: Tensor, products: Tensor, scheme: Scheme, damping: float = 0.01
         ) -> tuple[Tensor, Tensor, Tensor | None]:
    """Round column after column; the columns still to come make up for the error so far.

    They move by what least squares asks for, which one Cholesky factor of the inverse of
    `products` holds for all columns. `damping`, a share of its mean diagonal, is added to it.
    Columns beyond the current block move once a block, for all of its errors in one product.

    Shapes:   weight (rows, columns), products (columns, columns)
              -> codes (rows, columns), scales and zeros (rows, groups)
    Raises:   ValueError when damping does not make the products invertible
    Paper:    Frantar et al. (2023), arXiv:2210.17323, section 3.3
    Chapter:  chapters/07_compression.ipynb
    """
    left, products = weight.detach().double().clone(), products.double().clone()
    diagonal = products.diagonal()
    diagonal += damping * diagonal.mean() + (diagonal == 0)  # an input that is always 0 is free
    factor, failed = torch.linalg.cholesky_ex(products)
    if failed:
        raise ValueError(f"the inputs do not span the layer: raise damping={damping}, or calibrate "
                         "on more text")
    factor = torch.linalg.cholesky(torch.cholesky_inverse(factor), upper=True)
    columns = left.shape[1]
    whole = scheme.group_size == "tensor"
    size = scheme.group_size if isinstance(scheme.group_size, int) else columns
    inner = replace(scheme, group_size="tensor" if whole else "channel")
    block = BLOCK if size == columns else size * max(1, BLOCK // size)  # of whole groups
    codes, scales, zeros = [], [], []
    for start in range(0, columns, block):
        end, errors = min(start + block, columns), []
        for column in range(start, end):
            if column % size == 0:
                scale, zero = choose_scales(left[:, column : column + size], inner)
                scales.append(scale)
                zeros.append(zero)
            now = left[:, column : column + 1]
            codes.append(to_codes(now, scale, zero, inner))
            rounded = from_codes(codes[-1], scale, zero, inner)
            errors.append((now - rounded) / factor[column, column])
            left[:, column + 1 : end] -= errors[-1] * factor[column, column + 1 : end]
        left[:, end:] -= torch.cat(errors, 1) @ factor[start:end, end:]
    return (torch.cat(codes, 1), torch.cat(scales, 1),
            None if zeros[0] is None else torch.cat(zeros, 1))


def quantize_gptq(model: nn.Module, batches: Iterable[Tensor], kind: str = "int4",
                  group_size: int | str | None = None, symmetric: bool = True,
                  double: bool = False, skip: Collection[str] = (), damping: float = 0.01
                  ) -> nn.Module:
    """`quantize` by GPTQ, block after block, each calibrated behind those that are rounded.

    Embeddings, and what is tied to one, are rounded to the nearest code.

    Raises:   ValueError as `quantize` and `calibrate` do
    Chapter:  chapters/07_compression.ipynb
    """
    scheme, batches = Scheme(kind, group_size, symmetric, double), list(batches)
    layers = targets(model, scheme, skip)
    tables = {id(m.weight) for m in layers.values() if isinstance(m, nn.Embedding)}
    stages: dict[str, dict[str, nn.Module]] = {}
    for name, layer in layers.items():
        if id(layer.weight) not in tables:
            stage = re.match(r".*?\.\d+\.|", name)[0]  # blocks.3. of blocks.3.attention.q_proj
            stages.setdefault(stage, {})[name] = layer
    for stage in stages.values():
        inputs = calibrate(model, stage, batches)
        replace_layers(model, stage, lambda name, weight, inputs=inputs: (PackedWeight.of(
            weight, scheme, *gptq(weight, inputs[name].products, scheme, damping)), None))
    rest = {name: layer for name, layer in layers.items() if id(layer.weight) in tables}
    return replace_layers(model, rest, lambda name, weight: (
        PackedWeight.of(weight, scheme), None))
