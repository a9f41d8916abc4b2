"""How many bytes a training step needs, part by part, from the config alone.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from scratchbook.accounting import total_parameters
from scratchbook.config import GATED, ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.training.optim import DEFAULTS, build_optimizer


def activation_numbers(config: ModelConfig, batch: int, seq_len: int,
                       activation_checkpointing: bool = False) -> int:
    """How many numbers the forward pass keeps for the backward pass.

    For each token of a layer: the inputs of its matrices, what the norms kept, queries, keys and
    values, and the attention weights of every head; with `activation_checkpointing` the layer's
    input alone, and one layer in full while it is run again.

    Chapter:  chapters/06_training.ipynb
    """
    tokens, d, inner = batch * seq_len, config.d_model, config.num_heads * config.head_dim
    shared = config.num_kv_heads * config.head_dim
    # of each norm what it read and what it gave; with a gain, also what the gain multiplied
    per_norm = {"none": 1, "rms_no_gain": 2}.get(config.norm, 3)
    norms = 2 * per_norm * d
    attention = 2 * inner + 2 * shared + config.num_heads * seq_len + inner
    attention += inner + shared if config.qk_norm else 0  # what their norms read
    hidden = (4 if config.feedforward in GATED else 2) * config.d_ff
    layer = tokens * (norms + attention + hidden)
    ends = tokens * (per_norm * d + 2 * config.vocab_size)  # final norm, logits and their softmax
    if activation_checkpointing:
        return ends + config.num_layers * tokens * d + layer
    return ends + config.num_layers * layer


def state_numbers(config: ModelConfig, optimizer: str) -> int:
    """How many numbers an optimizer keeps beside the weights of a whole model.

    Raises:   ValueError for an unknown optimizer
    Chapter:  chapters/06_training.ipynb
    """
    with torch.device("meta"):  # shapes alone: nothing is allocated
        groups = build_optimizer(DecoderLM(config), optimizer).param_groups
    return sum(_kept(group["rule"], tuple(parameter.shape))
               for group in groups for parameter in group["params"])


def _kept(rule: str, shape: tuple[int, ...]) -> int:
    size = math.prod(shape)
    if rule == "galore":  # two means as small as the projection, and the directions themselves
        short, long = sorted(shape)
        return min(DEFAULTS["galore_rank"], short) * (2 * long + short)
    if rule == "adafactor" and len(shape) >= 2:  # one number for each row, one for each column
        return size // shape[-1] + size // shape[-2]
    return {"adamw": 2, "lion": 1, "muon": 1, "adafactor": 1}[rule] * size


def training_bytes(config: ModelConfig, batch: int, seq_len: int, optimizer: str = "adamw",
                   precision: str = "fp32", grad_accum_steps: int = 1,
                   activation_checkpointing: bool = False) -> dict[str, int]:
    """Bytes of weights, gradients, optimizer state and activations of one step.

    Raises:   ValueError for an unknown optimizer
    Chapter:  chapters/06_training.ipynb
    """
    weights = total_parameters(config)
    rows = -(-batch // grad_accum_steps)
    size = 4 if precision == "fp32" else 2
    kept = activation_numbers(config, rows, seq_len, activation_checkpointing)
    return {"weights": 4 * weights, "gradients": 4 * weights,
            "optimizer": 4 * state_numbers(config, optimizer),
            "activations": size * kept}


def kept_bytes(model: nn.Module, ids: Tensor, autocast: Callable = nullcontext) -> int:
    """Measure what a forward pass keeps for the backward pass, the model's own weights excluded.

    Every tensor that autograd saves is counted once, however many operations need it.

    Shapes:   ids (batch, time)
    Chapter:  chapters/06_training.ipynb
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address is reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast():
        logits = model(ids)
        torch.logsumexp(logits.float(), dim=-1).sum()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
