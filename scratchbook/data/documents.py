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


def read_utf8(path: str | Path) -> str:
    """The text of a file, without the mark that some programs put before UTF-8.

    Raises:   ValueError for what is no UTF-8 text, with the way out where it is known
    """
    path = Path(path)
    if path.suffix in (".gz", ".bz2", ".xz", ".zst", ".zip"):
        raise ValueError(f"{path} is compressed: unpack it first (gunzip, unzip, ...)")
    if path.suffix == ".parquet":
        raise ValueError(f"{path} is a table: write its texts as JSON lines first, such as "
                         "pandas.read_parquet(FILE)[['text']].to_json('texts.jsonl', "
                         "orient='records', lines=True)")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (its byte {error.start} fits nowhere): save it "
                         "again as UTF-8") from None
    if "\0" in text[:8192]:  # UTF-16 without its mark is UTF-8 with a zero beside each letter
        raise ValueError(f"{path} holds zero bytes: it is UTF-16 or no text; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def load_documents(path: str | Path) -> list[Document]:
    """Read JSON lines: what `save_documents` wrote, or objects that have at least a "text".

    A name that is missing is the file's and the number of the line; a document without a project
    is one of its own. Other fields are left out.

    Raises:   ValueError naming the line that is no document
    """
    documents, stem = [], Path(path).stem
    for number, line in enumerate(read_utf8(path).split("\n"), 1):  # and not at U+2028
        try:
            fields = json.loads(line) if line.strip() else None
            documents += [] if fields is None else [_as_document(fields, f"{stem}:{number}")]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{path}, line {number}: {reason}; each line must be an object with a "
                             "text, and may have name and project, as `scratchbook corpus "
                             "collect` writes them") from None
    return documents


def _as_document(fields: dict, number: str) -> Document:
    name = fields.get("name", number)
    document = Document(name, fields["text"], fields.get("project", name))
    if not all(isinstance(value, str) for value in document):
        raise ValueError("a field is no text")
    "".join(document).encode("utf-8")  # half a pair of surrogates is no text, either
    return document
