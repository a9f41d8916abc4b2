"""The Smalltalk models of chapter 09: their recipes, the one that ships, and how it writes.

A model reads what `class_documents` lays out: the definition of a class between `<|class|>` and
`<|end|>`, then `<|method|>` or `<|classmethod|>`, then a source, which it ends by `<|end|>`. It
knows places 0 to `max_seq_len` - 1, the length of its training windows, and is asked for no more.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from scratchbook.base_model import in_float
from scratchbook.compression import load_compressed
from scratchbook.config import PRESETS, ModelConfig
from scratchbook.constrained import Choices, generate_within
from scratchbook.data.smalltalk_documents import head_ids
from scratchbook.model import DecoderLM
from scratchbook.runtime import data_dir
from scratchbook.smalltalk import parts
from scratchbook.smalltalk.records import ClassRecord
from scratchbook.smalltalk.viable import is_method, is_viable, longest_method
from scratchbook.tokenizers.smalltalk import SmalltalkSplitter, SmalltalkTokenizer
from scratchbook.training.planning import plan
from scratchbook.training.recipes import DataConfig, Recipe
from scratchbook.training.runs import open_run
from scratchbook.training.settings import TrainConfig

WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
SETTLED = 2  # chunks at the end of a beginning that what follows may still change
CORPUS = "smalltalk/packed"  # `scratchbook smalltalk train` names the real one


def _sizes(num_layers: int, d_model: int, num_heads: int) -> ModelConfig:
    """A feed-forward part two and a half times as wide as the stream, gated; a tied head."""
    return PRESETS["smalltalk-89m"].with_(
        num_layers=num_layers, d_model=d_model, num_heads=num_heads, num_kv_heads=None,
        head_dim=None, d_ff=d_model * 5 // 2)


def _for_a_gpu(model: ModelConfig, max_steps: int, grad_accum_steps: int) -> Recipe:
    return Recipe(
        model, DataConfig(CORPUS, seq_len=512),
        TrainConfig(max_steps=max_steps, batch_size=64, grad_accum_steps=grad_accum_steps,
                    optimizer="muon", lr=0.01, adamw_lr=0.001, weight_decay=0.1,
                    schedule="linear", warmup_steps=100, precision="bf16",
                    activation_checkpointing=True, eval_every=250, checkpoint_every=250),
        zero_init_residual=True)


RECIPES = {
    "small": Recipe(  # for two cores and two hours and a half
        _sizes(6, 256, 8), DataConfig(CORPUS, seq_len=256),
        TrainConfig(max_steps=5000, batch_size=16, optimizer="muon", lr=0.01, adamw_lr=0.0025,
                    weight_decay=0.1, schedule="linear", warmup_steps=20, eval_every=1000,
                    checkpoint_every=250),
        zero_init_residual=True),
    "23m": _for_a_gpu(_sizes(6, 512, 8), 6_000, 4),
    "89m": _for_a_gpu(_sizes(12, 768, 12), 12_000, 8),
}


def predicted_hours(recipe: Recipe, flops_per_second: float, tokens: int | None = None) -> float:
    """How long a recipe, or so many tokens of it, takes where so many operations are sustained.

    With activation checkpointing a step runs forward twice and backward once: four thirds of what
    `plan` counts.

    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    found = plan(recipe)
    again = 4 / 3 if recipe.train.activation_checkpointing else 1
    share = 1 if tokens is None else tokens / found.tokens
    return again * share * found.hours(flops_per_second)


def model_folder() -> Path:
    """The folder of the shipped model, in a checkout or in the installed package.

    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    return data_dir() / "smalltalk_model"


def load_tokenizer(path: str | Path | None = None) -> SmalltalkTokenizer:
    """The shipped tokenizer, or another file that `SmalltalkTokenizer.save` wrote.

    Raises:   ValueError for a file of another kind, FileNotFoundError when there is none
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    path = model_folder() / TOKENIZER if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: install the package again, or name the file "
                                "of a tokenizer")
    return SmalltalkTokenizer.load(path)


