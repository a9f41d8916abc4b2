"""ZeRO: what data parallel ranks hold twice, each holds a share of instead.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scratchbook.distributed.ring import begin_alike
from scratchbook.training.checkpoint import load_newest, save_checkpoint
from scratchbook.training.optim import Optimizer, build_optimizer, state_bytes

# torch renamed them in 2.13
all_gather_into = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter_into = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
ELEMENTWISE = ("adamw", "lion")  # rules that step every number by itself


class Flat:
    """The parameters of one layer as one row of numbers, of which every rank owns a shard."""

    def __init__(self, parameters: list[nn.Parameter]):
        self.rank, ranks = dist.get_rank(), dist.get_world_size()
        self.parameters = parameters
        count = sum(p.numel() for p in parameters)
        self.chunk = -(-count // ranks)
        self.full = parameters[0].data.new_zeros(self.chunk * ranks)
        self.bytes = self.full.untyped_storage().nbytes()
        self.missing = len(parameters)  # gradients that this backward pass has not made yet
        self.put([p.data for p in parameters])
        self.shard = nn.Parameter(self.own(self.full))  # a view, until `keep_shard_alone`
        self._look()

    def own(self, full: Tensor) -> Tensor:
        """This rank's shard of a row: (ranks · chunk,) -> (chunk,)."""
        return full[self.rank * self.chunk : (self.rank + 1) * self.chunk]

    def cut(self, full: Tensor) -> list[Tensor]:
        """A row as tensors of the parameters' shapes."""
        pieces = full[: sum(p.numel() for p in self.parameters)].split(
            [p.numel() for p in self.parameters])
        return [piece.view(p.shape) for piece, p in zip(pieces, self.parameters, strict=True)]

    def put(self, values: list[Tensor]) -> None:
        """Write tensors of the parameters' shapes into the row."""
        self.full[: sum(p.numel() for p in self.parameters)] = torch.cat(
            [value.reshape(-1) for value in values])

    def _look(self) -> None:
        for p, piece in zip(self.parameters, self.cut(self.full), strict=True):
            p.data = piece

    def gather(self) -> None:
        """Fill the row from all ranks' shards.

        The row keeps its place in memory, so tensors that autograd saved are whole again too.
        """
        if self.full.untyped_storage().nbytes() == 0:
            self.full.untyped_storage().resize_(self.bytes)
        all_gather_into(self.full, self.shard.detach().clone())

    def keep_shard_alone(self) -> None:
        """Give the row's memory back; the shard stays."""
        if self.shard.untyped_storage().data_ptr() == self.full.untyped_storage().data_ptr():
            self.shard.data = self.shard.data.clone()
        self.full.untyped_storage().resize_(0)

    def gradients(self, share: float) -> Tensor:
        """All gradients as a padded row, weighed. Shapes: -> (ranks · chunk,)"""
        row = torch.cat([p.grad.reshape(-1) for p in self.parameters]) * share
        return torch.cat([row, row.new_zeros(self.chunk * dist.get_world_size() - len(row))])


