"""Chapter 06f's comparison: one training run, made in many ways on one, two or four processes.

    python -m scratchbook.companions.distributed_ways

records all of them on two and on four processes, about two minutes on two cores.
`run_ranks(train_way, 2, "ZeRO-3")` runs one; the names are in `OURS` and `TORCHS`.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.config import ModelConfig
from scratchbook.data.batches import Batch, Windows
from scratchbook.distributed.data_parallel import BucketedGradients, RankBatches
from scratchbook.distributed.pipeline import Stage, add_tied_gradients, gpipe_gradients
from scratchbook.distributed.processes import run_ranks
from scratchbook.distributed.ring import ring_all_reduce
from scratchbook.distributed.tensor_parallel import tensor_parallel, whole_weights
from scratchbook.distributed.zero import Zero, held_bytes, load_sharded, save_sharded
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator
from scratchbook.teaching.results import record
from scratchbook.training.optim import build_optimizer

SIZES = ModelConfig(64, 16, num_layers=4, d_model=32, num_heads=4, tie_embeddings=True)
ROWS, STEPS, OPTIONS = 8, 20, {"lr": 3e-3, "weight_decay": 0.1}
OURS = ("DDP", "DDP over the ring", "ZeRO-1", "ZeRO-2", "ZeRO-3", "tensor parallel", "GPipe")
TORCHS = ("torch DDP", "torch FSDP2", "torch DTensor", "torch GPipe")


def same_model(sizes: ModelConfig = SIZES, dtype: torch.dtype = torch.float64) -> DecoderLM:
    """The model that every way begins with, the same in every process."""
    torch.manual_seed(0)
    return DecoderLM(sizes).to(dtype)


def same_batches(sizes: ModelConfig = SIZES) -> Windows:
    """Random ids, the same in every process."""
    ids = torch.randint(sizes.vocab_size, (2000,), generator=named_generator(0, "ids"))
    return Windows(ids, ids[: sizes.max_seq_len + 1], sizes.max_seq_len)


def mean_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy in the model's own type, in nats per token."""
    return F.cross_entropy(model(batch.ids).flatten(0, 1), batch.targets.flatten())


def train_way(way: str, steps: int = STEPS, sizes: ModelConfig = SIZES,
              dtype: torch.dtype = torch.float64, micro_batches: int = 4) -> dict[str, Any]:
    """Train in one way; every rank returns all weights by name, the losses, and bytes held.

    Raises:   ValueError for an unknown way
    """
    model = same_model(sizes, dtype)
    if way in ("GPipe", "torch GPipe"):
        return (_gpipe if way == "GPipe" else _torch_gpipe)(model, steps, micro_batches)
    if way.startswith("ZeRO-"):
        return _zero(model, int(way[-1]), steps)
    if way in ("one process", "tensor parallel", "torch DTensor"):
        return _whole_batches(model, way, steps)
    if way in ("DDP", "DDP over the ring", "torch DDP", "torch FSDP2"):
        return _own_rows(model, way, steps)
    raise ValueError(f"way={way!r} is unknown; choose one of one process, "
                     f"{', '.join(OURS + TORCHS)}")


