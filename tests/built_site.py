"""The built book as a fixture: an existing build of these very sources is used again."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORGOTTEN = 600   # seconds after which a lock belongs to a run that died


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Let one process at a time build: parallel test workers share the folder."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            lock.mkdir()
            break
        except FileExistsError:
            if lock.exists() and time.time() - lock.stat().st_mtime > FORGOTTEN:
                lock.rmdir()
            time.sleep(0.5)
    try:
        yield
    finally:
        lock.rmdir()


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site, built first when the sources have changed since."""
    from book.builder.build import build
    from book.builder.stage import SITE, STAMP, fingerprint

    stamp = ROOT / SITE / STAMP
    with alone(ROOT / "build" / "site.lock"):
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != fingerprint(ROOT):
            assert build(ROOT) == 0, "the book was not built, see the warnings above"
    return ROOT / SITE
