"""The table of repositories that a Smalltalk corpus is collected from: `sources.toml`, checked.

Projects that copy from one another form a family. A family is trained on or held out as a whole:
otherwise a model would be judged on what it has read.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from scratchbook.smalltalk.records import DIALECTS

SPLITS = ("train", "validation", "test")
USES = ("default", "on request", "off")
GITHUB = "https://github.com"


@dataclass(frozen=True)
class Source:
    """One repository at one commit; `raw_mb` is the size of its Smalltalk files in MB."""

    name: str
    commit: str
    date: date
    format: str
    licence: str
    raw_mb: float = 0.0
    use: str = "default"
    split: str = "train"
    family: str = ""
    dialect: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", self.name):
            raise ValueError(f"source {self.name!r} must be owner/name")
        if not re.fullmatch(r"[0-9a-f]{40}", self.commit):
            raise ValueError(f"{self.name}: commit={self.commit!r} must be 40 hexadecimal digits: "
                             "a branch moves, and a server fetches no abbreviation")
        for field, known in (("use", USES), ("split", SPLITS), ("dialect", ("", *DIALECTS))):
            if (value := getattr(self, field)) not in known:
                raise ValueError(f"{self.name}: {field}={value!r} must be one of "
                                 f"{', '.join(filter(None, known))}")

    @property
    def folder(self) -> str:
        """The name of its folder on a disk."""
        return self.name.replace("/", "+")

    def address(self, base_url: str = GITHUB) -> str:
        """Where git fetches it from."""
        return f"{base_url.rstrip('/')}/{self.name}"


def load_sources(path: str | Path | None = None) -> list[Source]:
    """Read the table, in its order.

    Raises:   ValueError for a field that is unknown or missing, and for a family on two sides
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    path = Path(path) if path else Path(__file__).with_name("sources.toml")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        sources = [Source(name, **fields) for name, fields in tables.items()]
    except (TypeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}; each source is a table [\"owner/name\"] with commit, "
                         "date, format and licence") from None
    check_families(sources)
    return sources


def check_families(sources: Iterable[Any]) -> None:
    """See that no family is trained on and held out at the same time.

    Anything with a name, a family and a split will do, such as an entry of a manifest.

    Raises:   ValueError naming the family, its members and their sides
    """
    seen: dict[str, Any] = {}
    for source in sources:
        first = seen.setdefault(source.family or source.name, source)
        if first.split != source.split:
            raise ValueError(f"the family {source.family!r} is split: {first.name} is in "
                             f"{first.split}, {source.name} in {source.split}; give both the same")


def choose_sources(sources: Iterable[Source], names: Iterable[str] = (), more: bool = False,
                   all_licences: bool = False) -> list[Source]:
    """The sources of `names`; else the default ones, with `more` also those on request.

    A name may be that of the repository alone, when one owner has it. `all_licences` adds what is
    off: copyleft code, and code of unclear licence.

    Raises:   ValueError for a name that is not in the table, or of two owners
    """
    sources = list(sources)
    names = list(names)
    if not names:
        uses = USES[: 1 + more] + USES[2:] * all_licences
        return [source for source in sources if source.use in uses]
    wanted = []
    for name in names:
        found = [s for s in sources if name in (s.name, s.name.partition("/")[2])]
        if len(found) != 1:
            known = ", ".join(s.name for s in found or sources)
            raise ValueError(f"{len(found)} sources are called {name!r}; there are {known}")
        wanted += found
    return [source for source in sources if source in wanted]
