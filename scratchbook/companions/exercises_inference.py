"""The checks of chapter 07b's exercises: properties first, then the mistakes people make.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch

from scratchbook.runtime import named_generator
from scratchbook.teaching.answers import as_list, changes_its_input, counterexample, same
from scratchbook.teaching.checking import Property, exercise, expect


def _pair(got: object) -> list | None:
    """Two things, each of them as it is."""
    items = as_list(got)
    return items if items is not None and len(items) == 2 else None


def _two_lists(got: object) -> list | None:
    items = _pair(got)
    lists = [as_list(each) for each in items or ()]
    return lists if lists and None not in lists else None


# 07b.1 ---------------------------------------------------------------------------------------


def _what_to_read(ids: Sequence[int], cached: int, start: Callable | None = None,
                  shift: int = 0) -> tuple[list[int], list[int]]:
    begin = min(cached, len(ids) - 1) if start is None else start(len(ids), cached)
    begin = max(begin, 0)
    return list(ids[begin:]), list(range(begin + shift, len(ids) + shift))


READ_SLIPS: dict[str, dict] = {
    "nothing is read where all is cached: the scores of the next token come from reading the last "
    "one, so that one is read again": {"start": lambda length, cached: cached},
    "one token is read twice: its keys would stand in the cache two times":
        {"start": lambda length, cached: min(cached, length) - 1},
    "one token is left out: the first unread one stands at place `cached`, for counting begins at "
    "0": {"start": lambda length, cached: min(cached + 1, length - 1)},
    "only the last token is read: behind a new prompt many are unread":
        {"start": lambda length, cached: length - 1},
    "everything is read again, whatever is cached": {"start": lambda length, cached: 0},
    "the positions are one too high: counting begins at 0": {"shift": 1},
}


def _read_mistakes(got: object, ids: list[int], cached: int) -> list[tuple[bool, str]]:
    right = _what_to_read(ids, cached)
    fresh = (right[0], list(range(len(right[0]))))
    slips = {message: _what_to_read(ids, cached, **slip) for message, slip in READ_SLIPS.items()}
    slips["the positions begin at 0 again: a token stands where it stands in the whole text"] = (
        fresh)
    slips["the right way round is: tokens, positions"] = right[::-1]
    found = [(same(got, wrong) and not same(wrong, right), message)
             for message, wrong in slips.items()]
    return [*found, (True, f"for {ids} with {cached} cached expected {right}, got {got!r}")]


@exercise
def what_to_read(answer: Callable) -> Iterator[Property]:
    """07b.1: which tokens a model must read, and where they stand."""
    def call(ids: list[int], cached: int) -> object:
        got = answer(ids, cached)
        return _two_lists(got) or got

    changed = (changes_its_input(answer, [15, 8, 4], 1)
               or changes_its_input(answer, [7, 3] * 20, 5))
    yield expect("the ids are what they were", not changed, (True, "the list of ids was changed"))
    got = call([4, 8, 15], 1)
    yield expect("two lists: tokens, positions", _two_lists(got) is not None,
                 (True, f"return two lists, tokens and positions, not {got!r:.60}"))
    if _two_lists(got) is None:
        return
    for what, ids, cached in (("a new prompt: all of it", [4, 8, 15, 16], 0),
                              ("while writing: the newest token", [4, 8, 15, 16], 3),
                              ("half of a prompt found", [4, 8, 15, 16, 23, 42], 2),
                              ("all of it found: one token is read again", [4, 8, 15, 16], 4),
                              ("a prompt of one token", [7], 0),
                              ("of one token, found", [7], 1)):
        got = call(list(ids), cached)
        yield expect(what, same(got, _what_to_read(ids, cached)), *_read_mistakes(got, ids, cached))
    inputs = [([9] * length, cached) for length in (2, 5, 17, 300) for cached in
              sorted({0, 1, length // 2, length - 1, length})]
    inputs += [([0, 5, 0], cached) for cached in range(4)]  # 0 is a token like any other
    inputs += [(torch.randint(900, (length,), generator=named_generator(length, "ids")).tolist(),
                cached) for length in (8, 33) for cached in range(0, length + 1, 4)]
    differs = counterexample(call, _what_to_read, inputs)
    yield expect("texts of any length, equal tokens too", not differs, (True, differs))


# 07b.2 ---------------------------------------------------------------------------------------


def _admit(waiting: Sequence[int], places: int, free: int, unheld: Sequence[str], size: int,
           overtake: bool = False, blocks_of: Callable = lambda length, size: -(-length // size),
           newest: bool = False, held_first: bool = False, may_evict: bool = True,
           strict: bool = False) -> tuple[int, list[str]]:
    admitted, left = 0, list(unheld)
    evicted: list[str] = []
    for length in waiting:
        if admitted == places:
            break
        blocks = blocks_of(length, size)
        room = free + (len(left) if may_evict else 0)
        if blocks > room or (strict and blocks == room):
            if overtake:
                continue
            break
        admitted += 1
        taken = max(blocks - len(left), 0) if held_first else min(free, blocks)
        free -= taken
        for _ in range(blocks - taken):
            evicted.append(left.pop(-1 if newest else 0))
    return admitted, evicted


ADMIT_SLIPS: dict[str, dict] = {
    "a later request overtakes one that does not fit: first come, first served, or a long one "
    "waits for ever": {"overtake": True},
    "a block that is filled in part is a block too: round up":
        {"blocks_of": lambda length, size: length // size},
    "a prompt that fills its blocks exactly needs no further one":
        {"blocks_of": lambda length, size: length // size + 1},
    "the length is counted in tokens: divide by the size of a block":
        {"blocks_of": lambda length, size: length},
    "the wrong end is evicted: the longest unused stands first": {"newest": True},
    "blocks are evicted while there are empty ones: those cost nobody anything":
        {"held_first": True},
    "nothing is ever evicted: blocks that nobody holds may be taken": {"may_evict": False},
    "a request that takes the very last block fits": {"strict": True},
}


def _admit_mistakes(got: object, given: tuple) -> list[tuple[bool, str]]:
    right, (waiting, _, free, unheld, size) = _admit(*given), given
    slips = {message: _admit(*given, **slip) for message, slip in ADMIT_SLIPS.items()}
    slips["there are not so many places"] = _admit(waiting, len(waiting), free, unheld, size)
    slips["all blocks that nobody holds are evicted: only as many as are needed"] = (
        right[0], list(unheld))
    slips["what is evicted stands in the order in which it goes, the longest unused first"] = (
        right[0], right[1][::-1])
    found = [(same(got, wrong) and not same(wrong, right), message)
             for message, wrong in slips.items()]
    return [*found, (True, f"for {given} expected {right}, got {got!r}")]


@exercise
def admit(answer: Callable) -> Iterator[Property]:
    """07b.2: who is let in, and which blocks are evicted for them."""
    def call(*given: object) -> object:
        got = answer(*given)
        items = _pair(got)
        names = None if items is None else as_list(items[1])
        if names is None or isinstance(items[0], bool):
            return got
        return [items[0], [str(name) if isinstance(name, str) else name for name in names]]

    first = ([5, 9, 4], 2, 3, ["a", "b", "c"], 4)
    changed = changes_its_input(answer, *first)
    got = call(*first)
    fits = isinstance(got, list) and len(got) == 2 and isinstance(got[1], list)
    yield expect("a number and a list of names", fits,
                 (True, f"return how many are let in and the names evicted, not {got!r:.60}"))
    yield expect("the lists are what they were", not changed,
                 (True, "a list that was given is changed: others use it too"))
    if not fits:
        return
    for what, given in (
            ("two places, and one block evicted for the second", ([5, 9, 4], 2, 4, ["a", "b"], 4)),
            ("exactly full blocks", ([8, 4], 3, 4, [], 4)),
            ("the very last block", ([5, 3], 2, 3, [], 4)),
            ("the first that does not fit ends it", ([4, 40, 4], 3, 5, ["a"], 4)),
            ("empty blocks first", ([7], 1, 2, ["a", "b"], 4)),
            ("the longest unused goes first", ([12, 8], 2, 1, ["a", "b", "c", "d", "e"], 4)),
            ("no place", ([4], 0, 5, ["a"], 4)), ("nobody waits", ([], 3, 5, ["a"], 4)),
            ("no room at all", ([1], 2, 0, [], 4))):
        got = call(*[list(each) if isinstance(each, list) else each for each in given])
        yield expect(what, same(got, _admit(*given)), *_admit_mistakes(got, given))
    inputs = [([n + 1, 3 * n + 1, 2, n], places, free, ["abcdefgh"[i] for i in range(held)], size)
              for n, places, free, held, size in itertools.product(
                  (1, 4, 7, 30), (1, 2, 4, 9), (0, 2, 6), (0, 3, 8), (1, 3, 4, 16))]
    inputs += [([length], 1, free, ["z", "b", "y"], size)
               for length, free, size in itertools.product((1, 6, 1025), (0, 1, 300), (3, 1024))]
    inputs += [([1025, 7, 2048, 90, 1, 30, 5], places, free, [f"{i * 7 % 20}" for i in range(20)],
                size) for places, free, size in itertools.product((5, 7), (3, 50), (16, 1024))]
    differs = counterexample(call, _admit, inputs)
    yield expect("any line, any pool, any size of block", not differs, (True, differs))


# 07b.3 ---------------------------------------------------------------------------------------


def _after_guess(p: Sequence[float], q: Sequence[float], guess: int, u: float) -> list[float]:
    if u * q[guess] < p[guess]:
        return [float(token == guess) for token in range(len(p))]
    left = [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]
    return [each / sum(left) for each in left]


def _guess_mistakes(got: object, p: list[float], q: list[float], guess: int, u: float
                    ) -> list[tuple[bool, str]]:
    right = _after_guess(p, q, guess, u)
    sure = [float(token == guess) for token in range(len(p))]
    left = [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]
    over = [max(b - a, 0.0) for a, b in zip(p, q, strict=True)]
    apart = [abs(a - b) for a, b in zip(p, q, strict=True)]

    def scaled(values: list[float]) -> list[float]:
        return [each / sum(values) for each in values] if sum(values) else values

    share = min(p[guess] / q[guess], 1.0)
    mixed = [share * a + (1 - share) * b for a, b in zip(sure, scaled(left), strict=True)]
    slips = {
        "u is not used: with it the guess is either kept or refused, not in part": mixed,
        "kept, though the guess should be refused: keep it where u q < p at the guess": sure,
        "refused, though the guess should be kept: it is kept where u q < p at the guess":
            scaled(left) if sum(left) else p,
        "after a refusal p itself is drawn from: then tokens that q guesses often come too often":
            p,
        "this is what q has too much of: wanted is what it left uncovered, p - q":
            scaled(over),
        "differences below zero count as nothing, not as their size": scaled(apart),
        "the probabilities do not sum to 1: divide by their sum": left,
        "after a refusal q is drawn from again: it was the one that was wrong": q,
        "the refused guess alone is taken away from p: take away all of q":
            scaled([0.0 if token == guess else a for token, a in enumerate(p)]),
    }
    found = [(same(got, wrong, 1e-6) and not same(wrong, right, 1e-6), message)
             for message, wrong in slips.items()]
    return [*found, (True, f"for p={p}, q={q}, guess={guess}, u={u} expected "
                           f"{[round(each, 4) for each in right]}, got {got!r:.80}")]


def _draws(size: int, number: int) -> tuple[list[float], list[float]]:
    made = torch.rand(2, size, generator=named_generator(number, f"guess {size}")) + 0.01
    return tuple((row / row.sum()).tolist() for row in made.double())


@exercise
def after_guess(answer: Callable) -> Iterator[Property]:
    """07b.3: from what the token is drawn, behind a guess."""
    p, q = [0.5, 0.1, 0.2, 0.2], [0.1, 0.4, 0.2, 0.3]
    changed = changes_its_input(answer, list(p), list(q), 1, 0.9)
    got = answer(list(p), list(q), 1, 0.9)
    items = as_list(got)
    yield expect("one probability for each token", items is not None and len(items) == 4,
                 (True, "return a list with a probability for each token"))
    yield expect("p and q are what they were", not changed, (True, "p or q was changed"))
    if items is None or len(items) != 4:
        return
    for what, guess, u in (("refused: what q left uncovered", 1, 0.9),
                           ("kept: all on the guess", 1, 0.2),
                           ("kept whenever p is the larger", 0, 0.99),
                           ("kept where both are equal", 2, 0.99)):
        got = answer(list(p), list(q), guess, u)
        yield expect(what, same(got, _after_guess(p, q, guess, u), 1e-6),
                     *_guess_mistakes(got, p, q, guess, u))
    p, q = [0.6, 0.3, 0.1, 0.0], [0.1, 0.3, 0.2, 0.4]
    for guess, u in ((2, 0.49), (2, 0.51), (3, 0.01), (1, 0.7)):
        got = answer(list(p), list(q), guess, u)
        yield expect(f"another p and q: guess {guess}, u = {u}",
                     same(got, _after_guess(p, q, guess, u), 1e-6),
                     *_guess_mistakes(got, p, q, guess, u))
    inputs = [([1.0], [1.0], 0, 0.5), ([0.0, 1.0], [1.0, 0.0], 0, 0.3)]
    for size in (2, 3, 5, 40):
        for number in range(6):
            p, q = _draws(size, number)
            for guess in sorted({0, size - 1, number % size}):
                edge = min(p[guess] / q[guess], 1.0)
                inputs += [(p, q, guess, u) for u in (0.999 * edge, min(1.001 * edge, 0.9999))]
    differs = counterexample(answer, _after_guess, inputs)
    yield expect("any p and q, on both sides of the edge", not differs, (True, differs))


# 07b.4 ---------------------------------------------------------------------------------------


def _read_list(written: str, trailing: bool = False, empty: bool = True, comma: bool = False,
               numbers: bool = False, two: bool = False, loose: bool = False, bare: bool = False
               ) -> tuple[int, str] | None:
    """(depth, what stood last) of a beginning of a list, or None; the options are mistakes."""
    depth, last = 0, "value"
    for character in written:
        begins = last != "after" or loose or (two and not depth)
        if character == "[" and begins:
            depth, last = depth + 1, "first"
        elif character.isdigit() and (depth or bare) and (begins or numbers):
            last = "after"
        elif character == "]" and depth and (
                last == "after" or (last == "first" and empty) or (last == "value" and trailing)):
            depth, last = depth - 1, "after"
        elif character == "," and depth and (last == "after" or (last == "first" and comma)):
            last = "value"
        else:
            return None
    return depth, last


def _list_mask(text: str, tokens: Sequence[str], **slips: bool) -> list[bool]:
    return [_read_list(text + token, **slips) is not None if token
            else _read_list(text) == (0, "after") for token in tokens]


LIST_SLIPS = {
    "a comma before a closing bracket is let through: behind it a value must come":
        {"trailing": True},
    "the empty list [] is refused": {"empty": False},
    "a comma right behind an opening bracket is let through": {"comma": True},
    "two digits in a row are let through: here a number is one digit": {"numbers": True},
    "a second list is let through behind the first": {"two": True},
    "a value right behind a value is let through: a comma must stand between them": {"loose": True},
    "a number alone is let through: the text is a list": {"bare": True},
}


def _mask_mistakes(got: object, text: str, tokens: list[str]) -> list[tuple[bool, str]]:
    right = _list_mask(text, tokens)
    first = [_list_mask(text, [token[:1]])[0] for token in tokens]
    last = [_read_list(token[-1:]) is not None or token[-1:] in "],"
            if token else right[i] for i, token in enumerate(tokens)]
    ends = {
        "the end is never allowed: the token of no characters may come where the list is whole":
            [False if not token else right[i] for i, token in enumerate(tokens)],
        "the end is allowed before anything is written: nothing is no list":
            [not text or right[i] if not token else right[i] for i, token in enumerate(tokens)],
        "the end is allowed too early: only behind the bracket that closes the first one":
            [True if not token else right[i] for i, token in enumerate(tokens)],
        "only the first character of a token is looked at: read all of them": first,
        "each token is read alone, without the text before it": _list_mask("", tokens),
        "this is the wrong way round: True where a token may come": [not each for each in right],
        "only the last character of a token is looked at": last,
    }
    slips = {message: _list_mask(text, tokens, **slip) for message, slip in LIST_SLIPS.items()}
    found = [(same(got, wrong) and not same(wrong, right), message)
             for message, wrong in (slips | ends).items()]
    items = as_list(got) or []
    wrong = [token for token, mine, ours in zip(tokens, items, right, strict=False)
             if bool(mine) != ours]
    return [*found, (True, f"behind {text!r} wrong for the tokens {wrong}")]


@exercise
def list_mask(answer: Callable) -> Iterator[Property]:
    """07b.4: which tokens may come, so that a text becomes a list of digits and lists."""
    def call(text: str, tokens: list[str]) -> object:
        items = as_list(answer(text, tokens))
        return None if items is None else [bool(each) for each in items]

    tokens = ["", "[", "]", ",", "1", "[]", "],", "1]", ",[", "]]", "12", ",]", "[,", "[1", "a",
              "[[", "1,", "][", ",2,", "] ", "[a"]
    changed = changes_its_input(answer, "[1", list(tokens))
    got = call("[1", list(tokens))
    yield expect("one truth value for each token", got is not None and len(got) == len(tokens),
                 (True, "return a list with True or False for each token"))
    yield expect("the tokens are what they were", not changed, (True, "the tokens were changed"))
    if got is None or len(got) != len(tokens):
        return
    for text in ("", "[", "[1", "[1,", "[[", "[]", "[[]", "[1,[2", "[[1],", "[[[3]]"):
        got = call(text, list(tokens))
        yield expect(f"behind {text!r}", same(got, _list_mask(text, tokens)),
                     *_mask_mistakes(got, text, tokens))
    pieces = ["[", "]", ",", "0", "9"]
    more = ["", *"12345678", *pieces, *map("".join, itertools.product(pieces, repeat=2)),
            "]]]", "1,2]", "[[[0", ",7,[", "x", "[ ", "1 ", "]],[", "-1", "½"]
    texts = ["".join(some) for length in range(6) for some in itertools.product(pieces[:4],
                                                                                repeat=length)]
    texts = [text for text in texts if _read_list(text) is not None]
    deep = ["[" * depth for depth in (9, 40)] + ["[" * 30 + "1" + "]" * less for less in (29, 30)]
    deep += ["[" + "1," * 30, "[" + "[2]," * 30 + "3"]
    differs = counterexample(call, _list_mask, [(text, more) for text in [*texts, *deep]])
    yield expect("every beginning of up to five characters, and deep ones", not differs,
                 (True, differs))
