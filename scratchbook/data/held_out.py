"""Splitting a corpus so that what is held out was never seen, and checking that it was not.

Chapter:  chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scratchbook.data.dedupe import WordHashes, run_hashes
from scratchbook.data.documents import Document


def split_documents(documents: Sequence[Document], share: float = 0.1, by: str = "project",
                    seed: int = 0) -> tuple[list[Document], list[Document]]:
    """Return (training, validation): about `share` of the bytes are held out, in whole groups.

    `by` is "project" or the document's "name". Groups come in the order of a hash of their
    names, so that a corpus that grows keeps nearly the same split.

    Raises:   ValueError for an unknown group, a share outside 0..1, or fewer than two groups
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    if by not in ("project", "name") or not 0 < share < 1:
        raise ValueError(f"by={by!r} must be 'project' or 'name', share={share} within 0..1")
    sizes: Counter[str] = Counter()
    for document in documents:
        sizes[getattr(document, by)] += len(document.text.encode("utf-8"))
    if len(sizes) < 2:
        raise ValueError(f"{len(sizes)} {by} cannot be split: collect more, or split by='name'")
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    held, taken, wanted = set(), 0, share * sum(sizes.values())
    for name in order[:-1]:  # one group at least stays for training
        if taken + sizes[name] / 2 <= wanted:  # a giant would overshoot: left out
            held.add(name)
            taken += sizes[name]
    held = held or {min(order, key=sizes.get)}  # giants alone: the least of them
    return ([d for d in documents if getattr(d, by) not in held],
            [d for d in documents if getattr(d, by) in held])


def group_by_runs(documents: Sequence[Document], words: int = 13) -> list[Document]:
    """Give one project to all documents that share a run of `words` words, directly or over others.

    Held out by these projects, no document shares such a run with training.

    Raises:   ValueError for words below 1
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    if words < 1:
        raise ValueError(f"words={words} must be 1 or more")
    leader = list(range(len(documents)))

    def first_of(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]  # halve the way for the next one
            place = leader[place]
        return place

    seen: dict[int, int] = {}
    known = WordHashes()
    for place, document in enumerate(documents):
        for run in np.unique(run_hashes(document.text, words, known)).tolist():
            leader[first_of(place)] = first_of(seen.setdefault(run, place))
    return [d._replace(project=documents[first_of(place)].name)
            for place, d in enumerate(documents)]


class Leak(NamedTuple):
    """A held-out document, and how many of its runs of words stand in training as well."""

    name: str
    shared: int
    runs: int


def find_leaks(training: Sequence[Document], validation: Sequence[Document], words: int = 13
               ) -> list[Leak]:
    """Held-out documents that share a run of `words` words with training, the worst first.

    Raises:   ValueError for words below 1
    Paper:    Brown et al. (2020), arXiv:2005.14165, appendix C
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    if words < 1:
        raise ValueError(f"words={words} must be 1 or more")
    known = WordHashes()
    every = [run_hashes(document.text, words, known) for document in training]
    seen = np.sort(np.concatenate([np.empty(0, np.uint64), *every]))
    leaks = []
    for document in validation:
        runs = np.unique(run_hashes(document.text, words, known))
        after, before = (np.searchsorted(seen, runs, side) for side in ("right", "left"))
        if shared := int((after > before).sum()):
            leaks.append(Leak(document.name, shared, len(runs)))
    return sorted(leaks, key=lambda leak: -leak.shared / leak.runs)
