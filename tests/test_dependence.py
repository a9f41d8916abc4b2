"""What makes a recorded result stale: the code behind its numbers, and nothing else."""

import json
from pathlib import Path

import pytest

from scratchbook.teaching.dependence import fingerprint

COMMAND = "scratchbook run 90 --profile full"
FILES = {
    "scratchbook/__init__.py": "",
    "scratchbook/parts/__init__.py": "from scratchbook.parts.sums import total\n",
    "scratchbook/parts/sums.py": '''"""Sums."""
from scratchbook.rules import SCALE, check_size

def total(values: list, weight: float = 1.0) -> float:
    """Add up."""
    check_size(len(values))
    print("adding")
    found = 0.0  # starts at nothing
    for value in values:
        if value < 0:
            raise ValueError(f"{value} is below zero")
        found += SCALE * weight * value
    return found

def unused(x):
    return x

class Scale:
    size = 1

    def __init__(self, by: int) -> None:
        self.by = by

    def times(self, x):
        return self.by * x

    def save(self, path):
        path.write_text("by")
''',
    "scratchbook/rules.py": '''SCALE = 2

def check_size(size):
    """No number comes from here."""
    if size > 9:
        raise ValueError("too many")
''',
    "scratchbook/pictures.py": '''from scratchbook.rules import SCALE

def plot(values):
    import matplotlib.pyplot as plt
    plt.plot(values)

def told(values):
    return f"{values}"
''',
    "scratchbook/cli.py": "def main():\n    return 0\n",
}
CELLS = ['%pip install -q scratchbook\nPROFILE = "quick"\nSEED = 0',
         "from scratchbook.parts import total\nfrom scratchbook.parts.sums import Scale\n"
         "from scratchbook import pictures\n"
         "from scratchbook.teaching import record, show",
         "x = [5, 6]\nprint(total(x))",
         "runs = {1: []}\nseeds = range(SEED, SEED + 3)",
         "def measure(seed):\n    return total([seed, offset])\noffset = 1",
         "for name, found in runs.items():\n    for seed in seeds:\n"
         "        found.append(measure(seed))",
         "pictures.plot(runs[1])\nassert len(runs) == 1",
         "x = Scale(2).times(max(runs[1]))",
         'if PROFILE == "full":\n    numbers = {"runs": runs, "x": x}\n'
         f'    record("90_toy", numbers, seeds=list(seeds), command="{COMMAND}")']


