"""What every tokenizer of the course has in common.

Four tokenizers (characters, byte pairs, word pieces, unigrams) differ in how they learn a
vocabulary and how they cut text with it. They agree on everything in this file: which text they
accept, how special tokens are guarded, how ids become text again, and how a file is saved.

Special tokens, the policy. A special token such as `<|endoftext|>` steers a model, so text from
outside must never smuggle one in. It is tiktoken's rule:

    encode(text)                             ValueError where the text spells a special token
    encode(text, allowed_special={"<|a|>"})  those become their one id, the others still raise
    encode(text, allowed_special="all")      every special token becomes its one id
    encode_ordinary(text)                    nothing is special: `<|a|>` is five characters
"""

from __future__ import annotations

import json
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from scratchbook.runtime import write_atomically

FILE_FORMAT = "scratchbook tokenizer"
FILE_VERSION = 1


def check_text(text: str) -> str:
    """Return `text` if it is a string that UTF-8 can write, and raise otherwise.

    A Python string can hold half of a surrogate pair (from `json.loads('"\\\\ud83d"')`, say).
    It stands for no character and has no bytes, so whatever a tokenizer answered would be a guess.

    Raises:   TypeError for anything but str; ValueError for a lone surrogate
    """
    if not isinstance(text, str):
        hint = " (decode it first: text.decode('utf-8'))" if isinstance(text, bytes) else ""
        raise TypeError(f"a tokenizer reads str, got {type(text).__name__}{hint}")
    try:
        text.isascii() or text.encode("utf-8")
    except UnicodeEncodeError as error:
        position = error.start
        raise ValueError(
            f"text[{position}] is the surrogate U+{ord(text[position]):04X}, which is no character "
            "and has no UTF-8 bytes; text.encode('utf-16', 'surrogatepass').decode('utf-16', "
            "'replace') joins the pairs and puts U+FFFD for the rest"
        ) from None
    return text


def as_texts(texts: str | Iterable[str]) -> Iterator[str]:
    """Yield the checked texts of a corpus given as one string or as several."""
    for text in (texts,) if isinstance(texts, str) else texts:
        yield check_text(text)


def check_special_tokens(special_tokens: Collection[str]) -> list[str]:
    """Return the special tokens as a list without repetition or empty strings.

    Raises:   ValueError for one bare string, an empty token or a token given twice
    """
    if isinstance(special_tokens, str):
        raise ValueError(
            f"special_tokens={special_tokens!r} is one string: write [{special_tokens!r}]"
        )
    tokens = [check_text(token) for token in special_tokens]
    if "" in tokens or len(set(tokens)) < len(tokens):
        raise ValueError(f"special_tokens={tokens} holds an empty token or one token twice")
    return tokens


def check_vocab_size(vocab_size: int) -> int:
    """Return `vocab_size` if it is a whole number.

    Raises:   ValueError for anything else: None, "300", 300.0, nan, True
    """
    if isinstance(vocab_size, bool) or not hasattr(vocab_size, "__index__"):
        raise ValueError(f"vocab_size={vocab_size!r} must be a whole number, such as 300")
    return operator.index(vocab_size)


def any_of(special_tokens: Collection[str]) -> re.Pattern[str]:
    """A pattern that finds any of the tokens, the longest first, and captures it."""
    longest_first = sorted(special_tokens, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


def cut_out(special_tokens: Collection[str], text: str) -> list[str]:
    """Cut `text` at the special tokens: what stands between them, at even positions, and they
    themselves, at odd ones."""
    return any_of(special_tokens).split(text) if special_tokens else [text]


def ids_by_piece(pieces: list[str], needed: list[str]) -> dict[str, int]:
    """Return the id of each piece, its place in the list, once the list is sound."""
    ids = {piece: token_id for token_id, piece in enumerate(pieces)}
    if len(ids) < len(pieces):
        twice = next(piece for i, piece in enumerate(pieces) if ids[piece] != i)
        raise ValueError(f"the piece {twice!r} is listed twice")
    if missing := [piece for piece in needed if piece not in ids]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"the {len(pieces)} pieces lack {', '.join(missing[:3])}{more}")
    return ids


