"""Wrong answers to the exercises of chapter 06e, and what the check must say to each."""

from __future__ import annotations

import itertools
import random


# 06e.1
def _score(place=lambda copies, query: copies[-1] + 1, mean=lambda found, ids: sum(found) / len(
        found) if found else 0.0, adjacent=False, turned=False):
    def induction_score(attention, ids):
        found = []
        for query, token in enumerate(ids):
            copies = [p for p in range(query) if ids[p] == token]
            if copies and (adjacent or copies[-1] + 1 < query):
                pair = (query, place(copies, query))
                found.append(float(attention[pair[::-1] if turned else pair]))
        return mean(found, ids)
    return induction_score


def divides_by_nothing(attention, ids):
    return _score(mean=lambda found, ids: sum(found) / len(found))(attention, ids)


def nan_for_nothing(attention, ids):
    return _score(mean=lambda found, ids: sum(found) / len(found) if found else float("nan"))(
        attention, ids)


def writes_into_the_map(attention, ids):
    attention *= 1.5
    return 0.0


def largest_weight(attention, ids):
    return float(attention.max())


def small_vocabulary(attention, ids):
    return _score()(attention, [token % 8 for token in ids])


def older_copy(attention, ids):
    found = [float(attention[query, copies[-1] + 1]) for query, token in enumerate(ids)
             if (copies := [p for p in range(query - 1) if ids[p] == token])]
    return sum(found) / len(found) if found else 0.0


def weights_of_zero_left_out(attention, ids):
    return _score(mean=lambda found, ids: sum(found) / max(1, sum(w > 0 for w in found)))(
        attention, ids)


def is_instead_of_equals(attention, ids):
    found = []
    for query, token in enumerate(ids):
        copies = [p for p in range(query) if ids[p] is token]
        if copies and copies[-1] + 1 < query:
            found.append(float(attention[query, copies[-1] + 1]))
    return sum(found) / len(found) if found else 0.0


def few_ids(attention, ids):
    return _score()(attention, [token % 64 for token in ids])


def short_texts(attention, ids):
    return _score()(attention, ids[:64])


# 06e.2
def _swap(counts=lambda total, seen: total >= seen - 1e-9, share=lambda hits, count: hits / count):
    def swap_p_value(differences):
        patterns = list(itertools.product((1, -1), repeat=len(differences)))
        sums = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in patterns]
        return share(sum(counts(total, sum(differences)) for total in sums), len(patterns))
    return swap_p_value


def signs_alone(differences):
    return _swap()([(d > 0) - (d < 0) for d in differences])


def shuffles(differences):
    orders = list(itertools.permutations(differences))[:5000]
    return sum(sum(order) >= sum(differences) - 1e-9 for order in orders) / len(orders)


def draws_some(differences):
    draw = random.Random(0)
    sums = [sum(draw.choice((1, -1)) * d for d in differences) for _ in range(200)]
    return (sum(total >= sum(differences) - 1e-9 for total in sums) + 1) / 201


def no_slack(differences):
    return _swap(lambda total, seen: total >= seen)([-d for d in differences][::-1])


def sorts_in_place(differences):
    differences.sort()
    return _swap()(differences)


def eight_texts(differences):
    return _swap()(differences[:8])


# 06e.3
def _walk(bound=lambda level, count, rank: level / (count - rank), stop=True,
          fails=lambda p, bound: p > bound, out=sorted):
    def heads_found(p_values, level=0.05):
        order = sorted(range(len(p_values)), key=lambda head: p_values[head])
        kept = []
        for rank, head in enumerate(order):
            if not fails(p_values[head], bound(level, len(order), rank)):
                kept.append(head)
            elif stop:
                break
        return out(kept)
    return heads_found


def hochberg(p_values, level=0.05):
    order = sorted(range(len(p_values)), key=lambda head: p_values[head])
    for rank in reversed(range(len(order))):
        if p_values[order[rank]] <= level / (len(order) - rank):
            return sorted(order[: rank + 1])
    return []


def benjamini_hochberg(p_values, level=0.05):
    order = sorted(range(len(p_values)), key=lambda head: p_values[head])
    for rank in reversed(range(len(order))):
        if p_values[order[rank]] <= level * (rank + 1) / len(order):
            return sorted(order[: rank + 1])
    return []


def not_found(p_values, level=0.05):
    right = _walk()(p_values, level)
    return [head for head in range(len(p_values)) if head not in right]


def p_values_themselves(p_values, level=0.05):
    return [p_values[head] for head in _walk()(p_values, level)]


def sorted_in_place(p_values, level=0.05):
    p_values.sort()
    return _walk()(p_values, level)


def always_five_percent(p_values, level=0.05):
    return _walk()(p_values, 0.05)


def default_of_one_percent(p_values, level=0.01):
    return _walk()(p_values, level)


