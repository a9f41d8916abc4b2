"""Shared fixtures: the parity table's rows, and data that may not be there."""

from __future__ import annotations

import json
import re
import sys
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


@pytest.fixture
def parity(request: pytest.FixtureRequest):
    """Add a row to the parity table: `parity(component, against, error, cases, bound=0)`.

    The assertion belongs to the fixture, so that no row can be printed that did not hold.
    """

    def row(component: str, *, against: str, error: float, cases: int, bound: float = 0.0) -> None:
        assert error <= bound, f"{component}: error {error:g} against {against}, allowed {bound:g}"
        assert cases > 0, f"{component}: compared nothing with {against}"
        if not request.config.getoption("--record-parity"):
            return
        slug = re.sub(r"[^a-z0-9]+", "-", f"{component} {against.split()[0]}".lower()).strip("-")
        test = request.node.nodeid.split("[")[0].removeprefix("tests/")
        content = {"component": component, "against": against, "error": float(error),
                   "bound": float(bound), "cases": int(cases), "test": test}
        folder = ROOT / "book" / "results" / "parity"
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (folder / f"{slug}.json").write_text(text, encoding="utf-8")

    return row


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
