"""A model of billions of weights read straight into four bits, a matrix at a time.

The float model is never in memory: what it takes is the packed model and one matrix more.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from scratchbook.compression.layers import PackedWeight, layout, replace_layers
from scratchbook.compression.quantize import Scheme, quantize_scales
from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.weights.reading import open_weights

UNPACKED = ("token_embedding", "lm_head")  # stay as they are, as in QLoRA
AT_ONCE = 1 << 20  # numbers packed in one go
BYTES_AT_WORK = 24  # for each of them: two copies as floats, and its code twice as int64


def load_quantized(name_or_path: str | Path, kind: str = "nf4",
                   group_size: int | str | None = None, double: bool = True,
                   skip: Collection[str] = UNPACKED, dtype: torch.dtype = torch.float32,
                   revision: str | None = None) -> DecoderLM:
    """Read a folder or a name on the hub into packed layers, never the whole model in floats.

    The result equals `quantize(load_pretrained(name, dtype), kind, ...)`, bit for bit. Layers
    named in `skip` stay, and so does what shares a weight with them, in `dtype`.

    Raises:   as `load_pretrained`; ValueError for a matrix that cannot be quantized, or a name
              in `skip` that is not there
    Paper:    Dettmers et al. (2023), arXiv:2305.14314, section 3
    Chapter:  chapters/08_lora.ipynb
    """
    scheme = Scheme(kind, group_size, True, double)
    with open_weights(name_or_path, revision) as weights:
        model = weights.empty_model()
        layers, kept, packed = packed_layers(model, skip), {}, {}
        for name, tensor in weights.read(model, dtype):
            path, _, part = name.rpartition(".")
            if part == "weight" and path in layers:
                packed[path] = _pack(path, tensor, scheme)
            else:
                kept[name] = tensor.clone()  # it may still lie in the file
            del tensor
    replace_layers(model, layers, lambda name, _: (packed[name], None))
    model.load_state_dict(kept, assign=True, strict=False)
    if model.config.tie_embeddings and "lm_head" not in layers:
        model.lm_head.weight = model.token_embedding.weight
    if empty := [name for name, tensor in model.state_dict().items() if tensor.is_meta]:
        raise ValueError(f"{empty[0]} and {len(empty) - 1} more tensors were not in the files")
    return model.requires_grad_(False).eval()


def packed_layers(model: nn.Module, skip: Collection[str] = UNPACKED) -> dict[str, nn.Module]:
    """The linear layers and embeddings that `load_quantized` packs, by path.

    Raises:   ValueError for a name in `skip` that is not there
    """
    skip = (skip,) if isinstance(skip, str) else skip
    layers = {name: module for name, module in model.named_modules(remove_duplicate=False)
              if type(module) in (nn.Linear, nn.Embedding)}
    kept = set()
    for wanted in skip:
        found = {id(m.weight) for name, m in layers.items() if f".{wanted}." in f".{name}."}
        if not found:
            raise ValueError(f"skip={wanted!r} names no layer; there are {', '.join(layers)[:300]}")
        kept |= found
    return {name: layer for name, layer in layers.items() if id(layer.weight) not in kept}


def _pack(path: str, weight: Tensor, scheme: Scheme) -> PackedWeight:
    """A matrix packed some rows at a time, so that only their copies are in memory."""
    single = Scheme(scheme.kind, scheme.group_size, scheme.symmetric)
    rows = max(1, AT_ONCE // weight.shape[1]) if scheme.group_size != "tensor" else len(weight)
    try:
        parts = [dict(PackedWeight.of(piece, single).named_buffers())
                 for piece in weight.split(rows)]
    except ValueError as error:
        raise ValueError(f"{path}: {error}; or skip it") from None
    names = [name for name in parts[0] if name != "like"]
    buffers = {name: torch.cat([part.pop(name) for part in parts]) for name in names}
    if scheme.double:
        found = quantize_scales(buffers.pop("scales"))
        buffers |= dict(zip(("scale_codes", "scale_absmax", "scale_mean"), found, strict=True))
    return PackedWeight(scheme, weight.shape, weight.dtype, **buffers)


def loading_bytes(config: ModelConfig, kind: str = "nf4", group_size: int | str | None = None,
                  double: bool = True, skip: Collection[str] = UNPACKED,
                  dtype: torch.dtype = torch.float32, file_bytes: int = 2) -> dict[str, int]:
    """What `load_quantized` holds at most, before it begins: the model, and one matrix more.

    `file_bytes` is the width of a number in the files. Beside the packed model there is at times
    a matrix as the file has it, its copy in `dtype`, and what packing some rows takes.

    Shapes:   -> {"model": bytes, "at work": bytes, "peak": bytes}; Python, torch and what the
              allocator keeps of freed memory (glibc: up to 64 MB) excluded
    Raises:   ValueError as `load_quantized` does
    Chapter:  chapters/08_lora.ipynb
    """
    with torch.device("meta"):
        model = DecoderLM(config)
    scheme, layers = Scheme(kind, group_size, True, double), packed_layers(model, skip)
    wide = torch.empty(0, dtype=dtype).element_size()
    copy = wide if wide != file_bytes else 0
    held, work = 0, 0
    for name, shape in _shapes(model):
        size, (path, _, part) = math.prod(shape), name.rpartition(".")
        if part == "weight" and path in layers:
            packed = packed_bytes(scheme, shape)
            work = max(work, (file_bytes + copy) * size + packed
                       + min(size, AT_ONCE) * BYTES_AT_WORK)
            held += packed
        else:
            held += wide * size
            work = max(work, (file_bytes + copy) * size)
    return {"model": held, "at work": work, "peak": held + work}


def packed_bytes(scheme: Scheme, shape: tuple[int, int]) -> int:
    """Bytes of one packed matrix, its scales included."""
    return sum(math.prod(size) * torch.empty(0, dtype=dtype).element_size()
               for dtype, size in layout(scheme, shape).values())


def _shapes(model: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of a model, once."""
    yield from ((name, tuple(tensor.shape)) for name, tensor in model.named_parameters())
