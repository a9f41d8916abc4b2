"""A quantized model in one safetensors file, from which it comes back without its old weights.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from scratchbook.compression.files import digest, read_tensors
from scratchbook.compression.layers import (
    PackedWeight,
    QuantizedEmbedding,
    QuantizedLinear,
    matrix_of,
)
from scratchbook.compression.quantize import Scheme
from scratchbook.config import ModelConfig, RopeSettings
from scratchbook.model import DecoderLM, EncoderModel
from scratchbook.runtime import write_atomically

FORMAT, VERSION = "scratchbook compressed model", 1
MODELS = {"DecoderLM": DecoderLM, "EncoderModel": EncoderModel}


def save_compressed(model: nn.Module, path: str | Path) -> Path:
    """Write a model with packed layers, and how to build it, into one file.

    What layers share is written once. A hash over names, types, shapes, numbers and the plan
    goes with it.

    Raises:   ValueError when no layer of the model is quantized, or a tensor is on the meta device
    Chapter:  chapters/07_compression.ipynb
    """
    tensors, shared = _once(model.state_dict())
    layers = {name: _describe(layer) for name, layer in model.named_modules()
              if isinstance(layer, QuantizedLinear | QuantizedEmbedding)}
    ours = type(model).__name__ in MODELS
    plan = {"format": FORMAT, "version": VERSION, "model": type(model).__name__,
            "config": asdict(model.config) if ours else None, "shared": shared, "layers": layers}
    if not layers:
        raise ValueError(f"no layer of this {type(model).__name__} is quantized: call `quantize` "
                         "first, or save it by save_pretrained")
    if any(tensor.is_meta for tensor in tensors.values()):
        raise ValueError("a tensor of the model is on the meta device: it has no numbers to save")
    text = json.dumps(plan)
    return write_atomically(path, save(tensors, {"plan": text, "sha256": digest(tensors, text)}))


def load_compressed(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Build the model that a file of `save_compressed` describes; it comes in eval mode.

    Only packed weights are ever in memory. For a model of another library, give one that was
    built from its own config; its layers are replaced.

    Raises:   FileNotFoundError, or ValueError naming the file that is damaged, foreign, of a
              newer version, or for another model than the given one
    Chapter:  chapters/07_compression.ipynb
    """
    path = Path(path)
    tensors, plan = _read(path)
    try:
        model = _skeleton(plan) if model is None else model
        if type(model).__name__ != plan["model"]:
            raise ValueError(f"it holds a {plan['model']}, the given one is a "
                             f"{type(model).__name__}")
        tensors |= {name: tensors[first] for name, first in plan["shared"].items()}
        packed: dict[Any, PackedWeight] = {}
        for name, entry in plan["layers"].items():
            _install(model, name, entry, tensors, packed)
        _fill(model, tensors)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be loaded: {error}") from error
    return model.eval()


def _once(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor under its first name, and the first name of all other ones."""
    first: dict[Any, str] = {}
    shared = {name: first.setdefault((tensor.data_ptr() or name, tensor.shape), name)
              for name, tensor in state.items()}
    return ({name: state[name].detach().cpu().contiguous() for name in first.values()},
            {name: other for name, other in shared.items() if name != other})


def _describe(layer: QuantizedLinear | QuantizedEmbedding) -> dict[str, Any]:
    packed = layer.packed
    return {"embedding": isinstance(layer, QuantizedEmbedding), "scheme": asdict(packed.scheme),
            "shape": packed.shape, "dtype": str(packed.like.dtype).removeprefix("torch.")}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, metadata = read_tensors(path)
    try:
        plan = json.loads(metadata["plan"])
        known = plan["format"] == FORMAT
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise ValueError(f"{path} was not written by save_compressed; a folder with config.json "
                         "is read by load_pretrained")
    if plan["version"] != VERSION:
        raise ValueError(f"{path} is of version {plan['version']}, this package reads {VERSION}: "
                         "use the package that wrote it, or a newer one")
    if digest(tensors, metadata["plan"]) != metadata.get("sha256"):
        raise ValueError(f"{path} has changed since it was written: copy it again")
    return tensors, plan


def _skeleton(plan: dict[str, Any]) -> nn.Module:
    if plan["config"] is None:
        raise ValueError(f"it holds a {plan['model']}: build one from its config and give it as "
                         "`model`")
    entries = plan["config"]
    with torch.device("meta"):
        return MODELS[plan["model"]](
            ModelConfig(**entries | {"rope": RopeSettings(**entries["rope"])}))


def _install(model: nn.Module, name: str, entry: dict[str, Any], tensors: dict[str, Tensor],
             packed: dict[Any, PackedWeight]) -> None:
    """Put one packed layer into the model; layers with the same codes get the same one."""
    prefix = f"{name}.packed."
    buffers = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()
               if key.startswith(prefix)}
    dtype = getattr(torch, entry["dtype"])
    key = id(buffers["codes"])
    if key not in packed:
        packed[key] = PackedWeight(Scheme(**entry["scheme"]), entry["shape"], dtype, **buffers)
    parent, _, child = name.rpartition(".")
    old = model.get_submodule(name)
    if tuple(matrix_of(old).shape) != packed[key].shape:
        raise ValueError(f"{name} is of shape {tuple(matrix_of(old).shape)} in the given model and "
                         f"of {packed[key].shape} in the file")
    new = QuantizedEmbedding(packed[key]) if entry["embedding"] else QuantizedLinear(
        packed[key], old.bias, tensors.get(f"{name}.input_scale"))
    setattr(model.get_submodule(parent), child, new)


def _fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give the layers that are not packed their tensors."""
    found = model.state_dict()
    wrong = sorted(found.keys() ^ tensors.keys()) or [
        name for name in found if found[name].shape != tensors[name].shape]
    if wrong:
        raise ValueError(f"{wrong[0]} and {len(wrong) - 1} more tensors are not those of this "
                         "model")
    model.load_state_dict(tensors, assign=True)
    empty = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()]
             if tensor.is_meta]
    if empty:
        raise ValueError(f"{empty[0]} is on the meta device and not in the file: build the model "
                         "on the CPU")
