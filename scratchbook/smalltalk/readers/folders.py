"""A whole project: its files from a folder or from a git repository, each to its reader.

A file is known by its suffix, its place and its first lines together: `.st` alone may be any of
five formats. Whatever goes wrong in a file becomes a `Skipped` record; no file stops the rest.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from scratchbook.smalltalk.readers.chunk import is_chunks, is_definition, read_chunks
from scratchbook.smalltalk.readers.filetree import (
    is_class_path,
    is_comment_path,
    is_method_path,
    read_class_file,
    read_method_file,
)
from scratchbook.smalltalk.readers.gemstone import is_topaz, read_topaz
from scratchbook.smalltalk.readers.gnu import is_bracketed, read_bracketed
from scratchbook.smalltalk.readers.monticello import read_mcz
from scratchbook.smalltalk.readers.origins import Origin
from scratchbook.smalltalk.readers.scanning import decode, selector_of
from scratchbook.smalltalk.readers.tonel import is_tonel, read_tonel
from scratchbook.smalltalk.readers.visualworks import is_visualworks, read_visualworks
from scratchbook.smalltalk.records import MethodRecord, Record, Skipped

SUFFIXES = (".st", ".cs", ".changes", ".sources", ".cls", ".pax", ".pac", ".xml", ".gs", ".tpz",
            ".gst", ".sou", ".mcz")
SHARED_SUFFIXES = (".cs", ".cls", ".xml", ".tpz", ".gs")  # C#, LaTeX: not Smalltalk's alone
_FORMATS: list[tuple[Callable[[str], bool], Callable[[str, Origin], Iterator[Record]]]] = [
    (is_tonel, read_tonel), (is_visualworks, read_visualworks), (is_chunks, read_chunks),
    (is_topaz, read_topaz), (is_bracketed, read_bracketed), (is_definition, read_chunks)]


class Folder:
    """The files below a folder, by their paths in it with `/` between the parts."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise ValueError(f"{self.root} is no folder: give the one that holds the sources")

    def paths(self) -> list[str]:
        found = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if name != ".git"]
            inside = Path(folder)
            found += [(inside / name).relative_to(self.root).as_posix() for name in files
                      if not (inside / name).is_symlink() and (inside / name).is_file()]
        return sorted(found)

    def contents(self, paths: list[str]) -> Iterator[tuple[str, bytes | None]]:
        """Each path with what the file holds; None where it cannot be read."""
        for path in paths:
            try:
                yield path, (self.root / path).read_bytes()
            except OSError:
                yield path, None


class Repository:
    """The files of one commit of a git repository, bare or not, without checking them out.

    One `git cat-file` copies all that is wanted into a temporary file: asking for one blob after
    the other means ten thousand times to wait for another process.
    """

    def __init__(self, root: str | Path, commit: str = "HEAD") -> None:
        self.git = ["git", "-C", str(root)]
        # a blob that a partial clone lacks is missing, not something to download one by one
        self.environment = {**os.environ, "GIT_NO_LAZY_FETCH": "1"}
        listing = subprocess.run([*self.git, "ls-tree", "-rz", commit], capture_output=True,
                                 env=self.environment, check=False)
        if listing.returncode:
            reason = listing.stderr.decode("utf-8", "replace").strip()
            raise ValueError(f"git cannot list {commit} of {root}: {reason}")
        self.blobs: dict[str, str] = {}
        for line in listing.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]:
            facts, _, path = line.partition("\t")
            mode, kind, blob = facts.split()
            if kind == "blob" and mode != "120000":  # a link's content is a path
                self.blobs[path] = blob

    def paths(self) -> list[str]:
        return sorted(self.blobs)

    def contents(self, paths: list[str]) -> Iterator[tuple[str, bytes | None]]:
        """Each path with its content; None where git has the name of a blob and not the blob."""
        with tempfile.TemporaryFile() as names, tempfile.TemporaryFile() as answers:
            names.write("".join(f"{self.blobs[path]}\n" for path in paths).encode())
            names.seek(0)
            subprocess.run([*self.git, "cat-file", "--batch", "--buffer"], stdin=names,
                           stdout=answers, stderr=subprocess.DEVNULL, env=self.environment,
                           check=True)
            answers.seek(0)
            for path in paths:
                answer = answers.readline().split()
                if len(answer) == 3:
                    yield path, answers.read(int(answer[2]))
                    answers.read(1)  # the newline behind every blob
                else:
                    yield path, None


