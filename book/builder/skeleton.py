"""Writes the files of a new chapter: `make chapter NAME=07_compression`.

The notebook has every part of the course's anatomy with a line that says what belongs there, an
exercise with its stub and solution, and runs as it is. The chapter must stand in
book/course.toml. What follows from these files (contents, tables, routes) is generated.
"""

import argparse
import sys
from pathlib import Path

from book.builder import contents
from book.builder.plan import Planned, chapters
from scratchbook.publishing.notebooks import as_text, normalise

ROOT = Path(__file__).resolve().parents[2]

FIGURES = '''"""The figures of chapter {number}; the chapter says what they show."""

from __future__ import annotations
'''

EXERCISES = '''"""The checks of chapter {number}'s exercises."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from scratchbook.teaching.checking import Property, exercise, expect


@exercise
def {word}_double(answer: Callable) -> Iterator[Property]:
    """Chapter {number}, an example to be replaced: twice a number."""
    for number in (0, 3, -2.5):
        got = answer(number)
        yield expect(f"{{number}} becomes {{2 * number}}", got == 2 * number,
                     (got == number ** 2, "you squared it"),
                     (got == number, "you returned the number itself"),
                     (True, f"you returned {{got!r}}"))
'''

ANSWERS = '''"""Foreseen wrong answers of chapter {number}: (answer, a piece of its message)."""

WRONG = {{
    "{word}_double": [
        (lambda number: number ** 2, "you squared it"),
        (lambda number: number, "you returned the number itself"),
        (lambda number: 2 * number + 1, "you returned 1"),
    ],
}}
'''

TEST = '''"""What chapter {number} teaches, tested: a worked example, parity, laws."""

from scratchbook.companions import check


def test_the_example_exercise_can_be_solved():
    assert check.report("{word}_double", lambda number: 2 * number).passed
'''


def main(arguments: list[str] | None = None) -> int:
    """Write the skeleton of one planned chapter; refuses to write over anything."""
    parser = argparse.ArgumentParser(prog="make chapter", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="the chapter's file as planned, for example 07_compression")
    name = parser.parse_args(arguments).name
    try:
        for path in write(name, ROOT):
            print(f"wrote {path.relative_to(ROOT)}")
    except ValueError as error:
        print(f"make chapter: {error}", file=sys.stderr)
        return 2
    contents.main([])
    print("next: CONTRIBUTING.md, \"Adding a chapter\"")
    return 0


def write(name: str, root: Path) -> list[Path]:
    """Write every file of the chapter `name` below `root` and return their paths.

    Raises:   ValueError when the chapter is not planned, or a file is there already
    """
    planned = next((c for c in chapters(root).values() if c.file == name), None)
    if planned is None:
        waiting = ", ".join(c.file for c in chapters(root).values() if not c.exists)
        raise ValueError(f"book/course.toml plans no chapter {name!r}; still to be written: "
                         f"{waiting}")
    made = files(planned)
    there = [inner for inner in made if (root / inner).exists()]
    if there:
        raise ValueError(f"{there[0]} is there already: nothing was written")
    for inner, text in made.items():
        (root / inner).parent.mkdir(parents=True, exist_ok=True)
        (root / inner).write_text(text, encoding="utf-8")
    return [root / inner for inner in made]


def files(planned: Planned) -> dict[str, str]:
    """The files of a chapter by their place in the repository."""
    word = planned.file.split("_", 1)[1]
    names = {"number": planned.number, "word": word}
    return {
        f"chapters/{planned.file}.ipynb": as_text(normalise(notebook(planned, word))),
        f"scratchbook/companions/{word}_figures.py": FIGURES.format(**names),
        f"scratchbook/companions/exercises_{word}.py": EXERCISES.format(**names),
        f"tests/exercises/answers_{word}.py": ANSWERS.format(**names),
        f"tests/test_{word}.py": TEST.format(**names),
    }


def notebook(planned: Planned, word: str) -> dict:
    """The chapter's notebook: every section in its order, not yet executed."""
    stub = (f"def {word}_double(number):\n    raise NotImplementedError\n\n"
            f"check.{word}_double({word}_double)")
    solution = stub.replace("raise NotImplementedError", "return 2 * number")
    cells = [
        prose(f"# {planned.number} · {planned.title}\n\nA promise in three sentences.\n\n"
              "**You will build**\n\n* three things at most\n\n"
              "**You will see**\n\n* three things at most"),
        code("# setup", "setup"),
        code('PROFILE = "quick"  # what this page shows; "full" says what it does more\n'
             "SEED = 0           # of everything drawn here\n"
             'DEVICE = "cpu"     # or "cuda", "mps"', "parameters"),
        code("from scratchbook.companions import check\nfrom scratchbook.teaching import use_style"
             "\n\nuse_style()", "hide-input"),
        prose("## The problem\n\nAn example that can be checked by hand."),
        prose("## Build it small\n\nThe idea in 25 lines at the most, then a cell that checks it."),
        prose("## The package's version\n\n`show_source`, and the proof that both are equal."),
        prose("## An experiment\n\n**Predict**, measure, plot; the cause changed alone."),
        prose("## Where it breaks\n\nOne failure on purpose, and the test that catches it."),
        prose("## Summary\n\n* five lines at the most"),
        prose("## Exercises"),
        prose(f"### Exercise {planned.number}.1 · An example (5 minutes)\n\n"
              f"Write `{word}_double(number)`: twice a number."),
        code(stub, "exercise"),
        prose(":::{dropdown} Hint\nTwo times.\n:::"),
        code(solution, "solution", "hide-cell"),
        prose("## Further reading"),
    ]
    passport = {"title": planned.title, "about": "One sentence for the landing page.",
                "budget_seconds": {"quick": 75, "full": 600}, "memory_mb": 800,
                "downloads_mb": {"quick": 0, "full": 0}, "goals": [], "modules": [],
                "needs": ["00_start_here"], "papers": []}
    return {"cells": cells, "metadata": {"scratchbook": dict(sorted(passport.items()))}}


def prose(text: str) -> dict:
    """A Markdown cell."""
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text: str, *tags: str) -> dict:
    """A code cell that has not run."""
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": text,
            "execution_count": None, "outputs": []}


if __name__ == "__main__":
    sys.exit(main())
