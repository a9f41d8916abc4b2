"""Exact attention in tiles: the time x time table of weights is never there as a whole.

Chapter:  chapters/02b_attention_variants.ipynb
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def tiled_attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = True,
    block_size: int = 128,
) -> Tensor:
    """Attend block by block, keeping a running maximum and a running sum of each row.

    When a later block brings a larger score, what was summed so far shrinks by the same
    factor; the result is the softmax over all blocks, to rounding. Keys may be more than
    queries: the queries are then the last ones.

    Shapes:   q (batch, heads, time, head_dim), k (batch, heads, keys, head_dim),
              v (batch, heads, keys, value_dim), mask (batch, 1, 1, keys) hides padding
              -> (batch, heads, time, value_dim)
    Raises:   ValueError for a block size below 1, or causal with fewer keys than queries
    Paper:    Dao et al. (2022), arXiv:2205.14135, algorithm 1
    Chapter:  chapters/02b_attention_variants.ipynb
    """
    time, keys = q.shape[2], k.shape[2]
    if block_size < 1:
        raise ValueError(f"block_size={block_size} must be at least 1")
    if causal and keys < time:
        raise ValueError(f"{time} queries but {keys} keys: under a causal rule the queries are "
                         "the last of the keys")
    rows = [_one_row_of_tiles(q[:, :, start : start + block_size], k, v, mask,
                              keys - time + start if causal else None, block_size)
            for start in range(0, time, block_size)]
    return torch.cat(rows, dim=2)


def _one_row_of_tiles(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, first: int | None,
                      block_size: int) -> Tensor:
    """All that the queries of one block collect; `first` is where the first of them stands."""
    batch, heads, rows, head_dim = q.shape
    largest = q.new_full((batch, heads, rows, 1), -math.inf)
    total = q.new_zeros(batch, heads, rows, 1)
    mixed = q.new_zeros(batch, heads, rows, v.shape[-1])
    end = k.shape[2] if first is None else first + rows  # later keys nobody here may see
    for start in range(0, end, block_size):
        tile = slice(start, min(start + block_size, end))
        scores = q @ k[:, :, tile].transpose(-2, -1) / math.sqrt(head_dim)
        hidden = _hidden(mask, first, rows, tile, q.device)
        if hidden is not None:
            scores = scores.masked_fill(hidden, -math.inf)
        new_largest = torch.maximum(largest, scores.amax(-1, keepdim=True))
        # a row that has seen nothing yet has no maximum: -inf minus -inf would be NaN
        reference = new_largest.masked_fill(new_largest == -math.inf, 0.0)
        shrink = (largest - reference).exp()
        weights = (scores - reference).exp()
        total = total * shrink + weights.sum(-1, keepdim=True)
        mixed = mixed * shrink + weights @ v[:, :, tile]
        largest = new_largest
    return mixed / total.masked_fill(total == 0, 1.0)


def _hidden(mask: Tensor | None, first: int | None, rows: int, tile: slice,
            device: torch.device) -> Tensor | None:
    hidden = None
    if first is not None and tile.stop - 1 > first:  # the tile touches the diagonal
        queries = torch.arange(first, first + rows, device=device)
        columns = torch.arange(tile.start, tile.stop, device=device)
        hidden = columns[None, :] > queries[:, None]  # (rows, tile)
    if mask is None:
        return hidden
    padding = ~mask[..., tile]
    return padding if hidden is None else padding | hidden
