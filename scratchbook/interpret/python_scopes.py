"""The scopes of a Python module: what each declares, and which one a name belongs to.

Source:   the execution model of the Python language reference, section 4.2
Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from scratchbook.interpret.overlays import Declared, Scope, Use

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
SCOPES = FUNCTIONS | ast.Lambda | ast.ClassDef | COMPREHENSIONS
KINDS = {ast.Lambda: "lambda", ast.ClassDef: "class", ast.Module: "module"}
Place = Callable[[ast.AST], tuple[int, int]]


class _Found:
    """One scope while it is read."""

    def __init__(self, node: ast.AST, parent: int, depth: int) -> None:
        self.node, self.parent, self.depth = node, parent, depth
        self.declares: dict[str, Declared] = {}
        self.elsewhere: set[str] = set()  # global or nonlocal
        self.globals: set[str] = set()


def scopes_and_uses(tree: ast.Module, place: Place, source: str
                    ) -> tuple[tuple[Scope, ...], tuple[Use, ...]]:
    """The scopes, the module first and outer ones before inner ones, and every name in a load,
    a store or a deletion.

    Only the first place that binds a name declares it. Names of the module count; builtins do not.
    """
    reader = _Reader(place, source)
    reader.enter(tree, -1)
    scopes = []
    for each in reader.found:
        start, stop = (0, len(source)) if each.parent < 0 else place(each.node)
        kind = KINDS.get(type(each.node)) or (
            "function" if isinstance(each.node, FUNCTIONS) else "comprehension")
        scopes.append(Scope(kind, getattr(each.node, "name", ""), start, stop, each.depth,
                            each.parent, tuple(each.declares.values())))
    uses = [Use(node.id, *place(node), reader.scope_of(node.id, scope))
            for node, scope in reader.names]
    return tuple(scopes), tuple(sorted(uses, key=lambda each: each.start))


class _Reader:
    def __init__(self, place: Place, source: str) -> None:
        self.place, self.source = place, source
        self.found: list[_Found] = []
        self.names: list[tuple[ast.Name, int]] = []

    def enter(self, node: ast.AST, parent: int) -> None:
        """Read a scope, then those inside of it."""
        at = len(self.found)
        depth = self.found[parent].depth + 1 if parent >= 0 else 0
        self.found.append(_Found(node, parent, depth))
        inner: list[tuple[ast.AST, int]] = []
        if isinstance(node, FUNCTIONS | ast.Lambda):
            for each in _parameters(node.args):
                start = self.place(each)[0]
                self.declare(at, each.arg, "parameter", start)
        self.read(list(_inside(node)), at, inner)
        for each, outer in inner:
            self.enter(each, outer)

    def read(self, waiting: list[ast.AST], at: int, inner: list[tuple[ast.AST, int]]) -> None:
        waiting = waiting[::-1]
        while waiting:
            node = waiting.pop()
            self.bind(node, at)
            if isinstance(node, ast.Name):
                self.names.append((node, at))
            if isinstance(node, ast.NamedExpr):
                self.names.append((node.target, at))
                waiting.append(node.value)
            elif isinstance(node, SCOPES):
                inner.append((node, at))
                waiting += list(_outside(node))[::-1]
            else:
                waiting += list(ast.iter_child_nodes(node))[::-1]

    def bind(self, node: ast.AST, at: int) -> None:
        """Declare what a node binds in its scope."""
        scope = self.found[at]
        if isinstance(node, ast.Global | ast.Nonlocal):
            scope.elsewhere |= set(node.names)
            if isinstance(node, ast.Global):
                scope.globals |= set(node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            self.declare(at, node.id, "variable", self.place(node)[0])
        elif isinstance(node, ast.NamedExpr):
            while isinstance(self.found[at].node, COMPREHENSIONS):
                at = self.found[at].parent  # a walrus binds around the comprehension
            self.declare(at, node.target.id, "variable", self.place(node.target)[0])
        elif isinstance(node, FUNCTIONS | ast.ClassDef):
            word = re.compile(r"(?:def|class)\s+")
            start = self.place(node)[0]
            if node.decorator_list:
                start = self.place(node.decorator_list[-1])[1]
            found = word.search(self.source, start)
            self.declare(at, node.name, "definition", found.end())
        elif isinstance(node, ast.alias) and node.name != "*":
            self.declare(at, node.asname or node.name.split(".")[0], "import",
                         self.place(node)[0])
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            self.declare(at, node.name, "variable", self.place(node)[0])
        elif isinstance(node, ast.MatchMapping) and node.rest:
            self.declare(at, node.rest, "variable", self.place(node)[0])

    def declare(self, at: int, name: str, what: str, start: int) -> None:
        """The place is moved to where the name itself stands (`except E as name`)."""
        scope = self.found[at]
        if name in scope.elsewhere or name in scope.declares:
            return
        word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
        found = word.search(self.source, start)
        start = found.start() if found else start
        scope.declares[name] = Declared(name, what, start, start + len(name))

    def scope_of(self, name: str, at: int) -> int:
        """The scope that a name used in scope `at` belongs to; -1 for a builtin."""
        here = at
        while here >= 0:
            scope = self.found[here]
            if name in scope.globals:
                return 0 if name in self.found[0].declares else -1
            seen = here == at or not isinstance(scope.node, ast.ClassDef)
            if seen and name in scope.declares:
                return here
            here = scope.parent
        return -1


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    found = [*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs,
             arguments.kwarg]
    return [each for each in found if each]


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    """What of a scope's node is read inside of it."""
    if isinstance(node, COMPREHENSIONS):
        first = node.generators[0]
        yield from (first.target, *first.ifs, *node.generators[1:])
        yield from (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
    elif isinstance(node, ast.Lambda):
        yield node.body
    else:
        yield from node.body


def _outside(node: ast.AST) -> Iterator[ast.AST]:
    """What of a scope's node is read around it: decorators, defaults, types, the first iterable."""
    if isinstance(node, COMPREHENSIONS):
        yield node.generators[0].iter
        return
    inside = set(map(id, _inside(node)))
    for child in ast.iter_child_nodes(node):
        if id(child) in inside:
            continue
        if isinstance(child, ast.arguments):
            yield from (*child.defaults, *(each for each in child.kw_defaults if each))
            yield from (each.annotation for each in _parameters(child) if each.annotation)
        else:
            yield child
