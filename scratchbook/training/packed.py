"""Training on what `scratchbook corpus pack` wrote: a folder of token files and their tokenizer.

Chapter:  chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

import json
from pathlib import Path

from scratchbook.data.packing import PackedDocuments
from scratchbook.data.token_files import read_tokens
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.training.runs import ByteTokenizer

TRAIN, VALIDATION, TOKENIZER = "train.tokens", "validation.tokens", "train.tokenizer.json"


def is_packed(folder: str | Path) -> bool:
    """Whether a folder holds what `scratchbook corpus pack` writes."""
    return all(Path(folder, name).is_file() for name in (TRAIN, VALIDATION))


def packed_data(folder: str | Path, seq_len: int, seed: int = 0
                ) -> tuple[PackedDocuments, Tokenizer | ByteTokenizer]:
    """The documents of a packed folder as batches with masks, and the tokenizer of their ids.

    Raises:   ValueError when the files are damaged, or were made by another tokenizer
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    parts = [read_tokens(Path(folder, name)) for name in (TRAIN, VALIDATION)]
    file = Path(folder, TOKENIZER)
    tokenizer = load_tokenizer(file) if file.is_file() else ByteTokenizer()
    for part in parts:
        if part.header["vocab_size"] != tokenizer.vocab_size:
            raise ValueError(f"{folder} holds ids of {part.header['vocab_size']} kinds and its "
                             f"tokenizer has {tokenizer.vocab_size}: pack the corpus again")
    train, validation = ([ids.tolist() for ids in part.documents()] for part in parts)
    size = sum(len(tokenizer.decode(ids).encode("utf-8")) for ids in validation)
    per_token = size / max(1, sum(map(len, validation)))
    return PackedDocuments(train, validation, seq_len, seed, per_token), tokenizer


def load_tokenizer(path: str | Path) -> Tokenizer:
    """A saved tokenizer: one that `save` wrote, or a tokenizer.json of `scratchbook tokenizer`.

    Raises:   ValueError when the file is neither
    """
    try:
        ours = "format" in json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        ours = True  # damaged: `Tokenizer.load` says how
    return Tokenizer.load(path) if ours else BPETokenizer.from_tokenizers(path)
