"""Foreseen wrong answers of chapter 07b: (answer, a piece of its message)."""


# 07b.1
def _read(start=lambda length, cached: min(cached, length - 1), shift=0, swap=False):
    def what_to_read(ids, cached):
        begin = max(start(len(ids), cached), 0)
        found = ids[begin:], list(range(begin + shift, len(ids) + shift))
        return found[::-1] if swap else found
    return what_to_read


def fresh_positions(ids, cached):
    tokens, _ = _read()(ids, cached)
    return tokens, list(range(len(tokens)))


def pops_the_ids(ids, cached):
    start = min(cached, len(ids) - 1)
    del ids[:start]
    return ids, list(range(start, start + len(ids)))


def short_texts(ids, cached):
    return _read(lambda length, cached: min(cached, length - 1, 99))(ids, cached)


def finds_by_value(ids, cached):
    start = min(cached, len(ids) - 1)
    return ids[start:], [ids.index(token) for token in ids[start:]]


def drops_zeros(ids, cached):
    tokens, places = _read()(ids, cached)
    return [token for token in tokens if token], places


def sorts_the_ids(ids, cached):
    found = _read()(ids, cached)
    ids.sort()
    return found


def empties_long_texts(ids, cached):
    found = _read()(ids, cached)
    if len(ids) > 10:
        ids.clear()
    return found


