"""The chapters as files: where they lie, what their passports promise, how a reader names one."""

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path

from scratchbook.runtime import repository_root

PROFILES = ("quick", "full")


@dataclass(frozen=True)
class Chapter:
    """One notebook and its passport (the notebook's `scratchbook` metadata)."""

    path: Path
    title: str
    budget_seconds: dict[str, float] = field(default_factory=dict)
    memory_mb: float = 0.0
    downloads_mb: dict[str, float] = field(default_factory=dict)
    device: dict[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        return self.stem.split("_", 1)[0]


def chapters_dir(start: Path | None = None) -> Path:
    """Return the folder of notebooks: the checkout's, else one at or above `start`.

    Raises:   ValueError when there is none
    """
    root = repository_root()
    if root and (root / "chapters").is_dir():
        return root / "chapters"
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if any((folder / "chapters").glob("[0-9][0-9]*_*.ipynb")):
            return folder / "chapters"
    raise ValueError(
        f"no folder `chapters` at or above {here}: clone the book's repository and run this inside"
    )


def read_chapter(path: Path) -> Chapter:
    """Read one notebook's passport.

    Raises:   ValueError when the file is no notebook
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        passport = notebook["metadata"].get("scratchbook", {})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is not a readable notebook: {error}") from error
    return Chapter(
        path=path,
        title=passport.get("title") or _first_heading(notebook) or path.stem,
        budget_seconds=_quick_first(passport.get("budget_seconds", {})),
        memory_mb=float(passport.get("memory_mb", 0)),
        downloads_mb=dict(passport.get("downloads_mb", {})),
        device=dict(passport.get("device", {})),
        modules=tuple(passport.get("modules", ())),
        needs=tuple(passport.get("needs", ())),
    )


def all_chapters(folder: Path | None = None) -> list[Chapter]:
    """Return every chapter in reading order."""
    folder = folder or chapters_dir()
    return [read_chapter(path) for path in sorted(folder.glob("[0-9][0-9]*_*.ipynb"))]


def find_chapter(name: str, chapters: list[Chapter]) -> Chapter:
    """Return the chapter a reader means by a number, a file stem or part of its title.

    Raises:   ValueError that lists the chapters when none or several fit
    """
    wanted = Path(name).name.removesuffix(".ipynb").strip().casefold()
    numbers = {wanted, wanted.zfill(2), wanted.zfill(3)} if wanted else set()
    for exact in (
        [c for c in chapters if c.stem.casefold() == wanted],
        [c for c in chapters if c.number in numbers],
        [c for c in chapters if wanted and wanted in f"{c.stem} {c.title}".casefold()],
    ):
        if len(exact) == 1:
            return exact[0]
        if exact:
            names = ", ".join(c.stem for c in exact)
            raise ValueError(f"{name!r} fits several chapters: {names}")
    near = difflib.get_close_matches(wanted, [c.stem for c in chapters], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    known = ", ".join(c.stem for c in chapters) or "none yet"
    raise ValueError(f"no chapter {name!r}.{hint} Chapters: {known}")


def _quick_first(values: dict[str, float]) -> dict[str, float]:
    """The profiles in the order in which a reader meets them; files have them sorted."""
    known = {name: values[name] for name in PROFILES if name in values}
    return known | values


def _first_heading(notebook: dict) -> str:
    for cell in notebook.get("cells", []):
        for line in "".join(cell.get("source", "")).splitlines():
            if line.startswith("# ") and cell.get("cell_type") == "markdown":
                return line[2:].split("·", 1)[-1].strip()
    return ""
