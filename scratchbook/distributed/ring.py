"""Collectives written out: every rank speaks to its two neighbours alone.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def ring_all_reduce(tensor: Tensor) -> int:
    """Replace `tensor` on every rank by the sum over all ranks; returns the bytes this rank sent.

    Reduce-scatter, then all-gather: each rank sends 2 (ranks - 1) / ranks of the tensor, however
    many ranks there are. Each sum is made once and copied, so all ranks end with the same bits.

    Shapes:   tensor (...), contiguous, changed in place
    Raises:   ValueError for a tensor that is not contiguous
    Paper:    Patarasu and Yuan (2009), "Bandwidth optimal all-reduce algorithms for clusters of
              workstations"
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    if not tensor.is_contiguous():
        raise ValueError(f"the tensor of shape {tuple(tensor.shape)} is not contiguous: pass "
                         "tensor.contiguous(), or the result would land in a copy")
    ranks = dist.get_world_size()
    flat = tensor.detach().view(-1)
    padded = torch.cat([flat, flat.new_zeros(-len(flat) % ranks)])  # to a multiple of the ranks
    chunks = padded.view(ranks, -1)  # (ranks, size)
    sent = ring_reduce_scatter(chunks)
    sent += ring_all_gather(chunks)
    flat.copy_(padded[: len(flat)])
    return sent


def ring_reduce_scatter(chunks: Tensor) -> int:
    """Sum over all ranks, so that rank r ends with the whole of chunk r; returns bytes sent.

    A partial sum travels round: each rank adds its own part and passes it on.

    Shapes:   chunks (ranks, size), changed in place; of the others partial sums remain
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    rank, ranks = _place(chunks)
    arriving, sent = torch.empty_like(chunks[0]), 0
    for step in range(ranks - 1):
        sent += _pass_on(chunks[(rank - step - 1) % ranks], arriving)
        chunks[(rank - step - 2) % ranks] += arriving
    return sent


def ring_all_gather(chunks: Tensor) -> int:
    """Give every rank all chunks, where rank r begins with chunk r; returns bytes sent.

    Shapes:   chunks (ranks, size), changed in place
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    rank, ranks = _place(chunks)
    sent = 0
    for step in range(ranks - 1):
        sent += _pass_on(chunks[(rank - step) % ranks], chunks[(rank - step - 1) % ranks])
    return sent


def begin_alike(tensors: Iterable[Tensor]) -> None:
    """Give every rank the numbers of rank 0, all of one type in a single broadcast.

    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor.detach())
    for group in by_type.values():
        row = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.broadcast(row, src=0)
        for tensor, piece in zip(group, row.split([t.numel() for t in group]), strict=True):
            tensor.copy_(piece.view_as(tensor))


def _place(chunks: Tensor) -> tuple[int, int]:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if len(chunks) != ranks:
        raise ValueError(f"{len(chunks)} chunks for {ranks} ranks: one for each")
    return rank, ranks


def _pass_on(outgoing: Tensor, arriving: Tensor) -> int:
    """Send to the right while receiving from the left; returns the bytes sent."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    both = [dist.P2POp(dist.isend, outgoing, (rank + 1) % ranks),
            dist.P2POp(dist.irecv, arriving, (rank - 1) % ranks)]
    for work in dist.batch_isend_irecv(both):
        work.wait()
    return outgoing.numel() * outgoing.element_size()
