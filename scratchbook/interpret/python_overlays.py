"""The overlay of Python: syntax classes by one pattern, everything else from the standard `ast`.

Columns of `ast` count bytes of UTF-8; offsets here count characters. A formatted string is a leaf:
before Python 3.12 the places of what stands inside of one are wrong.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Iterator
from itertools import accumulate

from scratchbook.interpret.overlays import Argument, Overlay, Send, Stretch, TreeNode
from scratchbook.interpret.python_scopes import scopes_and_uses

CONSTANTS = ("True", "False", "None", "Ellipsis", "NotImplemented", "__debug__")
PREFIX = "(?i:[rbuft]|[rb][rb]|[rf][rf]|[rt][rt])?"
# an open string ends with its line, an open long one with the source
TOKEN = re.compile(rf"""
    (?P<comment>\#[^\r\n]*)
  | (?P<string>{PREFIX}(?:\"\"\"(?:[^\\]|\\[\s\S])*?(?:\"\"\"|\Z)|'''(?:[^\\]|\\[\s\S])*?(?:'''|\Z)
      |"(?:[^"\\\r\n]|\\(?:\r\n|[\s\S]))*"?|'(?:[^'\\\r\n]|\\(?:\r\n|[\s\S]))*'?))
  | (?P<number>(?:0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+
      |(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?[\d_]+)?[jJ]?))
  | (?P<name>[^\W\d]\w*)
  | (?P<operator>->|:=|\.\.\.|[-+*/%@&|^<>=!~]+)
  | (?P<punctuation>[()\[\]{{}},:.;\\])
  | (?P<unknown>\S)""", re.VERBOSE)
LITERALS = ast.Constant | ast.JoinedStr
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
# what has no place of its own: its children stand under its parent
PLACELESS = (ast.arguments, ast.comprehension, ast.withitem, ast.match_case)


def python_classes(source: str) -> tuple[Stretch, ...]:
    """The syntax class of every token, from left to right; it never fails.

    Words that are keywords only in some places (`match`, `type`) are names.
    """
    found = []
    for each in TOKEN.finditer(source):
        kind = each.lastgroup
        if kind == "name":
            word = each[0]
            kind = ("constant" if word in CONSTANTS
                    else "keyword" if keyword.iskeyword(word) else "name")
        found.append(Stretch(kind, each.start(), each.end()))
    return tuple(found)


def python_overlay(source: str) -> Overlay:
    """The overlay of a Python module; see `scratchbook.interpret.overlays.overlay`."""
    classes = python_classes(source)
    comments = tuple(each for each in classes if each.kind == "comment")
    try:
        tree = ast.parse(source)
        reader = Reader(source)
        nodes, kept = reader.nodes(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else error
        return Overlay(source, "python", classes, comments,
                       error=f"this does not parse as Python: {where}")
    sends = reader.sends(kept)
    scopes, uses = scopes_and_uses(tree, reader.place, source)
    roles = (*_roles(nodes, sends, scopes), *comments)
    return Overlay(source, "python", classes, roles, nodes, scopes, uses, sends)


class Reader:
    """Turns the lines and byte columns of `ast` into offsets of characters, and walks the tree."""

    def __init__(self, source: str) -> None:
        self.source = source
        # the lines of the compiler: no other character ends one
        self.lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", source)
        self.starts = [0, *accumulate(map(len, self.lines))]

    def offset(self, line: int, column: int) -> int:
        """The character at a line (from 1) and a column in bytes."""
        text = self.lines[line - 1]
        if not text.isascii():
            column = len(text.encode()[:column].decode(errors="replace"))
        return self.starts[line - 1] + column

    def place(self, node: ast.AST) -> tuple[int, int]:
        """Start and stop of a node; a decorated definition begins with its first decorator."""
        start = self.offset(node.lineno, node.col_offset)
        stop = self.offset(node.end_lineno, node.end_col_offset)
        if decorators := getattr(node, "decorator_list", None):
            start = self.source.rindex("@", 0, self.place(decorators[0])[0])
        return start, stop

    def nodes(self, tree: ast.Module) -> tuple[tuple[TreeNode, ...], list[ast.AST]]:
        """The tree as a list, parents first, and the node of `ast` behind each."""
        found, kept = [TreeNode("module", "", "", 0, len(self.source), -1)], [tree]
        waiting = [(child, role, 0) for role, child in _children(tree)][::-1]
        while waiting:
            node, role, parent = waiting.pop()
            start, stop = self.place(node)
            found.append(TreeNode(_kind(node), role, _text(node), start, stop, parent))
            kept.append(node)
            at = len(found) - 1
            waiting += [(child, each, at) for each, child in _children(node)][::-1]
        return tuple(found), kept

    def sends(self, kept: list[ast.AST]) -> tuple[Send, ...]:
        """Every call: of a method (with a receiver), or of a function by its name."""
        calls = [node for node in kept if isinstance(node, ast.Call)]
        number = {id(call): at for at, call in enumerate(calls)}
        return tuple(self._send(call, number) for call in calls)

    def _send(self, call: ast.Call, number: dict[int, int]) -> Send:
        start, stop = self.place(call)
        function, receiver, behind = call.func, (-1, -1), -1
        if isinstance(function, ast.Attribute):
            receiver, behind = self.place(function.value), number.get(id(function.value), -1)
            end = self.place(function)[1]
            words, selector = ((end - len(function.attr), end),), function.attr
        else:
            words = (self.place(function),)
            selector = " ".join(self.source[slice(*words[0])].split())
            if isinstance(function, ast.Call):  # f(1)(2): the answer itself is called
                receiver, behind, words, selector = words[0], number[id(function)], (), "()"
        arguments = [Argument("", -1, -1, *self.place(each)) for each in call.args]
        for each in call.keywords:
            begin, value = self.place(each)[0], self.place(each.value)
            word = each.arg or "**"
            arguments.append(Argument(word, begin, begin + len(word), *value))
        arguments.sort(key=lambda each: each.start)
        return Send(selector, "call", words, receiver, behind, tuple(arguments), start, stop)


def _kind(node: ast.AST) -> str:
    """`FunctionDef` as "function def"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).lower()


