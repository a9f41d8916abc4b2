"""From collected repositories to training, validation and test methods, with every step counted.

What is held out is read first: then a method of the training projects that equals or resembles a
held-out one is the one that goes, and no project family stands on both sides.

Adds:       exact and near duplicates, leaks, the balance of projects, the audit of what is left
Leaves out: cleaning one method, and the funnel: smalltalk/preparing; file formats: the readers
Chapter:    chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from scratchbook.data.dedupe import WordHashes
from scratchbook.data.similar_methods import closest, method_shingles, similar_sets
from scratchbook.runtime import sha256_of, write_atomically
from scratchbook.smalltalk.collecting import Checkout
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.preparing import (
    MAX_CHARACTERS,
    Funnel,
    Judge,
    capped,
    cleaned,
    content_hash,
    gini,
    method_name,
    objection,
    read_checkout,
    syntax_objection,
)
from scratchbook.smalltalk.records import ClassRecord, MethodRecord, Record, Skipped
from scratchbook.smalltalk.source_table import check_families

ORDER = ("test", "validation", "train")  # what is held out comes first
LONG = 60  # characters: below, methods of strangers are equal by chance
Reader = Callable[[Checkout], Iterable[Record]]
Parts = dict[str, list[MethodRecord]]


def prepare(checkouts: Sequence[Checkout], read: Reader = read_checkout,
            parse: Judge = parse_method, threshold: float = 0.8, cap: float = 0.25,
            max_characters: int = MAX_CHARACTERS, layout: Callable[[str], str] | None = None,
            say: Callable[[str], None] = lambda line: None
            ) -> tuple[Parts, list[tuple[str, ClassRecord]], Funnel]:
    """Read, clean, deduplicate, split, balance and audit; return methods, classes, the account.

    `threshold` is Jaccard's similarity of runs of six tokens, `cap` the largest share that one
    project may have of the training text; `layout` writes a valid method anew, such as `in_style`,
    and what this makes equal is dropped too.

    Raises:   ValueError when no method is left, for a family on two sides, or a share outside 0..1
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    check_families(checkouts)
    for name, share in (("threshold", threshold), ("cap", cap)):  # before the work, not after it
        if not 0 < share <= 1:
            raise ValueError(f"{name}={share} must be a share above 0 and up to 1")
    funnel = Funnel()
    parts, classes = _gather(checkouts, read, parse, max_characters, funnel, say)
    if not any(parts.values()):
        raise ValueError(f"no method is left of {len(checkouts)} sources; dropped: "
                         f"{dict(funnel.reasons) or 'nothing was read'}")
    if layout is not None:
        parts = _laid_out(parts, layout, funnel)
    parts = _without_similar(parts, threshold, funnel)
    say(f"{funnel.total('not like another').methods:,} methods are unlike each other")
    before = _sizes(parts["train"])
    parts["train"] = _balanced(parts["train"], cap, funnel)
    for split in ORDER:
        for record in parts[split]:
            funnel.count("balanced", record)
    funnel.facts["balance"] = {"cap": cap, "gini_before": gini(before.values()),
                               "gini_after": gini(_sizes(parts["train"]).values())}
    funnel.facts["audit"] = audit(parts)
    funnel.facts["splits"] = {split: size_of(parts[split]) for split in ORDER}
    funnel.facts["sources"] = [{name: value for name, value in asdict(checkout).items()
                                if name != "where"} for checkout in checkouts]
    return parts, classes, funnel


def _gather(checkouts: Sequence[Checkout], read: Reader, parse: Judge, max_characters: int,
            funnel: Funnel, say: Callable[[str], None]
            ) -> tuple[Parts, list[tuple[str, ClassRecord]]]:
    """All methods that are clean, new and valid, by split; and the classes."""
    parts: Parts = {split: [] for split in ORDER}
    classes: dict[tuple[str, str], tuple[str, ClassRecord]] = {}
    seen: dict[bytes, str] = {}
    skipped: dict[str, list[str]] = defaultdict(list)
    for split, checkout, records in _in_order(checkouts, read):
        before = len(parts[split])
        for record in records:
            if isinstance(record, MethodRecord):
                parts[split] += _judged(record, split, seen, parse, max_characters, funnel)
            elif isinstance(record, ClassRecord):
                classes.setdefault((checkout.name, record.name), (split, record))
            else:
                skipped[checkout.name].append(f"{record.path}: {record.reason}")
        say(f"{split}: {checkout.name}: {len(parts[split]) - before:,} methods kept, "
            f"{len(skipped[checkout.name]):,} files or parts not read")
    funnel.facts["not_collected"] = {c.name: c.error for c in checkouts if c.error}
    funnel.facts["not_read"] = {name: {"count": len(lines), "examples": lines[:5]}
                                for name, lines in skipped.items() if lines}
    return parts, _without_told_comments(classes.values())


