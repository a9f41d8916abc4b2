"""Two corpora that every reader already has: Python's manual (prose) and its library (code).

Both change with the version of Python, so nothing computed from them may be written down as
a fixed number: print it, or keep it with the version beside it.
"""

import math
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from scratchbook.data.documents import Document

# Tests hold tables of odd bytes that would fill the corpus; `pydoc_data` is the manual itself,
# left out so that the two corpora share no text; installed packages differ between readers.
_LEFT_OUT = {"test", "tests", "idle_test", "pydoc_data", "site-packages", "dist-packages"}


def python_manual() -> str:
    """Return Python's own reference manual: about half a megabyte of plain English.

    It is the text behind `help("TOPIC")`, its topics in alphabetical order.

    Chapter:  chapters/00_start_here.ipynb
    """
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def standard_library(max_bytes: int | None = None) -> list[str]:
    """Return the source files of the running Python's standard library, one string each.

    They come in the order of their paths, without tests and installed packages, about 11 MB in
    all. With `max_bytes`, reading stops there: the last file is cut at the end of a line.

    Raises:   ValueError when max_bytes is negative
    Chapter:  chapters/01_tokenization.ipynb
    """
    if max_bytes is not None and max_bytes < 0:
        raise ValueError(f"max_bytes={max_bytes} must be 0 or more, or None for everything")
    return [document.text for document in library_documents(max_bytes)]


def library_documents(max_bytes: int | None = None) -> list[Document]:
    """Return the same files as documents; a document's project is its top-level package.

    Raises:   ValueError when max_bytes is negative
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    if max_bytes is not None and max_bytes < 0:
        raise ValueError(f"max_bytes={max_bytes} must be 0 or more, or None for everything")
    documents, room = [], math.inf if max_bytes is None else max_bytes
    for name, text in _library_files(Path(sysconfig.get_path("stdlib"))):
        size = len(text.encode())
        text = text if size <= room else _first_lines(text, room)
        if text:
            documents.append(Document(name, text, name.split("/")[0].removesuffix(".py")))
        if size > room:
            break
        room -= size
    return documents


def _library_files(root: Path) -> Iterator[tuple[str, str]]:
    """Yield name and text of each source file under root, in an order that no system changes."""
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    for name in sorted(paths):
        if _LEFT_OUT.isdisjoint(name.split("/")):
            try:
                yield name, paths[name].read_text(encoding="utf-8")
            except UnicodeDecodeError:  # a few old modules declare another encoding
                continue


def _first_lines(text: str, max_bytes: int) -> str:
    """Return the longest run of whole lines from the start that fits into max_bytes."""
    head, newline, _ = text.encode()[:max_bytes].rpartition(b"\n")
    return (head + newline).decode()
