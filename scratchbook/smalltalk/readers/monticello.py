"""Monticello's `.mcz`: a version of a package as a zip file, from SqueakSource and SmalltalkHub.

    package                (name 'Zoo-Core')
    version                (name 'Zoo-Core-ab.12' message '...' id '...' ...)
    snapshot/source.st     the classes and methods as chunks
    snapshot.bin           the same as a stream of Smalltalk objects; not read

Source:   www.wiresong.ca/monticello (Bryant and Putney)
Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace

from scratchbook.smalltalk.readers.chunk import read_chunks
from scratchbook.smalltalk.readers.origins import Origin
from scratchbook.smalltalk.readers.scanning import decode
from scratchbook.smalltalk.records import Record, Skipped

LARGEST = 200_000_000  # bytes of source.st; the largest image's whole source is a fourth of it
LARGEST_NAME = 1_000_000  # bytes of the file `package`, which holds a name
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what Monticello writes
_NAME = re.compile(r"name\s+'([^']+)'")
_VERSION = re.compile(r"-[\w.]+\.\d+$")  # "-ab.12", author and number


def read_mcz(data: bytes, origin: Origin) -> Iterator[Record]:
    """The classes and methods of a version; the package is the one that the file names."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            info = members.get("snapshot/source.st")
            if info is None or info.file_size > LARGEST:
                yield origin.skipped("no snapshot/source.st in it" if info is None else
                                     f"snapshot/source.st would take {info.file_size:,} bytes")
                return
            if info.compress_type not in COMPRESSIONS:
                yield origin.skipped(f"snapshot/source.st is compressed in way {info.compress_type}"
                                     ", which no Monticello writes")
                return
            package = _package(_start(archive, members.get("package")), origin)
            text, encoding = decode(archive.read(info))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError,
            EOFError) as error:
        yield origin.skipped(f"a damaged zip file: {error}")
        return
    for record in read_chunks(text, replace(origin, encoding=encoding)):
        yield record if isinstance(record, Skipped) else replace(record, package=package)


def _start(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None) -> bytes:
    """The start of a small file; nothing where there is none, or one that cannot be read."""
    if info is None or info.compress_type not in COMPRESSIONS:
        return b""
    with archive.open(info) as file:
        return file.read(LARGEST_NAME)


def _package(description: bytes, origin: Origin) -> str:
    named = _NAME.search(description.decode("utf-8", "replace"))
    if named:
        return named[1]
    return _VERSION.sub("", origin.path.rpartition("/")[2].removesuffix(".mcz"))
