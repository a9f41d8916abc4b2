"""A whole run in one file: which model, which text, how to train.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scratchbook.config import PRESETS, ModelConfig
from scratchbook.data import fetch, python_manual, registry, standard_library
from scratchbook.data.batches import Windows
from scratchbook.data.documents import load_documents, read_utf8
from scratchbook.data.packing import PackedDocuments
from scratchbook.model import DecoderLM
from scratchbook.runtime import refuses_old_names, saying_new_names, sha256_of
from scratchbook.tokenizers import BPETokenizer, CharTokenizer
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.training.packed import is_packed, load_tokenizer, packed_data
from scratchbook.training.runs import ByteTokenizer
from scratchbook.training.settings import TrainConfig

TEXTS = {"python_manual": python_manual, "standard_library": lambda: "\n".join(standard_library())}


@dataclass(frozen=True)
class DataConfig:
    """What to read: a text, how it becomes ids, and how long the windows are.

    `text` is a file, "python_manual", "standard_library", a name of the registry of downloads,
    or what `scratchbook corpus` wrote: a .jsonl of documents, or a packed folder, which brings
    its own split and tokenizer. `tokenizer` is "bytes", the file of a saved tokenizer, or learned
    from the training part: "char", or "bpe" up to the model's `vocab_size`. The last
    `validation_share` of the text is held out.

    Raises:   ValueError for a share that leaves nothing to train on or to validate with
    """

    text: str = "python_manual"
    tokenizer: str = "bytes"
    seq_len: int = 64
    validation_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share={self.validation_share} is not within 0..1")

    def source(self) -> dict[str, Any]:
        """What a run's config keeps of it, so that the text can be found and known again."""
        path = Path(self.text)
        found = {"text": str(path.resolve()) if path.exists() else self.text}
        if path.is_file():
            found["text_sha256"] = sha256_of(path)
        return asdict(self) | found


DataConfig.__init__ = refuses_old_names(DataConfig.__init__)


@dataclass(frozen=True)
class Recipe:
    """All that one run is told. The model's vocabulary is that of the tokenizer, filled in late.

    Chapter:  chapters/06_training.ipynb
    """

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    zero_init_residual: bool = False

    def build_data(self) -> tuple[Windows | PackedDocuments, Tokenizer | ByteTokenizer]:
        """Read the text, make or load the tokenizer, and cut the ids in two.

        Raises:   FileNotFoundError for a text that is neither a file nor a known name
        """
        if is_packed(self.data.text):
            return packed_data(self.data.text, self.data.seq_len, self.train.seed)
        text = read_text(self.data.text)
        cut = int(len(text) * (1 - self.data.validation_share))
        parts = text[:cut], text[cut:]
        tokenizer = _tokenizer(self.data.tokenizer, parts[0], self.model.vocab_size)
        train_ids, held_out = (torch.tensor(tokenizer.encode(part)) for part in parts)
        per_token = None  # a tokenizer that loses text has no bits per byte
        if tokenizer.decode(held_out.tolist()) == parts[1]:
            per_token = len(parts[1].encode("utf-8")) / max(1, len(held_out))
        data = Windows(train_ids, held_out, self.data.seq_len, self.train.seed, per_token)
        return data, tokenizer

    def build_model(self) -> DecoderLM:
        """The model as the seed draws it.

        With `zero_init_residual` every layer starts as a pass-through: zeroing what writes to
        the stream lets the first steps train the head alone.
        """
        torch.manual_seed(self.train.seed)
        model = DecoderLM(self.model)
        if self.zero_init_residual:
            for name, parameter in model.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    nn.init.zeros_(parameter)
        return model

    def with_vocabulary(self, vocab_size: int) -> Recipe:
        """The same recipe for a tokenizer of this size."""
        return replace(self, model=self.model.with_(vocab_size=vocab_size))


