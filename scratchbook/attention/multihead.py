"""Several attentions side by side, each in a slice of the vector.

Paper:    Vaswani et al. (2017), arXiv:1706.03762, section 3.2.2
Chapter:  chapters/02_attention.ipynb
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from scratchbook.attention.dot_product import IMPLS
from scratchbook.attention.masks import causal_mask
from scratchbook.attention.shared_heads import attend_shared, for_every_head
from scratchbook.attention.windowed import banded_attend, window_mask


class Cache(Protocol):
    """What attention asks of a cache; `scratchbook.cache.KVCache` is one."""

    length: int  # tokens seen so far

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new keys and values and return all of them, oldest first."""
        ...


class MultiHeadAttention(nn.Module):
    """Self-attention whose query heads may share key/value heads.

    `num_kv_heads` equal to `num_heads` is MHA, 1 is MQA, in between is GQA. Causal unless told
    otherwise: a mask then only takes away from what the past allows. `window` leaves of the
    past only the nearest tokens, `sinks` keeps its first ones all the same. What turns or
    scales queries and keys is passed in: `rotary` and `alibi` from chapter 03, `q_norm` and
    `k_norm` (over head_dim) from chapter 04. Of the projections only their results are used,
    so that any may be replaced by a wrapper.

    Shapes:   x (batch, time, d_model) -> (batch, time, d_model)
    Raises:   ValueError when the sizes do not divide
    Paper:    Ainslie et al. (2023), arXiv:2305.13245, section 2.2
    Chapter:  chapters/02_attention.ipynb
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        bias: bool | str = False,
        impl: str = "sdpa",
        causal: bool = True,
        *,
        head_dim: int | None = None,
        window: int | None = None,
        sinks: int = 0,
        rotary: nn.Module | None = None,
        alibi: nn.Module | None = None,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
    ):
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        _check_sizes(d_model, num_heads, num_kv_heads, head_dim)
        _check_choices(bias, impl, causal, window)
        self.d_model, self.num_heads, self.num_kv_heads = d_model, num_heads, num_kv_heads
        self.head_dim = d_model // num_heads if head_dim is None else head_dim
        self.impl, self.causal, self.window, self.sinks = impl, causal, window, sinks
        wide, narrow = num_heads * self.head_dim, num_kv_heads * self.head_dim
        self.q_proj = nn.Linear(d_model, wide, bias=bool(bias))
        self.k_proj = nn.Linear(d_model, narrow, bias=bool(bias))
        self.v_proj = nn.Linear(d_model, narrow, bias=bool(bias))
        self.o_proj = nn.Linear(wide, d_model, bias=bias is True)
        self.rotary, self.alibi = rotary, alibi
        self.q_norm = nn.Identity() if q_norm is None else q_norm
        self.k_norm = nn.Identity() if k_norm is None else k_norm

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        positions: Tensor | None = None,
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Mix the positions of `x`; with a cache, `x` holds only the new ones.

        `positions` are the places that rotary vectors turn to; None counts on from the cache.
        `return_weights` adds what each head looked at, and takes the eager implementation.

        Shapes:   x (batch, time, d_model), mask (..., time, past + time),
                  positions (time,) or (batch, time)
                  -> (batch, time, d_model), weights (batch, heads, time, past + time)
        """
        self._check_input(x, mask)
        # each head projects to its own slice, and norms and turns what it asks and offers
        q = self.q_proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k = self.k_proj(x).unflatten(-1, (self.num_kv_heads, -1)).transpose(1, 2)
        v = self.v_proj(x).unflatten(-1, (self.num_kv_heads, -1)).transpose(1, 2)
        q, k = self.q_norm(q), self.k_norm(k)  # (batch, heads or kv_heads, time, head_dim)
        if self.rotary is not None:
            if positions is None:
                past = 0 if cache is None else cache.length
                positions = torch.arange(past, past + x.shape[1], device=x.device)
            q, k = self.rotary(q, positions), self.rotary(k, positions)
        if cache is not None:
            k, v = cache.append(k, v)  # (batch, kv_heads, past + time, head_dim)
            mask = self._of_kept(mask, k.shape[2])

        # every query averages the values of the keys that it may look at
        if self._fits_a_band(q, k, mask) and not return_weights:
            k, v = for_every_head(k, self.num_heads), for_every_head(v, self.num_heads)
            mixed, weights = banded_attend(q, k, v, self.window, self.sinks, mask), None
        else:
            allowed = self._allowed(q.shape[2], k.shape[2], mask, x.device)
            bias = self._distance_bias(q.shape[2], k.shape[2], x.device)
            mixed, weights = attend_shared(q, k, v, allowed, self.impl, return_weights, bias)

        out = self.o_proj(mixed.transpose(1, 2).flatten(2))  # (batch, time, d_model)
        return (out, weights) if return_weights else out

    def _of_kept(self, mask: Tensor | None, keys: int) -> Tensor | None:
        """The columns of the keys that a cache with a window has kept: the first and the last."""
        if mask is None or mask.shape[-1] <= keys:
            return mask
        last = mask[..., mask.shape[-1] - keys + self.sinks :]
        return torch.cat([mask[..., : self.sinks], last], dim=-1)

    def _allowed(self, seq_len: int, keys: int, mask: Tensor | None, device: torch.device
                 ) -> Tensor | None:
        """Who may look at whom: causality, the window and the caller's mask in one."""
        past = keys - seq_len
        if not self.causal or (seq_len == 1 and (self.window is None or keys <= self.window)):
            return mask  # the newest token may look at everything there is
        if self.window is None:
            allowed = causal_mask(seq_len, past, device)
        else:
            allowed = window_mask(seq_len, self.window, past, self.sinks, device)
        return allowed if mask is None else mask & allowed

    def _distance_bias(self, seq_len: int, keys: int, device: torch.device) -> Tensor | None:
        if self.alibi is None:
            return None
        places = torch.arange(keys, device=device)
        return self.alibi(places[keys - seq_len :], places)  # (heads, time, keys)

    def _fits_a_band(self, q: Tensor, k: Tensor, mask: Tensor | None) -> bool:
        """Whether cutting the table into a band saves work and says all that the mask says."""
        if self.window is None or self.alibi is not None or self.impl != "sdpa":
            return False
        only_padding = mask is None or (mask.dim() == 4 and mask.shape[1:3] == (1, 1))
        return only_padding and q.shape[2] == k.shape[2] > 2 * (self.window + self.sinks)

    def _check_input(self, x: Tensor, mask: Tensor | None) -> None:
        if x.dim() != 3 or x.shape[-1] != self.d_model:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (batch, time, d_model={self.d_model})"
            )
        if mask is not None and mask.dim() == 3:
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}, which would be read as (heads, time, keys); "
                "one mask per sequence is mask[:, None], one per head mask[None]"
            )


def _check_sizes(
    d_model: int, num_heads: int, num_kv_heads: int, head_dim: int | None
) -> None:
    if min(d_model, num_heads, num_kv_heads) < 1:
        raise ValueError(
            f"d_model={d_model}, num_heads={num_heads} and num_kv_heads={num_kv_heads} "
            "must all be at least 1"
        )
    if head_dim is None and d_model % num_heads:
        raise ValueError(f"d_model={d_model} is not divisible by num_heads={num_heads}")
    if num_heads % num_kv_heads:
        raise ValueError(
            f"num_heads={num_heads} is not divisible by num_kv_heads={num_kv_heads}: "
            "each key/value head serves the same number of query heads"
        )


def _check_choices(bias: bool | str, impl: str, causal: bool, window: int | None) -> None:
    if bias not in (True, False, "qkv"):
        raise ValueError(f"bias={bias!r} must be True, False or 'qkv', which leaves out o_proj")
    if window is not None and (window < 1 or not causal):
        raise ValueError(f"window={window} with causal={causal}: a window looks back, "
                         "and at least at the position itself")
    if impl not in IMPLS:
        raise ValueError(f"impl={impl!r} is unknown; choose one of {', '.join(IMPLS)}")