def _to_the_end(records: Iterable[Record]) -> Iterator[Record]:
    """The records; where a repository breaks off, what was read of it stays and the rest is said.
    """
    try:
        yield from records
    except (ValueError, OSError) as error:
        yield Skipped("the rest of it", str(error))


def _in_order(checkouts: Sequence[Checkout], read: Reader
              ) -> Iterator[tuple[str, Checkout, Iterable[Record]]]:
    """The records of each source, what is held out first.

    Where the table holds nothing out, one tenth of each source's text becomes the test and another
    the validation, in whole packages.
    """
    there = [checkout for checkout in checkouts if not checkout.error]
    if any(checkout.split != "train" for checkout in there):
        for split in ORDER:
            yield from ((split, c, _to_the_end(read(c))) for c in there if c.split == split)
        return
    every = [(checkout, list(_to_the_end(read(checkout)))) for checkout in there]
    sides = [_held_packages(records) for _, records in every]
    for split in ORDER:
        for (checkout, records), side in zip(every, sides, strict=True):
            yield split, checkout, [record for record in records if side.get(
                getattr(record, "package", None), "train") == split]


def _held_packages(records: Iterable[Record], share: float = 0.1) -> dict[str, str]:
    """The packages that are held out, in the order of their names' hashes; one stays at least."""
    sizes: Counter[str] = Counter()
    for record in records:
        if isinstance(record, MethodRecord):
            sizes[record.package] += len(record.source)
    order, side = sorted(sizes, key=content_hash), {}
    for split in ORDER[:-1]:
        taken = 0
        for package in order[:-1]:
            if package not in side and taken + sizes[package] / 2 <= share * sizes.total():
                side[package] = split
                taken += sizes[package]
    return side


def _judged(record: MethodRecord, split: str, seen: dict[bytes, str], parse: Judge,
            max_characters: int, funnel: Funnel) -> list[MethodRecord]:
    """The cleaned method, or nothing; each step that it gets through is counted."""
    funnel.count("read", record)
    record = cleaned(record)
    if reason := objection(record, max_characters):
        funnel.drop(reason, record)
        return []
    funnel.count("clean", record)
    first = seen.get(key := content_hash(record.source))
    if first is not None:
        which = "an earlier" if first == split else "a held-out"
        funnel.drop(f"equal to {which} method", record)
        return []
    seen[key] = split
    funnel.count("not equal to another", record)
    if reason := syntax_objection(record, parse):
        funnel.drop(reason, record)
        return []
    funnel.count("valid in Pharo", record)
    return [record]


def _laid_out(parts: Parts, layout: Callable[[str], str], funnel: Funnel) -> Parts:
    """The methods written anew; of those that are equal now the first stays, held-out ones first.

    White space aside, `^x` and `^ x` differ as they were written and are one in the printer's
    style: what was compared exactly before is compared once more.
    """
    seen: dict[bytes, tuple[str, int]] = {}
    kept: Parts = {split: [] for split in ORDER}
    for split in ORDER:
        for old in parts[split]:
            record = replace(old, source=layout(old.source))
            first = seen.setdefault(content_hash(record.source), (split, id(old)))
            if first == (split, id(old)):
                kept[split].append(record)
                funnel.count("not equal in one style", record)
            else:
                which = "an earlier" if first[0] == split else "a held-out"
                funnel.drop(f"in one style, equal to {which} method", record)
    return kept


def _without_told_comments(classes: Iterable[tuple[str, ClassRecord]]
                           ) -> list[tuple[str, ClassRecord]]:
    """The classes, but for those whose comment a class that is held out has word for word."""
    classes = list(classes)
    told: dict[bytes, str] = {}
    for split, record in classes:  # held-out ones come first
        if len(record.comment) >= LONG:
            told.setdefault(content_hash(record.comment), split)
    return [(split, record) for split, record in classes
            if told.get(content_hash(record.comment), split) == split]


def _without_similar(parts: Parts, threshold: float, funnel: Funnel) -> Parts:
    """The methods that resemble no earlier one; held-out ones are the earliest."""
    records = [(split, record) for split in ORDER for record in parts[split]]
    twins = similar_sets(_sets(record for _, record in records), threshold)
    kept: Parts = {split: [] for split in ORDER}
    for number, (split, record) in enumerate(records):
        if number not in twins:
            kept[split].append(record)
            funnel.count("not like another", record)
        else:
            which = "an earlier" if records[twins[number]][0] == split else "a held-out"
            funnel.drop(f"resembles {which} method", record)
    return kept


