"""The part of a block in which each position thinks by itself.

Chapter:  chapters/05_blocks.ipynb
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def relu2(x: Tensor) -> Tensor:
    """The square of relu. Paper: So et al. (2021), arXiv:2109.08668, section 3."""
    return F.relu(x).square()


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by the tanh formula that GPT-2 was trained with: up to 5e-4 from the exact one."""
    return F.gelu(x, approximate="tanh")


def identity(x: Tensor) -> Tensor:
    """Nothing: what is left when an activation is taken away."""
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "gelu": F.gelu, "gelu_tanh": gelu_tanh, "silu": F.silu, "relu2": relu2,
    "sigmoid": torch.sigmoid, "identity": identity,
}


def hidden_size(d_model: int, mult: float, multiple_of: int = 8) -> int:
    """`mult` times d_model, rounded up to a size that processors like.

    Raises:   ValueError when a size or the factor is not positive
    """
    if d_model < 1 or mult <= 0 or multiple_of < 1:
        raise ValueError(f"d_model={d_model}, mult={mult}, multiple_of={multiple_of} "
                         "must all be positive")
    return -(-round(mult * d_model) // multiple_of) * multiple_of


class FeedForward(nn.Module):
    """Widen every vector, bend each coordinate, and narrow it again.

    Shapes:   x (..., d_model) -> (..., d_model)
    Raises:   ValueError for an unknown activation
    Paper:    Vaswani et al. (2017), arXiv:1706.03762, section 3.3
    Chapter:  chapters/05_blocks.ipynb
    """

    def __init__(self, d_model: int, d_ff: int, activation: str = "gelu", bias: bool = False,
                 dropout: float = 0.0):
        super().__init__()
        self.activation = _activation(activation)
        self.up_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.down_proj = nn.Linear(d_ff, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the same two matrices to every position of `x`."""
        hidden = self.activation(self.up_proj(x))  # (..., d_ff)
        return self.down_proj(self.dropout(hidden))


class GatedFeedForward(nn.Module):
    """A feed-forward part in which one product decides how much of another passes.

    The activation names the member of the family: "sigmoid" is GLU, "relu" ReGLU, "gelu"
    GEGLU, "silu" SwiGLU, "identity" the bilinear layer. Three matrices instead of two: at
    equal parameters d_ff is two thirds of the plain one's.

    Shapes:   x (..., d_model) -> (..., d_model)
    Raises:   ValueError for an unknown activation
    Paper:    Shazeer (2020), arXiv:2002.05202, equation 6
    Chapter:  chapters/05_blocks.ipynb
    """

    def __init__(self, d_model: int, d_ff: int, activation: str = "silu", bias: bool = False,
                 dropout: float = 0.0):
        super().__init__()
        self.activation = _activation(activation)
        self.gate_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.up_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.down_proj = nn.Linear(d_ff, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the same three matrices to every position of `x`."""
        hidden = self.activation(self.gate_proj(x)) * self.up_proj(x)  # (..., d_ff)
        return self.down_proj(self.dropout(hidden))


class MixtureOfExperts(nn.Module):
    """Several gated feed-forward parts, of which a router picks a few for every token.

    With `num_active` above one the chosen shares are divided by their sum. One expert alone
    keeps its own share: divided by itself it would be one, and the router would get no
    gradient. After each call `router_load` is every expert's part of all choices, and
    `balance_loss` is 1 when choices and probabilities are even, up to num_experts when one
    expert takes them all; a little of it belongs into the training loss.

    Shapes:   x (..., d_model) -> (..., d_model)
    Raises:   ValueError when num_active is not within 1..num_experts
    Paper:    Jiang et al. (2024), arXiv:2401.04088, section 2.1; the loss is equation 4 of
              Fedus et al. (2021), arXiv:2101.03961
    Chapter:  chapters/05_blocks.ipynb
    """

    router_load: Tensor  # (num_experts,), sums to one
    balance_loss: Tensor

    def __init__(self, d_model: int, d_ff: int, num_experts: int, num_active: int = 2,
                 activation: str = "silu"):
        super().__init__()
        if not 1 <= num_active <= num_experts:
            raise ValueError(f"num_active={num_active} is not within 1..num_experts={num_experts}")
        self.num_active = num_active
        self.router = nn.Linear(d_model, num_experts, bias=False)
        self.experts = nn.ModuleList(GatedFeedForward(d_model, d_ff, activation)
                                     for _ in range(num_experts))

    def forward(self, x: Tensor) -> Tensor:
        """Send every token through its experts and add what they return, share by share."""
        tokens = x.reshape(-1, x.shape[-1])  # (tokens, d_model)
        probs = self.router(tokens).softmax(dim=-1, dtype=torch.float32)  # (tokens, experts)
        shares, chosen = probs.topk(self.num_active, dim=-1)  # (tokens, num_active)
        if self.num_active > 1:
            shares = shares / shares.sum(dim=-1, keepdim=True)
        self._watch(probs, chosen)
        mixed = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            rows, slots = (chosen == number).nonzero(as_tuple=True)
            if len(rows):
                written = expert(tokens[rows]) * shares[rows, slots, None].to(x.dtype)
                mixed = mixed.index_add(0, rows, written)
        return mixed.view_as(x)

    def _watch(self, probs: Tensor, chosen: Tensor) -> None:
        counts = torch.bincount(chosen.flatten(), minlength=len(self.experts))
        self.router_load = counts / chosen.numel()
        # counting has no gradient; the mean probability beside it has one
        self.balance_loss = len(self.experts) * (self.router_load * probs.mean(dim=0)).sum()


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