class Tokenizer(ABC):
    """The interface of all tokenizers, and the parts of it that never differ.

    A subclass sets `kind` and implements `train`, `_encode_ordinary`, `vocab_size`,
    `token_bytes`, `_state` and `_from_state`; one whose tokens are not slices of the text's bytes
    overrides `_decode` as well.

    Chapter:  chapters/01_tokenization.ipynb
    """

    kind: ClassVar[str]
    _classes: ClassVar[dict[str, type[Tokenizer]]] = {}

    def __init__(self) -> None:
        self.special_tokens: dict[str, int] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "kind" in cls.__dict__:
            Tokenizer._classes[cls.kind] = cls

    # what a subclass must say

    @abstractmethod
    def train(
        self, texts: str | Iterable[str], vocab_size: int, special_tokens: Collection[str] = ()
    ) -> Self:
        """Learn a vocabulary of at most `vocab_size` tokens, special ones included; return self."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """The number of rows that an embedding needs: the largest id plus one."""

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token (UTF-8, and possibly only part of a character)."""

    @abstractmethod
    def _encode_ordinary(self, text: str) -> list[int]:
        """The ids of text that is already checked and holds nothing special."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """All that `_from_state` needs, as JSON can write it."""

    @classmethod
    @abstractmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        """The tokenizer whose `_state` this was. KeyError, TypeError or ValueError if it is not."""

    # text to ids and back

    def encode(self, text: str, allowed_special: str | Collection[str] = ()) -> list[int]:
        """Turn text into ids; special tokens are refused unless allowed.

        `allowed_special` is a collection of special tokens or "all". To read `<|endoftext|>` as the
        13 characters that it is, call `encode_ordinary`.

        Raises:   ValueError for a special token that is not allowed and for a lone surrogate
        """
        check_text(text)
        allowed = self._allowed(allowed_special)
        self._refuse(text, self.special_tokens.keys() - allowed)
        ids: list[int] = []
        for position, part in enumerate(cut_out(allowed, text)):
            if position % 2:
                ids.append(self.special_tokens[part])
            elif part:
                ids += self._encode_ordinary(part)
        return ids

    def encode_ordinary(self, text: str) -> list[int]:
        """Turn text into ids as if there were no special tokens."""
        return self._encode_ordinary(check_text(text))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Turn ids back into text.

        A list of ids may end in the middle of a character, or a model may have made one up that
        is not UTF-8: such bytes become U+FFFD unless `errors="strict"`.

        Raises:   ValueError for an id outside the vocabulary
        """
        return self._decode([operator.index(token_id) for token_id in ids], errors)

    def _decode(self, ids: list[int], errors: str) -> str:
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors=errors)

    def _allowed(self, allowed_special: str | Collection[str]) -> set[str]:
        if allowed_special == "all":
            return set(self.special_tokens)
        if isinstance(allowed_special, str):
            raise ValueError(
                f"allowed_special={allowed_special!r} is neither 'all' nor a set: "
                f"write {{{allowed_special!r}}}"
            )
        if unknown := set(allowed_special) - self.special_tokens.keys():
            raise ValueError(
                f"allowed_special names {sorted(unknown)}; "
                f"the special tokens are {sorted(self.special_tokens)}"
            )
        return set(allowed_special)

    @staticmethod
    def _refuse(text: str, disallowed: Collection[str]) -> None:
        if disallowed and (found := any_of(disallowed).search(text)):
            token = found.group()
            raise ValueError(
                f"the text spells the special token {token!r} at position {found.start()}: pass "
                f"allowed_special={{{token!r}}} to mean it, or use encode_ordinary for plain text"
            )

    # files

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as one readable JSON file, whole or not at all."""
        state = {"format": FILE_FORMAT, "version": FILE_VERSION, "kind": self.kind, **self._state()}
        write_atomically(Path(path), json.dumps(state, ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a tokenizer written by `save`; `Tokenizer.load` reads any kind.

        Raises:   ValueError when the file is damaged, foreign, newer, or of another kind
        """
        state = read_json(path)
        if state.get("format") != FILE_FORMAT:
            raise ValueError(f"{path} was not written by a tokenizer's save()")
        if state.get("version") != FILE_VERSION:
            raise ValueError(
                f"{path} has version {state.get('version')} of the format and this package reads "
                f"version {FILE_VERSION}: train and save the tokenizer again, or update the package"
            )
        found = cls._classes.get(state.get("kind", ""))
        if found is None or not issubclass(found, cls):
            way_out = f"use {found.__name__}.load" if found else f"known: {sorted(cls._classes)}"
            raise ValueError(f"{path} holds a tokenizer of kind {state.get('kind')!r}: {way_out}")
        with damage_reported(path):
            return found._from_state(state)  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size})"


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:   FileNotFoundError; ValueError when it is cut short or holds anything else
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not readable as JSON ({error}): it is cut short or another kind of file; "
            "save or fetch it again"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__} where an object is expected")
    return value


class NotSupported(ValueError):
    """A sound file asks for something that this package does not do."""


@contextmanager
def damage_reported(path: str | Path) -> Iterator[None]:
    """Turn whatever a file raises inside the `with` block into a ValueError naming it."""
    try:
        yield
    except NotSupported as error:
        raise NotSupported(f"{path} is not supported here: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}); save or fetch it again"
        ) from error
