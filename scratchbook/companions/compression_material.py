"""What the experiments of chapter 07 share: sizes, text, students, and runs that are kept.

Every run that has ended is a small file below `RUNS`, named by all that it depends on: a full
run that was broken off goes on behind the last of them.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scratchbook.accounting import total_parameters
from scratchbook.base_model import END, base_documents
from scratchbook.companions.base_training import as_ids
from scratchbook.compression import convert_qat, prepare_qat, quantize
from scratchbook.compression.distillation import Distillation, Teacher, distill
from scratchbook.compression.shrinking import student_config
from scratchbook.data.batches import Batch, Windows
from scratchbook.evaluation.perplexity import Score, score_batches
from scratchbook.model import DecoderLM
from scratchbook.runtime import repository_root, write_atomically
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.training import TrainConfig, train
from scratchbook.training.loop import Trained

RUNS = (repository_root() or Path.cwd()) / "build" / "runs" / "07"
BUDGET = 1_000_000  # parameters of a student, embeddings included
TUNING_SEED = 100  # its runs choose the rates; it has batches and held-out text of its own
RATES = {"student": (0.04, 0.08, 0.16), "grown": (0.00002, 0.00006, 0.0002, 0.0006, 0.002),
         "rounded": (0.000002, 0.000006, 0.00002, 0.00006, 0.0002)}
WAYS = {"hard labels": None, "soft labels": Distillation(0.5, 0.5, 2.0),
        "+ features": Distillation(0.5, 0.5, 2.0, features=1.0),
        "+ attention": Distillation(0.5, 0.5, 2.0, attention=1.0)}


@dataclass(frozen=True)
class Sizes:
    """How long a profile trains and how much text it judges by; tokens in all."""

    student_steps: int
    grown_steps: int  # of models that start from the teacher's weights
    batch_size: int
    seq_len: int
    judged: int
    training: int | None  # documents; None for all


QUICK = Sizes(student_steps=5, grown_steps=2, batch_size=4, seq_len=64, judged=1024, training=60)
FULL = Sizes(student_steps=30, grown_steps=10, batch_size=8, seq_len=128, judged=8192,
             training=None)


def kept(make: Callable[[], Any], runs: Path | None = None, **plan: object) -> Any:
    """What `make` returns, from the file of an earlier run of the same plan where there is one."""
    file = _place(plan, "json", runs)
    if file.is_file():
        return json.loads(file.read_text("utf-8"))["found"]
    found = make()
    write_atomically(file, json.dumps({"plan": plan, "found": found}, default=str))
    return found


def kept_file(write: Callable[[Path], object], runs: Path | None = None, **plan: object) -> Path:
    """The file that `write` was given to write, or the one of an earlier run of the same plan."""
    file = _place(plan, "safetensors", runs)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file)
    return file


def _place(plan: Mapping[str, object], ending: str, runs: Path | None) -> Path:
    text = json.dumps(plan, sort_keys=True, default=str)
    name = f"{plan['what']}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.{ending}"
    return (RUNS if runs is None else runs) / name.replace(" ", "_").replace(",", "")


class Apart(Windows):
    """Windows whose held-out ones stand apart: `validation_ids` has seq_len + 1 ids for each."""

    def validation(self, size: int) -> Iterator[Batch]:
        """The held-out windows in order, `size` at a time: ids and targets (up to size, time)."""
        for rows in self.validation_ids.view(-1, self.seq_len + 1).split(size):
            yield Batch(rows[:, :-1].clone(), rows[:, 1:].clone())


@cache
def _ids(tokenizer: Tokenizer, documents: int | None) -> tuple[Tensor, Tensor]:
    """Ids of the training text, of so many documents or of all, and of everything held out."""
    training, held = base_documents()
    every = 1 if documents is None else max(1, len(training) // documents)
    return as_ids(tokenizer, training[::every]), as_ids(tokenizer, held)


def windows(tokenizer: Tokenizer, sizes: Sizes, seed: int = 0) -> Apart:
    """Windows over the base model's text; held out are some at even distances in its own part.

    With the tuning seed they are those in between: no rate is chosen on text that is judged. A
    token's bytes are those that it spells; the end of a document spells none.

    Raises:   ValueError when the held-out text is too short for windows that do not overlap
    Chapter:  chapters/07_compression.ipynb
    """
    training, held = _ids(tokenizer, sizes.training)
    count = sizes.judged // sizes.seq_len
    distance = len(held) // max(1, count)
    if not count or distance < 2 * (sizes.seq_len + 1):
        raise ValueError(f"{count} windows of {sizes.seq_len} tokens and as many between them do "
                         f"not fit into {len(held):,} held-out tokens: judge by fewer")
    starts = torch.arange(count) * distance + (distance // 2 if seed == TUNING_SEED else 0)
    rows = held[starts[:, None] + torch.arange(sizes.seq_len + 1)]  # (windows, time + 1)
    end = tokenizer.encode(END, allowed_special="all")
    size = sum(len(tokenizer.token_bytes(i)) for i in rows[:, 1:].flatten().tolist()
               if i not in end)
    return Apart(training, rows.flatten(), sizes.seq_len, seed, size / rows[:, 1:].numel())


def judged_on(sizes: Sizes) -> dict[str, int]:
    """How many held-out tokens a result is judged by, and how many of them a window has."""
    return {"judged": sizes.judged, "seq_len": sizes.seq_len}


def score(model: nn.Module, data: Windows) -> Score:
    """The surprise over everything held out, window by window, and the bytes of that text."""
    found = score_batches(model, data.validation(16))
    return found + Score(num_bytes=round(found.tokens * data.bytes_per_token))


def bits(model: nn.Module, data: Windows) -> float:
    """Bits per byte of everything held out."""
    return score(model, data).bits_per_byte


def mark(model: nn.Module) -> str:
    """A hash of a model's weights, to know a teacher again."""
    return Teacher(model).digest()[:16]


