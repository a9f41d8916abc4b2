"""Bring the repositories of the table onto this disk, each at its commit, and say what failed.

Every repository arrives in a folder beside its place and takes its name in one step; the manifest
is written anew after each. So a collection that was cut off goes on with what is missing, and a
repository that cannot be had costs one line, not the run.

Adds:       git at a pinned commit without its history, or repositories that are here already
Leaves out: what is in the files: the readers; which repositories there are: source_table, github
Chapter:    chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scratchbook.runtime import write_atomically
from scratchbook.smalltalk.readers.folders import SUFFIXES, Folder
from scratchbook.smalltalk.source_table import GITHUB, Source

COUNTED = tuple(each for each in SUFFIXES if each != ".xml")  # most XML is no Smalltalk
MANIFEST = "manifest.json"


class CollectError(RuntimeError):
    """One repository cannot be had; the message says why."""


@dataclass(frozen=True)
class Checkout:
    """Where one source lies, and how much Smalltalk is in it; `error` says why it is not here.

    A `commit` of "" is a plain folder, not under git.
    """

    name: str
    where: str = ""
    commit: str = ""
    files: int = 0
    bytes: int = 0
    licence: str = ""
    split: str = "train"
    family: str = ""
    dialect: str = ""
    error: str = ""


def collect(sources: Iterable[Source], folder: str | Path, local: str | Path | None = None,
            base_url: str = GITHUB, any_commit: bool = False,
            say: Callable[[str], None] = lambda line: None) -> list[Checkout]:
    """Fetch each source, or find it below `local`; return one entry for each, failed ones too.

    What the manifest of an earlier run already holds is not fetched again.

    Raises:   ValueError when `local` does not exist
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    folder = Path(folder)
    if local is not None and not Path(local).is_dir():
        raise ValueError(f"{local} is no folder: give one of repositories, or one repository")
    sources = list(sources)
    known = {entry.name: entry for entry in load_manifest(folder)}
    for source in sources:
        entry = known.get(source.name)
        if entry is None or not _still_there(entry, source, any_commit):
            try:
                entry = _bring(source, folder, local, base_url, any_commit, len(sources) == 1)
            except (CollectError, OSError, subprocess.TimeoutExpired) as error:
                entry = Checkout(source.name, error=" ".join(str(error).split())[:300])
        known[source.name] = replace(entry, licence=source.licence, split=source.split,
                                     family=source.family, dialect=source.dialect)
        _save_manifest(folder, known.values())
        say(described(entry))
    return list(known.values())


def described(entry: Checkout) -> str:
    """One line about an entry of the manifest."""
    if entry.error:
        return f"{entry.name}: skipped: {entry.error}"
    return (f"{entry.name} {entry.commit[:12] or 'folder'}: {entry.files:,} files, "
            f"{entry.bytes / 1e6:.2f} MB")