def load_smalltalk(folder: str | Path | None = None) -> tuple[DecoderLM, SmalltalkTokenizer]:
    """A Smalltalk model in float32, in eval mode, and its tokenizer.

    `folder` is the shipped one (None), a run of `scratchbook smalltalk train`, whose last
    checkpoint is taken, or one of a run's checkpoints. `max_seq_len` of the model is the length of
    its training windows: beyond it nothing was learned.

    Raises:   FileNotFoundError when the folder holds no model, ValueError for a damaged one or one
              with another tokenizer, CheckpointError for a damaged checkpoint
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    folder = model_folder() if folder is None else Path(folder)
    if (folder / "state.json").is_file() or (folder / "config.json").is_file():
        model, tokenizer = _of_a_run(folder)
    elif (folder / WEIGHTS).is_file():
        model = in_float(load_compressed(folder / WEIGHTS))
        tokenizer = load_tokenizer(folder / TOKENIZER)
    else:
        raise FileNotFoundError(
            f"{folder} holds no {WEIGHTS} and is no run: train one with `scratchbook smalltalk "
            "train CORPUS --out RUN` and name RUN, or install the package again")
    if (tokenizer.vocab_size, type(tokenizer)) != (model.config.vocab_size, SmalltalkTokenizer):
        raise ValueError(f"{folder} has a {type(tokenizer).__name__} of {tokenizer.vocab_size} "
                         f"tokens and a model of {model.config.vocab_size}: it is no Smalltalk "
                         "model of `scratchbook smalltalk train`")
    return model, tokenizer


def _of_a_run(folder: Path) -> tuple[DecoderLM, SmalltalkTokenizer]:
    """The last checkpoint of a run, or the named one, with the window that it was trained on."""
    if (folder / "state.json").is_file():
        opened = open_run(folder.resolve().parents[1], int(folder.resolve().name.split("_")[1]))
    else:
        opened = open_run(folder, "last")
    model = opened.model
    model.config = model.config.with_(max_seq_len=opened.config["data"]["seq_len"])
    return model, opened.tokenizer


def prompt_ids(tokenizer: SmalltalkTokenizer, record: ClassRecord | None, begun: str = "",
               class_side: bool = False, seq_len: int = 256) -> list[int]:
    """A class and the beginning of one of its methods, as `class_documents` lays them out.

    The class's definition between its boundaries (without its comment, or left out, where it is
    longer than a third of `seq_len`), the token that opens a method, and all of `begun`. What is
    written behind these ids follows a cut that training never showed when `begun` ends inside of
    a token: `write_method` asks for the settled part alone and lets the model write the rest again.

    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    side = parts.CLASS_METHOD if class_side else parts.METHOD
    return [*head_ids(record, tokenizer, seq_len),
            *tokenizer.encode_parts([parts.special(side), parts.Part(begun)])[0]]


