"""Attention: weighted averages whose weights are computed from the data itself.

Chapter:  chapters/02_attention.ipynb
"""

from scratchbook.attention.dot_product import attend
from scratchbook.attention.flash import tiled_attend
from scratchbook.attention.latent import LatentAttention
from scratchbook.attention.leaks import FutureLeak, assert_no_future_leak
from scratchbook.attention.linear import LinearAttention, linear_attend
from scratchbook.attention.masks import causal_mask, padding_mask
from scratchbook.attention.multihead import MultiHeadAttention
from scratchbook.attention.windowed import banded_attend, window_mask

__all__ = [
    "FutureLeak",
    "LatentAttention",
    "LinearAttention",
    "MultiHeadAttention",
    "assert_no_future_leak",
    "attend",
    "banded_attend",
    "causal_mask",
    "linear_attend",
    "padding_mask",
    "tiled_attend",
    "window_mask",
]
