"""Query heads that share keys and values: the plain way, and a faster one for a single query.

Chapter:  chapters/02b_attention_variants.ipynb
"""

from __future__ import annotations

from torch import Tensor

from scratchbook.attention.dot_product import attend


def for_every_head(x: Tensor, num_heads: int) -> Tensor:
    """Repeat key/value heads; neighbours share: with 4 heads over 2, heads 0 and 1 read the first.

    Shapes:   x (batch, kv_heads, keys, head_dim) -> (batch, heads, keys, head_dim)
    Chapter:  chapters/02b_attention_variants.ipynb
    """
    group = num_heads // x.shape[1]
    return x.repeat_interleave(group, dim=1) if group > 1 else x


def attend_shared(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, impl: str = "eager",
    return_weights: bool = False, bias: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`attend` where k and v may have fewer heads than q; the weights are None unless asked for.

    Shapes:   q (batch, heads, time, head_dim), k and v (batch, kv_heads, keys, head_dim),
              mask and bias (..., time, keys)
              -> (batch, heads, time, head_dim), weights (batch, heads, time, keys)
    Chapter:  chapters/02b_attention_variants.ipynb
    """
    if _one_query_for_all(q, k, mask) and bias is None and not return_weights:
        # heads that share a key ask it as rows of one query: nothing is copied
        rows = q.unflatten(1, (k.shape[1], -1))[:, :, :, 0]  # (batch, kv_heads, group, head_dim)
        return attend(rows, k, v, mask, impl).flatten(1, 2)[:, :, None], None
    k, v = for_every_head(k, q.shape[1]), for_every_head(v, q.shape[1])
    if return_weights:
        return attend(q, k, v, mask, return_weights=True, bias=bias)
    return attend(q, k, v, mask, impl, bias=bias), None


def _one_query_for_all(q: Tensor, k: Tensor, mask: Tensor | None) -> bool:
    """One new token, heads that share, and a mask that says the same for all of them."""
    return (q.shape[2] == 1 and q.shape[1] > k.shape[1]
            and (mask is None or mask.shape[-3:-1] in ((1, 1), (1,))))
