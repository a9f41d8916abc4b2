"""The material of a judgement: unseen classes, their methods, and what the training methods are.

Heads are drawn by drawing methods of the test projects, so that each class comes as often as it
has methods, and the methods themselves are the control: what people wrote behind the same heads.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scratchbook.data.smalltalk_corpus import load_classes, load_methods
from scratchbook.data.smalltalk_documents import class_documents, head_ids
from scratchbook.evaluation.comparing import wilson
from scratchbook.evaluation.method_measures import (
    ClassMethods,
    Judge,
    Method,
    as_dict,
    measure_methods,
    pooled,
    tree_of,
    validity,
)
from scratchbook.evaluation.method_samples import Counts, Written, continue_all, only_methods
from scratchbook.model import DecoderLM
from scratchbook.smalltalk import parts
from scratchbook.smalltalk.measures import World, is_trivial
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer


@dataclass
class Bench:
    """What every writer is judged on.

    `known` are the selectors that training methods send or implement, `quartiles` the lengths of
    training methods in tokens, the end included.
    """

    tokenizer: SmalltalkTokenizer
    window: int
    classes: dict[tuple[str, str], ClassRecord]
    methods: list[MethodRecord]
    known: frozenset[str]
    training: list[Method]
    quartiles: list[float]

    @classmethod
    def of(cls, corpus: str | Path, tokenizer: SmalltalkTokenizer, window: int,
           known_from: int | None = None, sampled: int = 3_000, seed: int = 0) -> Bench:
        """Read the test and training methods that `scratchbook smalltalk prepare` wrote.

        `known_from` methods, drawn by chance, make the known selectors (default: all).

        Raises:   ValueError when no test method has a class whose definition is known
        """
        corpus, draw = Path(corpus), random.Random(seed)
        classes = {(each.project, each.name): each
                   for each in load_classes(corpus / "classes.jsonl", "test")}
        methods = [each for each in load_methods(corpus / "test.jsonl")
                   if (each.project, each.class_name) in classes]
        training = load_methods(corpus / "train.jsonl")
        if not methods or not training:
            raise ValueError(f"{corpus} has {len(training)} training methods and {len(methods)} of "
                             "test classes whose definition is known: both are needed")
        draw.shuffle(methods)
        draw.shuffle(training)
        bench = cls(tokenizer, window, classes, methods,
                    World.of(training[:known_from]).selectors, [], [])
        bench.training = [bench.method(each) for each in training[:sampled]]
        bench.quartiles = np.quantile([each.tokens for each in bench.training],
                                      (0.25, 0.5, 0.75)).tolist()
        return bench

    @property
    def end(self) -> int:
        """The id that ends a method."""
        return self.tokenizer.special_tokens[parts.END]

    def hidden(self, *shown: str) -> list[int]:
        """All special tokens but the end, and but those that are named."""
        return [number for name, number in self.tokenizer.special_tokens.items()
                if name not in (parts.END, *shown)]

    def head(self, record: MethodRecord) -> list[int]:
        """The definition of a method's class, and the id that opens a method of that side."""
        side = parts.CLASS_METHOD if record.class_side else parts.METHOD
        known = self.classes.get((record.project, record.class_name))
        return [*head_ids(known, self.tokenizer, self.window),
                self.tokenizer.special_tokens[side]]

    def fields(self, record: MethodRecord) -> tuple[str, ...]:
        """The variables that the definition of a method's class gives to its side."""
        known = self.classes.get((record.project, record.class_name), ClassRecord(""))
        own = known.class_instance_variables if record.class_side else known.instance_variables
        return (*own, *known.class_variables)

    def method(self, record: MethodRecord) -> Method:
        """A method that a person wrote, to be judged as those of the models are."""
        ids = self.tokenizer.encode_ordinary(record.source)
        return Method(record.source, self.fields(record), len(ids) + 1)

    def fitting(self, record: MethodRecord) -> Method:
        """The same, unfinished where it does not fit behind its head, as a model's would be."""
        method = self.method(record)
        fits = len(self.head(record)) + method.tokens <= self.window
        return method if fits else method._replace(source=None)

    def texts(self, records: Sequence[MethodRecord]) -> tuple[list[list[int]], list[list[int]]]:
        """The heads of some methods, and the methods with their ends, as ids that fit."""
        found = []
        for each in records:
            head = self.head(each)
            body = [*self.tokenizer.encode_ordinary(each.source), self.end]
            found.append((head, body[: self.window - len(head)]))
        return [head for head, _ in found], [body for _, body in found]

    def characters(self, bodies: Sequence[Sequence[int]]) -> list[int]:
        """The characters that each of some bodies spells, and one for its end."""
        return [len(self.tokenizer.decode([each for each in ids if each != self.end]))
                + (self.end in ids[-1:]) for ids in bodies]

    def account(self) -> dict[str, Any]:
        """What the training methods are like, and how many test methods are too long."""
        heads, bodies = self.texts(self.methods[:1_000])
        cut = sum(body[-1] != self.end for body in bodies)
        trees = [tree for tree in map(tree_of, (each.source for each in self.training)) if tree]
        trivial = sum(map(is_trivial, trees))
        return {"sampled": len(self.training), "quartiles": self.quartiles,
                "tokens": lengths([each.tokens for each in self.training]),
                "trivial": as_dict(wilson(trivial, len(trees))),
                "known_selectors": len(self.known),
                "head_tokens": lengths(list(map(len, heads))),
                "test_methods_too_long": as_dict(wilson(cut, len(bodies)))}

    def written(self, records: Sequence[MethodRecord], texts: Sequence[Written]) -> list[Method]:
        """What a model wrote behind the heads of some records, to be judged."""
        return [Method(self.tokenizer.decode(text.ids) if text.finished else None,
                       self.fields(record), len(text.ids) + text.finished)
                for record, text in zip(records, texts, strict=True)]


