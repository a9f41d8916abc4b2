"""One fine-tuning from its base to its adapter, on the training loop of chapter 06.

    OUT/                         the folder of a run: log, checkpoints of what learns alone
    OUT/config.json              says under data.finetune which base, how it was adapted, and the
                                 losses before the first step
    OUT/adapter/                 what was learned, in peft's format (LoRA, DoRA)
    OUT/adapter.safetensors      what was learned (the other methods)
    OUT/merged/                  a model without adapter, on request
    OUT/finetuned.json           the losses before and after

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scratchbook.accounting import total_parameters
from scratchbook.compression.layers import PackedWeight
from scratchbook.data.batches import hash_of
from scratchbook.evaluation.perplexity import score_text
from scratchbook.finetuning.adapters import save_adapter
from scratchbook.finetuning.bases import Base
from scratchbook.finetuning.budget import METHODS
from scratchbook.finetuning.data import FineTuningData
from scratchbook.finetuning.lora import apply_lora, merge, unwrap
from scratchbook.finetuning.method_files import save_adaptation
from scratchbook.finetuning.methods import merge_ia3
from scratchbook.finetuning.quantized_base import merge_dequantized
from scratchbook.finetuning.tuning_memory import step_bytes
from scratchbook.model import DecoderLM
from scratchbook.runtime import write_atomically
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.training import TrainConfig, Trained, accumulate, evaluate, train
from scratchbook.training.checkpoint import folder_of, load_checkpoint
from scratchbook.training.identity import check_folder, read_config
from scratchbook.training.runs import ByteTokenizer
from scratchbook.weights import save_pretrained

ALL_METHODS = ("lora", "dora", "full", *METHODS)
ADAPTER, ADAPTATION, MERGED, RESULT = "adapter", "adapter.safetensors", "merged", "finetuned.json"


@dataclass(frozen=True)
class Adapting:
    """How a base is adapted: `full` learns all of it, the other methods a little beside it.

    `lora_rank` is the size of the other methods too: the length of a prefix, the width of a
    bottleneck; IA3 and BitFit have none. `quantized` is how the frozen base is packed.

    Raises:   ValueError for an unknown method, or a packed base that should learn
    Chapter:  chapters/08_lora.ipynb
    """

    method: str = "lora"
    targets: tuple[str, ...] | None = None
    lora_rank: int = 8
    lora_alpha: float = 16
    dropout: float = 0.0
    quantized: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in ALL_METHODS:
            raise ValueError(f"method={self.method!r} is unknown; choose one of "
                             f"{', '.join(ALL_METHODS)}")
        if self.method == "full" and self.quantized:
            raise ValueError(f"full fine-tuning moves every weight, and packed ones "
                             f"({self.quantized}) cannot move: use lora, or no quantization")
        if self.lora_rank < 1:
            raise ValueError(f"lora_rank={self.lora_rank} must be at least 1")
        if self.targets is not None and self.method in ("full", "prefix", "bottleneck"):
            raise ValueError(f"{self.method} has no targets: leave them out")
        if self.dropout and self.method not in ("lora", "dora"):
            raise ValueError(f"{self.method} has no dropout={self.dropout}: leave it out")

    def apply(self, model: DecoderLM) -> DecoderLM:
        """Adapt a base in place; its first outputs are drawn by the seed alone.

        Raises:   ValueError naming the target or the size that does not fit
        """
        chosen = {} if self.targets is None else {"targets": self.targets}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            if self.method in ("lora", "dora"):
                chosen = {"targets": _only(self.targets)} if self.targets else {}
                return apply_lora(model, lora_rank=self.lora_rank, lora_alpha=self.lora_alpha,
                                  dropout=self.dropout, dora=self.method == "dora", **chosen)
            if self.method == "full":
                return model.requires_grad_(True)
            size = {"prefix": {"prefix_len": self.lora_rank}, "bitfit": {"add_biases": True},
                    "bottleneck": {"size": self.lora_rank}}.get(self.method, {})
            return METHODS[self.method](model, **size, **chosen)


def _only(targets: tuple[str, ...]) -> tuple[str, ...] | str:
    return "all-linear" if targets == ("all-linear",) else targets


@dataclass(frozen=True)
class Losses:
    """Nats for each token of the answers held out and, where asked for, bits per byte of a text
    that the base knew."""

    answers: float
    kept: float | None = None


def measure_losses(model: DecoderLM, tokenizer: object, data: FineTuningData, batch_size: int,
                   kept_text: str | None = None) -> Losses:
    """What a model makes of held-out answers, and of a text that it should not forget.

    Raises:   ValueError for a text too short to measure
    """
    kept = None
    if kept_text is not None:
        score = score_text(model, tokenizer, kept_text, min(256, model.config.max_seq_len // 2))
        kept = score.bits_per_byte if math.isfinite(score.bits_per_byte) else None
    return Losses(evaluate(model, data, batch_size), kept)


@dataclass(frozen=True)
class Tuned:
    """What `finetune` returns: the adapted model, its log, and the losses before and after."""

    model: DecoderLM
    trained: Trained
    before: Losses
    after: Losses
    folder: Path


def finetune(base: Base, adapting: Adapting, data: FineTuningData, config: TrainConfig,
             folder: str | Path, kept_text: str | None = None,
             loggers: Callable[[], tuple] = tuple,
             say: Callable[[str], None] = lambda line: None) -> Tuned:
    """Adapt a base to examples, and keep what was learned in a folder of its own.

    A folder that holds the same fine-tuning is gone on with, and ends with the weights that it
    would have had without the break. The checkpoint with the best held-out loss becomes the
    adapter. The base's model is changed in place. `say` is told the cost before the first step.

    Raises:   ValueError for a folder that holds anything else, or a base that is another one
    Paper:    Hu et al. (2021), arXiv:2106.09685; Dettmers et al. (2023), arXiv:2305.14314
    Chapter:  chapters/08_lora.ipynb
    """
    folder = Path(folder)
    told = describe(base, adapting)
    started = started_there(folder, told)
    texts = {"data": data.fingerprint(), "keep": kept_text and hash_of(note=kept_text)}
    measured_on = (started or {}).get("measured_on", {})
    if measured_on.get("keep", texts["keep"]) != texts["keep"]:
        raise ValueError(f"{folder} was begun with another text to keep, or without one: give the "
                         "same, or take another folder")
    before = Losses(**started["before"]) if measured_on == texts else measure_losses(
        base.model, base.tokenizer, data, config.batch_size, kept_text)
    model = adapting.apply(base.model)
    for line in cost_lines(model, data, config):
        say(line)
    tokenizer = base.tokenizer if isinstance(base.tokenizer, Tokenizer | ByteTokenizer) else None
    with base_left_out(model):
        done = train(model, data, config, folder, loggers(), tokenizer=tokenizer,
                     source={"finetune": told | {"before": asdict(before),
                                                 "measured_on": texts}})
        if done.progress.best_step:
            load_checkpoint(folder_of(folder, done.progress.best_step), model)
    save_learned(model, adapting, folder, base.name)
    after = measure_losses(model, base.tokenizer, data, config.batch_size, kept_text)
    result = {"before": asdict(before), "after": asdict(after), "step": done.progress.best_step,
              "seconds": done.progress.cpu_seconds, "trainable": trainable(model)}
    write_atomically(folder / RESULT, json.dumps(result | {"base": base.name}, indent=1) + "\n")
    return Tuned(model, done, before, after, folder)


def describe(base: Base, adapting: Adapting) -> dict[str, Any]:
    """What a fine-tuning's config.json says of it, before the base is changed."""
    settings = json.loads(json.dumps(asdict(adapting)))
    return {"base": base.name, "base_sha256": base.sha256(), "settings": settings}


