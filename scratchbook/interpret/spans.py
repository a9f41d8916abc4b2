"""Which characters of a text each of its tokens covers.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from scratchbook.tokenizers.base import Tokenizer, check_text

Spans = list[tuple[int, int]]


def read_text(text: str, tokenizer: Any = None, before: Sequence[int] = (),
              vocab_size: int | None = None) -> tuple[list[int], list[str], Spans]:
    """The ids of a text, how they are spelled, and the characters (start, end) of each.

    Special tokens that the text spells are read as plain text. `before` are special ids that stand
    before it, with the span (0, 0).

    Raises:   ValueError when the tokenizer is missing or its tokens are no slices of the text
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    check_text(text)
    if tokenizer is None:
        if vocab_size != 256:
            raise ValueError(f"vocab_size={vocab_size}: only a model of 256 ids reads bytes; give "
                             "the tokenizer that this model was trained with")
        if before:
            raise ValueError(f"before={list(before)}: bytes have no special tokens")
        ids = list(text.encode("utf-8"))
        pieces = [bytes([each]) for each in ids]
    elif isinstance(tokenizer, Tokenizer):
        ids = tokenizer.encode_ordinary(text)
        pieces = [tokenizer.token_bytes(each) for each in ids]
    else:
        return _of_transformers(text, tokenizer, before)
    names = {number: name for name, number in getattr(tokenizer, "special_tokens", {}).items()}
    if unknown := [each for each in before if each not in names]:
        raise ValueError(f"before names {unknown[0]}, which is no special token: "
                         f"{sorted(names)} are")
    spans = byte_spans(text, pieces)
    return ([*before, *ids], [*(names[each] for each in before), *map(_spelled, pieces)],
            [*((0, 0) for _ in before), *spans])


def byte_spans(text: str, pieces: Sequence[bytes]) -> Spans:
    """Where each piece of the text's bytes begins and ends, counted in characters.

    A piece that holds a part of a character covers the whole of it, so neighbours may share one.

    >>> byte_spans("aé", [b"a", b"\\xc3", b"\\xa9"])
    [(0, 1), (1, 2), (1, 2)]

    Raises:   ValueError when the pieces, joined, are not the text
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    if b"".join(pieces) != text.encode("utf-8"):
        raise ValueError("the tokens, joined, are not the text (this tokenizer changes what it "
                         "reads): which characters a token stands for cannot be told")
    # the byte at which each character begins, the end of the text included
    begins = [0, *accumulate(len(character.encode("utf-8")) for character in text)]
    ends = list(accumulate(map(len, pieces)))
    return [(bisect_right(begins, end - len(piece)) - 1,
             bisect_right(begins, end - 1) if piece else bisect_right(begins, end) - 1)
            for piece, end in zip(pieces, ends, strict=True)]


def _spelled(piece: bytes) -> str:
    return piece.decode("utf-8", errors="backslashreplace")


def _of_transformers(text: str, tokenizer: Any, before: Sequence[int]
                     ) -> tuple[list[int], list[str], Spans]:
    """The same from a fast tokenizer of transformers, which tells the offsets itself."""
    if not callable(tokenizer) or not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"{type(tokenizer).__name__} is neither a tokenizer of this course nor a "
                         "fast one of transformers, which tells where its tokens stand")
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = [(start, end) for start, end in read["offset_mapping"]]
    return ([*before, *read["input_ids"]],
            [*tokenizer.convert_ids_to_tokens(list(before)), *(text[a:b] for a, b in spans)],
            [*((0, 0) for _ in before), *spans])
