"""Written methods judged: are they valid, and what do they say beyond their syntax?

Every measure is a share of things that can be counted in one method or one class; shares are added
before they are divided, and an interval comes from redrawing the methods, or the classes. Each has
its definition beside it, in `DEFINITIONS`.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from scratchbook.evaluation.comparing import Interval, bootstrap, wilson
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.measures import (
    Share,
    block_parameters,
    coherence,
    is_trivial,
    known_sends,
    names_of,
    sends,
    unreachable,
)
from scratchbook.smalltalk.nodes import (
    AssignmentNode,
    BlockNode,
    CascadeNode,
    MessageNode,
    MethodNode,
    ReturnNode,
    VariableNode,
)
from scratchbook.smalltalk.parser import parse_method

Judge = Callable[[str], bool]
DEFINITIONS = {
    "known selectors": "messages whose selector some training method sends or implements",
    "known unary": "the same, of unary messages alone",
    "known binary": "the same, of binary messages alone",
    "known keyword": "the same, of keyword messages alone: a wrong number of arguments is "
                     "another, mostly unknown selector",
    "known in cascades": "the same, of all messages of a cascade, the first one too",
    "block parameters": "block literals with as many parameters as their message passes (do: one)",
    "declared names": "uses of names that the method, a block around, or the class declares; "
                      "a capital counts as declared",
    "temporaries used": "declared temporaries that the method reads or writes",
    "parameters kept": "assignments to something else than a parameter",
    "super to itself": "messages to super that have the method's own selector",
    "reachable": "methods without a statement behind a return",
    "returns": "methods with a return at their end",
    "with temporaries": "methods that declare temporaries",
    "with blocks": "methods with a block",
    "with cascades": "methods with a cascade",
    "trivial": "accessors, constants, empty methods",
}
COHERENCE = {
    "fields used": "declared variables of the class that some of its methods uses",
    "names declared": "uses of names that someone declares",
    "self answered": "messages to self that the same methods of the class implement",
    "selectors shared": "different selectors of a method that another of these methods sends too",
}


class Method(NamedTuple):
    """A method to be judged: None where it was not finished; `fields` are its class's variables."""

    source: str | None
    fields: tuple[str, ...] = ()
    tokens: int = 0


def tree_sitter_judge() -> Judge | None:
    """Whether the grammar of pharo-tree-sitter reads a method; None where it is not installed."""
    if any(find_spec(name) is None for name in ("tree_sitter", "tree_sitter_pharo")):
        return None
    tree_sitter, grammar = map(import_module, ("tree_sitter", "tree_sitter_pharo"))
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    return lambda source: not parser.parse(source.encode()).root_node.has_error


def tree_of(source: str | None) -> MethodNode | None:
    """The tree of a finished, valid method; else None."""
    try:
        return None if source is None else parse_method(source)
    except SmalltalkSyntaxError:
        return None


def as_dict(found: Interval, **more: Any) -> dict[str, Any]:
    """An interval as a record keeps it."""
    return {"value": found.value, "low": found.low, "high": found.high, **more}


def pooled(shares: Sequence[Share], seed: int = 0) -> dict[str, Any]:
    """Shares of methods, or of classes, added up; the interval redraws them.

    Where there is nothing to count, the values are None.
    """
    counts = np.array([each for each in shares if each.total], dtype=float).reshape(-1, 2)
    if not len(counts):
        return {"value": None, "low": None, "high": None, "count": 0, "total": 0}
    found = _redrawn(counts[:, 0] / counts[:, 1], counts[:, 1], seed)
    return as_dict(found, count=int(counts[:, 0].sum()), total=int(counts[:, 1].sum()))


def _redrawn(shares: np.ndarray, weights: Sequence[float], seed: int = 0) -> Interval:
    """A bootstrap; where all are 0 or all are 1, redrawing shows no doubt, and Wilson does."""
    if (shares == shares[0]).all() and shares[0] in (0, 1):
        return wilson(int(shares.sum()), len(shares))
    return bootstrap(shares, weights, seed=seed)


def pooled_difference(first: Sequence[Share], second: Sequence[Share], draws: int = 2000,
                      seed: int = 0) -> Interval:
    """The first share less the second, each redrawn; paired where they are equally many.

    Raises:   ValueError where one side has nothing to count
    """
    draw, sides, picks = np.random.default_rng(seed), [], None
    for shares in (first, second):
        counts = np.array(shares, dtype=float).reshape(-1, 2)
        if not counts[:, 1].sum():
            raise ValueError("a side has nothing to count: there is no difference")
        if picks is None or len(first) != len(second):
            picks = draw.integers(len(counts), size=(draws, len(counts)))
        taken = counts[picks].sum(1)  # (draws, 2)
        sides.append((counts[:, 0].sum() / counts[:, 1].sum(),
                      taken[:, 0] / np.maximum(taken[:, 1], 1)))
    low, high = np.quantile(sides[0][1] - sides[1][1], (0.025, 0.975))
    return Interval(float(sides[0][0] - sides[1][0]), float(low), float(high))


