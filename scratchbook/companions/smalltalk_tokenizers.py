"""How the Smalltalk tokenizer was made, and how it compares with others on unseen projects.

    python -m scratchbook.companions.smalltalk_tokenizers CORPUS   # four minutes on one core

CORPUS is a folder that `scratchbook smalltalk prepare` wrote. The tokenizer learns from its
training projects alone, in the one style that the model reads, and is judged on the projects of
the other two splits, in that style and as they were written. The fair rival is byte-pair encoding
with GPT-2's first cut, of the same size and learned from the same text; a second one keeps a line
break with its tabs whole besides, and so says what of the gain is white space.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scratchbook.data.downloads import fetch
from scratchbook.data.smalltalk_corpus import load_classes, load_methods
from scratchbook.evaluation.comparing import bound_verdict, paired
from scratchbook.runtime import repository_root
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.parts import SPECIAL_TOKENS
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.smalltalk.tasks import definition_of, formatted
from scratchbook.teaching.results import record
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer
from scratchbook.tokenizers.splits import Splitter

VOCAB_SIZE = 10_240  # whole blocks of 128 rows, which matrix products like
TRAINED_ON = 24_000_000  # characters
PARSED = 1_000  # methods whose trees are compared after a round trip
OURS, PLAIN = "ours", "plain BPE, same size and text"
LAYOUT = "plain BPE, line breaks whole"
PUBLISHED = {"GPT-2": ("r50k_base", "gpt2"), "cl100k": ("cl100k_base", "cl100k"),
             "o200k": ("o200k_base", "o200k")}
TARGETS = {"GPT-2": 1.35, "cl100k": 1.08, "o200k": 1.08, PLAIN: 1.0,
           LAYOUT: 1.0}  # how many times as many


class LayoutSplitter:
    """GPT-2's first cut of everything but line breaks, which stay whole with the white space."""

    pattern, _breaks = "gpt2", re.compile(r"([ \t]*\n[ \t\n]*)")

    def __init__(self) -> None:
        self._plain = Splitter("gpt2")

    def split(self, text: str) -> list[str]:
        """Cut text into chunks; joined, they are the text."""
        between = self._breaks.split(text)  # text, break, text, break, text
        return [chunk for at, part in enumerate(between) if part
                for chunk in ([part] if at % 2 else self._plain.split(part))]

    def blocks(self, text: str) -> Iterator[list[str]]:
        """All chunks at once: a method is short."""
        yield self.split(text)


def with_whole_breaks() -> BPETokenizer:
    """Byte-pair encoding that differs from the plain one in this cut alone."""
    tokenizer = BPETokenizer("gpt2")
    tokenizer._splitter = LayoutSplitter()  # type: ignore[assignment]
    return tokenizer


def training_texts(corpus: Path, characters: int = TRAINED_ON, seed: int = 0) -> list[str]:
    """Methods, formatted, and class definitions of the training projects, in an order of chance."""
    records: list[MethodRecord | ClassRecord] = [*load_methods(corpus / "train.jsonl"),
                                                 *load_classes(corpus / "classes.jsonl")]
    random.Random(seed).shuffle(records)
    total, kept = 0, []
    for each in records:
        if total >= characters:
            break
        kept += ([definition_of(each)] if isinstance(each, ClassRecord)
                 else [method.source for method in formatted([each])])
        total += len(kept[-1])
    return kept


def held_out(corpus: Path) -> dict[str, list[MethodRecord]]:
    """The methods of each held-out project: those of the test, then those of validation."""
    projects: dict[str, list[MethodRecord]] = {}
    for split in ("test", "validation"):
        for method in load_methods(corpus / f"{split}.jsonl"):
            projects.setdefault(method.project, []).append(method)
    return projects


def chars_per_token(tokenizer: Tokenizer, methods: Iterable[MethodRecord]) -> float:
    """Characters per token over all methods of a project together."""
    characters = tokens = 0
    for method in methods:
        characters += len(method.source)
        tokens += len(tokenizer.encode_ordinary(method.source))
    return characters / tokens


def compare(tokenizers: Mapping[str, Tokenizer], projects: Mapping[str, list[MethodRecord]]
            ) -> dict[str, Any]:
    """Characters per token by tokenizer and project, and how many times as many ours has.

    A project is one observation: the interval is Student's over the projects' ratios.
    """
    rows = {name: {project: chars_per_token(tokenizer, methods)
                   for project, methods in projects.items()}
            for name, tokenizer in tokenizers.items()}
    return {"chars_per_token": rows,
            "vocab_size": {name: tokenizer.vocab_size for name, tokenizer in tokenizers.items()},
            "ratios": {name: ratio(rows[OURS], rows[name], target)
                       for name, target in TARGETS.items()}}


