"""Attention that caches one short vector per token, from which every head draws its key and value.

Chapter:  chapters/02b_attention_variants.ipynb
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scratchbook.attention.dot_product import attend
from scratchbook.attention.masks import causal_mask


class LatentAttention(nn.Module):
    """Multi-head latent attention: keys and values are unpacked from a latent of `latent_dim`.

    The cache holds the latent and one rotated key of `rope_dim` that all heads share: positions
    cannot stand inside the latent, or unpacking could not be folded into the query.
    Absorbed, the matrix that unpacks keys is multiplied into the query instead (and the one
    for values into the output), so that nothing is unpacked at all: less work for one new
    token, more for a whole prompt. `absorbed=None` chooses that way.

    Shapes:   x (batch, time, d_model) -> (batch, time, d_model)
    Raises:   ValueError when sizes are not positive, or rotary and rope_dim do not go together
    Paper:    DeepSeek-AI (2024), arXiv:2405.04434, section 2.1
    Chapter:  chapters/02b_attention_variants.ipynb
    """

    def __init__(
        self, d_model: int, num_heads: int, latent_dim: int, head_dim: int | None = None,
        rope_dim: int = 0, value_dim: int | None = None, rotary: nn.Module | None = None,
        latent_norm: nn.Module | None = None, absorbed: bool | None = None, impl: str = "sdpa",
    ):
        super().__init__()
        head_dim = d_model // num_heads if head_dim is None else head_dim
        value_dim = head_dim if value_dim is None else value_dim
        if min(d_model, num_heads, latent_dim, head_dim, value_dim) < 1 or rope_dim < 0:
            raise ValueError(f"d_model={d_model}, num_heads={num_heads}, latent_dim={latent_dim}, "
                             f"head_dim={head_dim}, value_dim={value_dim} must be at least 1")
        if (rotary is None) != (rope_dim == 0):
            raise ValueError(f"rope_dim={rope_dim} with rotary={rotary}: give both or neither")
        self.d_model, self.num_heads, self.latent_dim = d_model, num_heads, latent_dim
        self.head_dim, self.rope_dim, self.value_dim = head_dim, rope_dim, value_dim
        self.absorbed, self.impl = absorbed, impl
        self.rotary, self.latent_norm = rotary, latent_norm
        self.q_proj = nn.Linear(d_model, num_heads * (head_dim + rope_dim), bias=False)
        self.down_proj = nn.Linear(d_model, latent_dim + rope_dim, bias=False)
        self.up_proj = nn.Linear(latent_dim, num_heads * (head_dim + value_dim), bias=False)
        self.o_proj = nn.Linear(num_heads * value_dim, d_model, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: object | None = None,
                positions: Tensor | None = None) -> Tensor:
        """Mix the positions of `x`; with a cache, `x` holds only the new ones.

        Shapes:   x (batch, time, d_model), mask (..., time, past + time),
                  positions (time,) or (batch, time) -> (batch, time, d_model)
        """
        if positions is None:
            past = 0 if cache is None else cache.length
            positions = torch.arange(past, past + x.shape[1], device=x.device)
        q = self.q_proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        content, turned = q.split([self.head_dim, self.rope_dim], dim=-1)
        latent, key = self.down_proj(x).split([self.latent_dim, self.rope_dim], dim=-1)
        latent = latent if self.latent_norm is None else self.latent_norm(latent)
        latent, key = latent[:, None], key[:, None]  # (batch, 1, time, ...): one for all heads
        if self.rotary is not None:
            turned, key = self.rotary(turned, positions), self.rotary(key, positions)
        if cache is not None:
            key, latent = cache.append(key, latent)
        mask = self._rules(x.shape[1], latent.shape[2], mask, x.device)
        absorb = x.shape[1] == 1 if self.absorbed is None else self.absorbed
        mix = self._absorbed if absorb else self._unpacked
        mixed = mix(content, turned, latent, key, mask)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _unpacked(self, content: Tensor, turned: Tensor, latent: Tensor, key: Tensor,
                  mask: Tensor | None) -> Tensor:
        """Unpack a key and a value for every head, then attend as usual."""
        both = self.up_proj(latent[:, 0]).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        keys, values = both.split([self.head_dim, self.value_dim], dim=-1)
        shared = key.expand(-1, self.num_heads, -1, -1)
        q, k = torch.cat([content, turned], dim=-1), torch.cat([keys, shared], dim=-1)
        return attend(q, k, values, mask, impl=self.impl)

    def _absorbed(self, content: Tensor, turned: Tensor, latent: Tensor, key: Tensor,
                  mask: Tensor | None) -> Tensor:
        """Let the query meet the latent itself: q (W c) = (q W) c."""
        up = self._up_matrix().unflatten(0, (self.num_heads, -1))  # (heads, both, latent_dim)
        up_k, up_v = up.split([self.head_dim, self.value_dim], dim=1)
        q = torch.cat([content @ up_k, turned], dim=-1)  # (batch, heads, time, latent + rope)
        k = torch.cat([latent, key], dim=-1)  # (batch, 1, keys, latent + rope)
        # attend divides by the root of the width that it sees; the scores want the heads' own
        q = q * math.sqrt(q.shape[-1] / (self.head_dim + self.rope_dim))
        if q.shape[2] == 1 and (mask is None or mask.shape[-3:-1] == (1, 1)):
            # one new token: the heads ask the one key as rows of one query, nothing is copied
            mixed = attend(q.transpose(1, 2), k, latent, mask, impl=self.impl).transpose(1, 2)
        else:
            k, latent = (y.expand(-1, self.num_heads, -1, -1) for y in (k, latent))
            mixed = attend(q, k, latent, mask, impl=self.impl)  # (batch, heads, time, latent_dim)
        return mixed @ up_v.transpose(1, 2)

    def _up_matrix(self) -> Tensor:
        """What `up_proj` multiplies with; a wrapper (LoRA) may do more than its `weight` says."""
        names = [name for name, _ in self.up_proj.named_parameters()]
        if isinstance(self.up_proj, nn.Linear) and names == ["weight"]:
            return self.up_proj.weight
        any_of_it = next(self.up_proj.parameters())
        return self.up_proj(torch.eye(self.latent_dim, device=any_of_it.device,
                                      dtype=any_of_it.dtype)).mT

    def _rules(self, seq_len: int, keys: int, mask: Tensor | None, device: torch.device
               ) -> Tensor | None:
        if seq_len == 1:
            return mask
        allowed = causal_mask(seq_len, keys - seq_len, device=device)
        return allowed if mask is None else mask & allowed
