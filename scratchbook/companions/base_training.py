"""How the base model was made: its recipe, its training, its shipped copy and its card.

    python -m scratchbook.companions.base_training RUN     # about an hour on one core

A run that was broken off goes on where its newest checkpoint stands.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
from dataclasses import replace
from pathlib import Path

import torch

from scratchbook import base_model
from scratchbook.compression import quantize, save_compressed
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.data.documents import Document
from scratchbook.data.held_out import group_by_runs, split_documents
from scratchbook.evaluation.perplexity import score_text
from scratchbook.model import DecoderLM
from scratchbook.runtime import write_atomically
from scratchbook.tokenizers import BPETokenizer
from scratchbook.training import TrainConfig, train
from scratchbook.training.recipes import DataConfig, Recipe

SEQ_LEN, HELD_OUT_SHARE, GROUP = 256, 0.05, 64
JUDGED = 100_000  # characters of each kind of held-out text
RECIPE = Recipe(
    ModelConfig(vocab_size=4096, max_seq_len=1024, num_layers=6, d_model=256, num_heads=8,
                d_ff=704, tie_embeddings=True),  # 704: whole groups of 32 and of 64 in every row
    DataConfig("standard_library and python_manual", "bpe", SEQ_LEN, HELD_OUT_SHARE),
    TrainConfig(max_steps=1050, batch_size=16, optimizer="muon", lr=0.01, adamw_lr=0.0025,
                weight_decay=0.1, schedule="linear", warmup_steps=20, compile=True,
                eval_every=150, checkpoint_every=150),
    zero_init_residual=True)


def replace_sizes(vocab_size: int, num_layers: int, d_model: int, num_heads: int, d_ff: int,
                  **training: int) -> Recipe:
    """The recipe for another size and length, uncompiled: for a trial."""
    sizes = RECIPE.model.with_(vocab_size=vocab_size, num_layers=num_layers, d_model=d_model,
                               num_heads=num_heads, head_dim=None, num_kv_heads=None, d_ff=d_ff)
    quick = {"compile": False, "warmup_steps": 0}
    return replace(RECIPE, model=sizes, train=replace(RECIPE.train, **quick | training))


def split() -> tuple[list[Document], list[Document]]:
    """Training and held-out documents: no held-out one shares 13 words in a row with training."""
    grouped = group_by_runs(base_model.all_documents())
    return split_documents(grouped, HELD_OUT_SHARE)


def learn_tokenizer(documents: list[Document]) -> BPETokenizer:
    """BPE of the recipe's size over the training documents, with a token for their end."""
    tokenizer = BPETokenizer(pattern="gpt2")
    return tokenizer.train([d.text for d in documents], RECIPE.model.vocab_size,
                           special_tokens=[base_model.END])


def as_ids(tokenizer: BPETokenizer, documents: list[Document]) -> torch.Tensor:
    """All documents in one row of ids, each with its end.

    Shapes:   -> (tokens,)
    """
    end = tokenizer.encode(base_model.END, allowed_special="all")
    return torch.tensor([i for d in documents for i in tokenizer.encode(d.text) + end])


def build_data(tokenizer: BPETokenizer, parts: tuple[list[Document], list[Document]]) -> Windows:
    """Windows over both parts; what they hold of the text in bytes goes with them."""
    train_ids, held_ids = (as_ids(tokenizer, part) for part in parts)
    size = sum(len(d.text.encode("utf-8")) for d in parts[1])
    return Windows(train_ids, held_ids, SEQ_LEN, RECIPE.train.seed, size / len(held_ids))


def train_base(run: Path) -> DecoderLM:
    """Train by the recipe, or go on with it; tokenizer and split are kept beside the run."""
    beside = run.parent / f"{run.name}_made_from"
    parts = split()
    file = beside / base_model.TOKENIZER
    if not file.is_file():
        write_atomically(beside / base_model.HELD_OUT, json.dumps([d.name for d in parts[1]]))
        learn_tokenizer(parts[0]).save(file)
    tokenizer = BPETokenizer.load(file)
    model = RECIPE.build_model()
    train(model, build_data(tokenizer, parts), RECIPE.train, run, tokenizer=tokenizer,
          source={"text": RECIPE.data.text, "python": platform.python_version()})
    return model


