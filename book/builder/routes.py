"""The plan of the course as tables: parts, chapters, routes, and hours that add up.

Everything is read from book/course.toml; whether a chapter exists is read from the folder of
notebooks, so that the page cannot promise what is not there.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Planned:
    """One chapter of the plan: where it will be, how long it takes, whether it is there."""

    file: str
    title: str
    part: str
    reading: float
    exercises: float
    exists: bool

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
            exists = (root / "chapters" / f"{row['file']}.ipynb").is_file()
            planned = Planned(row["file"], row["title"], part["title"], *row["hours"], exists)
            found[planned.number] = planned
    return found


def hours_of(steps: list[str], known: dict[str, Planned]) -> float:
    """The hours of several chapters together."""
    return sum(known[number].hours for number in steps)


def parts_table(root: Path) -> str:
    """All nine parts with their chapters and hours."""
    known = chapters(root)
    rows = [[p.part, p.cell(), f"{p.reading:g}", f"{p.exercises:g}"] for p in known.values()]
    total = ["**The whole course**", f"{len(known)} chapters",
             f"**{sum(p.reading for p in known.values()):g}**",
             f"**{sum(p.exercises for p in known.values()):g}**"]
    return markdown_table(["Part", "Chapter", "Reading, h", "Exercises, h"], [*rows, total])


def approaches_table(root: Path) -> str:
    """Five ways into the course, each with what it needs."""
    known = chapters(root)
    rows = [[f"**{a['title']}**", a["needs"], _cells(a["steps"], known),
             f"{hours_of(a['steps'], known):g}"] for a in read_plan(root)["approach"]]
    return markdown_table(["Approach", "Needs", "Chapters", "Hours"], rows)


def weeks_table(root: Path) -> str:
    """Twelve weeks, a line each, and their sum."""
    known, plan = chapters(root), read_plan(root)["week"]
    rows = [[w["weeks"], w["theme"], _cells(w["steps"], known),
             f"{hours_of(w['steps'], known):g}"] for w in plan]
    total = sum(hours_of(w["steps"], known) for w in plan)
    return markdown_table(["Week", "Theme", "Chapters", "Hours"],
                          [*rows, [f"**{len(plan)}**", "", "", f"**{total:g}**"]])


def phases_table(root: Path) -> str:
    """Four phases with a range of weeks each."""
    return _ranged(root, "phase", "Phase")


def mac_table(root: Path) -> str:
    """The route for one small computer."""
    return _ranged(root, "mac", "Goal")


def mac_budget(root: Path) -> str:
    """What the Mac mini route expects to spend, added up."""
    budget = read_plan(root)["mac_budget"]
    rows = [[what, "once", f"{price}"] for what, price in budget["once"]]
    rows += [[what, "each month", f"{price}"] for what, price in budget["monthly"]]
    monthly = sum(price for _, price in budget["monthly"])
    first = monthly + sum(price for _, price in budget["once"])
    rows.append(["**Together**", "first month, later months", f"**{first}, {monthly}**"])
    return markdown_table(["What", "When", "Dollars"], rows)


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Rows of text as a Markdown table; bars inside of cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ")
                                       for cell in line) + " |" for line in lines)


def _ranged(root: Path, name: str, heading: str) -> str:
    known, plan = chapters(root), read_plan(root)[name]
    rows = [[f"**{p['title']}**", "{} to {}".format(*p["weeks"]), _cells(p["steps"], known),
             f"{hours_of(p['steps'], known):g}"] for p in plan]
    low, high = (sum(p["weeks"][i] for p in plan) for i in (0, 1))
    total = sum(hours_of(p["steps"], known) for p in plan)
    rows.append(["**Together**", f"**{low} to {high}**", "", f"**{total:g}**"])
    return markdown_table([heading, "Weeks", "Chapters", "Hours"], rows)


def _cells(steps: list[str], known: dict[str, Planned]) -> str:
    return "<br>".join(known[number].cell() for number in steps)
