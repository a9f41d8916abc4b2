"""The tree of a Smalltalk method: one small class for each thing that the grammar knows.

Two trees are equal when they say the same, wherever they stand: positions and comments do not
count. The classes are not frozen, because freezing tripled the cost of making a node, but nothing
here changes one after it was made, so that nodes may be keys of a dictionary.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any


@cache
def compared_names(kind: type) -> tuple[str, ...]:
    """The fields of a class of nodes that count when two of them are compared."""
    return tuple(each.name for each in fields(kind) if each.compare)


class Node:
    """What every node can do: be compared, be walked, say where it stands.

    `start` and `stop` are offsets into the source, `source[start:stop]` is the node's text; a node
    that was not read from a source has -1. Comparing needs no recursion: a sum of 10,000 terms is
    a tree 10,000 deep.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        pairs: list[tuple[Any, Any]] = [(self, other)]
        while pairs:
            mine, theirs = pairs.pop()
            if mine is theirs:
                continue
            if type(mine) is not type(theirs):
                return False
            if isinstance(mine, Node):
                names = compared_names(type(mine))
                pairs += [(getattr(mine, name), getattr(theirs, name)) for name in names]
            elif isinstance(mine, tuple):
                if len(mine) != len(theirs):
                    return False
                pairs += zip(mine, theirs, strict=True)
            elif mine != theirs:
                return False
        return True

    def __hash__(self) -> int:
        words = [(type(node).__name__, *[getattr(node, name) for name in compared_names(type(node))
                                         if isinstance(getattr(node, name), str)])
                 for node in self.walk()]
        return hash(tuple(words))

    def children(self) -> list[Node]:
        """The nodes right below this one, in the order of the source."""
        found: list[Node] = []
        for name in compared_names(type(self)):
            value = getattr(self, name)
            if isinstance(value, Node):
                found.append(value)
            elif isinstance(value, tuple):
                found += [each for each in value if isinstance(each, Node)]
        return found

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first, in the order of the source."""
        waiting: list[Node] = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children())


def place() -> Any:
    """A field that says where a node stands, which does not count in comparisons."""
    return field(default=-1, compare=False, repr=False)


@dataclass(slots=True, eq=False)
class VariableNode(Node):
    """A name: a variable, a class, or `self`, `super`, `thisContext`."""

    name: str
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class LiteralNode(Node):
    """A constant as it is written: `kind` is number, string, symbol, character or constant.

    Constants are `true`, `false` and `nil`. In a literal array a bare word is a symbol whose
    source has no `#`.
    """

    kind: str
    source: str
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class LiteralArrayNode(Node):
    """`#(1 $a foo #(2))`: literals, literal arrays and byte arrays, made when compiled."""

    elements: tuple[Node, ...]
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class ByteArrayNode(Node):
    """`#[1 2 255]`: its elements are literals of kind number, each from 0 to 255."""

    elements: tuple[LiteralNode, ...]
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class BraceNode(Node):
    """`{a. b + 1}`: an array made when the expression runs."""

    statements: tuple[Node, ...]
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class SendNode(Node):
    """A message to a receiver, with no argument, one (binary), or one for each keyword."""

    receiver: Node
    selector: str
    arguments: tuple[Node, ...]
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class MessageNode(Node):
    """One part of a cascade: a selector with its arguments, the receiver is the cascade's."""

    selector: str
    arguments: tuple[Node, ...]
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class CascadeNode(Node):
    """`receiver a; b: 1; yourself`: two or more messages to one receiver."""

    receiver: Node
    messages: tuple[MessageNode, ...]
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class AssignmentNode(Node):
    """`variable := value`."""

    variable: VariableNode
    value: Node
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class ReturnNode(Node):
    """`^ value`."""

    value: Node
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class BlockNode(Node):
    """`[:x | | y | y := x. y + 1]` with the names of its parameters and temporaries."""

    parameters: tuple[str, ...]
    temporaries: tuple[str, ...]
    statements: tuple[Node, ...]
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class PragmaNode(Node):
    """`<primitive: 60>`, `<script>`: a message of literals to the method itself."""

    selector: str
    arguments: tuple[Node, ...]
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class CommentNode(Node):
    """A comment with its quotes."""

    source: str
    start: int = place()
    stop: int = place()


@dataclass(slots=True, eq=False)
class MethodNode(Node):
    """A whole method: its pattern (selector and parameters), then what it declares and does.

    `comments` are all comments inside, in the order of the source; they do not count in
    comparisons, as white space does not. `body_start` is the place of the temporaries, or of the
    first statement where there are none: a comment before it is about the method as a whole.
    """

    selector: str
    parameters: tuple[str, ...]
    temporaries: tuple[str, ...]
    pragmas: tuple[PragmaNode, ...]
    statements: tuple[Node, ...]
    comments: tuple[CommentNode, ...] = field(default=(), compare=False, repr=False)
    start: int = place()
    stop: int = place()
    body_start: int = place()


@dataclass(slots=True, eq=False)
class ClassNode(Node):
    """A class definition, whichever of the four forms it was written in."""

    name: str
    superclass: str
    instance_variables: tuple[str, ...] = ()
    class_variables: tuple[str, ...] = ()
    class_instance_variables: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    category: str = ""
    comment: str = ""
    is_trait: bool = False
    start: int = place()
    stop: int = place()