def started_there(folder: Path, told: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """What an earlier start of this fine-tuning wrote; None for a new folder.

    Raises:   ValueError when the folder holds something else, saying what differs
    """
    check_folder(folder)
    if not (folder / "config.json").exists():
        return None
    found = (read_config(folder)["data"] or {}).get("finetune")
    if found is None:
        raise ValueError(f"{folder} holds a run that is no fine-tuning: take another folder")
    if told is None:
        return found
    changed = [f"{name}: {old} there, {told['settings'][name]} here"
               for name, old in found["settings"].items() if told["settings"][name] != old]
    if changed:
        raise ValueError(f"{folder} holds another fine-tuning ({'; '.join(changed)}): give the "
                         "same settings to go on with it, or take another folder")
    if found["base_sha256"] != told["base_sha256"]:
        raise ValueError(f"{folder} was begun on another base ({found['base']}; here "
                         f"{told['base']}, whose weights differ): give that one, or take another "
                         "folder")
    return found


@contextmanager
def base_left_out(model: nn.Module) -> Iterator[None]:
    """Within the block a packed base is no part of the model's state: checkpoints omit it."""
    packed = [module for module in model.modules() if isinstance(module, PackedWeight)]
    names = [list(module.state_dict()) for module in packed]
    _register(packed, names, False)
    try:
        yield
    finally:
        _register(packed, names, True)


def _register(modules: list[PackedWeight], names: list[list[str]], persistent: bool) -> None:
    for module, own in zip(modules, names, strict=True):
        for name in own:
            module.register_buffer(name, getattr(module, name), persistent=persistent)


def save_learned(model: DecoderLM, adapting: Adapting, folder: Path, base_name: str
                 ) -> Path | None:
    """Write what was learned; a model that learned as a whole lies in its checkpoint already."""
    if adapting.method in ("lora", "dora"):
        return save_adapter(model, folder / ADAPTER, base_name=base_name)
    if adapting.method == "full":
        return None
    return save_adaptation(model, folder / ADAPTATION)


def save_merged(model: DecoderLM, tokenizer: object, adapting: Adapting, folder: Path) -> Path:
    """Write a plain model, into whose weights the adapter was merged, and its tokenizer.

    A packed base comes out in floats, as large as it was before it was packed.

    Raises:   ValueError for a method whose result is no plain model
    """
    check_mergeable(adapting)
    if adapting.quantized:
        model = merge_dequantized(model)
    elif adapting.method in ("lora", "dora"):
        merge(model)
        unwrap(model)
    elif adapting.method == "ia3":
        merge_ia3(model)
    save_pretrained(model, folder / MERGED)
    if isinstance(tokenizer, Tokenizer):
        tokenizer.save(folder / MERGED / "tokenizer.json")
    elif hasattr(tokenizer, "library"):
        tokenizer.library.save(str(folder / MERGED / "tokenizer.json"))
    return folder / MERGED


def check_mergeable(adapting: Adapting) -> None:
    """Refuse methods that do more than change matrices.

    Raises:   ValueError with the reason
    """
    packed_too = ("lora", "dora")  # the matrices are unpacked first: the result is in floats
    if adapting.method not in packed_too + (() if adapting.quantized else ("full", "ia3")):
        raise ValueError(f"{adapting.method} cannot be merged here: what it adds is no change of a "
                         "matrix, or its base is packed. The adapter beside its base does the same")


def trainable(model: nn.Module) -> int:
    """How many numbers of a model learn."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def cost_lines(model: DecoderLM, data: FineTuningData, config: TrainConfig) -> list[str]:
    """What a fine-tuning costs, before its first step: what learns, memory, time measured here."""
    count = trainable(model)
    whole = total_parameters(model.config)
    longest = data.longest(config.batch_size).ids
    memory = step_bytes(model, *longest.shape)
    parts = ", ".join(f"{name} {size / 1e6:,.1f}" for name, size in memory.items())
    each = seconds_per_step(model, data, config.batch_size)
    return [f"learns      {count:,} numbers, {100 * count / whole:.3g} % of the base's {whole:,}",
            f"memory      {sum(memory.values()) / 1e6:,.0f} MB beside Python and torch: {parts}",
            f"time        about {_duration(each * config.max_steps)}: {config.max_steps:,} steps "
            f"of {config.batch_size} examples, {each:.2g} seconds each (three measured here)"]


def _duration(seconds: float) -> str:
    for name, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:.1f} seconds"


def seconds_per_step(model: DecoderLM, data: FineTuningData, batch_size: int, steps: int = 3
                     ) -> float:
    """The middle one of a few steps forward and backward, measured here; nothing is moved."""
    spent = []
    model.train()
    with torch.random.fork_rng(devices=[]):
        for step in range(steps):
            batch, began = data.batch(step, batch_size), time.perf_counter()
            accumulate(model, type(batch)(*(None if t is None else t.to(_device(model))
                                            for t in batch)))
            spent.append(time.perf_counter() - began)
    model.zero_grad(set_to_none=True)
    model.eval()
    return sorted(spent)[steps // 2]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
