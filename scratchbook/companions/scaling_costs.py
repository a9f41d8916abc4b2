"""Chapter 06f's predictions: ten real steps of three larger models, and two processes for one.

    python -m scratchbook.companions.scaling_costs

About four minutes on an idle machine of two cores; what is predicted is written down first.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
import torch.distributed as dist

from scratchbook.accounting import total_parameters
from scratchbook.config import PRESETS, ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.distributed.data_parallel import BucketedGradients, RankBatches
from scratchbook.distributed.processes import run_ranks
from scratchbook.model import DecoderLM
from scratchbook.teaching.results import record
from scratchbook.training import accumulate
from scratchbook.training.memory import training_bytes
from scratchbook.training.optim import build_optimizer
from scratchbook.training.planning import training_flops_per_token

COMMAND = "python -m scratchbook.companions.scaling_costs"
LARGER = ("mini-27m", "mini-46m", "smalltalk-89m")
ROWS, SEQ_LEN = 4, 128
PACED, PACED_ROWS = "tiny-2m", 16


def random_windows(config: ModelConfig) -> Windows:
    """Random ids: what they say does not change what a step costs."""
    ids = torch.randint(config.vocab_size, (20 * SEQ_LEN,),
                        generator=torch.Generator().manual_seed(0))
    return Windows(ids, ids[: SEQ_LEN + 1], SEQ_LEN)


def steps_taken(name: str, layers: int | None = None, steps: int = 10) -> dict[str, Any]:
    """CPU seconds of each step behind a first one, and by how much this process grew, in bytes."""
    config = PRESETS[name].with_(max_seq_len=SEQ_LEN)
    config = config if layers is None else config.with_(num_layers=layers)
    before, seconds = _largest_size(), []
    model, data = DecoderLM(config).train(), random_windows(config)
    optimizer = build_optimizer(model, lr=1e-4)
    for step in range(steps + 1):
        began = time.process_time()
        optimizer.zero_grad()
        accumulate(model, data.batch(step, ROWS))
        optimizer.step()
        seconds.append(time.process_time() - began)
    return {"seconds": seconds[1:], "grown": _largest_size() - before}


def _largest_size() -> int:
    """The most memory that this process has held so far, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def predicted(name: str, speed: float, by_layers: list[float]) -> dict[str, float]:
    """Seconds of a step, two ways, and bytes: before the model is built.

    `speed` are the operations a second of a small model; `by_layers` the seconds of this one with
    one layer and with two.
    """
    config = PRESETS[name].with_(max_seq_len=SEQ_LEN)
    flops = training_flops_per_token(config, SEQ_LEN) * ROWS * SEQ_LEN
    one, two = by_layers
    return {"parameters": total_parameters(config), "flops": flops, "by speed": flops / speed,
            "by layers": one + (config.num_layers - 1) * (two - one),
            "bytes": sum(training_bytes(config, ROWS, SEQ_LEN).values())}


def paced(steps: int = 8) -> dict[str, float]:
    """Seconds for a step of a whole batch, by the clock, and CPU seconds, on these ranks."""
    config = PRESETS[PACED].with_(max_seq_len=SEQ_LEN)
    model = DecoderLM(config).train()
    data = RankBatches(random_windows(config), dist.get_rank(), dist.get_world_size())
    sums, optimizer = BucketedGradients(model, bucket_bytes=2**20), build_optimizer(model, lr=1e-4)
    for step in range(steps + 1):
        if step == 1:
            dist.barrier()
            clock, cpu = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        accumulate(model, data.batch(step, PACED_ROWS))
        sums.finish()
        optimizer.step()
    dist.barrier()
    return {"clock": (time.perf_counter() - clock) / steps,
            "cpu": (time.process_time() - cpu) / steps}


def middle(values: list[float]) -> float:
    """The median."""
    return float(torch.tensor(values, dtype=torch.float64).median())


def measure() -> dict[str, Any]:
    """Calibrate on what is small, predict, then take the ten steps; two processes beside one."""
    small = PRESETS[PACED].with_(max_seq_len=SEQ_LEN)
    taken = run_ranks(steps_taken, 1, PACED)[0]
    flops = training_flops_per_token(small, SEQ_LEN) * ROWS * SEQ_LEN
    speed, rows = flops / middle(taken["seconds"]), {}
    for name in LARGER:
        thin = [middle(run_ranks(steps_taken, 1, name, layers, 4)[0]["seconds"])
                for layers in (1, 2)]
        guess = predicted(name, speed, thin)
        found = run_ranks(steps_taken, 1, name, seconds=600.0)[0]
        rows[name] = {"predicted": guess, "measured": found}
        print(name, guess, middle(found["seconds"]), found["grown"], flush=True)
    rounds = [{str(nproc): run_ranks(paced, nproc)[0] for nproc in (1, 2)} for _ in range(5)]
    return {"speed": speed, "sizes": rows, "rounds": rounds}


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    record("06f_scaling_and_distributed.costs", measure(), seeds=[0], command=COMMAND)


if __name__ == "__main__":
    main()
