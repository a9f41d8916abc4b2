"""Smaller models: fewer bits, fewer weights, a student for a teacher, and files for others.

Chapter:  chapters/07_compression.ipynb
"""

from scratchbook.compression.layers import (
    PackedWeight,
    QuantizedEmbedding,
    QuantizedLinear,
    quantize,
    size_in_bytes,
)
from scratchbook.compression.quantize import Scheme
from scratchbook.compression.saving import load_compressed, save_compressed

__all__ = [
    "PackedWeight",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "Scheme",
    "load_compressed",
    "quantize",
    "save_compressed",
    "size_in_bytes",
]