class Zero:
    """Data parallel training that divides what it holds among the ranks.

    stage 1: the optimizer's state; 2: the gradients too, each summed where it is owned as soon
    as its layer has them; 3: the weights too, which a layer fetches before it runs, forwards and
    backwards, and drops after. What is outside of `blocks` stays whole for the length of a step.

    Use: `zero.zero_grad()`, `loss.backward()`, `zero.step()`. `share` weighs this rank's
    gradients; options go to `build_optimizer`.

    Raises:   ValueError for another stage, or an optimizer that steps whole matrices
    Paper:    Rajbhandari et al. (2019), arXiv:1910.02054, section 5
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """

    def __init__(self, model: nn.Module, stage: int, optimizer: str = "adamw", **options: Any):
        if stage not in (1, 2, 3):
            raise ValueError(f"stage={stage} must be 1, 2 or 3")
        if optimizer not in ELEMENTWISE:
            raise ValueError(f"optimizer={optimizer!r} steps whole matrices, and a shard is a "
                             f"piece of one: use one of {', '.join(ELEMENTWISE)}")
        self.model, self.stage, self.share = model, stage, 1 / dist.get_world_size()
        self.most_held = 0  # bytes, at the fullest moment since `zero_grad`
        begin_alike([*model.parameters(), *model.buffers()])
        whole = build_optimizer(model, optimizer, **options)
        self.whole_groups = whole.state_dict()["param_groups"]
        self.number = {p: number for number, p in enumerate(
            p for group in whole.param_groups for p in group["params"])}
        layer_of = {p: _layer(name) for name, p in model.named_parameters()}
        self.layers: dict[str, list[Flat]] = {}
        self.groups: list[list[Flat]] = []
        for group in whole.param_groups:
            by_layer: dict[str, list[nn.Parameter]] = {}
            for p in group["params"]:
                by_layer.setdefault(layer_of[p], []).append(p)
            self.groups.append([Flat(parameters) for parameters in by_layer.values()])
            for layer, flat in zip(by_layer, self.groups[-1], strict=True):
                self.layers.setdefault(layer, []).append(flat)
        self.flats = [flat for flats in self.groups for flat in flats]
        self.optimizer = Optimizer(
            [{**group, "params": [flat.shard for flat in flats]}
             for group, flats in zip(whole.param_groups, self.groups, strict=True)])
        self._hook()

    @property
    def param_groups(self) -> list[dict]:
        """The optimizer's groups, whose "lr" a schedule may set."""
        return self.optimizer.param_groups

    def _hook(self) -> None:
        for flat in self.flats:
            for p in flat.parameters:
                p.register_post_accumulate_grad_hook(lambda _, flat=flat: self._arrived(flat))
        if self.stage < 3:
            return
        for layer, flats in self.layers.items():
            module = self.model.get_submodule(layer)
            fetch, drop = self._fetch(flats), self._drop(flats, root=not layer)
            module.register_forward_pre_hook(fetch)
            module.register_forward_hook(drop)
            if layer:  # the rest is still whole then
                module.register_full_backward_pre_hook(fetch)
            for flat in flats:
                flat.keep_shard_alone()

    def _fetch(self, flats: list[Flat]):
        def fetch(*_: object) -> None:
            for flat in flats:
                flat.gather()
            self._look_at_memory()
        return fetch

    def _drop(self, flats: list[Flat], root: bool):
        def drop(*_: object) -> None:
            for flat in flats if not (root and torch.is_grad_enabled()) else []:
                flat.keep_shard_alone()
        return drop

    def _arrived(self, flat: Flat) -> None:
        """One more gradient is there; a layer's last one sends them off (stages 2 and 3)."""
        self._look_at_memory()
        flat.missing -= 1
        if flat.missing or self.stage == 1:
            return
        self._reduce(flat)
        if self.stage == 3:
            flat.keep_shard_alone()

    def _reduce(self, flat: Flat) -> None:
        """Sum the gradients over the ranks; stage 1 keeps them all, the others their shard's."""
        row = flat.gradients(self.share)
        for p in flat.parameters:
            p.grad = None
        if self.stage == 1:
            dist.all_reduce(row)
            total = flat.own(row)  # a view: the row stays
        else:
            total = torch.empty_like(flat.shard)
            reduce_scatter_into(total, row)
            if flat.shard.grad is not None:  # of an earlier part of the batch
                total += flat.shard.grad
        flat.shard.grad, flat.missing = total, len(flat.parameters)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.most_held = 0
        for flat in self.flats:
            flat.missing, flat.shard.grad = len(flat.parameters), None
            for p in flat.parameters:
                p.grad = None

    @torch.no_grad()
    def step(self, max_grad_norm: float | None = None) -> float:
        """Sum what is not yet summed, clip, step the own shards, and tell the others.

        Returns the norm of all gradients, whose squares the ranks add up shard by shard.
        """
        for flat in self.flats if self.stage == 1 else []:
            if all(p.grad is not None for p in flat.parameters):
                self._reduce(flat)
        if any(flat.shard.grad is None for flat in self.flats):
            raise ValueError("a weight got no gradient from the backward pass: freeze what the "
                             "loss does not use (requires_grad_(False))")
        squares = torch.stack([flat.shard.grad.square().sum() for flat in self.flats]).sum()
        dist.all_reduce(squares)
        norm = squares.sqrt()
        if max_grad_norm is not None and norm > max_grad_norm:
            for flat in self.flats:
                flat.shard.grad *= max_grad_norm / (norm + 1e-6)  # as torch clips
        self.optimizer.step()
        for flat in self.flats if self.stage < 3 else []:
            flat.gather()
        self._look_at_memory()
        return float(norm)

    def held(self) -> dict[str, int]:
        """Bytes that this rank holds right now, each piece of memory counted once."""
        return held_bytes(self.model, [flat.shard for flat in self.flats], self.optimizer)

    def _look_at_memory(self) -> None:
        self.most_held = max(self.most_held, sum(self.held().values()))

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within the block every rank's model has all its weights, as tensors of their own.

        What the block does to them stays. All ranks must enter it.
        """
        for flat in self.flats:
            flat.gather()
            for p in flat.parameters:
                p.data = p.data.clone()
        try:
            yield
        finally:
            for flat in self.flats:
                flat.put([p.data for p in flat.parameters])
                flat.shard.data.copy_(flat.own(flat.full))
                flat._look()
                if self.stage == 3:
                    flat.keep_shard_alone()

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state as one process would have it; all ranks must ask."""
        state: dict[int, dict] = {}
        for flat in self.flats:
            for name, value in self.optimizer.state[flat.shard].items():
                pieces = [value] * len(flat.parameters)
                if isinstance(value, Tensor):
                    full = value.new_empty(flat.chunk * dist.get_world_size())
                    all_gather_into(full, value)
                    pieces = flat.cut(full)
                for p, piece in zip(flat.parameters, pieces, strict=True):
                    state.setdefault(self.number[p], {})[name] = piece
        groups = [{**group, "lr": now["lr"]} for group, now in
                  zip(self.whole_groups, self.param_groups, strict=True)]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, whole: dict[str, Any]) -> None:
        """Take this rank's shard of a whole state, whoever wrote it."""
        for flat in self.flats:
            entries = [whole["state"].get(self.number[p], {}) for p in flat.parameters]
            own = self.optimizer.state[flat.shard]
            for name, value in entries[0].items():
                own[name] = value
                if isinstance(value, Tensor):
                    row = torch.cat([entry[name].reshape(-1) for entry in entries])
                    full = row.new_zeros(flat.chunk * dist.get_world_size())
                    full[: len(row)] = row
                    own[name] = flat.own(full).to(flat.shard).clone()
        for group, saved in zip(self.param_groups, whole["param_groups"], strict=True):
            group["lr"] = saved["lr"]


