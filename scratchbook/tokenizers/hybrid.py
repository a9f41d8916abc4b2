"""A tokenizer that switches by context: words of the language whole, the rest by byte pairs.

A text is cut into regions (languages.py): code, and prose, which is comments and strings. Each has
a first cut of its own. What a chunk becomes depends on where it stands:

    prose                  byte pairs, over the cut of GPT-4 (cl100k)
    code: a listed word    one token, whatever was trained: `return`, ` return`
    code: another name     byte pairs, or one token per byte with identifiers="bytes"
    code: the rest         byte pairs, over chunks such as `):` with the next line's indentation

The word `if` in a comment is text, and has another id than the keyword. No token marks a switch:
the regions are found again when the text is read again, and decoding only joins bytes. So every
text comes back byte for byte, also one in another language or in none.

Ids: the byte pairs, then special tokens, then the words, group after group. `extended` adds a
group behind all others, so that no id moves.

Chapter:  chapters/01b_domain_tokenizers.ipynb
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, Self

from scratchbook.tokenizers import bpe_files
from scratchbook.tokenizers.base import (
    Tokenizer,
    as_texts,
    check_special_tokens,
    check_text,
    check_vocab_size,
    cut_out,
)
from scratchbook.tokenizers.bpe_encoding import ChunkCache
from scratchbook.tokenizers.bpe_training import byte_ranks, learn_merges
from scratchbook.tokenizers.languages import CODE, KEYWORDS, LANGUAGES, NAME, Groups, Language
from scratchbook.tokenizers.splits import Splitter


class CodeCache(ChunkCache):
    """From chunks of code to ids: listed words first, then as in every byte-level BPE."""

    def __init__(self, ranks: Mapping[bytes, int], words: Mapping[str, int], spell: bool) -> None:
        super().__init__(ranks)
        self._words, self._spell = words, spell

    def __missing__(self, chunk: str) -> list[int]:
        if (word := self._words.get(chunk)) is not None:
            self[chunk] = [word]
            return self[chunk]
        if chunk[1:] in self._words:  # behind a mark: `(not`
            return [*self[chunk[0]], self._words[chunk[1:]]]
        if self._spell and NAME.fullmatch(chunk):
            return [self._ranks[bytes([byte])] for byte in chunk.encode("utf-8")]
        return super().__missing__(chunk)


class HybridTokenizer(Tokenizer):
    """Byte pairs for text, whole words for what a language names, and a cut for each.

    `language` is a row of `LANGUAGES`, by name, or one of your own. `identifiers` is "pairs" or
    "bytes".

    Raises:   ValueError for an unknown language or way with identifiers
    Chapter:  chapters/01b_domain_tokenizers.ipynb
    """

    kind = "hybrid"

    def __init__(self, language: str | Language = "python", identifiers: str = "pairs") -> None:
        super().__init__()
        if isinstance(language, str) and language not in LANGUAGES:
            raise ValueError(f"language={language!r} is unknown: choose one of {list(LANGUAGES)}")
        if identifiers not in ("pairs", "bytes"):
            raise ValueError(f"identifiers={identifiers!r} must be 'pairs' or 'bytes'")
        self.language = LANGUAGES[language] if isinstance(language, str) else language
        self.identifiers = identifiers
        self._splitter = Splitter("cl100k")
        self._set_vocabulary(byte_ranks(), [])

    def _set_vocabulary(self, ranks: dict[bytes, int], special_tokens: Collection[str]) -> None:
        special = {token: len(ranks) + place for place, token in enumerate(special_tokens)}
        bpe_files.check_vocabulary(ranks, special)
        self.ranks, self.special_tokens = ranks, special
        self.words: dict[str, int] = {}
        self._group_of: dict[int, str] = {}
        first = len(ranks) + len(special)
        for group, members in self.language.groups.items():
            for form in _forms(group, members):
                self.words[form] = first + len(self.words)
                self._group_of[self.words[form]] = group
        self._tokens = [*ranks, *(word.encode("utf-8") for word in [*special, *self.words])]
        self._prose = ChunkCache(ranks)
        self._code = CodeCache(ranks, self.words, self.identifiers == "bytes")

    # learning

    def train(
        self, texts: str | Iterable[str], vocab_size: int, special_tokens: Collection[str] = ()
    ) -> Self:
        """Learn merges from whatever is no listed word, until there are `vocab_size` tokens.

        Raises:   ValueError when `vocab_size` has no room or the corpus is empty
        """
        special = check_special_tokens(special_tokens)
        num_merges = check_vocab_size(vocab_size) - 256 - len(special) - len(self.words)
        if num_merges < 0:
            raise ValueError(f"vocab_size={vocab_size} is too small: 256 bytes, {len(self.words)} "
                             f"words and {len(special)} special tokens need {256 - num_merges}")
        counts: Counter[str] = Counter()
        for text in as_texts(texts):
            for part in cut_out(special, text)[::2]:
                code, prose = self._chunks(part)
                counts.update(filter(None, map(self._learned, code)))
                counts.update(prose)
        if not counts:
            raise ValueError("the corpus is empty: is `texts` a generator that was read before?")
        chunk_counts = {chunk.encode("utf-8"): count for chunk, count in counts.items()}
        self._set_vocabulary(learn_merges(chunk_counts, num_merges), special)
        return self

    def _learned(self, chunk: str) -> str:
        """What of a chunk of code goes through the byte pairs, maybe nothing."""
        if chunk in self.words:
            return ""
        if chunk[1:] in self.words:
            return chunk[0]
        return "" if self.identifiers == "bytes" and NAME.fullmatch(chunk) else chunk

    def _chunks(self, text: str) -> tuple[Iterable[str], Iterable[str]]:
        regions = self.language.regions(text)
        code = chain.from_iterable(map(CODE.findall, regions[::2]))
        return code, chain.from_iterable(map(self._splitter.split, regions[1::2]))

    def extended(self, group: str, words: Iterable[str]) -> Self:
        """The same tokenizer with one more group of whole words; every old id stays.

        Raises:   ValueError for a group or a word that is there already, and for a word that the
                  cut for code never finds whole
        """
        if isinstance(words, str):
            raise ValueError(f"words={words!r} is one string: write [{words!r}]")
        if group in self.language.groups:
            raise ValueError(f"there is a group {group!r} already: give the new one its own name")
        members = tuple(map(check_text, words))
        groups: Groups = {**self.language.groups, group: members}
        longer = type(self)(replace(self.language, groups=groups), self.identifiers)
        longer._set_vocabulary(self.ranks, list(self.special_tokens))
        return longer

    # text to ids and back

    def _encode_ordinary(self, text: str) -> list[int]:
        ids: list[int] = []
        code, prose = self._code.__getitem__, self._prose.__getitem__
        for place, region in enumerate(self.language.regions(text)):
            if place % 2:
                ids += chain.from_iterable(map(prose, self._splitter.split(region)))
            elif region:
                ids += chain.from_iterable(map(code, CODE.findall(region)))
        return ids

    def split(self, text: str) -> list[tuple[str, str]]:
        """The chunks of a text, each with its context: "code" or "prose"."""
        chunks: list[tuple[str, str]] = []
        for place, region in enumerate(self.language.regions(text)):
            cut = self._splitter.split if place % 2 else CODE.findall
            chunks += [("prose" if place % 2 else "code", chunk) for chunk in cut(region) if chunk]
        return chunks

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < len(self._tokens):
            raise ValueError(f"id {token_id} is not in this vocabulary of {self.vocab_size}")
        return self._tokens[token_id]

    def group_of(self, token_id: int) -> str | None:
        """The group of a listed word's id, None for any other token."""
        return self._group_of.get(token_id)

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    # files

    def _state(self) -> dict[str, Any]:
        return {
            "language": self.language.name,
            "groups": {group: list(words) for group, words in self.language.groups.items()},
            "identifiers": self.identifiers,
            "special_tokens": list(self.special_tokens),
            "tokens": [bpe_files.to_visible(token) for token in self.ranks],
        }

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        groups = {group: tuple(map(check_text, words)) for group, words in state["groups"].items()}
        language = replace(LANGUAGES[state["language"]], groups=groups)
        tokenizer = cls(language, state["identifiers"])
        tokens = [bpe_files.from_visible(token) for token in state["tokens"]]
        ranks = {token: rank for rank, token in enumerate(tokens)}
        if len(ranks) < len(tokens):
            raise ValueError("a token is listed twice")
        tokenizer._set_vocabulary(ranks, check_special_tokens(state["special_tokens"]))
        return tokenizer


def _forms(group: str, words: Iterable[str]) -> list[str]:
    """What one token may hold of a word: alone, after a space and, if it can be sent, a full stop.

    The marks that open a piece of code have nothing of it before them.
    """
    before = ("", " ") if group in KEYWORDS else ("", " ", ".")
    return [mark + word for word in words for mark in
            (before if NAME.fullmatch(word) else before[:1] if word[0] == "<" else before[:2])]
