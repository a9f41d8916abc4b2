"""The checks of exercises 06d.2 and 06d.3: properties first, then the mistakes people make.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from scratchbook.companions.exercises_hooks import unless
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw

# 06d.2 --------------------------------------------------------------------------------------


CASES = (  # a source, the cuts between its tokens, a name or a constant to be found
    ("x = price\n", (1, 3, 4, 9), "price"),
    ("x = price + tax\n", (2, 7, 12, 15), "price"),
    ("total = a\nprice = b\n", (5, 9, 12, 15, 17, 19), "b"),
    ("é = price\n", (1, 4, 6, 9), "price"),
    ("s = '汉字' + price + x\n", (4, 8, 11, 13, 16, 20), "price"),
    ("a = 1\n\ns = 'ü'; rate = cost\n", (6, 9, 15, 20, 22, 24), "cost"),
    ("f(alpha, beta)\n", (1, 2, 7, 9, 13), "alpha"),
)
LINES = (  # a source, its cuts, a name whose last place is asked for, and what goes wrong
    ("price = price + 1\n", (2, 5, 8, 13, 15), "price",
     "the node's text stands in two places: its line and column say which is meant"),
    ("é = 'ü'\nx = price\n", (4, 8, 12, 13, 17), "price",
     "a column counts bytes; whole lines before it count as characters, like the spans"),
    ("a = 1\r\nb = 2\r\nx = price\r\n", (3, 7, 14, 17, 18, 23), "price",
     "a line can end in two characters (\\r\\n), and both count"),
    ("a = 1\n\f\nx = price\n", (3, 6, 8, 11, 12, 17), "price",
     "str.splitlines also cuts at a form feed (\\f), which ends no line of Python: split at "
     "\\n"),
    ("s = '\U0001f600'; x = price\n", (4, 7, 9, 13, 18), "price",
     "this character has four bytes of UTF-8 and is one character (it is two of UTF-16)"),
    ("f(a)\n", (1, 4), "a", "a token that reaches over both ends of the node touches it too"),
    ("x = price\n", (4, 8), "price",
     "its last character counts: end_col_offset is the place behind it"),
)


@exercise
def tokens_of(answer: Callable) -> Iterator[Property]:
    """06d.2: the tokens that a node of Python's syntax tree touches."""
    for source, cuts, name in CASES:
        edges = [0, *cuts, len(source)]
        spans = list(zip(edges, edges[1:], strict=False))
        node = next(each for each in ast.walk(ast.parse(source))
                    if isinstance(each, ast.Name) and each.id == name)
        start = source.index(name)
        stop = start + len(name)
        wanted = _touching(spans, start, stop)
        got = [int(place) for place in answer(source, node, spans)]
        line, column = node.lineno, node.col_offset
        before = len("".join(source.splitlines(keepends=True)[: line - 1]))
        yield expect(
            f"{name!r} in {source!r}: tokens {wanted}", got == wanted,
            (got == _touching(spans, before + column, before + column + len(name)),
             "col_offset counts bytes of UTF-8, and this line has characters of several"),
            (got in (_touching(spans, before + column, stop),
                     _touching(spans, start, before + column + len(name))),
             "one end counts bytes of UTF-8: this line has characters of several"),
            (got == _touching(spans, column, column + len(name)),
             "col_offset counts from the start of its line, spans from that of the source"),
            (got == [i for i, (a, b) in enumerate(spans) if start <= a and b <= stop],
             "a token that reaches over the node's edge touches it too"),
            (got == [i for i, (a, b) in enumerate(spans) if a <= stop and b >= start],
             "a span ends before the character at its second number: tokens that only meet the "
             "node's edge share no character with it"),
            (got == [i for i, (a, b) in enumerate(spans) if a <= start < b],
             "this is the first of its tokens alone"),
            (True, f"you returned {got}; the spans are {spans}"))
    yield from _a_statement(answer)
    for source, cuts, name, advice in LINES:
        edges = [0, *cuts, len(source)]
        spans = list(zip(edges, edges[1:], strict=False))
        *_, node = (each for each in ast.walk(ast.parse(source))
                    if isinstance(each, ast.Name) and each.id == name)
        start = source.rindex(name)
        wanted = _touching(spans, start, start + len(name))
        got = [int(place) for place in answer(source, node, spans)]
        yield from unless(got == wanted, f"the last {name!r} in {source!r}: tokens {wanted}",
                          (True, advice))
    yield from _two_lines(answer)


