"""What travels with `pip install`, and what a chapter's first cell does about what does not.

The chapters themselves run over the wheel as well: see `tests/plugin.py`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from scratchbook.publishing import notebooks
from scratchbook.teaching import results
from tests.alone import CHECK, ROOT, alone

RESULTS = sorted((ROOT / "book" / "results").rglob("*.json"))
QUESTIONS = CHECK + f"""
from scratchbook.data.downloads import registry
from scratchbook.evaluation.code_tests import read_tests
from scratchbook.smalltalk_model import load_smalltalk
from scratchbook.teaching import load_result, record
from scratchbook.teaching.results import own_results_dir, results_dir
assert len(list(results_dir().rglob("*.json"))) == {len(RESULTS)}
assert load_smalltalk()[0].config.vocab_size == load_smalltalk()[1].vocab_size
assert load_result("00_start_here").numbers and registry() and read_tests()
record("00_start_here", {{"mine": 1}}, seeds=[], command="x")
assert own_results_dir() == pathlib.Path.cwd() / "results"
assert load_result("00_start_here").numbers == {{"mine": 1}}
"""


def test_results_data_and_figures_travel_in_the_wheel():
    done = subprocess.run([sys.executable, "-c", QUESTIONS], capture_output=True, text=True,
                          check=False, **alone())
    assert done.returncode == 0, done.stderr


def test_every_file_of_the_package_travels():
    place = alone()
    there = {path.relative_to(place["env"]["PYTHONPATH"]).as_posix()
             for path in Path(place["env"]["PYTHONPATH"]).rglob("*") if path.is_file()}
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "scratchbook").rglob("*")
            if path.suffix in (".py", ".js", ".cpp", ".html", ".css")}
    assert here <= there, here - there


def first_cell(before: str, *options: str) -> list[str]:
    """What the first cell of a chapter prints and installs, `before` having been run before it."""
    source = notebooks.SETUP_CELL.format(address="https://a/b", version="0.1.0")
    assert source.count("%pip install -q ") == 1
    source = source.replace("%pip install -q", "print(").rstrip() + ")"
    done = subprocess.run([sys.executable, *options, "-c", f"{before}\n{source}\n{AFTER}"],
                          check=False, capture_output=True, text=True, **alone())
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


AFTER = """import sys
assert not lacking or not any(name.split(".")[0] == "scratchbook" for name in sys.modules)"""
GONE = """from importlib import metadata
real = metadata.version
def version(name):
    if name == {name!r} and {there!r} is None:
        raise metadata.PackageNotFoundError(name)
    return {there!r} if name == {name!r} else real(name)
metadata.version = version"""
CLONE = """import os, sys
os.mkdir("scratchbook")
sys.path = ["", *(path for path in sys.path if not path.endswith("/site"))]
import scratchbook
assert scratchbook.__file__ is None
del sys.modules["scratchbook"]"""


def test_the_first_cell_does_nothing_where_all_is_there():
    assert first_cell("") == []


def test_a_clone_beside_the_notebook_is_not_the_package():
    said, asked = first_cell(CLONE, "-S")  # without the environment's packages
    assert asked == "scratchbook[notebooks] @ git+https://a/b"
    assert said == "Installing scratchbook and what it needs, which takes a minute or two."


@pytest.mark.parametrize(("name", "there"), [("tiktoken", None), ("torch", None),
                                             ("transformers", "3.0"), ("scratchbook", "0.0.9")])
def test_the_first_cell_asks_for_what_is_missing_or_too_old(name, there):
    said, asked = first_cell(GONE.format(name=name, there=there))
    assert said.startswith(f"Installing {name} and what it needs")
    assert asked == "scratchbook[notebooks] @ git+https://a/b"


def test_one_s_own_results_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "own_results_dir", lambda: tmp_path)
    assert results.load_result("00_start_here").numbers
    (tmp_path / "00_start_here.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        results.load_result("00_start_here")
