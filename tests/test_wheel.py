"""What travels with `pip install`, and what a chapter's first cell does about what does not.

The chapters themselves run over the wheel as well: see `tests/plugin.py`.
"""

import importlib.metadata
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
from scratchbook.teaching import load_result, record
from scratchbook.teaching.results import own_results_dir, results_dir
assert len(list(results_dir().rglob("*.json"))) == {len(RESULTS)}
assert load_result("00_start_here").numbers and registry() and read_tests()
record("00_start_here", {{"mine": 1}}, seeds=[], command="x", depends=["scratchbook.norms"])
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
            if path.suffix in (".py", ".js", ".cpp")}
    assert here <= there, here - there


def first_cell(monkeypatch, gone: str = "", old: str = "") -> tuple[str | None, str]:
    """What the first cell of a chapter would install, and why, with a package gone or too old."""
    real, asked, said = importlib.metadata.version, [], []

    def version(name):
        if name == gone:
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.0.1" if name == old else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    source = notebooks.SETUP_CELL.format(address="https://a/b", version="0.1.0")
    assert source.count("%pip install -q ") == 1
    source = source.replace('%pip install -q "', 'asked.append("').rstrip() + ")"
    exec(source, {"asked": asked, "print": said.append})
    return (asked or [None])[0], "".join(said)


def test_the_first_cell_does_nothing_where_all_is_there(monkeypatch):
    assert first_cell(monkeypatch) == (None, "")


@pytest.mark.parametrize("gone", ["scratchbook", "tiktoken", "torch"])
def test_the_first_cell_asks_for_what_is_missing(monkeypatch, tmp_path, gone):
    (tmp_path / "scratchbook").mkdir()  # a clone beside the notebook, which can be imported
    monkeypatch.chdir(tmp_path)
    asked, said = first_cell(monkeypatch, gone=gone)
    assert asked == "scratchbook[notebooks] @ git+https://a/b"
    assert f"Missing or too old: {gone}." in said and "Installing" in said


@pytest.mark.parametrize("old", ["scratchbook", "transformers"])
def test_the_first_cell_asks_for_the_version(monkeypatch, old):
    asked, said = first_cell(monkeypatch, old=old)
    assert asked and f"Missing or too old: {old}." in said


def test_one_s_own_results_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "own_results_dir", lambda: tmp_path)
    assert results.load_result("00_start_here").numbers
    (tmp_path / "00_start_here.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        results.load_result("00_start_here")