def _sets(records: Iterable[MethodRecord]) -> list[np.ndarray]:
    known = WordHashes()
    return [method_shingles(record.source, known) for record in records]


def _balanced(records: list[MethodRecord], cap: float, funnel: Funnel) -> list[MethodRecord]:
    kept, cut = capped(records, cap)
    staying = set(map(id, kept))
    for record in records:
        if id(record) not in staying:
            funnel.drop("of a project above the cap", record)
    funnel.facts["projects_cut"] = sorted(cut)
    return kept


def _sizes(records: Iterable[MethodRecord]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for record in records:
        sizes[record.project] += len(record.source.encode("utf-8", "replace"))
    return sizes


def size_of(records: Sequence[MethodRecord]) -> dict[str, Any]:
    """Methods, bytes and characters of some methods: all, by project and by licence."""
    projects, licences = _sizes(records), Counter(record.licence for record in records)
    lengths = sorted(len(record.source) for record in records)
    middle = {f"p{share}": lengths[len(lengths) * share // 100] if lengths else 0
              for share in (10, 50, 90, 99)}
    return {"methods": len(records), "bytes": sum(projects.values()), "lengths": middle,
            "bytes_by_project": dict(projects.most_common()),
            "methods_by_licence": dict(licences.most_common())}


def audit(parts: Parts) -> dict[str, Any]:
    """What of each held-out part stands in the training text, found anew from the texts alone.

    `exact` counts methods equal to a training method, white space aside; `near` holds the share
    of methods of 20 tokens and more whose closest training method reaches each similarity.

    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    training = {content_hash(record.source) for record in parts["train"]}
    sets, result = _sets(parts["train"]), {}
    for split in ORDER[:-1]:
        held = _sets(parts[split])
        compared = sum(map(bool, map(len, held)))
        best = closest(held, sets)
        result[split] = {
            "methods": len(held), "compared": compared,
            "exact": sum(content_hash(record.source) in training for record in parts[split]),
            "near": {str(limit): float((best >= limit).sum()) / max(1, compared)
                     for limit in (0.7, 0.8, 0.9)}}
    return result


def save_corpus(folder: str | Path, parts: Parts, classes: Iterable[tuple[str, ClassRecord]],
                funnel: Funnel) -> None:
    """Write train.jsonl, validation.jsonl, test.jsonl, classes.jsonl and, last, funnel.json.

    A row of methods is a document of `scratchbook corpus` (name, text, project) that keeps all
    that is known of the method beside it. What UTF-8 has no bytes for (half a character of an
    escape, a file name in another encoding) becomes "?".
    """
    folder = Path(folder)
    for split, records in parts.items():
        _write_lines(folder / f"{split}.jsonl", map(row_of, records))
    _write_lines(folder / "classes.jsonl", ({"split": split, **asdict(record)}
                                            for split, record in classes))
    written = [folder / f"{name}.jsonl" for name in (*parts, "classes")]
    funnel.facts["files"] = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
                             for path in written}
    account = json.dumps(funnel.as_dict(), indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / "funnel.json", account.encode("utf-8", "replace"))


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path, lines.encode("utf-8", "replace"))


def row_of(record: MethodRecord) -> dict[str, str]:
    """A method as one line of a corpus."""
    return {"name": method_name(record), "text": record.source, "project": record.project,
            "package": record.package, "class": record.class_name,
            "side": "class" if record.class_side else "instance", "protocol": record.protocol,
            "licence": record.licence, "dialect": record.dialect, "path": record.path}


def load_methods(path: str | Path) -> list[MethodRecord]:
    """Read a file of methods that `save_corpus` wrote.

    Raises:   ValueError naming the line that is no method
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    records = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), 1):
        try:
            row = json.loads(line) if line.strip() else None
            records += [] if row is None else [MethodRecord(
                row["text"], row["class"], row["side"] == "class", row["protocol"], row["package"],
                row["project"], row["licence"], row["path"], row["dialect"])]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is no method ({error}): each is written by "
                             "`scratchbook smalltalk prepare`") from None
    return records


def load_classes(path: str | Path, split: str = "train") -> list[ClassRecord]:
    """Read the classes of one split from the classes.jsonl that `save_corpus` wrote."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
    return [ClassRecord(**{name: tuple(value) if isinstance(value, list) else value
                           for name, value in row.items() if name != "split"})
            for row in rows if row["split"] == split]
