"""What every file of a compressed model needs: its hash, how it is read, what it may describe.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scratchbook.model import DecoderLM


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, and what stands beside them.

    Raises:   FileNotFoundError, or ValueError naming the file when it is none of safetensors
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} ({path.stat().st_size:,} bytes) is cut short or no safetensors "
                         f"file ({error}); copy it again") from None


def digest(tensors: dict[str, Tensor], text: str = "") -> str:
    """A hash of names, types, shapes and numbers, and of a text beside them."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_plain(model: DecoderLM) -> None:
    """Refuse a model that its config does not describe: wrapped, quantized, or none of ours.

    Raises:   ValueError naming the first tensor that is missing, foreign or of another shape
    """
    if not isinstance(model, DecoderLM):
        raise ValueError(f"{type(model).__name__} is no DecoderLM: load_pretrained makes one of "
                         "the weights of most families")
    with torch.device("meta"):
        expected = {n: tuple(t.shape) for n, t in DecoderLM(model.config).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if wrong := sorted(n for n in expected | found if expected.get(n) != found.get(n)):
        raise ValueError(f"{wrong[0]} and {len(wrong) - 1} more tensors are not what the model's "
                         "config says: merge adapters and dequantize layers first")
