"""What counting and copying do with the text that the Smalltalk model learned from.

The rivals read the same tokens without holes, which suits them better: 2 % of the training methods
are kept from them, so that one table of counts serves as a rival, and tells how much harder an
unseen project is than unseen methods of known ones.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scratchbook.data.smalltalk_corpus import load_methods
from scratchbook.data.smalltalk_documents import FILES, pack_smalltalk
from scratchbook.data.token_files import read_tokens
from scratchbook.evaluation.comparing import Interval, bootstrap, verdict_on, wilson
from scratchbook.evaluation.counting import KneserNey, Retrieval
from scratchbook.evaluation.memorising import longest_overlaps
from scratchbook.evaluation.method_bench import Bench, spans
from scratchbook.evaluation.method_completion import (
    MOST_TOKENS,
    CopyingCounts,
    Cut,
    answers,
    cut_methods,
    method_bits,
    scores_of,
)
from scratchbook.evaluation.method_measures import Method, as_dict
from scratchbook.model import DecoderLM
from scratchbook.smalltalk import parts
from scratchbook.smalltalk.completing import Scores, without_thought
from scratchbook.smalltalk.preparing import content_hash
from scratchbook.smalltalk.viable import is_method
from scratchbook.smalltalk_model import settle

ORDERS = (5, 6, 7, 8)
TUNED_ON = 75   # documents of the validation projects, each with several methods
KEPT = 0.02     # of the training methods, from the rivals
SCORED = 600    # methods whose bits are counted
KINDS = Scores._fields
MODEL, COUNTING, COPYING, BOTH = "model", "Kneser-Ney", "retrieval", "Kneser-Ney with copying"
PROGRAM, PEOPLE = "a program of one line", "people"
Texts = tuple[list[list[int]], list[list[int]]]  # heads and bodies


@dataclass
class Rivals:
    """The tuned rivals, the model's training text, and the methods of it kept from them."""

    counts: KneserNey
    retrieval: Retrieval
    copying: CopyingCounts
    training: np.ndarray
    kept: Texts
    tuning: dict[int, float]
    methods: set[bytes]

    def completion(self, bench: Bench, model: DecoderLM, count: int
                   ) -> tuple[dict[str, Any], list[Cut]]:
        """Completion of the same cases by the model and every rival."""
        cuts, classes, left_out = cut_methods(bench, count, settle)
        scores = complete_all(bench, {MODEL: model, COUNTING: self.counts,
                                      COPYING: self.retrieval, BOTH: self.copying}, cuts)
        cases = [cut.case for cut in cuts]
        scores[PROGRAM] = scores_of(cases, [without_thought(case.begun) for case in cases])
        return {"cases": len(cuts), "classes": len(set(classes)), "too_long": left_out,
                "most_tokens": MOST_TOKENS,
                "rivals": {name: {kind: _share(found, kind) for kind in KINDS}
                           for name, found in scores.items()},
                "by_project": _by_project(scores, classes),
                "differences": {name: {kind: _gap(scores[MODEL], found, kind, classes)
                                       for kind in KINDS}
                                for name, found in scores.items() if name != MODEL}}, cuts


def train_rivals(bench: Bench, corpus: Path, plain: Path, seed: int = 0) -> Rivals:
    """Pack the training text without holes, keep some methods from it, count, tune."""
    pack_smalltalk(corpus, plain, bench.tokenizer, bench.window, fill_in_share=0.0)
    special, size = bench.tokenizer.special_tokens, bench.tokenizer.vocab_size
    training = np.array(read_tokens(plain / FILES["train"]).ids)
    ids, kept = without_some(training, (special[parts.METHOD], special[parts.CLASS_METHOD]),
                             bench.end, special[parts.END_OF_TEXT], KEPT, seed)
    held = [each.astype(int).tolist() for each in _some_documents(plain, TUNED_ON)]
    heads, bodies = _methods_of(held, bench)
    tuning, best = {}, None
    for order in ORDERS:
        counts = KneserNey(ids, size, order)
        bits = method_bits(counts, heads, bodies, bench.hidden())
        tuning[order] = sum(bits) / sum(bench.characters(bodies))
        if tuning[order] == min(tuning.values()):
            best = counts
        print("order", order, f"{tuning[order]:.4f} bits per character", flush=True)
    retrieval = Retrieval(ids)
    copying = CopyingCounts(best, retrieval).tune(held)
    methods = {content_hash(each.source) for each in load_methods(corpus / "train.jsonl")}
    return Rivals(best, retrieval, copying, training, kept, tuning, methods)


