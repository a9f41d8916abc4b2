"""The generated parts of pages: a page says `<!-- generated: parity -->` and gets the table.

Prose stays in book/*.md, where people write it; tables come from recorded results, the data
registry and the package itself, so that a page cannot disagree with them.
"""

import importlib.util
import json
import math
import pkgutil
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

from book.builder import claims, routes
from book.builder.routes import markdown_table

_MARK = re.compile(r"<!-- (?P<kind>generated|living|number): (?P<rest>.*?) -->", re.DOTALL)
PRIVATE = {"__main__"}   # modules that are commands, not an interface


def fill(text: str, root: Path, up: str) -> str:
    """Replace every mark of a page by what it names. `up` leads from the page to the site's top.

    Raises:   ValueError for a mark that names nothing
    """
    def one(match: re.Match) -> str:
        kind, rest = match["kind"], match["rest"].strip()
        if kind == "living":
            return living_block(rest)
        if kind == "number":
            return number_of(root, rest)
        if rest not in GENERATORS:
            raise ValueError(f"no generator {rest!r}; there are: {', '.join(sorted(GENERATORS))}")
        return GENERATORS[rest](root)
    return _MARK.sub(one, text)


def living_block(rest: str) -> str:
    """A living figure on a plain page: `NAME {json}`; the data may be left out."""
    from scratchbook.teaching.live_figures import living_html

    name, _, data = rest.partition(" ")
    html = living_html(name, json.loads(data) if data.strip() else {})
    return f"```{{raw}} html\n{html}\n```"


def number_of(root: Path, rest: str) -> str:
    """A recorded number in prose: `RESULT KEY.PATH [FORMAT]`, e.g. `numbers_differ threads .1e`.

    Raises:   ValueError when the result or the key is missing
    """
    name, key, *form = rest.split()
    path = root / "book" / "results" / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"a page wants the result {name!r}, but {path.name} is not recorded")
    value = json.loads(path.read_text(encoding="utf-8"))["numbers"]
    for step in key.split("."):
        if step not in value:
            raise ValueError(f"result {name!r} has no {key!r}: {step!r} is missing")
        value = value[step]
    return _scientific(value, form[0]) if form and form[0].endswith("e") else format(value, *form)


def _scientific(value: float, form: str) -> str:
    if value == 0:
        return "0"
    digits, _, power = format(value, form).partition("e")
    return f"{digits} × 10<sup>{int(power)}</sup>"


def parity_table(root: Path) -> str:
    """What the parity tests compared, with which library, and the largest error they saw."""
    rows = []
    for path in sorted((root / "book" / "results" / "parity").glob("*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        rows.append([row["component"], row["against"], f"{row['cases']:,}", _error(row["error"]),
                     _error(row["bound"]), f"`{row['test']}`"])
    if not rows:
        return "No parity test has been recorded yet: `pytest tests/parity --record-parity`."
    head = ["What", "Compared with", "Cases", "Largest error", "Allowed", "Test"]
    return markdown_table(head, rows)


def _error(value: float) -> str:
    return "exact" if value == 0 else _scientific(value, ".1e")


def data_table(root: Path) -> str:
    """The registry of downloads: what, size, licence, and the address it comes from."""
    text = (root / "data" / "registry.toml").read_text(encoding="utf-8")
    rows = [[f"`{name}`", entry["what"], _size(entry["bytes"]), entry["licence"],
             f"`{entry['sha256'][:12]}`", f"[source]({entry['url']})"]
            for name, entry in tomllib.loads(text).items()]
    return markdown_table(["Name", "What", "Size", "Licence", "SHA-256", "From"], rows)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def results_table(root: Path) -> str:
    """Every recorded result: when, where, by which command, and whether its code has changed."""
    from scratchbook.teaching.results import is_stale

    rows = []
    for path in sorted((root / "book" / "results").glob("*.json")):
        entry = json.loads(path.read_text(encoding="utf-8"))
        stale = is_stale(entry["name"], entry["command"], entry["fingerprint"])
        state = '<span class="sb-stale">stale</span>' if stale else "current"
        machine = entry["environment"]
        rows.append([f"`{entry['name']}`", entry["date"][:10],
                     f"{machine['system']}, {machine['device']}, {machine['threads']} threads",
                     f"`{entry['command']}`", state])
    if not rows:
        return "No result has been recorded yet."
    return markdown_table(["Result", "Recorded", "On", "By", "State"], rows)


PAGE_BYTES = 500_000  # of source; its reference takes two to three times as much


def modules(package: Path) -> dict[str, list[str]]:
    """The public modules of the package, by the API page that documents them.

    A part with too much source for one page has several: `companions`, `companions-2`.
    """
    parts: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages([str(package)], "scratchbook."):
        words = module.name.split(".")
        hidden = any(word.startswith("_") for word in words) or words[-1] in PRIVATE
        if not hidden and not words[-1].startswith("exercises_"):
            parts.setdefault(words[1], []).append(module.name)
    return {part if number == 1 else f"{part}-{number}": names
            for part, found in sorted(parts.items())
            for number, names in enumerate(pages_of(sorted(found)), 1)}


def pages_of(names: list[str]) -> list[list[str]]:
    """Modules in their order, cut into pages of about equal source, so many that none is heavy."""
    sizes = [len(_source(name).encode()) for name in names]
    total, before = sum(sizes), 0
    pages: list[list[str]] = [[] for _ in range(math.ceil(total / PAGE_BYTES))]
    for name, size in zip(names, sizes, strict=True):
        pages[before * len(pages) // total].append(name)
        before += size
    return pages


def _source(module: str) -> str:
    return Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")


def api_pages(root: Path) -> dict[str, str]:
    """The pages of reference for each module or subpackage, as {path: text}."""
    pages = {}
    for page, names in modules(root / "scratchbook").items():
        part, _, _ = page.partition("-")
        blocks = "\n\n".join(_module_block(name) for name in names)
        pages[f"book/api/{page}.md"] = f"# scratchbook.{part}{_begins(names)}\n\n{blocks}\n"
    return pages


def _begins(names: list[str]) -> str:
    """From which module on a page documents its part, where that is not the beginning."""
    return f", from {names[0].split('.')[2]} on" if names[0].count(".") > 1 else ""


def _module_block(name: str) -> str:
    is_package = importlib.util.find_spec(name).submodule_search_locations is not None
    title = "" if name.count(".") == 1 else f"## {name.rsplit('.', 1)[1]}\n\n"
    options = "   :no-members:\n" if is_package else ""
    return f"{title}```{{eval-rst}}\n.. automodule:: {name}\n{options}```"


def api_index(root: Path) -> str:
    """The list of API pages with the first line of each module's docstring."""
    rows = []
    for page, names in modules(root / "scratchbook").items():
        part = f"scratchbook.{page.partition('-')[0]}"
        first = re.match(r'\s*"""(.*?)(?:\n|""")', _source(part))
        rows.append([f"[`{part}`](api/{page}.md){_begins(names)}", first[1] if first else ""])
    return markdown_table(["Module", "What it holds"], rows)


GENERATORS: dict[str, Callable[[Path], str]] = {
    "parity": parity_table,
    "claims": claims.ledger,
    "claims tally": claims.tally,
    "data": data_table,
    "results": results_table,
    "api": api_index,
    "chapters": routes.chapters_list,
    "parts": routes.parts_table,
    "approaches": routes.approaches_table,
    "weeks": routes.weeks_table,
    "phases": routes.phases_table,
    "mac": routes.mac_table,
    "mac budget": routes.mac_budget,
}
