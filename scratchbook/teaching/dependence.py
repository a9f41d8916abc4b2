"""What a recorded result depends on: the code that made it, followed from name to name.

A result's command names its maker, a chapter or a module. From the call of `record` (or of
`conclude`) the numbers are followed back: in a chapter to the statements that made them, and from
these to every function, class and constant of this course that they name, and so on. The
fingerprint is a hash over the syntax trees of all that. What cannot change a number is left out:
comments, docstrings, annotations, drawing, printing, assertions, what is refused with which words;
so is what things are called, as long as one name is exchanged for one other everywhere.
"""

from __future__ import annotations

import ast
import hashlib
import re
from functools import cache, partial
from pathlib import Path

from scratchbook.teaching.slicing import made_by
from scratchbook.teaching.syntax import (
    RECORDERS,
    Key,
    Module,
    bound,
    imports,
    inside,
    recorded,
    recorder,
    root_of,
    statements_of,
)

OWN = ("scratchbook", "book", "tests")
SHOWING = tuple(f"scratchbook.teaching.{name}" for name in (
    "checking", "conclusions", "figures", "live_figures", "results", "sources")) + (
        "scratchbook.companions", "matplotlib", "IPython")
# functions that keep files and folders: what is computed does not come from here
KEEPING = ("scratchbook.data.downloads", "scratchbook.training.checkpoint",
           "scratchbook.training.logs", "scratchbook.training.runs")
CALLED = ("forward", "backward", "setup_context")  # by torch
UNSEEN = ("annotation", "returns", "type_comment", "type_params", "ctx", "kind")


