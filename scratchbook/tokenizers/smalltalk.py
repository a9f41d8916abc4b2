r"""Byte-pair encoding that knows where a Smalltalk message ends.

GPT-2's first cut parts `at:` into a word and a mark, and every tab from every other. The cut of
this file keeps whole what a reader of Smalltalk takes in at one glance. What one token may hold:

    a selector part     ` at:`, with the mark that opens its argument: ` ifTrue: [`, ` add: (`
    a fixed receiver    `self`, `super`, `true`, `false`, `nil`, `thisContext`, with the unary
                        selector or the keyword behind it: ` self size`, ` self assert:`
    a block's head      ` :each |`; and its brackets, as marks
    a name              ` aStream`, `#at:put:`, with one mark before it: `(aSet`
    a number            three digits at the most
    an operator         ` +`, ` -->`, ` := self`, with the mark that opens its argument: ` , '`
    layout              closing marks, the full stop, the line break with its tabs, and what opens
                        the next line: `].\n\t\t`, `.\n\t^ self`, `\n\t| `

No token holds letters or digits both of a selector and of its argument, nor two names: between
`at:` and `index`, or `+` and `1`, every text is cut, whatever the vocabulary. That is a law of the
cut, so the tokens of every trained vocabulary obey it.

The cut reads characters, not the syntax: in a comment or a string the same rules apply, and a
text that is no Smalltalk at all comes back byte for byte too. A character beyond ASCII counts as a
letter, so no version of Unicode can change an id. Every repetition in the pattern is of one
class of characters and what follows it is of another: reading stays linear.

Paper:    Sennrich et al. (2016), arXiv:1508.07909, for what happens inside of a chunk
Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from scratchbook.runtime import write_atomically
from scratchbook.smalltalk.parts import SPECIAL_TOKENS, Part
from scratchbook.tokenizers import bpe_files
from scratchbook.tokenizers.bpe import BPETokenizer

_LETTER = "A-Za-z_\x80-\U0010ffff"
_NAME = f"[{_LETTER}][0-9{_LETTER}]*"
_OPERATOR = r"[-+*/\\~<>=@%&?,|!]+"
_NO_MORE = f"(?![0-9:{_LETTER}])"  # the name ends here and is no keyword
_OPENED = r"(?: ?[(\[{#'](?: ?[(\[{#'^])?)?"  # the marks that open an argument
_KEYWORD = f"{_NAME}:(?!=){_OPENED}"
_FIXED = f"(?:self|super|true|false|nil|thisContext){_NO_MORE}"
_UNARY = f"{_FIXED}(?: {_NAME}{_NO_MORE})?"
# `at: self put: x` has no `self put:` in it: a keyword joins its receiver only where an
# expression begins: after `^`, `:=` or a full stop
_SEND = f"{_FIXED}(?: (?:{_NAME}{_NO_MORE}|{_KEYWORD}))?"
_BREAK = r"[ \t]*\n[ \t\n]*"
_OPENING = r"[\"|<(\[{#'] ?"
_LINE = rf"{_BREAK}(?:\^ ?(?:{_SEND})?|{_UNARY}|{_OPENING})?"  # with what opens the next line
_STATEMENT = rf"{_BREAK}(?:\^ ?(?:{_SEND})?|{_SEND}|{_OPENING})?"

# Tried in this order at every place; the last takes any one character.
PATTERN = "|".join([
    rf" ?[)\]}}'\"](?: ?[)\]}}'\"])*(?:\.(?:{_STATEMENT})?|;?(?:{_LINE})?)",  # closing marks
    rf" ?\.{_STATEMENT}",
    rf" ?;{_LINE}",
    _LINE,
    f" ?{_UNARY}",
    f" ?{_KEYWORD}",
    rf" ?:{_NAME}(?: ?\|(?!\|))?",  # a block's parameter
    rf" ?\^(?: ?{_SEND})?",
    f" ?#(?:{_NAME}(?::(?:{_NAME}:)*)?|{_OPERATOR})",  # a symbol
    f" ?[(#]?{_NAME}",
    " ?[0-9]{1,3}",
    r" ?\$[\s\S]",  # a character literal
    rf" ?:=(?: (?:{_SEND}|[(\[{{#']))?",
    rf" ?[|>]{_BREAK}",  # the end of temporaries, or of a pragma
    rf" ?{_OPERATOR}(?: ?[(\[{{#'])?",
    r" ?[(\[{#]{1,3}",
    r"[ \t]+(?=[ \t])|[\s\S]",
])


class SmalltalkSplitter:
    """The first cut of Smalltalk, with the interface of the other patterns' `Splitter`."""

    pattern = "smalltalk"
    _find = re.compile(PATTERN, re.ASCII).findall

    def split(self, text: str) -> list[str]:
        """Cut text into chunks; joined, they are the text."""
        return self._find(text)

    def blocks(self, text: str) -> Iterator[list[str]]:
        """All chunks at once: a method is short."""
        yield self._find(text)


class SmalltalkTokenizer(BPETokenizer):
    """Byte-level BPE over the first cut of Smalltalk.

    It is trained, encodes, decodes and is saved as every tokenizer of the course; `encode_parts`
    besides reads what `scratchbook.smalltalk.tasks` builds, in which special tokens are marked and
    never spelled by the text.

    Raises:   ValueError for another pattern
    Chapter:  chapters/09_smalltalk_model.ipynb
    """

    kind = "smalltalk"

    def __init__(self, pattern: str = SmalltalkSplitter.pattern) -> None:
        if pattern != SmalltalkSplitter.pattern:
            raise ValueError(
                f"pattern={pattern!r}: this tokenizer has one, {SmalltalkSplitter.pattern!r}; "
                "use BPETokenizer for the others"
            )
        super().__init__()
        self._splitter = SmalltalkSplitter()  # type: ignore[assignment]
        self.pattern = pattern

    def train(self, texts: str | Iterable[str], vocab_size: int,
              special_tokens: Iterable[str] = SPECIAL_TOKENS) -> Self:
        """Learn a vocabulary; the special tokens of the Smalltalk tasks are part of it."""
        return super().train(texts, vocab_size, list(special_tokens))

    def encode_parts(self, parts: Iterable[Part]) -> tuple[list[int], list[bool]]:
        """The ids of marked parts, and of each id whether a model is to learn to write it.

        Raises:   ValueError for a special part that is none of this vocabulary
        """
        ids: list[int] = []
        learned: list[bool] = []
        for part in parts:
            if not part.special:
                ids += self.encode_ordinary(part.text)
            elif part.text in self.special_tokens:
                ids.append(self.special_tokens[part.text])
            else:
                raise ValueError(f"{part.text!r} is none of the special tokens "
                                 f"{sorted(self.special_tokens)}: train with it, or another file")
            learned += [part.learned] * (len(ids) - len(learned))
        return ids, learned

    def save_tokenizers(self, path: str | Path) -> None:
        """Write the tokenizer.json that the Rust library `tokenizers` loads.

        Raises:   ValueError for a vocabulary that the library would encode with otherwise
        """
        document: dict[str, Any] = bpe_files.tokenizers_document(
            self.ranks, self.merges, "gpt2", self.special_tokens
        )
        document["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": PATTERN}
        write_atomically(Path(path), bpe_files.to_json(document))

    def __repr__(self) -> str:
        return f"SmalltalkTokenizer(vocab_size={self.vocab_size})"
