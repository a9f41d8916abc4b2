"""A fine-tuning as it is asked for in one line, and what is said of it.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scratchbook.data.documents import read_utf8
from scratchbook.finetuning.bases import Base, open_base
from scratchbook.finetuning.data import FineTuningData, finetuning_data
from scratchbook.finetuning.tuning import (
    MERGED,
    Adapting,
    Tuned,
    check_mergeable,
    finetune,
    save_merged,
    started_there,
    trainable,
)
from scratchbook.runtime import pick_device
from scratchbook.training import TrainConfig

EVALUATIONS = 10  # in a run, unless told otherwise
MAX_SEQ_LEN = 512


@dataclass(frozen=True)
class FineTuningRequest:
    """The options of `scratchbook finetune`; None is the usual.

    Chapter:  chapters/08_lora.ipynb
    """

    base: str
    data: str
    out: str
    validation: str | None = None
    keep: str | None = None
    method: str = "lora"
    rank: int = 8
    alpha: float | None = None
    targets: str | None = None
    dropout: float = 0.0
    quantize: str | None = None
    lr: float | None = None
    max_steps: int | None = None
    epochs: float = 3.0
    batch_size: int = 8
    max_seq_len: int | None = None
    eval_every: int | None = None
    patience: int | None = None
    seed: int = 0
    device: str = "cpu"
    merge: bool = False

    def adapting(self) -> Adapting:
        """How the base is adapted."""
        if self.alpha is not None and self.method not in ("lora", "dora"):
            raise ValueError(f"{self.method} has no alpha={self.alpha}: leave it out")
        names = (self.targets or "").replace(" ", "").split(",")
        return Adapting(self.method, tuple(filter(None, names)) or None, self.rank,
                        2 * self.rank if self.alpha is None else self.alpha, self.dropout,
                        self.quantize, self.seed)

    def config(self, data: FineTuningData) -> TrainConfig:
        """How it is trained: a linear warm-up of 3 %, then a cosine down to zero."""
        if not 0 < self.epochs < math.inf or self.batch_size < 1:
            raise ValueError(f"epochs={self.epochs} and batch_size={self.batch_size} must be above "
                             "0")
        steps = self.max_steps
        steps = data.steps(self.epochs, self.batch_size) if steps is None else steps
        usual = 1e-4 if self.method == "full" else 1e-3
        every = math.ceil(steps / EVALUATIONS) if self.eval_every is None else self.eval_every
        return TrainConfig(
            max_steps=steps, batch_size=self.batch_size, weight_decay=0.0, seed=self.seed,
            lr=usual if self.lr is None else self.lr, warmup_steps=max(0, steps * 3 // 100),
            eval_every=every, checkpoint_every=every, patience=self.patience)

    def length(self, base: Base) -> int:
        """How many ids of an example are read."""
        room = base.model.config.max_seq_len - (self.rank if self.method == "prefix" else 0)
        wanted = min(MAX_SEQ_LEN, room) if self.max_seq_len is None else self.max_seq_len
        if not 1 <= wanted <= room:
            raise ValueError(f"max_seq_len={wanted} is not within 1..{room}, what the base reads")
        return wanted


def run_request(request: FineTuningRequest, loggers: Callable[[int], tuple] = lambda steps: (),
                say: Callable[[str], None] = print) -> list[str]:
    """Do what was asked; `say` is told the cost first, and the result is the lines at the end.

    `loggers(max_steps)` makes what is told every step.

    Raises:   ValueError or FileNotFoundError for whatever does not fit, before anything is written
    Chapter:  chapters/08_lora.ipynb
    """
    adapting, folder = request.adapting(), Path(request.out)
    if request.merge:
        check_mergeable(adapting)
    started_there(folder)  # a folder of somebody else is refused before a model is loaded
    kept = None if request.keep is None else read_utf8(request.keep)
    base = open_base(request.base, request.quantize)
    base.model.to(pick_device(request.device))
    data = finetuning_data(request.data, base.tokenizer, request.length(base), request.seed,
                           validation_path=request.validation)
    config = request.config(data)
    say(f"reads       {len(data.train):,} examples, and {len(data.validation_examples):,} held out")
    done = finetune(base, adapting, data, config, folder, kept,
                    lambda: loggers(config.max_steps), say)
    return told(done, data) + _merged(request, adapting, base, done)


def _merged(request: FineTuningRequest, adapting: Adapting, base: Base, done: Tuned) -> list[str]:
    older = done.folder / MERGED
    if not request.merge:
        said = f"merged      {older} is of an earlier start: --merge writes it anew"
        return [said] if older.exists() else []
    where = save_merged(done.model, base.tokenizer, adapting, done.folder)
    return [f"merged      {where}: a plain model"]


def told(done: Tuned, data: FineTuningData) -> list[str]:
    """The lines that a person wants to read at the end."""
    at, before, after = done.trained.progress, done.before, done.after
    per_byte = data.bytes_per_token
    lines = [f"{done.trained.stop_reason} at step {at.step}; the best held-out loss was at step "
             f"{at.best_step}, in {at.cpu_seconds:.0f} CPU s",
             f"answers     {before.answers:.4f} nats a token before, {after.answers:.4f} after"]
    if per_byte:
        bits = [loss / math.log(2) / per_byte for loss in (before.answers, after.answers)]
        lines[-1] += f": {bits[0]:.3f} and {bits[1]:.3f} bits per byte"
    if before.kept is not None and after.kept is not None:
        change = 100 * (after.kept / before.kept - 1)
        lines.append(f"kept        {before.kept:.3f} bits per byte of the text before, "
                     f"{after.kept:.3f} after: {change:+.1f} %")
    files = [*done.folder.glob("adapter/*"), *done.folder.glob("adapter.safetensors")]
    size = sum(file.stat().st_size for file in files if file.is_file()) or (
        4 * trainable(done.model))
    return [*lines, f"learned     {trainable(done.model):,} numbers in {done.folder}, "
                    f"{size / 1e6:,.2f} MB"]
