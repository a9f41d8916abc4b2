"""Weights with many zeros on the disk: one bit for each place, then the values that stay.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from scratchbook.compression.files import check_plain, digest, read_tensors
from scratchbook.config import ModelConfig, RopeSettings
from scratchbook.model import DecoderLM
from scratchbook.runtime import write_atomically

FORMAT = "scratchbook-sparse-1"
BITMAP, VALUES = ".bitmap", ".values"


def sparse_bytes(weight: Tensor) -> int:
    """The bytes of a bitmap and of the values that are not zero.

    With b bits a value this is less than the dense matrix where more than one value in b is
    zero: 3.1 % zeros pay in float32, 6.3 % in float16, 12.5 % in int8. Two of four kept cost a
    bit for each place too: the hardware's format names each of two by two bits.

    Chapter:  chapters/07_compression.ipynb
    """
    return -(-weight.numel() // 8) + int((weight != 0).sum()) * weight.element_size()


def pack_sparse(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix as its bitmap and its values, in order of rows.

    Shapes:   weight (...) -> bitmap (ceil(numel / 8),) uint8, values (number that is not zero,)
    Chapter:  chapters/07_compression.ipynb
    """
    flat = weight.detach().cpu().flatten()
    return torch.from_numpy(np.packbits((flat != 0).numpy())), flat[flat != 0]


def unpack_sparse(bitmap: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo `pack_sparse`.

    Raises:   ValueError when bitmap, values and shape do not belong together
    Chapter:  chapters/07_compression.ipynb
    """
    size = int(np.prod(shape))
    if bitmap.dtype != torch.uint8 or bitmap.dim() != 1 or values.dim() != 1:
        raise ValueError(f"a bitmap is a row of uint8 and values are a row, not {bitmap.dtype} of "
                         f"shape {tuple(bitmap.shape)} and {tuple(values.shape)}")
    bits = np.unpackbits(bitmap.numpy())
    if len(bitmap) != -(-size // 8) or bits[:size].sum() != len(values) or bits[size:].any():
        raise ValueError(f"a bitmap of {len(bitmap)} bytes with {int(bits.sum())} bits set does "
                         f"not describe {len(values)} values of a weight {tuple(shape)}")
    flat = torch.zeros(size, dtype=values.dtype)
    flat[torch.from_numpy(bits[:size]).bool()] = values
    return flat.view(shape)


def save_sparse(model: DecoderLM, path: str | Path) -> Path:
    """Write a model into one safetensors file, each tensor sparse or dense, whichever is smaller.

    Raises:   ValueError when the model is not what its config says
    Chapter:  chapters/07_compression.ipynb
    """
    check_plain(model)
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_embeddings:
            continue
        if sparse_bytes(tensor) < tensor.numel() * tensor.element_size():
            tensors[name + BITMAP], tensors[name + VALUES] = pack_sparse(tensor)
        else:
            tensors[name] = tensor.detach().cpu().contiguous()
    config = json.dumps(asdict(model.config))
    metadata = {"format": FORMAT, "config": config, "sha256": digest(tensors, config)}
    return write_atomically(path, save(tensors, metadata))


def load_sparse(path: str | Path) -> DecoderLM:
    """The model that `save_sparse` wrote, dense in memory, in eval mode.

    Raises:   ValueError naming the file when it is damaged or none of `save_sparse`
    Chapter:  chapters/07_compression.ipynb
    """
    tensors, metadata = read_tensors(Path(path))
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by save_sparse: its format is "
                         f"{metadata.get('format')!r}, not {FORMAT!r}; load_pretrained reads "
                         "folders of models")
    if metadata.get("sha256") != digest(tensors, metadata.get("config", "")):
        raise ValueError(f"{path} has changed since it was written: write or fetch it again")
    try:
        entries = json.loads(metadata["config"])
        config = ModelConfig(**entries | {"rope": RopeSettings(**entries["rope"])})
        if config.num_layers > len(tensors):
            raise ValueError(f"{config.num_layers} layers in {len(tensors)} tensors")
        with torch.device("meta"):
            model = DecoderLM(config)
        state = {name: _dense(tensors, name, tuple(weight.shape))
                 for name, weight in model.state_dict().items()
                 if name != "lm_head.weight" or not config.tie_embeddings}
        if more := {name.removesuffix(BITMAP).removesuffix(VALUES) for name in tensors} - {*state}:
            raise ValueError(f"{min(more)} is no tensor of it")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold the model that it describes: {error}") from None
    if config.tie_embeddings:
        state["lm_head.weight"] = state["token_embedding.weight"]
    model.load_state_dict(state, assign=True)
    if config.tie_embeddings:
        model.lm_head.weight = model.token_embedding.weight
    return model.eval()


def _dense(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    if name in tensors:
        if tensors[name].shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, not {shape}")
        return tensors[name]
    return unpack_sparse(tensors[name + BITMAP], tensors[name + VALUES], shape)
