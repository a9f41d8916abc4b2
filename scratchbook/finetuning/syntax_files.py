"""An adapter gated by token classes in a file of its own, for its base and its tokenizer.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors.torch import save

from scratchbook.compression.files import digest, read_tensors
from scratchbook.finetuning.adapters import base_hashes
from scratchbook.finetuning.lora import chosen_layers, lora_layers
from scratchbook.finetuning.low_rank import shape_of
from scratchbook.finetuning.syntax_aware import ClassGatedLowRank, apply_syntax_lora
from scratchbook.finetuning.token_classes import CLASSES
from scratchbook.model import DecoderLM
from scratchbook.runtime import write_atomically
from scratchbook.tokenizers.base import Tokenizer

FORMAT, VERSION = "scratchbook syntax adapter", 1
PARTS = ("lora_A", "lora_B")
ENTRIES = {"classes", "groups", "lora_alpha", "dropout", "targets", "base", "tokenizer"}


def save_syntax_lora(model: DecoderLM, path: str | Path, name: str = "syntax") -> Path:
    """Write one gated adapter alone, with hashes of its base, its tokenizer and itself.

    Raises:   ValueError when the model holds no gated adapter of that name, or another is merged
    Chapter:  chapters/08_lora.ipynb
    """
    held = {place: layer.adapters[name] for place, layer in lora_layers(model).items()
            if name in layer.adapters}
    if not held or not all(isinstance(each, ClassGatedLowRank) for each in held.values()):
        raise ValueError(f"the model holds no gated adapter {name!r}: apply_syntax_lora makes one; "
                         "plain LoRA is saved by save_adapter")
    if any(layer.kept is not None for layer in lora_layers(model).values()):
        raise ValueError("an adapter is merged into the model: unmerge(model) first")
    tensors = {f"{place}.{part}": getattr(each, part).detach().cpu().contiguous()
               for place, each in held.items() for part in PARTS}
    first = next(iter(held.values()))
    plan = {"format": FORMAT, "version": VERSION, "classes": CLASSES, "groups": first.groups,
            "lora_alpha": first.lora_alpha, "dropout": first.dropout.p, "targets": list(held),
            "base": base_hashes(model), "tokenizer": _tokens_hash(first.tokens.tokenizer)}
    text = json.dumps(plan)
    return write_atomically(path, save(tensors, {"plan": text, "sha256": digest(tensors, text)}))


def load_syntax_lora(model: DecoderLM, tokenizer: Tokenizer, path: str | Path,
                     name: str = "syntax", any_base: bool = False) -> DecoderLM:
    """Put a saved adapter beside the layers that it belongs to, in place; it can learn on.

    `any_base` allows weights other than those that it was learned on, never another tokenizer.

    Raises:   FileNotFoundError, or ValueError for a file that is damaged, foreign, or belongs to
              another base or tokenizer; the model is unchanged then
    Chapter:  chapters/08_lora.ipynb
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    try:
        plan = json.loads(metadata["plan"])
        known = (plan["format"] == FORMAT and plan["version"] == VERSION
                 and plan.keys() >= ENTRIES and isinstance(plan["groups"], dict))
    except (KeyError, TypeError, ValueError):
        known = False
    if not known or tuple(plan["classes"]) != CLASSES:
        raise ValueError(f"{path} was not written by this package's save_syntax_lora")
    if digest(tensors, metadata["plan"]) != metadata.get("sha256"):
        raise ValueError(f"{path} has changed since it was written: copy it again")
    if _tokens_hash(tokenizer) != plan["tokenizer"]:
        raise ValueError(f"{path} was learned with another tokenizer, whose tokens have other "
                         "classes: load the one that was saved beside its base")
    if not any_base and base_hashes(model) != plan["base"]:
        raise ValueError(f"{path} was learned on other weights than those of this model: load its "
                         "base, or pass any_base=True if the two are near (the base quantized)")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise ValueError(f"{path}: its numbers are not finite")
    rank = sum(plan["groups"].values())
    for place, layer in chosen_layers(model, plan["targets"]).items():
        rows, columns = shape_of(layer)
        found = [tuple(tensors[f"{place}.{part}"].shape) for part in PARTS]
        if found != [(rank, columns), (rows, rank)]:
            raise ValueError(f"{path}: {place} has matrices of {found}, this model's layer is of "
                             f"{(rows, columns)}: load its base")
    apply_syntax_lora(model, tokenizer, plan["groups"], plan["targets"], plan["lora_alpha"],
                      plan["dropout"], name)
    for place, layer in lora_layers(model).items():
        if name in layer.adapters:
            for part in PARTS:
                getattr(layer.adapters[name], part).data.copy_(tensors[f"{place}.{part}"])
    return model


def _tokens_hash(tokenizer: Tokenizer) -> str:
    """A hash of the bytes of every token."""
    found = hashlib.sha256()
    for token_id in range(tokenizer.vocab_size):
        token = tokenizer.token_bytes(token_id)
        found.update(len(token).to_bytes(4, "big") + token)
    return found.hexdigest()
