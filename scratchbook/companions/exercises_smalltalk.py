"""The checks of chapter 09's exercises: properties first, then the mistakes people make.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from scratchbook.evaluation.comparing import wilson
from scratchbook.smalltalk.viable import is_method
from scratchbook.teaching.answers import as_list, changes_its_input, counterexample, same
from scratchbook.teaching.checking import Property, exercise, expect

Message = tuple[str, list[str]]


def plain(answer: Callable) -> Callable:
    """The same answer with lists for tuples, arrays and generators, at every depth."""
    def call(*arguments: object) -> object:
        return _lists(answer(*arguments))
    return call


def _lists(got: object) -> object:
    items = None if isinstance(got, str) else as_list(got)
    return got if items is None else [_lists(item) for item in items]


def is_operator(token: str) -> bool:
    """Whether a token is a binary selector."""
    return not any(character.isalnum() for character in token)


# 09.1 ----------------------------------------------------------------------------------------


def _cascade(tokens: Sequence[str]) -> list:
    """Receiver and messages, the receiver's own messages left in it."""
    first, *rest = [list(group) for mark, group in groupby(tokens, lambda t: t == ";") if not mark]
    keywords = [at for at, token in enumerate(first) if token.endswith(":")]
    cut = keywords[0] if keywords else len(first) - (2 if is_operator(first[-2]) else 1)
    return [first[:cut], [_message(part) for part in [first[cut:], *rest]]]


def _message(part: Sequence[str]) -> list:
    return ["".join(part[::2]), list(part[1::2])]


def _some_cascade(draw: random.Random) -> list[str]:
    names = ["t", "Set", "aStream", "#x", "self", "3"]

    def message() -> list[str]:
        kind = draw.choice(("unary", "binary", "keyword", "keyword"))
        if kind == "unary":
            return [draw.choice(("new", "cr", "yourself", "size"))]
        if kind == "binary":
            return [draw.choice(("+", "-", "->", ",")), draw.choice(names)]
        words = draw.choice((["show:"], ["at:", "put:"], ["from:", "to:", "do:"]))
        return [token for word in words for token in (word, draw.choice(names))]

    tokens = [draw.choice(names)]
    for _ in range(draw.randrange(3)):
        tokens += draw.choice((["new"], ["first"], ["*", "2"]))
    for number in range(draw.randrange(1, 5)):
        tokens += [";"] * (number > 0) + message()
    return tokens


@exercise
def parse_cascade(answer: Callable) -> Iterator[Property]:
    """09.1: one receiver, several messages."""
    answer = plain(answer)
    tokens = ["t", "show:", "a", ";", "cr", ";", "at:", "1", "put:", "2", ";", "+", "3"]
    want = [["t"], [["show:", ["a"]], ["cr", []], ["at:put:", ["1", "2"]], ["+", ["3"]]]]
    changed, got = changes_its_input(answer, tokens), answer(list(tokens))
    pair = isinstance(got, list) and len(got) == 2 and isinstance(got[1], list)
    messages = got[1] if pair else []
    yield expect(
        "t show: a; cr; at: 1 put: 2; + 3: four messages to t", got == want,
        (not pair, "return a pair: the receiver's tokens, and the messages"),
        (got == ["t", want[1]], "the receiver is a list of tokens: it may have several"),
        (len(messages) == 3, "the message before the first ; is one of the cascade's, too"),
        (any(len(part) != 2 or isinstance(part[1], str) for part in messages),
         "a message is a pair: its selector and the list of its arguments"),
        (any(part[0] == "at:" for part in messages),
         "at: 1 put: 2 is one message: its selector is at:put:, its arguments are 1 and 2"),
        (pair and len(messages) == 4 and got[0] == ["t"],
         f"expected {want[1]}, got {messages}"),
        (True, f"expected {want}, got {got}"))
    yield expect("the tokens are what they were", not changed, (True, "the list was changed"))
    tokens = ["Set", "new", "add:", "1", ";", "yourself"]
    got = answer(list(tokens))
    yield expect(
        "Set new add: 1; yourself: the cascade goes to Set new", got == _cascade(tokens),
        (isinstance(got, list) and bool(got) and got[0] == ["Set"],
         "`new` is sent before: the receiver is that of the last message before the first ;"),
        (True, f"expected {_cascade(tokens)}, got {got}"))
    tokens = ["a", "first", "size", ";", "last"]
    got = answer(list(tokens))
    yield expect("a first size; last: with unary messages alone the last one is the cascade's",
                 got == _cascade(tokens),
                 (True, f"expected {_cascade(tokens)}, got {got}"))
    tokens = ["a", "+", "b", ";", "-", "c"]
    got = answer(list(tokens))
    yield expect("a + b; - c: both are sent to a", got == _cascade(tokens),
                 (True, f"expected {_cascade(tokens)}, got {got}"))
    draw = random.Random(1)
    some = sorted((_some_cascade(draw) for _ in range(200)), key=len)
    differs = counterexample(answer, _cascade, [(tokens,) for tokens in some])
    yield expect("200 more, of one message and of several", not differs, (True, differs))


