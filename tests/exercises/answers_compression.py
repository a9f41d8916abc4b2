"""Wrong answers to the exercises of chapter 07, and what the check must say to each."""

from __future__ import annotations

import torch
from torch.nn import functional as F


# 07.1
def _loss(cool=lambda x, t: x / t, weigh=lambda kl, t: t**2 * kl.mean(), dim=-1, turn=False):
    def temperature_kl(student, teacher, t):
        student, teacher = cool(student, t).log_softmax(dim), cool(teacher, t).log_softmax(dim)
        student, teacher = (teacher, student) if turn else (student, teacher)
        return weigh((teacher.exp() * (teacher - student)).sum(dim), t)
    return temperature_kl


def mean_of_everything(student, teacher, t):
    kl = F.kl_div((student / t).log_softmax(-1), (teacher / t).softmax(-1), reduction="none")
    return t**2 * kl.mean()


def batchmean(student, teacher, t):
    return t**2 * F.kl_div((student / t).log_softmax(-1), (teacher / t).softmax(-1),
                           reduction="batchmean")


def log_of_softmax(student, teacher, t):
    student, teacher = (student / t).softmax(-1), (teacher / t).softmax(-1)
    return t**2 * (teacher * (teacher.log() - student.log())).sum(-1).mean()


def a_little_added(student, teacher, t):
    student, teacher = (student / t).softmax(-1) + 1e-9, (teacher / t).softmax(-1) + 1e-9
    return t**2 * (teacher * (teacher.log() - student.log())).sum(-1).mean()


def cross_entropy(student, teacher, t):
    return -t**2 * ((teacher / t).softmax(-1) * (student / t).log_softmax(-1)).sum(-1).mean()


def only_the_teacher(student, teacher, t):
    return _loss(lambda x, t: x)(student * 1, teacher / t, t)


def only_the_student(student, teacher, t):
    return _loss(lambda x, t: x)(student / t, teacher * 1, t)


def divides_in_place(student, teacher, t):
    student /= t
    teacher /= t
    return t**2 * _loss()(student, teacher, 1.0)


def three_axes_alone(student, teacher, t):
    return _loss()(student, teacher, t) if student.dim() == 3 else torch.tensor(0.0)


def seven_tokens(student, teacher, t):
    student, teacher = student.reshape(-1, 7), teacher.reshape(-1, 7)
    return _loss()(student, teacher, t)


def ten_likeliest_tokens(student, teacher, t):
    best = teacher.topk(min(10, teacher.shape[-1])).indices
    return _loss()(student.gather(-1, best), teacher.gather(-1, best), t)


# 07.2
def _pack(offset=8, fill=0, kind=torch.uint8, join=lambda a, b: a << 4 | b):
    def pack_int4(codes):
        halves = (codes.long() + offset).to(kind)
        halves = F.pad(halves, (0, halves.shape[-1] % 2), value=fill)
        return join(halves[..., ::2], halves[..., 1::2])
    return pack_int4


def twos_complement(codes):
    return _pack(0)(codes.long() & 15)


def signs_lost(codes):
    return _pack(0)(codes.abs())


def below_zero_is_zero(codes):
    return _pack(0)(codes.clamp_min(0))