def without_some(ids: np.ndarray, starts: Sequence[int], end: int, last: int, share: float,
                 seed: int = 0) -> tuple[np.ndarray, Texts]:
    """Take a share of the methods, by chance, out of a row of documents; return both.

    Shapes:   ids (tokens,) -> (fewer,)
    """
    draw = np.random.default_rng(seed)
    begins = np.flatnonzero(np.isin(ids, starts))
    stops = np.flatnonzero(ids == end)
    stops = stops[np.searchsorted(stops, begins)] + 1  # of each method
    opened = np.r_[0, np.flatnonzero(ids == last) + 1]  # where documents begin
    opened = opened[np.searchsorted(opened, begins, side="right") - 1]
    chosen = np.flatnonzero(draw.random(len(begins)) < share)
    staying, heads, bodies = np.ones(len(ids), bool), [], []
    for begin, stop, first in zip(begins[chosen], stops[chosen], opened[chosen], strict=True):
        staying[begin:stop] = False
        head = ids[first : first + np.argmax(ids[first:stop] == end) + 1]
        known = first < begin and not np.isin(ids[first], starts)  # a definition, not a method
        heads.append([*(head.tolist() if known else []), int(ids[begin])])
        bodies.append(ids[begin + 1 : stop].tolist())
    return ids[staying], (heads, bodies)


def _some_documents(plain: Path, count: int, seed: int = 0) -> list[np.ndarray]:
    documents = list(read_tokens(plain / FILES["validation"]).documents())
    return random.Random(seed).sample(documents, min(count, len(documents)))


def _methods_of(documents: Sequence[list[int]], bench: Bench) -> Texts:
    """Every method of some documents behind all that stands before it."""
    starts = [bench.tokenizer.special_tokens[each] for each in (parts.METHOD, parts.CLASS_METHOD)]
    found = [(ids[:begin], ids[begin:stop]) for ids in documents
             for begin, stop in spans(ids, starts, bench.end)]
    return [head for head, _ in found], [body for _, body in found]


def complete_all(bench: Bench, rivals: Mapping[str, Any], cuts: Sequence[Cut]
                 ) -> dict[str, list[Scores]]:
    """The scores of every rival on the same cases."""
    return {name: scores_of([cut.case for cut in cuts],
                            answers(rival, bench.tokenizer, cuts, bench.end))
            for name, rival in rivals.items()}


def _share(scores: Sequence[Scores], kind: str) -> dict[str, Any]:
    right = sum(getattr(each, kind) for each in scores)
    return as_dict(wilson(right, len(scores)), right=right)


def _by_project(scores: Mapping[str, Sequence[Scores]], classes: Sequence[str]
                ) -> dict[str, dict[str, Any]]:
    """For each project its number of cases and everybody's share of right ones."""
    found = {}
    for project in sorted({name.split(" ")[0] for name in classes}):
        own = [at for at, name in enumerate(classes) if name.split(" ")[0] == project]
        found[project] = {"cases": len(own), "shares": {
            name: {kind: sum(getattr(each[at], kind) for at in own) / len(own) for kind in KINDS}
            for name, each in scores.items()}}
    return found