def sample(bench: Bench, model: DecoderLM | Counts, count: int, temperature: float = 1.0,
           constrained: bool = False, seed: int = 0, top_p: float | None = None
           ) -> tuple[list[Method], dict[str, Any]]:
    """Methods written behind the first `count` heads, and what that took.

    `bits_per_character` is how surprised the writer is by its own finished methods.

    Raises:   ValueError for more methods than the bench has heads
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    if not 0 < count <= len(bench.methods):
        raise ValueError(f"{count} methods were asked for, and the test projects have "
                         f"{len(bench.methods)} heads: ask for 1 to that many")
    records, begin = bench.methods[:count], time.process_time()
    rule = only_methods(bench.tokenizer, [bench.end]) if constrained else None
    texts = continue_all(model, [bench.head(each) for each in records], bench.window, [bench.end],
                         temperature, bench.hidden(), top_p, rule, seed=seed)
    seconds, methods = time.process_time() - begin, bench.written(records, texts)
    ended = [(text.bits, len(method.source) + 1) for text, method in zip(texts, methods,
                                                                       strict=True)
             if method.source is not None]
    return methods, {
        "seconds": seconds, "tokens_written": sum(len(text.ids) for text in texts),
        "refused_draws": sum(text.refused for text in texts),
        "given_up": sum(text.given_up for text in texts),
        "bits_per_character": sum(bits for bits, _ in ended) / sum(n for _, n in ended)
        if ended else None}


def judged(bench: Bench, methods: Sequence[Method], judges: dict[str, Judge]) -> dict[str, Any]:
    """Validity, lengths in tokens and every measure of some methods, each with its interval."""
    found = measure_methods(methods, bench.known)
    return {"validity": validity(methods, judges, bench.quartiles),
            "tokens": lengths([each.tokens for each in methods]),
            "measures": {name: pooled(shares) for name, shares in found.items()}}


def lengths(tokens: Sequence[int]) -> dict[str, float]:
    """The mean and some quantiles of lengths."""
    places = (10, 25, 50, 75, 90)
    return {"mean": float(np.mean(tokens)),
            **{f"p{at}": float(np.percentile(tokens, at)) for at in places}}


def written_classes(bench: Bench, model: DecoderLM | Counts, count: int, seed: int = 0
                    ) -> list[ClassMethods]:
    """The methods of the instances that a model writes one after the other behind each head.

    Each class has its own head; it ends where the model ends the document or its window is full.
    Only whole, valid methods count, and classes with two of them or more.
    """
    heads = _one_of_each(bench, count)
    begin = bench.tokenizer.special_tokens[parts.METHOD]
    stop = bench.tokenizer.special_tokens[parts.END_OF_TEXT]
    texts = continue_all(model, [bench.head(each) for each in heads], bench.window, [stop],
                         hidden=[each for each in bench.hidden(parts.METHOD) if each != stop],
                         seed=seed)
    return _with_trees(bench, heads, [[begin, *text.ids] for text in texts])


def written_alone(bench: Bench, model: DecoderLM | Counts, classes: Sequence[ClassMethods],
                  tries: int = 3, seed: int = 0) -> tuple[list[ClassMethods], list[ClassMethods]]:
    """The same number of methods behind the same heads, each without seeing the others.

    Returns the given classes and these, both cut to what `tries` draws for each method gave.
    """
    owners = [at for at, each in enumerate(classes) for _ in range(tries * len(each.methods))]
    texts = continue_all(model, [classes[at].head for at in owners], bench.window, [bench.end],
                         hidden=bench.hidden(), seed=seed)
    alone: list[list] = [[] for _ in classes]
    for at, text in zip(owners, texts, strict=True):
        tree = tree_of(bench.tokenizer.decode(text.ids)) if text.finished else None
        if tree and len(alone[at]) < len(classes[at].methods):
            alone[at].append(tree)
    pairs = [(each._replace(methods=each.methods[: len(other)]), each._replace(methods=other))
             for each, other in zip(classes, alone, strict=True) if len(other) > 1]
    return [own for own, _ in pairs], [other for _, other in pairs]


def peoples_classes(bench: Bench, count: int, seed: int = 0) -> list[ClassMethods]:
    """The same of what people wrote: the first document of each class, as training lays it out."""
    heads = _one_of_each(bench, count)
    wanted = {(each.project, each.class_name) for each in heads}
    own = [each for each in bench.methods
           if not each.class_side and (each.project, each.class_name) in wanted]
    found: dict[tuple[str, str], list[int]] = {}
    for head in heads:
        key = head.project, head.class_name
        documents = class_documents([bench.classes[key]], [each for each in own if (
            each.project, each.class_name) == key], bench.tokenizer, bench.window, 0.0, seed)
        found[key] = next(documents)
    return _with_trees(bench, heads, [found[each.project, each.class_name] for each in heads])


def _one_of_each(bench: Bench, count: int) -> list[MethodRecord]:
    """A method of the instances of each of the first `count` classes."""
    first: dict[tuple[str, str], MethodRecord] = {}
    for record in bench.methods:
        if not record.class_side and len(first) < count:
            first.setdefault((record.project, record.class_name), record)
    return list(first.values())


def _with_trees(bench: Bench, heads: Sequence[MethodRecord], documents: Sequence[Sequence[int]]
                ) -> list[ClassMethods]:
    begin, found = bench.tokenizer.special_tokens[parts.METHOD], []
    for head, ids in zip(heads, documents, strict=True):
        trees = [tree_of(bench.tokenizer.decode(ids[start : stop - 1]))
                 for start, stop in spans(ids, [begin], bench.end)]
        if len(trees := [tree for tree in trees if tree]) > 1:
            found.append(ClassMethods(bench.fields(head), trees, head.project, bench.head(head)))
    return found


def spans(ids: Sequence[int], starts: Collection[int], stop_id: int) -> list[tuple[int, int]]:
    """Where the methods of a document stand: behind a start id, up to and with the stop id."""
    found, begun = [], 0
    for at, token in enumerate(ids, 1):
        if token in starts:
            begun = at
        elif token == stop_id and begun:
            found.append((begun, at))
            begun = 0
    return found
