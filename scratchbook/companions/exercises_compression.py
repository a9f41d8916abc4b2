"""The checks of chapter 07's exercises: properties first, then the mistakes people make.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from scratchbook.teaching.answers import as_tensor, changes_its_input, counterexample, same
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw


def plain(answer: Callable) -> Callable:
    """The same answer, its numbers in float64: lists, bytes, arrays and tensors alike."""
    def call(*arguments: object) -> object:
        got = answer(*arguments)
        got = _lists(got)
        numbers = as_tensor(got)
        return got if numbers is None else numbers
    return call


def _lists(got: object) -> object:
    """Bytes and generators as lists, also within lists."""
    if isinstance(got, list | tuple | bytes | bytearray) or hasattr(got, "__next__"):
        return [_lists(item) for item in got]
    return got


def shape(got: object) -> tuple[int, ...] | None:
    """The shape of a tensor; None for anything else."""
    return tuple(got.shape) if isinstance(got, Tensor) else None


def _said(got: object) -> str:
    return f"{got:.5g}" if shape(got) == () else f"{got}"


# 07.1 ----------------------------------------------------------------------------------------


def _divergence(student: Tensor, teacher: Tensor, dim: int = -1) -> Tensor:
    ours, theirs = student.double().log_softmax(dim), teacher.double().log_softmax(dim)
    return (theirs.exp() * (theirs - ours)).sum(dim)


def _soft_label_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return temperature**2 * _divergence(student / temperature, teacher / temperature).mean()


def _soft_label_mistakes(got: object, student: Tensor, teacher: Tensor, temperature: float
                         ) -> list[tuple[bool, str]]:
    """What each known slip gives for these logits (batch, time, vocab)."""
    t, cool = temperature, (student / temperature, teacher / temperature)
    want, vocab = _soft_label_loss(student, teacher, t), student.shape[-1]
    entropy = -(cool[1].softmax(-1) * cool[1].log_softmax(-1)).sum(-1).mean()
    turned, sharp = _divergence(*cool[::-1]).mean(), _divergence(student, teacher).mean()
    places, rows = student.shape[0] * student.shape[1], student.shape[0]
    slips = {
        "the square of the temperature is missing: the loss, and its gradient, shrink by it":
            [want / t**2],
        "times the temperature once: it is its square that keeps the gradient's size": [want / t],
        "the temperature flattens nothing: divide both logits by it before the softmax":
            [sharp, sharp * t**2],
        "only the teacher's logits were divided by the temperature":
            [_divergence(student, cool[1]).mean() * f for f in (1, t**2)],
        "only the student's logits were divided by the temperature":
            [_divergence(cool[0], teacher).mean() * f for f in (1, t**2)],
        "the logits were multiplied by the temperature: that sharpens, dividing flattens":
            [_divergence(student * t, teacher * t).mean() * t**2],
        "the divergence is the wrong way round: the teacher's probabilities are the weights, "
        "log p of the teacher minus log p of the student": [turned, turned * t**2],
        "the sign is turned round: no divergence is below zero": [-want],
        "the mean runs over the vocabulary too: sum over it, then the mean over the places":
            [want / vocab, want / vocab / t**2],
        "the sum was divided by the rows of the batch alone (`batchmean`): each row holds many "
        "places": [want * places / rows, want * places / rows / t**2],
        "this is the sum over the places: divide by their number": [want * places],
        "this is the cross-entropy: what the teacher does not know itself, its entropy, is in it":
            [want + t**2 * entropy, entropy + want / t**2],
        "these are bits: take the natural logarithm": [want / math.log(2)],
        "the softmax runs along the wrong axis: each place has a distribution over the vocabulary, "
        "the last axis": [f * _divergence(*cool, dim).mean() for dim in (0, 1) for f in (1, t**2)],
    }
    found = [(any(same(got, wrong, 1e-4) for wrong in wrongs), message)
             for message, wrongs in slips.items()]
    return [*found, (True, f"expected {want:.5g}, got {_said(got)}")]


@exercise
def temperature_kl(answer: Callable) -> Iterator[Property]:
    """07.1: a student's distance from its teacher, at a temperature."""
    answer = plain(answer)
    student, teacher = (3 * draw(2, 5, 7, name=name) for name in ("student", "teacher"))
    changed = changes_its_input(answer, student, teacher, 2.0)
    got = answer(student.clone(), teacher.clone(), 2.0)
    yield expect("one number", shape(got) == (),
                 (shape(got) == (2, 5), "each place has its own: take the mean over all places"),
                 (shape(got) == (2, 5, 7), "sum over the vocabulary, then take the mean"),
                 (True, "return one number, the mean over all places"))
    yield expect("the logits are what they were", not changed,
                 (True, "the logits were changed in place: `x / t` makes new ones, `x /= t` not"))
    if shape(got) != ():
        return
    equal = answer(teacher.clone(), teacher.clone(), 1.0)
    yield expect("a student that says what its teacher says costs nothing", same(equal, 0.0, 1e-5),
                 *_soft_label_mistakes(equal, teacher, teacher, 1.0))
    right = True
    for what, t in (("at temperature 1 the divergence", 1.0),
                    ("at temperature 2 the same gradient's size", 2.0),
                    ("at temperature 0.5", 0.5)):
        got = answer(student.clone(), teacher.clone(), t)
        right = right and same(got, _soft_label_loss(student, teacher, t), 1e-4)
        yield expect(what, same(got, _soft_label_loss(student, teacher, t), 1e-4),
                     *_soft_label_mistakes(got, student, teacher, t))
    got, want = (f(300 * student, 300 * teacher, 1.0) for f in (answer, _soft_label_loss))
    yield expect("logits of a thousand too", same(got, want, 1e-4),
                 (not right, f"expected {want:.5g}, got {_said(got)}"),
                 (True, f"expected {want:.5g}, got {_said(got)}: exp of large logits leaves what "
                        "a float can hold, and the log of a probability that became 0 is infinite; "
                        "log_softmax avoids both"))
    turned = draw(4, 6, 3, name="turned").transpose(0, 1)
    sizes = [(4,), (1, 3), (2, 1), (6, 5), (2, 3, 2, 4), (3, 300)]
    inputs = [*((draw(*size, name="s"), draw(*size, name="t"), 3.0) for size in sizes),
              (turned, turned.flip(0), 1.5), (student[:1], teacher[:1], 4)]
    differs = counterexample(answer, _soft_label_loss, inputs, 1e-4)
    yield expect("any number of places and tokens", not differs, (True, differs))