def settle(begun: str) -> tuple[str, str]:
    """Cut a beginning in two: what is settled, and what the text behind it may still change.

    The rule: the last two chunks of the tokenizer's first cut are unsettled. `foo ^ sel` is cut
    into `foo`, ` ^ `, `sel`, but with `f size` behind it into `foo`, ` ^ self size`. Of the chunks
    before these two no continuation changes anything. Who continues a beginning encodes the
    settled part and allows, until the rest stands there, only the tokens that the rest alone has,
    or one that begins with all that is left of it (token healing).

    Returns:  two texts; joined, they are `begun`
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    chunks = SmalltalkSplitter().split(begun)
    return "".join(chunks[:-SETTLED]), "".join(chunks[-SETTLED:])


def write_method(
    model: DecoderLM, tokenizer: SmalltalkTokenizer, record: ClassRecord | None, begun: str = "",
    class_side: bool = False, max_new_tokens: int = 200, temperature: float = 0.8,
    top_k: int | None = None, top_p: float | None = None, seed: int | None = None,
    constrained: bool = False, say: Callable[[str], object] | None = None,
) -> str:
    """The source of a whole method that begins with `begun`, up to the model's `<|end|>`.

    Of the special tokens only that one can be drawn. Where `begun` ends inside of a token the
    model writes that token again (see `settle`). A method ends as well after `max_new_tokens` or
    where the model's window is full; then it is unfinished. `constrained` lets pass only tokens
    behind which the parser still sees a method coming, and the end only behind a whole method; of
    one that is unfinished the longest beginning that is a method is kept, "" where none has
    `begun` in it. So every constrained result that is not empty parses. `say` is told in words when
    a method is unfinished.

    Raises:   ValueError for a beginning that leaves no room in the window or, constrained, that
              no continuation makes a method; else as `choose` does
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    if constrained and not is_viable(begun):
        raise ValueError(f"{begun[-60:]!r} ends a beginning that nothing makes a method: mend it, "
                         "or write without constrained")
    settled, rest = settle(begun)
    ids = prompt_ids(tokenizer, record, settled, class_side, model.config.max_seq_len)
    again, room = len(tokenizer.encode_ordinary(rest)), model.config.max_seq_len - len(ids)
    if max_new_tokens < 1 or room <= again:
        raise ValueError(f"max_new_tokens={max_new_tokens}, and the class and the {len(begun)} "
                         f"characters of the beginning are {len(ids) + again} tokens of a window "
                         f"of {model.config.max_seq_len}: both must leave room for one more")
    end, text = tokenizer.special_tokens[parts.END], _Text(tokenizer, settled, begun)
    new, _ = generate_within(
        model, ids, min(again + max_new_tokens, room),
        (lambda new, token: text.viable(new, token, end)) if constrained else _anything,
        temperature, top_k, top_p, [end], seed, choices=_choices(tokenizer, end, rest))
    source = max(text.of(new[:-1] if new[-1:] == [end] else new), begun, key=len)
    if new[-1:] == [end]:
        return source
    kept = longest_method(source) if constrained else source
    if not kept.startswith(begun):
        kept = begun if is_method(begun) else ""
    if say is not None:
        say(f"unfinished after {len(new)} tokens" + (constrained * f": {len(source) - len(kept)} "
            "characters behind the last whole method are left out"))
    return kept


def _anything(new: list[int], token: int) -> bool:
    return True


@dataclass(frozen=True)
class _Text:
    """The source that new ids stand for, behind what was settled of its beginning."""

    tokenizer: SmalltalkTokenizer
    settled: str
    begun: str

    def of(self, new: list[int], errors: str = "replace") -> str:
        return self.settled + self.tokenizer.decode(new, errors)

    def viable(self, new: list[int], token: int, end: int) -> bool:
        """Whether the parser lets a token pass; of half a character it is not asked."""
        try:
            if token == end:
                return is_method(self.of(new, "strict"))
            written = b"".join(map(self.tokenizer.token_bytes, [*new, token]))
            source = self.settled + getincrementaldecoder("utf-8")().decode(written)
        except UnicodeDecodeError:
            return False
        return len(source) <= len(self.begun) or is_viable(source)


def _choices(tokenizer: SmalltalkTokenizer, end: int, rest: str) -> Choices:
    """The rest's own tokens, or one that begins with all that is left; then any text, or the end.

    Smaller pieces would spell the rest too, but in tokens that training never showed in a row.
    """
    special = set(tokenizer.special_tokens.values())
    known = {i: tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size) if i not in special}
    free, own = torch.tensor([*known, end]), tokenizer.encode_ordinary(rest)
    left = [b"".join(map(known.__getitem__, own[k:])) for k in range(len(own))]

    def choices(new: list[int]) -> torch.Tensor:
        k = len(new)
        if k >= len(own) or new != own[:k]:
            return free
        return torch.tensor([i for i, token in known.items()
                             if i == own[k] or token.startswith(left[k])])
    return choices