def train_ways(ways: Sequence[str], **how: Any) -> dict[str, dict[str, Any]]:
    """Several ways, one after the other, in processes that are started once."""
    return {way: train_way(way, **how) for way in ways}


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest distance of any two weights of the same name.

    Raises:   ValueError when the names differ
    """
    if one["weights"].keys() != other["weights"].keys():
        raise ValueError(f"{sorted(one['weights'].keys() ^ other['weights'].keys())[:3]} stand "
                         "in one of the two alone")
    return max(float((value - other["weights"][name]).abs().max())
               for name, value in one["weights"].items())


def go_on(folder: str, stage: int, last: int, rows: int = 12) -> dict[str, Any]:
    """Train under ZeRO from whatever checkpoint lies there to a step, and write the next one."""
    model = same_model()
    data = RankBatches(same_batches(), dist.get_rank(), dist.get_world_size())
    zero = Zero(model, stage, **OPTIONS)
    state = load_sharded(zero, Path(folder))
    began = state["step"] if state else 0
    for step in range(began, last):
        zero.zero_grad()
        mean_loss(model, data.batch(step, rows)).backward()
        zero.step()
    save_sharded(zero, Path(folder), last, {})
    with zero.whole():
        return {"began": began, "weights": {n: p.detach().clone()
                                            for n, p in model.named_parameters()}}


def sum_by_ring(count: int) -> dict[str, Any]:
    """Every rank brings its own numbers; their sum by the ring, by torch, and bytes sent."""
    own = torch.randn(count, generator=named_generator(dist.get_rank(), "ring"))
    theirs = own.clone()
    sent = ring_all_reduce(own)
    dist.all_reduce(theirs)
    return {"sum": own, "torch's": theirs, "sent": sent}


def lose_one(rank: int) -> None:
    """One rank is killed while the others wait for it."""
    if dist.get_rank() == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def record_ways() -> None:
    """Every way on two and four processes beside one, and record how far they are apart."""
    one, found = run_ranks(train_way, 1, "one process")[0], {}
    for nproc in (2, 4):
        ranks = run_ranks(train_ways, nproc, (*OURS, *TORCHS), seconds=600.0)
        found[str(nproc)] = {way: {
            "apart": max(largest_difference(rank[way], one) for rank in ranks),
            "losses apart": max(abs(a - b) for a, b in zip(ranks[0][way]["losses"], one["losses"],
                                                           strict=True)),
            "held": [rank[way]["held"] for rank in ranks]} for way in ranks[0]}
    moved = largest_difference(one, {"weights": _named(same_model())})
    record("06f_scaling_and_distributed.ways", {"processes": found, "moved": moved}, seeds=[0],
           command="python -m scratchbook.companions.distributed_ways")


def _result(weights: dict[str, Tensor], losses: list[float], held: dict[str, int],
            **more: Any) -> dict[str, Any]:
    kept = {name: value.detach().clone() for name, value in weights.items()}
    return {"weights": kept, "losses": losses, "held": held} | more


def _named(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters())


def _average(loss: Tensor) -> float:
    total = loss.detach().clone()
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()


def _whole_batches(model: DecoderLM, way: str, steps: int) -> dict[str, Any]:
    """Every rank reads all rows: one process alone, or matrices that are cut."""
    data = same_batches(model.config)
    if way == "tensor parallel":
        tensor_parallel(model)
    elif way == "torch DTensor":
        _cut_by_dtensor(model)
    theirs = way.startswith("torch")
    optimizer = (_torch_optimizer if theirs else build_optimizer)(model, **OPTIONS)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = mean_loss(model, data.batch(step, ROWS))
        loss.backward()
        held = {} if theirs else held_bytes(model, [], optimizer)
        optimizer.step()
        losses.append(loss.item())
    held = {} if theirs else held_bytes(model, [], optimizer)
    if way == "torch DTensor":
        weights = {name: _full(value) for name, value in model.named_parameters()}
    else:
        weights = whole_weights(model) if way == "tensor parallel" else _named(model)
    return _result(weights, losses, held)


def _own_rows(model: DecoderLM, way: str, steps: int) -> dict[str, Any]:
    """Every rank reads its own rows, and gradients are averaged."""
    data = RankBatches(same_batches(model.config), dist.get_rank(), dist.get_world_size())
    ours, trained = None, model
    if way == "torch DDP":
        trained = nn.parallel.DistributedDataParallel(model)
    elif way == "torch FSDP2":
        _shard_fully(model)
    else:
        reduce = ring_all_reduce if way == "DDP over the ring" else None
        ours = BucketedGradients(model, bucket_bytes=128 * 1024, all_reduce=reduce)
    optimizer = (build_optimizer if ours else _torch_optimizer)(model, **OPTIONS)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = mean_loss(trained, data.batch(step, ROWS))
        loss.backward()
        if ours:
            ours.finish()
        optimizer.step()
        losses.append(_average(loss))
    weights = {name: _full(value) for name, value in model.named_parameters()}
    more = {"launched": ours.launched, "parameters": len(ours.names)} if ours else {}
    return _result(weights, losses, held_bytes(model, [], optimizer) if ours else {}, **more)


def _zero(model: DecoderLM, stage: int, steps: int) -> dict[str, Any]:
    data = RankBatches(same_batches(model.config), dist.get_rank(), dist.get_world_size())
    zero, losses = Zero(model, stage, **OPTIONS), []
    for step in range(steps):
        zero.zero_grad()
        loss = mean_loss(model, data.batch(step, ROWS))
        loss.backward()
        zero.step()
        losses.append(_average(loss))
    held, most = zero.held(), zero.most_held
    with zero.whole():
        return _result(_named(model), losses, held, most=most)


def _gpipe(model: DecoderLM, steps: int, micro_batches: int) -> dict[str, Any]:
    data, stage = same_batches(model.config), Stage(model, dist.get_rank(), dist.get_world_size())
    optimizer, losses = build_optimizer(stage, **OPTIONS), []
    for step in range(steps):
        optimizer.zero_grad()
        losses.append(gpipe_gradients(stage, data.batch(step, ROWS), micro_batches))
        optimizer.step()
    return _result(_from_all(_named(stage)), losses, held_bytes(stage, [], optimizer))


def _from_all(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The union of what the ranks hold; of a matrix on two ranks the first's."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, {name: value.detach() for name, value in own.items()})
    union = {name: value for each in reversed(found) for name, value in each.items()}
    if SIZES.tie_embeddings and "token_embedding.weight" in union:
        union.pop("lm_head.weight", None)
    return union


# torch's own ways, beside which ours stand ------------------------------------------------------


def _torch_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """torch's AdamW in the groups of ours: gains do not decay."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": weight_decay},
                              {"params": vectors, "weight_decay": 0.0}], lr=lr, betas=(0.9, 0.95))


