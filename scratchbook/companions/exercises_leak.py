"""The check of exercise 02.5, find the leak: layers with planted leaks, and what misses each.

Chapter:  chapters/02_attention.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from scratchbook.attention import attend, causal_mask
from scratchbook.companions.exercises_attention import shape_of
from scratchbook.norms import layer_norm, rms_norm
from scratchbook.teaching.answers import as_list, as_tensor, same
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw

Planted = tuple[str, Callable[[Tensor], Tensor], tuple[int, int] | None, str]


def _peek(output: int, source: int, seen: Callable[[Tensor], Tensor]) -> Callable:
    """A running sum whose row `output` also adds what `seen` makes of the later row `source`."""
    def layer(x: Tensor) -> Tensor:
        later = torch.zeros_like(x)
        if len(x) > source:
            later[output] = seen(x[source])
        return x.cumsum(0) + later
    return layer


def _planted_layers(x: Tensor) -> list[Planted]:
    """Layers over (time, d_model) = (6, 4), the first leak of each, and why one may miss it."""
    def looks_two_ahead_from_three(x: Tensor) -> Tensor:
        return attend(x, x, x, causal_mask(6)) + _peek(3, 5, lambda row: row)(x) - x.cumsum(0)

    def centred(x: Tensor) -> Tensor:
        return attend(x - x.mean(0), x, x, causal_mask(6))

    def two_peeks(x: Tensor) -> Tensor:
        return _peek(1, 5, lambda row: row)(x) + _peek(2, 3, lambda row: row)(x) - x.cumsum(0)

    def square(row: Tensor) -> Tensor:
        return row.square()

    def up_and_down(row: Tensor) -> Tensor:
        return row[0] * torch.tensor([0, 0, 1.0, -1.0])

    first, behind = torch.tensor([1.0, 0, 0, 0]), x[4].clone()
    norm = ("behind a norm a row moves nothing when the same number is added to all coordinates,\n"
            "or when it is multiplied by one: put random numbers into it")
    return [
        ("causal attention has no leak", lambda x: attend(x, x, x, causal_mask(6)), None, ""),
        ("a running sum has no leak", lambda x: x.cumsum(0), None, ""),
        ("noise of 3e-7, as rounding makes it, is no leak",
         lambda x: 1e-3 * x.cumsum(0) + 3e-7 * (1e4 * x.sum()).sin(), None, ""),
        ("a faint peek, a thousandth", _peek(0, 1, lambda row: 0.001 * row), (0, 1),
         "the tolerance is too wide: it is there for rounding, 1e-6 is enough"),
        ("attention without a mask leaks at once", lambda x: attend(x, x, x), (0, 1), ""),
        ("a single peek, from 3 to 5", looks_two_ahead_from_three, (3, 5), ""),
        ("two peeks: from 1 to 5 and from 2 to 3", two_peeks, (1, 5), ""),
        ("a mean over all time, inside of the query", centred, (1, 2), ""),
        ("a peek that only ever lowers the output",
         _peek(0, 4, lambda row: -(row - behind).square().sum().sqrt() - 0 * row), (0, 4),
         "a leak may move an output down: take the absolute value of the difference"),
        ("a peek at one coordinate, into one coordinate", _peek(2, 4, lambda row: first * row[3]),
         (2, 4), "one coordinate is enough for a leak: take the largest over the coordinates, and "
                 "change all of them"),
        ("a peek that lifts one coordinate and lowers another", _peek(3, 4, up_and_down), (3, 4),
         "look at every coordinate, and take absolute values before anything is added up"),
        ("a peek at squares", _peek(1, 2, square), (1, 2),
         "a row and its negative have the same squares: put random numbers into it"),
        ("a peek of 0.00001 between small outputs",
         lambda x: 1e-3 * _peek(0, 1, lambda row: 0.01 * row)(x), (0, 1),
         "the tolerance is too wide: 1e-6 is enough"),
        ("a peek through a LayerNorm", _peek(2, 5, layer_norm), (2, 5), norm),
        ("a peek through an RMSNorm", _peek(1, 3, lambda row: rms_norm(row, eps=0.0)), (1, 3),
         norm),
    ]


def _leak_mistake(got: object, want: tuple[int, int] | None, hint: str) -> str:
    """What most likely went wrong when `got` was found instead of `want`."""
    if got is not None and (len(got) != 2 or as_tensor(got) is None):
        return f"give a pair (output, input) or None, not {shape_of(got)}"
    if got is None and hint:
        return f"missed {want}: {hint}"
    if got is None:
        return f"missed {want}: try every later input against every earlier output"
    if got[0] >= got[1] and want != tuple(got)[::-1]:
        return f"{got} is no leak: looking at itself and at the past is what a layer is for"
    if want is None:
        return (f"{got} is named, but no output moves when a later input does: start from the "
                "same x each time, and compare with a small tolerance")
    if tuple(got) == want[::-1]:
        return "the pair is turned round: first the position of the output, then of the input"
    if tuple(got) < want:
        return (f"expected {want}: the output at {got[0]} does not move when the input at {got[1]} "
                "alone changes.\nChange one row at a time, and undo it before the next")
    if tuple(got) > want:
        return f"{got} does leak, but {want} comes first: go through the outputs in order"
    return f"expected {want}, got {got}"


@exercise
def find_leak(answer: Callable) -> Iterator[Property]:
    """02.5: the first position that sees the future, and what it sees."""
    x = draw(6, 4, name="leak")
    for what, layer, want, hint in _planted_layers(x):
        got = answer(layer, x.clone())
        got = got if got is None else tuple(as_list(got) or [got])
        right = same(got, want)
        yield expect(what, right, (True, _leak_mistake(got, want, hint)))
        if not right:
            return
    one = answer(lambda rows: rows.flip(0), x[:1].clone())
    yield expect("a single row has no future", one is None, (True, f"expected None, got {one}"))
    wide = draw(4, 7, name="wide leak")
    got = answer(lambda rows: rows.flip(0), wide)
    yield expect("rows of seven numbers", same(got, (0, 3)),
                 (True, f"expected (0, 3), got {got}: the width is x.shape[1]"))
    short = answer(lambda rows: rows.flip(0), x[:3].clone())
    yield expect("three rows, turned round in time", same(short, (0, 2)),
                 (True, f"expected (0, 2), got {short}: the number of rows is len(x)"))
    kept = x.clone()
    answer(lambda rows: rows.cumsum(0), kept)
    yield expect("the input is left as it was", torch.equal(kept, x),
                 (True, "x was changed in place: work on x.clone()"))
