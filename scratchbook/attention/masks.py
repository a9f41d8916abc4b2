"""Who may look at whom: boolean masks, True = may look.

Chapter:  chapters/02_attention.ipynb
"""

import torch
from torch import Tensor


def causal_mask(seq_len: int, past: int = 0, device: torch.device | str | None = None) -> Tensor:
    """Let each query look at itself and at everything before it.

    `past` tokens that came earlier (they stand in a cache) are keys without queries, so
    the diagonal starts in column `past` and ends in the bottom right corner.

    Shapes:   -> (time, past + time), bool
    Raises:   ValueError for a negative size
    Chapter:  chapters/02_attention.ipynb
    """
    if seq_len < 0 or past < 0:
        raise ValueError(f"seq_len={seq_len} and past={past} must not be negative")
    query_positions = torch.arange(past, past + seq_len, device=device)
    key_positions = torch.arange(past + seq_len, device=device)
    return key_positions[None, :] <= query_positions[:, None]  # (time, past + time)


def padding_mask(lengths: Tensor | list[int], seq_len: int, side: str = "right") -> Tensor:
    """Hide the padding of sequences that are shorter than the batch is wide.

    The two axes of size one broadcast over heads and queries, so
    `causal_mask(seq_len) & padding_mask(lengths, seq_len)` is the mask of a padded batch.

    Shapes:   lengths (batch,) -> (batch, 1, 1, time), bool
    Raises:   ValueError for a length outside 0..seq_len or an unknown side
    Chapter:  chapters/02_attention.ipynb
    """
    lengths = torch.as_tensor(lengths)
    if lengths.dim() != 1:
        raise ValueError(f"lengths has shape {tuple(lengths.shape)}; give one length per sequence")
    if side not in ("right", "left"):
        raise ValueError(f"side={side!r} is unknown; the padding stands on the 'right' or 'left'")
    outside = (lengths < 0) | (lengths > seq_len)
    if outside.any():
        raise ValueError(f"length {int(lengths[outside][0])} is not within 0..seq_len={seq_len}")
    positions = torch.arange(seq_len, device=lengths.device)
    if side == "left":
        positions = positions.flip(0)
    return (positions < lengths[:, None])[:, None, None, :]  # (batch, 1, 1, time)
