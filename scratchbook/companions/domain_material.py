"""The texts of chapter 01b: a made-up log, real logs, code by file, and how they are halved.

Chapter:  chapters/01b_domain_tokenizers.ipynb
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from scratchbook.data import fetch, library_documents
from scratchbook.runtime import data_dir
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.tokenizers.folding import LINE

SYSTEMS = {"Apache": "apache", "HDFS": "hdfs", "Hadoop": "hadoop", "Linux": "linux", "Mac": "mac",
           "OpenSSH": "openssh", "OpenStack": "openstack", "Spark": "spark",
           "Zookeeper": "zookeeper"}
PUBLISHED = {"GPT-2": ("r50k_base", "gpt2"), "cl100k": ("cl100k_base", "cl100k"),
             "o200k": ("o200k_base", "o200k")}
BLOCK = 50  # lines that are redrawn together: neighbours resemble each other

TRACE = """Traceback (most recent call last):
  File "/srv/shop/app/orders.py", line {line}, in place
    self.stock.reserve(item, number)
  File "/srv/shop/app/stock.py", line 88, in reserve
    raise SoldOut(item)
shop.errors.SoldOut: item {item} of order {order:08x}
"""


def service_log(lines: int, seed: int = 0) -> str:
    """A log of a shop that does not exist: requests, jobs, warnings, now and then a trace.

    It is here because every reader has it; what is measured on it holds for it alone.
    """
    draw, milliseconds, out = random.Random(seed), 36_000_000, []
    while len(out) < lines:
        milliseconds += draw.choice((3, 40, 250, 1100))
        seconds, rest = divmod(milliseconds, 1000)
        time = f"2024-02-{1 + seconds // 86400 % 28:02d} {seconds // 3600 % 24:02d}:" \
               f"{seconds // 60 % 60:02d}:{seconds % 60:02d},{rest:03d}"
        order, item = draw.randrange(1 << 32), draw.randrange(400)
        line = draw.choice((
            f"INFO [worker-{draw.randrange(8)}] shop.web: GET /items/{item} 200 in "
            f"{draw.randrange(90)} ms",
            f"INFO [worker-{draw.randrange(8)}] shop.web: POST /orders 201 order {order:08x}",
            f"INFO [jobs] shop.mail: sent receipt for order {order:08x} to user {item}",
            f"WARN [jobs] shop.stock: item {item} is low, {draw.randrange(5)} left",
            f"ERROR [worker-{draw.randrange(8)}] shop.orders: order {order:08x} failed"))
        out.append(f"{time} {line}\n")
        if "failed" in line:
            out.append(TRACE.format(line=draw.choice((41, 57)), item=item, order=order))
    return "".join(out)


def loghub() -> dict[str, str]:
    """Two thousand lines of each of nine systems (needs the downloads `loghub_...`).

    Source:   Zhu et al. (2023), "Loghub", ISSRE; arXiv:2008.06448
    """
    return {system: fetch(f"loghub_{name}").read_bytes().decode("utf-8")
            for system, name in SYSTEMS.items()}


def published() -> dict[str, BPETokenizer]:
    """The tokenizers of GPT-2, GPT-4 and GPT-4o (needs their rank files)."""
    return {name: BPETokenizer.from_tiktoken(fetch(file), pattern)
            for name, (file, pattern) in PUBLISHED.items()}


def halves(texts: dict[str, str] | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """The first and the second half of the lines of each log: to learn from, and to test."""
    first, second = {}, {}
    for system, text in (loghub() if texts is None else texts).items():
        lines = LINE.findall(text)
        first[system] = "".join(lines[:len(lines) // 2])
        second[system] = "".join(lines[len(lines) // 2:])
    return first, second


def library_halves(max_bytes: int | None = None, seed: int = 0) -> tuple[list[str], list[str]]:
    """Files of the standard library, whole packages on one side: three quarters and a quarter."""
    documents = library_documents(max_bytes)
    packages = sorted({document.project for document in documents})
    random.Random(seed).shuffle(packages)
    held_out = set(packages[:len(packages) // 4])
    return ([document.text for document in documents if document.project not in held_out],
            [document.text for document in documents if document.project in held_out])


def code_files(root: str | Path, suffixes: Iterable[str]) -> list[tuple[str, str]]:
    """(path, text) of the files below a folder that end so and are UTF-8, in the paths' order."""
    found = []
    for path in sorted(Path(root).rglob("*")):
        if path.is_file() and path.name.endswith(tuple(suffixes)):
            try:
                text = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                continue
            found.append((path.relative_to(root).as_posix(), text))
    return found


def rails_app() -> list[tuple[str, str]]:
    """(path, text) of the Rails application that was written for this chapter."""
    return code_files(data_dir() / "rails", (".rb", ".erb"))


def tokens_by_block(tokenizer: Tokenizer, text: str, lines: int = BLOCK) -> list[int]:
    """How many tokens each stretch of lines takes, in one go: what comes before may be used."""
    found = LINE.findall(text)
    ends = [*range(lines, len(found), lines), len(found)] if found else []
    if len(ends) > 1 and ends[-1] - ends[-2] < lines // 2:
        del ends[-2]  # a short rest joins the block before it
    counts = [len(tokenizer.encode_ordinary("".join(found[:end]))) for end in ends]
    return [count - before for count, before in zip(counts, [0, *counts], strict=False)]


class MessageSplitter:
    """A first cut of logs: digits in threes, line ends, and between them everything in one piece.

    A merge may then join whole messages. It is the strongest plain rival that we know of.
    """

    pattern = "cl100k"
    _find = re.compile(r"[0-9]{1,3}|\r?\n|\r|[^0-9\r\n]+").findall

    def split(self, text: str) -> list[str]:
        """Cut text into chunks; joined, they are the text."""
        return self._find(text)

    def blocks(self, text: str) -> Iterator[list[str]]:
        """All chunks, a line at a time."""
        for line in LINE.findall(text):
            yield self._find(line)


def message_bpe() -> BPETokenizer:
    """Byte-level BPE over that cut, not trained yet."""
    tokenizer = BPETokenizer("cl100k")
    tokenizer._splitter = MessageSplitter()  # type: ignore[assignment]
    return tokenizer
