"""Token ids on disk, read without loading them: one file, whole or not there at all.

The file: eight letters, the length of the header, the header as JSON, the ids, then the length of
each document. Ids take two bytes where the vocabulary allows it, and four otherwise.

Chapter:  chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scratchbook.runtime import write_atomically

MAGIC = b"SBTOKENS"


class TokenFile(NamedTuple):
    """The ids of a corpus, mapped into memory, and what its header says.

    Shapes:   ids (tokens,), lengths (documents,)
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """

    ids: np.ndarray
    lengths: np.ndarray
    header: dict

    def documents(self) -> Iterator[np.ndarray]:
        """The ids of one document after the other."""
        cuts = [0, *np.cumsum(self.lengths, dtype=np.int64).tolist()]
        return (self.ids[start:stop] for start, stop in pairwise(cuts))


def write_tokens(path: str | Path, documents: Sequence[Sequence[int]], vocab_size: int,
                 made_by: str = "") -> None:
    """Write the ids of documents; `made_by` says from what, so that a cache knows its own.

    Raises:   ValueError for an id outside 0..vocab_size - 1
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    lengths = np.array([len(ids) for ids in documents], "<u4")
    ids = np.fromiter(chain.from_iterable(documents), np.int64, int(lengths.sum()))
    if len(ids) and not 0 <= ids.min() <= ids.max() < vocab_size:
        raise ValueError(f"ids from {ids.min()} to {ids.max()} do not fit vocab_size={vocab_size}")
    kind = "<u2" if vocab_size <= 2**16 else "<u4"
    body = ids.astype(kind).tobytes() + lengths.tobytes()
    header = json.dumps({"dtype": kind, "tokens": len(ids), "documents": len(lengths),
                         "vocab_size": vocab_size, "made_by": made_by,
                         "sha256": hashlib.sha256(body).hexdigest()}).encode()
    write_atomically(path, MAGIC + len(header).to_bytes(4, "little") + header + body)


def read_tokens(path: str | Path, verify: bool = True) -> TokenFile:
    """Map a token file into memory, once its SHA-256 is the one that was written down.

    That reads the file, a second for each gigabyte or two; `verify=False` trusts it.

    Raises:   FileNotFoundError; ValueError for a file that is foreign, cut short or altered
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(12)
        if start[:8] != MAGIC:
            raise ValueError(f"{path} is no token file: `scratchbook corpus pack` writes them")
        header = file.read(int.from_bytes(start[8:], "little"))
    try:
        fields = _checked(json.loads(header))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} has a damaged header ({error}): write it again") from None
    ids_end = 12 + len(header) + fields["tokens"] * np.dtype(fields["dtype"]).itemsize
    size = ids_end + 4 * fields["documents"]
    if path.stat().st_size != size:
        raise ValueError(f"{path} has {path.stat().st_size} bytes where its header says {size}: "
                         "it was cut short or added to; write it again")
    body = np.memmap(path, np.uint8, mode="r", offset=12 + len(header))
    if verify and hashlib.sha256(body).hexdigest() != fields["sha256"]:
        raise ValueError(f"{path} was altered: its SHA-256 is not the header's; write it again")
    at = ids_end - 12 - len(header)
    return TokenFile(body[:at].view(fields["dtype"]), body[at:].view("<u4"), fields)


def _checked(header: dict) -> dict:
    """The header, when each of its fields is what `write_tokens` writes."""
    for name, kind in {"tokens": int, "documents": int, "vocab_size": int, "dtype": str,
                       "made_by": str, "sha256": str}.items():
        value = header[name]
        right = value >= 0 if isinstance(value, int) else name != "dtype" or value in ("<u2", "<u4")
        if not isinstance(value, kind) or not right:
            raise ValueError(f"{name} is {value!r:.40}")
    return header


def cached_tokens(path: str | Path, texts: Sequence[str], encode: Callable[[str], Sequence[int]],
                  vocab_size: int, tokenizer: str) -> TokenFile:
    """The ids of `texts`: read from `path` when it was made of the same, encoded otherwise.

    `tokenizer` must change whenever `encode` would give other ids: a hash of its file, say.

    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    digest = hashlib.sha256(f"{tokenizer}/{vocab_size}".encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8")).digest())
    try:
        found = read_tokens(path)
        if found.header["made_by"] == digest.hexdigest():
            return found
    except (FileNotFoundError, ValueError):
        pass  # nothing usable is there: made anew below
    write_tokens(path, [encode(text) for text in texts], vocab_size, digest.hexdigest())
    return read_tokens(path)
