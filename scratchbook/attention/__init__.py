"""Attention: weighted averages whose weights are computed from the data itself.

Chapter:  chapters/02_attention.ipynb
"""

from scratchbook.attention.dot_product import attend
from scratchbook.attention.leaks import FutureLeak, assert_no_future_leak
from scratchbook.attention.masks import causal_mask, padding_mask, window_mask
from scratchbook.attention.multihead import MultiHeadAttention

__all__ = [
    "FutureLeak",
    "MultiHeadAttention",
    "assert_no_future_leak",
    "attend",
    "causal_mask",
    "padding_mask",
    "window_mask",
]
