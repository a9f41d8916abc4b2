"""What stands beside a frozen matrix: the product of two thin ones, and the layer that holds it.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.compression.layers import QuantizedLinear, matrix_of


class LowRank(nn.Module):
    """The update of one matrix: B A, times alpha / rank.

    B starts at zero, so that the model is what it was before the first step. rsLoRA divides
    alpha by the root of the rank, so that large ranks learn as fast as small ones.

    Shapes:   lora_A (rank, in_features), lora_B (out_features, rank);
              x (..., in_features), out (..., out_features) -> (..., out_features)
    Raises:   ValueError for a rank that the matrix has no room for, or numbers out of range
    Paper:    Hu et al. (2021), arXiv:2106.09685, section 4.1; for rsLoRA Kalajdzievski (2023),
              arXiv:2312.03732
    Chapter:  chapters/08_lora.ipynb
    """

    def __init__(self, base_layer: nn.Module, lora_rank: int = 8, lora_alpha: float = 16,
                 dropout: float = 0.0, rslora: bool = False):
        super().__init__()
        out_features, in_features = shape_of(base_layer)
        check_numbers(lora_rank, lora_alpha, dropout, (out_features, in_features))
        self.lora_rank, self.lora_alpha, self.rslora = lora_rank, lora_alpha, rslora
        self.scaling = lora_alpha / (math.sqrt(lora_rank) if rslora else lora_rank)
        self.dropout = nn.Dropout(dropout)
        where = _where(base_layer)
        self.lora_A = nn.Parameter(torch.empty(lora_rank, in_features, **where))
        self.lora_B = nn.Parameter(torch.zeros(out_features, lora_rank, **where))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor, out: Tensor, base_layer: nn.Module) -> Tensor:
        """Add the update to what the layer gave."""
        return (out + self.update(self.dropout(x))).to(out.dtype)

    def update(self, x: Tensor) -> Tensor:
        """x A^T B^T, scaled: two thin products, never the full matrix."""
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_A.dtype)
        thin = F.linear(x, self.lora_A)  # (..., rank)
        return F.linear(thin, self.lora_B) * self.scaling

    def delta(self, dtype: torch.dtype | None = None) -> Tensor:
        """The update as a matrix, multiplied in the given type; (out_features, in_features)."""
        dtype = dtype or self.lora_A.dtype
        return self.lora_B.to(dtype) @ self.lora_A.to(dtype) * self.scaling

    def merged(self, weight: Tensor) -> Tensor:
        """The matrix that gives what layer and update give together.

        Shapes:   weight (out_features, in_features) -> same
        """
        return weight + self.delta(weight.dtype)

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"lora_rank={self.lora_rank}, lora_alpha={self.lora_alpha}"


class DoRA(LowRank):
    """LoRA that turns the matrix, and beside it one length for each output.

    W' = magnitude * (W + B A) / |W + B A|, with the lengths of rows. The length that is divided
    by counts as a constant for the gradient, as in section 4.3 of the paper.

    Shapes:   magnitude (out_features,); the others as LoRA's
    Paper:    Liu et al. (2024), arXiv:2402.09353
    Chapter:  chapters/08_lora.ipynb
    """

    def __init__(self, base_layer: nn.Module, lora_rank: int = 8, lora_alpha: float = 16,
                 dropout: float = 0.0, rslora: bool = False):
        super().__init__(base_layer, lora_rank, lora_alpha, dropout, rslora)
        self.magnitude = nn.Parameter(self._lengths(base_layer))

    def forward(self, x: Tensor, out: Tensor, base_layer: nn.Module) -> Tensor:
        """Turn and stretch what the layer gave."""
        ratio = self.magnitude / self._lengths(base_layer)  # (out_features,)
        dropped = self.dropout(x)
        if self.training and self.dropout.p:
            plain = F.linear(dropped, full_matrix(base_layer).to(x.dtype))
        else:
            plain = out if base_layer.bias is None else out - base_layer.bias
        return (out + ((ratio - 1) * plain + ratio * self.update(dropped))).to(out.dtype)

    def merged(self, weight: Tensor) -> Tensor:
        """The turned matrix, stretched to the learned lengths."""
        turned = super().merged(weight)
        return turned * (self.magnitude.to(weight.dtype) / turned.norm(dim=1))[:, None]

    @torch.no_grad()
    def _lengths(self, base_layer: nn.Module) -> Tensor:
        matrix = full_matrix(base_layer).to(self.lora_A.dtype)
        with torch.autocast("cpu" if matrix.is_meta else matrix.device.type, enabled=False):
            return super().merged(matrix).norm(dim=1)  # (out_features,)


class LoRALinear(nn.Module):
    """A frozen linear layer with adapters beside it, of which one is active.

    Wraps any `nn.Linear`, the packed ones of chapter 07 included, and transformers' `Conv1D`.
    With lora_rank 0 it holds no adapter yet.

    Shapes:   x (..., in_features) -> (..., out_features)
    Raises:   ValueError for anything else, or a rank that the matrix has no room for
    Chapter:  chapters/08_lora.ipynb
    """

    def __init__(self, base_layer: nn.Module, lora_rank: int = 8, lora_alpha: float = 16,
                 dropout: float = 0.0, rslora: bool = False, dora: bool = False,
                 name: str = "default"):
        super().__init__()
        self.base_layer = base_layer.requires_grad_(False)
        self.out_features, self.in_features = shape_of(base_layer)
        self.adapters = nn.ModuleDict()
        self.active: str | None = None
        self.rows: dict[str, list[int]] | None = None  # of a batch of several adapters
        self.batch_size = 0
        self.kept: Tensor | None = None  # the base's weight, while something is merged into it
        self.learned: list[nn.Parameter] = []  # what learned until it was merged
        if lora_rank:
            kind = DoRA if dora else LowRank
            self.add(name, kind(base_layer, lora_rank, lora_alpha, dropout, rslora))

    def add(self, name: str, adapter: nn.Module) -> None:
        """Hold one more adapter, and make it the active one.

        Raises:   ValueError for a name that is taken, or can be none
        """
        check_name(name)
        if name in self.adapters:
            raise ValueError(f"there is an adapter {name!r} already: take another name")
        self.adapters[name] = adapter.train(self.training)
        self.active = name

    @property
    def adapter(self) -> nn.Module | None:
        """The active adapter."""
        return None if self.active is None else self.adapters[self.active]

    @property
    def lora_A(self) -> nn.Parameter:
        """Of the active adapter; (rank, in_features)."""
        return self.adapter.lora_A

    @property
    def lora_B(self) -> nn.Parameter:
        """Of the active adapter; (out_features, rank)."""
        return self.adapter.lora_B

    @property
    def scaling(self) -> float:
        """Of the active adapter: alpha / rank, or alpha over its root."""
        return self.adapter.scaling

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives, changed by the active adapter, or each row by its own."""
        out = self.base_layer(x)
        if self.rows is not None:
            return self._mixed(x, out)
        if self.active is None or self.kept is not None:
            return out
        return self.adapters[self.active](x, out, self.base_layer)

    def _mixed(self, x: Tensor, out: Tensor) -> Tensor:
        if x.dim() < 3 or len(x) != self.batch_size:
            raise ValueError(f"adapters were named for {self.batch_size} texts, the input is of "
                             f"shape {tuple(x.shape)}: give one name for each row of the batch")
        for name, rows in self.rows.items():
            if name in self.adapters:
                at = torch.tensor(rows, device=x.device)
                changed = self.adapters[name](x[at], out[at], self.base_layer)
                out = out.index_copy(0, at, changed)
        return out

    @torch.no_grad()
    def merge(self) -> float:
        """Write the active adapter into the base layer's weight, and keep a copy of that.

        Returns what rounding to the weight's type lost, as a share of the change: the length of
        the error over the length of the change. The sum is taken in float64 and rounded once.

        Raises:   ValueError when the weight is packed, something is merged already, no adapter
                  is active, or its numbers are not finite
        """
        self.check_merge()
        weight = self.base_layer.weight
        before = full_matrix(self.base_layer).double()
        wanted = self.adapter.merged(before)
        if not wanted.isfinite().all():
            raise ValueError(f"adapter {self.active!r} is not finite: train it anew at a lower "
                             "rate, or load it again")
        self.kept = weight.detach().clone()
        weight.copy_(wanted.T if is_conv1d(self.base_layer) else wanted)
        self.learned = [p for p in self.adapter.parameters() if p.requires_grad]
        for parameter in self.learned:
            parameter.requires_grad_(False)
        change = (wanted - before).norm()
        return ((full_matrix(self.base_layer).double() - wanted).norm() / change).item() if (
            change) else 0.0

    def check_merge(self) -> None:
        """Raise the ValueError that `merge` would raise for the layer's state."""
        if self.kept is not None:
            raise ValueError("an adapter is merged already: unmerge first")
        if self.rows is not None:
            raise ValueError("rows have adapters of their own here: merge outside of mixed()")
        if self.active is None:
            raise ValueError("no adapter is active: use_adapter(model, name) first")
        if not hasattr(self.adapter, "merged"):
            raise ValueError(f"{type(self.adapter).__name__} is no change of a matrix: it cannot "
                             "be merged")
        if isinstance(self.base_layer, QuantizedLinear):
            raise ValueError(f"the weight is packed as {self.base_layer.packed.scheme.kind}, "
                             "which has no room for small changes: keep the adapter beside it, "
                             "or merge into the model in float32 and quantize that")

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the kept weight back, bit for bit.

        Raises:   ValueError when nothing is merged
        """
        if self.kept is None:
            raise ValueError("nothing is merged here")
        self.base_layer.weight.copy_(self.kept)
        for parameter in self.learned:
            parameter.requires_grad_(True)
        self.kept, self.learned = None, []

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LoRALinear:
        super()._apply(fn, recurse)
        self.kept = None if self.kept is None else fn(self.kept)
        return self


def check_numbers(lora_rank: int, lora_alpha: float, dropout: float, shape: tuple[int, int]
                  ) -> None:
    """Refuse what no adapter can be made of.

    Raises:   ValueError with the values
    """
    if isinstance(lora_rank, bool) or not isinstance(lora_rank, int) or not (
            1 <= lora_rank <= min(shape)):
        raise ValueError(f"lora_rank={lora_rank!r} is not a whole number from 1 to {min(shape)}, "
                         f"the most that a matrix of {shape[0]} x {shape[1]} has room for")
    if not 0 < lora_alpha < math.inf:
        raise ValueError(f"lora_alpha={lora_alpha} must be above 0: it scales the update")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} is not within 0..1, one excluded")


def check_name(name: str) -> None:
    """Refuse a name that no adapter can have.

    Raises:   ValueError with the name
    """
    if not re.fullmatch(r"[\w-]+", name) or hasattr(nn.ModuleDict, name):
        raise ValueError(f"an adapter cannot be called {name!r}: take a word of letters, digits, "
                         "_ or - that is no method of torch's ModuleDict")


def is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear layer in transformers, whose matrix stands the other way."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def shape_of(layer: nn.Module) -> tuple[int, int]:
    """(out_features, in_features) of a linear layer.

    Raises:   ValueError for anything else
    """
    if is_conv1d(layer):
        return tuple(layer.weight.T.shape)
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"{type(layer).__name__} is no linear layer: only those have a matrix "
                         "for a low-rank update")
    return layer.out_features, layer.in_features


def full_matrix(layer: nn.Module) -> Tensor:
    """The matrix that a linear layer multiplies with; (out_features, in_features)."""
    if not isinstance(layer, QuantizedLinear):
        return matrix_of(layer)
    matrix = layer.dequantize()
    return matrix if layer.input_scale is None else matrix * layer.input_scale


def _where(layer: nn.Module) -> dict:
    """Device and type of an adapter: float32 where the base has fewer bits."""
    tensor = next(chain(layer.parameters(), layer.buffers()))
    wide = tensor.dtype if tensor.dtype == torch.float64 else torch.float32
    return {"device": tensor.device, "dtype": wide}
