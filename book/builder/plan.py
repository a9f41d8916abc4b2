"""The plan of the course: book/course.toml, completed by the passports of the written chapters.

A chapter's title, sentence, needs and exercise minutes are read from its notebook; the file of
the plan only orders the chapters and guesses for those that are still coming.
"""

import json
import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_MINUTES = re.compile(r"^### Exercise .*\((\d+) minutes\)", re.MULTILINE)


@dataclass(frozen=True)
class Planned:
    """One chapter of the plan: where it is or will be, how long it takes, what it needs."""

    file: str
    title: str
    part: str
    reading: float
    exercises: float
    exists: bool
    about: str = ""
    needs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        """The chapter's number as readers say it: 06b."""
        return self.file.split("_", 1)[0]

    @property
    def hours(self) -> float:
        """Reading and exercises together."""
        return self.reading + self.exercises

    def cell(self) -> str:
        """The chapter as a cell of a table: a link, or its name marked as coming."""
        if self.exists:
            return f"[{self.number} {self.title}](../chapters/{self.file}.ipynb)"
        return f'{self.number} {self.title} <span class="sb-coming">coming</span>'


def read_plan(root: Path) -> dict:
    """The course plan as a dictionary."""
    return tomllib.loads((root / "book" / "course.toml").read_text(encoding="utf-8"))


def chapters(root: Path) -> dict[str, Planned]:
    """Every planned chapter by its number, in the order of the course."""
    found = {}
    for part in read_plan(root)["part"]:
        for row in part["chapter"]:
            path = root / "chapters" / f"{row['file']}.ipynb"
            written = _written(path, path.stat().st_mtime_ns) if path.is_file() else {}
            reading, exercises = row["hours"]
            planned = Planned(**{"file": row["file"], "title": row["title"], "part": part["title"],
                                 "reading": reading, "exercises": exercises,
                                 "exists": bool(written)} | written)
            found[planned.number] = planned
    return found


@lru_cache
def _written(path: Path, changed: int) -> dict:
    """What the notebook says of itself; its exercises' minutes as hours, to a tenth."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    passport = notebook["metadata"].get("scratchbook", {})
    prose = "\n".join("".join(cell["source"]) for cell in notebook["cells"]
                      if cell["cell_type"] == "markdown")
    minutes = sum(map(int, _MINUTES.findall(prose)))
    facts = {"exists": True, "about": passport.get("about", ""),
             "needs": tuple(need.split("_", 1)[0] for need in passport.get("needs", [])),
             "modules": tuple(passport.get("modules", [])),
             "exercises": round(minutes / 60, 1)}
    return facts | ({"title": passport["title"]} if "title" in passport else {})


def with_needs(steps: list[str], known: dict[str, Planned], done: tuple = ()) -> list[str]:
    """The steps and all that they need, in the order of the course, without what is done.

    Raises:   ValueError for a step that is not in the plan
    """
    wanted: set[str] = set()
    waiting = list(steps)
    while waiting:
        number = waiting.pop()
        if number not in known:
            raise ValueError(f"a route names {number!r}, which book/course.toml does not plan")
        if number not in wanted and number not in done:
            wanted.add(number)
            waiting += known[number].needs
    return [number for number in known if number in wanted]


def hours_of(steps: list[str], known: dict[str, Planned]) -> float:
    """The hours of several chapters together, to a tenth."""
    return round(sum(known[number].hours for number in steps), 1)