def _gap(ours: Sequence[Scores], theirs: Sequence[Scores], kind: str, classes: Sequence[str]
         ) -> dict[str, Any]:
    """Our share less theirs on the same cases; classes are redrawn, all their cases together."""
    rows: dict[str, list[int]] = {}
    for name, one, other in zip(classes, ours, theirs, strict=True):
        rows.setdefault(name, []).append(getattr(one, kind) - getattr(other, kind))
    found = bootstrap([np.mean(each) for each in rows.values()], [len(e) for e in rows.values()])
    return as_dict(found, verdict=verdict_on(found, "behind", "ahead"))


def surprise(bench: Bench, model: DecoderLM, rivals: Rivals) -> dict[str, Any]:
    """Bits per character of test methods, and how much the model's differ from the rivals'."""
    records = bench.methods[:SCORED]
    heads, bodies = bench.texts(records)
    sizes, classes = bench.characters(bodies), [f"{e.project} {e.class_name}" for e in records]
    bits = {name: method_bits(each, heads, bodies, bench.hidden()) for name, each in {
        MODEL: model, COUNTING: rivals.counts, BOTH: rivals.copying}.items()}
    return {"methods": len(records), "characters": sum(sizes),
            "bits_per_character": {name: as_dict(_by_class(each, sizes, classes))
                                   for name, each in bits.items()},
            "by_project": {name: _rates(each, sizes, [r.project for r in records])
                           for name, each in bits.items()},
            "differences": {name: _surprise_gap(bits[MODEL], bits[name], sizes, classes)
                            for name in (COUNTING, BOTH)},
            "orders": {str(order): value for order, value in rivals.tuning.items()},
            "trust": {str(length): value for length, value in rivals.copying.trust.items()},
            "own_trust": {str(length): value
                          for length, value in rivals.copying.own_trust.items()},
            "cached": rivals.copying.cached}


def _surprise_gap(ours: Sequence[float], theirs: Sequence[float], sizes: Sequence[int],
                  classes: Sequence[str]) -> dict[str, Any]:
    found = _by_class([a - b for a, b in zip(ours, theirs, strict=True)], sizes, classes)
    return as_dict(found, verdict=verdict_on(found))


def _by_class(bits: Sequence[float], sizes: Sequence[int], classes: Sequence[str]) -> Interval:
    """Bits over characters; whole classes are redrawn."""
    costs, lengths = _sums(bits, sizes, classes)
    return bootstrap(costs / lengths, lengths)


def _sums(bits: Sequence[float], sizes: Sequence[int], classes: Sequence[str]) -> np.ndarray:
    """The bits and the characters of each class, (2, classes)."""
    sums: dict[str, list[float]] = {}
    for name, cost, size in zip(classes, bits, sizes, strict=True):
        own = sums.setdefault(name, [0.0, 0.0])
        own[0], own[1] = own[0] + cost, own[1] + size
    return np.array(list(sums.values())).T


def _rates(bits: Sequence[float], sizes: Sequence[int], owners: Sequence[str]) -> dict[str, float]:
    """Bits per character of each owner."""
    costs, lengths = _sums(bits, sizes, owners)
    return dict(zip(dict.fromkeys(owners), (costs / lengths).tolist(), strict=True))


def random_split(bench: Bench, rivals: Rivals) -> dict[str, Any]:
    """How much harder test projects are for counting than methods kept from known projects."""
    draw = random.Random(0)
    chosen = draw.sample(range(len(rivals.kept[0])), min(SCORED, len(rivals.kept[0])))
    heads, bodies = ([side[at] for at in chosen] for side in rivals.kept)
    kept = heads, [body[: bench.window - len(head)]
                   for head, body in zip(heads, bodies, strict=True)]
    # a class is told by its definition; where a document has none, each method is one of its own
    kept_classes = [str(head[:-1] or at) for at, head in enumerate(heads)]
    records = bench.methods[:SCORED]
    classes = [f"{each.project} {each.class_name}" for each in records]
    count, rates = {}, {}
    for name, (heads, bodies), owners in (("random split", kept, kept_classes),
                                          ("unseen projects", bench.texts(records), classes)):
        bits = method_bits(rivals.counts, heads, bodies, bench.hidden())
        count[name], rates[name] = len(bits), _sums(bits, bench.characters(bodies), owners)
    return {"share_kept": KEPT, "methods": count,
            "bits_per_character": {name: as_dict(bootstrap(costs / sizes, sizes))
                                   for name, (costs, sizes) in rates.items()},
            "unseen_less_random": _unpaired(rates["unseen projects"], rates["random split"])}


