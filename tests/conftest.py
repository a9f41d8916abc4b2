"""Shared fixtures: the parity table's rows, and data that may not be there."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# a busy machine is no reason to fail: no test here is about time
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-parity", action="store_true",
                     help="write each parity row to book/results/parity/, which the book prints")


@dataclass(frozen=True)
class ParityRow:
    """How far one component is from a reference; it is true when that is within the bound."""

    component: str
    against: str
    error: float
    bound: float
    cases: int
    test: str

    def __bool__(self) -> bool:
        return self.error <= self.bound and self.cases > 0  # an error that is NaN is none


@pytest.fixture
def parity(request: pytest.FixtureRequest):
    """A row of the parity table: `assert parity(component, against, error, cases, bound=0)`.

    Only a row that holds is written; a test that forgets its `assert` fails when it ends.
    """
    made: list[ParityRow] = []

    def row(component: str, *, against: str, error: float, cases: int, bound: float = 0.0
            ) -> ParityRow:
        test = request.node.nodeid.split("[")[0].removeprefix("tests/")
        made.append(ParityRow(component, against, float(error), float(bound), int(cases), test))
        if made[-1] and request.config.getoption("--record-parity"):
            slug = re.sub(r"[^a-z0-9]+", "-", f"{component} {against.split()[0]}".lower())
            folder = ROOT / "book" / "results" / "parity"
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(asdict(made[-1]), indent=1, ensure_ascii=False) + "\n"
            (folder / f"{slug.strip('-')}.json").write_text(text, encoding="utf-8")
        return made[-1]

    yield row
    assert all(made), [each for each in made if not each]


@pytest.fixture
def dataset():
    """`dataset(name)`: the path of a registered download, or a skip that says how to get it."""
    from scratchbook.data import DownloadError, fetch

    def path(name: str) -> Path:
        try:
            return fetch(name)
        except DownloadError as error:
            pytest.skip(str(error))

    return path


@pytest.fixture
def shown(monkeypatch) -> list[str]:
    """The HTML of everything displayed during a test."""
    import IPython.display

    found: list[str] = []
    monkeypatch.setattr(IPython.display, "display", lambda item: found.append(item.data))
    return found
