"""What a method has learned, in a safetensors file of its own, for the base that it belongs to.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from scratchbook.compression.files import digest, read_tensors
from scratchbook.finetuning.budget import METHODS
from scratchbook.finetuning.methods import blocks_of
from scratchbook.model import DecoderLM
from scratchbook.runtime import write_atomically

FORMAT, VERSION = "scratchbook adaptation", 1
_WRAPPED = re.compile(r"\b(base|base_layer)\.")


def save_adaptation(model: DecoderLM, path: str | Path) -> Path:
    """Write the parameters that learn, how they were put there, and a hash of the base.

    Raises:   ValueError when no method of this package adapts the model, or more than it put
              there learns
    Chapter:  chapters/08_lora.ipynb
    """
    adaptation = getattr(model, "adaptation", None)
    if adaptation is None or adaptation["method"] not in METHODS:
        raise ValueError("no method adapts this model: call ia3, prefix, bottleneck or bitfit "
                         "first; LoRA is saved by save_adapter")
    tensors = {name: parameter.detach().cpu().contiguous()
               for name, parameter in model.named_parameters() if parameter.requires_grad}
    rooms = _rooms(path, model, adaptation["method"], adaptation["options"])
    if rooms != _shapes(tensors):
        raise ValueError(f"other parameters learn than those that {adaptation['method']} put there "
                         f"({len(tensors)} instead of {len(rooms)}): freeze them, or adapt a fresh "
                         "copy of the base by one method alone")
    plan = {"format": FORMAT, "version": VERSION, "base": base_hash(model, tensors)} | adaptation
    text = json.dumps(plan)
    return write_atomically(path, save(tensors, {"plan": text, "sha256": digest(tensors, text)}))


def load_adaptation(model: DecoderLM, path: str | Path, any_base: bool = False) -> DecoderLM:
    """Adapt a fresh base, in place, as the saved one was; the adaptation can learn on.

    `any_base` allows weights other than those that it was learned on, such as the same model
    quantized; sizes must fit all the same.

    Raises:   FileNotFoundError, or ValueError for a file that is damaged, foreign, or belongs to
              another base; the model is unchanged then
    Chapter:  chapters/08_lora.ipynb
    """
    path = Path(path)
    blocks_of(model)
    tensors, metadata = read_tensors(path)
    plan = _plan(path, metadata)
    if digest(tensors, metadata["plan"]) != metadata.get("sha256"):
        raise ValueError(f"{path} has changed since it was written: copy it again")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise ValueError(f"{path}: its numbers are not finite")
    method, options = plan["method"], plan["options"]
    if not any_base and base_hash(model, tensors) != plan["base"]:
        raise ValueError(f"{path} was learned on other weights than those of this model: load its "
                         "base, or pass any_base=True if the two are near (the base quantized)")
    wanted = _rooms(path, model, method, options)
    found = _shapes(tensors)
    if wrong := sorted(n for n in wanted | found if wanted.get(n) != found.get(n)):
        raise ValueError(f"{path}: {wrong[0]} has shape {found.get(wrong[0])}, this model has room "
                         f"for {wanted.get(wrong[0])}: load the base that it was learned on")
    METHODS[method](model, **options)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(tensors[name])
    return model


def _rooms(path: str | Path, model: DecoderLM, method: str, options: dict
           ) -> dict[str, tuple[int, ...]]:
    """The shapes that the method would learn on this model, found out on an empty twin."""
    with torch.device("meta"):
        twin = DecoderLM(model.config)
    try:
        METHODS[method](twin, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot adapt this model: {error}") from None
    return _shapes({name: parameter for name, parameter in twin.named_parameters()
                    if parameter.requires_grad})


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def base_hash(model: nn.Module, learned: Collection[str]) -> str:
    """A hash of all that does not learn, the same with and without wrappers around it."""
    learned = {_WRAPPED.sub("", name) for name in learned}
    state = {_WRAPPED.sub("", name): tensor for name, tensor in model.state_dict().items()}
    return digest({name: tensor for name, tensor in state.items() if name not in learned})


def _plan(path: Path, metadata: dict[str, str]) -> dict:
    try:
        plan = json.loads(metadata["plan"])
        known = (plan["format"] == FORMAT and plan["method"] in METHODS
                 and {"version", "base"} <= plan.keys() and isinstance(plan["options"], dict))
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise ValueError(f"{path} was not written by save_adaptation; a folder with "
                         "adapter_config.json is read by load_adapter")
    if plan["version"] != VERSION:
        raise ValueError(f"{path} is of version {plan['version']}, this package reads {VERSION}: "
                         "use the package that wrote it, or a newer one")
    return plan
