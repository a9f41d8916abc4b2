"""LoRA on a base of four bits: packed weights that stay, full numbers that learn.

NF4, its double quantization and the packed layers are those of chapter 07, whose codes equal
bitsandbytes'; here they only get adapters beside them.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import nn

from scratchbook.compression.layers import QuantizedEmbedding, QuantizedLinear, quantize
from scratchbook.finetuning.lora import apply_lora, chosen_layers, merge, unwrap


def qlora(model: nn.Module, targets: str | Collection[str] = "all-linear", lora_rank: int = 8,
          lora_alpha: float = 16, dropout: float = 0.0, kind: str = "nf4",
          group_size: int | str | None = None, double: bool = True, skip: Collection[str] = ()
          ) -> nn.Module:
    """Pack a model's weights, in place, and put float32 adapters beside the chosen layers.

    `kind`, `group_size`, `double` and `skip` are those of `quantize`, the others those of
    `apply_lora`. For gradients a matrix is unpacked when it is needed and let go at once.

    Raises:   ValueError as those two do; for a target that is not there nothing is packed
    Paper:    Dettmers et al. (2023), arXiv:2305.14314, section 3
    Chapter:  chapters/08_lora.ipynb
    """
    chosen_layers(model, targets)
    quantize(model, kind, group_size, double=double, skip=skip)
    return apply_lora(model, targets, lora_rank, lora_alpha, dropout)


def dequantized(model: nn.Module) -> nn.Module:
    """A copy of a model in which packed layers are plain ones, of the numbers they stand for.

    Layers that share codes share the weight. Adapters are copied as they are.

    Raises:   ValueError when no layer is packed
    Chapter:  chapters/08_lora.ipynb
    """
    twin = copy.deepcopy(model)
    places = [(path, layer) for path, layer in twin.named_modules(remove_duplicate=False)
              if isinstance(layer, QuantizedLinear | QuantizedEmbedding)]
    if not places:
        raise ValueError(f"no layer of this {type(model).__name__} is packed: it is plain already")
    weights: dict[int, nn.Parameter] = {}
    for path, layer in places:
        parent, _, child = path.rpartition(".")
        setattr(twin.get_submodule(parent), child, _plain(layer, weights))
    return twin


def merge_dequantized(model: nn.Module) -> nn.Module:
    """A plain model that computes what packed weights and adapter do, for others to load.

    The change does not fit between the codes of four bits, so the result is as large as the base
    was before it was packed; packing it again loses part of the change.

    Raises:   ValueError when no layer is packed, or no adapter active
    Chapter:  chapters/08_lora.ipynb
    """
    twin = dequantized(model)
    merge(twin)
    return unwrap(twin)


@torch.no_grad()
def _plain(layer: QuantizedLinear | QuantizedEmbedding, weights: dict[int, nn.Parameter]
           ) -> nn.Module:
    packed, scale = layer.packed, getattr(layer, "input_scale", None)
    if scale is not None or id(packed) not in weights:
        matrix = packed.dequantize() if scale is None else packed.dequantize() * scale
        weight = nn.Parameter(matrix.to(packed.like.dtype), requires_grad=False)
    else:
        weight = weights[id(packed)]
    if scale is None:
        weights[id(packed)] = weight
    if isinstance(layer, QuantizedEmbedding):
        plain = nn.Embedding(*packed.shape, device="meta")
    else:
        plain = nn.Linear(*reversed(packed.shape), bias=False, device="meta")
        plain.bias = layer.bias
    plain.weight = weight
    return plain.train(layer.training)