def _text(node: ast.AST) -> str:
    for name in ("id", "attr", "name", "arg"):
        if isinstance(value := getattr(node, name, None), str):
            return value
    return repr(node.value)[:40] if isinstance(node, ast.Constant) else ""


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The nodes with a place below this one, in the order of the source, each with its role."""
    if isinstance(node, ast.JoinedStr):
        return
    found = []
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, PLACELESS):
                found += _children(child)
            elif hasattr(child, "lineno"):
                found.append((_role(node, name, child), child))
    yield from sorted(found, key=lambda pair: (pair[1].lineno, pair[1].col_offset))


def _role(parent: ast.AST, name: str, child: ast.AST) -> str:
    """The part that a child plays, in words."""
    if isinstance(parent, ast.Call):
        return "function" if name == "func" else "argument"
    if isinstance(parent, ast.Attribute):
        return "receiver"
    if name in ("targets", "target", "optional_vars"):
        return "assigned"
    if isinstance(child, ast.arg):
        return "parameter"
    return {"value": "value", "test": "condition", "iter": "over", "returns": "answer's type",
            "annotation": "type", "decorator_list": "decorator", "bases": "base"}.get(name, "")


def _roles(nodes: tuple[TreeNode, ...], sends: tuple[Send, ...], scopes: tuple) -> list[Stretch]:
    """Roles of single stretches, taken from the sends, the scopes and the tree."""
    found = []
    for send in sends:
        found += [Stretch("selector", *word) for word in send.words]
        if send.receiver[0] >= 0:
            found.append(Stretch("receiver", *send.receiver))
        for each in send.arguments:
            found.append(Stretch("argument", each.start, each.stop))
            if each.word_start >= 0:
                found.append(Stretch("selector", each.word_start, each.word_stop))
    for node in nodes:
        if node.kind in ("constant", "joined str"):
            found.append(Stretch("literal", node.start, node.stop))
        elif node.role == "assigned":
            found.append(Stretch("assigned", node.start, node.stop))
    for scope in scopes:
        found += [Stretch(each.what, each.start, each.stop) for each in scope.declares
                  if each.what in ("parameter", "definition")]
    return found
