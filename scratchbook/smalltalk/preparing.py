"""Clean methods, and keep account of every one that is dropped: why, how many, of which licence.

Nothing is corrected but what a file format did to the text (line ends, marks, blank lines around a
method) and the old arrow `_`, which today's Smalltalk writes `:=`. Everything else that is wrong
with a method drops it, and the funnel counts it.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from scratchbook.smalltalk.collecting import Checkout
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.printer import format_method
from scratchbook.smalltalk.readers import read_folder, read_repository
from scratchbook.smalltalk.records import MethodRecord, Record

Judge = Callable[[str, str], object]  # of (source, dialect), raising ValueError for bad syntax

MAX_CHARACTERS = 8_000
ARROWS = ("squeak", "cuis", "gnu")  # the dialects that write a _ b for a := b

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff\ufeff\ufffd]")
_QUOTED = r"\$[\s\S]|'(?:[^']|'')*'"
_COMMENT = r'"[^"]*"'
_ARROW = re.compile(rf"{_QUOTED}|{_COMMENT}|(?P<arrow>(?<![\w:#])_(?![\w:]))")
_DATA = re.compile(r"'(?:[^']|'')*'|\b\d[\w.]*|#\w+|[()#{}.,\s]+")
_HEXADECIMAL = re.compile(r"\s*\w*?[0-9a-f]{16,}\b")
_DOIT = re.compile(r"(?:DoIt|DoItIn:)(?![\w:])")  # what an image compiles to evaluate it
_GENERATED = re.compile(r"<generated>|automatically[ -]generated|auto-?generated"
                        r"|was generated (?:automatically|by)|do not (?:edit|modify)", re.I)
_MACHINE = re.compile(r"\bgenerated\b", re.I)  # a protocol of parsers and of interfaces to C
QUALIFIED = ("dolphin", "gnu", "visualworks")  # dialects that write Namespace.Name
_MISREAD = re.compile(rf"{_QUOTED}|{_COMMENT}|(?P<other>\b[A-Z]\w*\.(?=[A-Za-z_])|##\()")


def read_checkout(checkout: Checkout) -> Iterator[Record]:
    """The records of one collected source: of its commit, or of a plain folder."""
    tags = {"project": checkout.name, "licence": checkout.licence, "dialect": checkout.dialect}
    if checkout.commit:
        return read_repository(checkout.where, commit=checkout.commit, **tags)
    return read_folder(checkout.where, **tags)


def clean_text(source: str) -> str:
    r"""A method with "\n" between its lines, no mark before it and no blank lines around it."""
    text = source.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff").rstrip()
    while (cut := text.partition("\n"))[1] and not cut[0].strip():
        text = cut[2]
    return text.lstrip(" \t")


def with_assignments(source: str) -> str:
    """The same method with `:=` for each arrow `_` that stands outside strings and comments."""
    return _ARROW.sub(lambda match: ":=" if match["arrow"] else match[0], source)


def objection(record: MethodRecord, max_characters: int = MAX_CHARACTERS) -> str:
    """Why a method is not wanted, in a few words; "" for one that is.

    What a program wrote says so in a comment, a pragma, or the name of its protocol. A method of
    data is one of 1,000 characters or more, nine in ten of them in strings, numbers
    and symbols: a picture or a table that somebody pasted.
    """
    source = record.source
    if not source.strip():
        return "empty"
    if len(source) > max_characters:
        return f"longer than {max_characters:,} characters"
    if _CONTROL.search(source):
        return "control or replacement characters"
    if _DOIT.match(source):
        return "doIt"
    if _HEXADECIMAL.match(source):
        return "name ends in 16 hexadecimal digits"
    if _GENERATED.search(source) or _MACHINE.search(record.protocol):
        return "says that it is generated"
    if len(source) >= 1_000 and sum(map(len, _DATA.findall(source))) >= 0.9 * len(source):
        return "data, not code"
    return ""


def cleaned(record: MethodRecord) -> MethodRecord:
    """The record with its text cleaned, and with today's assignments where its dialect's differ."""
    text = clean_text(record.source)
    if record.dialect in ARROWS and "_" in text:
        text = with_assignments(text)
    return record if text == record.source else replace(record, source=text)


def in_style(source: str) -> str:
    """A valid method in the one layout that the package's printer gives to its tree."""
    return format_method(parse_method(source))


def content_hash(source: str) -> bytes:
    """What two methods share that differ in white space alone."""
    return hashlib.blake2b(" ".join(source.split()).encode("utf-8", "surrogatepass"),
                           digest_size=12).digest()


