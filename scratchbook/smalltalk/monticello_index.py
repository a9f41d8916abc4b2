"""SqueakSource and SmalltalkHub: a Monticello repository is a page of links to .mcz files.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import html
import io
import re
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from scratchbook.runtime import write_atomically

_LINK = re.compile(r"""<a\s[^>]*?href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))""", re.I)
_NAME = re.compile(r"(?P<package>.+)-(?P<author>[^-.]*)\.(?P<number>\d+)\.mcz")
LARGEST = 64 * 2**20


class Version(NamedTuple):
    """One version of a package, and the file that holds it."""

    package: str
    author: str
    number: int
    file: str


def parse_index(page: str) -> list[Version]:
    """The versions that a page links to, in its order, each once; other links are left out."""
    versions = {}
    for match in _LINK.finditer(page):
        address = html.unescape(next(filter(None, match.groups()), ""))
        path = urllib.parse.urlsplit(address).path
        file = urllib.parse.unquote(path.rpartition("/")[2])
        if (name := _NAME.fullmatch(file)) and "/" not in file and "\0" not in file:
            versions[file] = Version(name["package"], name["author"], int(name["number"]), file)
    return list(versions.values())


def newest(versions: list[Version]) -> list[Version]:
    """The version with the highest number of each package, in the order of their names."""
    best: dict[str, Version] = {}
    for version in versions:
        if version.package not in best or version.number > best[version.package].number:
            best[version.package] = version
    return [best[package] for package in sorted(best)]


def download(address: str, folder: str | Path) -> Iterator[str]:
    """Fetch the newest version of each package into `folder`; yield a line for each.

    What is there is not fetched again; an archive that arrives broken is not kept.

    Raises:   ValueError when the address is no Monticello repository
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    address, folder = address.rstrip("/") + "/", Path(folder)
    try:
        versions = newest(parse_index(_get(address).decode("utf-8", "replace")))
    except (OSError, HTTPException, ValueError) as error:
        raise ValueError(f"{address} cannot be read: {error}") from None
    if not versions:
        raise ValueError(f"{address} links to no .mcz file: give the address of a repository, "
                         "such as that of one project on SqueakSource")
    for version in versions:
        place = folder / version.file
        if place.is_file():
            yield f"{version.file}: is here already"
            continue
        try:
            content = _get(address + urllib.parse.quote(version.file))
            damaged = zipfile.ZipFile(io.BytesIO(content)).testzip()
            if damaged:
                raise zipfile.BadZipFile(f"{damaged} is damaged")
        except (OSError, HTTPException, ValueError, zipfile.BadZipFile) as error:
            yield f"{version.file}: skipped: {error}"
            continue
        write_atomically(place, content)
        yield f"{version.file}: {len(content):,} bytes"


def _get(address: str) -> bytes:
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{address} is no http address")
    with urllib.request.urlopen(address, timeout=60) as answer:
        content = answer.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{address} sends more than {LARGEST:,} bytes")
    return content