def drops_the_last(codes):
    return _pack()(codes[..., : codes.shape[-1] // 2 * 2])


def fills_in_front(codes):
    halves = F.pad((codes + 8).to(torch.uint8), (codes.shape[-1] % 2, 0))
    return halves[..., ::2] << 4 | halves[..., 1::2]


def fills_before_adding(codes):
    return _pack()(F.pad(codes, (0, codes.shape[-1] % 2)))


def runs_over_the_rows(codes):
    return _pack()(codes.reshape(-1)) if codes.shape[-1] % 2 else _pack()(codes)


def down_a_column(codes):
    return _pack()(codes) if codes.dim() == 1 else _pack()(codes.mT).mT


def halves_of_the_row(codes):
    halves, middle = (codes + 8).to(torch.uint8), codes.shape[-1] // 2
    return halves[..., :middle] << 4 | halves[..., middle:]


def a_byte_each(codes):
    return (codes + 8).to(torch.uint8)


def adds_in_place(codes):
    codes += 8
    return _pack(0)(codes)


def two_axes_at_most(codes):
    return _pack()(codes) if codes.dim() < 3 else _pack()(codes[0])


def three_axes_at_most(codes):
    return _pack()(codes) if codes.dim() < 4 else _pack()(codes[0])


def short_rows(codes):
    return _pack()(codes[..., :512])


def alone_in_the_lower_half(codes):
    packed = _pack()(codes)
    if codes.shape[-1] % 2:
        packed[..., -1] >>= 4
    return packed


# 07.3
def _column(direction, rounding=torch.round, keep=lambda moved, weight, column: moved):
    def gptq_column(weight, column, step, products):
        moved = weight.clone()
        rounded = rounding(weight[:, column] / step) * step
        error = (weight[:, column] - rounded)[:, None]
        moved[:, column + 1 :] -= error * direction(products, column)
        moved[:, column] = rounded
        return keep(moved, weight, column)
    return gptq_column


def _right(products, column):
    inverse = products[column:, column:].inverse()
    return inverse[0, 1:] / inverse[0, 0]


def _whole(products, column):
    inverse = products.inverse()
    return inverse[column, column + 1 :] / inverse[column, column]


def moves_all_columns(weight, column, step, products):
    inverse = products.inverse()
    rounded = (weight[:, column] / step).round() * step
    error = (weight[:, column] - rounded) / inverse[column, column]
    return weight - error[:, None] * inverse[column]


def in_place(weight, column, step, products):
    weight[:] = _column(_right)(weight, column, step, products)
    return weight


def all_of_gptq(weight, column, step, products):
    for one in range(column, weight.shape[1]):
        weight = _column(_right)(weight, one, step, products)
    return weight


def the_code_itself(weight, column, step, products):
    moved = _column(_right)(weight, column, step, products)
    moved[:, column] /= step
    return moved


def ends_are_special(weight, column, step, products):
    column = min(column, weight.shape[1] - 2)
    return _column(_right)(weight, column, step, products)


def the_first_row_alone(weight, column, step, products):
    moved = _column(_right)(weight, column, step, products)
    moved[1:, column + 1 :] = weight[1:, column + 1 :]
    return moved


# 07.4
def _fours(scores):
    return scores.unflatten(-1, (-1, 4))


def _best(scores, count=2):
    fours = _fours(scores)
    mask = torch.zeros_like(fours, dtype=bool)
    return mask.scatter(-1, fours.topk(count).indices, True).flatten(-2)


def above_the_second(scores):
    fours = _fours(scores)
    return (fours >= fours.topk(2).values[..., 1:]).flatten(-2)


def above_the_third(scores):
    fours = _fours(scores)
    return (fours > fours.topk(3).values[..., 2:]).flatten(-2)


def half_of_the_row(scores):
    best = scores.topk(scores.shape[-1] // 2).indices
    return torch.zeros_like(scores, dtype=bool).scatter(-1, best, True)


def one_threshold(scores):
    return scores >= scores.median()


def down_the_columns(scores):
    return _best(scores.transpose(0, -1).contiguous()).transpose(0, -1)


def every_second(scores):
    fours = scores.unflatten(-1, (4, -1))
    best = fours.topk(2, dim=-2).indices
    return torch.zeros_like(fours, dtype=bool).scatter(-2, best, True).flatten(-2)


def still_apart(scores):
    return _best(scores).unflatten(-1, (-1, 4))


def places(scores):
    return _fours(scores).topk(2).indices.flatten(-2)


def kept_scores(scores):
    return scores * _best(scores)


def two_axes(scores):
    rows, columns = scores.shape
    best = scores.reshape(rows, columns // 4, 4).topk(2).indices
    return torch.zeros(rows, columns // 4, 4).bool().scatter(2, best, True).view(rows, columns)


def positive_alone(scores):
    return _best(scores) & (scores > scores.min()) & (scores > -5)


def sorted_once(scores):
    return (_fours(scores).argsort(-1, descending=True) < 2).flatten(-2)


def few_rows(scores):
    mask = _best(scores)
    mask[8:] = False
    return mask if scores.dim() == 2 else _best(scores)


def clears_in_place(scores):
    mask = _best(scores)
    scores[~mask] = 0
    return mask


WRONG = {
    "temperature_kl": [
        (_loss(weigh=lambda kl, t: kl.mean()), "the square of the temperature is missing"),
        (_loss(weigh=lambda kl, t: t * kl.mean()), "times the temperature once"),
        (_loss(cool=lambda x, t: x), "the temperature flattens nothing"),
        (_loss(cool=lambda x, t: x * t), "the logits were multiplied"),
        (_loss(turn=True), "wrong way round"),
        (_loss(turn=True, weigh=lambda kl, t: kl.mean()), "wrong way round"),
        (_loss(weigh=lambda kl, t: -t**2 * kl.mean()), "the sign is turned round"),
        (_loss(weigh=lambda kl, t: t**2 * kl.sum()), "this is the sum over the places"),
        (_loss(weigh=lambda kl, t: t**2 * kl), "take the mean over all places"),
        (_loss(weigh=lambda kl, t: t**2 * kl.mean() / 0.6931472), "these are bits"),
        (_loss(dim=0), "along the wrong axis"), (_loss(dim=1), "along the wrong axis"),
        (mean_of_everything, "the mean runs over the vocabulary too"),
        (batchmean, "(`batchmean`)"), (log_of_softmax, "log_softmax avoids both"),
        (a_little_added, "logits of a thousand too"), (cross_entropy, "this is the cross-entropy"),
        (only_the_teacher, "only the teacher's logits"),
        (only_the_student, "only the student's logits"), (divides_in_place, "changed in place"),
        (ten_likeliest_tokens, "for (a tensor of shape (3, 300)"),
        (three_axes_alone, "for (["), (seven_tokens, "RuntimeError"),
    ],
    "pack_int4": [
        (_pack(join=lambda a, b: b << 4 | a), "belongs into the upper half"),
        (_pack(0, kind=torch.int64), "ran over the first"), (_pack(7), "shifted by one"),
        (_pack(9), "shifted by one"), (_pack(kind=torch.int8), "240 does not fit into int8"),
        (_pack(fill=15), "holds 15, not 0"), (_pack(kind=torch.int64, join=lambda a, b: 10 * a + b),
                                              "ten is no power of two"),
        (_pack(join=lambda a, b: a << 4 | a), "both halves hold the same code"),
        (twos_complement, "this is two's complement"), (signs_lost, "the signs are lost"),
        (below_zero_is_zero, "codes below zero became 0"),
        (drops_the_last, "the last code is gone"), (fills_in_front, "filled up in front"),
        (fills_before_adding, "fill up after adding 8"),
        (runs_over_the_rows, "the end of one row and the start of the next"),
        (down_a_column, "not in a column"), (halves_of_the_row, "neighbours share a byte"),
        (a_byte_each, "nothing is saved"), (adds_in_place, "changed in place"),
        (three_axes_at_most, "for (a tensor of shape (2, 2, 3, 5))"),
        (short_rows, "for (a tensor of shape (701,))"),
        (alone_in_the_lower_half, "belongs into the upper half, too"),
        (two_axes_at_most, "for (a tensor of shape (5, 4, 3))"),
    ],
    "gptq_column": [
        (_column(lambda products, column: 0), "rounding to the nearest"),
        (_column(lambda products, column: -_right(products, column)), "moved the wrong way"),
        (_column(lambda products, column: products[column:, column:].inverse()[0, 1:]),
         "the error is not divided"),
        (_column(lambda products, column: products[column, column + 1 :]
                 / products[column, column]), "their inverse says"),
        (_column(_whole), "the products of all columns were inverted"),
        (_column(lambda products, column: torch.linalg.cholesky(
            products[column:, column:].inverse(), upper=True)[0, 1:]), "Cholesky factor"),
        (_column(_right, rounding=torch.trunc), "cut off towards zero"),
        (_column(_right, rounding=torch.floor), "rounded down"),
        (_column(_right, rounding=lambda x: x), "it was not rounded"),
        (_column(_right, keep=lambda moved, weight, column: moved[:, column:]),
         "return all columns"),
        (_column(_right, keep=lambda moved, weight, column: moved[:, column + 1 :]),
         "return all columns"),
        (_column(lambda products, column: 1), "by the whole error"),
        (moves_all_columns, "their error is spent"), (in_place, "changed in place"),
        (all_of_gptq, "the columns behind were rounded"), (the_code_itself, "these are the codes"),
        (ends_are_special, "for (a tensor of shape"),
        (the_first_row_alone, "weight[2, 3] becomes"),
    ],
    "mask_2_of_4": [
        (above_the_second, "more than two of a four stay"),
        (above_the_third, "fewer than two of a four stay"),
        (half_of_the_row, "the best half of a row stays"), (one_threshold, "one threshold for all"),
        (down_the_columns, "run down a column"), (every_second, "every second score"),
        (still_apart, "flatten them again"), (places, "return True or False for each score"),
        (kept_scores, "return the mask"), (two_axes, "ValueError"),
        (positive_alone, "taken for pruned"), (clears_in_place, "changed in place"),
        (lambda scores: ~_best(scores), "the lowest two stay"),
        (lambda scores: _best(scores.abs()), "the largest sizes stay"),
        (lambda scores: _best(scores).float(), "want True and False"),
        (lambda scores: _best(scores).long(), "the mask is of torch.int64"),
        (lambda scores: _best(scores).int().tolist(), "the mask is of int"),
        (sorted_once, "your mask keeps"), (few_rows, "your mask keeps"),
        (lambda scores: _best(scores, 3), "3 of four stay"),
        (lambda scores: _best(scores, 1), "1 of four stay"),
    ],
}
