"""Data parallel training: every rank holds the model and reads its own rows of each batch.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scratchbook.data.batches import IGNORED, Batch, Batches
from scratchbook.distributed.ring import begin_alike


class RankBatches:
    """This rank's rows of the batches that one process would read.

    `share` is the part of the last batch's counted targets that stand in these rows: what this
    rank's mean gradient weighs in that of the whole batch. Held-out data stay whole.

    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """

    def __init__(self, data: Batches, rank: int, ranks: int):
        self.data, self.rank, self.ranks = data, rank, ranks
        self.share, self.counted = 1 / ranks, 0
        self.bytes_per_token = getattr(data, "bytes_per_token", None)

    def batch(self, step: int, size: int) -> Batch:
        """Rows of the batch of one step; the ranks draw their dropout apart.

        Raises:   ValueError when a rank has no row, or its rows have no target that counts
        """
        if size % self.ranks:
            raise ValueError(f"a batch of {size} rows does not divide among {self.ranks} ranks: "
                             f"take a multiple of {self.ranks}")
        whole, rows = self.data.batch(step, size), size // self.ranks
        own = whole.part(self.rank * rows, (self.rank + 1) * rows)
        counts = [int((targets != IGNORED).sum()) for targets in (own.targets, whole.targets)]
        if counts[0] == 0:
            raise ValueError(f"step {step}: the {rows} rows of rank {self.rank} hold no target "
                             "that counts; use fewer ranks or larger batches")
        self.share, self.counted = counts[0] / counts[1], counts[1]
        torch.manual_seed(torch.initial_seed() + 7919 * self.rank)
        return own

    def validation(self, size: int) -> Iterator[Batch]:
        """Everything held out: each rank judges the same model by the same text."""
        return self.data.validation(size)

    def fingerprint(self) -> str:
        """That of the whole data: a run may go on with another number of ranks."""
        from scratchbook.training.identity import fingerprint

        return fingerprint(self.data)


@dataclass
class Bucket:
    """Parameters whose gradients travel together."""

    parameters: list[nn.Parameter]
    missing: int = 0  # gradients that this backward pass has not made yet
    flat: Tensor | None = None
    work: dist.Work | None = None


class BucketedGradients:
    """Sums gradients over the ranks while the backward pass is still computing others.

    The last layers' gradients come first, so buckets are filled from the end. A full bucket is
    sent off at once, each in its turn, because all ranks must send the same one. `finish` waits
    and writes the sums back; call it between `backward` and the optimizer's step. After several
    backward passes the result is right too: a sum that is weighed and summed again is itself.

    `share` weighs this rank's gradients: 1 / ranks when every rank counts as many targets.
    `all_reduce` is torch's, or one that takes a tensor and is done when it returns.

    Paper:    Li et al. (2020), "PyTorch distributed", arXiv:2006.15704, section 3.2
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """

    def __init__(self, model: nn.Module, bucket_bytes: int = 25 * 2**20,
                 all_reduce: Callable[[Tensor], object] | None = None):
        self.names = {p: name for name, p in model.named_parameters() if p.requires_grad}
        self.share, self.all_reduce = 1 / dist.get_world_size(), all_reduce
        self.buckets = _fill_buckets(list(self.names), bucket_bytes)
        self.bucket_of = {p: bucket for bucket in self.buckets for p in bucket.parameters}
        self.launched: list[int] = []  # gradients still to come when each bucket was sent off
        self.quiet = False
        begin_alike([*model.parameters(), *model.buffers()])
        for parameter in self.names:
            parameter.register_post_accumulate_grad_hook(self._arrived)
        model.register_forward_pre_hook(lambda *_: self.finish() if self.under_way else None)
        self._begin()

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within the block backward passes only add up here; the first one after it sends all."""
        self.quiet = True
        try:
            yield
        finally:
            self.quiet = False

    def finish(self) -> None:
        """Wait for all buckets and put the sums where the gradients were.

        Raises:   ValueError naming a parameter that the last backward pass did not reach
        """
        for bucket in self.buckets:
            if bucket.work is not None:
                bucket.work.wait()
        late = [p for bucket in self.buckets if bucket.missing for p in bucket.parameters]
        if late:
            self._begin()
            name = next((self.names[p] for p in late if p.grad is None), self.names[late[0]])
            raise ValueError(f"{name} got no gradient from the last backward pass outside of "
                             "no_sync: freeze what the loss does not use (requires_grad_(False))")
        for bucket in self.buckets:
            at = 0
            for p in bucket.parameters:
                p.grad.copy_(bucket.flat[at : at + p.numel()].view_as(p))
                at += p.numel()
        self._begin()

    @property
    def under_way(self) -> bool:
        """Whether gradients have arrived that `finish` has not yet dealt with."""
        return any(bucket.missing < len(bucket.parameters) for bucket in self.buckets)

    def _begin(self) -> None:
        self.next = 0
        for bucket in self.buckets:
            bucket.missing, bucket.flat, bucket.work = len(bucket.parameters), None, None

    def _arrived(self, parameter: nn.Parameter) -> None:
        if self.quiet:
            return
        if not self.under_way:
            self.launched = []
        self.bucket_of[parameter].missing -= 1
        while self.next < len(self.buckets) and self.buckets[self.next].missing == 0:
            self._send(self.buckets[self.next])
            self.next += 1

    def _send(self, bucket: Bucket) -> None:
        self.launched.append(sum(other.missing for other in self.buckets))
        bucket.flat = torch.cat([p.grad.reshape(-1) for p in bucket.parameters]) * self.share
        if self.all_reduce is None:
            bucket.work = dist.all_reduce(bucket.flat, async_op=True)
        else:
            self.all_reduce(bucket.flat)


def _fill_buckets(parameters: list[nn.Parameter], size: int) -> list[Bucket]:
    """From the last parameter to the first; of one type each, and full at `size` bytes."""
    buckets: list[Bucket] = []
    for parameter in reversed(parameters):
        last = buckets[-1].parameters if buckets else []
        held = sum(p.numel() * p.element_size() for p in last)
        if not last or held >= size or last[0].dtype != parameter.dtype:
            buckets.append(Bucket([]))
        buckets[-1].parameters.append(parameter)
    return buckets
