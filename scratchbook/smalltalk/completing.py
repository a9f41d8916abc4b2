"""Completing a statement: where a method is cut, what was expected, and how near an answer comes.

A case is a method cut inside one of its statements, behind a token. Three scores, from strict to
lenient: the same tokens, the same tree, the same selector of the outermost message.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import NamedTuple

from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.lexer import ARRAY, BYTES, END, PUNCTUATION, scan
from scratchbook.smalltalk.measures import is_trivial
from scratchbook.smalltalk.nodes import (
    AssignmentNode,
    BlockNode,
    CascadeNode,
    MethodNode,
    Node,
    ReturnNode,
    SendNode,
)
from scratchbook.smalltalk.parser import parse_expression, parse_method

OPENERS, CLOSERS = "([{", ")]}"
ENDS = CLOSERS + "."  # of a statement


class CompletionCase(NamedTuple):
    """A method up to the cut, the statement's own beginning, and the rest that was expected."""

    prompt: str     # the method's source up to the cut
    begun: str      # the statement's part of it
    expected: str   # the rest of the statement, without its period


class Scores(NamedTuple):
    """Whether an answer equals what was expected."""

    exact: bool     # the same tokens
    tree: bool      # the same tree: other parentheses, other white space pass
    selector: bool  # the same selector of the outermost message, or none in both


def completion_cases(sources: Iterable[str], seed: int = 0, dialect: str = "pharo"
                     ) -> list[CompletionCase]:
    """One case a method: a statement by chance, cut behind a token by chance.

    Trivial methods (accessors, constants) and sources that do not parse give none.
    """
    draw, cases = random.Random(seed), []
    for source in sources:
        try:
            tree = parse_method(source, dialect)
        except SmalltalkSyntaxError:
            continue
        case = None if is_trivial(tree) else _cut(source, tree, draw, dialect)
        if case:
            cases.append(case)
    return cases


def _cut(source: str, tree: MethodNode, draw: random.Random, dialect: str) -> CompletionCase | None:
    """One statement of the method that has more than one token, cut behind one of them.

    A cut inside a statement of a block belongs to that statement, not to the one around it.
    """
    candidates, statements = [], _statements(tree)
    for statement in statements:
        inner = [(each.start, each.stop) for each in statements
                 if statement.start < each.start and each.stop <= statement.stop]
        columns = scan(source[statement.start:statement.stop], dialect)
        stops = [statement.start + start + len(text) for kind, start, text
                 in zip(columns.kinds, columns.starts, columns.texts, strict=True) if kind != END]
        stops = [stop for stop in stops[:-1] if not any(low < stop <= high for low, high in inner)]
        if stops:
            candidates.append((statement, stops))
    if not candidates:
        return None
    statement, stops = draw.choice(candidates)
    cut = draw.choice(stops)
    return CompletionCase(source[:cut], source[statement.start:cut], source[cut:statement.stop])


def _statements(tree: MethodNode) -> list[Node]:
    found = list(tree.statements)
    for node in tree.walk():
        if isinstance(node, BlockNode):
            found += node.statements
    return found


def first_statement(begun: str, answer: str, dialect: str = "pharo") -> str:
    """The part of an answer that still belongs to the statement: up to its period or closer."""
    columns, depth = scan(begun + answer, dialect), 0
    for kind, text, start in zip(columns.kinds, columns.texts, columns.starts, strict=True):
        if kind == PUNCTUATION and start >= len(begun) and depth == 0 and text in ENDS:
            return answer[:start - len(begun)]
        if kind in (PUNCTUATION, ARRAY, BYTES):  # the bracket of `$(` or `'('` opens nothing
            depth += (text[-1] in OPENERS) - (text in CLOSERS)
    return answer


def score(case: CompletionCase, answer: str, dialect: str = "pharo") -> Scores:
    """How an answer compares with what was expected; only its first statement counts."""
    answer = first_statement(case.begun, answer, dialect)
    exact = _tokens(case.begun + answer, dialect) == _tokens(case.begun + case.expected, dialect)
    try:
        given = parse_expression(case.begun + answer, dialect)
    except SmalltalkSyntaxError:
        return Scores(exact, False, False)
    wanted = parse_expression(case.begun + case.expected, dialect)
    return Scores(exact, given == wanted, outermost(given) == outermost(wanted))


def _tokens(source: str, dialect: str) -> list[str]:
    """The tokens, without the marks of the end: white space there brings one more of them."""
    columns = scan(source, dialect)
    return [text for kind, text in zip(columns.kinds, columns.texts, strict=True) if kind != END]


def without_thought(begun: str, dialect: str = "pharo") -> str:
    """What a program of one line answers: close what is open, behind a variable if need be.

    It shows how much of a score the beginning has already decided.
    """
    columns, opened = scan(begun, dialect), []
    for kind, text in zip(columns.kinds, columns.texts, strict=True):
        if kind in (PUNCTUATION, ARRAY, BYTES):
            if text[-1] in OPENERS:
                opened.append(CLOSERS[OPENERS.index(text[-1])])
            elif text in CLOSERS and opened:
                opened.pop()
    closers = "".join(reversed(opened))
    try:
        parse_expression(begun + closers, dialect)
    except SmalltalkSyntaxError:
        return f" x{closers}"
    return closers


def outermost(statements: tuple[Node, ...]) -> str:
    """The selector of the message that the first statement sends last, "" when it sends none."""
    node = statements[0] if statements else None
    while isinstance(node, (ReturnNode, AssignmentNode)):
        node = node.value
    if isinstance(node, CascadeNode):
        return ";".join(message.selector for message in node.messages)
    return node.selector if isinstance(node, SendNode) else ""
