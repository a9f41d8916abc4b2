"""How many bytes a training step needs, part by part, from the config alone.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

from scratchbook.accounting import total_parameters
from scratchbook.config import GATED, ModelConfig

STATES = {"adamw": 2.0, "lion": 1.0, "muon": 1.0, "sgd": 0.0}  # numbers kept for each weight


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
    norms = 4 * d if config.norm != "none" else 2 * d  # what each norm gave, twice: once as input
    attention = 2 * inner + 2 * shared + config.num_heads * seq_len + inner
    hidden = (4 if config.feedforward in GATED else 2) * config.d_ff
    layer = tokens * (norms + attention + hidden)
    ends = tokens * (2 * d + 2 * config.vocab_size)  # final norm, logits and their softmax
    if activation_checkpointing:
        return ends + config.num_layers * tokens * d + layer
    return ends + config.num_layers * layer


def training_bytes(config: ModelConfig, batch: int, seq_len: int, optimizer: str = "adamw",
                   precision: str = "fp32", grad_accum_steps: int = 1,
                   activation_checkpointing: bool = False) -> dict[str, int]:
    """Bytes of weights, gradients, optimizer state and activations of one step.

    Raises:   ValueError for an optimizer whose state is not known here
    Chapter:  chapters/06_training.ipynb
    """
    if optimizer not in STATES:
        raise ValueError(f"optimizer={optimizer!r}: known are {', '.join(STATES)}")
    weights = total_parameters(config)
    rows = -(-batch // grad_accum_steps)
    size = 4 if precision == "fp32" else 2
    kept = activation_numbers(config, rows, seq_len, activation_checkpointing)
    return {"weights": 4 * weights, "gradients": 4 * weights,
            "optimizer": int(4 * STATES[optimizer] * weights),
            "activations": size * kept}