def stamp(root: Path, files: dict[str, str], cells: list[str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "chapters").mkdir()
    book = {"cells": [{"cell_type": "code", "source": cell.splitlines(keepends=True)}
                      for cell in cells]}
    (root / "chapters" / "90_toy.ipynb").write_text(json.dumps(book), encoding="utf-8")
    return fingerprint("90_toy", COMMAND, root)


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> str:
    return stamp(tmp_path_factory.mktemp("before"), FILES, CELLS)


def after(root: Path, place: str | int, old: str, new: str) -> str:
    files, cells = dict(FILES), list(CELLS)
    for each in files if place == "everywhere" else [place] if isinstance(place, str) else ():
        assert old in files[each] or place == "everywhere"
        files[each] = files[each].replace(old, new)
    for each in range(len(cells)) if place == "everywhere" else [
            place] if isinstance(place, int) else ():
        assert old in cells[each] or place == "everywhere"
        cells[each] = cells[each].replace(old, new)
    return stamp(root, files, cells)


SUMS, RULES = "scratchbook/parts/sums.py", "scratchbook/rules.py"


@pytest.mark.parametrize(("place", "old", "new"), [
    (SUMS, "  # starts at nothing", ""), (SUMS, '"""Add up."""', '"""Sum."""'),
    (SUMS, ": list", ": tuple"), (SUMS, "-> float", "-> int"), (SUMS, "\n\n", "\n\n\n\n"),
    (SUMS, "0.0  #", "(0.0)  #"), (SUMS, "is below zero", "< 0"), (SUMS, '"adding"', '"sum"'),
    (SUMS, "value < 0", "value <= 0"),
    (SUMS, '"by"', '"times"'), ("everywhere", "times", "scaled"),
    (SUMS, "return x", "return -x"), (RULES, "too many", "9 at most"),
    ("scratchbook/cli.py", "return 0", "return 1"),
    ("scratchbook/pictures.py", "plt.plot(values)", "plt.bar(values)"),
    ("scratchbook/pictures.py", 'f"{values}"', 'f"{values:}!"'),
    (2, "5, 6", "7, 8"), (2, "print(total(x))", "print(x, total(x))"), (6, "== 1", ">= 1"),
    ("everywhere", "weight", "share"), ("everywhere", "total", "add_up"),
    ("everywhere", "found", "seen")])
def test_what_cannot_change_a_number_makes_nothing_stale(tmp_path, before, place, old, new):
    assert after(tmp_path, place, old, new) == before


@pytest.mark.parametrize(("place", "old", "new"), [
    (SUMS, "weight: float = 1.0", "weight: float = 1.5"), (SUMS, "0.0  #", "0.5  #"),
    (SUMS, "SCALE * weight", "SCALE + weight"), (SUMS, "weight * value", "value * value"),
    (SUMS, "self.by * x", "self.by + x"), (SUMS, "self.by = by", "self.by = -by"),
    (SUMS, "size = 1", "size = 2"),
    (RULES, "SCALE = 2", "SCALE = 3"),
    (0, "SEED = 0", "SEED = 1"), (3, "SEED + 3", "SEED + 4"), (4, "offset = 1", "offset = 2"),
    (4, "[seed, offset]", "[offset, seed]"), (5, "found.append", "found.extend"),
    (5, "seeds:", "range(9):"), (7, "max", "min"), (8, '"x": x', '"y": x'),
    (8, "list(seeds)", "[0]")])
def test_what_can_change_a_number_makes_it_stale(tmp_path, before, place, old, new):
    assert after(tmp_path, place, old, new) != before


def test_code_that_moves_elsewhere_is_the_same_code(tmp_path, before):
    files = {name.replace("sums", "adding"): text.replace("parts.sums", "parts.adding")
             for name, text in FILES.items()}
    cells = [cell.replace("parts.sums", "parts.adding") for cell in CELLS]
    assert stamp(tmp_path, files, cells) == before


def test_a_module_that_records(tmp_path):
    code = ('from scratchbook.parts import total\nCOMMAND = "python -m tests.bench"\n'
            "def main():\n    from scratchbook.teaching import record\n"
            '    print(record("sums", {"a": total([1])}, seeds=[], command=COMMAND))\n')
    stamps = []
    for folder, scale in (("a", 2), ("b", 2), ("c", 3)):
        files = FILES | {"tests/bench.py": code, RULES: FILES[RULES].replace("2", str(scale))}
        stamp(tmp_path / folder, files, CELLS)
        stamps.append(fingerprint("sums", "python -m tests.bench", tmp_path / folder))
    assert stamps[0] == stamps[1] != stamps[2]


@pytest.mark.parametrize(("name", "command"), [
    ("90_toy", "scratchbook run 91"), ("other", COMMAND), ("sums", "python -m tests.nothing"),
    ("sums", "by hand")])
def test_code_that_cannot_be_found_is_an_error(tmp_path, name, command):
    stamp(tmp_path, FILES, CELLS)
    with pytest.raises(ValueError, match="no chapter|no cell|cannot find"):
        fingerprint(name, command, tmp_path)


def test_every_result_of_the_book_has_its_maker():
    root = Path(__file__).resolve().parent.parent
    for path in sorted((root / "book" / "results").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        assert fingerprint(content["name"], content["command"], root), path


def test_every_committed_result_knows_the_code_that_made_it():
    results = Path(__file__).resolve().parents[1] / "book" / "results"
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*.json")]
    assert len(entries) > 40
    assert [entry["name"] for entry in entries if not entry["fingerprint"]] == []
