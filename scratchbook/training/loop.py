"""The training loop: a step at a time, each a function of the seed and its number alone.

That is why a run can be killed anywhere and resumed exactly: nothing hides in the state of a
random generator or of an iterator.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as run_again

from scratchbook.data.batches import IGNORED, Batch, Batches
from scratchbook.data.packing import reading_options
from scratchbook.runtime import keep_freed_memory, refuses_old_names, with_new_names
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.training.checkpoint import (
    folder_of,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)
from scratchbook.training.logs import Logger
from scratchbook.training.optim import build_optimizer
from scratchbook.training.runs import ByteTokenizer, interrupts_held, mark_best, open_log
from scratchbook.training.schedules import learning_rate_factor
from scratchbook.training.settings import TrainConfig

MOST_SKIPPED = 25  # fp16 steps in a row whose gradients overflowed, before the run is given up
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Diverged(RuntimeError):
    """The loss is NaN or inf; the message names the step, the batch and the way back."""


@dataclass
class Progress:
    """Where a run stands: what a checkpoint keeps beside the tensors."""

    step: int = 0
    tokens: int = 0
    cpu_seconds: float = 0.0  # of training steps alone, evaluation and files excluded
    best_loss: float = math.inf
    best_step: int = 0
    micro_batches: int = 1  # a batch is cut into so many; grows when memory runs out
    bad_evaluations: int = 0  # without a better loss, in a row
    schedule_start: int = 0  # the step at which the learning rate's schedule began
    schedule_end: int = 0    # and at which it ends


@dataclass
class Trained:
    """What `train` returns: the log, line by line, and why the run ended."""

    progress: Progress
    stop_reason: str
    log: list[dict] = field(default_factory=list)
    folder: Path | None = None

    @property
    def losses(self) -> list[float]:
        """The training loss of every step, in nats per token."""
        return [entry["loss"] for entry in self.log if "loss" in entry]

    @property
    def evaluations(self) -> list[tuple[int, float]]:
        """(step, validation loss) of every evaluation."""
        return [(e["step"], e["validation_loss"]) for e in self.log if "validation_loss" in e]


@refuses_old_names
def train(
    model: nn.Module, data: Batches, config: TrainConfig, folder: str | Path | None = None,
    loggers: tuple[Logger, ...] = (), on_step: Callable[[int, nn.Module], None] | None = None,
    stop_after: int | None = None, tokenizer: Tokenizer | ByteTokenizer | None = None,
    source: dict | None = None, warm_restart: bool = False,
) -> Trained:
    """Train `model` in place and return the log; with a folder, keep checkpoints and resume.

    A folder that holds a run of the same config and data is continued where its newest whole
    checkpoint stands, and ends with the weights it would have had without the break. There the
    `tokenizer` is kept too. `on_step(step, model)` is called before the first step and after every
    one. `stop_after` ends the run early, as Ctrl-C does, after a last checkpoint. With
    `patience`, the best weights are put back at the end. `source` is kept in the run's config:
    what the data were made of. More `max_steps` than before lengthen a run; where its schedule
    has ended, `warm_restart` begins another over the new steps.

    Raises:   Diverged for a loss that is NaN or inf, CheckpointError when the disk refuses,
              ValueError for a folder that holds another run or is in use
    Chapter:  chapters/06_training.ipynb
    """
    keep_freed_memory()
    loop = TrainingLoop(model, data, config, None if folder is None else Path(folder))
    with (open_log(loop.folder, model, data, config, tokenizer, source, warm_restart) as log,
          interrupts_held() as held, torch.random.fork_rng(devices=[])):
        loop.start(log, loggers)
        if on_step is not None:
            on_step(loop.at.step, model)
        last = config.max_steps if stop_after is None else min(config.max_steps, stop_after)
        with activation_checkpointing(model) if config.activation_checkpointing else nullcontext():
            while loop.at.step < last and not loop.out_of_patience and not held:
                loop.step()
                if on_step is not None:
                    on_step(loop.at.step, model)
        return loop.finish()


class TrainingLoop:
    """One run: the model, its optimizer, and everything that happens around a step."""

    def __init__(self, model: nn.Module, data: Batches, config: TrainConfig, folder: Path | None):
        self.model, self.data, self.config, self.folder = model, data, config, folder
        self.device = next(model.parameters()).device
        self.optimizer = build_optimizer(
            model, config.optimizer, lr=config.lr, adamw_lr=config.adamw_lr, betas=config.betas,
            weight_decay=config.weight_decay)
        self.at = Progress(micro_batches=config.grad_accum_steps)
        # the compiler's own generator would make dropout several times slower on a CPU
        self.forward = (torch.compile(model, options={"fallback_random": True})
                        if config.compile else model)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.best: dict[str, Tensor] | None = None  # where there is no folder to keep it
        self.saved: int | None = None  # the step of the newest checkpoint
        self.skipped = 0  # steps in a row that overflowed
        self.log: list[dict] = []

    def start(self, log: Callable[[dict], None], loggers: tuple[Logger, ...]) -> None:
        self.loggers = [log, *(logger.write for logger in loggers)]
        state = load_newest(self.folder, self.model, self.optimizer) if self.folder else None
        if state is not None:
            self.at, self.saved = Progress(**with_new_names(state["progress"])), state["step"]
            if self.at.best_step == self.saved:
                mark_best(self.folder, self.saved)  # the break may have come just before
            if state["scaler"]:
                self.scaler.load_state_dict(state["scaler"])
        ended = 0 < self.at.schedule_end <= self.at.step < self.config.max_steps
        if ended and self.config.schedule != "constant":  # allowed by `warm_restart`, once
            self.at.schedule_start = self.at.step
        self.at.schedule_end = self.config.max_steps
        self.log = log.keep_until(self.at.step)

    @property
    def out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.at.bad_evaluations >= patience

    def step(self) -> None:
        config, at, began = self.config, self.at, time.process_time()
        torch.manual_seed(config.seed * 1_000_003 + at.step)  # dropout: by the step alone
        begun = at.schedule_start
        factor = learning_rate_factor(
            at.step - begun, config.max_steps - begun, config.warmup_steps, config.schedule,
            config.min_lr_ratio, config.cooldown_frac)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        batch = Batch(*(None if t is None else t.to(self.device)
                        for t in self.data.batch(at.step, config.batch_size)))
        self.model.train()
        loss, counted = self._gradients(batch)
        entry = {"step": at.step + 1, "loss": loss, "lr": config.lr * factor}
        entry |= self._update(batch, loss)
        at.step, at.tokens = at.step + 1, at.tokens + counted
        at.cpu_seconds += time.process_time() - began
        self._write(entry | {"tokens": at.tokens, "cpu_seconds": round(at.cpu_seconds, 4)})
        self._keep()

    def _gradients(self, batch: Batch) -> tuple[float, int]:
        """Forward and backward, in more micro-batches when memory does not suffice."""
        while True:
            try:
                self.optimizer.zero_grad()
                return accumulate(self.forward, batch, self.at.micro_batches, self._autocast,
                                  self.scaler.scale)
            except RuntimeError as error:
                if not _memory_ran_out(error) or self.at.micro_batches >= len(batch.ids):
                    raise
                self.at.micro_batches = min(2 * self.at.micro_batches, len(batch.ids))

    def _autocast(self) -> torch.autocast:
        kind = DTYPES.get(self.config.precision)
        return torch.autocast(self.device.type, dtype=kind, enabled=kind is not None)

    def _update(self, batch: Batch, loss: float) -> dict:
        if not math.isfinite(loss) and not self.scaler.is_enabled():
            raise self._diverged(batch, loss)
        self.scaler.unscale_(self.optimizer)
        limit = self.config.max_grad_norm
        moved = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in moved]).item()
        if limit is not None and norm > limit:
            nn.utils.clip_grads_with_norm_(moved, limit, torch.tensor(norm))
        entry = {"grad_norm": norm, "clipped": limit is not None and norm > limit}
        if self.scaler.is_enabled():
            entry |= {"loss_scale": self.scaler.get_scale(), "skipped": not math.isfinite(norm)}
            self.skipped = self.skipped + 1 if entry["skipped"] else 0
            if self.skipped > MOST_SKIPPED:
                raise self._diverged(batch, loss)
        elif not math.isfinite(norm):
            raise self._diverged(batch, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return entry

    def _diverged(self, batch: Batch, number: float) -> Diverged:
        self._write({"step": self.at.step + 1, "diverged": True})
        back = "nothing was saved yet"
        if self.folder and (self.folder / "last").is_file():
            back = f"the last good checkpoint is {(self.folder / 'last').read_text('utf-8')}"
        return Diverged(
            f"step {self.at.step + 1}: the loss or its gradient is {number}, on the batch "
            f"data.batch({self.at.step}, {len(batch.ids)}), whose first row begins with ids "
            f"{batch.ids[0, :8].tolist()}; {back}. Lower lr={self.config.lr}, warm up longer, or "
            "clip, in another folder")

    def _keep(self) -> None:
        """Evaluate and save when it is time; the newest best is never removed."""
        config, at = self.config, self.at
        ending = at.step == config.max_steps
        if at.step % config.eval_every == 0 or ending:
            rows = math.ceil(config.batch_size / at.micro_batches)  # what memory is known to hold
            loss = evaluate(self.model, self.data, rows, self._autocast)
            at.bad_evaluations = 0 if loss < at.best_loss else at.bad_evaluations + 1
            if loss < at.best_loss:
                at.best_loss, at.best_step = loss, at.step
                if config.patience is not None and self.folder is None:
                    self.best = {k: v.clone() for k, v in self.model.state_dict().items()}
            per_byte = getattr(self.data, "bytes_per_token", None)
            entry = {"step": at.step, "validation_loss": loss}
            entry |= {"bits_per_byte": loss / math.log(2) / per_byte} if per_byte else {}
            self._write(entry)
        is_best = at.best_step == at.step
        if self.folder and (is_best or ending or at.step % config.checkpoint_every == 0):
            self.save(is_best)

    def save(self, is_best: bool = False) -> None:
        state = {"progress": vars(self.at),
                 "scaler": self.scaler.state_dict() if self.scaler.is_enabled() else None}
        save_checkpoint(self.folder, self.at.step, self.model, self.optimizer, state,
                        self.config.keep_last)
        self.saved = self.at.step
        if is_best:
            mark_best(self.folder, self.saved)

    def _write(self, entry: dict) -> None:
        self.log.append(entry)
        for write in self.loggers:
            write(entry)

    def finish(self) -> Trained:
        stop_reason = "finished"
        if self.at.step < self.config.max_steps:
            stop_reason = "out of patience" if self.out_of_patience else "stopped"
            if self.folder and stop_reason == "stopped" and self.saved != self.at.step:
                self.save()
        if self.best is not None:
            self.model.load_state_dict(self.best)
        elif self.folder and self.config.patience is not None and self.at.best_step:
            load_checkpoint(folder_of(self.folder, self.at.best_step), self.model)
        self.model.eval()
        return Trained(self.at, stop_reason, self.log, self.folder)


def _memory_ran_out(error: RuntimeError) -> bool:
    """A GPU has an error of its own for that; a processor only says so."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def accumulate(
    forward: Callable, batch: Batch, micro_batches: int = 1,
    autocast: Callable = nullcontext,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> tuple[float, int]:
    """Add up the gradients of a batch read in micro-batches; they equal those of the whole batch.

    Each is divided by the number of targets in the *whole* batch. The mean of their means would
    weigh a token more where its micro-batch has fewer of them.

    Shapes:   -> (mean loss in nats per counted target, number of them)
    Raises:   ValueError for a batch without any target
    Chapter:  chapters/06_training.ipynb
    """
    counted = int((batch.targets != IGNORED).sum())
    if counted == 0:
        raise ValueError(f"a batch of {len(batch.ids)} rows has no target that counts")
    rows, total = math.ceil(len(batch.ids) / micro_batches), 0.0
    for start in range(0, len(batch.ids), rows):
        part = batch.part(start, start + rows)
        with autocast():
            logits = _logits(forward, part)
        loss = _summed_loss(logits, part.targets) / counted
        scale(loss).backward()
        total += loss.item()
    return total, counted