def _unpaired(first: Sequence, second: Sequence, draws: int = 2_000, seed: int = 0,
              words: Sequence[str] = ("easier", "harder")) -> dict[str, Any]:
    """Difference of two ratios of sums, each side redrawn for itself."""
    draw, sides = np.random.default_rng(seed), []
    for tops, bottoms in (first, second):
        tops, bottoms = np.array(tops), np.array(bottoms)
        picks = draw.integers(len(tops), size=(draws, len(tops)))
        sides.append((tops.sum() / bottoms.sum(), tops[picks].sum(1) / bottoms[picks].sum(1)))
    low, high = np.quantile(sides[0][1] - sides[1][1], (0.025, 0.975))
    found = Interval(float(sides[0][0] - sides[1][0]), float(low), float(high))
    return as_dict(found, verdict=verdict_on(found, *words))


def copied(bench: Bench, written: Mapping[str, Sequence[Method]], rivals: Rivals
           ) -> dict[str, Any]:
    """The longest stretch of each valid method that the training text has, by writer and length.

    `less_people` is the share of the model's methods less that of people's, of each quarter.
    """
    rows = [(name, each) for name, methods in written.items() for each in methods
            if each.source is not None and is_method(each.source)]
    texts = [bench.tokenizer.encode_ordinary(each.source) for _, each in rows]
    found = longest_overlaps(texts, rivals.training)
    table: dict[str, list[dict[str, Any]]] = {name: [] for name in written}
    for (name, method), ids, run in zip(rows, texts, found, strict=True):
        own = bench.tokenizer.decode(ids[run.start : run.start + run.length])
        table[name].append({
            "tokens": len(ids), "run": run.length, "run_characters": len(own), "text": own,
            "share": run.length / max(1, len(ids)),
            "word_for_word": content_hash(method.source) in rivals.methods,
            "quarter": int(np.searchsorted(bench.quartiles, method.tokens))})
    found = {name: copies(own) for name, own in table.items() if own}
    for name in found.keys() - {PEOPLE}:
        found[name]["less_people"] = [
            _less(*([row["share"] for row in table[side] if row["quarter"] == quarter]
                    for side in (name, PEOPLE))) for quarter in range(4)]
    return found


def _less(first: Sequence[float], second: Sequence[float]) -> dict[str, Any] | None:
    """The mean of one side less that of the other; None where a side has nothing."""
    if not first or not second:
        return None
    return _unpaired(*((each, np.ones(len(each))) for each in (first, second)), words=())


def copies(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of some methods: how long the copied stretches are, and how many stand there as a whole."""
    def account(some: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if not some:
            return {"methods": 0}
        whole = sum(each["word_for_word"] for each in some)
        return {"methods": len(some), "word_for_word": as_dict(wilson(whole, len(some))),
                "run": as_dict(bootstrap([each["run"] for each in some])),
                "run_characters": as_dict(bootstrap([each["run_characters"] for each in some])),
                "share": as_dict(bootstrap([each["share"] for each in some]))}

    longest = max(rows, key=lambda each: each["run"])
    return account(rows) | {
        "p50": float(np.percentile([each["run"] for each in rows], 50)),
        "p90": float(np.percentile([each["run"] for each in rows], 90)),
        "longest": {name: longest[name] for name in ("tokens", "run", "run_characters", "text")},
        "by_quarter": [account([each for each in rows if each["quarter"] == quarter])
                       for quarter in range(4)]}
