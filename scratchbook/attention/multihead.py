"""Several attentions side by side, each in a slice of the vector.

Paper:    Vaswani et al. (2017), arXiv:1706.03762, section 3.2.2
Chapter:  chapters/02_attention.ipynb
"""

from typing import Protocol

from torch import Tensor, nn

from scratchbook.attention.dot_product import PATHS, attend
from scratchbook.attention.masks import causal_mask


class Cache(Protocol):
    """What attention asks of a cache; `scratchbook.cache.KVCache` is one."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new keys and values and return all of them, oldest first."""
        ...


class MultiHeadAttention(nn.Module):
    """Self-attention whose query heads may share key/value heads.

    `num_kv_heads` equal to `num_heads` is MHA, 1 is MQA, in between is GQA.
    Fewer key/value heads shrink the decoding cache, not the compute. Causal unless told
    otherwise: a mask then only takes away from what the past allows.

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
        bias: bool = False,
        path: str = "sdpa",
        causal: bool = True,
    ):
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        _check_sizes(d_model, num_heads, num_kv_heads, path)
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.head_dim = d_model // num_heads
        self.path, self.causal = path, causal
        self.q_proj = nn.Linear(d_model, num_heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(d_model, num_kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(d_model, num_kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(num_heads * self.head_dim, d_model, bias=bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Mix the positions of `x`; with a cache, `x` holds only the new ones.

        `return_weights` adds what each head looked at, and takes the readable path.

        Shapes:   x (batch, time, d_model), mask (..., time, past + time)
                  -> (batch, time, d_model), weights (batch, heads, time, past + time)
        """
        self._check_input(x, mask)
        q = self._split_heads(self.q_proj(x), self.num_heads)
        k = self._split_heads(self.k_proj(x), self.num_kv_heads)
        v = self._split_heads(self.v_proj(x), self.num_kv_heads)
        if cache is not None:
            k, v = cache.append(k, v)  # (batch, kv_heads, past + time, head_dim)
        if self.causal:
            past = k.shape[2] - x.shape[1]
            past_only = causal_mask(x.shape[1], past, device=x.device)
            mask = past_only if mask is None else mask & past_only
        # Neighbours share: with 4 heads over 2, heads 0 and 1 read the first.
        group = self.num_heads // self.num_kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        if return_weights:
            mixed, weights = attend(q, k, v, mask, return_weights=True)
            return self.o_proj(self._join_heads(mixed)), weights
        return self.o_proj(self._join_heads(attend(q, k, v, mask, path=self.path)))

    def _check_input(self, x: Tensor, mask: Tensor | None) -> None:
        d_model = self.q_proj.in_features
        if x.dim() != 3 or x.shape[-1] != d_model:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (batch, time, d_model={d_model})"
            )
        if mask is not None and mask.dim() == 3:
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}, which would be read as (heads, time, keys); "
                "one mask per sequence is mask[:, None], one per head mask[None]"
            )

    def _split_heads(self, x: Tensor, heads: int) -> Tensor:
        batch, time, _ = x.shape
        x = x.view(batch, time, heads, self.head_dim)
        return x.transpose(1, 2)  # (batch, heads, time, head_dim)

    def _join_heads(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)  # (batch, time, heads * head_dim)


def _check_sizes(d_model: int, num_heads: int, num_kv_heads: int, path: str) -> None:
    if min(d_model, num_heads, num_kv_heads) < 1:
        raise ValueError(
            f"d_model={d_model}, num_heads={num_heads} and num_kv_heads={num_kv_heads} "
            "must all be at least 1"
        )
    if d_model % num_heads:
        raise ValueError(f"d_model={d_model} is not divisible by num_heads={num_heads}")
    if num_heads % num_kv_heads:
        raise ValueError(
            f"num_heads={num_heads} is not divisible by num_kv_heads={num_kv_heads}: "
            "each key/value head serves the same number of query heads"
        )
    if path not in PATHS:
        raise ValueError(f"path={path!r} is unknown; choose one of {', '.join(PATHS)}")
