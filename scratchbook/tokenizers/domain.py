"""A tokenizer for logs: lines that resemble earlier ones are folded, the rest is byte pairs.

`fold` (folding.py) writes a log as marks and strings; each mark is one token, the strings go
through BPE. Training learns which lines are common enough to own a mark for good, then the byte
pairs of what is left. A line without a forerunner costs what BPE takes, or one token more.

What it saves it saves by looking back. So its tokens mean little alone (`LIKE 3` is a line only
together with what came before), a list cannot be read from its middle, and a model must learn to
look back as well. Chapter 01b measures both sides: tokens, and bits per byte of a small model.

For Rails there is no class of its own: it is `HybridTokenizer("rails")`, a row of a table.

Chapter:  chapters/01b_domain_tokenizers.ipynb
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, Self

from scratchbook.tokenizers.base import (
    Tokenizer,
    as_texts,
    check_special_tokens,
    check_text,
    check_vocab_size,
    cut_out,
)
from scratchbook.tokenizers.bpe import BPETokenizer
from scratchbook.tokenizers.folding import (
    LINE,
    LONGEST_LINE,
    Folded,
    Mark,
    cut_line,
    fold,
    marks,
    unfold,
)

FEWEST_LINES = 3  # of one template, before it may be learned
MOST_TEMPLATES = 400


def learn_templates(texts: str | Iterable[str], most: int = MOST_TEMPLATES) -> list[str]:
    """Find the templates that cover most characters, each as the first line that had it.

    A template is a line with its words that hold a digit blanked out.
    """
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for text in as_texts(texts):
        for line in LINE.findall(text):
            if len(line) <= LONGEST_LINE:
                template = cut_line(line)[1]
                counts[template] += 1
                first.setdefault(template, line)
    common = [template for template, count in counts.items() if count >= FEWEST_LINES]
    common.sort(key=lambda template: -counts[template] * len(template))
    return [first[template] for template in common[:most]]


class LogTokenizer(Tokenizer):
    """Folding, then byte-level BPE over what is left.

    Ids: those of the BPE, its special tokens among them, then one per mark of `folding.marks`.

    Shapes:   `bpe` and `templates` are what training sets; `LogTokenizer.over(bpe)` folds for a
              vocabulary that exists already
    Raises:   ValueError for an unknown pattern
    Chapter:  chapters/01b_domain_tokenizers.ipynb
    """

    kind = "logs"

    def __init__(self, pattern: str = "cl100k") -> None:
        super().__init__()
        self._set_vocabulary(BPETokenizer(pattern), [])

    def _set_vocabulary(self, bpe: BPETokenizer, templates: Iterable[str]) -> None:
        self.bpe, self.templates = bpe, list(templates)
        self.special_tokens = bpe.special_tokens
        self.marks = marks(len(self.templates))
        self._id_of = {mark: bpe.vocab_size + place for place, mark in enumerate(self.marks)}

    @classmethod
    def over(cls, bpe: BPETokenizer, templates: Iterable[str] = ()) -> Self:
        """Fold for a given BPE: cl100k, say. `templates` are example lines that own a mark.

        Raises:   ValueError for a template that is not one line, and for no list of them
        """
        if isinstance(templates, str | dict):
            raise ValueError(f"templates={templates!r:.80} must be a list of lines")
        lines = [check_text(template) for template in templates]
        if wrong := [line for line in lines if LINE.findall(line) != [line]]:
            raise ValueError(f"the template {wrong[0][:80]!r} is not one line")
        tokenizer = cls(bpe.pattern)
        tokenizer._set_vocabulary(bpe, lines)
        return tokenizer

    def train(self, texts: str | Iterable[str], vocab_size: int,
              special_tokens: Collection[str] = (), most_templates: int = MOST_TEMPLATES) -> Self:
        """Learn templates, then merges from what folding leaves, up to `vocab_size` tokens.

        Templates take a quarter of the vocabulary's room at the most.

        Raises:   ValueError when `vocab_size` has no room or the corpus is empty
        """
        special = check_special_tokens(special_tokens)
        room = check_vocab_size(vocab_size) - 256 - len(marks(0)) - len(special)
        if room < 0:
            raise ValueError(f"vocab_size={vocab_size} is too small: 256 bytes, {len(marks(0))} "
                             f"marks and {len(special)} special tokens need {vocab_size - room}")
        parts = [part for text in as_texts(texts) for part in cut_out(special, text)[::2]]
        templates = learn_templates(parts, min(most_templates, room // 4))
        strings = [step for part in parts for step in fold(part, templates)
                   if isinstance(step, str)]
        bpe = BPETokenizer(self.bpe.pattern)
        bpe.train(strings, vocab_size - len(marks(len(templates))), special)
        self._set_vocabulary(bpe, templates)
        return self

    def fold(self, text: str) -> Folded:
        """The text as marks and strings, before byte pairs."""
        return fold(check_text(text), self.templates)

    def _encode_ordinary(self, text: str) -> list[int]:
        ids: list[int] = []
        for step in fold(text, self.templates):
            if isinstance(step, str):
                ids += self.bpe.encode_ordinary(step)
            else:
                ids.append(self._id_of[step])
        return ids

    def _decode(self, ids: list[int], errors: str) -> str:
        specials = {token_id: token for token, token_id in self.special_tokens.items()}
        texts: list[str] = []
        folded: Folded = []
        pairs = bytearray()
        for token_id in [*ids, None]:
            place = -1 if token_id is None else token_id - self.bpe.vocab_size
            if token_id is not None and place < 0 and token_id not in specials:
                pairs += self.bpe.token_bytes(token_id)
                continue
            if pairs:
                folded.append(pairs.decode("utf-8", errors=errors))
                pairs.clear()
            if place >= 0:
                folded.append(self._mark(token_id))
            else:  # each text between special tokens was folded by itself
                texts += [unfold(folded, self.templates, errors), specials.get(token_id, "")]
                folded = []
        return "".join(texts)

    def _mark(self, token_id: int) -> Mark:
        place = token_id - self.bpe.vocab_size
        if place >= len(self.marks):
            raise ValueError(f"id {token_id} is not in this vocabulary of {self.vocab_size}")
        return self.marks[place]

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token that is no mark.

        Raises:   ValueError for a mark, which has bytes only where it stands, and an unknown id
        """
        if token_id >= self.bpe.vocab_size:
            raise ValueError(f"id {token_id} is {self._mark(token_id)}, whose bytes depend on the "
                             "lines before it: decode the whole list")
        return self.bpe.token_bytes(token_id)

    def describe(self, token_id: int) -> str:
        """A token as a person reads it: a mark's name and number, or the text."""
        if token_id >= self.bpe.vocab_size:
            mark = self._mark(token_id)
            return mark.kind if mark.kind in ("TEXT", "FAR") else f"{mark.kind} {mark.number}"
        return self.bpe.token_bytes(token_id).decode("utf-8", errors="replace")

    @property
    def vocab_size(self) -> int:
        return self.bpe.vocab_size + len(self.marks)

    def _state(self) -> dict[str, Any]:
        return {"bpe": self.bpe._state(), "templates": self.templates}

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        return cls.over(BPETokenizer._from_state(state["bpe"]), state["templates"])
