"""A quantized model's file without what is predictable in it: codes near zero are the most.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import lzma
import tempfile
from pathlib import Path

from torch import nn

from scratchbook.compression.saving import load_compressed, save_compressed
from scratchbook.runtime import write_atomically


def save_squeezed(model: nn.Module, path: str | Path) -> Path:
    """Write what `save_compressed` writes, packed by the LZMA of the standard library.

    A code of four bits takes as many bits as it surprises: few where one scale serves a whole
    row or matrix, so that most codes are near zero, almost four where it serves 32 weights.

    Raises:   ValueError as `save_compressed` does
    Chapter:  chapters/07_compression.ipynb
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = save_compressed(model, Path(folder) / "model.safetensors").read_bytes()
    window = 1 << max(12, (len(plain) - 1).bit_length())  # a larger one only costs memory
    how = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window,
           "lc": 0, "lp": 0, "pb": 0}  # a byte of codes says nothing about the next one
    return write_atomically(path, lzma.compress(plain, lzma.FORMAT_XZ, filters=[how]))


def load_squeezed(path: str | Path) -> nn.Module:
    """Build the model that a file of `save_squeezed` holds; it comes in eval mode.

    Raises:   FileNotFoundError, or ValueError naming the file that is damaged or foreign
    Chapter:  chapters/07_compression.ipynb
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    try:
        plain = lzma.decompress(path.read_bytes(), lzma.FORMAT_XZ)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path} was not written by save_squeezed, or is cut short ({error}): "
                         "copy it again; files of save_compressed are read by load_compressed"
                         ) from None
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / f"{path.name}.safetensors"
        inside.write_bytes(plain)
        return load_compressed(inside)