def _two_lines(answer: Callable) -> Iterator[Property]:
    source = "\u00e9 = 1; z =  (1,\n '\u00fc' + q); w = 2\n"
    spans = [(place, place + 1) for place in range(len(source))]
    given, node = list(spans), ast.parse(source).body[1]
    got = [int(place) for place in answer(source, node, given)]
    start, stop = source.index("z"), source.index("; w")
    yield from unless(got == list(range(start, stop)), f"z = ... in {source!r}", (
        True, f"each character is a token here: tokens {start} to {stop - 1}; you returned {got}"))
    yield from unless(given == spans, "the spans stay as they were", (
        True, "it changes the list that it was given"))
    parts = [(0, 2), (2, 4), (4, 5), (4, 5), (5, 6)]
    node = ast.parse("x = \u00e9\n").body[0].value
    got = [int(place) for place in answer("x = \u00e9\n", node, parts)]
    yield from unless(got == [2, 3], "two tokens that are parts of one character", (
        True, f"you returned {got}; the spans are {parts}: both share it with the node"))


def _touching(spans: list[tuple[int, int]], start: int, stop: int) -> list[int]:
    return [place for place, (a, b) in enumerate(spans) if a < stop and b > start]


def _a_statement(answer: Callable) -> Iterator[Property]:
    source = "def f(x):\n    y = 'é'\n    return x\nz = 2\n"
    spans = [(i, min(i + 4, len(source))) for i in range(0, len(source), 4)]
    function = ast.parse(source).body[0]
    stop = source.index("\nz")
    wanted, got = _touching(spans, 0, stop), [int(p) for p in answer(source, function, spans)]
    yield expect(f"a function of three lines: tokens 0 to {wanted[-1]}", got == wanted,
                 (len(got) < len(wanted), "it ends too early: a node has an end_lineno of its own"),
                 (True, f"you returned {got}"))


# 06d.3 --------------------------------------------------------------------------------------


