"""Where a token stands: four ways of telling it to a model that sees only a set.

Chapter:  chapters/03_positional_encodings.ipynb
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scratchbook.config import RopeSettings


def inverse_frequencies(width: int, base: float = 10_000.0) -> Tensor:
    """How far each pair of coordinates turns per position, in radians: 1 down to about 1/base.

    Shapes:   -> (width / 2,), float32
    Raises:   ValueError when the width is odd: coordinates turn in pairs
    Paper:    Vaswani et al. (2017), arXiv:1706.03762, section 3.5
    Chapter:  chapters/03_positional_encodings.ipynb
    """
    if width < 2 or width % 2:
        raise ValueError(f"coordinates turn in pairs: width={width} must be even")
    return 1.0 / base ** (torch.arange(0, width, 2, dtype=torch.float32) / width)  # (width / 2,)


def sinusoids(positions: Tensor, d_model: int, base: float = 10_000.0) -> Tensor:
    """The sines and cosines of each position, sine and cosine of a pair side by side.

    Shapes:   positions (...) -> (..., d_model)
    Paper:    Vaswani et al. (2017), arXiv:1706.03762, section 3.5
    Chapter:  chapters/03_positional_encodings.ipynb
    """
    frequencies = inverse_frequencies(d_model, base).to(positions.device)
    angles = positions[..., None].float() * frequencies  # (..., d_model / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)  # (..., d_model)


class SinusoidalPositions(nn.Module):
    """Add the sinusoids of each position to its vector; nothing is learned, no length ends it.

    Shapes:   x (batch, time, d_model), positions (time,) or (batch, time) -> as x
    Chapter:  chapters/03_positional_encodings.ipynb
    """

    def __init__(self, d_model: int, base: float = 10_000.0):
        super().__init__()
        self.d_model, self.base = d_model, base

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Mark every vector of `x` with its place."""
        return x + sinusoids(positions, self.d_model, self.base).to(x.dtype)


class LearnedPositions(nn.Module):
    """Add a learned vector for each position: a table, which ends at `max_seq_len`.

    Shapes:   x (batch, time, d_model), positions (time,) or (batch, time) -> as x
    Raises:   ValueError for a position that the table does not have
    Chapter:  chapters/03_positional_encodings.ipynb
    """

    def __init__(self, max_seq_len: int, d_model: int):
        super().__init__()
        self.table = nn.Embedding(max_seq_len, d_model)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Mark every vector of `x` with its place."""
        rows = self.table.num_embeddings
        if positions.device.type != "meta" and positions.numel():
            last = int(positions.max())
            if last >= rows:
                raise ValueError(
                    f"position {last} is past the table: it was learned for max_seq_len={rows} "
                    f"tokens, 0 to {rows - 1}. Keep only the last {rows} tokens of the text"
                )
        return x + self.table(positions)


class RotaryEmbedding(nn.Module):
    """Turn queries and keys by angles that grow with the position, so that scores feel distance.

    Coordinate i makes a pair with i + head_dim / 2. Turning keeps lengths, and the dot product
    of two turned vectors depends on the difference of their angles alone.

    Shapes:   x (batch, heads, time, head_dim), positions (time,) or (batch, time) -> as x
    Raises:   ValueError for an odd head_dim, or a scaling without the length it needs
    Paper:    Su et al. (2021), arXiv:2104.09864, equation 34
    Chapter:  chapters/03_positional_encodings.ipynb
    """

    def __init__(self, head_dim: int, settings: RopeSettings | None = None):
        super().__init__()
        self.settings = settings or RopeSettings()
        self.head_dim = head_dim
        # No buffer, because model.to(bfloat16) would round the speeds, and an angle at position
        # 1,000 would then be off by several radians.
        self.inv_freq, self.attention_factor = scaled_frequencies(head_dim, self.settings)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Turn every vector of `x` to its place."""
        if self.inv_freq.device != x.device:  # moved, or built on the meta device without values
            with torch.device(x.device):
                self.inv_freq, _ = scaled_frequencies(self.head_dim, self.settings)
        angles = positions[..., None].float() * self.inv_freq  # (..., time, head_dim / 2)
        if angles.dim() == 3:
            angles = angles[:, None]  # (batch, 1, time, head_dim / 2): the same for all heads
        cos = (angles.cos() * self.attention_factor).to(x.dtype)
        sin = (angles.sin() * self.attention_factor).to(x.dtype)
        first, second = x.chunk(2, dim=-1)  # (batch, heads, time, head_dim / 2) each
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def scaled_frequencies(head_dim: int, settings: RopeSettings) -> tuple[Tensor, float]:
    """The turning speeds under a scaling, and the factor by which YaRN lengthens the vectors.

    Shapes:   -> (head_dim / 2,), a number
    Raises:   ValueError when the scaling needs `original_max_seq_len` and has none
    Paper:    linear: Chen et al. (2023), arXiv:2306.15595; YaRN and NTK: Peng et al. (2023),
              arXiv:2309.00071, sections 3.1 and 3.4; Llama 3: arXiv:2407.21783, section 3.2
    Chapter:  chapters/03_positional_encodings.ipynb
    """
    plain = inverse_frequencies(head_dim, settings.base)
    if settings.scaling == "none":
        return plain, 1.0
    if settings.scaling == "linear":
        return plain / settings.factor, 1.0
    if settings.scaling == "ntk":  # the slowest pair is slowed by the factor, the fastest not
        base = settings.base * settings.factor ** (head_dim / max(head_dim - 2, 1))
        return inverse_frequencies(head_dim, base), 1.0
    if settings.original_max_seq_len is None:
        raise ValueError(f"scaling={settings.scaling!r} needs original_max_seq_len: the length "
                         "that the model was trained at")
    if settings.scaling == "yarn":
        keep = _yarn_share_kept(head_dim, settings)
        factor = 0.1 * math.log(settings.factor) + 1.0
    else:
        keep, factor = _llama3_share_kept(plain, settings), 1.0
    return keep * plain + (1 - keep) * plain / settings.factor, factor