def ratio(ours: Mapping[str, float], theirs: Mapping[str, float], target: float) -> dict[str, Any]:
    """Ours over theirs, project by project, with the interval and whether the target is met."""
    values = [ours[project] / theirs[project] for project in ours]
    interval = paired(values, [0.0] * len(values))
    return {"by_project": dict(zip(ours, values, strict=True)), "mean": interval.value,
            "low": interval.low, "high": interval.high, "target": target,
            "verdict": bound_verdict(values, at_least=target)}


def round_trips(tokenizer: Tokenizer, methods: Sequence[MethodRecord], seed: int = 0
                ) -> dict[str, int]:
    """How many methods come back letter by letter, and how many of a sample as the same tree."""
    again = [tokenizer.decode(tokenizer.encode_ordinary(method.source)) for method in methods]
    sample = random.Random(seed).sample(range(len(methods)), min(PARSED, len(methods)))
    trees = (parse_method(again[i], methods[i].dialect)
             == parse_method(methods[i].source, methods[i].dialect) for i in sample)
    return {"methods": len(methods), "parsed": len(sample), "same_tree": sum(trees),
            "same_text": sum(text == method.source
                             for text, method in zip(again, methods, strict=True))}


def learn(corpus: Path) -> tuple[dict[str, Tokenizer], dict[str, int]]:
    """Our tokenizer, two rivals of the same size and text, the published ones; what it read."""
    texts = training_texts(corpus)
    tokenizers: dict[str, Tokenizer] = {
        OURS: SmalltalkTokenizer().train(texts, VOCAB_SIZE),
        PLAIN: BPETokenizer("gpt2").train(texts, VOCAB_SIZE, list(SPECIAL_TOKENS)),
        LAYOUT: with_whole_breaks().train(texts, VOCAB_SIZE, list(SPECIAL_TOKENS))}
    for name, (file, pattern) in PUBLISHED.items():
        tokenizers[name] = BPETokenizer.from_tiktoken(fetch(file), pattern)
    return tokenizers, {"texts": len(texts), "characters": sum(map(len, texts))}


def measure(corpus: Path, destination: Path) -> dict[str, Any]:
    """Train, ship the tokenizer into `destination`, compare on the held-out projects."""
    tokenizers, trained_on = learn(corpus)
    path = destination / "tokenizer.json"
    tokenizers[OURS].save(path)
    written = held_out(corpus)
    projects = {name: list(formatted(methods)) for name, methods in written.items()}
    every = [method for methods in written.values() for method in methods]
    sizes = {name: {"methods": len(methods), "characters": sum(len(m.source) for m in methods)}
             for name, methods in projects.items()}
    lengths = Counter(len(tokenizers[OURS].token_bytes(i)) for i in range(VOCAB_SIZE))
    return {"trained_on": trained_on, "projects": sizes, **compare(tokenizers, projects),
            "as_written": compare(tokenizers, written),
            "round_trips": round_trips(tokenizers[OURS], every), "file_bytes": path.stat().st_size,
            "longest_token": max(lengths)}


def lines(numbers: Mapping[str, Any]) -> list[str]:
    """What was found, in sentences that the numbers write: in the one style, or as written."""
    return [f"{100 * (found['mean'] - 1):+.0f} % characters per token against {name} "
            f"(95 % {100 * (found['low'] - 1):+.0f} to {100 * (found['high'] - 1):+.0f} over "
            f"{len(found['by_project'])} projects); {found['target']:g} times as many: "
            f"{found['verdict']}" for name, found in numbers["ratios"].items()]


def read_options() -> argparse.Namespace:
    """The corpus, and where the tokenizer's file goes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path, help="a folder that `smalltalk prepare` wrote")
    root = repository_root() or Path.cwd()
    parser.add_argument("--output", type=Path, default=root / "data" / "smalltalk_model")
    return parser.parse_args()


if __name__ == "__main__":
    options = read_options()
    numbers = measure(options.corpus, options.output)
    record("09_smalltalk.tokenizers", numbers, seeds=[0],
           command="python -m scratchbook.companions.smalltalk_tokenizers CORPUS")
    print(*lines(numbers), "as the projects wrote it:", *lines(numbers["as_written"]), sep="\n")
