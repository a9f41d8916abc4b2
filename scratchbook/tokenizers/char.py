"""Characters as tokens: the smallest vocabulary and the longest sequences.

Adds:       a vocabulary learned from text, and a policy for characters it never saw
Leaves out: everything that makes sequences shorter (see bpe.py)

The law: decode(encode(text)) == text for every text whose characters were all kept in training,
and len(encode(text)) == len(text) always.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, Self

from scratchbook.tokenizers.base import (
    Tokenizer,
    as_texts,
    check_special_tokens,
    check_vocab_size,
    cut_out,
)

UNKNOWN = "<unk>"


class CharTokenizer(Tokenizer):
    """One token per character (Unicode code point).

    A character that training never saw becomes the one token `<unk>` and is lost: it decodes to
    the text "<unk>". With `unknown="error"` there is no such token, and encoding it raises.

    Raises:   ValueError for another policy
    Chapter:  chapters/01_tokenization.ipynb
    """

    kind = "char"

    def __init__(self, unknown: str = "unk") -> None:
        super().__init__()
        if unknown not in ("unk", "error"):
            raise ValueError(f"unknown={unknown!r} must be 'unk' or 'error'")
        self.unknown = unknown
        self._set_vocabulary("", [])

    def train(
        self,
        texts: str | Iterable[str],
        vocab_size: int | None = None,
        special_tokens: Collection[str] = (),
    ) -> Self:
        """Keep every character of the texts, or the most frequent ones that fit.

        Raises:   ValueError when the corpus is empty, when vocab_size leaves no room, or would
                  lose characters that the policy "error" promises to keep
        """
        special = check_special_tokens(special_tokens)
        counts: Counter[str] = Counter()
        for text in as_texts(texts):
            for part in cut_out(special, text)[::2]:  # a special token is not its characters
                counts.update(part)
        if not counts:
            raise ValueError("the corpus is empty: is `texts` a generator that was read before?")
        room = len(counts)
        if vocab_size is not None:
            room = check_vocab_size(vocab_size) - len(special) - (self.unknown == "unk")
            self._check_room(room, len(counts), vocab_size)
        # Equal counts are settled by code point, so the result does not depend on the order
        # in which the characters were met.
        kept = sorted(counts, key=lambda character: (-counts[character], character))[:room]
        self._set_vocabulary("".join(sorted(kept)), special)
        return self

    def _check_room(self, room: int, seen: int, vocab_size: int) -> None:
        if room < 1:
            raise ValueError(f"vocab_size={vocab_size} leaves no room for a single character")
        if self.unknown == "error" and room < seen:
            raise ValueError(
                f"vocab_size={vocab_size} has room for {room} of the {seen} characters: raise it, "
                "or use CharTokenizer(unknown='unk') and accept losing the rarest"
            )

    def _set_vocabulary(self, characters: str, special: Collection[str]) -> None:
        unknown = [UNKNOWN] if self.unknown == "unk" else []
        # dict.fromkeys: `<unk>` may be asked for as a special token, and is then the same one
        self.tokens = list(dict.fromkeys([*unknown, *characters, *special]))
        ids = {token: token_id for token_id, token in enumerate(self.tokens)}
        self._id_of = {character: ids[character] for character in characters}
        self.special_tokens = {token: ids[token] for token in special}

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < len(self.tokens):
            raise ValueError(f"token id {token_id} is outside of 0..{len(self.tokens) - 1}")
        return self.tokens[token_id].encode("utf-8")

    def _encode_ordinary(self, text: str) -> list[int]:
        if not self._id_of:
            raise ValueError("the vocabulary is empty: call train(texts) or load(path) first")
        if self.unknown == "unk":
            return [self._id_of.get(character, 0) for character in text]
        try:
            return [self._id_of[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            raise ValueError(
                f"the character {character!r} (U+{ord(character):04X}) was not in the training "
                "text: train on text that has it, or use CharTokenizer(unknown='unk')"
            ) from None

    def _state(self) -> dict[str, Any]:
        return {
            "unknown": self.unknown,
            "characters": "".join(self._id_of),
            "special_tokens": list(self.special_tokens),
        }

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        tokenizer = cls(state["unknown"])
        tokenizer._set_vocabulary(state["characters"], state["special_tokens"])
        return tokenizer