# 07.3 ----------------------------------------------------------------------------------------


def _moved(weight: Tensor, column: int, step: float, direction: Tensor) -> Tensor:
    """The column rounded; the later ones moved by its error times `direction`, one entry each."""
    weight = weight.double().clone()
    rounded = (weight[:, column] / step).round() * step
    weight[:, column + 1 :] -= (weight[:, column] - rounded)[:, None] * direction
    weight[:, column] = rounded
    return weight


def _direction(products: Tensor, column: int) -> Tensor:
    """Least squares: the move of the later inputs that says best what one of this input said."""
    products = products.double()
    later = products[column + 1 :, column + 1 :]
    return -torch.linalg.solve(later, products[column + 1 :, column]) if len(later) else later[0:0]


def _gptq_column(weight: Tensor, column: int, step: float, products: Tensor) -> Tensor:
    direction = _direction(products, column).reshape(-1)
    return _moved(weight, column, step, direction)


def _gptq_mistakes(got: Tensor, weight: Tensor, column: int, step: float, products: Tensor
                   ) -> list[tuple[bool, str]]:
    h, c = products.double(), column
    free, whole = h[c:, c:].inverse(), h.inverse()
    factor = torch.linalg.cholesky(free, upper=True)
    directions = {
        "the later columns did not move: this is rounding to the nearest":
            [torch.zeros(len(free) - 1)],
        "the later columns moved the wrong way: subtract": [-free[0, 1:] / free[0, 0]],
        "the error is not divided by the inverse's own entry of this column": [free[0, 1:]],
        "divided by the inverse's entry twice, or by its square": [free[0, 1:] / free[0, 0] ** 2],
        "the error went into the products themselves: their inverse says how the others make up "
        "for it": [h[c, c + 1 :] / h[c, c], h[c, c + 1 :], -h[c, c + 1 :] / h[c, c]],
        "the products of all columns were inverted: those before are fixed and can make up for "
        "nothing; invert products[column:, column:]":
            [whole[c, c + 1 :] / whole[c, c], whole[c, c + 1 :]],
        "a row of the Cholesky factor is to be divided by its own first entry": [factor[0, 1:]],
        "each later column moved by the whole error, whatever its inputs": [torch.ones(
            len(free) - 1), -torch.ones(len(free) - 1)],
    }
    return [(any(same(got, _moved(weight, c, step, wrong), 1e-3) for wrong in wrongs), message)
            for message, wrongs in directions.items()]


