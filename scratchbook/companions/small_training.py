"""The training loop of chapter 02, kept for the chapters that use it before chapter 06 explains it.

Every experiment of the middle chapters trains tiny models on text that each reader already has;
this file holds what they share, so that no chapter writes it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.runtime import named_generator


def train(model: nn.Module, make_batch: Callable, steps: int, seed: int, lr: float,
          max_grad_norm: float | None = None, decay: bool = False) -> list[float]:
    """Train with AdamW and return the loss in nats of every step.

    `make_batch(generator)` returns (ids, targets); a target of -100 is ignored. With `decay`
    the learning rate falls to zero along a line. A loss that is not finite ends the run, and
    the list with it: what follows would teach nothing.
    """
    generator, losses = named_generator(seed, "training"), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps if decay else 1)
        ids, targets = make_batch(generator)
        loss = F.cross_entropy(model(ids).transpose(1, 2), targets)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        optimizer.zero_grad()
        loss.backward()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        optimizer.step()
    return losses


def byte_ids(text: str) -> Tensor:
    """The UTF-8 bytes of a text: ids from 0 to 255, so that nats per id are nats per byte."""
    return torch.tensor(list(text.encode("utf-8")))


def windows(ids: Tensor, seq_len: int, size: int) -> Callable:
    """A `make_batch` that draws `size` windows of `seq_len` ids, each with the ids that follow."""
    if len(ids) <= seq_len:
        raise ValueError(f"{len(ids)} ids are too few for windows of {seq_len} and their targets")

    def make_batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(ids) - seq_len, (size, 1), generator=generator)
        places = starts + torch.arange(seq_len + 1)  # (size, time + 1)
        batch = ids[places]
        return batch[:, :-1], batch[:, 1:]

    return make_batch


@torch.no_grad()
def bits_per_byte(model: nn.Module, ids: Tensor, seq_len: int, limit: int = 16_384) -> float:
    """Mean loss in bits over the first `limit` ids, in windows of `seq_len`; ids are bytes."""
    count = min(limit, len(ids) - 1) // seq_len
    if count < 1:
        raise ValueError(f"{len(ids)} ids are too few for one window of {seq_len}")
    model.eval()
    inputs = ids[: count * seq_len].view(count, seq_len)
    targets = ids[1 : count * seq_len + 1].view(count, seq_len)
    total = 0.0
    for start in range(0, count, 16):
        logits = model(inputs[start : start + 16])
        wanted = targets[start : start + 16]
        total += F.cross_entropy(logits.transpose(1, 2), wanted, reduction="sum").item()
    return total / (count * seq_len) / math.log(2)
