"""The plan of the course as tables: parts, chapters, routes, and hours that add up.

A route is completed by what its chapters need, so that it cannot skip a prerequisite.
"""

from pathlib import Path

from book.builder.plan import Planned, chapters, hours_of, read_plan, with_needs


def chapters_list(root: Path) -> str:
    """The written chapters, each a link and the sentence that its passport says of it."""
    return "\n\n".join(f"**[{c.number} · {c.title}](../chapters/{c.file}.ipynb).** {c.about}"
                       for c in chapters(root).values() if c.exists)


def parts_table(root: Path) -> str:
    """All nine parts with their chapters and hours."""
    known = chapters(root)
    rows = [[p.part, p.cell(), f"{p.reading:g}", f"{p.exercises:g}"] for p in known.values()]
    total = ["**The whole course**", f"{len(known)} chapters",
             f"**{round(sum(p.reading for p in known.values()), 1):g}**",
             f"**{round(sum(p.exercises for p in known.values()), 1):g}**"]
    return markdown_table(["Part", "Chapter", "Reading, h", "Exercises, h"], [*rows, total])


def approaches_table(root: Path) -> str:
    """Five ways into the course, each with what it needs."""
    known = chapters(root)
    rows = []
    for approach in read_plan(root)["approach"]:
        steps = with_needs(approach["steps"], known)
        rows.append([f"**{approach['title']}**", approach["needs"], _cells(steps, known),
                     f"{hours_of(steps, known):g}"])
    return markdown_table(["Approach", "Needs", "Chapters", "Hours"], rows)


def weeks_table(root: Path) -> str:
    """Twelve weeks, a line each, and their sum."""
    known, plan = chapters(root), read_plan(root)["week"]
    rows = [[w["weeks"], w["theme"], _cells(w["steps"], known),
             f"{hours_of(w['steps'], known):g}"] for w in plan]
    total = hours_of([step for w in plan for step in w["steps"]], known)
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
    rows, done = [], []
    for stage in plan:
        steps = with_needs(stage["steps"], known, tuple(done))
        done += steps
        rows.append([f"**{stage['title']}**", "{} to {}".format(*stage["weeks"]),
                     _cells(steps, known), f"{hours_of(steps, known):g}"])
    low, high = (sum(p["weeks"][i] for p in plan) for i in (0, 1))
    rows.append(["**Together**", f"**{low} to {high}**", "", f"**{hours_of(done, known):g}**"])
    return markdown_table([heading, "Weeks", "Chapters", "Hours"], rows)


def _cells(steps: list[str], known: dict[str, Planned]) -> str:
    return "<br>".join(known[number].cell() for number in steps)
