"""Smaller models: fewer bits, fewer weights, a student for a teacher, and files for others.

Chapter:  chapters/07_compression.ipynb
"""

from scratchbook.compression.awq import quantize_awq
from scratchbook.compression.gptq import quantize_gptq
from scratchbook.compression.layers import (
    PackedWeight,
    QuantizedEmbedding,
    QuantizedLinear,
    quantize,
    size_in_bytes,
)
from scratchbook.compression.qat import convert_qat, prepare_qat
from scratchbook.compression.quantize import Scheme
from scratchbook.compression.saving import load_compressed, save_compressed

__all__ = [
    "PackedWeight",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "Scheme",
    "convert_qat",
    "load_compressed",
    "prepare_qat",
    "quantize",
    "quantize_awq",
    "quantize_gptq",
    "save_compressed",
    "size_in_bytes",
]
