"""What one training run is told, as one frozen table.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scratchbook.runtime import refuses_old_names

SCHEDULES = ("constant", "cosine", "linear", "wsd")
PRECISIONS = ("fp32", "bf16", "fp16")
LARGEST_SEED = 2**40  # a step's own seed is a million times as large, and has 64 bits


@dataclass(frozen=True)
class TrainConfig:
    """How to train: length, batch, optimizer, schedule, precision, and what to keep.

    `batch_size` rows make one step, read in `grad_accum_steps` micro-batches: that changes
    memory and nothing else. `lr` belongs to the optimizer named; under "muon" it is the rate of
    the matrices inside the blocks, and `adamw_lr` that of everything else. `warmup_steps` rise
    to the full rate; "wsd" keeps it until the last `cooldown_frac` of the run; the rate ends at
    `min_lr_ratio` times `lr`. `patience` evaluations without a better loss end the run.

    Raises:   ValueError naming the field that makes no sense
    Chapter:  chapters/06_training.ipynb
    """

    max_steps: int = 1000
    batch_size: int = 16
    grad_accum_steps: int = 1
    optimizer: str = "adamw"
    lr: float = 1e-3
    adamw_lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    schedule: str = "cosine"
    warmup_steps: int = 0
    cooldown_frac: float = 0.2
    min_lr_ratio: float = 0.0
    max_grad_norm: float | None = 1.0
    precision: str = "fp32"
    activation_checkpointing: bool = False  # less memory, a second forward pass
    compile: bool = False
    eval_every: int = 100
    checkpoint_every: int = 500
    keep_last: int = 2
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "grad_accum_steps", "eval_every",
                     "checkpoint_every", "keep_last", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("lr", "adamw_lr", "max_grad_norm"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a number above 0")
        self._check_shares()
        if self.grad_accum_steps > self.batch_size:
            raise ValueError(f"batch_size={self.batch_size} rows cannot be cut into "
                             f"grad_accum_steps={self.grad_accum_steps} micro-batches")
        for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of "
                                 f"{', '.join(known)}")
        if not 0 <= self.warmup_steps < self.max_steps:
            raise ValueError(f"warmup_steps={self.warmup_steps} is not within 0..max_steps="
                             f"{self.max_steps}")

    def _check_shares(self) -> None:
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas} must be two numbers from 0 to below 1")
        for name in ("cooldown_frac", "min_lr_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not within 0..1")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay={self.weight_decay} must be a number from 0")
        if abs(self.seed) >= LARGEST_SEED:
            raise ValueError(f"seed={self.seed} is too large: take one below {LARGEST_SEED}")


TrainConfig.__init__ = refuses_old_names(TrainConfig.__init__)
