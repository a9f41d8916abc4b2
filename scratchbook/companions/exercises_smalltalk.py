"""The checks of chapter 09's exercises but 09.4: properties first, then the mistakes people make.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from scratchbook.evaluation.comparing import wilson
from scratchbook.teaching.answers import (
    as_list,
    as_tensor,
    changes_its_input,
    counterexample,
    is_rounded,
    same,
)
from scratchbook.teaching.checking import Property, exercise, expect

Message = tuple[str, list[str]]


def plain(answer: Callable) -> Callable:
    """The same answer with lists for tuples, arrays and generators, at every depth."""
    def call(*arguments: object) -> object:
        return _lists(answer(*arguments))
    return call


def _lists(got: object) -> object:
    if isinstance(got, str):
        return str(got)          # of numpy's strings, too
    items = as_list(got)
    return got if items is None else [_lists(item) for item in items]


def changes(answer: Callable, cases: Sequence[tuple]) -> str:
    """The first of the cases whose list a call leaves other than it was, or ""."""
    for arguments in cases:
        try:
            if changes_its_input(answer, *arguments):
                return repr(arguments[0])
        except Exception:      # the counterexample has told it
            continue
    return ""


def is_operator(token: str) -> bool:
    """Whether a token is a binary selector."""
    return not any(character.isalnum() for character in token)


def _cascade(tokens: Sequence[str]) -> list:
    """Receiver and messages, the receiver's own messages left in it."""
    first, *rest = [list(group) for mark, group in groupby(tokens, lambda t: t == ";") if not mark]
    keywords = [at for at, token in enumerate(first) if token.endswith(":")]
    cut = keywords[0] if keywords else len(first) - (2 if is_operator(first[-2]) else 1)
    return [first[:cut], [_message(part) for part in [first[cut:], *rest]]]


def _message(part: Sequence[str]) -> list:
    return ["".join(part[::2]), list(part[1::2])]


def _some_cascade(draw: random.Random) -> list[str]:
    names = ["t", "Set", "aStream", "#x", "self", "3", "-3", "'a; b: c'", "$a"]

    def message() -> list[str]:
        kind = draw.choice(("unary", "binary", "keyword", "keyword"))
        if kind == "unary":
            return [draw.choice(("new", "cr", "yourself", "size"))]
        if kind == "binary":
            signs = ("+", "-", "->", ",", ">=", "//", "==", "@", "|")
            return [draw.choice(signs), draw.choice(names)]
        words = draw.choice((["show:"], ["at:", "put:"], ["from:", "to:", "do:"]))
        return [token for word in words for token in (word, draw.choice(names))]

    tokens, last = [draw.choice(names)], message()
    before = [["new"], ["first"], ["*", "2"]]
    if len(last) == 1:
        before.pop()     # t * 2 new; cr: `new` is sent to 2, * has an argument of two tokens
    for _ in range(draw.randrange(3)):
        tokens += draw.choice(before)
    tokens += last
    for _ in range(draw.randrange(1, 5)):
        tokens += [";", *message()]
    return tokens