def recipe(steps: int, lr: float, sizes: Sizes, seed: int, optimizer: str = "muon"
           ) -> TrainConfig:
    """How every run of this chapter trains: what differs is what it learns from."""
    return TrainConfig(max_steps=steps, batch_size=sizes.batch_size, optimizer=optimizer, lr=lr,
                       adamw_lr=lr / 4, schedule="linear", warmup_steps=steps // 20,
                       eval_every=steps, checkpoint_every=steps, seed=seed)


def new_student(teacher: DecoderLM, budget: int, seed: int) -> DecoderLM:
    """A student of at most `budget` parameters as the seed draws it, each block a pass-through.

    Raises:   ValueError when no student is that small
    Chapter:  chapters/07_compression.ipynb
    """
    config = student_config(budget, teacher.config)
    if total_parameters(config) > budget:
        raise ValueError(f"{total_parameters(config):,} parameters are above {budget:,}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = DecoderLM(config)
    for name, parameter in student.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(parameter)
    return student


def teach(student: DecoderLM, teacher: DecoderLM, data: Windows, config: TrainConfig,
          how: Distillation | None) -> Trained:
    """Train in place: by the teacher or, where `how` is None, by the text alone."""
    if how is None:
        return train(student, data, config)
    return distill(student, teacher, data, config, how)


def round_later(model: DecoderLM, data: Windows, config: TrainConfig, kind: str,
                group_size: int | str, inside: bool, double: bool = False,
                teacher: DecoderLM | None = None) -> nn.Module:
    """A copy that is trained on and packed; with `inside` the rounding is there from the start.

    With a teacher it learns from soft labels.

    Chapter:  chapters/07_compression.ipynb
    """
    trained = copy.deepcopy(model)
    if inside:
        prepare_qat(trained, kind, group_size, double=double)
    teach(trained, teacher, data, config, None if teacher is None else WAYS["soft labels"])
    return convert_qat(trained).eval() if inside else quantize(trained, kind, group_size,
                                                               double=double).eval()