def _layer(name: str) -> str:
    """The module that a parameter is fetched with: its block, or the model for all else."""
    found = re.match(r"blocks\.\d+", name)
    return found[0] if found else ""


def held_bytes(model: nn.Module, extra: list[nn.Parameter], optimizer: torch.optim.Optimizer
               ) -> dict[str, int]:
    """Bytes of parameters, gradients and optimizer state, each piece of memory counted once.

    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    parameters = [*model.parameters(), *extra]
    gradients = [p.grad for p in parameters if p.grad is not None]
    return {"parameters": _distinct(parameters), "gradients": _distinct(gradients),
            "optimizer": state_bytes(optimizer)}


def _distinct(tensors: list[Tensor]) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def zero_bytes(parameters: int, ranks: int, stage: int, itemsize: int = 4) -> dict[str, float]:
    """What a rank holds after a backward pass under AdamW, by the formula; stage 0 is plain.

    Paper:    Rajbhandari et al. (2019), arXiv:1910.02054, figure 1
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    whole, share = parameters * itemsize, parameters * itemsize / ranks
    return {"parameters": share if stage >= 3 else whole,
            "gradients": share if stage >= 2 else whole,
            "optimizer": 2 * (share if stage >= 1 else whole)}


def save_sharded(zero: Zero, run: Path, step: int, state: dict[str, Any]) -> None:
    """Write a checkpoint that one process, or another number of ranks, can go on with.

    Rank 0 writes; all ranks must call, and return when the file is there.

    Raises:   CheckpointError on rank 0 when the disk refuses
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    with zero.whole():
        whole = zero.state_dict()
        if dist.get_rank() == 0:
            save_checkpoint(run, step, zero.model, _Written(whole), state)
    dist.barrier()


def load_sharded(zero: Zero, run: Path) -> dict[str, Any] | None:
    """Fill model and shards from the newest whole checkpoint; None where there is none.

    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    with zero.whole():
        return load_newest(run, zero.model, zero)


class _Written:
    """A state that is there already, in an optimizer's place."""

    def __init__(self, state: dict[str, Any]):
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state
