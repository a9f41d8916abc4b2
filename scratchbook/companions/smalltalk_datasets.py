"""The five kinds of training examples, built from a prepared corpus, counted and audited.

    python -m scratchbook.companions.smalltalk_datasets CORPUS --methods 4000

CORPUS is a folder that `scratchbook smalltalk prepare` wrote. Training examples whose code a
held-out example has, white space and comments aside, are dropped and counted; then the audit looks
for such code again, and for answers that nearly equal a training answer.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scratchbook.data.similar_methods import closest, method_shingles
from scratchbook.data.smalltalk_corpus import load_classes, load_methods
from scratchbook.smalltalk import tasks
from scratchbook.smalltalk.parts import Example
from scratchbook.smalltalk.preparing import gini
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.teaching.results import record

HELD_OUT = ("validation", "test")
NEAR = 0.8  # Jaccard's similarity of runs of six tokens
Sets = dict[str, list[Example]]


def some_classes(methods: Sequence[MethodRecord], limit: int, seed: int = 0) -> list[MethodRecord]:
    """About `limit` methods, in whole classes drawn by chance."""
    groups = list(tasks.methods_by_class(methods).values())
    random.Random(seed).shuffle(groups)
    kept: list[MethodRecord] = []
    for group in groups:
        if len(kept) >= limit:
            break
        kept += group
    return kept


def build(classes: Iterable[ClassRecord], methods: Sequence[MethodRecord], seed: int = 0) -> Sets:
    """The examples of every task from the same methods."""
    classes = list(classes)
    return {"next token": list(tasks.next_token(classes, methods)),
            "fill in": list(tasks.fill_in(methods, seed)),
            "class generation": list(tasks.class_generation(classes, methods)),
            "bug fixing": list(tasks.bug_fixing(methods, seed)),
            "instructions": list(tasks.instructions(methods, seed))}


def without_leaks(splits: Mapping[str, Sets]) -> tuple[dict[str, Sets], int]:
    """The splits without training examples that tell a held-out one, and how many those were."""
    held = [example for split in HELD_OUT for task in splits[split].values() for example in task]
    clean = {task: tasks.unseen(examples, held) for task, examples in splits["train"].items()}
    dropped = sum(map(len, splits["train"].values())) - sum(map(len, clean.values()))
    return {**splits, "train": clean}, dropped


def account(sets: Sets) -> dict[str, Any]:
    """Of each task: examples, characters to be learned, labels, how unequal the projects are."""
    return {task: {"examples": len(examples),
                   "learned_characters": sum(len(example.answer) for example in examples),
                   "labels": dict(Counter(example.label for example in examples).most_common())
                   if task in ("fill in", "bug fixing", "instructions") else {},
                   "projects": len({example.project for example in examples}),
                   "gini": gini(Counter(example.project for example in examples).values())}
            for task, examples in sets.items()}


def audit(splits: Mapping[str, Sets]) -> dict[str, Any]:
    """Of each held-out split and task, what share of its examples training text tells.

    `exact` shares a method's code with a training example of any task; `near` is the share of
    answers of 20 tokens and more that resemble a training answer of the same task.
    """
    told = {key for task in splits["train"].values() for example in task for key in example.keys}
    found: dict[str, Any] = {}
    for split in HELD_OUT:
        for task, examples in splits[split].items():
            answers, training = ([method_shingles(each.answer) for each in some]
                                 for some in (examples, splits["train"][task]))
            best = closest(answers, training)
            compared = sum(map(bool, map(len, answers)))
            found[f"{split}: {task}"] = {
                "examples": len(examples), "compared": compared,
                "exact": sum(not told.isdisjoint(each.keys) for each in examples),
                "near": float((best >= NEAR).sum()) / max(1, compared)}
    return found


def measure(corpus: Path, limit: int, seed: int = 0) -> dict[str, Any]:
    """Build from `limit` methods of each split, drop leaks, count, audit."""
    splits = {}
    for split in ("train", *HELD_OUT):
        methods = load_methods(corpus / f"{split}.jsonl")
        classes = load_classes(corpus / "classes.jsonl", split)
        chosen = list(tasks.formatted(some_classes(methods, limit, seed)))
        splits[split] = build(classes, chosen, seed)
    clean, dropped = without_leaks(splits)
    return {"methods": limit, "leaks_dropped": dropped, "audit": audit(clean),
            "account": {split: account(sets) for split, sets in clean.items()}}


def lines(numbers: Mapping[str, Any]) -> list[str]:
    """The account in a few lines."""
    said = [f"{split}: {task}: {found['examples']:,} examples of {found['projects']} projects "
            f"(Gini {found['gini']:.2f}), {found['learned_characters']:,} characters to learn"
            for split, sets in numbers["account"].items() for task, found in sets.items()]
    audits = [f"{name}: {found['exact']} of {found['examples']:,} told exactly, "
              f"{found['near']:.2%} of {found['compared']:,} nearly"
              for name, found in numbers["audit"].items()]
    return [*said, f"{numbers['leaks_dropped']:,} training examples dropped", *audits]


def read_options() -> argparse.Namespace:
    """The corpus, and how many methods of each split."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path, help="a folder that `smalltalk prepare` wrote")
    parser.add_argument("--methods", type=int, default=20_000, help="methods of each split")
    return parser.parse_args()


if __name__ == "__main__":
    options = read_options()
    numbers = measure(options.corpus, options.methods)
    record("09_smalltalk.datasets", numbers, seeds=[0],
           command="python -m scratchbook.companions.smalltalk_datasets CORPUS "
                   f"--methods {options.methods}")
    print(*lines(numbers), sep="\n")