def _full(value: Tensor) -> Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _mesh() -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return init_device_mesh(kind, (dist.get_world_size(),))


def _shard_fully(model: DecoderLM) -> None:
    from torch.distributed.fsdp import fully_shard

    mesh = _mesh()
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _cut_by_dtensor(model: DecoderLM) -> None:
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    mesh, ranks = _mesh(), dist.get_world_size()
    plan = {f"attention.{name}": ColwiseParallel() for name in ("q_proj", "k_proj", "v_proj")}
    plan |= {f"feedforward.{name}": ColwiseParallel() for name in ("gate_proj", "up_proj")}
    plan |= {"attention.o_proj": RowwiseParallel(), "feedforward.down_proj": RowwiseParallel()}
    for block in model.blocks:
        block.attention.num_heads //= ranks
        block.attention.num_kv_heads //= ranks
        parallelize_module(block, mesh, plan)


def _torch_gpipe(model: DecoderLM, steps: int, micro_batches: int) -> dict[str, Any]:
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

    rank, ranks, data = dist.get_rank(), dist.get_world_size(), same_batches(model.config)
    stage = Stage(model, rank, ranks)
    piped = PipelineStage(stage, rank, ranks, torch.device("cpu"))
    schedule = ScheduleGPipe(piped, micro_batches, loss_fn=lambda logits, targets: F.cross_entropy(
        logits.flatten(0, 1), targets.flatten()))
    optimizer, losses = _torch_optimizer(stage, **OPTIONS), []
    for step in range(steps):
        optimizer.zero_grad()
        batch, found = data.batch(step, ROWS), []
        schedule.step(*((batch.ids,) if stage.first else ()), target=batch.targets, losses=found)
        add_tied_gradients(stage)  # torch leaves that to its caller
        loss = torch.stack(found).mean().detach() if stage.last else torch.zeros(
            (), dtype=torch.float64)
        dist.broadcast(loss, src=ranks - 1)
        losses.append(loss.item())
        optimizer.step()
    return _result(_from_all(_named(stage)), losses, {})


if __name__ == "__main__":
    torch.set_num_threads(1)
    record_ways()