def load_manifest(folder: str | Path) -> list[Checkout]:
    """What an earlier run collected into `folder`; nothing when there was none.

    Raises:   ValueError for a file that is no manifest
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return []
    try:
        return [Checkout(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no manifest ({error}): delete it and collect again") from None


def _save_manifest(folder: Path, entries: Iterable[Checkout]) -> None:
    rows = [json.dumps(asdict(entry), ensure_ascii=False) for entry in entries]
    write_atomically(folder / MANIFEST, "[\n" + ",\n".join(rows) + "\n]\n")


def _still_there(entry: Checkout, source: Source, any_commit: bool) -> bool:
    if entry.error or not Path(entry.where).is_dir():
        return False
    pinned = entry.commit in ("", source.commit) or any_commit
    return pinned and (not entry.commit or _has(Path(entry.where), entry.commit))


def _bring(source: Source, folder: Path, local: str | Path | None, base_url: str,
           any_commit: bool, alone: bool) -> Checkout:
    if local is not None:
        where = _find(source, Path(local), alone)
        return measure(where, source.name, source.commit, any_commit)
    place, part = folder / source.folder, folder / f".{source.folder}.part"
    if place.is_dir():  # the run was cut off between its arrival and the manifest
        try:
            return measure(place, source.name, source.commit)
        except CollectError:
            shutil.rmtree(place)  # an older commit, or damaged
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    run_git("init", "--quiet", "--bare", ".", where=part)
    run_git("fetch", "--quiet", "--depth", "1", "--no-tags", source.address(base_url),
            source.commit, where=part, timeout=3600)
    entry = measure(part, source.name, source.commit)
    part.replace(place)
    return replace(entry, where=str(place.resolve()))


def _find(source: Source, local: Path, alone: bool) -> Path:
    """The repository of a source below `local`, in any of the usual places, or, when it is the
    only one that is looked for, `local` itself.
    """
    found = next((place for place in _places(source, local) if place.is_dir()), None)
    if found is None and alone and is_repository(local):
        found = local
    if found is None:
        raise CollectError(f"not below {local}")
    return found


def _places(source: Source, local: Path) -> list[Path]:
    owner, name = source.name.split("/")
    return [local / source.folder / "repo", local / source.folder, local / owner / name,
              local / f"{owner}_{name}", local / f"{owner}-{name}", local / name,
              local / f"{name}.git"]


def is_repository(path: Path) -> bool:
    """Whether a folder is a bare repository, or a checkout with its `.git`."""
    return (path / ".git").exists() or (path / "objects").is_dir() and (path / "HEAD").is_file()


def measure(where: Path, name: str, commit: str = "", any_commit: bool = False) -> Checkout:
    """Count the Smalltalk files of a repository at `commit` (its newest one when empty), or of a
    plain folder.

    Raises:   CollectError when the commit is not there, or git cannot read it
    """
    if not is_repository(where):
        commit = ""
    elif not commit or (any_commit and not _has(where, commit)):
        commit = run_git("rev-parse", "HEAD^{commit}", where=where).strip()
    if commit and not _has(where, commit):
        raise CollectError(f"{where} lacks the commit {commit[:12]}; --any-commit takes what "
                           "is there")
    sizes = [size for path, size in _files(where, commit) if path.lower().endswith(COUNTED)]
    return Checkout(name, str(where.resolve()), commit, len(sizes), sum(sizes))


def _files(where: Path, commit: str) -> list[tuple[str, int]]:
    """Path and size of every file of a commit, or of a plain folder; links are left out."""
    if not commit:
        return [(path, Path(where, path).lstat().st_size) for path in Folder(where).paths()]
    listing = run_git("ls-tree", "-r", "-l", "-z", commit, where=where)
    entries = [line.split("\t", 1) for line in listing.split("\0") if line]
    return [(path, int(size)) for tags, path in entries
            for mode, _, _, size in [tags.split()] if size.isdecimal() and mode != "120000"]


def _has(where: Path, commit: str) -> bool:
    try:
        run_git("rev-parse", "--verify", "--quiet", f"{commit}^{{tree}}", where=where)
    except CollectError:
        return False
    return True


def run_git(*words: str, where: Path, timeout: float = 600) -> str:
    """Run git in a repository, and return what it printed.

    It never asks for a password and never runs the repository's hooks.

    Raises:   CollectError with git's last line
    """
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C",
                   "GIT_CONFIG_NOSYSTEM": "1"}
    try:
        done = subprocess.run(["git", "-c", "core.hooksPath=/dev/null", *words], cwd=where,
                              env=environment, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise CollectError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise CollectError(f"git {words[0]} took longer than {timeout:.0f} seconds") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise CollectError(f"git {words[0]}: {lines[-1] if lines else 'failed'}")
    return done.stdout.decode("utf-8", "replace")


def any_here(sources: Iterable[Source], local: str | Path) -> bool:
    """Whether a folder holds a repository of the table, by its name."""
    path = Path(local)
    if not path.is_dir():
        raise ValueError(f"{local} is no folder: give one of repositories, or one repository")
    return any(place.is_dir() for source in sources for place in _places(source, path))


def collect_folder(where: str | Path, folder: str | Path, licence: str = "not stated"
                   ) -> list[Checkout]:
    """Enter a repository or a plain folder that is in no table, as one training project.

    Its project is the name of the folder. Returns the whole manifest, the new entry last.

    Raises:   ValueError for a folder that holds no Smalltalk file
    """
    where, folder = Path(where).resolve(), Path(folder)
    entry = replace(measure(where, where.name), licence=licence)
    if not any(path.lower().endswith(SUFFIXES) for path, _ in _files(where, entry.commit)):
        raise ValueError(f"{where} holds no Smalltalk file ({' '.join(SUFFIXES)})")
    entries = [old for old in load_manifest(folder) if old.name != entry.name] + [entry]
    _save_manifest(folder, entries)
    return entries
