"""Layers whose weights stay packed in memory, and the models that are made of them.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.attention.latent import LatentAttention
from scratchbook.compression import packed_product
from scratchbook.compression.quantize import (
    SCALES_IN_A_BLOCK,
    Scheme,
    check_weight,
    choose_scales,
    dequantize_scales,
    from_codes,
    pack,
    quantize_scales,
    table_of,
    to_codes,
    unpack,
)


class PackedWeight(nn.Module):
    """A matrix as codes and scales, which layers may share; nothing of it learns.

    A cast of the model (`model.bfloat16()`) leaves scales in float32: only what layers give
    back follows it.

    Shapes:   codes (rows, bytes), scales and zeros (rows, groups)
    Raises:   ValueError for buffers whose type or shape is not that of the scheme
    Chapter:  chapters/07_compression.ipynb
    """

    def __init__(self, scheme: Scheme, shape: tuple[int, int], dtype: torch.dtype,
                 **buffers: Tensor):
        super().__init__()
        self.scheme, self.shape = scheme, tuple(shape)
        wanted = layout(scheme, self.shape)
        found = {name: (buffer.dtype, tuple(buffer.shape)) for name, buffer in buffers.items()}
        if found != wanted:
            raise ValueError(f"a {scheme.kind} matrix of shape {self.shape} consists of {wanted}, "
                             f"not of {found}")
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)

    @classmethod
    def of(cls, weight: Tensor, scheme: Scheme, codes: Tensor | None = None,
           scales: Tensor | None = None, zeros: Tensor | None = None) -> PackedWeight:
        """Pack a matrix: rounded to the nearest codes, or as the codes that are given.

        Shapes:   weight (rows, columns)
        Raises:   ValueError for a weight that cannot be quantized
        """
        if codes is None:
            scales, zeros = choose_scales(weight, scheme)
            codes = to_codes(weight, scales, zeros, scheme)
        buffers = {"codes": pack(codes) if scheme.bits == 4 else codes, "scales": scales}
        if zeros is not None:
            buffers["zeros"] = zeros
        if scheme.double:
            parts = quantize_scales(buffers.pop("scales"))
            buffers |= dict(zip(("scale_codes", "scale_absmax", "scale_mean"), parts, strict=True))
        return cls(scheme, weight.shape, weight.dtype, **buffers)

    def full_scales(self) -> Tensor:
        """The scales in float32, rounded where they are kept as codes too; (rows, groups)."""
        if not self.scheme.double:
            return self.scales
        return dequantize_scales(self.scale_codes, self.scale_absmax, self.scale_mean)

    def dequantize(self, rows: Tensor | None = None) -> Tensor:
        """The numbers that the codes stand for, in float32; all rows, or those of the given ids.

        Shapes:   rows (...) -> (..., columns)
        """
        codes, scales, zeros = self.codes, self.full_scales(), getattr(self, "zeros", None)
        if rows is not None:
            codes = codes[rows]
            if self.scheme.group_size != "tensor":
                scales, zeros = scales[rows], None if zeros is None else zeros[rows]
        codes = unpack(codes, self.shape[1]) if self.scheme.bits == 4 else codes
        return from_codes(codes, scales, zeros, self.scheme)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x times the transpose of the matrix; gradients pass to x and the bias.

        Shapes:   x (..., columns) -> (..., rows)
        Raises:   ValueError when x has another width
        """
        if x.shape[-1] != self.shape[1]:
            raise ValueError(f"x has {x.shape[-1]} numbers a row, the matrix {self.shape[1]}")
        if not torch.is_grad_enabled():
            out = packed_product.multiply(
                x, self.codes, table_of(self.scheme.kind) if self.scheme.bits == 4 else None,
                self.full_scales(), getattr(self, "zeros", None), bias)
            if out is not None:
                return out
            return F.linear(x, self.dequantize().to(x.dtype), bias)
        out = _Product.apply(x, self)
        return out if bias is None else out + bias

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedWeight:
        for name, buffer in self._buffers.items():
            moved = fn(buffer)
            keep = name != "like" and moved.dtype != buffer.dtype
            self._buffers[name] = buffer.to(moved.device) if keep else moved
        return self

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"{self.shape}, {self.scheme}"


