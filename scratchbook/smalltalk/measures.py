"""What a method says beyond its syntax: the messages it sends, the names it uses, its blocks.

Each measure is a share that a person can check by hand on one method, and each is blind to
something: known selectors do not say that the receiver understands them, declared names do not say
that they hold what is expected. Counts are returned, so that a caller can put intervals on sums.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.nodes import (
    AssignmentNode,
    BlockNode,
    CascadeNode,
    MessageNode,
    MethodNode,
    Node,
    ReturnNode,
    SendNode,
    VariableNode,
)
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.records import ClassRecord, MethodRecord

PSEUDO_VARIABLES = frozenset({"self", "super", "thisContext", "thisProcess"})

# how many parameters a block literal takes as an argument of these messages (blue book, chapter 4)
BLOCK_PARAMETERS = {
    "do:": (1,), "collect:": (1,), "select:": (1,), "reject:": (1,), "detect:": (1,),
    "detect:ifNone:": (1, 0), "inject:into:": (None, 2), "do:separatedBy:": (1, 0),
    "reverseDo:": (1,), "doWithIndex:": (2,), "keysAndValuesDo:": (2,), "keysDo:": (1,),
    "with:do:": (None, 2), "with:collect:": (None, 2), "anySatisfy:": (1,), "allSatisfy:": (1,),
    "ifTrue:": (0,), "ifFalse:": (0,), "ifTrue:ifFalse:": (0, 0), "ifFalse:ifTrue:": (0, 0),
    "and:": (0,), "or:": (0,), "whileTrue:": (0,), "whileFalse:": (0,), "timesRepeat:": (0,),
    "to:do:": (None, 1), "to:by:do:": (None, None, 1), "ensure:": (0,), "ifCurtailed:": (0,),
    "ifNil:": (0,), "at:ifAbsent:": (None, 0), "at:ifAbsentPut:": (None, 0),
}


class Share(NamedTuple):
    """How many of how many: shares of several methods are added before they are divided."""

    count: int
    total: int

    def __add__(self, other: Share) -> Share:  # type: ignore[override]
        return Share(self.count + other.count, self.total + other.total)

    @property
    def value(self) -> float:
        """The share itself; nan where there was nothing to count."""
        return self.count / self.total if self.total else float("nan")


@dataclass(frozen=True)
class World:
    """What a body of code knows: selectors that it sends or implements, and names of classes."""

    selectors: frozenset[str] = frozenset()
    globals: frozenset[str] = frozenset()

    @classmethod
    def of(cls, methods: Iterable[MethodRecord], classes: Iterable[ClassRecord] = ()) -> World:
        """The world of some records; methods that do not parse are left out."""
        selectors: set[str] = set()
        names = {record.class_name for record in methods} | {each.name for each in classes}
        for record in methods:
            try:
                tree = parse_method(record.source, record.dialect)
            except SmalltalkSyntaxError:
                continue
            selectors.add(tree.selector)
            for selector, _, _ in sends(tree):
                selectors.add(selector)
            names |= {node.name for node in tree.walk()
                      if isinstance(node, VariableNode) and node.name[0].isupper()}
        return cls(frozenset(selectors), frozenset(names))


def sends(tree: Node) -> Iterator[tuple[str, Node | None, tuple[Node, ...]]]:
    """Every message of a tree: selector, receiver, arguments.

    The messages of a cascade have its receiver, a lone part of one has None.
    """
    receivers: dict[int, Node] = {}
    for node in tree.walk():
        if isinstance(node, CascadeNode):
            receivers |= {id(message): node.receiver for message in node.messages}
        elif isinstance(node, SendNode):
            yield node.selector, node.receiver, node.arguments
        elif isinstance(node, MessageNode):
            yield node.selector, receivers.get(id(node)), node.arguments


def known_sends(tree: Node, known: frozenset[str]) -> Share:
    """How many of the messages have a selector that the world knows."""
    found = [selector in known for selector, _, _ in sends(tree)]
    return Share(sum(found), len(found))


def block_parameters(tree: Node) -> Share:
    """Block literals whose number of parameters is what their message passes (`do:` one).

    Only messages of BLOCK_PARAMETERS count, and of their arguments only block literals.
    """
    good = total = 0
    for selector, _, arguments in sends(tree):
        for wanted, argument in zip(BLOCK_PARAMETERS.get(selector, ()), arguments, strict=False):
            if wanted is not None and isinstance(argument, BlockNode):
                total += 1
                good += len(argument.parameters) == wanted
    return Share(good, total)


@dataclass
class Names:
    """The names of one method: which are used without a declaration, which declared in vain."""

    used: Counter = field(default_factory=Counter)
    undeclared: Counter = field(default_factory=Counter)
    unused: list[str] = field(default_factory=list)
    assigned_parameters: list[str] = field(default_factory=list)

    @property
    def declared_share(self) -> Share:
        """Uses of names that are declared, of all uses."""
        total = self.used.total()
        return Share(total - self.undeclared.total(), total)


def names_of(method: MethodNode, fields: Iterable[str] = (),
             known_globals: frozenset[str] | None = None) -> Names:
    """Who declares each name that a method uses: itself, a block around, its class, the world.

    `fields` are the variables of the class. A name with a capital is a global; without
    `known_globals` every such name passes.
    """
    found, outer = Names(), PSEUDO_VARIABLES | set(fields)

    def visit(node: Node, scope: frozenset[str], parameters: frozenset[str]) -> None:
        waiting = [(node, scope, parameters)]
        while waiting:
            each, scope, parameters = waiting.pop()
            if isinstance(each, VariableNode):
                found.used[each.name] += 1
                is_global = each.name[0].isupper() and (
                    known_globals is None or each.name in known_globals)
                if each.name not in scope and not is_global:
                    found.undeclared[each.name] += 1
            elif isinstance(each, AssignmentNode) and each.variable.name in parameters:
                found.assigned_parameters.append(each.variable.name)
            elif isinstance(each, BlockNode):
                inner = frozenset(each.parameters) | frozenset(each.temporaries)
                parameters = (parameters - inner) | frozenset(each.parameters)
                scope = scope | inner
                found.unused.extend(_unused(each, each.temporaries))
            waiting += [(child, scope, parameters) for child in reversed(each.children())]

    own = frozenset(method.parameters) | frozenset(method.temporaries)
    for statement in method.statements:
        visit(statement, frozenset(outer) | own, frozenset(method.parameters))
    found.unused.extend(_unused(method, method.temporaries))
    return found


def _unused(node: Node, names: Sequence[str]) -> list[str]:
    used = {each.name for each in node.walk() if isinstance(each, VariableNode)}
    return [name for name in names if name not in used]


def unreachable(method: MethodNode) -> int:
    """Statements behind a return in the same sequence: legal, and never run."""
    count = 0
    for node in [method, *[each for each in method.walk() if isinstance(each, BlockNode)]]:
        returns = [at for at, each in enumerate(node.statements) if isinstance(each, ReturnNode)]
        count += len(node.statements) - 1 - returns[0] if returns else 0
    return count


def is_trivial(method: MethodNode) -> bool:
    """An accessor, a constant, an empty method: valid too easily to say much."""
    if not method.statements:
        return True
    if len(method.statements) > 1:
        return False
    only = method.statements[0]
    value = only.value if isinstance(only, (ReturnNode, AssignmentNode)) else only
    return not any(isinstance(each, (SendNode, CascadeNode, BlockNode)) for each in value.walk())


class Coherence(NamedTuple):
    """How well the methods of a class belong together: three shares.

    fields_used: declared variables that some method uses; names_declared: uses of names that
    someone declares; self_answered: messages to self that the same class implements.
    """

    fields_used: Share
    names_declared: Share
    self_answered: Share


def coherence(fields: Sequence[str], methods: Sequence[MethodNode]) -> Coherence:
    """The coherence of one class, from the names of its variables and its methods' trees.

    Compare it with `coherence` over methods shuffled between classes: what is left there comes
    from how common the names are, not from the class.
    """
    used: set[str] = set()
    declared, answered = Share(0, 0), Share(0, 0)
    own = {method.selector for method in methods}
    for method in methods:
        names = names_of(method, fields)
        used |= set(names.used) & set(fields)
        declared += names.declared_share
        to_self = [selector for selector, receiver, _ in sends(method)
                   if isinstance(receiver, VariableNode) and receiver.name == "self"]
        answered += Share(sum(each in own for each in to_self), len(to_self))
    return Coherence(Share(len(used), len(fields)), declared, answered)
