"""Reading Python's syntax trees: which names a piece of code binds, imports and records."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

RECORDERS = ("record", "conclude")
SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
Key = tuple[str, str]  # a module and a name in it; outside this course the name is ""


class Module:
    """The names that a module, or a notebook, defines and imports at its top."""

    def __init__(self, statements: list[ast.stmt]) -> None:
        self.statements = statements
        self.definitions: dict[str, list[ast.stmt]] = {}
        for statement in statements:
            for name in binds(statement):
                self.definitions.setdefault(name, []).append(statement)
        self.imports = imports(statements)


def imports(nodes: list[ast.stmt]) -> dict[str, Key]:
    """Names bound by the import statements among the nodes: to a module's name, or to a module."""
    found: dict[str, Key] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                dotted = alias.name if alias.asname else alias.name.split(".")[0]
                found[alias.asname or dotted] = (dotted, "")
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = (node.module or "", alias.name)
        elif isinstance(node, ast.If | ast.Try):
            found |= imports([*node.body, *node.orelse])
    return found


def inside(node: ast.AST) -> Iterator[ast.AST]:
    """The node's descendants, not going into functions and classes that it defines."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, SCOPES):
            yield from inside(child)


def binds(node: ast.AST) -> set[str]:
    """Names that a statement binds in the scope it stands in."""
    if isinstance(node, SCOPES):
        return {node.name} if not isinstance(node, ast.Lambda) else set()
    nodes = (node, *inside(node))
    return ({n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            | {n.name for n in nodes if isinstance(n, SCOPES) and not isinstance(n, ast.Lambda)})


def bound(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    """Names that are local to a function: its arguments and what its body binds."""
    body = function.body if isinstance(function.body, list) else [function.body]
    return ({n.arg for n in ast.walk(function.args) if isinstance(n, ast.arg)}
            | set().union(*(binds(node) for node in body)))


def statements_of(notebook: Path) -> list[ast.stmt]:
    """The code of a notebook; lines for the shell or the kernel count as nothing."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.MULTILINE)).body


def recorder(node: ast.AST, name: str) -> ast.Call | None:
    """The call inside the node that records the result of this name."""
    calls = (n for n in ast.walk(node) if isinstance(n, ast.Call)
             and getattr(n.func, "id", "") in RECORDERS and len(n.args) > 1)
    return next((n for n in calls if getattr(n.args[0], "value", None) == name), None)


def root_of(node: ast.AST) -> ast.AST:
    """The name at which a chain such as `a.b[0].c` begins."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node


def recorded(call: ast.Call) -> list[ast.expr]:
    """Of a call that records: the numbers and the seeds."""
    return [call.args[1], *(k.value for k in call.keywords if k.arg == "seeds")]
