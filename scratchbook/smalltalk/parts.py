"""What a training example is made of: stretches of text, and special tokens between them.

A special token is a part of its own, never letters inside of a text: so no method that happens to
spell `<|end|>` can end a document, and none has to be thrown away for it.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

END_OF_TEXT = "<|endoftext|>"  # the end of a document
CLASS = "<|class|>"  # a class definition follows
METHOD = "<|method|>"  # a method of the instances
CLASS_METHOD = "<|classmethod|>"  # a method of the class itself
END = "<|end|>"  # the end of a definition, a method, an answer
PREFIX, SUFFIX, MIDDLE = "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"
INSTRUCTION = "<|instruction|>"  # a task in words follows
ANSWER = "<|answer|>"
BUGGY, FIXED = "<|buggy|>", "<|fixed|>"
PADDING = "<|pad|>"

SPECIAL_TOKENS = (END_OF_TEXT, CLASS, METHOD, CLASS_METHOD, END, PREFIX, SUFFIX, MIDDLE,
                  INSTRUCTION, ANSWER, BUGGY, FIXED, PADDING)


@dataclass(frozen=True)
class Part:
    """A stretch of text, or one special token; `learned` where a model is to predict it."""

    text: str
    special: bool = False
    learned: bool = True


@dataclass(frozen=True)
class Example:
    """One training example of a task.

    `label` says what was done to it: the kind of bug, of hole, of template. `keys` stand for the
    code of its methods (see `tasks.code_key`), by which the leaks between splits are found.
    """

    task: str
    parts: tuple[Part, ...]
    project: str = ""
    label: str = ""
    keys: tuple[bytes, ...] = ()

    @property
    def prompt(self) -> str:
        """What is given, special tokens spelled out."""
        return "".join(part.text for part in self.parts if not part.learned)

    @property
    def answer(self) -> str:
        """What is to be written, special tokens spelled out."""
        return "".join(part.text for part in self.parts if part.learned)

    @property
    def text(self) -> str:
        """The example as a person reads it, special tokens spelled out."""
        return "".join(part.text for part in self.parts)


def special(token: str, learned: bool = True) -> Part:
    """A part that is one special token.

    Raises:   ValueError for a text that is none
    """
    if token not in SPECIAL_TOKENS:
        raise ValueError(f"{token!r} is no special token; they are {', '.join(SPECIAL_TOKENS)}")
    return Part(token, special=True, learned=learned)


def as_prompt(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The same parts as a prompt: read, but not learned."""
    return tuple(Part(part.text, part.special, learned=False) for part in parts)