@torch.no_grad()
def ship(run: Path, folder: Path, model: DecoderLM) -> None:
    """Write the shipped copy: eight bits per weight, the tokenizer, the split and the card.

    The folder is filled beside the old one and takes its place whole: no tokenizer of one
    training ever stands beside the weights of another.
    """
    beside, whole = run.parent / f"{run.name}_made_from", folder
    folder = whole.with_name(f"{whole.name}.new")
    for name in (base_model.TOKENIZER, base_model.HELD_OUT):
        write_atomically(folder / name, (beside / name).read_bytes())
    parts, tokenizer = split(), BPETokenizer.load(folder / base_model.TOKENIZER)
    before = held_out_bits(model, tokenizer, parts[1])
    packed = quantize(model.float().eval(), "int8", group_size=GROUP)
    save_compressed(packed, folder / base_model.WEIGHTS)
    shipped, _ = base_model.load_base(folder)
    after = held_out_bits(shipped, tokenizer, parts[1])
    write_atomically(folder / "README.md", card(run, shipped, parts, before, after))
    if whole.exists():
        shutil.rmtree(whole)
    folder.rename(whole)


def held_out_bits(model: DecoderLM, tokenizer: BPETokenizer, documents: list[Document]
                  ) -> dict[str, float]:
    """Bits per byte of held-out code and prose, their first characters, in the recipe's windows."""
    texts = {"code": [d.text for d in documents if not d.name.startswith("manual/")],
             "prose": [d.text for d in documents if d.name.startswith("manual/")]}
    return {name: score_text(model, tokenizer, "\n".join(found)[:JUDGED], SEQ_LEN).bits_per_byte
            for name, found in texts.items() if found}


def card(run: Path, model: DecoderLM, parts: tuple[list[Document], list[Document]],
         before: dict[str, float], after: dict[str, float]) -> str:
    """The model card: what it is, how it was trained, how well it reads, what it is not for."""
    config, how = RECIPE.model, RECIPE.train
    sizes = [sum(len(d.text.encode("utf-8")) for d in part) for part in parts]
    count = sum(p.numel() for p in model.parameters())
    tokens = how.max_steps * how.batch_size * SEQ_LEN
    bits = "\n".join(f"| held-out {name} | {before[name]:.3f} | {after[name]:.3f} |"
                     for name in after)
    return f"""# The base model

A language model of {count:,} parameters that reads and writes Python's code and manual. Chapters 07
and 08 and those after them shrink it, adapt it and serve it. It was made by this repository alone:

```console
python -m scratchbook.companions.base_training RUN
```

| What | Value |
|---|---|
| Architecture | {config.num_layers} layers of width {config.d_model}, {config.num_heads} heads, \
SwiGLU of {config.d_ff}, RMSNorm, rotary positions, tied embeddings |
| Tokenizer | BPE of {config.vocab_size:,}, learned from the training part |
| Text | the standard library of Python {platform.python_version()} without tests and tables of \
encodings, and the manual's topics: {sizes[0]:,} bytes to train on, {sizes[1]:,} held out |
| Split | whole documents; none held out shares 13 words in a row with training |
| Training | {how.max_steps:,} steps of {how.batch_size} windows of {SEQ_LEN} tokens \
({tokens:,} tokens), {how.optimizer} at {how.lr:g} (AdamW at {how.adamw_lr:g} for the rest), \
{how.schedule}, {how.precision}, seed {how.seed} |
| torch | {torch.__version__.split("+")[0]} |
| Licence of the text | PSF licence |

Bits per byte of the first {JUDGED:,} characters, in windows of {SEQ_LEN} tokens without overlap:

| Text | trained weights | shipped copy ({GROUP} weights share a scale, 8 bits each) |
|---|---|---|
{bits}

It continues code in the manner of the library. It follows no instructions, knows no fact reliably,
and was judged on no other language. It can repeat the text that it read, which stands under the
licence above.
"""


def main() -> None:
    """Train and ship."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="the folder of the run")
    parser.add_argument("--output", type=Path, default=base_model.base_folder(), metavar="FOLDER")
    options = parser.parse_args()
    start = time.process_time()
    model = train_base(options.run)
    ship(options.run, options.output, model)
    print(f"{(time.process_time() - start) / 60:.0f} CPU minutes")


if __name__ == "__main__":
    main()
