"""What chapter 06e looks at: windows of code that the models have not read, and their motifs.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scratchbook.base_model import base_documents, load_base
from scratchbook.data.smalltalk_documents import class_documents
from scratchbook.interpret import capture
from scratchbook.interpret.code_motifs import (
    TokenText,
    all_motifs,
    bracket_motif,
    indentation_motif,
)
from scratchbook.interpret.mining import Mined, mine
from scratchbook.interpret.patterns import Motif
from scratchbook.model import DecoderLM
from scratchbook.runtime import data_dir
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.smalltalk_model import load_smalltalk
from scratchbook.tokenizers.base import Tokenizer

MOST_CHARACTERS = 12_000  # of a file


@dataclass(frozen=True)
class Material:
    """A model and texts that it has not read, one window of each.

    Shapes:   ids (texts, time)
    """

    language: str
    model: DecoderLM
    tokenizer: Tokenizer
    ids: Tensor

    def pieces(self, text: int) -> list[str]:
        """The tokens of one text as they are spelled."""
        return spelled(self.tokenizer, self.ids[text].tolist())

    def motifs(self) -> list[dict[str, Motif]]:
        """The motifs of every text."""
        return [all_motifs(row, self.pieces(number), self.language)
                for number, row in enumerate(self.ids.tolist())]


def spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Each token alone as text; half a character becomes a replacement sign."""
    return [tokenizer.token_bytes(i).decode("utf-8", errors="replace") for i in ids]


def python_windows(tokenizer: Tokenizer, texts: int, time: int, seed: int = 0) -> Tensor:
    """Windows from held-out source files, one from each: of four places by chance the richest.

    Files and places are chosen by their text alone, before any model has read them.

    Raises:   ValueError when there are not so many files that are long enough
    """
    _, held = base_documents()
    draw = torch.Generator().manual_seed(seed)
    found = []
    for document in held:
        if document.name.startswith("manual/"):
            continue
        ids = tokenizer.encode_ordinary(document.text[:MOST_CHARACTERS])
        if len(ids) >= time:
            starts = torch.randint(len(ids) - time + 1, (4,), generator=draw).tolist()
            found.append(_richest([ids[start : start + time] for start in starts], tokenizer,
                                  "python"))
    return _best(found, texts, time)


def smalltalk_windows(tokenizer: Tokenizer, texts: int, time: int) -> Tensor:
    """Classes of the course's own library, which no training text holds, with their methods.

    Every window begins with a class, as the model was trained; the richest are taken.

    Raises:   ValueError when there are not so many that are long enough
    """
    library = list(read_folder(data_dir() / "smalltalk", "course", "MIT"))
    kinds = (ClassRecord, MethodRecord)
    classes, methods = ([each for each in library if isinstance(each, kind)] for kind in kinds)
    documents = class_documents(classes, methods, tokenizer, 256, 0.0)
    return _best([_richest([ids[:time]], tokenizer, "smalltalk") for ids in documents
                  if len(ids) >= time], texts, time)


def _richest(windows: list[list[int]], tokenizer: Tokenizer, language: str
             ) -> tuple[int, list[int]]:
    """The window with most brackets, lines and methods that can be tested, and how many."""
    counts = []
    for ids in windows:
        text = TokenText(tuple(spelled(tokenizer, ids)), language)
        rows = [motif(text).rows for motif in (bracket_motif, indentation_motif)]
        counts.append(3 * min(rows[0], 6) + min(rows[1], 2) + 2 * bool(text.methods[1:]))
    best = max(range(len(windows)), key=counts.__getitem__)
    return counts[best], windows[best]


def _best(found: list[tuple[int, list[int]]], texts: int, time: int) -> Tensor:
    if len(found) < texts:
        raise ValueError(f"there are {len(found)} texts of {time} tokens, not {texts}")
    order = sorted(range(len(found)), key=lambda number: -found[number][0])
    return torch.tensor([found[number][1] for number in sorted(order[:texts])])


def python_material(texts: int = 24, time: int = 128, seed: int = 0) -> Material:
    """The base model and held-out files of Python's library."""
    model, tokenizer = load_base()
    return Material("python", model, tokenizer, python_windows(tokenizer, texts, time, seed))


def smalltalk_material(texts: int = 24, time: int = 128) -> Material:
    """The Smalltalk model and classes of the course's library."""
    model, tokenizer = load_smalltalk()
    return Material("smalltalk", model, tokenizer, smalltalk_windows(tokenizer, texts, time))


@torch.no_grad()
def attention_maps(model: nn.Module, ids: Tensor, size: int = 8) -> Iterator[Tensor]:
    """For one text after the other what each head looks at: (layers, heads, time, time)."""
    for rows in ids.split(size):
        with capture(model) as seen:
            model(rows)
        yield from seen.stacked().transpose(0, 1)  # (texts, layers, heads, time, time)


def mined(model: nn.Module, ids: Tensor, motifs: Sequence[dict[str, Motif]]) -> Mined:
    """The scores of a model's heads on texts whose motifs are known."""
    return mine(attention_maps(model, ids), motifs)
