"""What the ranks of tests/test_distributed.py compute; each process imports it by name."""

import time

import torch
import torch.distributed as dist

from scratchbook.companions.distributed_ways import (
    OPTIONS,
    ROWS,
    SIZES,
    go_on,
    mean_loss,
    same_batches,
    same_model,
)
from scratchbook.config import ModelConfig
from scratchbook.data.batches import IGNORED, Batch, Windows
from scratchbook.distributed.data_parallel import BucketedGradients, RankBatches
from scratchbook.distributed.pipeline import Stage, gpipe_gradients
from scratchbook.distributed.rank_training import train_on_ranks
from scratchbook.distributed.ring import ring_all_gather, ring_all_reduce, ring_reduce_scatter
from scratchbook.distributed.tensor_parallel import tensor_parallel, whole_weights
from scratchbook.distributed.zero import Zero
from scratchbook.model import DecoderLM
from scratchbook.training import TrainConfig, accumulate, train
from scratchbook.training.optim import build_optimizer


def said_by(action) -> str:
    try:
        action()
    except ValueError as error:
        return str(error)
    return "nothing"


def rings() -> dict:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    sums, gathered = {}, torch.zeros(ranks, 3)
    for shape in ((1,), (7,), (3, 5), (0,), (ranks * 4,)):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(rank))
        own = values.clone()
        sent = ring_all_reduce(own)
        theirs = [torch.empty_like(values) for _ in range(ranks)]
        dist.all_gather(theirs, values)
        sums[str(shape)] = {"own": own, "expected": torch.stack(theirs).sum(0), "sent": sent}
    gathered[rank] = rank + 1.0
    chunks = torch.arange(ranks * 2.0).view(ranks, 2) + 100 * rank
    return {"sums": sums, "gathered_sent": ring_all_gather(gathered), "gathered": gathered,
            "scattered_sent": ring_reduce_scatter(chunks), "own chunk": chunks[rank],
            "not contiguous": said_by(lambda: ring_all_reduce(torch.ones(4, 4).T)),
            "wrong chunks": said_by(lambda: ring_all_gather(torch.ones(ranks + 1, 2)))}


class Uneven:
    """Batches whose rows count ever fewer targets."""

    def batch(self, step: int, size: int) -> Batch:
        batch = same_batches().batch(step, size)
        for row in range(size):
            batch.targets[row, : row + 3] = IGNORED
        return batch


def gradients_of(model) -> dict:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def buckets() -> dict:
    """Gradients of one batch: read at once, in micro-batches, under no_sync."""
    found, rank = {}, dist.get_rank()
    model = same_model()
    with torch.no_grad():
        model.final_norm.weight += rank  # rank 0's weights count
    sums = BucketedGradients(model, bucket_bytes=64 * 1024)
    data = RankBatches(Uneven(), rank, dist.get_world_size())
    for name, micro_batches in (("at once", 1), ("in parts", 2)):
        model.zero_grad()
        batch = data.batch(0, ROWS)
        sums.share = data.share
        accumulate(model, batch, micro_batches)
        sums.finish()
        found[name] = gradients_of(model)
    found["counted"], found["share"], found["launched"] = data.counted, data.share, sums.launched
    model.zero_grad()
    batch = data.batch(0, ROWS)
    with sums.no_sync():
        first = batch.part(0, 1)
        (mean_sum(model, first) / counted(batch)).backward()
        found["sent in no_sync"] = sums.under_way
    (mean_sum(model, batch.part(1, ROWS)) / counted(batch)).backward()
    sums.finish()
    found["under no_sync"] = gradients_of(model)
    model.zero_grad()
    model.blocks[0](torch.randn(1, 4, 32, dtype=torch.float64)).sum().backward()
    found["unreached"] = said_by(sums.finish)
    found["ragged"] = said_by(lambda: data.batch(0, 7))
    return found


def counted(batch: Batch) -> int:
    return int((batch.targets != IGNORED).sum())


def mean_sum(model, batch: Batch):
    return torch.nn.functional.cross_entropy(
        model(batch.ids).flatten(0, 1), batch.targets.flatten(), reduction="sum",
        ignore_index=IGNORED)


def clipped(stage: int, steps: int = 4) -> dict:
    """ZeRO with clipping, a falling rate, two parts a step, and a look without gradients."""
    data = RankBatches(same_batches(), dist.get_rank(), dist.get_world_size())
    model = same_model()
    zero, norms, losses = Zero(model, stage, **OPTIONS), [], []
    for step in range(steps):
        zero.zero_grad()
        for group in zero.param_groups:
            group["lr"] = group["initial_lr"] * (1 - step / steps)
        batch = data.batch(step, ROWS)
        half = len(batch.ids) // 2
        for part in (batch.part(0, half), batch.part(half, 2 * half)):
            (mean_loss(model, part) / 2).backward()
        norms.append(zero.step(max_grad_norm=0.5))
        with torch.no_grad():
            losses.append(mean_loss(model, same_batches().batch(step, ROWS)).item())
    held = zero.held()
    with zero.whole():
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    return {"weights": weights, "norms": norms, "losses": losses, "held": held}


