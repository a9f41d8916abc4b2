"""Reads notebooks for the tests: their cells, and the few statements that one cell depends on."""

import ast
import builtins
import contextlib
import io
import json
import re
import symtable
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("[0-9][0-9]*_*.ipynb"))
CALLS_CHECK = re.compile(r"^\s*check\.(\w+)\(", re.MULTILINE)


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def source_of(cell: dict) -> str:
    return "".join(cell["source"])


def tags_of(cell: dict) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def exercises(path: Path) -> Iterator[tuple[str, int, int | None]]:
    """Yield (name, number of the stub's cell, number of its solution's cell or None)."""
    cells = code_cells(load(path))
    for number, cell in enumerate(cells):
        if "exercise" not in tags_of(cell):
            continue
        names = CALLS_CHECK.findall(source_of(cell))
        assert len(names) == 1, f"{path.name}: an exercise cell calls one check, not {names}"
        solution = next((n for n in range(number + 1, len(cells))
                         if {"solution", "exercise"} & set(tags_of(cells[n]))), None)
        solved = solution is not None and "solution" in tags_of(cells[solution])
        yield names[0], number, solution if solved else None


def run_cell(path: Path, number: int) -> tuple[dict, str]:
    """Execute one code cell after the earlier statements that it needs.

    Returns its names and what it printed.
    """
    names, printed = names_before(path, number), io.StringIO()
    with contextlib.redirect_stdout(printed):
        _execute(_statements(source_of(code_cells(load(path))[number])), names, path)
    return names, printed.getvalue()


def names_before(path: Path, number: int) -> dict:
    """The names that one code cell finds, made by only the earlier statements that it needs.

    A chapter's experiments would take minutes; an exercise needs its imports and a few definitions.
    """
    cells = code_cells(load(path))
    statements = [node for cell in cells[:number] for node in _statements(source_of(cell))]
    names: dict = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        _execute(_needed(statements, _statements(source_of(cells[number]))), names, path)
    return names


def _statements(source: str) -> list[ast.stmt]:
    lines = ["pass  # a magic" if line.lstrip().startswith("%") else line
             for line in source.splitlines()]
    indented = ["    " + new if old.startswith("    %") else new
                for old, new in zip(source.splitlines(), lines, strict=True)]
    return ast.parse("\n".join(indented)).body


def _execute(statements: list[ast.stmt], names: dict, path: Path) -> None:
    exec(compile(ast.Module(statements, type_ignores=[]), path.name, "exec"), names)


def _needed(statements: list[ast.stmt], wanted: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that bind a name the wanted ones read, and those that these read in turn."""
    missing = set().union(*(_names(statement)[0] for statement in wanted))
    kept = []
    for statement in reversed(statements):
        reads, binds = _names(statement)
        if binds & missing:
            kept.append(statement)
            # what a loop or branch binds may have had a value before it
            certain = not isinstance(statement, ast.For | ast.While | ast.If | ast.With | ast.Try)
            missing = (missing - binds if certain else missing) | reads
    return kept[::-1]


def _names(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """The global names that a statement reads, and those that it binds."""
    table = symtable.symtable(ast.unparse(statement), "cell", "exec")
    symbols = table.get_symbols()
    reads = {s.get_name() for s in symbols if s.is_referenced()} | _read_inside(table)
    binds = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    return reads - set(dir(builtins)), binds


def _read_inside(table: symtable.SymbolTable) -> set[str]:
    found = set()
    for child in table.get_children():
        found |= {s.get_name() for s in child.get_symbols() if s.is_global() and s.is_referenced()}
        found |= _read_inside(child)
    return found
