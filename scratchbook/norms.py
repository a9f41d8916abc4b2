"""Keeping vectors at a size that the next layer can live with.

Chapter:  chapters/04_norms.ipynb
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rms_norm(x: Tensor, gain: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Divide each vector by its root mean square, so that its entries are of size one.

    The mean of half-precision numbers is taken in float32: float16's squares overflow at 256.

    Shapes:   x (..., d_model), gain (d_model,) -> (..., d_model)
    Paper:    Zhang and Sennrich (2019), arXiv:1910.07467, equation 4
    Chapter:  chapters/04_norms.ipynb
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean_square = wide.square().mean(dim=-1, keepdim=True)  # (..., 1)
    # eps stands inside the root: outside, the gradient of a vector of zeros would be NaN
    normed = (wide * torch.rsqrt(mean_square + eps)).to(x.dtype)
    return normed if gain is None else normed * gain.to(x.dtype)


def layer_norm(
    x: Tensor, gain: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Shift each vector to mean zero, then divide it by its standard deviation.

    The deviation is the population's (divided by d_model, not by d_model - 1).

    Shapes:   x (..., d_model), gain and bias (d_model,) -> (..., d_model)
    Paper:    Ba et al. (2016), arXiv:1607.06450, equation 4
    Chapter:  chapters/04_norms.ipynb
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    centred = wide - wide.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)  # (..., 1)
    normed = (centred * torch.rsqrt(variance + eps)).to(x.dtype)
    normed = normed if gain is None else normed * gain.to(x.dtype)
    return normed if bias is None else normed + bias.to(x.dtype)


def softcap(x: Tensor, limit: float) -> Tensor:
    """Bend numbers so that none leaves -limit..limit; small ones stay nearly as they are.

    Raises:   ValueError for a limit that is not positive
    Paper:    Gemma Team (2024), arXiv:2408.00118, section 2
    Chapter:  chapters/04_norms.ipynb
    """
    if limit <= 0:
        raise ValueError(f"limit={limit} must be positive")
    return limit * torch.tanh(x / limit)


class RMSNorm(nn.Module):
    """`rms_norm` with a learned gain for each coordinate, or with none.

    Shapes:   x (..., d_model) -> (..., d_model)
    Raises:   ValueError when the last axis is not d_model
    Paper:    Zhang and Sennrich (2019), arXiv:1910.07467
    Chapter:  chapters/04_norms.ipynb
    """

    def __init__(self, d_model: int, eps: float = 1e-5, gain: bool = True):
        super().__init__()
        self.d_model, self.eps = d_model, eps
        self.weight = nn.Parameter(torch.ones(d_model)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        """Bring every vector of `x` to size one, then scale its coordinates."""
        _check_width(x, self.d_model)
        return rms_norm(x, self.weight, self.eps)


class LayerNorm(nn.Module):
    """`layer_norm` with a learned gain and, unless told otherwise, a learned shift.

    Shapes:   x (..., d_model) -> (..., d_model)
    Raises:   ValueError when the last axis is not d_model
    Paper:    Ba et al. (2016), arXiv:1607.06450
    Chapter:  chapters/04_norms.ipynb
    """

    def __init__(self, d_model: int, eps: float = 1e-5, bias: bool = True):
        super().__init__()
        self.d_model, self.eps = d_model, eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Bring every vector of `x` to mean zero and size one, then scale and shift it."""
        _check_width(x, self.d_model)
        return layer_norm(x, self.weight, self.bias, self.eps)


class DynamicTanh(nn.Module):
    """A norm that computes no statistics: tanh(alpha x), with a gain and a shift.

    Shapes:   x (..., d_model) -> (..., d_model)
    Raises:   ValueError when the last axis is not d_model
    Paper:    Zhu et al. (2025), arXiv:2503.10622, equation 1
    Chapter:  chapters/04_norms.ipynb
    """

    def __init__(self, d_model: int, alpha: float = 0.5):
        super().__init__()
        self.d_model = d_model
        self.alpha = nn.Parameter(torch.tensor(alpha))
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Bend every coordinate of `x` into -1..1, then scale and shift it."""
        _check_width(x, self.d_model)
        return torch.tanh(self.alpha * x) * self.weight + self.bias


def _check_width(x: Tensor, d_model: int) -> None:
    if x.shape[-1] != d_model:
        raise ValueError(f"x has shape {tuple(x.shape)}; the norm is over d_model={d_model}")