def alone(steps: int = 4) -> dict:
    """The same in one process."""
    model = same_model()
    optimizer, norms, losses = build_optimizer(model, **OPTIONS), [], []
    for step in range(steps):
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1 - step / steps)
        batch = same_batches().batch(step, ROWS)
        mean_loss(model, batch).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5).item())
        optimizer.step()
        with torch.no_grad():
            losses.append(mean_loss(model, batch).item())
    return {"weights": {n: p.detach().clone() for n, p in model.named_parameters()},
            "norms": norms, "losses": losses}


def first_step(way: str, sizes: ModelConfig) -> dict:
    """Gradients of the first batch, and the weights after it, for models of other kinds."""
    model, batch = same_model(sizes), same_batches(sizes).batch(0, ROWS)
    if way == "tensor parallel":
        tensor_parallel(model)
        loss = mean_loss(model, batch)
        loss.backward()
        value, trained = loss.item(), model
    else:
        trained = Stage(model, dist.get_rank(), dist.get_world_size())
        value = gpipe_gradients(trained, batch, 2)
    return {"loss": value, "gradients": gradients_of(trained)}


def uneven_pipeline() -> dict:
    """Gradients of rows that count ever fewer targets, in four micro-batches."""
    stage = Stage(same_model(), dist.get_rank(), dist.get_world_size())
    loss = gpipe_gradients(stage, Uneven().batch(0, ROWS), 4)
    return {"loss": loss, "gradients": gradients_of(stage)}


def begun_apart() -> dict:
    """What ranks hold that begin with other weights each: rank 0's count."""
    found = {}
    for way in ("ZeRO-1", "ZeRO-3", "tensor parallel"):
        model = same_model()
        with torch.no_grad():
            for p in model.parameters():
                p += dist.get_rank()
        if way == "tensor parallel":
            found[way] = whole_weights(tensor_parallel(model))
            continue
        with Zero(model, int(way[-1]), **OPTIONS).whole():
            found[way] = {name: p.detach().clone() for name, p in model.named_parameters()}
    return found


def rates_taken_up() -> list[float]:
    """The rates of a state that was written when a schedule had lowered them."""
    first, second = (Zero(same_model(), 2, **OPTIONS) for _ in range(2))
    for group in first.param_groups:
        group["lr"] = 0.125 * OPTIONS["lr"]
    second.load_state_dict(first.state_dict())
    return [group["lr"] / OPTIONS["lr"] for group in second.param_groups]


def refusals() -> dict:
    small = ModelConfig(32, 16, num_layers=1, d_model=32, num_heads=3, head_dim=8)
    batch = same_batches().batch(0, ROWS)
    masked = Batch(batch.ids, batch.targets, torch.ones(1, 1, 16, 16, dtype=torch.bool))
    rank, ranks = dist.get_rank(), dist.get_world_size()
    return {
        "heads": said_by(lambda: tensor_parallel(DecoderLM(small))),
        "bias": said_by(lambda: tensor_parallel(DecoderLM(SIZES.with_(bias="all")))),
        "alibi": said_by(lambda: tensor_parallel(DecoderLM(SIZES.with_(positions="alibi")))),
        "stages": said_by(lambda: Stage(DecoderLM(small), rank, ranks)),
        "dropout": said_by(lambda: Stage(DecoderLM(SIZES.with_(dropout=0.1)), rank, ranks)),
        "micro": said_by(lambda: gpipe_gradients(Stage(same_model(), rank, ranks), batch, 3)),
        "masked": said_by(lambda: gpipe_gradients(Stage(same_model(), rank, ranks), masked, 2)),
        "stage": said_by(lambda: Zero(same_model(), 4)),
        "muon": said_by(lambda: Zero(same_model(), 1, "muon")),
        "no gradient": said_by(Zero(same_model(), 1, **OPTIONS).step),
    }


def run_with_patience(folder: str, ranks_apart: bool = True) -> dict:
    """A run whose held-out loss grows soon: it ends early and takes its best weights back."""
    torch.manual_seed(3)
    model = DecoderLM(SIZES)
    ids = torch.arange(400) % 60
    data = Windows(ids, (7 * torch.arange(200) + 3) % 61, 16)
    config = TrainConfig(max_steps=40, batch_size=8, lr=0.01, eval_every=2, patience=2,
                         grad_accum_steps=4, checkpoint_every=100)
    done = (train_on_ranks if ranks_apart else train)(model, data, config, folder)
    return {"stop_reason": done.stop_reason, "best": done.progress.best_step,
            "step": done.progress.step, "losses": done.losses,
            "weights": {n: p.detach().clone() for n, p in model.named_parameters()}}


def pair(folder: str) -> dict:
    """All that two ranks are asked, in processes that are started once."""
    gqa = SIZES.with_(num_kv_heads=2, qk_norm=True, bias="qkv")
    untied = SIZES.with_(tie_embeddings=False, positions="learned", norm="layer")
    return {"rings": rings(), "buckets": buckets(), "refusals": refusals(),
            "zero": {stage: clipped(stage) for stage in (1, 2, 3)},
            "first": go_on(folder, 2, 3), "patience": run_with_patience(f"{folder}-run"),
            "gqa": first_step("tensor parallel", gqa), "untied": first_step("GPipe", untied),
            "uneven pipeline": uneven_pipeline(), "begun apart": begun_apart(),
            "rates": rates_taken_up()}


def failing() -> None:
    if dist.get_rank() == 0:
        raise ValueError("a batch of stones")
    dist.barrier()


def waiting() -> None:
    if dist.get_rank() == 0:
        time.sleep(60)
