"""Unigram, SentencePiece's tokenizer: of all ways to cut a text, take the most probable.

Every piece has a log-probability, a segmentation is as probable as the product of its pieces,
and the Viterbi algorithm finds the best one without trying them all.

Adds:       spaces as part of the pieces (written "▁"), bytes for characters without a piece
Leaves out: Unicode normalisation (SentencePiece's default NFKC changes the text), n-best lists
            and sampling
See also:   unigram_training.py, which learns the pieces and their probabilities

The law: with byte fallback, decode(encode(text)) == text for every text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any, Self

from scratchbook.tokenizers.base import (
    Tokenizer,
    as_texts,
    check_special_tokens,
    check_vocab_size,
    cut_out,
    ids_by_piece,
)
from scratchbook.tokenizers.unigram_training import MAX_WORD, learn_pieces

SPACE = "▁"  # U+2581, SentencePiece's visible space
UNKNOWN = "<unk>"
# An unknown character costs this much more than the rarest piece (SentencePiece's constant), so
# that it is used only where nothing else fits.
UNKNOWN_PENALTY = 10.0
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
# A stretch that begins with a space or has none. Pieces that never reach into the next stretch
# let each be cut, and remembered, by itself. Learned pieces do not cross the end of a line either.
_STRETCH = re.compile(f"{SPACE}?[^{SPACE}]+|{SPACE}")
_WORD = re.compile(f"{SPACE}?[^{SPACE}\\n]+|{SPACE}|\\n")
MAX_REMEMBERED = 100_000


class UnigramTokenizer(Tokenizer):
    """The most probable segmentation under independent pieces.

    With `space_prefix`, a space is put before the text (and taken away by decode), so that a word
    is the same piece at the start of a text as inside of it. Without `byte_fallback`, characters
    that no piece covers become the one token `<unk>` and are lost.

    Paper:    Kudo (2018), arXiv:1804.10959; Kudo and Richardson (2018), arXiv:1808.06226
    Chapter:  chapters/01_tokenization.ipynb
    """

    kind = "unigram"

    def __init__(self, byte_fallback: bool = True, space_prefix: bool = True) -> None:
        super().__init__()
        self.byte_fallback, self.space_prefix = byte_fallback, space_prefix
        self._set_vocabulary(self._reserved(), [])

    @classmethod
    def from_pieces(
        cls,
        pieces: Sequence[tuple[str, float]],
        special_tokens: Collection[str] = (),
        **options: Any,
    ) -> Self:
        """Build a tokenizer from (piece, log-probability) pairs in the order of their ids.

        `<unk>` must be among them, and with byte fallback the 256 pieces `<0x00>` to `<0xFF>`.
        Name SentencePiece's `<s>` and `</s>` as special tokens. The options are the class's.

        Raises:   ValueError when a piece is listed twice or one of those is missing
        """
        tokenizer = cls(**options)
        tokenizer._set_vocabulary(list(pieces), check_special_tokens(special_tokens))
        return tokenizer

    def train(
        self, texts: str | Iterable[str], vocab_size: int, special_tokens: Collection[str] = ()
    ) -> Self:
        """Learn pieces and probabilities: many candidates, then drop the least useful ones.

        Raises:   ValueError when the corpus is empty or vocab_size leaves no room for a piece
        """
        vocab_size = check_vocab_size(vocab_size)
        special = check_special_tokens(special_tokens)
        reserved = self._reserved()
        room = vocab_size - len(reserved) - len(special)
        if room < 1:
            raise ValueError(
                f"vocab_size={vocab_size} leaves no room: {len(reserved)} ids are {UNKNOWN} and "
                f"bytes, {len(special)} special tokens; byte_fallback=False frees 256"
            )
        # What spells a special token is no text to learn from.
        parts = (part for text in as_texts(texts) for part in cut_out(special, text)[::2])
        marked = (stretch for part in parts if part for stretch in self._marked(part))
        words = Counter(word for stretch in marked for word in _WORD.findall(stretch))
        if not words:
            raise ValueError("the corpus is empty: is `texts` a generator that was read before?")
        learned = learn_pieces(words, room, required=SPACE)
        # `<unk>` may be asked for as a special token, and is then the same one.
        added = [(token, 0.0) for token in special if token != UNKNOWN]
        self._set_vocabulary([*reserved, *learned, *added], special)
        return self

    def _reserved(self) -> list[tuple[str, float]]:
        return [(piece, 0.0) for piece in [UNKNOWN, *(BYTE_PIECES if self.byte_fallback else [])]]

    def _set_vocabulary(self, pieces: list[tuple[str, float]], special: Collection[str]) -> None:
        reserved = [piece for piece, _ in self._reserved()]
        ids = ids_by_piece([piece for piece, _ in pieces], [*reserved, *special])
        self.pieces = pieces
        self.special_tokens = {token: ids[token] for token in special}
        self._unknown_id = ids[UNKNOWN]
        self._byte_ids = [ids[piece] for piece in reserved[1:]]
        self._bytes = [piece.encode("utf-8") for piece, _ in pieces]
        for byte, token_id in enumerate(self._byte_ids):
            self._bytes[token_id] = bytes([byte])
        # Only the others can be found in text: a text that spells "<0x41>" gets no byte.
        never_found = {*reserved, *special}
        self._id_of = {piece: i for piece, i in ids.items() if piece not in never_found}
        for piece, token_id in self._id_of.items():
            self._bytes[token_id] = piece.replace(SPACE, " ").encode("utf-8")
        self._prepare_search()

    def _prepare_search(self) -> None:
        self._logprobs = {piece: self.pieces[i][1] for piece, i in self._id_of.items()}
        self._longest = max(map(len, self._id_of), default=0)
        self._unknown_logprob = min(self._logprobs.values(), default=0.0) - UNKNOWN_PENALTY
        self._cuts_at_spaces = all(SPACE not in piece[1:] for piece in self._id_of)
        self._remembered: dict[str, list[int]] = {}

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < len(self.pieces):
            raise ValueError(f"token id {token_id} is outside of 0..{len(self.pieces) - 1}")
        return self._bytes[token_id]

    def segment(self, text: str) -> list[str]:
        """Return the most probable pieces of a text whose spaces are written as "▁".

        A character that no piece covers stands alone.
        """
        best = [0.0] + [-math.inf] * len(text)  # log-probability of the best path to each place
        came_from = [0] * (len(text) + 1)
        for start in range(len(text)):
            for end in range(start + 1, min(start + self._longest, len(text)) + 1):
                logprob = self._logprobs.get(text[start:end])
                if logprob is None:
                    if end > start + 1:
                        continue
                    logprob = self._unknown_logprob
                # Strictly better: between equals the earlier start, the longer piece, stays.
                if best[start] + logprob > best[end]:
                    best[end], came_from[end] = best[start] + logprob, start
        pieces, end = [], len(text)
        while end > 0:
            pieces.append(text[came_from[end] : end])
            end = came_from[end]
        return pieces[::-1]

    def logprob(self, pieces: Sequence[str]) -> float:
        """Return the log-probability of a segmentation: the sum over its pieces."""
        return sum(self._logprobs.get(piece, self._unknown_logprob) for piece in pieces)

    def _marked(self, text: str) -> list[str]:
        """Write spaces as "▁" in the parts between those "▁" that the text itself holds."""
        start = " " if self.space_prefix else ""
        return [part.replace(" ", SPACE) for part in (start + text).split(SPACE)]

    def _encode_ordinary(self, text: str) -> list[int]:
        if not self._id_of:
            raise ValueError("the vocabulary is empty: call train(texts, vocab_size) or load(path)")
        ids: list[int] = []
        for i, part in enumerate(self._marked(text)):
            if i:  # the text's own "▁" must not come back as a space
                ids += self._spell(SPACE)
            for stretch in _STRETCH.findall(part) if self._cuts_at_spaces else [part]:
                ids += self._stretch_ids(stretch)
        return ids if self.byte_fallback else self._without_repeats(ids)

    def _stretch_ids(self, stretch: str) -> list[int]:
        """Return the ids of a stretch; most are words seen before, so they are remembered."""
        ids = self._remembered.get(stretch)
        if ids is None:
            ids = []
            for piece in self.segment(stretch):
                known = piece in self._id_of
                ids += [self._id_of[piece]] if known else self._spell(piece.replace(SPACE, " "))
            if len(self._remembered) < MAX_REMEMBERED and len(stretch) <= MAX_WORD:
                self._remembered[stretch] = ids
        return ids

    def _spell(self, character: str) -> list[int]:
        """Return the ids of a character without a piece."""
        if self.byte_fallback:
            return [self._byte_ids[byte] for byte in character.encode("utf-8")]
        return [self._unknown_id]

    def _without_repeats(self, ids: list[int]) -> list[int]:
        # A run of unknown characters is one unknown token, as in SentencePiece.
        pairs = zip([None, *ids], ids, strict=False)
        return [this for last, this in pairs if this != self._unknown_id or last != this]

    def _decode(self, ids: list[int], errors: str) -> str:
        special = set(self.special_tokens.values())
        text = b""
        for is_special, run in groupby(ids, key=special.__contains__):
            run_bytes = b"".join(map(self.token_bytes, run))
            # Encoding put a space before each stretch between special tokens.
            if self.space_prefix and not is_special:
                run_bytes = run_bytes.removeprefix(b" ")
            text += run_bytes
        return text.decode("utf-8", errors=errors)

    def _state(self) -> dict[str, Any]:
        return {
            "byte_fallback": self.byte_fallback,
            "space_prefix": self.space_prefix,
            "pieces": self.pieces,
            "special_tokens": list(self.special_tokens),
        }

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        pieces = [(str(piece), float(logprob)) for piece, logprob in state["pieces"]]
        options = {key: state[key] for key in ("byte_fallback", "space_prefix")}
        return cls.from_pieces(pieces, state["special_tokens"], **options)
