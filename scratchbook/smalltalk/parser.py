"""Smalltalk methods to trees, by recursive descent: what Pharo's own parser accepts, and no more.

Precedence is the whole grammar of expressions: unary messages before binary ones, from left to
right, before one keyword message; a cascade sends more messages to the receiver of the last. What
a compiler finds later (unknown names, assigning to a parameter) is not an error of syntax.

Source:   class RBParser of Pharo 13
Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from scratchbook.smalltalk import lexer, nodes
from scratchbook.smalltalk.cursor import Cursor
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.nodes import Node

LITERALS = {kind: lexer.KINDS[kind] for kind in (
    lexer.NUMBER, lexer.STRING, lexer.SYMBOL, lexer.CHARACTER, lexer.CONSTANT, lexer.COMPILED)}


def parse_method(source: str, dialect: str = "pharo") -> nodes.MethodNode:
    """The tree of a method: message pattern, then pragmas, temporaries, statements.

    Example:  parse_method("double ^ self * 2").selector == "double"
    Raises:   SmalltalkSyntaxError when it is not one, ValueError for an unknown dialect
    """
    parser = Parser(source, dialect)
    return parser.guarded(parser.method)


def parse_expression(source: str, dialect: str = "pharo") -> tuple[Node, ...]:
    """The statements of a piece of code that is no method, such as a line of a workspace.

    Raises:   SmalltalkSyntaxError when they are none, ValueError for an unknown dialect
    """
    parser = Parser(source, dialect)
    return parser.guarded(lambda: parser.body()[-1])


class Parser(Cursor):
    """Reads methods: what stands outside of expressions, then statements, down to literals."""

    __slots__ = ()

    def method(self) -> nodes.MethodNode:
        """A whole method, to the end of the source."""
        selector, parameters = self.pattern()
        pragmas = self.pragmas()
        body_start = self.starts[self.at]
        temporaries, more, statements = self.body()
        comments = tuple([nodes.CommentNode(text, start, start + len(text))
                          for text, start in self.comments])
        return nodes.MethodNode(selector, parameters, temporaries, pragmas + more, statements,
                                comments, self.starts[0], self.stop(), body_start)

    def pattern(self) -> tuple[str, tuple[str, ...]]:
        """Selector and parameters of the message that a method answers."""
        kind = self.kinds[self.at]
        if kind == lexer.KEYWORD:
            return self.keywords(self.name)
        if kind not in (lexer.NAME, lexer.CONSTANT, lexer.BINARY):
            raise self.error("a message pattern (size, + other, at: index put: value)")
        return self.take(), (self.name(),) if kind == lexer.BINARY else ()

    def keywords(self, read: Callable[[], Any]) -> tuple[str, tuple]:
        """`at: index put: value`: the selector, and what `read` found after each keyword."""
        selector, arguments, kinds = "", [], self.kinds
        while kinds[self.at] == lexer.KEYWORD:
            selector += self.take()
            arguments.append(read())
        return selector, tuple(arguments)

    def body(self) -> tuple[tuple[str, ...], tuple[nodes.PragmaNode, ...], tuple[Node, ...]]:
        """Temporaries, pragmas (which may stand before them too) and statements."""
        return self.temporaries(), self.pragmas(), self.statements("")

    def pragmas(self) -> tuple[nodes.PragmaNode, ...]:
        found = []
        while self.texts[self.at] == "<":
            begin = self.at
            try:
                found.append(self.pragma())
            except SmalltalkSyntaxError:
                if not self.dialect.free_pragmas:
                    raise
                found.append(self.free_pragma(begin))
        return tuple(found)

    def pragma(self) -> nodes.PragmaNode:
        """`<name>`, `<key: literal>` or `<+ literal>`; `primitive:` may be given a name."""
        start = self.starts[self.at]
        self.at += 1
        kind, read = self.kinds[self.at], self.pragma_argument
        if kind not in (lexer.NAME, lexer.KEYWORD, lexer.BINARY):
            raise self.error("a pragma's name")
        if self.texts[self.at] == "primitive:":
            read = self.primitive_argument
        if kind == lexer.KEYWORD:
            selector, arguments = self.keywords(read)
        else:
            selector, arguments = self.take(), (read(),) if kind == lexer.BINARY else ()
        if self.texts[self.at] != ">":
            raise self.error("> at the end of the pragma")
        self.at += 1
        return nodes.PragmaNode(selector, arguments, start, self.stop())

    def pragma_argument(self) -> Node:
        if self.kinds[self.at] not in (*LITERALS, lexer.ARRAY, lexer.BYTES):
            raise self.error("a literal")
        return self.primary()

    def primitive_argument(self) -> Node:
        if self.kinds[self.at] not in (*LITERALS, lexer.NAME):
            raise self.error("a literal or a name")
        return self.primary()

    def free_pragma(self, begin: int) -> nodes.PragmaNode:
        """What other dialects write between < and >, word by word as one literal."""
        self.at = begin + 1
        while not (self.kinds[self.at] == lexer.BINARY and self.texts[self.at][-1] == ">"):
            if self.kinds[self.at] in (lexer.END, lexer.BAD):
                raise self.error("> at the end of the pragma")
            self.at += 1
        self.at += 1
        start, stop = self.starts[begin + 1], self.stop() - 1
        words = nodes.LiteralNode("words", self.source[start:stop].strip(), start, stop)
        return nodes.PragmaNode("", (words,), self.starts[begin], self.stop())

    def temporaries(self) -> tuple[str, ...]:
        """`| a b |`, or nothing."""
        if not self.bar():
            return ()
        begin = self.at
        while self.kinds[self.at] == lexer.NAME:
            self.at += 1
        names = self.texts[begin:self.at]
        if not self.bar():
            raise self.error("a bar | or the name of another temporary")
        return tuple(names)

    def statements(self, closer: str) -> tuple[Node, ...]:
        """Statements up to a closer ("" is the end of the source); periods may stand anywhere."""
        texts, found = self.texts, []
        while True:
            while texts[self.at] == ".":
                self.at += 1
            if texts[self.at] == closer:
                return tuple(found)
            if texts[self.at] == "^":
                start = self.starts[self.at]
                self.at += 1
                value = self.expression()
                found.append(nodes.ReturnNode(value, start, self.stop()))
            else:
                found.append(self.expression())
            if texts[self.at] != "." and texts[self.at] != closer:
                raise self.error(f"a period or {closer or 'the end'}")

    def expression(self) -> Node:
        """An assignment, a cascade, a message or less."""
        at, kinds = self.at, self.kinds
        if kinds[at + 1] == lexer.ASSIGN and kinds[at] == lexer.NAME:
            return self.assignment()
        start = self.starts[at]
        node = self.binary()
        at = self.at
        if kinds[at] == lexer.KEYWORD:
            selector, arguments = self.keywords(self.binary)
            node = nodes.SendNode(node, selector, arguments, start, self.stop())
        if self.texts[self.at] == ";":
            node = self.cascade(node, start)
        return self.chained(node, start) if self.dialect.chained else node

    def assignment(self) -> Node:
        """`a := b := value`."""
        targets = []
        while self.kinds[self.at + 1] == lexer.ASSIGN and self.kinds[self.at] == lexer.NAME:
            text, start = self.texts[self.at], self.starts[self.at]
            targets.append(nodes.VariableNode(text, start, start + len(text)))
            self.at += 2
            self.check_depth(len(targets))
        node = self.expression()
        stop = self.stop()
        for target in reversed(targets):
            node = nodes.AssignmentNode(target, node, target.start, stop)
        return node

    def binary(self) -> Node:
        """Binary messages from left to right, each argument with its unary messages."""
        start = self.starts[self.at]
        node = self.unary()
        kinds = self.kinds
        while True:
            kind = kinds[self.at]
            if kind == lexer.BINARY:
                selector = self.take()
            elif kind == lexer.NUMBER and self.minus():
                selector = "-"
            else:
                return node
            argument = self.unary()
            node = nodes.SendNode(node, selector, (argument,), start, self.stop())

    def unary(self) -> Node:
        """A primary and the unary messages sent to it."""
        at, kinds, texts, starts = self.at, self.kinds, self.texts, self.starts
        start = starts[at]
        if kinds[at] == lexer.NAME:
            text = texts[at]
            node = nodes.VariableNode(text, start, start + len(text))
            at += 1
        else:
            node = self.primary()
            at = self.at
        while kinds[at] == lexer.NAME or kinds[at] == lexer.CONSTANT:
            text = texts[at]
            node = nodes.SendNode(node, text, (), start, starts[at] + len(text))
            at += 1
        self.at = at
        return node

    def cascade(self, node: Node, start: int) -> nodes.CascadeNode:
        """`; message` once or more, behind a message that does not stand in parentheses."""
        if not isinstance(node, nodes.SendNode) or node.start != start:
            raise self.error("a message before the cascade's ;", hint=(
                "A cascade goes to the receiver of the message before it: (self a); b has none."))
        first = bisect_left(self.starts, node.receiver.stop)
        while self.texts[first] == ")":
            first += 1
        messages = [nodes.MessageNode(node.selector, node.arguments, self.starts[first], node.stop)]
        while self.texts[self.at] == ";":
            self.at += 1
            begin = self.starts[self.at]
            selector, arguments = self.message()
            messages.append(nodes.MessageNode(selector, arguments, begin, self.stop()))
        return nodes.CascadeNode(node.receiver, tuple(messages), start, self.stop())

    def message(self) -> tuple[str, tuple[Node, ...]]:
        """One message without a receiver: its selector and its arguments."""
        kind = self.kinds[self.at]
        if kind == lexer.KEYWORD:
            return self.keywords(self.binary)
        if kind == lexer.NUMBER and self.minus():
            return "-", (self.unary(),)
        if kind not in (lexer.NAME, lexer.BINARY):
            raise self.error("a message after ;")
        return self.take(), (self.unary(),) if kind == lexer.BINARY else ()

    def chained(self, node: Node, start: int) -> Node:
        """Cuis: `expression :: message` sends to the whole expression before it."""
        while self.texts[self.at] == self.texts[self.at + 1] == ":":
            self.at += 2
            while self.kinds[self.at] in (lexer.NAME, lexer.BINARY, lexer.KEYWORD):
                node = nodes.SendNode(node, *self.message(), start, self.stop())
            if self.texts[self.at] == ";":
                node = self.cascade(node, start)
        return node

    def primary(self) -> Node:
        """A name, a literal or something in brackets."""
        kind, text, start = self.kinds[self.at], self.texts[self.at], self.starts[self.at]
        if kind == lexer.NAME:
            return nodes.VariableNode(self.take(), start, start + len(text))
        if kind in LITERALS and text != "##":
            self.at += 1
            return nodes.LiteralNode(LITERALS[kind], text, start, start + len(text))
        read = BRACKETS.get(kind) or BRACKETS.get(text)
        if read is None:
            raise self.error("an expression")
        self.depth += 1
        self.check_depth(self.depth)
        self.at += 1
        node = read(self, start)
        self.depth -= 1
        return node

    def parenthesis(self, start: int) -> Node:
        node = self.expression()
        self.closed(")", start)
        return node

    def compiled(self, start: int) -> nodes.LiteralNode:
        """`##(...)`: code that runs once, when the method is compiled; kept as it is written."""
        self.at += 1
        self.temporaries()
        self.statements(")")
        stop = self.closed(")", start)
        return nodes.LiteralNode("compiled", self.source[start:stop], start, stop)

    def brace(self, start: int) -> nodes.BraceNode:
        statements = self.statements("}")
        return nodes.BraceNode(statements, start, self.closed("}", start))

    def block(self, start: int) -> nodes.BlockNode:
        parameters = []
        while self.texts[self.at] == ":":
            self.at += 1
            parameters.append(self.name())
        if parameters and not self.bar() and self.texts[self.at] != "]":
            raise self.error("a bar | behind the block's parameters")
        temporaries = self.temporaries()
        statements = self.statements("]")
        return nodes.BlockNode(tuple(parameters), temporaries, statements, start,
                         self.closed("]", start))

    def literal_array(self, start: int) -> nodes.LiteralArrayNode:
        """In a literal array, words, operators and most punctuation are symbols."""
        elements = []
        while self.texts[self.at] != ")":
            kind, text = self.kinds[self.at], self.texts[self.at]
            if kind in (lexer.END, lexer.BAD):
                raise self.error(")")
            if kind in LITERALS or kind in (lexer.ARRAY, lexer.BYTES):
                elements.append(self.primary())
            elif text == "(":  # needs no # in here
                self.kinds[self.at] = lexer.ARRAY
                elements.append(self.primary())
            else:
                elements.append(self.bare_symbol())
        return nodes.LiteralArrayNode(tuple(elements), start, self.closed(")", start))

    def bare_symbol(self) -> nodes.LiteralNode:
        """`foo`, `+` or `at:put:`, which the lexer took apart."""
        start = self.starts[self.at]
        self.at += 1
        words = lexer.WORDS.match(self.source, start)
        while words and self.starts[self.at] < words.end():
            self.at += 1
        return nodes.LiteralNode("symbol", self.source[start:self.stop()], start, self.stop())

    def byte_array(self, start: int) -> nodes.ByteArrayNode:
        elements = []
        while self.texts[self.at] != "]":
            kind, text = self.kinds[self.at], self.texts[self.at]
            value = lexer.integer_value(text) if kind == lexer.NUMBER else None
            if (value is None or not 0 <= value <= 255) and not (
                    self.dialect.free_bytes and kind in LITERALS):
                raise self.error("an integer from 0 to 255 or ]")
            elements.append(self.primary())
        return nodes.ByteArrayNode(tuple(elements), start, self.closed("]", start))


BRACKETS = {"(": Parser.parenthesis, "[": Parser.block, "{": Parser.brace,
            "##": Parser.compiled,
            lexer.ARRAY: Parser.literal_array, lexer.BYTES: Parser.byte_array}
