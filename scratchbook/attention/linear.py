"""Attention without a softmax: a sum that can be carried along, at a cost linear in the text.

Chapter:  chapters/02b_attention_variants.ipynb
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def linear_attend(
    q: Tensor, k: Tensor, v: Tensor, state: tuple[Tensor, Tensor] | None = None,
    mask: Tensor | None = None, chunk: int = 64,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Weigh values by phi(q) . phi(k), phi(x) = elu(x) + 1, over the past.

    Because the weight is a plain product, all that a later query needs of the past is one
    matrix, the sum of phi(k) v, and one vector, the sum of phi(k): the `state`, whose size
    does not grow. Within a chunk the weights are written out, between chunks the state is.

    Shapes:   q, k (batch, heads, time, head_dim), v (batch, heads, time, value_dim),
              mask (batch, 1, 1, time) hides padding, state (batch, heads, head_dim,
              value_dim) and (batch, heads, head_dim) -> (batch, heads, time, value_dim), state
    Raises:   ValueError for a chunk below 1
    Paper:    Katharopoulos et al. (2020), arXiv:2006.16236, section 3.3
    Chapter:  chapters/02b_attention_variants.ipynb
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1")
    q, k = F.elu(q) + 1, F.elu(k) + 1  # positive, so that no weight is negative
    if mask is not None:
        k = k * mask.transpose(-2, -1)  # (batch, 1, time, 1): a padded key weighs nothing
    batch, heads, time, head_dim = q.shape
    if state is None:
        state = (q.new_zeros(batch, heads, head_dim, v.shape[-1]),
                 q.new_zeros(batch, heads, head_dim))
    outputs = []
    for start in range(0, time, chunk):
        part = slice(start, start + chunk)
        out, state = _one_chunk(q[:, :, part], k[:, :, part], v[:, :, part], state)
        outputs.append(out)
    return torch.cat(outputs, dim=2), state


def _one_chunk(q: Tensor, k: Tensor, v: Tensor, state: tuple[Tensor, Tensor]
               ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    products, sums = state
    weights = (q @ k.transpose(-2, -1)).tril()  # (batch, heads, chunk, chunk)
    above = q @ products + weights @ v
    below = q @ sums[..., None] + weights.sum(-1, keepdim=True)  # (batch, heads, chunk, 1)
    out = above / below.clamp_min(torch.finfo(q.dtype).tiny)
    return out, (products + k.transpose(-2, -1) @ v, sums + k.sum(dim=2))
