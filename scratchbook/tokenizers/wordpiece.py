"""WordPiece, BERT's tokenizer: cut each word by taking the longest known piece again and again.

Adds:       a vocabulary whose pieces know whether they begin a word ("un") or continue one
            ("##able"), and three rules for learning it
Leaves out: BERT's normaliser (lower case, accents, spaces around Chinese characters)
See also:   wordpiece_training.py, which learns the pieces

The law: the words of decode(encode(text)) are the words of text whenever no word became the
unknown token. Spacing is lost: decode puts one space between any two words, punctuation included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Self

import regex

from scratchbook.tokenizers.base import (
    Tokenizer,
    as_texts,
    check_special_tokens,
    check_vocab_size,
    cut_out,
    ids_by_piece,
)
from scratchbook.tokenizers.wordpiece_training import learn_pieces

# A word is a run without white space and punctuation; each punctuation mark is a word of its own.
# Like BERT, count the ASCII symbols that Unicode does not call punctuation: $ + < = > ^ ` | ~
_PUNCTUATION = r"\p{P}$+<=>^`|~"
_WORD = regex.compile(rf"[{_PUNCTUATION}]|[^\p{{White_Space}}{_PUNCTUATION}]+")


def split_words(text: str) -> list[str]:
    """Cut text into words and punctuation marks, dropping white space.

    The same words as `BertPreTokenizer` of the `tokenizers` library.

    Chapter:  chapters/01_tokenization.ipynb
    """
    return _WORD.findall(text)


class WordPieceTokenizer(Tokenizer):
    """Greedy longest-match-first segmentation of words into learned pieces.

    A piece inside a word carries the prefix "##". A word with any part that no piece covers, or
    longer than `max_word_chars`, becomes the single token `[UNK]` and is lost.

    Raises:   ValueError when the prefix is not punctuation
    Paper:    Schuster and Nakajima (2012), "Japanese and Korean voice search"; the greedy search
              is that of BERT, Devlin et al. (2018), arXiv:1810.04805
    Chapter:  chapters/01_tokenization.ipynb
    """

    kind = "wordpiece"

    def __init__(
        self, unknown: str = "[UNK]", prefix: str = "##", max_word_chars: int = 100
    ) -> None:
        super().__init__()
        if not regex.fullmatch(f"[{_PUNCTUATION}]+", prefix):
            raise ValueError(
                f"prefix={prefix!r} must be punctuation, which no word holds: use '##'"
            )
        self.unknown, self.prefix, self.max_word_chars = unknown, prefix, max_word_chars
        self._set_vocabulary([unknown], [])

    @classmethod
    def from_vocab(
        cls, pieces: Sequence[str], special_tokens: Collection[str] = (), **options: Any
    ) -> Self:
        """Build a tokenizer from a list of pieces in the order of their ids.

        A BERT vocabulary is `Path("vocab.txt").read_text(encoding="utf-8").splitlines()` with
        `special_tokens=["[PAD]", "[CLS]", "[SEP]", "[MASK]"]`. The options are those of the class.

        Raises:   ValueError when a piece is listed twice or the unknown token is missing
        """
        tokenizer = cls(**options)
        tokenizer._set_vocabulary(list(pieces), check_special_tokens(special_tokens))
        return tokenizer

    def train(
        self,
        texts: str | Iterable[str],
        vocab_size: int,
        special_tokens: Collection[str] = (),
        score: str = "likelihood",
    ) -> Self:
        """Learn pieces by joining pairs of pieces, the pair of highest `score` first.

        "likelihood" joins the pair that makes the training text most probable, "ratio" is
        count(ab) / (count(a) * count(b)), and "count" is the rule of byte-pair encoding.

        Raises:   ValueError for another score, an empty corpus, or a vocab_size without room
        """
        vocab_size = check_vocab_size(vocab_size)
        special = check_special_tokens(special_tokens)
        room = vocab_size - 1 - len(special)
        if room < 1:
            raise ValueError(f"vocab_size={vocab_size} leaves no room for a single piece")
        # What spells a special token is no text to learn from, nor is a word too long to be cut.
        parts = (part for text in as_texts(texts) for part in cut_out(special, text)[::2])
        words = Counter(word for part in parts for word in split_words(part)
                        if len(word) <= self.max_word_chars)
        if not words:
            raise ValueError("the corpus is empty: is `texts` a generator that was read before? "
                             f"(Words of over {self.max_word_chars} letters do not count.)")
        pieces = learn_pieces(words, room, score, self.prefix)
        # dict.fromkeys: the unknown token may be asked for as a special one, and is then the same.
        self._set_vocabulary(list(dict.fromkeys([self.unknown, *pieces, *special])), special)
        return self

    def _set_vocabulary(self, pieces: list[str], special: Collection[str]) -> None:
        ids = ids_by_piece(pieces, [self.unknown, *special])
        self.pieces = pieces
        self.special_tokens = {token: ids[token] for token in special}
        # Special tokens are found before words are cut, and never by spelling them in a word.
        self._id_of = {p: i for p, i in ids.items() if p == self.unknown or p not in special}
        self._longest = max(map(len, self._id_of))

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def token_bytes(self, token_id: int) -> bytes:
        return self._piece(token_id).removeprefix(self.prefix).encode("utf-8")

    def _piece(self, token_id: int) -> str:
        if not 0 <= token_id < len(self.pieces):
            raise ValueError(f"token id {token_id} is outside of 0..{len(self.pieces) - 1}")
        return self.pieces[token_id]

    def segment(self, word: str) -> list[str]:
        """Cut one word into pieces: the longest that fits at the start, then at each next place."""
        if len(word) > self.max_word_chars:
            return [self.unknown]
        pieces, start = [], 0
        while start < len(word):
            piece = self._longest_piece(word, start)
            if piece is None:  # one gap loses the whole word, as in BERT
                return [self.unknown]
            pieces.append(piece)
            start += len(piece) - (len(self.prefix) if start else 0)
        return pieces

    def _longest_piece(self, word: str, start: int) -> str | None:
        prefix = self.prefix if start else ""
        for end in range(min(len(word), start + self._longest), start, -1):
            if (piece := prefix + word[start:end]) in self._id_of:
                return piece
        return None

    def _encode_ordinary(self, text: str) -> list[int]:
        if len(self.pieces) == 1:
            raise ValueError("the vocabulary is empty: call train(texts, vocab_size) or load(path)")
        return [self._id_of[piece] for word in split_words(text) for piece in self.segment(word)]

    def _decode(self, ids: list[int], errors: str) -> str:
        # The first piece has no word to continue, so it begins one even when it carries "##".
        words = [
            piece.removeprefix(self.prefix) if i and piece.startswith(self.prefix) else f" {piece}"
            for i, piece in enumerate(map(self._piece, ids))
        ]
        return "".join(words).removeprefix(" ")

    def _state(self) -> dict[str, Any]:
        return {
            "unknown": self.unknown,
            "prefix": self.prefix,
            "max_word_chars": self.max_word_chars,
            "pieces": self.pieces,
            "special_tokens": list(self.special_tokens),
        }

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        options = {key: state[key] for key in ("unknown", "prefix", "max_word_chars")}
        return cls.from_vocab(state["pieces"], state["special_tokens"], **options)