@exercise
def parse_cascade(answer: Callable) -> Iterator[Property]:
    """09.1: one receiver, several messages."""
    answer = plain(answer)
    tokens = ["t", "show:", "a", ";", "cr", ";", "at:", "1", "put:", "2", ";", "+", "3"]
    want = [["t"], [["show:", ["a"]], ["cr", []], ["at:put:", ["1", "2"]], ["+", ["3"]]]]
    got = answer(list(tokens))
    pair = isinstance(got, list) and len(got) == 2 and isinstance(got[1], list)
    messages = got[1] if pair else []
    pairs = [each for each in messages if isinstance(each, list) and len(each) == 2]
    yield expect(
        "t show: a; cr; at: 1 put: 2; + 3: four messages to t", got == want,
        (not pair, "return a pair: the receiver's tokens, and the messages"),
        (got == ["t", want[1]], "the receiver is a list of tokens: it may have several"),
        (got == want[::-1], "exchanged: first the receiver's tokens, then the messages"),
        (messages == want[1][1:], "the message before the first ; is one of the cascade's, too"),
        (messages == want[1][:-1], "the last message, + 3, is missing: no ; stands behind it"),
        (messages == [each for each in want[1] if each[1]],
         "cr is a message, too: its list of arguments is empty"),
        (len(pairs) < len(messages) or any(isinstance(each[1], str) for each in pairs),
         "a message is a pair: its selector and the list of its arguments"),
        (any(each[0] == "at:" for each in pairs),
         "at: 1 put: 2 is one message: its selector is at:put:, its arguments are 1 and 2"),
        (pair and len(messages) == 4 and got[0] == ["t"],
         f"expected {want[1]}, got {messages}"),
        (True, f"expected {want}, got {got}"))
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
    some += [["-3", "abs", ";", "negated"], ["'a; b: c'", "size", ";", "hash"]]
    some.append(["Set", "new", "at:", "1", "put:", "2", "a:", "3", "b:", "4", "c:", "5",
                 *[";", "cr"] * 40])
    cases = [(tokens,) for tokens in some]
    differs = counterexample(answer, _cascade, cases)
    yield expect("200 more, and one of 41 messages", not differs, (True, differs))
    changed = changes(answer, cases)
    yield expect("the tokens are what they were", not changed,
                 (True, f"the list was changed: {changed}"))


