"""A run of `scratchbook train` on several ranks: the same loop, folder and checkpoints.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from scratchbook.data.batches import Batch, Batches
from scratchbook.distributed.data_parallel import BucketedGradients, RankBatches
from scratchbook.distributed.processes import RanksFailed
from scratchbook.runtime import keep_freed_memory
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.training import ByteTokenizer, TrainConfig, Trained
from scratchbook.training.logs import Logger
from scratchbook.training.loop import TrainingLoop, accumulate, activation_checkpointing
from scratchbook.training.runs import interrupts_held, open_log


class RankLoop(TrainingLoop):
    """The training loop whose gradients, losses and checkpoints are those of all ranks.

    Each rank judges the held-out text by itself: the weights are the same, so are the losses, and
    all ranks decide alike when to save and when to stop.
    """

    def __init__(self, model: nn.Module, data: Batches, config: TrainConfig, folder: Path | None):
        if config.compile:
            raise ValueError("train.compile: on several ranks the model is not compiled; leave "
                             "it out, or train on one")
        rank, ranks = dist.get_rank(), dist.get_world_size()
        super().__init__(model, RankBatches(data, rank, ranks), config, folder)
        self.sums = BucketedGradients(model)

    def _gradients(self, batch: Batch) -> tuple[float, int]:
        self.optimizer.zero_grad()
        self.sums.share = self.data.share
        loss, _ = accumulate(self.forward, batch, min(self.at.micro_batches, len(batch.ids)),
                             self._autocast, self.scaler.scale)
        self.sums.finish()
        total = torch.tensor(loss * self.data.share, device=self.device, dtype=torch.float32)
        dist.all_reduce(total)
        return total.item(), self.data.counted

    def save(self, is_best: bool = False) -> None:
        """Rank 0 writes; nobody goes on before the file is there."""
        if dist.get_rank() == 0:
            super().save(is_best)
        self.saved = self.at.step
        dist.barrier()


def train_on_ranks(
    model: nn.Module, data: Batches, config: TrainConfig, folder: str | Path | None = None,
    loggers: tuple[Logger, ...] = (), tokenizer: Tokenizer | ByteTokenizer | None = None,
    source: dict[str, Any] | None = None, warm_restart: bool = False,
) -> Trained:
    """Train as `scratchbook.training.train` does, every rank on its rows of each batch.

    All ranks of a process group call it with equal arguments. Rank 0 alone holds the folder, the
    log and the loggers; the others read checkpoints. A folder that one process began, or another
    number of ranks, is gone on with: what lies there does not depend on it.

    Raises:   what `train` raises; ValueError for a batch that does not divide among the ranks;
              RanksFailed when another rank is gone
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    keep_freed_memory()
    first = dist.get_rank() == 0
    place = None if folder is None else Path(folder)
    loop = RankLoop(model, data, config, place)
    with (_lost_ranks_named(),
          open_log(place if first else None, model, data, config, tokenizer if first else None,
                   source, warm_restart) as log,
          interrupts_held() as held, torch.random.fork_rng(devices=[])):
        dist.barrier()  # rank 0 has looked at the folder
        loop.start(log, loggers if first else ())
        with activation_checkpointing(model) if config.activation_checkpointing else nullcontext():
            while loop.at.step < config.max_steps and not loop.out_of_patience:
                loop.step()
                if _any_rank(bool(held), loop.device):
                    break
        done = loop.finish()
    return replace(done, folder=place)


@contextmanager
def _lost_ranks_named() -> Iterator[None]:
    """A collective that broke says so in words; the reason stands with the rank that is gone."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise RanksFailed(f"rank {dist.get_rank()} of {dist.get_world_size()}: another rank is "
                          "gone, and none can go on without it") from error


def _any_rank(flag: bool, device: torch.device) -> bool:
    """Whether it is so on one rank at least: Ctrl-C must not reach them at different steps."""
    count = torch.tensor(int(flag), device=device)
    dist.all_reduce(count)
    return bool(count)
