"""Attention that looks back a fixed distance: its price grows with the text, not its square.

Paper:    Beltagy et al. (2020), arXiv:2004.05150; Xiao et al. (2023), arXiv:2309.17453
Chapter:  chapters/02b_attention_variants.ipynb
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scratchbook.attention.dot_product import attend
from scratchbook.attention.masks import causal_mask


def window_mask(
    seq_len: int,
    window: int,
    past: int = 0,
    sinks: int = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Let each query look at itself, the `window - 1` tokens before it and the first `sinks`.

    Shapes:   -> (time, past + time), bool
    Raises:   ValueError for a window below 1 or a negative size
    Paper:    Xiao et al. (2023), arXiv:2309.17453, section 3.2
    Chapter:  chapters/02b_attention_variants.ipynb
    """
    if window < 1 or sinks < 0:
        raise ValueError(f"window={window} must be at least 1 (a query always sees itself) and "
                         f"sinks={sinks} not negative")
    before = causal_mask(seq_len, past, device)  # (time, past + time)
    near = before.triu(past - window + 1)
    near[:, :sinks] = before[:, :sinks]
    return near


def banded_attend(
    q: Tensor, k: Tensor, v: Tensor, window: int, sinks: int = 0, mask: Tensor | None = None,
    impl: str = "sdpa",
) -> Tensor:
    """Attend within a window without ever building the time x time table.

    The text is cut into stretches as long as the window. A query then sees keys of two of
    them only, its own and the one before, so 2 x window columns (and the sinks) are enough.

    Shapes:   q, k (batch, heads, time, head_dim), v (batch, heads, time, value_dim),
              mask (batch, 1, 1, time) hides padding -> (batch, heads, time, value_dim)
    Raises:   ValueError for a mask that says more than who is padding
    Chapter:  chapters/02b_attention_variants.ipynb
    """
    batch, heads, time, _ = q.shape
    if mask is not None and mask.shape[1:3] != (1, 1):
        raise ValueError(f"mask {tuple(mask.shape)}: a band is cut by columns, so the mask must be "
                         "(batch, 1, 1, time)")
    stretches = -(-time // window)
    real = torch.ones(batch, 1, 1, time, dtype=torch.bool, device=q.device)
    real = real if mask is None else mask.expand(batch, 1, 1, time)
    q, k, v = (_pad_time(x, stretches * window) for x in (q, k, v))
    real = F.pad(real, (0, stretches * window - time))
    rows = q.unflatten(2, (stretches, window))  # (batch, heads, stretches, window, head_dim)
    keys, values = _two_stretches(k, window), _two_stretches(v, window)
    columns = _two_stretches(real.transpose(2, 3), window).transpose(3, 4)
    own = torch.arange(window, device=q.device)
    offset = torch.arange(-window, window, device=q.device)  # of a key from its stretch's start
    distance = own[:, None] - offset[None, :]
    place = offset + window * torch.arange(stretches, device=q.device)[:, None]  # (stretches, 2w)
    seen = ((distance >= 0) & (distance < window))[None] & (place >= 0)[:, None]
    seen = seen & columns  # (batch, 1, stretches, window, 2 window)
    if sinks:
        keys, values, seen = _add_sinks(k, v, real, keys, values, seen, place, sinks)
    out = attend(rows, keys, values, seen, impl=impl)
    return out.flatten(2, 3)[:, :, :time]


def _add_sinks(
    k: Tensor, v: Tensor, real: Tensor, keys: Tensor, values: Tensor, seen: Tensor,
    place: Tensor, sinks: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Put the first keys before every stretch, for the queries whose band does not hold them."""
    stretches, window = keys.shape[2], seen.shape[3]
    first_k, first_v = (x[:, :, None, :sinks].expand(-1, -1, stretches, -1, -1) for x in (k, v))
    queries = place[:, window:]  # (stretches, window): where each query stands
    number = torch.arange(min(sinks, k.shape[2]), device=k.device)
    far = queries[..., None] - number >= window  # (stretches, window, sinks)
    far = far & real[:, :, :, None, : len(number)]
    return (torch.cat([first_k, keys], dim=3), torch.cat([first_v, values], dim=3),
            torch.cat([far.expand(seen.shape[0], -1, -1, -1, -1), seen], dim=-1))


def _pad_time(x: Tensor, length: int) -> Tensor:
    return F.pad(x, (0, 0, 0, length - x.shape[2]))


def _two_stretches(x: Tensor, window: int) -> Tensor:
    """Each stretch with the one before it: (batch, heads, stretches, 2 window, features)."""
    before = F.pad(x, (0, 0, window, 0))[:, :, : x.shape[2]]
    cut = [y.unflatten(2, (-1, window)) for y in (before, x)]
    return torch.cat(cut, dim=3)