def sorted_as_text(p_values, level=0.05):
    order = sorted(range(len(p_values)), key=lambda head: str(p_values[head]))
    fits = [p_values[h] <= level / (len(order) - rank) for rank, h in enumerate(order)]
    return sorted(order[: [*fits, False].index(False)])


def level_of_a_fifth_at_most(p_values, level=0.05):
    return _walk()(p_values, min(level, 0.2))


def level_never_zero(p_values, level=0.05):
    return _walk()(p_values, level or 0.05)


def likely_nulls_are_no_tests(p_values, level=0.05):
    tests = [head for head, p in enumerate(p_values) if p <= 0.5]
    return [tests[number] for number in _walk()([p_values[head] for head in tests], level)]


def hundred_heads(p_values, level=0.05):
    return _walk()(p_values[:100], level)


def ten_heads(p_values, level=0.05):
    return [head for head in _walk()(p_values, level) if head < 10]


WRONG = {
    "induction_score": [
        (_score(lambda copies, query: copies[-1]), "looks at the earlier copy itself"),
        (_score(lambda copies, query: copies[-1] - 1), "one place before the copy"),
        (_score(lambda copies, query: copies[0] + 1), "takes the first copy"),
        (_score(turned=True), "the wrong way round"),
        (_score(mean=lambda found, ids: sum(found)), "this is the sum"),
        (_score(mean=lambda found, ids: sum(found) / len(ids)), "divided by all positions"),
        (_score(mean=lambda found, ids: found), "return the mean over the positions"),
        (_score(adjacent=True), "a copy right before takes part"),
        (divides_by_nothing, "ZeroDivisionError"), (nan_for_nothing, "no position takes part"),
        (writes_into_the_map, "were changed"), (largest_weight, "expected 0.15146, got 1.0"),
        (small_vocabulary, "for (a tensor of shape"),
        (older_copy, "an older copy is not the last"),
        (weights_of_zero_left_out, "[1, 1, 2, 3, 4, 2, 3, 4, 5])"),
        (is_instead_of_equals, "(12, 12)"), (few_ids, "(12, 12)"), (short_texts, "(70, 70)"),
    ],
    "swap_p_value": [
        (_swap(lambda total, seen: total > seen + 1e-9), "only larger sums are counted"),
        (_swap(lambda total, seen: total <= seen + 1e-9), "as small or smaller"),
        (_swap(lambda total, seen: abs(total) >= abs(seen) - 1e-9), "both directions"),
        (_swap(share=lambda hits, count: hits), "divide by how many there are"),
        (_swap(share=lambda hits, count: 1 - hits / count), "one minus the p-value"),
        (_swap(share=lambda hits, count: (hits + 1) / (count + 1)), "+1 above and below"),
        (signs_alone, "only the signs are counted"), (shuffles, "the order was shuffled"),
        (draws_some, "expected 0.125"), (sorts_in_place, "the list was changed"),
        (_swap(lambda total, seen: total >= seen), "may differ in their last digit"),
        (lambda differences: differences, "return one number"),
        (_swap(lambda total, seen: total >= seen - 1e-3), "not a small difference"),
        (_swap(lambda total, seen: round(total, 3) >= round(seen, 3)), "not a small difference"),
        (_swap(lambda total, seen: total >= abs(seen) - 1e-9), "without its sign"),
        (eight_texts, "any number of texts"),
    ],
    "heads_found": [
        (_walk(lambda level, count, rank: level), "compared with the level itself"),
        (_walk(lambda level, count, rank: level / count), "Bonferroni"),
        (_walk(stop=False), "the walk did not stop"), (hochberg, "Hochberg"),
        (benjamini_hochberg, "Benjamini and Hochberg"),
        (_walk(fails=lambda p, bound: p >= bound), "equal to its bound counts as found"),
        (not_found, "not found"), (p_values_themselves, "these are the p-values"),
        (sorted_in_place, "was changed"), (_walk(out=lambda kept: kept), "sort them"),
        (always_five_percent, "the level is taken to be 0.05"),
        (default_of_one_percent, "the default 0.05"), (ten_heads, "for ([0.9, 0.001"),
        (lambda p_values, level=0.05: len(p_values), "as a list"),
        (_walk(lambda level, count, rank: level / (count - rank + 1)), "one too many are taken"),
        (_walk(lambda level, count, rank: level / max(1, count - rank - 1)), "one too few"),
        (_walk(lambda level, count, rank: 1 - (1 - level) ** (1 / (count - rank))), "Šidák"),
        (_walk(fails=lambda p, bound: p - 1e-4 > bound), "for ([0.01253"),
        (sorted_as_text, "for ([0.03, 1e-05]"), (level_never_zero, "for ([0.0, 0.01, 1.0], 0)"),
        (level_of_a_fifth_at_most, "another level"),
        (likely_nulls_are_no_tests, "for ([0.01253"),
        (hundred_heads, "for ([0.5, 0.5"),
    ],
}
