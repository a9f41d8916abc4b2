"""The checks of chapter 02's exercises: properties first, then the mistakes people make.

Chapter:  chapters/02_attention.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from scratchbook.attention import attend, causal_mask
from scratchbook.teaching.answers import as_tensor, changes_its_input, counterexample
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


def untouched(answer: Callable, *arguments: Tensor) -> Property:
    """Whether the tensors that are given stay as they are."""
    return expect("what is given is left as it was", not changes_its_input(answer, *arguments),
                  (True, "a tensor of the caller was changed in place (`x -= ...`, `x[...] = ...` "
                         "or a method\nwhose name ends in _): compute a new one"))


def _extremes(answer: Callable, reference: Callable, q: Tensor, k: Tensor, v: Tensor
              ) -> Iterator[Property]:
    """Other sizes, and scores that are very large, very low, or a single one."""
    fewer = draw(4, name="q of 4"), draw(7, 4, name="k of 4"), draw(7, 2, name="v of 2")
    differs = counterexample(answer, reference, [fewer], 1e-5)
    yield expect("queries of other sizes, too", not differs,
                 (close(answer(*fewer), (fewer[1] @ fewer[0] / 3).softmax(0) @ fewer[2]),
                  "the 3 is written into your answer: divide by the root of the query's own size"),
                 (True, differs))
    large = answer(1000 * q, k, v)
    yield expect(
        "large scores do not overflow", close(large, v[(k @ q).argmax()]),
        (bool(large.isnan().any()), "exp of a large score is infinite, and inf / inf is NaN: "
                                    "subtract the largest score first, or use torch.softmax"),
        (True, "one score towers above the others, so the result is its value: nothing may be cut "
               "off (clamp) or\nreplaced (nan_to_num)"),
    )
    negative = answer(-1000 * q.abs(), k.abs(), v)
    yield expect(
        "nor do scores that are all in the minus thousands vanish",
        close(negative, v[(k.abs() @ q.abs()).argmin()]),
        (True, "exp of -1000 is 0, and 0 / 0 is NaN: the largest score has to be taken out even "
               "when it is negative (a search for it starts at -inf, not at 0)"),
    )
    alone = q, k[:1], v[:1, :1]
    differs = counterexample(answer, reference, [alone], 1e-5)
    yield expect("one key and values of size one", not differs, (True, differs))


@exercise
def attend_one(answer: Callable) -> Iterator[Property]:
    """02.1: attention for a single query."""
    answer, reference = in_tensors(answer), lambda q, k, v: attend(q[None], k, v)[0]
    q, k, v = draw(9, name="q"), draw(6, 9, name="k"), draw(6, 3, name="v")
    yield (kept := untouched(answer, q, k, v))
    if not kept.passed:
        return
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
        (close(got, (scores / 3**0.5).softmax(0) @ v),
         "divided by the root of the values' size (3): the scores are sums over the 9 numbers of a "
         "key"),
        (close(got, v.mean(0)), "every key got the same weight: does the query take part?"),
        (True, counterexample(answer, reference, [(q, k, v)], 1e-5)),
    )
    yield from _extremes(answer, reference, q, k, v)


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num(0.0)


def _tables_and_depths(answer: Callable) -> Iterator[Property]:
    """Several tables at once, and scores so low that exp of them is zero."""
    tables = draw(2, 3, 5, name="tables")
    visible = draw(2, 3, 5, name="visible") > -0.3
    visible[0, 1], visible[..., 4] = False, True
    visible[1, 2] = False
    differs = counterexample(answer, _masked_softmax, [(tables, visible)], 1e-5)
    yield expect("several tables at once, three queries and five keys each", not differs,
                 (close(answer(tables, visible), tables.masked_fill(~visible, -torch.inf)
                        .softmax(1).nan_to_num(0.0)),
                  f"{differs}: softmax runs over the last axis, the keys (dim=-1)"),
                 (True, differs))
    # one visible key wins by a million, so that no rounding counts
    far, near = torch.tensor([[-2e6, -1e6, 3.0], [5.0, 5.0, 5.0]]), torch.ones(2, 3).bool()
    near[:, 2] = False
    got = answer(far, near)
    yield expect(
        "it also hides keys whose neighbours score -1,000,000",
        close(got, torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])),
        (not close(answer(torch.tensor([[-200.0, -200.0, 3.0]]), near[:1]),
                   torch.tensor([[0.5, 0.5, 0.0]]))
         and not close(answer(torch.tensor([[-200.0, -200.0, -300.0]]), near[:1]),
                       torch.tensor([[0.5, 0.5, 0.0]])),
         "exp(-1,000,000) is 0, and exp(-200) is, too: take out the largest score first"),
        (close(answer(torch.tensor([[-2e6, -1e6, -1.5e6]]), near[:1]),
               torch.tensor([[0.0, 1.0, 0.0]])),
         "the largest score, which is taken out first, must be of each row its own, and of the "
         "visible\nkeys only (a softmax over all keys leaves the visible nothing to share)"),
        (True, "the number you hide with is not low enough: use -torch.inf or "
               "torch.finfo(scores.dtype).min"),
    )


@exercise
def masked_softmax(answer: Callable) -> Iterator[Property]:
    """02.2: weights under a mask, without NaN."""
    answer = in_tensors(answer)
    scores, mask = draw(4, 4), causal_mask(4)
    want = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    yield (kept := untouched(answer, scores, mask))
    if not kept.passed:
        return
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
        (not close(empty[2:], want[2:]), "the other rows changed, too: each row is on its own"),
    )
    yield from _tables_and_depths(answer)


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
    want = x.unflatten(-1, (3, -1)).transpose(1, 2)
    yield expect(
        "each head sees every position in order", close(got[0, 0, :, 0], x[0, :, 0]),
        (close(got.flip(1), want), "the heads stand in reverse order: head 0 holds the first "
                                   "numbers"),
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

    differs = counterexample(answer, reference, [
        (draw(3, 2, 10, name="heads"), 5), (x, 6), (draw(1, 1, 6, name="one position"), 2),
        (draw(2, 10, 3, name="not contiguous").transpose(1, 2), 5)])
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
    yield (kept := untouched(answer, w, upstream))
    if not kept.passed:
        return
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
        (True, f"the first row sums to {float(got[0].sum()):.3g}"),
    )
    yield expect(
        "equal to torch's autograd", close(got, want),
        (close(got, -want), "the sign is turned round"),
        (close(got, upstream - (w * upstream).sum(-1, keepdim=True)) or
         close(got, upstream - upstream.mean(-1, keepdim=True)),
         "the difference to the average is there; each still has to be multiplied by its weight"),
        (close(got, _softmax_backward(w.softmax(-1), upstream)),
         "the weights have been through the softmax already: do not apply it again"),
        (True, counterexample(answer, _softmax_backward, [(w, upstream)], 1e-5)),
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
