"""Attention without a softmax: a sum that can be carried along, at a cost linear in the text.

Chapter:  chapters/02b_attention_variants.ipynb
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear_attend(
    q: Tensor, k: Tensor, v: Tensor, state: tuple[Tensor, Tensor] | None = None,
    mask: Tensor | None = None, chunk: int = 64, turn: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Weigh values by phi(q) . phi(k), phi(x) = elu(x) + 1, over the past.

    Because the weight is a plain product, all that a later query needs of the past is one
    matrix, the sum of phi(k) v, and one vector, the sum of phi(k): the `state`, whose size
    does not grow. Within a chunk the weights are written out, between chunks the state is.
    `turn` rotates to positions. It acts behind phi, where a product of two turned vectors
    still depends on their distance alone (before phi it would not), and above the fraction
    bar only, since turned products may be negative and their sum zero.

    Shapes:   q, k (batch, heads, time, head_dim), v (batch, heads, time, value_dim),
              mask (batch, 1, 1, time) hides padding, state (batch, heads, head_dim,
              value_dim) and (batch, heads, head_dim) -> (batch, heads, time, value_dim), state
    Raises:   ValueError for a chunk below 1
    Paper:    Katharopoulos et al. (2020), arXiv:2006.16236, section 3.3; the turn: Su et al.
              (2021), arXiv:2104.09864, equation 19
    Chapter:  chapters/02b_attention_variants.ipynb
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1")
    q, k = F.elu(q) + 1, F.elu(k) + 1  # positive, so that no weight is negative
    if mask is not None:
        k = k * mask.transpose(-2, -1)  # (batch, 1, time, 1): a padded key weighs nothing
    turned_q, turned_k = (q, k) if turn is None else (turn(q), turn(k))
    batch, heads, time, head_dim = q.shape
    if state is None:
        state = (q.new_zeros(batch, heads, head_dim, v.shape[-1]),
                 q.new_zeros(batch, heads, head_dim))
    outputs = []
    for start in range(0, time, chunk):
        part = slice(start, start + chunk)
        above, products = _sum_values(*(x[:, :, part] for x in (turned_q, turned_k, v)), state[0])
        sums = state[1][:, :, None] + k[:, :, part].cumsum(2)  # (batch, heads, chunk, head_dim)
        below = (q[:, :, part] * sums).sum(-1, keepdim=True)
        outputs.append(above / below.clamp_min(torch.finfo(q.dtype).tiny))
        state = products, sums[:, :, -1]
    return torch.cat(outputs, dim=2), state


def _sum_values(q: Tensor, k: Tensor, v: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted sums of one chunk, and the matrix that the next one starts from."""
    weights = (q @ k.transpose(-2, -1)).tril()  # (batch, heads, chunk, chunk)
    return q @ products + weights @ v, products + k.transpose(-2, -1) @ v


class LinearAttention(nn.Module):
    """Causal self-attention without a softmax: what it keeps of the past does not grow.

    With a `StateCache` it writes token by token. `rotary` turns behind the feature map.

    Shapes:   x (batch, time, d_model) -> (batch, time, d_model)
    Raises:   ValueError when d_model is not divisible by num_heads, or for a mask that says
              more than who is padding
    Paper:    Katharopoulos et al. (2020), arXiv:2006.16236, section 3.3
    Chapter:  chapters/02b_attention_variants.ipynb
    """

    def __init__(self, d_model: int, num_heads: int, rotary: nn.Module | None = None):
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"d_model={d_model} is not divisible by num_heads={num_heads}")
        self.d_model, self.num_heads, self.rotary = d_model, num_heads, rotary
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(d_model, d_model, bias=False) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: object | None = None,
                positions: Tensor | None = None) -> Tensor:
        """Mix the positions of `x`; with a cache, `x` holds only the new ones.

        Shapes:   x (batch, time, d_model), mask (batch, 1, 1, past + time),
                  positions (time,) or (batch, time) -> (batch, time, d_model)
        """
        time, past = x.shape[1], 0 if cache is None else cache.length
        if mask is not None and mask.shape[1:3] != (1, 1):
            raise ValueError(f"mask {tuple(mask.shape)}: a sum cannot be masked row by row, so "
                             "the mask must be (batch, 1, 1, time)")
        mask = None if mask is None else mask[..., -time:]  # the past is summed already
        q, k, v = (proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
                   for proj in (self.q_proj, self.k_proj, self.v_proj))
        turn = None
        if self.rotary is not None:
            if positions is None:
                positions = torch.arange(past, past + time, device=x.device)
            turn = partial(self.rotary, positions=positions)
        out, state = linear_attend(q, k, v, None if cache is None else cache.state, mask, turn=turn)
        if cache is not None:
            cache.keep(state, time)
        return self.o_proj(out.transpose(1, 2).flatten(2))
