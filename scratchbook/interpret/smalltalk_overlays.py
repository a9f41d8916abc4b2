"""The overlay of Smalltalk, from the course's own lexer and parser.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import replace

from scratchbook.interpret.overlays import (
    Argument,
    Declared,
    Overlay,
    Scope,
    Send,
    Stretch,
    TreeNode,
    Use,
)
from scratchbook.smalltalk import lexer, nodes
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.parser import Parser, parse_method

CLASS_OF = {"name": "name", "keyword": "message", "punctuation": "punctuation",
            "constant": "constant", "number": "number", "assign": "operator",
            "binary": "operator", "symbol": "symbol", "string": "string", "compiled": "string",
            "array": "punctuation", "bytes": "punctuation", "character": "string",
            "comment": "comment", "bad": "unknown"}
PSEUDO = ("self", "super", "thisContext")
MARK = re.compile(r"<\|(\w+)\|>")
OPERATORS = "_-+/\\*~<>=@,%|&?!·÷±×"  # of binary selectors, whose methods begin with one
READ_AS = ("auto", "method", "expression")
KIND = {nodes.SendNode: "message", nodes.MessageNode: "message", nodes.LiteralArrayNode: "array",
        nodes.ByteArrayNode: "byte array", nodes.BraceNode: "brace array"}
Place = tuple[int, int]


def smalltalk_classes(source: str) -> tuple[Stretch, ...]:
    """The syntax class of every token, from left to right; it never fails."""
    pattern = lexer.compiled_pattern("pharo", source.isascii())
    found = []
    for each in pattern.finditer(source):
        kind = lexer.KINDS[each.lastindex]
        if kind != "end":
            text = each[each.lastindex]
            name = "keyword" if text in PSEUDO and kind == "name" else CLASS_OF[kind]
            found.append(Stretch(name, *each.span(each.lastindex)))
    return tuple(found)


def smalltalk_overlay(source: str, read_as: str = "auto") -> Overlay:
    """The overlay of Smalltalk; see `scratchbook.interpret.overlays.overlay`."""
    if read_as not in READ_AS:
        raise ValueError(f"read_as={read_as!r} is unknown: choose one of {', '.join(READ_AS)}")
    marks = list(MARK.finditer(source))
    if read_as != "auto" or not marks:
        return _of_part(source, read_as)
    parts, begin, kind = [], 0, "auto"
    for mark in [*marks, None]:
        stop = mark.start() if mark else len(source)
        if source[begin:stop].strip():
            parts.append(_moved(_of_part(source[begin:stop], kind), begin))
        if mark:
            parts.append(Overlay("", "smalltalk", (Stretch("keyword", *mark.span()),)))
            begin = mark.end()
            kind = {"class": "expression", "method": "method",
                    "classmethod": "method"}.get(mark[1], "auto")
    return _joined(source, parts)


def _of_part(source: str, read_as: str) -> Overlay:
    classes = smalltalk_classes(source)
    comments = tuple(each for each in classes if each.kind == "comment")
    try:
        tree = _parsed(source, read_as)
    except (SmalltalkSyntaxError, ValueError) as error:
        return Overlay(source, "smalltalk", classes, comments,
                       error=f"this does not parse as Smalltalk: {error}")
    reader = _Reader(source)
    for each in tree:
        reader.read(each)
    reader.read_sends()
    return Overlay(source, "smalltalk", classes, (*reader.roles(), *comments),
                   tuple(reader.nodes), tuple(reader.scopes), tuple(reader.uses),
                   tuple(reader.sends))


def _parsed(source: str, read_as: str) -> tuple[nodes.Node, ...]:
    """A method, or statements (behind temporaries)."""
    first = re.match(r"[\s\0]*(?:\"[^\"]*\"\s*)*", source).end()
    if read_as == "auto":
        lower = source[first:first + 1].islower() or source[first:first + 1] in OPERATORS
        read_as = "method" if lower else "expression"
        if lower:
            try:
                return (parse_method(source),)
            except SmalltalkSyntaxError as error:
                try:
                    return _statements(source)
                except SmalltalkSyntaxError:
                    raise error from None  # what it says of the method helps more
    return (parse_method(source),) if read_as == "method" else _statements(source)


def _statements(source: str) -> tuple[nodes.Node, ...]:
    """The statements as a block without brackets, so that its temporaries have a scope."""
    parser = Parser(source, "pharo")
    temporaries, _, statements = parser.guarded(parser.body)
    return (nodes.BlockNode((), temporaries, statements, 0, len(source)),)


class _Reader:
    """Walks one tree; what the nodes do not say of their words comes from the lexer's columns."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.columns = lexer.scan(source)
        self.nodes: list[TreeNode] = []
        self.scopes: list[Scope] = []
        self.uses: list[Use] = []
        self.sends: list[Send] = []
        self.pairs: list[tuple[nodes.Node, nodes.Node, int]] = []  # send, its receiver, cascade

    def read(self, tree: nodes.Node) -> None:
        """Nodes, scopes and uses, parents before children."""
        waiting = [(tree, "", -1, -1)]
        cascades = 0
        while waiting:
            node, role, parent, scope = waiting.pop()
            self.nodes.append(TreeNode(_kind(node), role, _text(node), node.start, node.stop,
                                       parent))
            at = len(self.nodes) - 1
            if isinstance(node, nodes.MethodNode | nodes.BlockNode):
                scope = self.add_scope(node, scope)
            elif isinstance(node, nodes.VariableNode) and node.name not in PSEUDO:
                self.uses.append(Use(node.name, node.start, node.stop,
                                     self.scope_of(node.name, scope)))
            elif isinstance(node, nodes.SendNode):
                self.pairs.append((node, node.receiver, -1))
            elif isinstance(node, nodes.CascadeNode):
                self.pairs += [(each, node.receiver, cascades) for each in node.messages]
                cascades += 1
            waiting += [(child, _role(node, place), at, scope)
                        for place, child in enumerate(node.children())][::-1]

    def add_scope(self, node: nodes.MethodNode | nodes.BlockNode, parent: int) -> int:
        method = isinstance(node, nodes.MethodNode)
        depth = self.scopes[parent].depth + 1 if parent >= 0 else 0
        declares = self.declared(node)
        kind = "method" if method else "block"
        if not method and (not self.source[node.start:].startswith("[") or parent < 0
                           and len(self.nodes) == 1):
            kind = "statements"
        self.scopes.append(Scope(kind, node.selector if method else "", node.start, node.stop,
                                 depth, parent, declares))
        return len(self.scopes) - 1

    def scope_of(self, name: str, scope: int) -> int:
        while scope >= 0 and name not in [each.name for each in self.scopes[scope].declares]:
            scope = self.scopes[scope].parent
        return scope

    def declared(self, node: nodes.MethodNode | nodes.BlockNode) -> tuple[Declared, ...]:
        """The names of a scope, at their places."""
        kinds, texts, starts, _ = self.columns
        found = []

        def add(at: int, what: str) -> None:
            found.append(Declared(texts[at], what, starts[at], starts[at] + len(texts[at])))

        if isinstance(node, nodes.MethodNode):
            for place in range(len(node.parameters)):
                add(2 * place + 1, "parameter")
            at = bisect_left(starts, node.body_start)
        else:
            at = bisect_left(starts, node.start)
            at += texts[at] == "[" and self.source[node.start] == "["
            for _ in node.parameters:
                add(at + 1, "parameter")  # behind its colon
                at += 2
        if node.temporaries:
            while kinds[at] == lexer.BINARY:  # | or ||
                at += 1
            for place in range(len(node.temporaries)):
                add(at + place, "temporary")
        return tuple(found)

    def read_sends(self) -> None:
        """Every message with its words; who answers whom is known once all are numbered."""
        number = {id(send): at for at, (send, _, _) in enumerate(self.pairs)}
        for node in [receiver for _, receiver, _ in self.pairs]:
            if isinstance(node, nodes.CascadeNode):  # its value is the last message's answer
                number[id(node)] = number[id(node.messages[-1])]
        for send, receiver, cascade in self.pairs:
            words = self.words_of(send, receiver.stop)
            texts = re.findall(r"[^:]+:|[^:]+", send.selector)
            pairs = zip(texts, words, send.arguments, strict=False)
            arguments = tuple(Argument(text, *word, argument.start, argument.stop)
                              for text, word, argument in pairs)
            kind = ("unary" if not send.arguments else
                    "keyword" if send.selector.endswith(":") else "binary")
            self.sends.append(Send(send.selector, kind, words, (receiver.start, receiver.stop),
                                   number.get(id(receiver), -1), arguments, send.start, send.stop,
                                   cascade))

    def words_of(self, send: nodes.SendNode | nodes.MessageNode, stop: int) -> tuple[Place, ...]:
        """Where the words of a selector stand: each behind the receiver or the argument before."""
        words, before = [], stop
        if isinstance(send, nodes.MessageNode):
            before = send.start
        texts = re.findall(r"[^:]+:|[^:]+", send.selector)
        for place, text in enumerate(texts):
            start = self.word_at(before)
            words.append((start, start + len(text)))
            if place < len(send.arguments):
                before = send.arguments[place].stop
        return tuple(words)

    def word_at(self, before: int) -> int:
        _, texts, starts, _ = self.columns
        at = bisect_left(starts, before)
        while texts[at] == ")":
            at += 1
        return starts[at]

    def roles(self) -> list[Stretch]:
        """Of single stretches: words of sends, what they go to and carry, names, literals."""
        found = []
        for send in self.sends:
            found += [Stretch("selector", *word) for word in send.words]
            found.append(Stretch("receiver", *send.receiver))
            found += [Stretch("argument", each.start, each.stop) for each in send.arguments]
        for scope in self.scopes:
            found += [Stretch(each.what, each.start, each.stop) for each in scope.declares]
            if scope.kind == "method":
                count = max(1, sum(each.what == "parameter" for each in scope.declares))
                for place in range(0, 2 * count, 2):
                    start = self.columns.starts[place]
                    found.append(Stretch("definition", start,
                                         start + len(self.columns.texts[place])))
        for node in self.nodes:
            if node.kind in ("number", "string", "symbol", "character", "constant", "array",
                             "byte array", "compiled"):
                found.append(Stretch("literal", node.start, node.stop))
            elif node.role == "assigned":
                found.append(Stretch("assigned", node.start, node.stop))
        return list(dict.fromkeys(found))


