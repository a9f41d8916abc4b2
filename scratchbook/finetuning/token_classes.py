"""What kind of Python each token is, as far as can be said when it is read.

Python's own `tokenize` reads whole files: whether `def` is a keyword, or the first half of
`default`, it knows from what follows. A model that writes does not. So the text is read here
character by character, and a token has the class of the last character in it, given only what
stands before. Unfinished and broken code has classes too.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import codecs
import keyword
from collections.abc import Iterable, Iterator, Sequence

from scratchbook.tokenizers.base import Tokenizer

CLASSES = ("keyword", "name", "operator", "literal", "layout", "comment", "other")
OPERATORS = frozenset("()[]{}:;,.+-*/%@&|^~<>=!\\")
QUOTES = ("'", '"')
PREFIXES = {"r", "b", "u", "f", "br", "rb", "fr", "rf"}


class PythonReader:
    """Reads Python one character after the other and says what each one is.

    "layout" are line ends and the spaces before a line's first word, "comment" also a string
    that stands where a statement begins, "other" spaces within a line and what is no Python. A
    word is a "keyword" from the character on that makes it one, until another makes it a name.

    Chapter:  chapters/08_lora.ipynb
    """

    def __init__(self) -> None:
        self.word = ""  # a name, keyword or number, as far as it has come
        self.quote = ""  # what ends the string that is open
        self.run = ""  # quotes in a row, while they may still become three
        self.escaped = self.comment = self.number = False
        self.continues = False  # the last character was a backslash
        self.documents = False  # the string is a statement of its own
        self.run_documents = False  # and so was the empty one that becomes a long one
        self.depth = 0  # of open brackets
        self.line_is_empty = True  # nothing but spaces in this line
        self.statement_begins = True  # nothing of the statement yet
        self.kind = "layout"

    def read(self, character: str) -> str:
        """The class of the next character."""
        if self.run and self.quote == "" and character != self.run[0]:
            self.run = ""  # two quotes were an empty string
        if self.quote:
            self.kind = self._in_string(character)
        elif self.comment and character != "\n":
            self.kind = "comment"
        else:
            self.kind = self._in_code(character)
        return self.kind

    def _in_code(self, character: str) -> str:
        if character == "\n":
            self.statement_begins = self.statement_begins or not (self.depth or self.continues)
            self.word, self.line_is_empty = "", True
            self.comment = self.number = self.continues = False
            return "layout"
        if character.isspace():
            self.word, self.number = "", False
            return "layout" if self.line_is_empty else "other"
        begins, self.line_is_empty = self.statement_begins, False
        if character == "#":
            self.word, self.comment = "", True
            return "comment"
        self.continues = character == "\\"
        if character in QUOTES:
            return self._opens(character, begins)
        if character.isalnum() or character == "_":
            return self._in_word(character)
        if self.number and (character == "." or (character in "+-" and self._exponent())):
            self.word += character
            return "literal"
        self.word, self.number, self.statement_begins = "", False, character == ";"
        self.number = character == "."  # .5 is a number, and so its digits will be
        self.depth = max(0, self.depth + (character in "([{") - (character in ")]}"))
        return "operator" if character in OPERATORS else "other"

    def _in_word(self, character: str) -> str:
        if not self.word and character.isdigit():
            self.number = True
        elif not self.word:
            self.number = False
        self.word += character
        if self.number:
            self.statement_begins = False
            return "literal"
        # r, b and f may belong to a string that still begins the statement
        self.statement_begins = self.statement_begins and self.word.lower() in PREFIXES
        return "keyword" if keyword.iskeyword(self.word) else "name"

    def _exponent(self) -> bool:
        number = self.word.lower()
        return number.endswith("e") and not number.startswith("0x")

    def _opens(self, character: str, begins: bool) -> str:
        if self.word and self.word.lower() not in PREFIXES:
            begins = False
        self.documents = begins and self.depth == 0
        self.word, self.number, self.statement_begins = "", False, False
        if self.run == character * 2:  # the third one: a long string, not an empty one
            self.quote, self.run = character * 3, ""
            self.documents = self.run_documents
        else:
            self.quote, self.run, self.run_documents = character, character, self.documents
        return self._string_kind()

    def _in_string(self, character: str) -> str:
        if self.escaped:
            self.escaped = False
        elif character == "\\":
            self.escaped, self.run = True, ""
        elif len(self.quote) == 3:
            self.run = self.run + character if character == self.quote[0] else ""
            if self.run == self.quote:
                self.quote = self.run = ""
        elif character == self.quote:
            self.quote = ""
            self.run = character * 2 if self.run else ""
        elif character == "\n":  # never closed: what follows is code again
            self.quote = self.run = ""
            return self._in_code(character)
        else:
            self.run = ""
        return self._string_kind()

    def _string_kind(self) -> str:
        return "comment" if self.documents else "literal"


class ClassReader:
    """Gives token after token its class, from the text up to its end.

    A token that ends inside of a character has the class of what came before it. Special tokens
    are "other", and what follows one is read as a new file.

    Chapter:  chapters/08_lora.ipynb
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.special = set(tokenizer.special_tokens.values())
        self._start()

    def _start(self) -> None:
        self.reader = PythonReader()
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self, token_id: int) -> int:
        """The place in `CLASSES` of the next token's class."""
        if token_id in self.special:
            self._start()
            return CLASSES.index("other")
        kind = self.reader.kind
        for character in self.decoder.decode(self.tokenizer.token_bytes(token_id)):
            kind = self.reader.read(character)
        return CLASSES.index(kind)

    def read_all(self, ids: Iterable[int]) -> list[int]:
        """The classes of the next tokens."""
        return [self.read(token_id) for token_id in ids]


def token_classes(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """The class of every token of a text, a place in `CLASSES`; later tokens change none.

    Raises:   ValueError for an id outside the vocabulary
    Chapter:  chapters/08_lora.ipynb
    """
    return ClassReader(tokenizer).read_all(ids)


def character_classes(text: str) -> Iterator[str]:
    """The class of every character of a text, each from those before it alone.

    Chapter:  chapters/08_lora.ipynb
    """
    reader = PythonReader()
    return map(reader.read, text)