# 09.2 ----------------------------------------------------------------------------------------

UNARY = {"negated": lambda x: -x, "squared": lambda x: x * x}
BINARY = {"+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y}
KEYWORD = {"max:": max, "min:": min}


def _value(tokens: Sequence[str], order: str = "smalltalk") -> int:
    """The value under Smalltalk's rules, or under one of those that people mistake them for."""
    rest = list(tokens)

    def unary() -> int:
        value = int(rest.pop(0))
        while rest and rest[0] in UNARY and order != "flat":
            value = UNARY[rest.pop(0)](value)
        return value

    def binary(signs: str = "+-*") -> int:
        value = product() if order == "school" and signs == "+-*" else unary()
        while rest and rest[0] in BINARY and rest[0] in signs and order != "flat":
            sign = rest.pop(0)
            value = BINARY[sign](value, product() if order == "school" else unary())
        return value

    def product() -> int:
        value = unary()
        while rest and rest[0] == "*":
            value *= (rest.pop(0), unary())[1]
        return value

    value = binary()
    while rest:
        token = rest.pop(0)
        if token in UNARY:
            value = UNARY[token](value)
        else:
            value = (BINARY | KEYWORD)[token](value, unary() if order == "greedy" else binary())
    return value


def _some_sum(draw: random.Random) -> list[str]:
    def part() -> list[str]:
        tokens = [str(draw.randrange(10))]
        tokens += draw.choices(list(UNARY), k=draw.choice((0, 0, 1, 2)))
        for _ in range(draw.choice((0, 1, 1, 2, 3))):
            tokens += [draw.choice(list(BINARY)), str(draw.randrange(10))]
            tokens += draw.choices(list(UNARY), k=draw.choice((0, 0, 1)))
        return tokens
    return part() + ([draw.choice(list(KEYWORD)), *part()] if draw.random() < 0.6 else [])


def _value_of(answer: Callable, tokens: Sequence[str]) -> object:
    got = answer(list(tokens))
    return int(got) if same(got, round(float(got))) else got


@exercise
def message_value(answer: Callable) -> Iterator[Property]:
    """09.2: unary before binary, binary from left to right, keyword last."""
    for text, why, order in (
            ("7", "a number is its own value", ""),
            ("3 + 4 * 2", "binary messages go from left to right, * is no stronger than +",
             "school"),
            ("2 + 3 squared", "a unary message is sent before a binary one", "flat"),
            ("5 max: 3 + 4", "a binary message is sent before a keyword one", "greedy"),
            ("1 + 2 max: 2", "the keyword's receiver is everything before it", ""),
            ("2 squared negated", "unary messages go from left to right", ""),
            ("9 - 4 negated - 1 min: 3 * 2 squared", "all three kinds", "")):
        tokens = text.split()
        got, want = _value_of(answer, tokens), _value(tokens)
        slip = _value(tokens, order) if order else want
        yield expect(f"{text} is {want}: {why}", got == want,
                     (order == "school" and got == slip != want,
                      f"{got} is what school teaches: here 3 + 4 is computed first"),
                     (order == "flat" and got == slip != want,
                      f"{got} is (2 + 3) squared: `squared` goes to the 3 alone"),
                     (order == "greedy" and got == slip != want,
                      f"{got} is (5 max: 3) + 4: the argument of max: is all of 3 + 4"),
                     (True, f"got {got}"))
    draw = random.Random(2)
    some = sorted((_some_sum(draw) for _ in range(200)), key=len)
    differs = counterexample(lambda tokens: _value_of(answer, tokens), _value,
                             [(tokens,) for tokens in some])
    yield expect("200 more", not differs, (True, differs))
    yield expect("the tokens are what they were", not changes_its_input(answer, some[-1]),
                 (True, "the list was emptied: copy it first"))


# 09.3 ----------------------------------------------------------------------------------------

PREFIX, SUFFIX, MIDDLE, END = 100, 101, 102, 103  # ids of the marks


def _split(ids: Sequence[int], start: int, stop: int) -> list:
    prompt = [PREFIX, *ids[:start], SUFFIX, *ids[stop:], MIDDLE]
    hole = [*ids[start:stop], END]
    return [[*prompt, *hole], [False] * len(prompt) + [True] * len(hole)]


@exercise
def fim_split(answer: Callable) -> Iterator[Property]:
    """09.3: what stood in the hole is told last, and only that is learned."""
    answer = plain(answer)

    def ask(ids: Sequence[int], start: int, stop: int) -> object:
        return answer(list(ids), start, stop, (PREFIX, SUFFIX, MIDDLE, END))

    given = [1, 2, 3, 4, 5]
    got, want = ask(given, 1, 3), _split(given, 1, 3)
    pair = isinstance(got, list) and len(got) == 2 and all(isinstance(x, list) for x in got)
    ids, learned = got if pair else ([], [])
    yield expect(
        "a hole at 1 to 3 of 1 2 3 4 5: prefix, suffix, then the middle", ids == want[0],
        (not pair, "return two lists: the ids, and for each whether it is learned"),
        (ids == [PREFIX, 1, MIDDLE, 2, 3, SUFFIX, 4, 5, END],
         "the middle stands where it stood: it must come last, behind both of its sides"),
        (ids == want[0][:-1], "the end's mark is missing: the model must learn to stop"),
        (ids == _split(given, 1, 4)[0], "the id at `stop` is behind the hole already"),
        (sorted(set(ids)) == given, "the four marks are missing"),
        (ids == [SUFFIX, 4, 5, PREFIX, 1, MIDDLE, 2, 3, END],
         "suffix first is used too; here the prefix is first"),
        (True, f"expected {want[0]}, got {ids}"))
    marks = [bool(each) for each in learned]
    yield expect(
        "learned are the hole and the end, nothing else", marks == want[1],
        (len(marks) != len(want[1]), "one True or False for each id"),
        (marks == [not each for each in want[1]], "the other way round: True where it is learned"),
        (all(marks), "the prompt is given: a model that learns to write it learns something else"),
        (not marks[-1], "the end is learned too: else the model never stops"),
        (True, f"expected {want[1]}, got {marks}"))
    draw, cases = random.Random(3), []
    for size in range(12):
        start, stop = sorted(draw.choices(range(size + 1), k=2))
        cases += [([draw.randrange(90) for _ in range(size)], *hole)
                  for hole in ((start, stop), (0, size), (size, size), (0, 0))]
    differs = counterexample(ask, _split, cases)
    yield expect("holes at the ends, of no token, of all", not differs, (True, differs))
    changed = changes_its_input(
        lambda given: answer(given, 1, 3, (PREFIX, SUFFIX, MIDDLE, END)), given)
    yield expect("the ids are what they were", not changed, (True, "the list was changed"))


# 09.4 ----------------------------------------------------------------------------------------

METHODS = ("double ^ self * 2", "at: i put: v\n\t^ array at: i put: (self check: v)",
           "each\n\tlist do: [:x | x run. x stop]", "total\n\t| sum |\n\tsum := 0.\n\t^ sum",
           "name ^ 'it''s'", "words ^ #(a b)", "+ other ^ other", "top\n\t^ self", "noop", "x")


def _deletions(source: str) -> list[str]:
    return [source[:at] + source[at + 1:] for at in range(len(source))]


@exercise
def break_method(answer: Callable) -> Iterator[Property]:
    """09.4: a bug is an edit that the parser refuses."""
    for source in METHODS:
        got, breaks = answer(source), [each for each in _deletions(source) if not is_method(each)]
        yield expect(
            f"{source!r}: {'a bug' if breaks else 'no deletion breaks it, so None'}",
            got in breaks if breaks else got is None,
            (got is None, "there is a character without which it is no method"),
            (not isinstance(got, str), f"a text is asked for, not {type(got).__name__}"),
            (not breaks, f"{got!r} is a method: return None where every deletion leaves one"),
            (got == source, "nothing was left out"),
            (got not in _deletions(source), "that is more than one character left out, or "
                                            "another edit"),
            (True, f"{got!r} is still a method: ask `is_method` before you call it a bug"))


# 09.5 ----------------------------------------------------------------------------------------


def _interval(passed: int, total: int, z: float = 1.96) -> list[float]:
    found = wilson(passed, total, z)
    return [found.low, found.high]


def _normal(passed: int, total: int, z: float = 1.96) -> list[float]:
    share = passed / total
    half = z * math.sqrt(share * (1 - share) / total)
    return [share - half, share + half]


@exercise
def wilson_interval(answer: Callable) -> Iterator[Property]:
    """09.5: where the true share may lie."""
    answer = plain(answer)
    got, want = answer(450, 500), _interval(450, 500)
    pair = isinstance(got, list) and len(got) == 2
    yield expect(
        f"450 of 500: {want[0]:.4f} to {want[1]:.4f}", same(got, want, 1e-9),
        (not pair, "return a pair: the low end and the high end"),
        (same(got, _normal(450, 500), 1e-6), "that is the normal interval, around the share "
                                             "itself: Wilson's centre is pulled towards a half"),
        (pair and same(got[::-1], want, 1e-9), "low and high are exchanged"),
        (same(got, _interval(450, 500, 1.645), 1e-3), "that is the 90 % interval: z is 1.96"),
        (same(got, [100 * each for each in want], 1e-6), "shares are asked for, not per cents"),
        (True, f"got {got}"))
    got = answer(0, 10)
    yield expect(
        "0 of 10: from 0, but not to 0", same(got, _interval(0, 10), 1e-9),
        (same(got, [0, 0], 1e-9), "nothing in ten tries does not prove that it never happens"),
        (isinstance(got, list) and bool(got) and got[0] < 0, "a share below 0"),
        (True, f"got {got}, expected {_interval(0, 10)}"))
    got = answer(10, 10)
    yield expect("10 of 10: up to 1", same(got, _interval(10, 10), 1e-9),
                 (isinstance(got, list) and len(got) == 2 and got[1] > 1, "a share above 1"),
                 (True, f"got {got}, expected {_interval(10, 10)}"))
    differs = counterexample(answer, _interval, [(n, total) for total in (1, 2, 7, 40, 1000)
                                                 for n in {0, 1, total // 3, total}], 1e-9)
    yield expect("other sizes, down to one try", not differs, (True, differs))
    for passed, total in ((0, 0), (-1, 5), (6, 5)):
        refusal = _refusal(answer, passed, total)
        named = str(passed) in refusal and str(total) in refusal
        yield expect(f"{passed} of {total} is refused with a ValueError that names both", named,
                     (not refusal, "it is no share: raise ValueError"),
                     (True, f"the error says {refusal!r}: which two numbers were given?"))


def _refusal(answer: Callable, *arguments: int) -> str:
    """What the answer's ValueError says, "" when it raises none."""
    try:
        answer(*arguments)
    except ValueError as error:
        return str(error) or "nothing"
    except ZeroDivisionError:
        pass
    return ""
