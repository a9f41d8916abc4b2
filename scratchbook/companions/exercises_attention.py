"""The checks of chapter 02's exercises: properties first, then the mistakes people make.

Chapter:  chapters/02_attention.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from scratchbook.attention import attend, causal_mask
from scratchbook.norms import layer_norm, rms_norm
from scratchbook.teaching.answers import as_list, as_tensor, counterexample, same
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw


def close(got: object, want: Tensor, atol: float = 1e-5) -> bool:
    """Equal shapes and nearly equal numbers; anything that is no tensor is not close."""
    if not isinstance(got, Tensor) or got.shape != want.shape:
        return False
    return torch.allclose(got.to(want.dtype), want, atol=atol)


def in_tensors(answer: Callable) -> Callable:
    """The same answer, its numbers as a tensor, whether it gives an array, a list or float64."""
    def call(*arguments: object) -> object:
        got = answer(*arguments)
        numbers = as_tensor(got)
        return got if numbers is None else numbers.float()
    return call


def shape_of(got: object) -> str:
    """What a check calls the thing it was given."""
    return str(tuple(got.shape)) if isinstance(got, Tensor) else f"a {type(got).__name__}"


@exercise
def attend_one(answer: Callable) -> Iterator[Property]:
    """02.1: attention for a single query."""
    answer, reference = in_tensors(answer), lambda q, k, v: attend(q[None], k, v)[0]
    q, k, v = draw(9, name="q"), draw(6, 9, name="k"), draw(6, 3, name="v")
    got = answer(q, k, v)
    yield expect(
        "one query gives one vector of the values' size", shape_of(got) == "(3,)",
        (shape_of(got) == "(9,)",
         "the result has the keys' size: average the values, the keys only make the weights"),
        (shape_of(got) == "(6,)", "one number per key: these are the weights, now average v"),
        (True, f"expected shape (3,), got {shape_of(got)}"),
    )
    if shape_of(got) != "(3,)":
        return
    same = torch.full((6, 3), 5.0)
    five = answer(q, k, same)
    yield expect(
        "when all values agree, the average is that value", close(five, same[0]),
        (close(five, (k @ q / 3).sum() * same[0]) or close(five, (k @ q).sum() * same[0]),
         "the scores themselves were used as weights: softmax them first"),
        (True, f"all values are 5 but the result is {five.flatten()[:1].tolist()}: "
               "the weights must be positive and sum to one"),
    )
    want = attend(q[None], k, v)[0]
    scores = k @ q
    yield expect(
        "equal to torch on random vectors", close(got, want),
        (close(got, scores.softmax(0) @ v), "the scores are not scaled: divide by the root of "
                                            "the head size, here sqrt(9) = 3"),
        (close(got, (scores / 9).softmax(0) @ v),
         "divided by the head size itself: 9 instead of sqrt(9) = 3"),
        (close(got, (scores / 6**0.5).softmax(0) @ v),
         "divided by the root of the number of keys (6): it is the root of the size of one key "
         "(9), so that more keys change nothing about the scale"),
        (close(got, (scores / scores.sum()) @ v) or close(got, (scores / 3 / scores.sum()) @ v),
         "divided by the sum: scores can be negative, softmax takes exp first"),
        (close(got, v.mean(0)), "every key got the same weight: does the query take part?"),
    )
    fewer = draw(4, name="q of 4"), draw(7, 4, name="k of 4"), draw(7, 2, name="v of 2")
    differs = counterexample(answer, reference, [fewer], 1e-5)
    yield expect("queries of other sizes, too", not differs,
                 (close(answer(*fewer), (fewer[1] @ fewer[0] / 3).softmax(0) @ fewer[2]),
                  "the 3 is written into your answer: divide by the root of the query's own size"),
                 (True, differs))
    large = answer(1000 * q, k, v)
    yield expect(
        "large scores do not overflow", close(large, v[scores.argmax()]),
        (bool(large.isnan().any()), "exp of a large score is infinite, and inf / inf is NaN: "
                                    "subtract the largest score first, or use torch.softmax"),
    )


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num(0.0)


@exercise
def masked_softmax(answer: Callable) -> Iterator[Property]:
    """02.2: weights under a mask, without NaN."""
    answer = in_tensors(answer)
    scores, mask = draw(4, 4), causal_mask(4)
    want = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    got = answer(scores, mask)
    yield expect("one weight per score", shape_of(got) == "(4, 4)",
                 (True, f"expected shape (4, 4), got {shape_of(got)}"))
    if shape_of(got) != "(4, 4)":
        return
    yield expect(
        "hidden keys get no weight", bool((got[~mask] == 0).all()),
        (close(got, scores.masked_fill(mask, -torch.inf).softmax(-1).nan_to_num(0.0)),
         "the mask is read the wrong way round: True means 'may look'"),
        (close(got, (scores * mask).softmax(-1)),
         "a score of 0 is not 'never': exp(0) is 1. Hidden scores must become -inf"),
        (close(got, scores.softmax(-1)), "the mask was not used"),
    )
    yield expect(
        "each row sums to one", close(got.sum(-1), torch.ones(4)),
        (close(got, scores.softmax(-1) * mask),
         "the mask came after the softmax: the hidden keys already took their share. "
         "Hide the scores, then softmax"),
        (close(got.sum(0), torch.ones(4)),
         "the columns sum to one: softmax runs over the keys, dim=-1"),
        (bool(got.isnan().any()), "there is NaN in it"),
    )
    yield expect("equal to torch", close(got, want),
                 (True, "rows sum to one, but the weights differ from softmax over the visible"))
    nothing = mask.clone()
    nothing[:2] = False
    empty = answer(scores, nothing)
    yield expect(
        "a row that may look at nothing is all zeros, not NaN",
        close(empty[:2], torch.zeros(2, 4)) and close(empty[2:], want[2:]),
        (bool(empty[:2].isnan().any()), "softmax of nothing but -inf is 0 / 0: treat the rows "
                                        "without a single True afterwards"),
        (close(empty[:2], torch.full((2, 4), 0.25)),
         "all four keys got 1/4: a large negative number hides nothing when the whole row has "
         "it. Set what is hidden to zero after the softmax"),
    )
    tables = draw(2, 3, 5, name="tables")
    visible = draw(2, 3, 5, name="visible") > -0.3
    visible[0, 1], visible[..., 4] = False, True
    visible[1, 2] = False
    differs = counterexample(answer, _masked_softmax, [(tables, visible)], 1e-5)
    yield expect("several tables at once, three queries and five keys each", not differs,
                 (True, f"{differs}: softmax runs over the last axis, the keys (dim=-1)"))
    far = torch.tensor([[-1e6, -1e6, 3.0]])
    yield expect(
        "it also hides keys whose neighbours score -1,000,000",
        close(answer(far, torch.tensor([[True, True, False]])), torch.tensor([[0.5, 0.5, 0.0]])),
        (True, "the number you hide with is not low enough: use -torch.inf or "
               "torch.finfo(scores.dtype).min"),
    )


@exercise
def split_heads(answer: Callable) -> Iterator[Property]:
    """02.3: from one wide vector per position to several narrow ones."""
    answer = in_tensors(answer)
    x = torch.arange(2 * 5 * 12.0).view(2, 5, 12)
    got = answer(x, 3)
    yield expect(
        "(batch, time, d_model) becomes (batch, heads, time, head_dim)",
        shape_of(got) == "(2, 3, 5, 4)",
        (shape_of(got) == "(2, 5, 3, 4)", "the heads must stand before the time, so that each "
                                          "head attends over time: transpose(1, 2)"),
        (shape_of(got) == "(2, 4, 5, 3)",
         "3 heads of size 4, not 4 heads of size 3: num_heads is the number of heads"),
        (True, f"expected (2, 3, 5, 4), got {shape_of(got)}"),
    )
    if shape_of(got) != "(2, 3, 5, 4)":
        return
    yield expect(
        "each head sees every position in order", close(got[0, 0, :, 0], x[0, :, 0]),
        (close(got, x.reshape(2, 3, 5, 4)),
         "view(batch, heads, time, head_dim) alone cuts across the positions: head 0 got all of "
         "position 0 and part of position 1. Split the last axis first, then transpose"),
    )
    yield expect(
        "head 0 holds the first four numbers of each vector", close(got[0, 0], x[0, :, :4]),
        (close(got, x.view(2, 5, 4, 3).permute(0, 3, 1, 2)),
         "the heads take every third number: split into (heads, head_dim), in this order, or "
         "weights of trained models land in the wrong head"),
    )
    yield expect("nothing is lost: joining gives x back",
                 close(got.transpose(1, 2).reshape(2, 5, 12), x))
    yield expect("with one head only an axis is added", close(answer(x, 1), x[:, None]))

    def reference(x: Tensor, num_heads: int) -> Tensor:
        return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)

    differs = counterexample(answer, reference, [(draw(3, 2, 10, name="heads"), 5), (x, 6)])
    yield expect("other sizes, too", not differs, (True, differs))


def _softmax_backward(weights: Tensor, upstream: Tensor) -> Tensor:
    return weights * (upstream - (weights * upstream).sum(-1, keepdim=True))


@exercise
def softmax_backward(answer: Callable) -> Iterator[Property]:
    """02.4: the gradient that flows from the weights back to the scores."""
    answer = in_tensors(answer)
    scores, upstream = draw(5, 7).requires_grad_(), draw(5, 7, name="upstream")
    weights = scores.softmax(-1)
    (want,) = torch.autograd.grad(weights, scores, upstream)
    w = weights.detach()
    got = answer(w, upstream)
    yield expect("one gradient per score", shape_of(got) == "(5, 7)",
                 (True, f"expected shape (5, 7), got {shape_of(got)}"))
    if shape_of(got) != "(5, 7)":
        return
    yield expect(
        "each row sums to zero (adding a constant to all scores changes nothing)",
        close(got.sum(-1), torch.zeros(5)),
        (close(got, w * upstream), "this is how the weights would move if each had its own exp "
                                   "and no sum: the share it takes from the others is missing"),
        (close(got, w * (1 - w) * upstream),
         "only the effect of each score on its own weight, w(1 - w): raising one score also "
         "lowers all the other weights of its row"),
        (close(got, w * (upstream - (w * upstream).sum(0, keepdim=True))),
         "the sum runs over the queries (dim=0): each row is a softmax of its own, dim=-1"),
        (close(got, w * (upstream - (w * upstream).sum())),
         "one average for the whole table: each row has its own, sum(dim=-1, keepdim=True)"),
        (close(got, w * (upstream - upstream.mean(-1, keepdim=True)))
         or close(got, w * (upstream - upstream.sum(-1, keepdim=True))),
         "subtract the average weighted by w, not the plain one"),
    )
    yield expect(
        "equal to torch's autograd", close(got, want),
        (close(got, -want), "the sign is turned round"),
        (close(got, upstream - (w * upstream).sum(-1, keepdim=True)) or
         close(got, upstream - upstream.mean(-1, keepdim=True)),
         "the difference to the average is there; each still has to be multiplied by its weight"),
    )
    heads = draw(2, 3, 4, name="heads").softmax(-1), draw(2, 3, 4, name="upstream of heads")
    differs = counterexample(answer, _softmax_backward, [heads], 1e-5)
    yield expect("several tables at once: (heads, queries, keys)", not differs,
                 (close(answer(*heads), heads[0] * (heads[1] - (heads[0] * heads[1]).sum(
                     1, keepdim=True))), "dim=1 is the last axis of one table only; the keys are "
                                         "always dim=-1"),
                 (True, differs))
    constant = answer(w, torch.ones(5, 7))
    yield expect("an equal pull on all weights moves nothing", close(constant, torch.zeros(5, 7)))


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
    short = answer(lambda rows: rows.flip(0), x[:3].clone())
    yield expect("three rows, turned round in time", same(short, (0, 2)),
                 (True, f"expected (0, 2), got {short}: the number of rows is len(x)"))
    kept = x.clone()
    answer(lambda rows: rows.cumsum(0), kept)
    yield expect("the input is left as it was", torch.equal(kept, x),
                 (True, "x was changed in place: work on x.clone()"))
