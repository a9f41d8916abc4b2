"""Models of which only a part learns: a checkpoint keeps that part, and says what it stands on.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def learned(model: nn.Module, buffers: bool = True) -> dict[str, Tensor]:
    """The parameters that learn, and unless told otherwise the buffers that a model saves."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(model)
            if (tensor.requires_grad if isinstance(tensor, nn.Parameter) else buffers)}


def base_of(model: nn.Module, buffers: bool = True) -> dict[str, str] | None:
    """A hash for each tensor that `learned` leaves out; None where no parameter is frozen."""
    if all(parameter.requires_grad for parameter in model.parameters()):
        return None
    kept = learned(model, buffers)
    return {name: _hash(tensor) for name, tensor in _tensors(model) if name not in kept}


def fill(model: nn.Module, tensors: dict[str, Tensor], base: dict[str, str]) -> None:
    """Put learned tensors into a model that stands on the base they were trained on.

    Raises:   ValueError when the model has other parts, or its base is another
    """
    own = dict(_tensors(model))
    if unknown := sorted(tensors.keys() - own.keys()):
        raise ValueError(f"it keeps {unknown[0]} and {len(unknown) - 1} more for a model that was "
                         "wrapped before it learned: give `wrap`, which does that")
    changed = [name for name, known in base.items()
               if name not in own or _hash(own[name]) != known]
    if changed:
        raise ValueError(f"it was trained on another base: {changed[0]} and {len(changed) - 1} "
                         "more tensors are not what they were. Load that base first")
    model.load_state_dict(tensors, strict=False)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Everything that a model saves, under one name each."""
    yield from model.named_parameters()
    saved = model.state_dict().keys()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in saved)


def _hash(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous()
    found = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}".encode())
    found.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:32]
