"""The bench of chapter 08's experiments: one base, one task, every run kept on disk.

Wherever two ways are compared, each tries its rates with a seed that is not among those reported,
and takes the one with the fewest bits on held-out answers; steps and batches are the same for all.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from scratchbook.base_model import load_base
from scratchbook.companions import lora_tasks
from scratchbook.compression.files import digest
from scratchbook.data.batches import IGNORED
from scratchbook.finetuning.data import FineTuningData
from scratchbook.generation import eval_mode
from scratchbook.runtime import repository_root, write_atomically
from scratchbook.training import TrainConfig, evaluate, train

RUNS = (repository_root() or Path.cwd()) / "build" / "runs" / "08"
STEPS, BATCH = 40, 8
TUNING_SEED = 100  # of the runs that choose a rate; none of those that are reported
Make = Callable[[nn.Module], nn.Module]


class Bench:
    """The base, its tokenizer, the seeds, and a folder of the runs that were made already.

    A run is known by its base, data, way, rate and steps: what was stopped goes on where it was,
    and what is finished is only read. Without `runs` nothing is kept.
    """

    def __init__(self, seeds: Sequence[int], steps: int = STEPS, runs: Path | None = None):
        self.base, self.tokenizer = load_base()
        self.seeds, self.steps, self.runs = list(seeds), steps, runs
        self.known = digest(self.base.state_dict())[:12]

    def task(self, seed: int, count: int = 200, name: str = lora_tasks.TASKS[0]
             ) -> FineTuningData:
        """A task's data: the seed draws its examples and their order."""
        return lora_tasks.task(name, self.tokenizer, count, seed)

    def learn(self, model: nn.Module, data: FineTuningData, lr: float, seed: int,
              steps: int | None = None, every: int | None = None,
              on_step: Callable[[int, nn.Module], None] | None = None) -> list[dict]:
        """Train what is left free in a model; the log, with an evaluation `every` so many steps."""
        steps = steps or self.steps
        how = TrainConfig(max_steps=steps, batch_size=BATCH, lr=lr, weight_decay=0.0,
                          schedule="linear", warmup_steps=min(3, steps - 1), seed=seed,
                          optimizer="adamw", eval_every=every or steps)
        log = train(model, data, how, on_step=on_step).log
        model.eval()
        return log

    def run(self, way: str, make: Make, lr: float, seed: int, count: int = 200,
            steps: int | None = None, every: int | None = None) -> dict:
        """One training: {"bits", "exact", "seconds", "trainable", "curve": [[step, bits], ...]}."""
        steps, data = steps or self.steps, self.task(seed, count)

        def measured() -> dict:
            model = self.made(make, seed)
            start = time.process_time()
            log = self.learn(model, data, lr, seed, steps, every)
            spent = time.process_time() - start
            scale = math.log(2) * data.bytes_per_token
            return judged(model, data) | {
                "seconds": spent, "trainable": trainable(model),
                "curve": [[entry["step"], entry["validation_loss"] / scale] for entry in log
                          if every and "validation_loss" in entry]}
        return self.kept([way, lr, seed, count, steps, every, BATCH, data.fingerprint()], measured)

    def kept(self, key: list, measured: Callable[[], dict | list]) -> dict | list:
        """What a run with this key gave, measured now if it has not been."""
        if self.runs is None:
            return measured()
        words = "_".join(str(part) for part in key[:4]).replace(" ", "-").replace(",", "")
        name = f"{words}_{digest_of(key)}.json"
        path = self.runs / self.known / name
        if not path.is_file():
            write_atomically(path, json.dumps(measured()))
        return json.loads(path.read_text(encoding="utf-8"))

    def made(self, make: Make, seed: int) -> nn.Module:
        """A copy of the base, changed; what is drawn for it follows from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make(copy.deepcopy(self.base))

    def tuned(self, way: str, make: Make, rates: Sequence[float],
              seeds: Sequence[int] | None = None, every: int | None = None) -> dict:
        """All seeds at the rate that was best for the tuning seed."""
        tried = {lr: self.run(way, make, lr, TUNING_SEED)["bits"] for lr in rates}
        lr = min(tried, key=lambda rate: tried[rate])
        runs = [self.run(way, make, lr, seed, every=every) for seed in seeds or self.seeds]
        return {"bits": [run["bits"] for run in runs], "accuracy": [run["exact"] for run in runs],
                "seconds": [run["seconds"] for run in runs], "rate": lr,
                "tried": {f"{rate:g}": found for rate, found in tried.items()},
                "trainable": runs[0]["trainable"],
                "curves": [run["curve"] for run in runs]}


def digest_of(key: list) -> str:
    """A short hash of what a run is known by."""
    return digest({}, json.dumps(key))[:12]


def trainable(model: nn.Module) -> int:
    """How many numbers learn."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def bits(model: nn.Module, data: FineTuningData) -> float:
    """Bits per byte of the held-out answers."""
    return evaluate(model, data, 32) / math.log(2) / data.bytes_per_token


@torch.no_grad()
def judged(model: nn.Module, data: FineTuningData) -> dict[str, float]:
    """{"bits": per byte of the held-out answers, "exact": the share that greedy decoding writes}.

    An answer is written without one wrong token exactly when each is the likeliest behind the
    right ones before it, so that one pass over the texts tells both.
    """
    right = rows = counted = nats = 0.0
    with eval_mode(model):
        for ids, targets, mask in data.validation(32):
            logits = model(ids, **({} if mask is None else {"mask": mask}))
            nats += F.cross_entropy(logits.transpose(1, 2), targets, reduction="sum",
                                    ignore_index=IGNORED).item()
            kept = targets != IGNORED
            right += int(((logits.argmax(-1) == targets) | ~kept).all(-1).sum())
            rows, counted = rows + len(ids), counted + int(kept.sum())
    return {"bits": nats / counted / math.log(2) / data.bytes_per_token, "exact": right / rows}
