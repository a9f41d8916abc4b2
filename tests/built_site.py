"""The built book as a fixture: an existing build of these very sources is used again."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site, built first when the sources have changed since."""
    from scratchbook.publishing.build import build
    from scratchbook.publishing.stage import SITE, STAMP, fingerprint

    stamp = ROOT / SITE / STAMP
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != fingerprint(ROOT):
        assert build(ROOT) == 0, "the book was not built, see the warnings above"
    return ROOT / SITE
