"""Pipeline parallelism: every rank holds some of the layers, and micro-batches flow through.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.data.batches import IGNORED, Batch
from scratchbook.model import DecoderLM


class Stage(nn.Module):
    """The layers of one rank: the first also embeds, the last also scores the vocabulary.

    Parameters keep the names that they have in the whole model. Tied embeddings stand on the
    first stage and the last, which add up their gradients.

    Shapes:   ids (batch, time) or x (batch, time, d_model) -> x, or logits (batch, time, vocab)
    Raises:   ValueError for more stages than blocks, or dropout, which would differ by place
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """

    def __init__(self, model: DecoderLM, rank: int, ranks: int):
        super().__init__()
        count = len(model.blocks)
        if not 1 <= ranks <= count:
            raise ValueError(f"{ranks} stages for {count} blocks: each needs one at least")
        if model.config.dropout:
            raise ValueError(f"dropout={model.config.dropout}: a pipeline of micro-batches would "
                             "draw it otherwise than one process; use dropout=0")
        self.config, self.first, self.last = model.config, rank == 0, rank == ranks - 1
        if self.first:
            self.token_embedding, self.positions = model.token_embedding, model.positions
        mine = range(rank * count // ranks, (rank + 1) * count // ranks)
        self.blocks = nn.ModuleDict({str(place): model.blocks[place] for place in mine})
        if self.last:
            self.final_norm, self.lm_head = model.final_norm, model.lm_head

    def forward(self, x: Tensor) -> Tensor:
        """Pass one micro-batch through this rank's layers."""
        positions = torch.arange(x.shape[1], device=x.device)
        if self.first:
            x = self.token_embedding(x)  # (batch, time, d_model)
            x = x if self.positions is None else self.positions(x, positions)
        for block in self.blocks.values():
            x = block(x, None, None, positions)
        return self.lm_head(self.final_norm(x)) if self.last else x


def gpipe_gradients(stage: Stage, batch: Batch, micro_batches: int) -> float:
    """Forward and backward of a batch through all stages; returns its mean loss on every rank.

    All micro-batches go forwards, then all go backwards, the last one first. A stage keeps what
    it computed for each of them until its turn comes back.

    Shapes:   batch: ids and targets (batch, time), the same on every rank
    Raises:   ValueError for rows that do not divide, or a batch without any target
    Paper:    Huang et al. (2018), arXiv:1811.06965, section 2.3
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    counted = int((batch.targets != IGNORED).sum())
    if micro_batches < 1 or len(batch.ids) % micro_batches or counted == 0:
        raise ValueError(f"a batch of {len(batch.ids)} rows with {counted} targets does not "
                         f"divide into {micro_batches} micro-batches")
    if batch.mask is not None:
        raise ValueError("a batch with a mask: between stages only x travels; use Windows")
    rows, rank = len(batch.ids) // micro_batches, dist.get_rank()
    dtype = next(stage.parameters()).dtype
    shape = (rows, batch.ids.shape[1], stage.config.d_model)
    total, kept = torch.zeros((), dtype=dtype, device=batch.ids.device), []
    for part in (batch.part(at, at + rows) for at in range(0, len(batch.ids), rows)):
        if stage.first:
            x = part.ids
        else:
            x = torch.empty(shape, dtype=dtype, device=part.ids.device)
            dist.recv(x, rank - 1)
            x.requires_grad_()
        out = stage(x)
        if stage.last:
            out = F.cross_entropy(out.flatten(0, 1), part.targets.flatten(), reduction="sum",
                                  ignore_index=IGNORED) / counted
            total += out.detach()
        else:
            dist.send(out.detach().contiguous(), rank + 1)
        kept.append((x, out))
    for x, out in reversed(kept):
        gradient = None
        if not stage.last:
            gradient = torch.empty_like(out)
            dist.recv(gradient, rank + 1)
        out.backward(gradient)
        if not stage.first:
            dist.send(x.grad.contiguous(), rank - 1)
    add_tied_gradients(stage)
    dist.broadcast(total, src=dist.get_world_size() - 1)
    return total.item()


def add_tied_gradients(stage: Stage) -> None:
    """Give a matrix that stands on the first and the last stage the sum of both gradients."""
    ranks = dist.get_world_size()
    if not stage.config.tie_embeddings or ranks == 1 or not (stage.first or stage.last):
        return
    weight = (stage.token_embedding if stage.first else stage.lm_head).weight
    other = torch.empty_like(weight)
    peer = ranks - 1 if stage.first else 0
    for work in dist.batch_isend_irecv([dist.P2POp(dist.isend, weight.grad, peer),
                                        dist.P2POp(dist.irecv, other, peer)]):
        work.wait()
    weight.grad += other


class Slot(NamedTuple):
    """One piece of work in a pipeline: which micro-batch, which way, and when it begins."""

    micro_batch: int
    backward: bool
    begins: int


def gpipe_schedule(stages: int, micro_batches: int) -> list[list[Slot]]:
    """When each stage does what, where a piece of work takes one unit of time either way.

    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    if min(stages, micro_batches) < 1:
        raise ValueError(f"stages={stages} and micro_batches={micro_batches} must be at least 1")
    turn = stages + micro_batches - 1  # when the last stage has read the last micro-batch
    return [[Slot(m, False, stage + m) for m in range(micro_batches)]
            + [Slot(m, True, turn + (stages - 1 - stage) + (micro_batches - 1 - m))
               for m in reversed(range(micro_batches))] for stage in range(stages)]


def bubble_share(stages: int, micro_batches: int) -> float:
    """The part of the time in which a stage waits, counted in the schedule.

    Paper:    Huang et al. (2018), arXiv:1811.06965, section 2.3
    """
    schedule = gpipe_schedule(stages, micro_batches)
    length = max(slot.begins for slots in schedule for slot in slots) + 1
    busy = sum(map(len, schedule))
    return 1 - busy / (length * stages)
