"""Scaled dot-product attention, twice: once to read, once to run fast.

Paper:    Vaswani et al. (2017), arXiv:1706.03762, section 3.2.1
Chapter:  chapters/02_attention.ipynb
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

IMPLS = ("eager", "sdpa")
SHORT = 512  # keys; from about here torch's kernel is the faster one in training too


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    impl: str = "eager",
    return_weights: bool = False,
    bias: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Average the values, weighted by how well each key answers the query.

    `mask` is boolean, True = may look, and broadcasts over the leading axes.
    A query that may look at nothing gets zeros, never NaN, on both paths. `bias` is added to
    the scores before the softmax; ALiBi says by it how far away a key stands.
    "eager" builds the weights; "sdpa" calls torch's kernel, which does not.

    Shapes:   q (..., time, head_dim), k (..., keys, head_dim), v (..., keys, value_dim),
              mask and bias (..., time, keys)
              -> (..., time, value_dim), weights (..., time, keys)
    Raises:   ValueError for shapes that do not fit, a mask that is not boolean, an
              unknown impl, or weights asked of the one that never has them
    Paper:    Vaswani et al. (2017), arXiv:1706.03762, equation 1
    Chapter:  chapters/02_attention.ipynb
    """
    _check_shapes(q, k, v, mask)
    if impl == "eager":
        out, weights = _eager(q, k, v, mask, bias)
        return (out, weights) if return_weights else out
    if impl != "sdpa":
        raise ValueError(f"impl={impl!r} is unknown; choose one of {', '.join(IMPLS)}")
    if return_weights:
        raise ValueError("impl='sdpa' never builds the weights; ask impl='eager' for them")
    return _sdpa(q, k, v, mask, bias)


def _eager(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., time, keys)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if mask is None:
        weights = scores.softmax(dim=-1)
    else:
        # The lowest finite number, not -inf: the softmax of a row of -inf alone is NaN. A row
        # that may look at nothing comes out uniform instead, and is then cleared.
        hidden = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = hidden.softmax(dim=-1).masked_fill(~mask, 0.0)
    return weights @ v, weights  # (..., time, value_dim)


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None
) -> Tensor:
    bias = None if bias is None else bias.to(q.dtype)
    if q.requires_grad and q.dtype == torch.bfloat16 and q.is_cpu and k.shape[-2] < SHORT:
        return _by_products(q, k, v, mask, bias)
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    # Kernels and versions of torch disagree about rows that may look at nothing (2.4 gives
    # NaN): let such a row look at everything, then clear what it found.
    empty = ~mask.any(dim=-1, keepdim=True)  # (..., time, 1)
    seen = mask | empty
    if bias is not None:
        seen = bias.masked_fill(~seen, -torch.inf)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return out.masked_fill(empty, 0.0)


def _by_products(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None
) -> Tensor:
    """What the eager one does, in fewer passes: what is hidden gets a huge negative bias.

    torch's kernel needs several times longer to go backwards over short texts in bfloat16.
    """
    if mask is not None:
        hidden = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(
            ~mask, torch.finfo(q.dtype).min)
        bias = hidden if bias is None else bias + hidden
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)  # (..., time, keys)
    weights = (scores if bias is None else scores + bias).softmax(dim=-1)
    out = weights @ v
    return out if mask is None else out * mask.any(dim=-1, keepdim=True)


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
    if min(q.dim(), k.dim(), v.dim()) < 2:
        raise ValueError(
            f"q, k and v need at least (time, head_dim), got {tuple(q.shape)}, "
            f"{tuple(k.shape)} and {tuple(v.shape)}; a single query is q[None]"
        )
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"q has head_dim={q.shape[-1]} but k has {k.shape[-1]}: they must match")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(f"{k.shape[-2]} keys but {v.shape[-2]} values: each key needs one value")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ValueError(
            f"mask has dtype {mask.dtype}; pass booleans, True = may look "
            "(for a mask of 0 and -inf that is `mask == 0`, for ones and zeros `mask != 0`)"
        )
    time, keys = q.shape[-2], k.shape[-2]
    fits = mask.dim() >= 2 and mask.shape[-2] in (1, time) and mask.shape[-1] in (1, keys)
    if not fits:
        raise ValueError(
            f"mask {tuple(mask.shape)} does not cover {time} queries and {keys} keys; "
            "it needs (time, keys), and with a cache causal_mask(time, past)"
        )