@exercise
def misread(answer: Callable) -> Iterator[Property]:
    """06d.3: the queries whose favourite brings less than another token."""
    weights = torch.tensor([[1.0, 0, 0], [0.6, 0.4, 0], [0.7, 0.1, 0.2]])
    values, output = torch.tensor([[0.1, 0.0], [3.0, 0.0], [0.0, 0.2]]), torch.eye(2)
    given = [each.clone() for each in (weights, values, output)]
    raw = answer(*given)
    got = _places(raw)
    again = _places(answer(*(each.clone() for each in (weights, values, output))))
    yield from unless(again == got, "the same question, the same answer", (
        True, f"first {got}, then {again}: something is kept from one call to the next"))
    yield from unless(
        all(map(torch.equal, given, (weights, values, output))), "what it is given stays as it was",
        (True, "it writes into one of its arguments: the caller's map is another one now"))
    yield expect("three tokens: the favourite, token 0, brings 0.06 to query 1 and 0.07 to query "
                 "2; token 1 brings 1.2 and 0.3", got == [1, 2],
                 (isinstance(raw, Tensor) and raw.dtype == torch.bool,
                  "this says yes or no for each query; asked are the numbers of those with yes"),
                 (got == [0], "query 0 is the one that is read rightly; asked are the numbers of "
                              "the other queries, not those of their favourites"),
                 (got == [0, 1, 2], "query 0 sees itself alone: its favourite brings most"),
                 (got == [], "the favourite is the largest weight, what it brings weight times "
                             "length: compare two argmax, each along the row of a query, the "
                             "length being that of the token looked at"),
                 (True, f"you returned {got}"))
    flat = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    got = _places(answer(weights, torch.tensor([[1.0, 0.0], [0.0, 9.0], [0.0, 9.0]]), flat))
    yield expect("values that the output matrix sends to zero bring nothing: none is misread",
                 got == [],
                 (True, "the length counts behind the output matrix: it is output @ value that is "
                        "added to the stream"))
    weights = torch.tensor([[1.0, 0, 0], [0.51, 0.49, 0], [0.51, 0, 0.49]])
    three = torch.tensor([[3.0, 4], [0, 6], [0, 4.5]])
    got, sums = _places(answer(weights, three, torch.eye(2))), _norm_of(answer)
    yield from unless(
        got == [1], "values (3, 4), (0, 6) and (0, 4.5): lengths 5, 6 and 4.5",
        (sums == 1, "the length is the root of the sum of squares: (3, 4) has 5, not 3 + 4"),
        (sums == torch.inf, "the length is the root of the sum of squares: (3, 4) has 5, not 4"),
        (True, f"you returned {got}: query 1 gets 2.55 from token 0 and 2.94 from token 1, query "
               "2 gets 2.55 from token 0 and 2.21 from token 2"))
    for time, head_dim, d_model in ((5, 2, 3), (9, 4, 3), (12, 3, 7), (8, 4, 4)):
        scores = draw(time, time, name=f"scores {time}") * 2
        weights = scores.masked_fill(torch.ones(time, time).triu(1).bool(), -torch.inf).softmax(-1)
        values = draw(time, head_dim, name=f"values {time}")
        output = draw(d_model, head_dim, name=f"output {time}")
        yield _random_case(answer, weights, values, output)


def _places(got: object) -> list[int]:
    """Whole numbers, in order; what is none stays as it is, and equals no right answer."""
    return sorted(int(each) if int(each) == each else each for each in got)


def _norm_of(answer: Callable) -> float | None:
    """The length that an answer takes where it is not the root of the squares: 1 for the sum, inf
    for the largest coordinate."""
    weights, values = draw(40, 40, name="many").softmax(-1), draw(40, 5, name="long")
    got = _places(answer(weights.clone(), values.clone(), torch.eye(5)))
    for order in (1, torch.inf):
        brought = weights * values.norm(order, dim=-1)
        if got == (brought.argmax(-1) != weights.argmax(-1)).nonzero()[:, 0].tolist():
            return order
    return None


def _random_case(answer: Callable, weights: Tensor, values: Tensor, output: Tensor) -> Property:
    def of(brought: Tensor) -> list[int]:
        return (brought.argmax(-1) != weights.argmax(-1)).nonzero()[:, 0].tolist()

    moved = values @ output.T  # (time, d_model)
    wanted, got = of(weights * moved.norm(dim=-1)), _places(answer(weights, values, output))
    return expect(
        f"{len(values)} tokens, head_dim {values.shape[1]}, d_model {output.shape[0]}: {wanted}",
        got == wanted,
        (got == of(weights * values.norm(dim=-1)), "the output matrix is left out"),
        (got == of(weights * moved.sum(-1)), "a sum of coordinates is no length: positive and "
                                             "negative ones cancel"),
        (got == of(moved.norm(dim=-1).expand_as(weights)), "the weight is left out: what is "
                                                           "brought is weight times length"),
        (got == of(weights * moved.norm(dim=-1)[:, None]), "the length belongs to the token that "
         "is looked at, so it multiplies columns, not rows"),
        (got == of(weights * moved.norm(dim=-1).square()), "the length is squared"),
        (values.shape[1] == len(output) and got == of(weights * (values @ output).norm(dim=-1)),
         "the output matrix is turned: it is (d_model, head_dim), so a value goes from its right"),
        (True, f"you returned {got}"))