@torch.no_grad()
def evaluate(model: nn.Module, data: Batches, size: int, autocast: Callable = nullcontext
             ) -> float:
    """Mean loss over every held-out target, in nats: tokens weigh alike, whatever their batch.

    Raises:   ValueError when nothing is held out
    Chapter:  chapters/06_training.ipynb
    """
    was_training, total, counted = model.training, 0.0, 0
    model.eval()
    device = next(model.parameters()).device
    for batch in data.validation(size):
        batch = Batch(*(None if t is None else t.to(device) for t in batch))
        with autocast():
            logits = _logits(model, batch)
        total += _summed_loss(logits, batch.targets).item()
        counted += int((batch.targets != IGNORED).sum())
    model.train(was_training)
    if counted == 0:
        raise ValueError("the validation data hold no target that counts")
    return total / counted


def _logits(forward: Callable, batch: Batch) -> Tensor:
    return forward(batch.ids, **reading_options(forward, batch.mask))


def _summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum",
                           ignore_index=IGNORED)


@contextmanager
def activation_checkpointing(model: nn.Module) -> Iterator[None]:
    """Within the block, each of `model.blocks` keeps its input alone and is run again backwards.

    Paper:    Chen et al. (2016), arXiv:1604.06174
    Chapter:  chapters/06_training.ipynb
    """
    for block in model.blocks:
        block.forward = partial(run_again, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in model.blocks:
            del block.forward  # the class's own shows again