def layout(scheme: Scheme, shape: tuple[int, int]) -> dict[str, tuple[torch.dtype, tuple]]:
    """Type and shape of everything that a packed matrix consists of."""
    rows, columns = shape
    groups = tuple(scheme.grouped(torch.empty(shape, device="meta")).shape[:2])
    codes = (torch.int8, (rows, columns)) if scheme.bits == 8 else (
        torch.uint8, (rows, -(-columns // 2)))
    parts = {"codes": codes}
    if not scheme.symmetric:
        parts["zeros"] = torch.int8, groups
    if not scheme.double:
        return parts | {"scales": (torch.float32, groups)}
    blocks = -(-groups[0] * groups[1] // SCALES_IN_A_BLOCK)
    return parts | {"scale_codes": (torch.uint8, groups), "scale_absmax": (
        torch.float32, (blocks,)), "scale_mean": (torch.float32, ())}


class _Product(torch.autograd.Function):
    """A product that unpacks the matrix again for its gradient instead of keeping it."""

    @staticmethod
    def forward(ctx: object, x: Tensor, packed: PackedWeight) -> Tensor:
        ctx.packed = packed
        return F.linear(x, packed.dequantize().to(x.dtype))

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.packed.dequantize().to(grad.dtype), None


class _OnPacked:
    """What both layers have in common."""

    def dequantize(self) -> Tensor:
        """The weights that the codes stand for, in float32; (rows, columns)."""
        return self.packed.dequantize()

    @property
    def weight(self) -> Tensor:
        """A copy in the model's type to look at; writing into it raises a RuntimeError."""
        with torch.inference_mode():
            return self.packed.dequantize().to(self.packed.like.dtype)


class QuantizedLinear(_OnPacked, nn.Linear):
    """A linear layer on packed weights, in place of an `nn.Linear`.

    Gradients pass to its input and its bias, the weights are frozen. `input_scale` multiplies
    the input, where the columns were divided by it before they were rounded (AWQ).

    Shapes:   x (..., in_features) -> (..., out_features)
    Chapter:  chapters/07_compression.ipynb
    """

    def __init__(self, packed: PackedWeight, bias: nn.Parameter | None = None,
                 input_scale: Tensor | None = None):
        nn.Module.__init__(self)
        self.out_features, self.in_features = packed.shape
        self.packed, self.bias = packed, bias
        self.register_buffer("input_scale", input_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply every vector of `x` by the matrix, and add the bias."""
        x = x if self.input_scale is None else x * self.input_scale.to(x.dtype)
        return self.packed.multiply(x, self.bias)


class QuantizedEmbedding(_OnPacked, nn.Embedding):
    """A table of vectors that are unpacked when they are looked up.

    Shapes:   ids (...) -> (..., embedding_dim)
    Chapter:  chapters/07_compression.ipynb
    """

    def __init__(self, packed: PackedWeight):
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = packed.shape
        self.padding_idx, self.packed = None, packed

    def forward(self, ids: Tensor) -> Tensor:
        """The vector of every id."""
        return self.packed.dequantize(ids).to(self.packed.like.dtype)

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


def quantize(model: nn.Module, kind: str = "int8", group_size: int | str | None = None,
             symmetric: bool = True, double: bool = False, skip: Collection[str] = ()
             ) -> nn.Module:
    """Put packed layers in the place of a model's linear layers and embeddings.

    Layers that share a weight share the packed one. `skip` names layers, or parts of the model,
    that stay as they are; what shares a weight with them stays too. Subclasses of `nn.Linear`
    stay, but the `Conv1D` of transformers' GPT-2 is replaced.

    Raises:   ValueError naming the layer whose weight cannot be quantized, or a name in `skip`
              that is not there; the model is unchanged then
    Chapter:  chapters/07_compression.ipynb
    """
    scheme = Scheme(kind, group_size, symmetric, double)
    return replace_layers(model, targets(model, scheme, skip),
                          lambda name, weight: (PackedWeight.of(weight, scheme), None))


def targets(model: nn.Module, scheme: Scheme, skip: Collection[str] = ()) -> dict[str, nn.Module]:
    """The layers that `quantize` would replace, by name.

    Raises:   ValueError as `quantize` does
    """
    skip = (skip,) if isinstance(skip, str) else skip
    layers = {name: module for name, module in model.named_modules(remove_duplicate=False)
              if type(module) in (nn.Linear, nn.Embedding) or _is_conv1d(module)}
    skipped = {name: [layer for layer in layers if f".{name}." in f".{layer}."] for name in skip}
    for name, found in skipped.items():
        if not found:
            raise ValueError(f"skip={name!r} names no layer; there are {', '.join(layers)[:300]}")
    kept = {id(layers[name].weight) for found in skipped.values() for name in found}
    layers = {name: layer for name, layer in layers.items() if id(layer.weight) not in kept}
    if not layers or "" in layers:
        raise ValueError("there is no linear layer or embedding to replace inside of "
                         f"{type(model).__name__}" + (": is it quantized already?" * (not layers)))
    for name, module in model.named_modules():
        if isinstance(module, LatentAttention) and f"{name}.up_proj".lstrip(".") in layers:
            raise ValueError(f"{name}.up_proj: latent attention multiplies this matrix into its "
                             'queries, which a packed one cannot be: skip="attention.up_proj"')
    for name, layer in layers.items():
        if layer._forward_hooks or layer._forward_pre_hooks:
            raise ValueError(f"{name} has hooks, which would be lost: remove or skip it")
        try:
            check_weight(matrix_of(layer), scheme)
        except ValueError as error:
            raise ValueError(f"{name}: {error}; or skip it") from None
    return layers


def replace_layers(model: nn.Module, layers: dict[str, nn.Module],
                   make: Callable[[str, Tensor], tuple[PackedWeight, Tensor | None]]) -> nn.Module:
    """Put packed layers in place of the named ones; `make` packs, once for each weight."""
    made: dict[int, tuple[nn.Module, tuple[PackedWeight, Tensor | None]]] = {}
    for name, layer in layers.items():
        if id(layer.weight) not in made:  # the layer is kept, so that its id stays its own
            made[id(layer.weight)] = layer, make(name, matrix_of(layer))
        packed, input_scale = made[id(layer.weight)][1]
        if isinstance(layer, nn.Embedding):
            new = QuantizedEmbedding(packed)
        else:
            new = QuantizedLinear(packed, layer.bias, input_scale)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new.train(layer.training))
    return model


def size_in_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers; what is shared counts once."""
    parts = {(t.device, t.data_ptr() or id(t)): t.untyped_storage().nbytes()
             for t in chain(model.parameters(), model.buffers())}
    return sum(parts.values())


def _is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear layer in transformers, whose matrix stands the other way."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def matrix_of(layer: nn.Module) -> Tensor:
    """The weight of a layer as (out, in), which a `Conv1D` keeps the other way."""
    return layer.weight.T if _is_conv1d(layer) else layer.weight