def _yarn_share_kept(head_dim: int, settings: RopeSettings) -> Tensor:
    """1 for pairs that turn often within the trained length, 0 for rare ones, a ramp between."""

    def pair_that_turns(times: float) -> float:
        length = settings.original_max_seq_len / (times * 2 * math.pi)
        return head_dim * math.log(length) / (2 * math.log(settings.base))

    low = max(math.floor(pair_that_turns(settings.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(settings.beta_slow)), head_dim - 1)
    pairs = torch.arange(head_dim // 2, dtype=torch.float32)
    return 1 - ((pairs - low) / max(high - low, 0.001)).clamp(0, 1)


def _llama3_share_kept(plain: Tensor, settings: RopeSettings) -> Tensor:
    """The same ramp, over how many turns a pair makes within the trained length."""
    turns = settings.original_max_seq_len * plain / (2 * math.pi)
    low, high = settings.low_freq_factor, settings.high_freq_factor
    return ((turns - low) / (high - low)).clamp(0, 1)


class ALiBi(nn.Module):
    """Take from each score a price for the distance, at another rate in every head.

    Shapes:   query_positions (time,), key_positions (keys,) -> bias (heads, time, keys)
    Paper:    Press et al. (2021), arXiv:2108.12409, section 3
    Chapter:  chapters/03_positional_encodings.ipynb
    """

    def __init__(self, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        alibi_slopes(num_heads)  # what it refuses, it refuses here

    def forward(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """What each head adds to the score of each query and key; 0 where they coincide."""
        distance = (query_positions[:, None] - key_positions[None, :]).abs()  # (time, keys)
        return -alibi_slopes(self.num_heads).to(distance.device)[:, None, None] * distance


def alibi_slopes(num_heads: int) -> Tensor:
    """The price per step of each head: for 8 heads 1/2, 1/4, ... 1/256.

    For a number of heads that is no power of two, the slopes of the next smaller power come
    first, then every second one of the next larger, as the authors' code has it.

    Shapes:   -> (num_heads,)
    Raises:   ValueError for no heads
    Chapter:  chapters/03_positional_encodings.ipynb
    """
    if num_heads < 1:
        raise ValueError(f"num_heads={num_heads} must be at least 1")
    power = 2 ** math.floor(math.log2(num_heads))
    first = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    between = [2 ** (-8 * (i + 0.5) / power) for i in range(0, power, 1)]
    return torch.tensor(first + between[: num_heads - power])