def read_text(name: str) -> str:
    """The text that a `DataConfig` names.

    Raises:   FileNotFoundError for an unknown name, ValueError for what is not UTF-8
    """
    if name in TEXTS:
        return TEXTS[name]()
    path = Path(name)
    if not path.is_file():
        if name not in registry():
            raise FileNotFoundError(f"text {name!r} is no file and no known name: use one of "
                                    f"{', '.join([*TEXTS, *registry()][:8])}, ...")
        path = fetch(name)
    if path.suffix == ".jsonl":
        return "\n\n".join(document.text for document in load_documents(path))
    return read_utf8(path)


def _tokenizer(name: str, text: str, vocab_size: int) -> Tokenizer | ByteTokenizer:
    if name == "bytes":
        return ByteTokenizer()
    if name == "char":
        return CharTokenizer().train(text)
    if name == "bpe":
        return BPETokenizer(pattern="gpt2").train(text, vocab_size)
    return load_tokenizer(name)


def _character_model(**changes: Any) -> ModelConfig:
    sizes = {"vocab_size": 65, "max_seq_len": 64, "num_layers": 4, "d_model": 128, "num_heads": 4}
    return ModelConfig(**sizes | changes)


RECIPES: dict[str, Recipe] = {
    "nanogpt-char-cpu": Recipe(  # as documented there for a CPU
        _character_model(norm="layer", feedforward="gelu", positions="learned",
                         tie_embeddings=True),
        DataConfig("tinyshakespeare", "char"),
        TrainConfig(max_steps=2000, batch_size=12, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1,
                    warmup_steps=100, schedule="cosine", min_lr_ratio=0.1, eval_every=250)),
    "shakespeare-char-cpu": Recipe(
        _character_model(norm="rms_no_gain", feedforward="relu2", qk_norm=True),
        DataConfig("tinyshakespeare", "char"),
        TrainConfig(max_steps=2000, batch_size=16, optimizer="muon", lr=0.01, adamw_lr=0.0025,
                    weight_decay=0.1, schedule="linear", max_grad_norm=None, precision="bf16",
                    eval_every=250),
        zero_init_residual=True),
    "code-27m": Recipe(  # for a GPU, or for a night
        PRESETS["mini-27m"], DataConfig("standard_library", "bpe", seq_len=128),
        TrainConfig(max_steps=20_000, batch_size=8, lr=3e-4, warmup_steps=500, precision="bf16",
                    eval_every=500, checkpoint_every=2000)),
}


def load_recipe(arguments: Sequence[str], base: Recipe | None = None) -> Recipe:
    """Read a recipe from a YAML file and from options: --config FILE, --train.lr 3e-4, ...

    Options given later win; what nobody names keeps the value of `base`.

    Raises:   ValueError naming the file, the option and what would be right
    Chapter:  chapters/06_training.ipynb
    """
    from jsonargparse import ArgumentError, ArgumentParser

    base = base or Recipe(PRESETS["tiny-1m"], DataConfig(), TrainConfig())
    starts = {"model": _open_fields(base.model), "data": asdict(base.data),
              "train": asdict(base.train)}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--zero_init_residual", type=bool, default=base.zero_init_residual)
    for name, kind in (("model", ModelConfig), ("data", DataConfig), ("train", TrainConfig)):
        parser.add_class_arguments(kind, name, instantiate=False)
        parser.set_defaults({f"{name}.{field}": value for field, value in starts[name].items()})
    try:
        found = parser.instantiate_classes(parser.parse_args(list(arguments)))
    except ArgumentError as error:
        raise ValueError(saying_new_names(str(error))) from None
    return Recipe(ModelConfig(**vars(found.model)), DataConfig(**vars(found.data)),
                  TrainConfig(**vars(found.train)), found.zero_init_residual)


def _open_fields(config: ModelConfig) -> dict[str, Any]:
    """Its fields; sizes that only follow from others are None, so that they follow new ones."""
    fields = asdict(config)
    for name in ("num_kv_heads", "head_dim", "d_ff"):
        if replace(config, **{name: None}) == config:
            fields[name] = None
    return fields
