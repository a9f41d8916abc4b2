"""Fetch the files of `data/registry.toml`, each checked by its SHA-256 before it is used.

A file that is already in the cache folder is read and never written, so the folder may be
read-only. A file with other bytes than the registry's is fetched again or refused.

A download that breaks off is continued; a mirror, SCRATCHBOOK_MIRROR, is asked first.

Adds:       a registry, a cache that SCRATCHBOOK_DATA moves, an error that says what to do
Leaves out: unpacking and parsing: `fetch` returns a path, the chapters read it
"""

import hashlib
import os
import tomllib
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from scratchbook import runtime


class DownloadError(RuntimeError):
    """A file is neither in the cache nor to be had from the network; the message says what to do.

    Chapter:  chapters/00_start_here.ipynb
    """


@dataclass(frozen=True)
class Dataset:
    """One entry of the registry: what a file is, where it comes from, who may use it.

    Chapter:  chapters/00_start_here.ipynb
    """

    name: str
    file: str  # "<group>/<file>" inside the cache folder
    url: str
    sha256: str
    bytes: int
    licence: str
    what: str


def registry() -> dict[str, Dataset]:
    """Return every known dataset by name, in the order of `data/registry.toml`.

    Chapter:  chapters/00_start_here.ipynb
    """
    text = (runtime.data_dir() / "registry.toml").read_text(encoding="utf-8")
    return {name: Dataset(name, **entry) for name, entry in tomllib.loads(text).items()}


def cache_folder() -> Path:
    """Return the folder that holds the downloads: $SCRATCHBOOK_DATA, or one in the home folder.

    Chapter:  chapters/00_start_here.ipynb
    """
    moved = os.environ.get("SCRATCHBOOK_DATA")
    return Path(moved).expanduser() if moved else Path.home() / ".cache" / "scratchbook"


def available(name: str) -> bool:
    """Say whether `fetch(name)` will succeed without the network.

    Raises:   ValueError when the registry has no such name
    Chapter:  chapters/00_start_here.ipynb
    """
    dataset = _entry(name)
    return _is_genuine(cache_folder() / dataset.file, dataset)


def fetch(name: str) -> Path:
    """Return the path of a dataset's file, downloading it on the first call.

    Raises:   ValueError when the registry has no such name;
              DownloadError when the file is missing, or differs, and cannot be fetched
    Chapter:  chapters/00_start_here.ipynb
    """
    dataset = _entry(name)
    path = cache_folder() / dataset.file
    if not _is_genuine(path, dataset):
        _download(dataset, path)
    return path


def _entry(name: str) -> Dataset:
    known = registry()
    if name not in known:
        raise ValueError(f"no dataset is named {name!r}; known: {', '.join(known)}")
    return known[name]


def _is_genuine(path: Path, dataset: Dataset) -> bool:
    # The size first: it settles most cases without reading the file.
    if not path.is_file() or path.stat().st_size != dataset.bytes:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == dataset.sha256


def _download(dataset: Dataset, path: Path) -> None:
    """Let pooch check the hash of what arrives beside the file's place, and only then move it."""
    mirror = os.environ.get("SCRATCHBOOK_MIRROR", "").rstrip("/")
    addresses = [f"{mirror}/{dataset.file}"] if mirror else []
    addresses += [dataset.url] * (1 + _part(path).exists())  # what it goes on from may be wrong
    for number, url in enumerate(addresses, start=1):
        try:
            import pooch

            pooch.get_logger().setLevel("WARNING")  # its notes would end up in the notebooks
            pooch.retrieve(url, known_hash=f"sha256:{dataset.sha256}", fname=path.name,
                           path=path.parent, downloader=_Resuming(dataset.bytes, _part(path)))
            return
        except (ImportError, OSError, ValueError, HTTPException) as error:
            # ValueError is pooch's wrong hash; with its part gone, another attempt starts anew
            if number == len(addresses) or (url == dataset.url and _part(path).exists()):
                raise DownloadError(_way_out(dataset, path, error)) from error


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


class _Resuming:
    """Downloads for pooch into `FILE.part`, going on where an earlier attempt broke off."""

    def __init__(self, size: int, part: Path):
        self.size, self.part = size, part

    def __call__(self, url: str, output_file: str, _pooch: object, check_only: bool = False
                 ) -> None:
        have = self.part.stat().st_size if self.part.exists() else 0
        have = have if have < self.size else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        with urllib.request.urlopen(request, timeout=30) as answer:
            mode = "ab" if answer.status == 206 else "wb"  # 200: the server knows no ranges
            with self.part.open(mode) as file:
                while file.tell() <= self.size and (block := answer.read(2**16)):
                    file.write(block)
        if (have := self.part.stat().st_size) < self.size:
            raise OSError(f"the connection ended after {have:,} of {self.size:,} bytes; "
                          "the next attempt goes on from there")
        if have > self.size:
            self.part.unlink()
            raise OSError(f"{url} sends more than {self.size:,} bytes: another file")
        self.part.replace(output_file)


def _way_out(dataset: Dataset, path: Path, error: Exception) -> str:
    state = "has other bytes and is not used" if path.exists() else "is missing"
    return (
        f"{dataset.name}: {path} {state}, and the download failed ({type(error).__name__}).\n"
        f"Connect to the network and try again ({dataset.bytes:,} bytes),\n"
        f"or set SCRATCHBOOK_DATA to a folder that holds {dataset.file} "
        f"(from {dataset.url}, SHA-256 {dataset.sha256}).\n"
        f"The cause: {error}"
    )