def validity(methods: Sequence[Method], judges: Mapping[str, Judge],
             quartiles: Sequence[float]) -> dict[str, Any]:
    """The share of methods that each judge accepts, by length, and where the judges differ.

    A method that was not finished is invalid. `quartiles` are three lengths in tokens, those of
    the training methods; `at_training_lengths` gives each quarter the weight that it has there.
    """
    verdicts = {name: [each.source is not None and judge(each.source) for each in methods]
                for name, judge in judges.items()}
    verdicts["all judges"] = [all(row) for row in zip(*verdicts.values(), strict=True)]
    quarters = [int(np.searchsorted(quartiles, each.tokens)) for each in methods]
    sizes = Counter(quarters)
    weights = [1 / sizes[quarter] for quarter in quarters]
    agreement = Counter(zip(*(verdicts[name] for name in judges), strict=True))
    return {
        "methods": len(methods), "unfinished": sum(each.source is None for each in methods),
        **{name: as_dict(wilson(sum(found), len(found)), passed=sum(found))
           for name, found in verdicts.items()},
        "by_quarter": {name: [_share(found, quarters, quarter) for quarter in range(4)]
                       for name, found in verdicts.items()},
        "at_training_lengths": {name: as_dict(_redrawn(np.array(found, float), weights))
                                for name, found in verdicts.items()},
        "agreement": [{**dict(zip(judges, row, strict=True)), "methods": count}
                      for row, count in sorted(agreement.items())]}


def _share(found: Sequence[bool], quarters: Sequence[int], wanted: int) -> dict[str, Any]:
    own = [each for each, quarter in zip(found, quarters, strict=True) if quarter == wanted]
    if not own:
        return {"value": None, "low": None, "high": None, "methods": 0}
    return as_dict(wilson(sum(own), len(own)), methods=len(own))


def measures_of(tree: MethodNode, fields: Iterable[str], known: frozenset[str]) -> dict[str, Share]:
    """Every measure of DEFINITIONS of one valid method."""
    names, nodes = names_of(tree, fields), list(tree.walk())
    temporaries = len(tree.temporaries) + sum(len(each.temporaries) for each in nodes
                                              if isinstance(each, BlockNode))
    assigned = sum(isinstance(each, AssignmentNode) for each in nodes)
    to_super = [selector for selector, receiver, _ in sends(tree)
                if isinstance(receiver, VariableNode) and receiver.name == "super"]
    in_cascades = [each.selector in known for each in nodes if isinstance(each, MessageNode)]
    has = {"returns": bool(tree.statements) and isinstance(tree.statements[-1], ReturnNode),
           "with temporaries": bool(temporaries), "trivial": is_trivial(tree),
           "with blocks": any(isinstance(each, BlockNode) for each in nodes),
           "with cascades": any(isinstance(each, CascadeNode) for each in nodes),
           "reachable": not unreachable(tree)}
    return {
        "known selectors": known_sends(tree, known), **_known_kinds(tree, known),
        "known in cascades": Share(sum(in_cascades), len(in_cascades)),
        "block parameters": block_parameters(tree), "declared names": names.declared_share,
        "temporaries used": Share(temporaries - len(names.unused), temporaries),
        "parameters kept": Share(assigned - len(names.assigned_parameters), assigned),
        "super to itself": Share(sum(each == tree.selector for each in to_super), len(to_super)),
        **{name: Share(int(value), 1) for name, value in has.items()}}


def _known_kinds(tree: MethodNode, known: frozenset[str]) -> dict[str, Share]:
    kinds = {name: Share(0, 0) for name in ("known unary", "known binary", "known keyword")}
    for selector, _, arguments in sends(tree):
        kind = ("known unary" if not arguments else "known keyword" if selector.endswith(":")
                else "known binary")
        kinds[kind] += Share(selector in known, 1)
    return kinds


def measure_methods(methods: Sequence[Method], known: frozenset[str]) -> dict[str, list[Share]]:
    """The shares of every method, by measure; those that are not valid count for nothing."""
    trees = [(tree_of(each.source), each.fields) for each in methods]
    rows = [measures_of(tree, fields, known) for tree, fields in trees if tree]
    return {name: [row[name] for row in rows] for name in DEFINITIONS}


def class_shares(fields: Sequence[str], methods: Sequence[MethodNode]) -> dict[str, Share]:
    """Every measure of COHERENCE of one class: the names of its variables, its methods' trees."""
    found = coherence(fields, methods)
    sent = [{selector for selector, _, _ in sends(method)} for method in methods]
    shared = Share(0, 0)
    for at, own in enumerate(sent):
        others = set().union(*sent[:at], *sent[at + 1 :])
        shared += Share(len(own & others), len(own))
    return dict(zip(COHERENCE, (*found, shared), strict=True))


class ClassMethods(NamedTuple):
    """Valid methods that stand behind one head, and the names of the class's variables."""

    fields: tuple[str, ...]
    methods: list[MethodNode]
    project: str
    head: list[int]


def shuffled(classes: Sequence[ClassMethods], seed: int = 0) -> list[ClassMethods]:
    """As many methods for each class, dealt out by chance among the classes of its project."""
    pools: dict[str, list[MethodNode]] = {}
    for each in classes:
        pools.setdefault(each.project, []).extend(each.methods)
    draw = random.Random(seed)
    for pool in pools.values():
        draw.shuffle(pool)
    return [each._replace(methods=[pools[each.project].pop() for _ in each.methods])
            for each in classes]


def measure_classes(classes: Sequence[ClassMethods]) -> dict[str, list[Share]]:
    """The shares of every class, by measure."""
    rows = [class_shares(each.fields, each.methods) for each in classes]
    return {name: [row[name] for row in rows] for name in COHERENCE}