@dataclass
class Amount:
    """Methods, and the bytes of their text in UTF-8."""

    methods: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one more method."""
        self.methods += 1
        self.bytes += size


@dataclass
class Funnel:
    """How much is left after each step, by licence, and why the rest went, with examples.

    The steps come in the order in which they were first counted.
    """

    steps: dict[str, dict[str, Amount]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    facts: dict[str, Any] = field(default_factory=dict)

    def count(self, step: str, record: MethodRecord) -> None:
        """One method has come through a step."""
        licences = self.steps.setdefault(step, {})
        size = len(record.source.encode("utf-8", "surrogatepass"))
        licences.setdefault(record.licence or "not stated", Amount()).add(size)

    def drop(self, reason: str, record: MethodRecord, examples: int = 3) -> None:
        """One method goes; the first of each reason are kept as examples."""
        self.reasons[reason] += 1
        if len(self.examples[reason]) < examples:
            head = " ".join(record.source[:200].split())[:70]
            self.examples[reason].append(f"{method_name(record)}: {head}")

    def total(self, step: str) -> Amount:
        """What came through a step, all licences together."""
        amounts = self.steps.get(step, {}).values()
        return Amount(sum(a.methods for a in amounts), sum(a.bytes for a in amounts))

    def rows(self) -> list[dict[str, str]]:
        """One row a step: methods, MB, the share of the step before, and the MB of each licence."""
        licences = list(dict.fromkeys(name for step in self.steps.values() for name in step))
        rows, before = [], 0
        for step, found in self.steps.items():
            total = self.total(step)
            rows.append({"step": step, "methods": f"{total.methods:,}",
                         "MB": f"{total.bytes / 1e6:.2f}",
                         "left": f"{total.bytes / before:.1%}" if before else "",
                         **{name: f"{found.get(name, Amount()).bytes / 1e6:.2f}"
                            for name in licences}})
            before = total.bytes
        return rows

    def as_dict(self) -> dict[str, Any]:
        """The funnel as JSON takes it, unrounded."""
        steps = [{"step": step, "licence": licence, "methods": amount.methods,
                  "bytes": amount.bytes}
                 for step, found in self.steps.items() for licence, amount in found.items()]
        return {"steps": steps, "reasons": dict(self.reasons.most_common()),
                "examples": dict(self.examples), **self.facts}


def method_name(record: MethodRecord) -> str:
    """Where a method stands: project, package, class and side, and the line of its pattern."""
    side = " class" if record.class_side else ""
    pattern = record.source.split("\n", 1)[0].strip()[:60]
    return f"{record.project}/{record.package}/{record.class_name}{side}>>{pattern}"


def gini(sizes: Iterable[float]) -> float:
    """How unequal sizes are: 0 when all are the same, near 1 when one has nearly everything.

    Source:   the mean difference of all pairs over twice the mean (Gini, 1912)
    """
    ordered = sorted(sizes)
    total, count = sum(ordered), len(ordered)
    if not total:
        return 0.0
    return 2 * sum(rank * size for rank, size in enumerate(ordered, 1)) / (count * total) \
        - (count + 1) / count


def capped(records: list[MethodRecord], cap: float) -> tuple[list[MethodRecord], set[str]]:
    """Leave out whole classes of a project that has more than `cap` of all bytes.

    The classes that go are those whose names hash highest, so that what stays is a sample over
    the whole project, and each class that stays is whole. Returns what stays, and which projects
    were cut.

    Raises:   ValueError for a cap outside 0..1
    """
    if not 0 < cap <= 1:
        raise ValueError(f"cap={cap} must be a share above 0 and up to 1")
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        classes[record.project][record.class_name] += len(record.source.encode("utf-8", "replace"))
    room = _room({name: sum(sizes.values()) for name, sizes in classes.items()}, cap)
    gone: set[tuple[str, str]] = set()
    for project, limit in room.items():
        taken, order = 0, sorted(classes[project], key=lambda name: content_hash(name))
        for name in order:
            taken += classes[project][name]
            if taken > limit:
                gone.add((project, name))
    return [r for r in records if (r.project, r.class_name) not in gone], {p for p, _ in gone}


def _room(sizes: dict[str, int], cap: float) -> dict[str, float]:
    """How much each project that is too large may keep, so that it is `cap` of what is left."""
    large: set[str] = set()
    while True:
        rest = sum(size for name, size in sizes.items() if name not in large)
        share = 1 - cap * len(large)
        if share <= 0 or not rest:  # so few projects that the cap cannot hold
            return {}
        limit = cap * rest / share
        more = {name for name, size in sizes.items() if name not in large and size > limit}
        if not more:
            return dict.fromkeys(large, limit)
        large |= more


def reads_otherwise(source: str) -> bool:
    """Whether code with namespaces has a form that means something else in Pharo."""
    return any(match["other"] for match in _MISREAD.finditer(source))


def syntax_objection(record: MethodRecord, parse: Judge = parse_method) -> str:
    """Why a method's syntax is not wanted: it must be Pharo's, whatever dialect it was written in.

    What Pharo reads as something else is not Pharo's either: `UI.View new` is two statements
    there, and Dolphin's `##(1 + 2)` a literal array.
    """
    try:
        parse(record.source, "pharo")
        if record.dialect in QUALIFIED and reads_otherwise(record.source):
            return f"valid in {record.dialect.capitalize()} only"
        return ""
    except ValueError:
        pass
    if record.dialect != "pharo":
        try:
            parse(record.source, record.dialect)
            return f"valid in {record.dialect.capitalize()} only"
        except ValueError:
            pass
    return "does not parse"
