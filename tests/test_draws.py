"""Two draws with one seed and name share their numbers: no page and no file computes with both."""

import ast
import types

import pytest
import torch

from scratchbook.teaching import draw, draws
from tests.notebook_tools import CHAPTERS, ROOT, code_cells, load, source_of


def shared(tree: ast.AST) -> list[tuple[str, str]]:
    """Pairs of shapes that stand under one seed and name in the same piece of code."""
    seen: dict = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "draw":
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            key = keywords.get("seed", "0"), keywords.get("name", "''")
            shape = ", ".join(map(ast.unparse, node.args))
            if seen.setdefault(key, shape) != shape:
                found.append((seen[key], shape))
    return found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_no_cell_draws_two_shapes_under_one_name(path):
    for number, cell in enumerate(code_cells(load(path))[1:], start=2):
        assert shared(ast.parse(source_of(cell))) == [], f"code cell {number}"


def test_no_function_draws_two_shapes_under_one_name():
    files = sorted((ROOT / "scratchbook").rglob("*.py"))
    assert len(files) > 50
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert shared(node) == [], f"{path.name}, {node.name}"


def test_the_search_finds_a_pair():
    pair = "x = draw(256, seed=S)\nfor m in draw(30, 256, seed=S): pass\ny = draw(3, name='y')"
    assert shared(ast.parse(pair)) == [("256", "30, 256")]
    assert torch.equal(draw(256, seed=3), draw(30, 256, seed=3)[0])  # why it matters


@pytest.fixture
def cell(monkeypatch):
    """Stand in for a notebook: a number that the test can turn, and code that runs in it."""
    shell = types.SimpleNamespace(execution_count=1)
    monkeypatch.setitem(draws.sys.modules, "IPython",
                        types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(draws, "_in_cell", {})
    main = {"__name__": "__main__", "draw": draw}

    def run(code: str, again: bool = False) -> dict:
        shell.execution_count += not again
        exec(code, main)
        return main
    return run


def test_a_cell_that_draws_a_vector_beside_its_matrix_is_refused(cell):
    cell("def rows(): return draw(5, 4, seed=1)")
    with pytest.raises(ValueError, match=r"\(4,\) and \(5, 4\).*seed=1.*another name"):
        cell("x = draw(4, seed=1)\nrows()")
    cell("x = draw(4, seed=1)\ndraw(5, 4, seed=1, name='rows')\ndraw(5, 4, seed=2)")


def test_cells_run_twice_and_in_any_order(cell):
    for _ in range(2):
        cell("x = draw(4)\nassert (x == draw(4)).all()")
        cell("y = draw(5, 4)")
    names = cell("z = draw(9)")
    assert torch.equal(names["x"], draw(4)) and torch.equal(names["y"], draw(5, 4))


def test_other_modules_and_plain_python_are_left_alone(cell, monkeypatch):
    cell("x = draw(4)")
    draw(5, 4)  # this file is not the notebook
    monkeypatch.setitem(draws.sys.modules, "IPython",
                        types.SimpleNamespace(get_ipython=lambda: None))
    names = cell("x = draw(4); y = draw(5, 4)")
    assert names["x"].shape == (4,) and names["y"].shape == (5, 4)