UNARY = {"negated": lambda x: -x, "squared": lambda x: x * x}
BINARY = {"+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y}
KEYWORD = {"max:": max, "min:": min}


def _value(tokens: Sequence[str]) -> int:
    rest = list(tokens)

    def unary() -> int:
        value = int(rest.pop(0))
        while rest and rest[0] in UNARY:
            value = UNARY[rest.pop(0)](value)
        return value

    def binary() -> int:
        value = unary()
        while rest and rest[0] in BINARY:
            value = BINARY[rest.pop(0)](value, unary())
        return value

    value = binary()
    return KEYWORD[rest.pop(0)](value, binary()) if rest else value


def _some_sum(draw: random.Random) -> list[str]:
    def number() -> list[str]:
        return [str(draw.randrange(draw.choice((10, 30)))),
                *draw.choices(list(UNARY), k=draw.choice((0, 0, 0, 1, 2, 3)))]

    def part() -> list[str]:
        tokens = number()
        for _ in range(draw.choice((0, 1, 1, 2, 3, 5))):
            tokens += [draw.choice(list(BINARY)), *number()]
        return tokens
    return part() + ([draw.choice(list(KEYWORD)), *part()] if draw.random() < 0.6 else [])


def _value_of(answer: Callable, tokens: Sequence[str]) -> object:
    """What is answered, as an int where it is one number near it: 7.0, a fraction, a tensor."""
    got = answer(list(tokens))
    number = as_tensor(got)
    if number is None or number.dim() or not math.isfinite(number):
        return got
    near = round(number.item())
    return near if same(got, near) else got


@exercise
def message_value(answer: Callable) -> Iterator[Property]:
    """09.2: unary before binary, binary from left to right, keyword last."""
    for text, why, slip, advice in (
            ("7", "a number is its own value", None, ""),
            ("3 + 4 * 2", "binary messages go from left to right, * is no stronger than +",
             11, "11 is what school teaches: here 3 + 4 is computed first"),
            ("2 + 3 squared", "a unary message is sent before a binary one",
             25, "25 is (2 + 3) squared: `squared` goes to the 3 alone"),
            ("5 max: 3 + 4", "a binary message is sent before a keyword one",
             9, "9 is (5 max: 3) + 4: the argument of max: is all of 3 + 4"),
            ("1 + 2 max: 5", "the keyword's receiver is everything before it",
             6, "6 is 1 + (2 max: 5): the receiver of max: is all of 1 + 2"),
            ("2 squared negated", "unary messages go from left to right",
             4, "4 is (2 negated) squared"),
            ("9 - 4 negated - 1 max: 3 * 5 squared", "all three kinds", None, "")):
        tokens = text.split()
        got, want = _value_of(answer, tokens), _value(tokens)
        right = isinstance(got, int) and got == want
        yield expect(f"{text} is {want}: {why}", right,
                     (got is None, "nothing is returned"),
                     (isinstance(got, str), f"{got!r} is a text: return the number"),
                     (isinstance(got, int) and got == slip, advice),
                     (True, f"got {got!r}"))
    draw = random.Random(2)
    some = sorted((_some_sum(draw) for _ in range(200)), key=len)
    some = [tokens for tokens in some if abs(_value(tokens)) < 2**50]   # what a float holds
    some += [["70000", "squared"], ["1", *["+", "1"] * 40], ["2", *["negated"] * 41]]
    cases = [(tokens,) for tokens in some]
    differs = counterexample(lambda tokens: _value_of(answer, tokens), _value, cases)
    yield expect("200 more, of large numbers and of many messages, too", not differs,
                 (True, differs))
    changed = changes(answer, cases)
    yield expect("the tokens are what they were", not changed,
                 (True, f"the list was changed, copy it first: {changed}"))


MARKS = PREFIX, SUFFIX, MIDDLE, END = 100, 101, 102, 103


def _split(ids: Sequence[int], start: int, stop: int, marks: Sequence[int] = MARKS) -> list:
    prefix, suffix, middle, end = marks
    prompt = [prefix, *ids[:start], suffix, *ids[stop:], middle]
    hole = [*ids[start:stop], end]
    return [[*prompt, *hole], [False] * len(prompt) + [True] * len(hole)]


@exercise
def fim_split(answer: Callable) -> Iterator[Property]:
    """09.3: what stood in the hole is told last, and only that is learned."""
    answer = plain(answer)
    given = [1, 2, 3, 4, 5]
    got, want = answer(list(given), 1, 3, MARKS), _split(given, 1, 3)
    pair = isinstance(got, list) and len(got) == 2 and all(isinstance(x, list) for x in got)
    ids, learned = got if pair else ([], [])
    yield expect(
        "a hole at 1 to 3 of 1 2 3 4 5: prefix, suffix, then the middle", ids == want[0],
        (not pair, "return two lists: the ids, and for each whether it is learned"),
        (any(isinstance(each, list) for each in ids),
         "a list stands in the list of ids: *ids[:start] puts in its items"),
        (ids == [PREFIX, 1, MIDDLE, 2, 3, SUFFIX, 4, 5, END],
         "the middle stands where it stood: it must come last, behind both of its sides"),
        (ids == want[0][:-1], "the end's mark is missing: the model must learn to stop"),
        (ids == _split(given, 1, 4)[0], "the id at `stop` is behind the hole already"),
        (not any(mark in ids for mark in MARKS), "the four marks are missing"),
        (ids == [SUFFIX, 4, 5, PREFIX, 1, MIDDLE, 2, 3, END],
         "suffix first is used too; here the prefix is first"),
        (True, f"expected {want[0]}, got {ids}"))
    if not pair:
        return
    marks = [bool(each) for each in learned]
    yield expect(
        "learned are the hole and the end, nothing else", same(learned, want[1]),
        (len(marks) != len(ids), "one True or False for each id"),
        (any(each not in (0, 1) for each in learned), f"True or False for each id, not {learned}"),
        (marks == [not each for each in want[1]], "the other way round: True where it is learned"),
        (all(marks), "the prompt is given: a model that learns to write it learns something else"),
        (marks == [*want[1][:-1], False], "the end is learned too: else the model never stops"),
        (True, f"expected {want[1]}, got {marks}"))
    draw, cases = random.Random(3), []
    for size in (*range(12), 60):
        start, stop = sorted(draw.choices(range(size + 1), k=2))
        cases += [([draw.randrange(8) for _ in range(size)], *hole,
                   tuple(draw.sample(range(10, 99), 4)))
                  for hole in ((start, stop), (0, size), (size, size), (0, 0))]
    differs = counterexample(answer, _split, cases)
    yield expect("other marks, and holes at the ends, of no token, of all", not differs,
                 (True, differs))
    changed = changes(answer, cases)
    yield expect("the ids are what they were", not changed,
                 (True, f"the list was changed: {changed}"))


NEAR = 1e-5   # float32 is fine, and so is the z of a table, 1.959964


def _interval(passed: int, total: int, z: float = 1.96) -> list[float]:
    found = wilson(passed, total, z)
    return [found.low, found.high]


def _normal(passed: int, total: int, z: float = 1.96) -> list[float]:
    share = passed / total
    half = z * math.sqrt(share * (1 - share) / total)
    return [share - half, share + half]


def _numbers(got: object) -> list[float]:
    numbers = as_tensor(got)
    return [] if numbers is None else numbers.flatten().tolist()


@exercise
def wilson_interval(answer: Callable) -> Iterator[Property]:
    """09.5: where the true share may lie."""
    answer = plain(answer)
    got, want = answer(450, 500), _interval(450, 500)
    pair = isinstance(got, list) and len(got) == 2
    yield expect(
        f"450 of 500: {want[0]:.4f} to {want[1]:.4f}", same(got, want, NEAR),
        (not pair, "return a pair: the low end and the high end"),
        (same(got, _normal(450, 500), 1e-6), "that is the normal interval, around the share "
                                             "itself: Wilson's centre is pulled towards a half"),
        (pair and same(got[::-1], want, 1e-9), "low and high are exchanged"),
        (pair and same(got, [sum(want) / 2, (want[1] - want[0]) / 2], NEAR),
         "that is the centre and the half-width: return the two ends"),
        (same(got, _interval(450, 500, 1.645), 1e-3), "that is the 90 % interval: z is 1.96"),
        (same(got, [100 * each for each in want], 1e-6), "shares are asked for, not per cents"),
        (pair and all(map(is_rounded, got, want)), "rounded: return all the digits"),
        (pair and same(sum(_numbers(got)), sum(want), 1e-9),
         f"got {got}: the centre is right, the width is not"),
        (True, f"got {got}"))
    got = answer(0, 10)
    yield expect(
        "0 of 10: from 0, but not to 0", same(got, _interval(0, 10), NEAR),
        (same(got, [0, 0], NEAR), "nothing in ten tries does not prove that it never happens"),
        (min(_numbers(got), default=0) < -NEAR, f"a share below 0: {got}"),
        (True, f"got {got}, expected {_interval(0, 10)}"))
    got = answer(10, 10)
    yield expect("10 of 10: up to 1", same(got, _interval(10, 10), NEAR),
                 (max(_numbers(got), default=0) > 1 + NEAR, f"a share above 1: {got}"),
                 (True, f"got {got}, expected {_interval(10, 10)}"))
    differs = counterexample(answer, _interval, [(n, total) for total in (1, 2, 7, 40, 1000, 10**5)
                                                 for n in (0, 1, total // 3, total)], NEAR)
    yield expect("other sizes, down to one try", not differs, (True, differs))
    for passed, total in ((0, 0), (-1, 5), (-3, 17), (23, 17), (-1, -5)):
        refusal = _refusal(answer, passed, total)
        named = {str(passed), str(total)} <= set(re.findall(r"-?\d+", refusal))
        yield expect(f"{passed} of {total} is refused with a ValueError that names both", named,
                     (not refusal, "it is no share: raise ValueError"),
                     (True, f"the error says {refusal!r}: which two numbers were given?"))


def _refusal(answer: Callable, *arguments: int) -> str:
    """What the answer's ValueError says, "" when it raises none."""
    try:
        answer(*arguments)
    except ValueError as error:
        return str(error) or "nothing"
    except (ArithmeticError, AssertionError, TypeError):
        pass
    return ""
