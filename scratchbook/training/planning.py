"""What a run will cost before it starts: tokens, operations, hours, and the batch that fits.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from scratchbook.accounting import forward_flops, total_parameters
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.training.loop import train
from scratchbook.training.memory import training_bytes
from scratchbook.training.recipes import Recipe


@dataclass(frozen=True)
class Plan:
    """One run in numbers: parameters, tokens read, operations, and bytes of a step by part."""

    parameters: int
    tokens: int
    flops: float
    memory: dict[str, int]

    def hours(self, flops_per_second: float) -> float:
        """How long it takes where so many operations are sustained every second."""
        return self.flops / flops_per_second / 3600


def training_flops_per_token(config: ModelConfig, seq_len: int) -> float:
    """Operations to train on one token in windows of `seq_len`: forward, and twice that backward.

    For models whose matrices outweigh the rest, six for each parameter.

    Paper:    Kaplan et al. (2020), arXiv:2001.08361, section 2.1
    Chapter:  chapters/06_training.ipynb
    """
    return 3 * sum(forward_flops(config, seq_len).values()) / seq_len


def plan(recipe: Recipe) -> Plan:
    """Count a whole run from its recipe; nothing is built.

    Raises:   ValueError for an unknown optimizer
    Chapter:  chapters/06_training.ipynb
    """
    config, seq_len = recipe.train, recipe.data.seq_len
    tokens = config.max_steps * config.batch_size * seq_len
    return Plan(total_parameters(recipe.model), tokens,
                tokens * training_flops_per_token(recipe.model, seq_len),
                training_bytes(recipe.model, config.batch_size, seq_len, config.optimizer,
                               config.precision, config.grad_accum_steps,
                               config.activation_checkpointing))


def largest_batch(config: ModelConfig, seq_len: int, size: int, optimizer: str = "adamw",
                  precision: str = "fp32", activation_checkpointing: bool = False) -> int:
    """The most rows of `seq_len` tokens that a step holds in `size` bytes; 0 when not even one.

    Chapter:  chapters/06_training.ipynb
    """
    def needed(rows: int) -> int:
        return sum(training_bytes(config, rows, seq_len, optimizer, precision,
                                  activation_checkpointing=activation_checkpointing).values())

    fixed, row = needed(0), needed(1) - needed(0)
    return max(0, (size - fixed) // row)


def measured_speed(recipe: Recipe, steps: int = 3) -> float:
    """Tokens per CPU second of the recipe's own steps on this machine, on random ids.

    Chapter:  chapters/06_training.ipynb
    """
    seq_len, generator = recipe.data.seq_len, torch.Generator().manual_seed(0)
    ids = torch.randint(recipe.model.vocab_size, (20 * seq_len,), generator=generator)
    config = replace(recipe.train, max_steps=steps + 1, warmup_steps=0, eval_every=10**9,
                     checkpoint_every=10**9, patience=None)
    log = train(recipe.build_model(), Windows(ids, ids[: seq_len + 1], seq_len), config).log
    found = [entry for entry in log if "cpu_seconds" in entry]
    spent = found[-1]["cpu_seconds"] - found[0]["cpu_seconds"]  # the first step warms up
    return (found[-1]["tokens"] - found[0]["tokens"]) / spent
