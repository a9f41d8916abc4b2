"""One-edit bugs with a name: what people leave out, swap or misspell, each judged by the parser.

A bug that breaks the syntax is one that the parser refuses; a bug of meaning is one that it
accepts, and whose tree differs. An edit that turns out otherwise is none of its kind and is thrown
away: without its period, `a foo. b bar` still parses, and means something else.

Paper:    DeMillo, Lipton and Sayward (1978), "Hints on test data selection"; for training a
          language model to mend what a program broke: Yasunaga and Liang (2021), arXiv:2106.06600
Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.lexer import Token, tokenize
from scratchbook.smalltalk.nodes import (
    BlockNode,
    LiteralNode,
    MessageNode,
    MethodNode,
    Node,
    ReturnNode,
    SendNode,
    VariableNode,
)
from scratchbook.smalltalk.parser import parse_method

CLOSERS = {"]": ")", ")": "]", "}": ")"}
OPPOSITES = {"ifTrue:": "ifFalse:", "ifFalse:": "ifTrue:", "<": ">", ">": "<", "<=": ">=",
             ">=": "<=", "+": "-", "-": "+", "=": "~=", "~=": "=", "and:": "or:", "or:": "and:"}


class Edit(NamedTuple):
    """`source[start:stop]` becomes `text`."""

    start: int
    stop: int
    text: str = ""


class Method:
    """A method as the finders of edits look at it: source, tree, tokens without comments.

    Raises:   SmalltalkSyntaxError when the source is no method
    """

    def __init__(self, source: str, dialect: str = "pharo") -> None:
        self.source, self.dialect = source, dialect
        self.tree = parse_method(source, dialect)
        every = tokenize(source, dialect)
        self.tokens = [token for token in every if token.kind not in ("comment", "end")]
        self.comments = [token for token in every if token.kind == "comment"]

    @cached_property
    def nodes(self) -> list[Node]:
        """Every node of the tree, in the order of the source."""
        return list(self.tree.walk())

    def inside(self, texts: str) -> Iterator[Token]:
        """The tokens that are one of these signs."""
        return (token for token in self.tokens if token.text in texts.split())

    def messages(self) -> Iterator[SendNode | MessageNode]:
        """Every message, those of cascades too."""
        return (node for node in self.nodes if isinstance(node, SendNode | MessageNode))


def whole(token: Token, text: str = "") -> Edit:
    """The edit that puts `text` in the place of a token."""
    return Edit(token.start, token.start + len(token.text), text)


# what breaks the syntax


def missing_bracket(method: Method) -> Iterator[Edit]:
    """One of a pair of brackets left out."""
    return (whole(token) for token in method.inside("( ) [ ] { }"))


def missing_quote(method: Method) -> Iterator[Edit]:
    """The first or the last quote of a string or of a comment left out."""
    quoted = [token for token in method.tokens if token.kind == "string"] + method.comments
    for token in quoted:
        end = token.start + len(token.text)
        yield Edit(token.start, token.start + 1)
        yield Edit(end - 1, end)


def missing_period(method: Method) -> Iterator[Edit]:
    """The full stop between two statements left out."""
    return (whole(token) for token in method.inside("."))


def missing_colon(method: Method) -> Iterator[Edit]:
    """A keyword without its colon, or a block's parameter."""
    keywords = (token for token in method.tokens if token.kind == "keyword")
    yield from (whole(token, token.text[:-1]) for token in keywords)
    yield from (whole(token) for token in method.inside(":"))


def missing_operand(method: Method) -> Iterator[Edit]:
    """An argument that is one word left out."""
    for node in method.messages():
        for argument in node.arguments:
            if isinstance(argument, VariableNode | LiteralNode):
                yield Edit(argument.start, argument.stop)


def missing_bar(method: Method) -> Iterator[Edit]:
    """One of the bars around temporaries, or behind a block's parameters, left out."""
    return (whole(token, token.text[1:]) for token in method.inside("| ||"))


def swapped_closers(method: Method) -> Iterator[Edit]:
    """The wrong closing mark, and two that stand side by side the wrong way round."""
    for token in method.inside("] ) }"):
        yield whole(token, CLOSERS[token.text])
    for one, other in pairwise(method.tokens):
        if one.text in CLOSERS and other.text in CLOSERS and one.text != other.text:
            between = method.source[one.start + 1 : other.start]
            yield Edit(one.start, other.start + 1, other.text + between + one.text)


def extra_bracket(method: Method) -> Iterator[Edit]:
    """A bracket written twice."""
    return (whole(token, token.text * 2) for token in method.inside("( ) [ ] { }"))


# what still parses


def equals_for_assignment(method: Method) -> Iterator[Edit]:
    """A comparison where an assignment was meant."""
    return (whole(token, "=") for token in method.inside(":="))


def swapped_arguments(method: Method) -> Iterator[Edit]:
    """Two neighbouring arguments of one message the wrong way round."""
    for node in method.messages():
        for one, other in pairwise(node.arguments):
            first, second = (method.source[each.start : each.stop] for each in (one, other))
            between = method.source[one.stop : other.start]
            if one != other and balanced(between):
                yield Edit(one.start, other.stop, second + between + first)


