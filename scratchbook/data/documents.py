"""Documents out of folders: found, decoded, and kept as lines of JSON.

Chapter:  chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from scratchbook.runtime import write_atomically

INCLUDE = ("*.md", "*.txt", "*.py", "*.go", "*.js", "*.vue", "*.st")
LEFT_OUT = {"node_modules", "__pycache__", "site-packages", "dist-packages", "venv", "build",
            "_build"}
_DECLARED = re.compile(rb"(?:coding|charset|character set encoding)[:=] *([-\w]+)", re.I)


class Document(NamedTuple):
    """One text: where it was found, what it says, and the project that it belongs to."""

    name: str
    text: str
    project: str


class Collected(NamedTuple):
    """What `collect` found, and why it left files out: {name: reason}."""

    documents: list[Document]
    skipped: dict[str, str]


def collect(root: str | Path, include: Sequence[str] = INCLUDE,
            clean: Callable[[str, str], str] = lambda text, suffix: text) -> Collected:
    """Read the files under `root` whose names match a pattern, in the order of their paths.

    A document's project is the first folder of its path. `clean(text, suffix)` takes away what
    is not wanted. Links are not followed: they lead in circles, or out of the folder. Hidden
    folders, installed packages, binary and empty files are left out.

    Raises:   ValueError when root does not exist
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    root = Path(root)
    if not root.exists():
        raise ValueError(f"{root} does not exist: give a folder of texts, or one file")
    found = Collected([], {})
    for path in [root] if root.is_file() else _files(root, include, found.skipped):
        name = path.name if path == root else _name(path, root)
        try:
            text = clean(decode(path.read_bytes()), path.suffix)
        except (ValueError, OSError) as error:
            found.skipped[name] = str(error)
            continue
        project = name.split("/")[0] if "/" in name else root.resolve().stem
        if text.strip():
            found.documents.append(Document(name, text, project))
        else:
            found.skipped[name] = "empty"
    return found


def _name(path: Path, root: Path) -> str:
    """Where a file is below root, in slashes; bytes that are no text become U+FFFD."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "replace")


def _files(root: Path, include: Sequence[str], skipped: dict[str, str]) -> Iterator[Path]:
    def report(error: OSError) -> None:
        skipped[_name(Path(error.filename), root)] = str(error)

    for folder, folders, names in os.walk(root, onerror=report):  # does not follow links
        folders[:] = sorted(f for f in folders if f[0] != "." and f not in LEFT_OUT)
        for name in sorted(names):
            path = Path(folder, name)
            wanted = any(fnmatch(name, pattern) for pattern in include)
            if wanted and path.is_file() and not path.is_symlink():  # a pipe would never end
                yield path


def decode(content: bytes) -> str:
    """Bytes as text: UTF-8, UTF-16 or -32 with its mark, or the encoding that the file declares.

    Raises:   ValueError for binary files, and for bytes of no encoding that is declared
    """
    encoding, declared = "utf-8-sig", _DECLARED.search(content[:2000])
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # before 16: begins alike
        encoding = "utf-32"
    elif content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        try:
            text = content.decode(declared[1].decode("ascii") if declared else "utf-8")
        except (UnicodeError, LookupError):
            reason = f"not {encoding.removesuffix('-sig')}: byte {error.start}"
            raise ValueError("binary" if b"\0" in content[:8192] else reason) from None
    if "\0" in text[:8192]:
        raise ValueError("binary")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def save_documents(path: str | Path, documents: Iterable[Document]) -> None:
    """Write documents as JSON lines, whole or not at all."""
    lines = (json.dumps(document._asdict()) for document in documents)
    write_atomically(path, "".join(line + "\n" for line in lines))


def load_documents(path: str | Path) -> list[Document]:
    """Read what `save_documents` wrote.

    Raises:   ValueError naming the line that is no document
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")  # and not at U+2028
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: byte {error.start}") from None
    documents = []
    for number, line in enumerate(lines, 1):
        try:
            documents += [_as_document(json.loads(line))] if line.strip() else []
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}; each line must be an object with "
                             "name, text and project, as `scratchbook corpus collect` writes "
                             "them") from None
    return documents


def _as_document(fields: dict) -> Document:
    if not all(isinstance(value, str) for value in fields.values()):
        raise ValueError("a field is no text")
    "".join(fields.values()).encode("utf-8")  # half a pair of surrogates is no text, either
    return Document(**fields)