# 07b.2
def _admit(overtake=False, blocks_of=lambda length, size: -(-length // size), newest=False,
           held_first=False, may_evict=True, strict=False, limit=True):
    def admit(waiting, places, free, unheld, size):
        names, empty, taken, count = list(unheld)[:: -1 if newest else 1], [None] * free, [], 0
        pool = [*names, *empty] if held_first else [*empty, *names * may_evict]
        for length in waiting:
            if limit and count == places:
                break
            blocks = blocks_of(length, size)
            if blocks + strict <= len(pool):
                count += 1
                taken += pool[:blocks]
                del pool[:blocks]
            elif not overtake:
                break
        return count, [name for name in taken if name is not None]
    return admit


def evicts_all(waiting, places, free, unheld, size):
    return _admit()(waiting, places, free, unheld, size)[0], list(unheld)


def backwards(waiting, places, free, unheld, size):
    admitted, evicted = _admit()(waiting, places, free, unheld, size)
    return admitted, evicted[::-1]


def empties_the_list(waiting, places, free, unheld, size):
    admitted, evicted = _admit()(waiting, places, free, unheld, size)
    del unheld[: len(evicted)]
    return admitted, evicted


def counts_the_first_alone(waiting, places, free, unheld, size):
    admitted, evicted = _admit()(waiting[:1], places, free, unheld, size)
    return admitted, evicted


def at_most_three_places(waiting, places, free, unheld, size):
    return _admit()(waiting, min(places, 3), free, unheld, size)


def at_most_eight_free(waiting, places, free, unheld, size):
    return _admit()(waiting, places, min(free, 8), unheld, size)


def four_in_line(waiting, places, free, unheld, size):
    return _admit()(waiting[:4], places, free, unheld, size)


def names_in_order(waiting, places, free, unheld, size):
    return _admit()(waiting, places, free, sorted(unheld), size)


def the_names_of_the_check(*given):
    admitted, evicted = _admit()(*given)
    return admitted, list("abcdefgh"[: len(evicted)])


def size_of_four_for_one(waiting, places, free, unheld, size):
    return _admit()(waiting, places, free, unheld, 4 if len(waiting) == 1 else size)


def forgets_what_it_evicted(waiting, places, free, unheld, size):
    admitted, evicted = 0, 0
    for length in waiting[:places]:
        blocks = -(-length // size)
        if blocks > free + len(unheld):
            break
        admitted, evicted = admitted + 1, evicted + max(blocks - free, 0)
        free = max(free - blocks, 0)
    return admitted, unheld[:evicted]


# 07b.3
def _after(kept=lambda p, q, u: u * q < p, left=lambda a, b: max(a - b, 0), scale=True):
    def after_guess(p, q, guess, u):
        if kept(p[guess], q[guess], u):
            return [float(token == guess) for token in range(len(p))]
        found = [left(a, b) for a, b in zip(p, q, strict=True)]
        total = sum(found) if scale else 1
        return [each / total for each in found] if total else found
    return after_guess


def p_without_the_guess(p, q, guess, u):
    if u * q[guess] < p[guess]:
        return [float(token == guess) for token in range(len(p))]
    left = [0.0 if token == guess else a for token, a in enumerate(p)]
    return [each / sum(left) for each in left]


def writes_into_p(p, q, guess, u):
    for token in range(len(p)):
        p[token] = max(p[token] - q[token], 0)
    return p


def mixes_both(p, q, guess, u):
    share = min(1, p[guess] / q[guess])
    left = [max(a - b, 0) for a, b in zip(p, q, strict=True)]
    total = sum(left) or 1
    return [share * (token == guess) + (1 - share) * each / total
            for token, each in enumerate(left)]


def the_likeliest_alone(*given):
    found = _after()(*given)
    return [float(token == found.index(max(found))) for token in range(len(found))]


# 07b.4
def _mask(trailing=False, empty=True, comma=False, numbers=False, two=False, loose=False,
          bare=False, end=lambda text, state: state == (0, "after"), look=lambda token: token,
          alone=False):
    def read(written):
        depth, last = 0, "value"
        for c in written:
            begins = last != "after" or loose or (two and not depth)
            if c == "[" and begins:
                depth, last = depth + 1, "first"
            elif c in "0123456789" and (depth or bare) and (begins or numbers):
                last = "after"
            elif c == "]" and depth and (last == "after" or (last == "first" and empty)
                                         or (last == "value" and trailing)):
                depth, last = depth - 1, "after"
            elif c == "," and depth and (last == "after" or (last == "first" and comma)):
                last = "value"
            else:
                return None
        return depth, last

    def list_mask(text, tokens):
        return [read(("" if alone else text) + look(token)) is not None if token
                else end(text, read(text)) for token in tokens]
    return list_mask


def brackets_alone(text, tokens):
    return [all((text + token)[:n].count("[") >= (text + token)[:n].count("]")
                for n in range(len(text + token) + 1)) for token in tokens]


def depth_of_nine(text, tokens):
    right = _mask()(text, tokens)
    return [some and (text + token).count("[") < 10
            for some, token in zip(right, tokens, strict=True)]


def any_digit(text, tokens):
    return [some or token == "½" for some, token in
            zip(_mask()(text, tokens), tokens, strict=True)]


def without_eights(text, tokens):
    return [some and "8" not in token for some, token in
            zip(_mask()(text, tokens), tokens, strict=True)]


def short_lists(text, tokens):
    return [some and (text + token).count(",") < 9 for some, token in
            zip(_mask()(text, tokens), tokens, strict=True)]


WRONG = {
    "what_to_read": [
        (_read(lambda length, cached: cached), "nothing is read where all is cached"),
        (_read(lambda length, cached: min(cached, length) - 1), "read twice"),
        (_read(lambda length, cached: min(cached + 1, length - 1)), "one token is left out"),
        (_read(lambda length, cached: length - 1), "only the last token is read"),
        (_read(lambda length, cached: 0), "everything is read again"),
        (_read(shift=1), "one too high"), (_read(swap=True), "the right way round"),
        (fresh_positions, "begin at 0 again"), (pops_the_ids, "the list of ids was changed"),
        (drops_zeros, "for ([0, 5, 0]"), (sorts_the_ids, "the list of ids was changed"),
        (empties_long_texts, "the list of ids was changed"),
        (short_texts, "for ([9, 9, 9"), (finds_by_value, "for ([9, 9]"),
        (lambda ids, cached: ids[cached:], "return two lists"),
    ],
    "admit": [
        (_admit(overtake=True), "overtakes"),
        (_admit(blocks_of=lambda length, size: length // size), "round up"),
        (_admit(blocks_of=lambda length, size: length // size + 1), "needs no further one"),
        (_admit(blocks_of=lambda length, size: length), "divide by the size of a block"),
        (_admit(newest=True), "the wrong end is evicted"),
        (_admit(held_first=True), "while there are empty ones"),
        (_admit(may_evict=False), "nothing is ever evicted"),
        (_admit(strict=True), "the very last block fits"),
        (_admit(limit=False), "there are not so many places"),
        (evicts_all, "only as many as are needed"), (backwards, "the order in which it goes"),
        (empties_the_list, "a list that was given is changed"),
        (counts_the_first_alone, "expected (2, "),
        (at_most_three_places, "for (["), (at_most_eight_free, "for (["),
        (four_in_line, "for (["), (names_in_order, "for (["), (the_names_of_the_check, "for (["),
        (size_of_four_for_one, "for (["), (forgets_what_it_evicted, "for (["),
        (_admit(blocks_of=lambda length, size: round(length / size + 0.499)), "for (["),
        (lambda *given: (bool(_admit()(*given)[0]), _admit()(*given)[1]), "how many are let in"),
        (lambda *given: 2, "return how many are let in"),
    ],
    "after_guess": [
        (_after(kept=lambda p, q, u: True), "kept, though the guess should be refused"),
        (_after(kept=lambda p, q, u: False), "refused, though the guess should be kept"),
        (_after(kept=lambda p, q, u: u < p), "refused, though"),
        (_after(kept=lambda p, q, u: u * p < q), "kept, though"),
        (_after(left=lambda a, b: a), "p itself is drawn from"),
        (_after(left=lambda a, b: max(b - a, 0)), "what q has too much of"),
        (_after(left=lambda a, b: abs(a - b)), "count as nothing"),
        (_after(scale=False), "do not sum to 1"), (_after(left=lambda a, b: b), "q is drawn from"),
        (p_without_the_guess, "take away all of q"), (writes_into_p, "p or q was changed"),
        (_after(kept=lambda p, q, u: u * q < p * 1.1), "for ([0."),
        (mixes_both, "u is not used"), (the_likeliest_alone, "for (["),
        (lambda p, q, guess, u: guess, "a probability for each token"),
    ],
    "list_mask": [
        (_mask(trailing=True), "a comma before a closing bracket"),
        (_mask(empty=False), "the empty list"), (_mask(comma=True), "behind an opening bracket"),
        (_mask(numbers=True), "two digits in a row"), (_mask(two=True), "a second list"),
        (_mask(loose=True), "a value right behind a value"), (_mask(bare=True), "a number alone"),
        (_mask(end=lambda text, state: True), "the end is allowed too early"),
        (_mask(end=lambda text, state: False), "the end is never allowed"),
        (_mask(end=lambda text, state: state[0] == 0), "nothing is no list"),
        (_mask(look=lambda token: token[:1]), "only the first character"),
        (_mask(alone=True), "each token is read alone"),
        (brackets_alone, "wrong for the tokens"), (depth_of_nine, "'[[[[[[[[["),
        (without_eights, "for ('['"), (short_lists, "'[1,1,1"),
        (any_digit, "expected ["), (lambda text, tokens: len(tokens), "True or False"),
    ],
}