def dropped_keyword(method: Method) -> Iterator[Edit]:
    """`at: 1 put: 2` becomes `at: 1`: a message with an argument too few."""
    for node in method.messages():
        if node.selector.count(":") > 1:
            start, stop = node.arguments[-2].stop, node.arguments[-1].stop
            if balanced(method.source[start:stop]):
                yield Edit(start, stop)


def missing_return(method: Method) -> Iterator[Edit]:
    """A value that is computed and not answered."""
    for node in method.nodes:
        if isinstance(node, ReturnNode):
            behind = method.source[node.start + 1 : node.stop]
            yield Edit(node.start, node.start + 1 + len(behind) - len(behind.lstrip()))


def misspelt_variable(method: Method) -> Iterator[Edit]:
    """Two neighbouring letters of a declared name swapped, where the name is used."""
    declared = set(method.tree.parameters) | set(method.tree.temporaries)
    for node in method.nodes:
        if isinstance(node, BlockNode):
            declared |= {*node.parameters, *node.temporaries}
    used = {node.name for node in method.nodes if isinstance(node, VariableNode)}
    for node in method.nodes:
        if isinstance(node, VariableNode) and node.name in declared and len(node.name) > 2:
            middle = len(node.name) // 2
            one, other = node.name[middle - 1], node.name[middle]
            wrong = node.name[: middle - 1] + other + one + node.name[middle + 1 :]
            if wrong not in declared | used and not other.isdigit():
                yield Edit(node.start, node.start + len(node.name), wrong)


def opposite(method: Method) -> Iterator[Edit]:
    """The other branch, the other comparison, the other sign."""
    for token in method.tokens:
        if token.kind in ("keyword", "binary") and token.text in OPPOSITES:
            yield whole(token, OPPOSITES[token.text])


def self_for_super(method: Method) -> Iterator[Edit]:
    """A message to itself, often without end, instead of to the superclass."""
    return (whole(token, "self") for token in method.inside("super"))


Finder = Callable[[Method], Iterator[Edit]]
BREAKING: dict[str, Finder] = {
    "missing bracket": missing_bracket, "missing quote": missing_quote,
    "missing period": missing_period, "missing colon": missing_colon,
    "missing operand": missing_operand, "missing bar": missing_bar,
    "swapped closers": swapped_closers, "extra bracket": extra_bracket}
MEANING: dict[str, Finder] = {
    "= for :=": equals_for_assignment, "swapped arguments": swapped_arguments,
    "dropped keyword": dropped_keyword, "missing return": missing_return,
    "misspelt variable": misspelt_variable, "opposite": opposite,
    "self for super": self_for_super}
LABELS = (*BREAKING, *MEANING)
TRIES = 8  # edits of one kind that are put before the parser


@dataclass(frozen=True)
class Mutation:
    """A method with one bug: its text, the bug's name, and whether the parser refuses it."""

    source: str
    label: str
    breaks_syntax: bool
    original: str
    edit: Edit


def balanced(text: str) -> bool:
    """Whether round brackets are closed inside of `text`, so that it can be cut out."""
    return text.count("(") == text.count(")") and '"' not in text


def mutate(source: str, label: str, draw: random.Random, dialect: str = "pharo"
           ) -> Mutation | None:
    """One bug of a kind, at a place by chance; None where the method offers none.

    Raises:   ValueError for an unknown label, SmalltalkSyntaxError when `source` is no method
    """
    if label not in LABELS:
        raise ValueError(f"label={label!r} is unknown: choose one of {', '.join(LABELS)}")
    return _mutated(Method(source, dialect), label, draw)


def mutations(source: str, draw: random.Random, dialect: str = "pharo") -> list[Mutation]:
    """One bug of every kind that the method offers.

    Raises:   SmalltalkSyntaxError when `source` is no method
    """
    method = Method(source, dialect)
    found = (_mutated(method, label, draw) for label in LABELS)
    return [each for each in found if each is not None]


def _mutated(method: Method, label: str, draw: random.Random) -> Mutation | None:
    breaks = label in BREAKING
    edits = sorted({_tidied(method.source, edit) for edit in (BREAKING | MEANING)[label](method)})
    for edit in draw.sample(edits, min(TRIES, len(edits))):
        text = method.source[: edit.start] + edit.text + method.source[edit.stop :]
        if _is_bug(method.tree, text, breaks, method.dialect):
            return Mutation(text, label, breaks, method.source, edit)
    return None


def _tidied(source: str, edit: Edit) -> Edit:
    """What is left out goes with one of the blanks around it: two would give the place away."""
    around = source[edit.start - 1 : edit.start] + source[edit.stop : edit.stop + 1]
    blank = not edit.text and edit.start and around in ("  ", " \n", " ")
    return edit._replace(start=edit.start - 1) if blank else edit


def _is_bug(tree: MethodNode, mutated: str, breaks: bool, dialect: str) -> bool:
    """Whether the parser refuses what should break, or reads another method where it should not."""
    try:
        changed = parse_method(mutated, dialect)
    except SmalltalkSyntaxError:
        return breaks
    return not breaks and changed != tree
