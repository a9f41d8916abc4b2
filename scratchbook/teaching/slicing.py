"""Which statements of a notebook made a number: followed back from where it is recorded."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from scratchbook.teaching.syntax import (
    SCOPES,
    Module,
    binds,
    bound,
    inside,
    recorded,
    recorder,
    root_of,
)

ORDER = {ast.Assign: ("value", "targets"), ast.For: ("iter", "target", "body", "orelse"),
         ast.ListComp: ("generators", "elt"), ast.SetComp: ("generators", "elt"),
         ast.GeneratorExp: ("generators", "elt"), ast.DictComp: ("generators", "key", "value"),
         ast.comprehension: ("iter", "target", "ifs"), ast.NamedExpr: ("value", "target")}


def made_by(notebook: Module, name: str, idle: Callable[[ast.stmt], bool]) -> list[ast.AST]:
    """The statements that the result `name` hangs on, in the order of the notebook.

    Raises:   ValueError when nothing records a result of this name
    """
    flat = list(_flat(notebook.statements, name))
    calls = [recorder(statement, name) for statement in flat]
    last = next((place for place, call in enumerate(calls) if call), None)
    if last is None:
        raise ValueError(f"no cell records {name!r}")
    callables: dict[str, list[ast.stmt]] = {}
    for statement in flat:
        if isinstance(statement, SCOPES):
            callables.setdefault(statement.name, []).append(statement)
    fixed = set(callables) | set(notebook.imports)
    kept: list[ast.AST] = recorded(calls[last])
    wanted = _closed(set().union(*(needed(node) for node in kept)), callables)
    for statement in reversed(flat[:last]):
        changed = mutated(statement, idle, fixed) - set(callables)
        if idle(statement) or not (changed | binds(statement)) & wanted:
            continue
        kept.insert(0, statement)
        if isinstance(statement, ast.Assign):
            wanted -= {t.id for t in ast.walk(statement) if isinstance(t, ast.Name)
                       and isinstance(t.ctx, ast.Store)}
        wanted |= _closed(needed(statement), callables)
    return kept


def _flat(statements: list[ast.stmt], name: str) -> Iterator[ast.stmt]:
    """The statements, those of an `if` that records the result one by one."""
    for statement in statements:
        if isinstance(statement, ast.If) and recorder(statement, name):
            yield from _flat(statement.body, name)
        else:
            yield statement


def _closed(names: set[str], callables: dict[str, list[ast.stmt]]) -> set[str]:
    """The names and what the functions among them name: a function looks up when it is called."""
    found, ahead = set(), list(names)
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            for node in callables.get(name, ()):
                ahead += needed(node)
    return found


def needed(node: ast.AST, stored: set[str] | None = None) -> set[str]:
    """The names that a node reads before it has surely bound them itself."""
    stored = set() if stored is None else stored
    if isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Load):
            return {node.id} - stored
        stored.add(node.id)
        return set()
    if isinstance(node, ast.AugAssign):
        return needed(node.value, stored) | {n.id for n in ast.walk(node.target)
                                             if isinstance(n, ast.Name)} - stored
    if isinstance(node, SCOPES):
        own = bound(node) if not isinstance(node, ast.ClassDef) else set()
        stored |= {getattr(node, "name", "")}
        parts = [part for _, value in ast.iter_fields(node)
                 for part in (value if isinstance(value, list) else [value])]
        inner = set().union(*(needed(p, set(own)) for p in parts if isinstance(p, ast.AST)))
        return inner - stored
    # what one branch binds is not sure to be bound
    scope = set(stored) if isinstance(node, ast.If | ast.Try | ast.While) else stored
    found: set[str] = set()
    for field in ORDER.get(type(node), node._fields):
        if field not in ("annotation", "returns"):
            value = getattr(node, field, None)
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    found |= needed(part, scope)
    return found


def mutated(statement: ast.stmt, idle: Callable[[ast.stmt], bool], fixed: set[str]) -> set[str]:
    """Names whose objects a statement may change: by a call whose value it drops, or an item.

    `fixed` are names of functions and modules, which nothing changes from afar.
    """
    found, sources = set(), []
    if isinstance(statement, SCOPES):
        return found
    for node in (statement, *inside(statement)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not idle(node):
            call = node.value
            chain = [call.func] if isinstance(call.func, ast.Attribute) else []
            found |= _roots([*chain, *call.args, *(k.value for k in call.keywords)])
        elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(
                node.ctx, ast.Load):
            found |= _roots([node])
        elif isinstance(node, ast.Assign | ast.For | ast.comprehension | ast.NamedExpr):
            origin = node.value if isinstance(node, ast.Assign | ast.NamedExpr) else node.iter
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            sources.append((set().union(*(_stored(t) for t in targets)), needed(origin)))
    size = -1
    while size < len(found):  # a loop's variable changed is the thing it loops over changed
        size = len(found)
        for targets, origin in sources:
            found |= origin - fixed if targets & found else set()
    return found


def _stored(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)
            and isinstance(n.ctx, ast.Store)}


def _roots(nodes: list[ast.AST]) -> set[str]:
    return {start.id for start in map(root_of, nodes) if isinstance(start, ast.Name)}
