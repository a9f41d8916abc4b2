"""The bytes of a fine-tuning step, part by part: what adapting saves, and what it does not.

Weights stay, or shrink to a quarter of their bits. Gradients and the optimizer's state are needed
for what learns alone. What the backward pass needs of the forward pass shrinks least: a frozen
matrix needs no input of its own, but gradients pass through it all the same.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.compression.layers import size_in_bytes
from scratchbook.config import GATED, ModelConfig
from scratchbook.finetuning.lora import lora_layers
from scratchbook.model import DecoderLM

FLOAT = 4  # bytes; what is saved is float32 but for ids and masks


def saved_bytes(config: ModelConfig, batch: int, seq_len: int,
                ranks: Mapping[str, int] | None = None, dropout: float = 0.0) -> int:
    """What autograd keeps between forward and backward pass, in float32 with torch's attention.

    `ranks` says which layers have a LoRA adapter, by path ("blocks.0.attention.q_proj"); None is
    full fine-tuning. `dropout` is the adapters' own. A packed base (QLoRA) keeps as much as a
    frozen one in floats: its matrices are unpacked again for their gradient.

    Chapter:  chapters/08_lora.ipynb
    """
    full, tokens = ranks is None, batch * seq_len
    flows = full  # whether the stream that a block reads has a gradient
    total = 2 * 8 * tokens  # the ids that are read, and those that are predicted
    for number in range(config.num_layers):
        prefix = f"blocks.{number}."
        own = {path.rsplit(".", 1)[1]: rank for path, rank in (ranks or {}).items()
               if path.startswith(prefix)}
        size, flows = _block(config, seq_len, flows, None if full else own, dropout)
        total += tokens * FLOAT * size + (_fixed(config, seq_len) if size else 0)
    # what the last norm read and gave, and the logarithms of all probabilities
    total += tokens * FLOAT * (_norm(config, config.d_model, flows, full, full)
                               + config.vocab_size)
    return total


def _fixed(config: ModelConfig, seq_len: int) -> int:
    """Of each block whatever the batch: who may look at whom, and the turns of rotary places."""
    turns = 2 * config.head_dim * FLOAT * seq_len if config.positions == "rope" else 0
    return FLOAT * seq_len**2 + seq_len + turns


def _norm(config: ModelConfig, width: int, flows: bool, full: bool, read: bool) -> int:
    """Numbers a token: what it read, what its gain multiplied, what a learner behind it reads."""
    if config.norm == "none":
        return width * read
    gained = full and config.norm != "rms_no_gain"
    return (width + 1) * flows + width * gained + width * read


def _block(config: ModelConfig, seq_len: int, flows: bool, own: Mapping[str, int] | None,
           dropout: float) -> tuple[int, bool]:
    """Numbers a token that one block keeps, and whether what it writes has a gradient."""
    full, own = own is None, own or {}
    d, inner = config.d_model, config.num_heads * config.head_dim

    def inputs(flows: bool, *names: str) -> tuple[bool, int]:
        """Whether the layers keep their common input, and what their adapters keep besides."""
        found = [own[name] for name in names if name in own]
        thin = sum(found)
        if dropout and found:  # each keeps a copy with holes and, where needed, their pattern
            return full, thin + (1 + flows) * len(found) * _width(config, names[0])
        return full or bool(found), thin

    read, thin = inputs(flows, "q_proj", "k_proj", "v_proj")
    attended = flows or bool(own.keys() & {"q_proj", "k_proj", "v_proj"})
    size = _norm(config, d, flows, full, read) + thin
    if attended:  # queries, keys and values for every head, what was mixed, one sum a head
        size += 4 * inner + config.num_heads
        if config.qk_norm:
            gained = full and config.norm != "rms_no_gain"
            size += (1 + gained) * (inner + config.num_kv_heads * config.head_dim)
    read, thin = inputs(attended, "o_proj")
    size += inner * read + thin
    flows = attended or "o_proj" in own
    read, thin = inputs(flows, "gate_proj", "up_proj")
    size += _norm(config, d, flows, full, read) + thin
    learns = flows or bool(own.keys() & {"gate_proj", "up_proj"})
    size += (3 if config.feedforward in GATED else 1) * config.d_ff * learns
    read, thin = inputs(learns, "down_proj")
    size += config.d_ff * read + thin
    return size, learns or "down_proj" in own


def _width(config: ModelConfig, name: str) -> int:
    return {"down_proj": config.d_ff,
            "o_proj": config.num_heads * config.head_dim}.get(name, config.d_model)


def measured_saved_bytes(model: nn.Module, ids: Tensor, targets: Tensor) -> int:
    """Measure what a forward pass and its loss keep for the backward pass; weights excluded.

    Every tensor that autograd saves counts once, however many operations need it.

    Shapes:   ids and targets (batch, time)
    Chapter:  chapters/08_lora.ipynb
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor  # held, so that no address is used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(ids).float()
        F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def step_bytes(model: DecoderLM, batch: int, seq_len: int) -> dict[str, int]:
    """Bytes of weights, gradients, AdamW's state and saved tensors of a step of this model.

    Methods other than LoRA are counted as if every input were kept: an upper bound.

    Chapter:  chapters/08_lora.ipynb
    """
    learned = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    layers = {path: layer.adapter for path, layer in lora_layers(model).items()
              if layer.adapter is not None}
    ranks = {path: adapter.lora_rank for path, adapter in layers.items()} or None
    dropout = max((adapter.dropout.p for adapter in layers.values()), default=0.0)
    return {"weights": size_in_bytes(model), "gradients": learned, "optimizer": 2 * learned,
            "saved": saved_bytes(model.config, batch, seq_len, ranks, dropout)}