class Course:
    """The modules of one tree, parsed as they are asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.module = cache(self._module)
        self.draws = cache(self._draws)

    def _module(self, name: str) -> Module | None:
        place = self.root.joinpath(*name.split("."))
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return Module(ast.parse(path.read_text(encoding="utf-8")).body)
        return None

    def follow(self, module: str, name: str) -> Key:
        """Where the name is defined: re-exports are followed; ("…", "") is a module or outside."""
        found = self.module(module) if module.split(".")[0] in OWN else None
        if found is None or not name:
            return f"{module}.{name}".rstrip("."), ""
        if name in found.definitions:
            return module, name
        if name in found.imports:
            return self.follow(*found.imports[name])
        return f"{module}.{name}", ""

    def _draws(self, key: Key) -> bool:
        """Whether a definition shows or keeps something instead of computing."""
        module, name = key
        if module in SHOWING or module.split(".")[0] in SHOWING:
            return True
        if module in KEEPING and not name[:1].isupper():
            return True
        if not name or module.split(".")[0] not in OWN:
            return False
        known, nodes = self.module(module).imports, self.module(module).definitions[name]
        for node in (each for statement in nodes for each in ast.walk(statement)):
            found = list(imports([node]).values()) if isinstance(node, ast.stmt) else []
            if isinstance(node, ast.Name) and node.id in known:
                found.append(known[node.id])
            if any(m.split(".")[0] in SHOWING or self.follow(m, n)[0] in SHOWING
                   for m, n in found):
                return True
        return False


class Stream:
    """Syntax trees as one list of tokens, and after them those of every definition they name."""

    def __init__(self, course: Course, module: str, env: dict[str, Key | None]) -> None:
        self.course, self.home, self.env = course, module, env
        self.tokens: list[str | tuple[str]] = []
        self.order: dict[Key, int] = {}
        self.ours: set[str] = set()
        self.named: set[str] = set()
        self.later: set[ast.AST] = set()  # methods count once somebody names them
        self.methods: list[tuple[str, ast.AST, dict[str, Key | None]]] = []

    def digest(self, nodes: list[ast.AST]) -> str:
        """The hash of the nodes and of all that they reach."""
        self.visit(nodes, self.env)
        done = 0
        while done < len(self.order) or self._called():
            if done < len(self.order):
                self.home, name = list(self.order)[done]
                done += 1
                self.visit(self.course.module(self.home).definitions[name], {})
        numbers: dict[str, str] = {}
        plain = [token if isinstance(token, str) else
                 numbers.setdefault(token[0], f"#{len(numbers)}")
                 if token[0] in self.ours and not token[0].startswith("__") else token[0]
                 for token in self.tokens]
        return hashlib.sha256("\n".join(plain).encode()).hexdigest()

    def _called(self) -> bool:
        """Write down the methods that have been named since; False when there are none."""
        ready = [each for each in self.methods if each[1].name in self.named]
        self.methods = [each for each in self.methods if each not in ready]
        for self.home, method, env in ready:
            self._fields(method, self._inner(method, env))
        return bool(ready)

    def lookup(self, node: ast.AST, env: dict[str, Key | None]) -> Key | None:
        """What a name, or a name of a module, stands for; None for what is local or built in."""
        if isinstance(node, ast.Name):
            if node.id in env:
                return env[node.id]
            home = self.course.module(self.home) if self.home else None
            known = home is not None and (node.id in home.definitions or node.id in home.imports)
            return self.course.follow(self.home, node.id) if known else None
        if isinstance(node, ast.Attribute):
            base = self.lookup(node.value, env)
            if base and not base[1] and base[0].split(".")[0] in OWN:
                return self.course.follow(base[0], node.attr)
        return None

    def visit(self, node: object, env: dict[str, Key | None]) -> None:
        """Write down one node with everything below it."""
        if isinstance(node, list):
            self.tokens.append("[")
            for each in node:
                self.visit(each, env)
            self.tokens.append("]")
        elif not isinstance(node, ast.AST):
            self.tokens.append(repr(node))
        elif key := self.lookup(node, env):
            self._refer(key)
        elif isinstance(node, ast.FunctionDef) and node in self.later:
            self.methods.append((self.home, node, env))
        elif not self.idle(node, env):
            if isinstance(node, ast.ClassDef):
                self.later |= {n for n in node.body if isinstance(n, ast.FunctionDef)
                               and not n.name.startswith("__") and n.name not in CALLED}
            self._fields(node, self._inner(node, env))

    def _refer(self, key: Key) -> None:
        if self.course.draws(key):
            self.tokens.append("shown")
        elif key[1]:
            self.tokens.append(f"definition {self.order.setdefault(key, len(self.order))}")
        else:
            self.tokens.append(key[0])

    def _inner(self, node: ast.AST, env: dict[str, Key | None]) -> dict[str, Key | None]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found = imports([n for n in inside(node) if isinstance(n, ast.stmt)])
            return (env | dict.fromkeys(bound(node))
                    | {name: self.course.follow(*key) for name, key in found.items()})
        return env

    def _fields(self, node: ast.AST, env: dict[str, Key | None]) -> None:
        self.tokens.append(type(node).__name__)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in RECORDERS:
            self.visit(recorded(node), env)
            return
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            self.ours.add(node.id if isinstance(node, ast.Name) else node.attr)
        for field, value in ast.iter_fields(node):
            if field in UNSEEN or value is None or value == []:
                continue
            self.tokens.append(field)
            named = field in ("id", "arg", "attr", "name") and isinstance(value, str)
            if named and not isinstance(node, ast.Name | ast.Attribute | ast.keyword):
                self.ours.add(value)
            if named:
                self.named.add(value)
                self.tokens.append((value,))
            else:
                self.visit(value, env)

    def idle(self, node: ast.AST, env: dict[str, Key | None]) -> bool:
        """Whether a statement cannot change a number: it says, shows, refuses or documents."""
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert):
            return True
        if isinstance(node, ast.Expr):
            return self._shows(node.value, env)
        if isinstance(node, ast.If) and not node.orelse:
            return all(isinstance(n, ast.Raise) and isinstance(n.exc, ast.Call) and getattr(
                n.exc.func, "id", "") in ("ValueError", "TypeError") for n in node.body)
        if isinstance(node, ast.For | ast.With):
            return all(self.idle(each, env) for each in node.body)
        return False

    def _shows(self, value: ast.expr, env: dict[str, Key | None]) -> bool:
        if isinstance(value, ast.Constant):
            return True
        if not isinstance(value, ast.Call) or any(
                isinstance(n, ast.Name) and n.id in RECORDERS for n in ast.walk(value)):
            return False
        keys = (self.lookup(value.func, env), self.lookup(root_of(value.func), env))
        return (getattr(value.func, "id", "") == "print"
                or any(key is not None and self.course.draws(key) for key in keys))


@cache
def fingerprint(name: str, command: str, root: Path) -> str:
    """A hash over the code that makes the result `name`.

    Raises:   ValueError when the command, or the call that records the result, cannot be found
    """
    course = _course(root)
    if chapter := re.match(r"scratchbook run (\S+)", command):
        found = [*root.glob(f"chapters/{chapter[1]}.ipynb"),
                 *root.glob(f"chapters/{chapter[1]}_*.ipynb")]
        if not found:
            raise ValueError(f"there is no chapter {chapter[1]!r}, which made {name!r}")
        top = Module(statements_of(found[0]))
        env = dict.fromkeys(top.definitions) | {
            local: course.follow(*key) for local, key in top.imports.items()}
        stream = Stream(course, "", env)
        idle = partial(stream.idle, env=env)
        return stream.digest(made_by(top, name, idle))
    maker = re.match(r"python -m (\S+)", command)
    module = course.module(maker[1]) if maker else None
    makers = [s for s in module.statements if recorder(s, name)] if module else []
    if not makers:
        raise ValueError(f"cannot find the code that records {name!r} behind {command!r}")
    return Stream(course, maker[1], {}).digest(makers)


@cache
def _course(root: Path) -> Course:
    return Course(root)