def read_folder(path: str | Path, project: str, licence: str = "", *, dialect: str = "",
                wanted: Callable[[str], bool] = lambda path: True) -> Iterator[Record]:
    """All records of a checkout, in the order of its paths; `wanted` says which paths to read.

    `dialect` is what the project speaks; where it is "", each file's format decides.

    Raises:   ValueError when there is no such folder
    """
    yield from _read_all(Folder(path), project, licence, dialect, wanted)


def read_repository(path: str | Path, project: str, licence: str = "", *, commit: str = "HEAD",
                    dialect: str = "", wanted: Callable[[str], bool] = lambda path: True,
                    ) -> Iterator[Record]:
    """The same of one commit of a git repository, which needs no work tree.

    Raises:   ValueError when git does not know the repository or the commit
    """
    yield from _read_all(Repository(path, commit), project, licence, dialect, wanted)


def _read_all(files: Folder | Repository, project: str, licence: str, dialect: str,
              wanted: Callable[[str], bool]) -> Iterator[Record]:
    paths = [path for path in files.paths() if wanted(path) and _may_hold_smalltalk(path)]
    paths.sort(key=lambda path: (path.endswith(".sources"), path))  # a README before its class
    readmes: dict[str, bytes] = {}
    changed: dict[str, set] = {}  # by folder: an image's changes win over its sources
    for path, data in files.contents(paths):
        folder = path.rpartition("/")[0]
        if data is None:
            yield Skipped(path, "its content is not there")
        elif path.endswith("/README.md"):
            readmes = {folder: data}
        else:
            records = read_file(data, Origin(path, project, licence, dialect),
                                readmes.get(folder, b""))
            if path.endswith((".changes", ".sources")):
                records = _newest(records, changed.setdefault(folder, set()))
            yield from records


def _may_hold_smalltalk(path: str) -> bool:
    if "/monticello.meta/" in path:
        return False
    return path.lower().endswith(SUFFIXES) or is_class_path(path) or is_comment_path(path)


def _newest(records: Iterator[Record], changed: set) -> Iterator[Record]:
    """The records that no file of changes replaces; those of such a file are noted in `changed`."""
    for record in records:
        if isinstance(record, MethodRecord):
            key = record.class_name, record.class_side, selector_of(record.source)
            if record.path.endswith(".changes"):
                changed.add(key)
            elif key in changed:
                continue
        yield record


def read_file(data: bytes, origin: Origin, readme: bytes = b"") -> Iterator[Record]:
    """The records of one file; `origin.path` and the content together choose the reader.

    `readme` is the `README.md` beside a FileTree class: its comment. A file whose suffix other
    languages share, and that shows no Smalltalk, yields nothing; any other one a `Skipped`.
    """
    try:
        if origin.path.lower().endswith(".mcz"):
            yield from read_mcz(data, origin)
            return
        text, encoding = decode(data)
        origin = replace(origin, encoding=encoding)
        if is_class_path(origin.path):
            yield from read_class_file(text, _comment(readme), origin)
        elif is_method_path(origin.path) and not is_chunks(text):
            yield from read_method_file(text, origin)
        else:
            yield from _by_content(text, origin)
    except (ValueError, RecursionError) as error:
        yield origin.skipped(str(error))


def _comment(readme: bytes) -> str:
    try:
        return decode(readme)[0]
    except ValueError:  # a damaged comment costs no class
        return ""


def _by_content(text: str, origin: Origin) -> Iterator[Record]:
    for fits, read in _FORMATS:
        if fits(text):
            yield from read(text, origin)
            return
    if not origin.path.lower().endswith(SHARED_SUFFIXES):
        yield origin.skipped("no format of Smalltalk files: a script, or empty")
