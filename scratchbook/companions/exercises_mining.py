"""The checks of chapter 06e's exercises: properties first, then the mistakes people make.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from scratchbook.runtime import named_generator
from scratchbook.teaching.answers import as_list, as_tensor, changes_its_input, counterexample, same
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw


def _causal(time: int, name: str) -> Tensor:
    scores = 2 * draw(time, time, name=name)
    return scores.masked_fill(torch.ones(time, time).triu(1).bool(), -torch.inf).softmax(-1)


def _ids(time: int, vocab: int, seed: int) -> list[int]:
    return torch.randint(vocab, (time,), generator=named_generator(seed, "ids")).tolist()


def _number(got: object) -> float | None:
    numbers = as_tensor(got)
    return None if numbers is None or numbers.shape != () else float(numbers)


# 06e.1 ---------------------------------------------------------------------------------------


def _mean(found: Sequence[float]) -> float:
    return sum(found) / len(found) if found else 0.0


def _pairs(ids: Sequence[int], shift: int = 1, first: bool = False, adjacent: bool = False
           ) -> list[tuple[int, int]]:
    """(query, key): `shift` places behind the last, or first, earlier copy of the query."""
    found = []
    for query, token in enumerate(ids):
        copies = [place for place in range(query) if ids[place] == token]
        if copies and (adjacent or copies[-1] + 1 < query):
            found.append((query, copies[0 if first else -1] + shift))
    return found


def _induction_score(attention: Tensor, ids: Sequence[int]) -> float:
    return _mean([float(attention[query, key]) for query, key in _pairs(ids)])


def _induction_mistakes(got: object, attention: Tensor, ids: list[int]) -> list[tuple[bool, str]]:
    def mean(pairs: list[tuple[int, int]], table: Tensor = attention) -> float:
        return _mean([float(table[query, key]) for query, key in pairs])

    right = _pairs(ids)
    everything = sum(float(attention[pair]) for pair in right)
    last = {token: place for place, token in enumerate(ids)}
    slips = {
        "this looks at the earlier copy itself: an induction head looks one place behind it":
            mean(_pairs(ids, 0)),
        "this looks one place before the copy, not behind it": mean(_pairs(ids, -1)),
        "this takes the first copy in the text: take the last one before the position":
            mean(_pairs(ids, first=True)),
        "this is 0: if the attention is read the wrong way round, that is the reason, for rows are "
        "the positions that look": mean(right, attention.T),
        "this is the sum: divide by how many positions take part": everything,
        "divided by all positions: those whose token is new do not take part":
            everything / len(ids),
        "a copy right before takes part here: behind it stands the token itself, so leave it out":
            mean(_pairs(ids, adjacent=True)),
        "where a copy stands right before, the position takes no part: an older copy is not the "
        "last": mean([(query, copies[-1] + 1) for query, token in enumerate(ids) if (
            copies := [place for place in range(query - 1) if ids[place] == token])]),
        "this looks for the next copy, which is in the future":
            mean([(query, min(last[token] + 1, len(ids) - 1))
                  for query, token in enumerate(ids)]),
    }
    found = [(same(got, wrong, 1e-5), message) for message, wrong in slips.items()]
    return [*found, (True, f"expected {mean(right):.5g}, got {got!r}")]


@exercise
def induction_score(answer: Callable) -> Iterator[Property]:
    """06e.1: how far one head looks behind the last copy."""
    attention, ids = _causal(12, "map"), [3, 5, 3, 3, 8, 5, 1, 3, 8, 9, 5, 5]
    changed = changes_its_input(answer, attention, ids)
    got = answer(attention.clone(), list(ids))
    yield expect("one number", _number(got) is not None,
                 (as_list(got) is not None, "return the mean over the positions, one number"),
                 (True, f"return one number, not {type(got).__name__}"))
    yield expect("its input is what it was", not changed, (True, "the map or the ids were changed"))
    if _number(got) is None:
        return
    perfect = torch.zeros(6, 6)
    perfect[:3, 0] = 1
    perfect[3, 1] = perfect[4, 2] = perfect[5, 3] = 1
    hand = answer(perfect.clone(), [1, 2, 3, 1, 2, 3])
    yield expect("1 for a perfect head on A B C A B C", same(hand, 1.0),
                 *_induction_mistakes(hand, perfect, [1, 2, 3, 1, 2, 3]))
    yield expect("the mean over a map with many copies",
                 same(got, _induction_score(attention, ids), 1e-5),
                 *_induction_mistakes(got, attention, ids))
    nothing = answer(_causal(4, "new"), [1, 2, 3, 4])
    yield expect("0 where no token comes twice", same(nothing, 0.0),
                 (True, f"expected 0, got {nothing!r}: no position takes part, so there is no mean "
                  "to take"))
    sharp = torch.eye(9)  # looks at itself, but for one position: many weights are 0
    sharp[5] = torch.eye(9)[3]
    inputs = [(_causal(1, "one"), [7]), (_causal(2, "two"), [7, 7]), (_causal(3, "3"), [7, 8, 7]),
              *((_causal(time, f"of {time}"), _ids(time, vocab, time))
                for time, vocab in ((5, 2), (9, 3), (20, 6), (33, 4), (40, 30))),
              (sharp, [1, 1, 2, 3, 4, 2, 3, 4, 5]),
              *((_causal(time, f"of {time}"), [4096 * token + 7 for token in _ids(time, 9, time)])
                for time in (12, 70, 130))]
    differs = counterexample(answer, _induction_score, inputs, 1e-5)
    yield expect("texts of any length", not differs, (True, differs))


# 06e.2 ---------------------------------------------------------------------------------------


def _swapped(differences: Sequence[float]) -> float:
    """All patterns of signs; the share whose sum is at least the one that was seen."""
    values = [float(each) for each in differences]
    sums = [sum(sign * value for sign, value in zip(signs, values, strict=True))
            for signs in itertools.product((1, -1), repeat=len(values))]
    seen = sum(values) - 1e-9
    return sum(each >= seen for each in sums) / len(sums)


def _fits_all(answers: Sequence[object], slips: Sequence[dict[str, object]], tolerance: float
              ) -> list[str]:
    """The mistakes that explain every answer of a check: one case alone may agree by chance."""
    return [message for message in slips[0] if all(
        same(got, wrong[message], tolerance) for got, wrong in zip(answers, slips, strict=True))]


def _swap_slips(values: Sequence[float]) -> dict[str, object]:
    patterns = list(itertools.product((1, -1), repeat=len(values)))
    sums = [sum(s * v for s, v in zip(signs, values, strict=True)) for signs in patterns]
    seen, count = sum(values), len(patterns)
    orders = [sum(order) >= seen - 1e-9 for order in itertools.permutations(values)] if len(
        values) < 7 else [True]
    unturned = sum(each >= seen - 1e-9 for signs, each in zip(patterns, sums, strict=True)
                   if signs[0] == 1) / (count // 2)
    return {
        "what was seen is taken without its sign: the question is how many sums are at least what "
        "was seen, sign and all": sum(each >= abs(seen) - 1e-9 for each in sums) / count,
        "the first difference keeps its sign: every text can be swapped": unturned,
        "only larger sums are counted: the pattern that was seen is as large as itself, and "
        "counts": sum(each > seen + 1e-9 for each in sums) / count,
        "this counts the sums that are as small or smaller: the question is whether the targets "
        "get more": sum(each <= seen + 1e-9 for each in sums) / count,
        "this counts both directions: the question is whether the targets get more, not whether "
        "they differ": sum(abs(each) >= abs(seen) - 1e-9 for each in sums) / count,
        "this is a number of patterns: divide by how many there are":
            sum(each >= seen - 1e-9 for each in sums),
        "this is one minus the p-value": 1 - sum(each >= seen - 1e-9 for each in sums) / count,
        "this is always 1: if the order was shuffled, that leaves the sum as it is; turn signs":
            sum(orders) / len(orders),
        "only the signs are counted, not how large the differences are":
            sum(sum(signs) >= sum(v > 0 for v in values) - sum(v < 0 for v in values)
                for signs in patterns) / count,
        "+1 above and below is for random patterns: here all are tried, and the one that was "
        "seen is among them": (sum(each >= seen - 1e-9 for each in sums) + 1) / (count + 1),
    }


@exercise
def swap_p_value(answer: Callable) -> Iterator[Property]:
    """06e.2: the null of "targets and rivals are alike", text by text."""
    changed = changes_its_input(answer, [0.5, -0.25, 1.0])
    got = answer([1.0, 2.0, 3.0])
    yield expect("one number", _number(got) is not None,
                 (True, f"return one number, not {type(got).__name__}"))
    yield expect("the differences are what they were", not changed,
                 (True, "the list was changed: make a new one"))
    if _number(got) is None:
        return
    cases = {"three texts in favour: 1 of 8 patterns": [1.0, 2.0, 3.0],
             "two for, one against": [1.0, 3.0, -2.5],
             "all against: every pattern is as large": [-1.0, -2.0, -0.5],
             "unlike sizes": [0.4, 0.1, -0.2, 0.9, -0.05]}
    answers = [answer(list(values)) for values in cases.values()]
    likely = _fits_all(answers, [_swap_slips(values) for values in cases.values()], 1e-7)
    for (what, values), got in zip(cases.items(), answers, strict=True):
        yield expect(what, same(got, _swapped(values), 1e-7), *((True, each) for each in likely),
                     (True, f"expected {_swapped(values):.6g}, got {got!r}"))
    inputs = [([0.3],), ([-0.3],), ([0.0],), ([0.5, 0.5],), ([0.5, -0.5],), ([2.0, -1.0, 0.0],),
              ([1.0, 1.0, 1.0, -1.0],),
              *((draw(count, name=f"gaps {count}").tolist(),) for count in (4, 6, 7, 9, 10))]
    equal = [([0.1, 0.2, -0.3],), ([0.7, -0.1, 0.3, -0.2],)]
    nearly = [([0.5, 2e-6],), ([0.3, -0.2, 2e-6, 0.1],)]
    some, ties, near = (counterexample(answer, _swapped, given, 1e-7)
                        for given in (inputs, equal, nearly))
    yield expect("any number of texts up to ten, and equal differences",
                 not (some or ties or near), (some, some),
                 (ties, ties + "; sums that are equal by hand may differ in their last digit: "
                  "subtract 1e-9 from what was seen"),
                 (True, near + "; only a last digit is to be forgiven, not a small difference"))


# 06e.3 ---------------------------------------------------------------------------------------


def _found(p_values: Sequence[float], level: float = 0.05) -> list[int]:
    order = sorted(range(len(p_values)), key=lambda head: p_values[head])
    kept = []
    for rank, head in enumerate(order):
        if p_values[head] > level / (len(order) - rank):
            break
        kept.append(head)
    return sorted(kept)


def _holm_slips(p: Sequence[float], level: float) -> dict[str, object]:
    count = len(p)
    order = sorted(range(count), key=lambda head: p[head])
    fits = [p[head] <= level / (count - rank) for rank, head in enumerate(order)]
    ranked = [p[head] <= level * (rank + 1) / count for rank, head in enumerate(order)]
    upward = order[: max((rank + 1 for rank, fit in enumerate(fits) if fit), default=0)]
    benjamini = order[: max((rank + 1 for rank, fit in enumerate(ranked) if fit), default=0)]
    right = _found(p, level)

    def walk(bound: Callable[[int], float]) -> list[int]:
        return sorted(itertools.takewhile(lambda head: p[head] <= bound(count - order.index(head)),
                                          order))

    return {
        "a p-value equal to its bound counts as found": [head for head in right if not any(
            same(p[head], level / (count - rank)) for rank in range(count))],
        "each p-value is compared with the level itself: with many heads some fall below it by "
        "chance": [head for head in range(count) if p[head] <= level],
        "every p-value is compared with level / m (Bonferroni): valid, but Holm compares the "
        "second smallest with level / (m - 1), and so on":
            [head for head in range(count) if p[head] <= level / count],
        "the walk did not stop: behind the first that fails, none is found":
            sorted(head for head, fit in zip(order, fits, strict=True) if fit),
        "one too many are taken to be left: count the one that is looked at, and those behind it":
            walk(lambda left: level / (left + 1)),
        "one too few are taken to be left: the one that is looked at counts too":
            walk(lambda left: level / max(1, left - 1)),
        "this is Šidák's bound, 1 - (1 - level) ** (1 / left), which needs more than Holm does "
        "about how the tests depend on each other": walk(
            lambda left: 1 - (1 - level) ** (1 / left)),
        "this walks from the largest down (Hochberg): it needs more than Holm does about how the "
        "tests depend on each other": sorted(upward),
        "this is Benjamini and Hochberg: it bounds the share of false finds, not the chance of "
        "one": sorted(benjamini),
        "the level is taken to be 0.05, whatever is given": _found(p, 0.05),
        "these are the heads that were not found": [h for h in range(count) if h not in right],
        "these are the p-values: return the numbers of the heads": [p[head] for head in right],
    }


def _right_but_unsorted(got: object, right: list[int]) -> bool:
    return isinstance(got, list) and None not in got and same(sorted(got), right)


@exercise
def heads_found(answer: Callable) -> Iterator[Property]:
    """06e.3: which heads are found, so that a false find among all of them stays rare."""
    def call(*given: object) -> object:
        got = answer(*given)
        items = as_list(got)
        return got if items is None else [_number(item) for item in items]

    changed = changes_its_input(answer, [0.2, 0.01, 0.03], 0.05)
    got = call([0.2, 0.01, 0.03], 0.05)
    yield expect("a list of heads", isinstance(got, list) and None not in got,
                 (True, "return the numbers of the heads that are found, as a list"))
    yield expect("the p-values are what they were", not changed,
                 (True, "the list of p-values was changed: sort a copy"))
    if not isinstance(got, list) or None in got:
        return
    cases = (("one test: the level itself", [0.04], 0.05),
             ("a hundred heads that do nothing", [(i + 0.5) / 100 for i in range(100)], 0.05),
             ("the second smallest against level / (m - 1)", [0.9, 0.012, 0.016, 0.8], 0.05),
             ("the smallest decides whether any is found",
              [0.012, 0.9, 0.011, 0.0105, 0.03, 0.0102, 0.045], 0.05),
             ("the walk stops at the first that fails", [0.03, 0.035, 0.04, 0.001], 0.05),
             ("in rising order", [0.009, 0.6, 0.001], 0.05),
             ("a bound that is met exactly", [0.0125, 0.6, 0.7, 0.8], 0.05),
             ("another level", [0.105, 0.6, 0.05, 0.162, 0.7, 0.3], 0.5))
    answers = [call(list(p), level) for _, p, level in cases]
    likely = _fits_all(answers, [_holm_slips(p, level) for _, p, level in cases], 1e-9)
    for (what, p, level), got in zip(cases, answers, strict=True):
        right = _found(p, level)
        unsorted = (_right_but_unsorted(got, right), "the right heads, but not in rising order: "
                    "sort them")
        yield expect(what, same(got, right), unsorted, *((True, each) for each in likely),
                     (True, f"expected {right}, got {got!r}"))
    small = [1e-6 * number for number in range(150, 0, -1)]
    inputs = [([], 0.05), ([0.05], 0.05), ([0.06], 0.05), ([0.02, 0.02], 0.05),
              ([0.03, 1e-05], 0.05), ([0.0, 0.01, 1.0], 0.0), ([0.01253, 0.6, 0.7, 0.8], 0.05),
              ([0.001, 0.02, 0.2], 0.01), ([0.004, 0.9], 0.001), ([1.0, 0.02, 0.9, 1.0], 0.05),
              ([0.03, 0.03], 0.05), ([0.0, 1.0, 0.0], 0.05),
              ([0.9, *(0.001 * i for i in range(1, 13))], 0.2), ([0.02, 0.01, 0.024, 0.049], 0.1),
              *(((draw(count, name=f"p {count}").abs() / 20).tolist(), 0.05)
                for count in (3, 5, 8, 13, 30)),
              ([*([0.5] * 50), *small], 0.05), ([*small, *([0.0003] * 120)], 0.05)]
    differs = counterexample(call, _found, inputs)
    yield expect("no test, ties, and many", not differs, (True, differs))
    got, explicit = call([0.2, 0.04, 0.01]), call([0.2, 0.04, 0.01], 0.05)
    yield expect("0.05 where no level is given", same(got, [2]),
                 (same(explicit, [2]), "give `level` the default 0.05"),
                 (True, f"expected [2], got {got!r}"))