def _kind(node: nodes.Node) -> str:
    if isinstance(node, nodes.LiteralNode):
        return node.kind
    return KIND.get(type(node)) or type(node).__name__.removesuffix("Node").lower()


def _text(node: nodes.Node) -> str:
    names = (getattr(node, name, None) for name in ("selector", "name", "source"))
    return next((name for name in names if name is not None), "")[:40]


def _role(parent: nodes.Node, place: int) -> str:
    """The part that a child plays."""
    if isinstance(parent, nodes.SendNode | nodes.CascadeNode) and place == 0:
        return "receiver"
    if isinstance(parent, nodes.SendNode | nodes.MessageNode | nodes.PragmaNode):
        return "argument"
    if isinstance(parent, nodes.AssignmentNode):
        return ("assigned", "value")[place]
    return ""


def _joined(source: str, parts: list[Overlay]) -> Overlay:
    """The parts of a document, their offsets moved already, as one; indices are moved here."""
    found = Overlay(source, "smalltalk", ())
    for part in parts:
        nodes_before, scopes_before = len(found.nodes), len(found.scopes)
        sends_before = len(found.sends)
        cascades = 1 + max([send.cascade for send in found.sends], default=-1)

        def by(index: int, count: int) -> int:
            return index + count if index >= 0 else index

        found = replace(
            found, classes=found.classes + part.classes, roles=found.roles + part.roles,
            nodes=found.nodes + tuple(
                replace(each, parent=by(each.parent, nodes_before)) for each in part.nodes),
            scopes=found.scopes + tuple(
                replace(each, parent=by(each.parent, scopes_before)) for each in part.scopes),
            uses=found.uses + tuple(
                replace(each, scope=by(each.scope, scopes_before)) for each in part.uses),
            sends=found.sends + tuple(
                replace(each, receiver_send=by(each.receiver_send, sends_before),
                        cascade=by(each.cascade, cascades)) for each in part.sends),
            error="; ".join(filter(None, [found.error, part.error])))
    return found


def _moved(found: Overlay, by: int) -> Overlay:
    """The overlay of a part that begins at this character of its document."""

    def move(each):
        changes = {"start": each.start + by, "stop": each.stop + by}
        if isinstance(each, Scope):
            changes["declares"] = tuple(map(move, each.declares))
        if isinstance(each, Argument):
            changes |= {"word_start": each.word_start + by, "word_stop": each.word_stop + by}
        if isinstance(each, Send):
            changes |= {"words": tuple((start + by, stop + by) for start, stop in each.words),
                        "receiver": (each.receiver[0] + by, each.receiver[1] + by),
                        "arguments": tuple(map(move, each.arguments))}
        return replace(each, **changes)

    names = ("classes", "roles", "nodes", "scopes", "uses", "sends")
    return replace(found, **{name: tuple(map(move, getattr(found, name))) for name in names})
