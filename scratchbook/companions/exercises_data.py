"""The checks of chapter 06b's exercises: properties first, then the mistakes people make.

Chapter:  chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from numbers import Number

from scratchbook.teaching.answers import as_list
from scratchbook.teaching.checking import Property, exercise, expect

WORD = 2**32


def _is_number(got: object) -> bool:
    return isinstance(got, Number) and not isinstance(got, bool) or hasattr(got, "item")


def _near(got: object, want: float) -> bool:
    return _is_number(got) and math.isclose(float(got), want, rel_tol=1e-6, abs_tol=1e-9)


def _smallest(numbers: set[int], a: list[int], b: list[int], choose: Callable = min) -> list[int]:
    return [choose((u * x + v) % WORD for x in numbers) for u, v in zip(a, b, strict=True)]


@exercise
def minhash_estimate(answer: Callable) -> Iterator[Property]:
    """06b.1: the similarity of two sets from their smallest shuffled members."""
    chosen = random.Random(6)
    a = [chosen.randrange(1, WORD, 2) for _ in range(512)]
    b = [chosen.randrange(WORD) for _ in range(512)]
    pool = [chosen.randrange(WORD) for _ in range(120)]
    first, second = set(pool[:80]), set(pool[40:])
    got = answer(first, second, a, b)
    yield expect("it gives one number", _is_number(got),
                 (isinstance(got, list | tuple), "a list: count in how many places the two agree, "
                                                 "and divide by their number"),
                 (True, f"expected a share, got a {type(got).__name__}"))
    if not _is_number(got):
        return
    same = answer(first, set(first), a, b)
    yield expect("equal sets are similar to the degree 1", _near(same, 1.0),
                 (_near(same, 512), "512 agreements of 512: divide by the number of shuffles"),
                 (_near(same, 4), "512 agreements divided by 128: here 512 shuffles are given"),
                 (True, f"it gives {float(same):.3f}"))
    strangers = answer(first, {x ^ 0x5A5A5A5A for x in first}, a, b)
    yield expect("sets without a common member: 0", _near(strangers, 0.0),
                 (True, f"it gives {float(strangers):.3f}: is the smallest of each set compared "
                        "under the same shuffle?"))
    want = _agree(first, second, a, b)
    counted = "this is the similarity itself, counted: the point is to know it from the "
    yield expect(
        "the share of shuffles under which the smallest agree", _near(got, want),
        (_near(got, 40 / 120), counted + "512 smallest alone"),
        *_other_ways(float(got), first, second, a, b),
        (_near(got, want * 512), "this is how many agree: divide by the number of shuffles"),
        (True, f"expected {want:.4f}, got {float(got):.4f}"))
    few, right = answer(first, second, a[8:16], b[8:16]), _agree(first, second, a[8:16], b[8:16])
    yield expect("eight shuffles give eighths", _near(few, right),
                 (_near(few, right * 8 / 512),
                  "divide by the number of shuffles that were given, not by 512"),
                 (_near(got, few), counted + "eight smallest alone"),
                 (True, f"of eight shuffles a whole number agree; got {float(few):.4f}"))


def _agree(first: set[int], second: set[int], a: list[int], b: list[int],
           smallest: Callable = _smallest) -> float:
    """The share of shuffles under which the smallest of both agree."""
    pairs = list(zip(smallest(first, a, b), smallest(second, a, b), strict=True))
    return sum(mine == theirs for mine, theirs in pairs) / len(pairs)


def _other_ways(got: float, first: set[int], second: set[int], a: list[int], b: list[int]
                ) -> Iterator[tuple[bool, str]]:
    """The answers of near misses, each with what to say about it."""
    def below(size: float) -> Callable:
        return lambda numbers, a, b: [min((u * x + v) % size for x in numbers)
                                      for u, v in zip(a, b, strict=True)]

    minima = set(_smallest(first, a, b)), set(_smallest(second, a, b))
    yield (_near(got, _agree(first, second, a, b, partial(_smallest, choose=max))),
           "the largest were compared. That works as well, but the rest of the chapter keeps the "
           "smallest")
    yield (_near(got, _agree(first, second, a, b, below(2**200))),
           "without the modulus nothing is shuffled: the smallest x stays the smallest. Take "
           "(a x + b) % 2**32")
    yield (_near(got, _agree(first, second, a, b, below(2**31))),
           "the modulus is 2**32, not 2**31: the numbers have 32 bits")
    yield (_near(got, len(minima[0] & minima[1]) / len(minima[0] | minima[1])),
           "the smallest were thrown together as sets. They are compared shuffle by shuffle")


@exercise
def repeats_for_share(answer: Callable) -> Iterator[Property]:
    """06b.2: how often a source must be repeated to make a share of one unit."""
    code = {"lines": 284, "bytes": 9_372, "tokens": 3_408}
    books = {"lines": 4_030, "bytes": 221_650, "tokens": 48_360}
    got = answer(code, books, "lines", 0.75)
    want = 3 * books["lines"] / code["lines"]
    total = sum(part["lines"] for part in (code, books))
    yield expect(
        "75 % of the lines", _near(got, want),
        (_near(got, 3), "3 is the ratio that is wanted; code is smaller than the books, so it "
                        "has to be repeated more often than that"),
        (_near(got, 0.75 * total / code["lines"]),
         "the corpus grows with every repetition: 0.75 of the *new* total, x c / (x c + b)"),
        (_near(got, want - 1), "this counts the repetitions after the first; count the first too"),
        (_near(got, 3 * code["lines"] / books["lines"]) or _near(got, 1 / want),
         "turned round: that is how often the books would be repeated"),
        (_near(got, 0.75 * books["lines"] / code["lines"]),
         "0.75 of the books' lines: the ratio to the books is 0.75 / 0.25, not 0.75"),
        (_near(got, want / 9), "the odds are turned round: 0.25 / 0.75 makes the code a quarter"),
        (_near(got, round(want)) or _near(got, int(want)) or _near(got, round(want, 2)),
         "rounded: the answer need not be whole"),
        (True, f"expected {want:.6g}, got {got}"))
    if not _near(got, want):
        return
    for unit in ("bytes", "tokens"):
        found = answer(code, books, unit, 0.75)
        yield expect(f"75 % of the {unit}", _near(found, 3 * books[unit] / code[unit]),
                     (_near(found, want), f"the lines were counted again: use the {unit}"),
                     (True, f"expected {3 * books[unit] / code[unit]:.2f}, got {found}"))
    half = answer(code, code, "lines", 0.5)
    yield expect("two equal sources, half and half: once", _near(half, 1.0),
                 (True, f"expected 1, got {half}"))
    none = answer(code, books, "lines", 0.0)
    yield expect("no share: no repetition", _near(none, 0.0), (True, f"expected 0, got {none}"))


TRAINING = [
    "It was a bright cold day in April, and the clocks were striking thirteen. Nobody cared.",
    "The parser reads one token at a time. It never looks back.",
    "counts words words words",
]
VALIDATION = [
    "On a BRIGHT, cold day in APRIL; and the clocks were late.",  # shares eight words in a row
    "Late were clocks the and April in day cold bright a.",  # the same words, in no order
    "Nobody cared. The parser reads one book.",  # its run crosses two documents of training
    "words words",  # shorter than a run
    "Tokens? It never looks back.",  # four in a row, at the end of both
]


@exercise
def leaked_documents(answer: Callable) -> Iterator[Property]:
    """06b.3: which held-out texts share a run of words with training."""
    answer, got = _listed(answer), answer(list(TRAINING), list(VALIDATION), 5)
    got = got if isinstance(got, str | bool) else _listed(lambda: got)()
    numbers = got if isinstance(got, list) else None
    yield expect("it gives a list of places in validation", numbers is not None
                 and all(isinstance(n, int) and 0 <= n < len(VALIDATION) for n in numbers),
                 (numbers is not None and any(isinstance(n, str) for n in numbers),
                  "these are texts: give their places, such as [0, 3]"),
                 (isinstance(got, bool), "one answer for all: which ones leak?"),
                 (True, f"expected a list of numbers, got {got!r:.60}"))
    if numbers is None or not all(isinstance(n, int) for n in numbers):
        return
    yield expect("a run of words is found whatever its case and punctuation", 0 in numbers,
                 (not numbers and not answer(["a b c d e f g"], ["a b c d e f g"], 5),
                  "not even a copy of seven words is found: are the runs `words` long?"),
                 (not numbers and not answer(["a b c d e"], ["a b c d e"], 5),
                  "not even a copy is found: how many runs has a text of exactly `words` words?"),
                 (bool(answer([TRAINING[0]], ["cold day in April, and the clocks were"], 5)),
                  "it is found as it is written, but not as BRIGHT, or April; and: compare words "
                  "in small letters, without punctuation"),
                 (True, "the run stands in the middle of both texts: take the run that starts at "
                        "every word, not only at every fifth"))
    yield expect("the same words in another order are no leak", 1 not in numbers,
                 (True, "these are sets of words: runs must agree word by word"))
    yield expect("no run reaches from one document into the next", 2 not in numbers,
                 (True, "'nobody cared the parser reads' stands in no training text: it begins in "
                        "one and ends in another. Cut runs out of each by itself"))
    yield expect("texts that are too short are no leak, and no error", 3 not in numbers,
                 (True, "a text of two words has no run of five"))
    yield expect("four words in a row are no run of five", 4 not in numbers,
                 (True, "the run is one word too short: is a slice at the end of a text as long "
                        "as the others?"))
    fewer = answer(list(TRAINING), list(VALIDATION), 4)
    yield expect("but of four they are", sorted(fewer) == [0, 2, 4],
                 (not answer(["a b c d"], ["a b c d"], 4),
                  "a text of exactly four words has one run of four: how far does the range go?"),
                 (True, f"with words=4 expected [0, 2, 4], got {sorted(fewer)}"))
    yield from _words_and_texts(answer)
    texts = ["one token at a time"], ["a phone token at a timetable"]
    inside = answer(*texts, 5) or answer(*texts[::-1], 5)
    yield expect("a run begins and ends with whole words", not inside,
                 (True, "'one token at a time' was found in 'phone token at a timetable': compare "
                        "lists of words, not text within text"))


def _words_and_texts(answer: Callable) -> Iterator[Property]:
    """What counts as a word, which texts are compared, and how long a run may be."""
    got = answer(["in 1984 the price rose"], ["in 2001 the price rose"], 4)
    yield expect("a number is a word", not got,
                 (True, "'in 1984 the price' and 'in 2001 the price' differ: keep digits"))
    got = answer(["a bright\ncold,bare day"], ["A bright cold\tbare day"], 5)
    yield expect("a new line parts words as a space does, a comma too", got == [0],
                 (True, "'bright\\ncold,bare' are three words: cut at all that is no letter or "
                        "digit"))
    many = [f"text {number} of many" for number in range(6)]
    got = answer([*many, "one two three", "the last of all texts"], ["of all texts"], 3)
    yield expect("every training text is looked at", got == [0], (True, "the last one was not"))
    long = " ".join(f"word{number}" for number in range(300))
    got = answer([long], [long, "word1 word2 word3 word4 word5 word6"], 7)
    yield expect("with words=7, six in a row are no leak", got == [0],
                 (True, f"expected [0], got {got}: take the length that is given"))
    other = " ".join(f"other{number}" for number in range(300))
    got = answer([long], [other + long[-30:]], 3)
    yield expect("a short run in a long text is a leak", got == [0],
                 (True, f"expected [0], got {got}: one run is enough"))
    yield expect("without any training text there is no leak", answer([], ["one two"], 1) == [])


def _listed(answer: Callable) -> Callable:
    """The same answer, its places in a list of whole numbers, whatever held them."""
    def call(*arguments: object) -> object:
        got = answer(*arguments)
        items = list(got) if isinstance(got, set | frozenset) else as_list(got)
        return got if items is None else [n.item() if hasattr(n, "item") else n for n in items]
    return call