def _first_wrong(got: Tensor, want: Tensor) -> str:
    row, column = divmod((got - want).abs().argmax().item(), want.shape[1])
    return (f"weight[{row}, {column}] becomes {want[row, column]:.4f}, not "
            f"{got[row, column]:.4f}")


def _layer(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weights, and the products of inputs that are akin: each shares a part with all others."""
    inputs = draw(4 * columns + 20, columns, seed=seed, name=f"inputs {columns}")
    inputs = inputs + inputs[:, :1] + 0.5 * inputs.roll(1, dims=1)
    return draw(rows, columns, seed=seed, name=f"weight {rows}"), inputs.T @ inputs / 30


@exercise
def gptq_column(answer: Callable) -> Iterator[Property]:
    """07.3: one column of GPTQ."""
    answer = plain(answer)
    (weight, products), column, step = _layer(4, 6, 0), 2, 0.3
    changed = changes_its_input(answer, weight, column, step, products)
    got = answer(weight.clone(), column, step, products.clone())
    yield expect("a matrix of the same shape", shape(got) == (4, 6),
                 (shape(got) == (4, 4), "return all columns, also those before this one"),
                 (shape(got) == (4, 3), "return all columns, also those before and this one"),
                 (True, "return the whole matrix, (rows, columns)"))
    yield expect("weight and products are what they were", not changed,
                 (True, "weight or products were changed in place: work on weight.clone()"))
    if shape(got) != (4, 6):
        return
    want = _gptq_column(weight, column, step, products)
    all_rounded = same(got / step, (got / step).round(), 1e-3)
    yield expect("the column holds whole steps", same(got[:, 2], want[:, 2], 1e-4),
                 (same(got[:, 2], (weight[:, 2] / step).round()), "these are the codes: a code "
                  "times the step is the rounded weight"),
                 (same(got[:, 2], weight[:, 2]), "it was not rounded"),
                 (same(got[:, 2], (weight[:, 2] / step).trunc() * step), "cut off towards zero: "
                  "take the nearest step"),
                 (same(got[:, 2], (weight[:, 2] / step).floor() * step), "rounded down: take the "
                  "nearest step"),
                 (True, f"expected {want[:, 2].tolist()}, got {got[:, 2].tolist()}"))
    yield expect("the columns before it stay", same(got[:, :2], weight[:, :2], 1e-5),
                 (all_rounded, "every column was rounded: this step is about one"),
                 (True, "the columns before this one are rounded already: their error is spent"))
    yield expect("the columns behind make up for the error as well as they can",
                 same(got, want, 1e-3),
                 *_gptq_mistakes(got, weight, column, step, products),
                 (all_rounded or same(got[:, 3:] / step, (got[:, 3:] / step).round(), 1e-3),
                  "the columns behind were rounded: their turn comes later"),
                 (True, _first_wrong(got, want)))
    inputs = [(*_layer(1, 1, 1)[:1], 0, 0.5, torch.ones(1, 1)),
              *((weight, c, step, products) for c in (5, 0, 4)),
              (weight, 1, 0.05, torch.eye(6) * torch.arange(1.0, 7)),
              *((w, c, 0.7, p) for rows, columns, c in ((1, 2, 0), (3, 9, 5), (7, 3, 1))
                for w, p in [_layer(rows, columns, rows)]),
              (weight.T.contiguous().T, 3, 1.1, products.double().float())]
    differs = counterexample(answer, _gptq_column, inputs, 1e-3)
    yield expect("first and last columns, other sizes and steps", not differs, (True, differs))
