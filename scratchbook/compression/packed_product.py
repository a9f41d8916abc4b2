"""The product of a few vectors with a packed matrix, at the speed at which memory hands it over.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from scratchbook.fast_decoding import compile_library

MOST_ROWS = 32  # with more of them unpacking the matrix once is the cheaper way
LANES = 32  # codes that are unpacked side by side


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | str:
    """The compiled product, made in seconds when it is first wanted; else the reason against it."""
    try:
        made = compile_library(Path(__file__).with_suffix(".cpp"))
    except (RuntimeError, OSError) as error:
        return str(error)
    made.multiply_packed.argtypes = [*[ctypes.c_int] * 2, *[ctypes.c_void_p] * 7,
                                     *[ctypes.c_long] * 3]
    made.multiply_packed.restype = None
    return made


def multiply(x: Tensor, codes: Tensor, table: Tensor | None, scales: Tensor, zeros: Tensor | None,
             bias: Tensor | None) -> Tensor | None:
    """x times the transpose of a packed matrix, plus the bias; None where that cannot be.

    It can be for up to 32 rows on a CPU, without gradients, in groups that 32 divides. Sums
    are kept in float32 and rounded once.

    Shapes:   x (..., columns), codes (rows, bytes), table (16,), scales and zeros
              (rows, groups) -> (..., rows)
    """
    height, width = codes.shape[0], x.shape[-1]
    rows, half = x.numel() // width, codes.dtype == torch.uint8
    group = width // scales.shape[1]
    if (torch.is_grad_enabled() or torch.compiler.is_compiling() or not 0 < rows <= MOST_ROWS
            or group % LANES or not x.is_cpu or not codes.is_cpu
            or isinstance(library(), str)):
        return None
    wide, out = x.float().contiguous(), torch.empty(*x.shape[:-1], height)
    bias = None if bias is None else bias.float().contiguous()
    scales = scales.expand(height, -1).contiguous()
    zeros = None if zeros is None else zeros.expand(height, -1).contiguous()
    places = [None if tensor is None else tensor.data_ptr()
              for tensor in (codes, table, scales, zeros, bias, wide, out)]
    library().multiply_packed(half, rows, *places, height, width, group)
    return out.to(x.dtype)
