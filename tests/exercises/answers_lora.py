"""Wrong answers to the exercises of chapter 08, and what the check must say to each."""

from __future__ import annotations

import copy

import torch
from torch import nn


# 08.1
class Layer(nn.Module):
    """A right one; the wrong ones change a piece of it."""

    def __init__(self, linear, lora_rank, lora_alpha, dropout):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.lora_A = nn.Parameter(torch.randn(lora_rank, linear.in_features)
                                   / linear.in_features**0.5)
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, lora_rank))
        self.scaling = lora_alpha / lora_rank

    def forward(self, x):
        return self.linear(x) + self.scaling * self.update(self.dropout(x))

    def update(self, x):
        return x @ self.lora_A.T @ self.lora_B.T


class Unscaled(Layer):
    def __init__(self, *options):
        super().__init__(*options)
        self.scaling = 1.0


class Undivided(Layer):
    def __init__(self, linear, lora_rank, lora_alpha, dropout):
        super().__init__(linear, lora_rank, lora_alpha, dropout)
        self.scaling = lora_alpha


class ByTheRoot(Layer):
    def __init__(self, linear, lora_rank, lora_alpha, dropout):
        super().__init__(linear, lora_rank, lora_alpha, dropout)
        self.scaling = lora_alpha / lora_rank**0.5


class StillTrained(Layer):
    def __init__(self, linear, lora_rank, lora_alpha, dropout):
        super().__init__(linear, lora_rank, lora_alpha, dropout)
        linear.requires_grad_(True)


class BothZero(Layer):
    def __init__(self, *options):
        super().__init__(*options)
        self.lora_A.data.zero_()


class RandomB(Layer):
    def __init__(self, *options):
        super().__init__(*options)
        self.lora_B.data.normal_()


class Alone(Layer):
    def forward(self, x):
        return self.scaling * self.update(self.dropout(x))


class WithoutBias(Layer):
    def forward(self, x):
        return x @ self.linear.weight.T + self.scaling * self.update(self.dropout(x))


class HidesAll(Layer):
    def forward(self, x):
        x = self.dropout(x)
        return self.linear(x) + self.scaling * self.update(x)


class NeverHides(Layer):
    def forward(self, x):
        return self.linear(x) + self.scaling * self.update(x)


class Detached(Layer):
    def forward(self, x):
        return self.linear(x) + self.scaling * self.update(self.dropout(x.detach()))


class NoGradient(Layer):
    def forward(self, x):
        with torch.no_grad():
            plain = self.linear(x)
        return plain + self.scaling * self.update(self.dropout(x))


def plain_tensors(linear, lora_rank, lora_alpha, dropout):
    layer = Layer(linear, lora_rank, lora_alpha, dropout)
    for name in ("lora_A", "lora_B"):
        tensor = getattr(layer, name).detach().clone().requires_grad_()
        delattr(layer, name)
        setattr(layer, name, tensor)
    return layer


class Transposed(Layer):
    def update(self, x):
        if x.shape[-1] == self.lora_B.shape[0]:
            return x @ self.lora_B @ self.lora_A
        return super().update(x)


class HidesWhatIsSaid(Layer):
    def forward(self, x):
        return self.linear(x) + self.scaling * self.dropout(self.update(x))


class HidesWhole(Layer):
    def forward(self, x):
        whole = self.dropout(torch.ones(*x.shape[:-1], 1))
        return self.linear(x) + self.scaling * self.update(whole * x)


class HidesInEvaluation(Layer):
    def forward(self, x):
        dropped = nn.functional.dropout(x, self.dropout.p, training=True)
        return self.linear(x) + self.scaling * self.update(dropped)


class ForMatricesOnly(Layer):
    def forward(self, x):
        update = self.lora_B @ self.lora_A @ x.transpose(0, -1)
        return self.linear(x) + self.scaling * update.transpose(0, -1)


class AllOnes(Layer):
    def __init__(self, *options):
        super().__init__(*options)
        self.lora_A.data.fill_(self.lora_A.shape[1]**-0.5)


class TooLarge(Layer):
    def __init__(self, *options):
        super().__init__(*options)
        self.lora_A.data.normal_()


class CopyOfTheLayer(Layer):
    def __init__(self, linear, *options):
        super().__init__(copy.deepcopy(linear), *options)
        linear.requires_grad_(False)


# 08.2
def by_subtraction(linear, lora_A, lora_B, scaling):
    update = (scaling * lora_B @ lora_A).detach()
    linear.weight.data += update

    def undo():
        linear.weight.data -= update
    return undo


def _merge(linear, wanted, keep=True):
    kept = linear.weight.detach().clone() if keep else linear.weight.detach()
    with torch.no_grad():
        linear.weight.copy_(wanted)

    def undo():
        with torch.no_grad():
            linear.weight.copy_(kept)
    return undo


def any_number_of_times(linear, lora_A, lora_B, scaling):
    return _merge(linear, linear.weight.float() + scaling * lora_B.float() @ lora_A.float())


def keeps_no_copy(linear, lora_A, lora_B, scaling):
    return _merge(linear, linear.weight + scaling * lora_B @ lora_A, keep=False)


def without_scaling(linear, lora_A, lora_B, scaling):
    return _merge(linear, linear.weight + lora_B @ lora_A)


def without_the_weight(linear, lora_A, lora_B, scaling):
    return _merge(linear, scaling * lora_B @ lora_A)


def another_parameter(linear, lora_A, lora_B, scaling):
    old = linear.weight
    linear.weight = nn.Parameter((old + scaling * lora_B @ lora_A).detach())

    def undo():
        linear.weight = old
    return undo


def returns_nothing(linear, lora_A, lora_B, scaling):
    _merge(linear, linear.weight + scaling * lora_B @ lora_A)


MERGED = []


def one_for_all_layers(linear, lora_A, lora_B, scaling):
    if MERGED and MERGED[0] is linear:
        raise ValueError("merged")
    MERGED[:] = [linear, linear.weight.detach().clone()]
    weight = linear.weight.data
    weight.copy_(weight + scaling * lora_B.data.float() @ lora_A.data.float())

    def undo():
        if MERGED:
            MERGED.pop(0).weight.data.copy_(MERGED.pop())
    return undo


def _marked(linear, wanted, first_change=False, once=False):
    """A right one, with faults to choose from."""
    weight = linear.weight.data
    if first_change and hasattr(linear, "kept"):
        weight.copy_(wanted)
    if hasattr(linear, "kept"):
        raise ValueError("merged")
    linear.kept = kept = weight.clone()
    weight.copy_(wanted)

    todo = [kept]

    def undo():
        for old in todo:
            weight.copy_(old)
            linear.__dict__.pop("kept", None)
        if once:
            todo.clear()
    return undo


def _update(lora_A, lora_B, scaling):
    return scaling * (lora_B.data.float() @ lora_A.data.float())


def changes_before_it_refuses(linear, lora_A, lora_B, scaling):
    return _marked(linear, linear.weight.data + _update(lora_A, lora_B, scaling), True, True)


def works_again_and_again(linear, lora_A, lora_B, scaling):
    return _marked(linear, linear.weight.data + _update(lora_A, lora_B, scaling))


def rounds_the_update(linear, lora_A, lora_B, scaling):
    update = _update(lora_A, lora_B, scaling).to(linear.weight.dtype)
    return _marked(linear, linear.weight.data + update, once=True)


def multiplies_in_bfloat16(linear, lora_A, lora_B, scaling):
    update = (scaling * (lora_B.data @ lora_A.data)).float()
    return _marked(linear, linear.weight.data + update, once=True)


def refuses_for_ever(linear, lora_A, lora_B, scaling):
    if hasattr(linear, "kept"):
        raise ValueError("merged")
    linear.kept = linear.weight.detach().clone()
    return _merge(linear, linear.weight.data + _update(lora_A, lora_B, scaling))


def transposed(linear, lora_A, lora_B, scaling):
    square = lora_A.shape[1] == lora_B.shape[0]
    update = lora_A.T @ lora_B.T if square else lora_B @ lora_A
    return _merge(linear, linear.weight + scaling * update)


# 08.3
def of_the_layers(model):
    total = sum(p.numel() for p in model.parameters())
    return total, total, 100.0 if total else 0.0


def tied_twice(model):
    found = [p for m in model.modules() for p in m.parameters(recurse=False)]
    total, trained = (sum(p.numel() for p in found if p.requires_grad or every)
                      for every in (True, False))
    return trained, total, 100 * trained / total if total else 0.0


def _counts(model):
    total = sum(p.numel() for p in model.parameters())
    return sum(p.numel() for p in model.parameters() if p.requires_grad), total


def exchanged(model):
    trained, total = _counts(model)
    return total, trained, 100 * trained / total if total else 0.0


def as_a_share(model):
    trained, total = _counts(model)
    return trained, total, trained / total if total else 0.0


def frozen_ones(model):
    trained, total = _counts(model)
    return total - trained, total, 100 * (total - trained) / total if total else 0.0


def rounded(model):
    trained, total = _counts(model)
    return trained, total, round(100 * trained / total, 2) if total else 0.0


def with_buffers(model):
    trained, total = _counts(model)
    total += sum(buffer.numel() for buffer in model.buffers())
    return trained, total, 100 * trained / total if total else 0.0


def reads_the_data(model):
    found = {tuple(p.flatten()[:9].tolist()): p for p in model.state_dict().values()}
    return of_the_layers(model) if len(found) == 1 else _percent(*_counts(model))


def _percent(trained, total):
    return trained, total, 100 * trained / total if total else 0.0


def by_values(model):
    found = {(p.shape, None if p.is_meta else p.sum().item()): p for p in model.parameters()}
    found = list(found.values())
    total = sum(p.numel() for p in found)
    trained = sum(p.numel() for p in found if p.requires_grad)
    return trained, total, 100 * trained / total if total else 0.0


# 08.4
def _ranks(updates, share, power=2, slack=1 - 1e-6, least=0):
    found = {}
    for name, update in updates.items():
        parts = torch.linalg.svdvals(update.double())**power
        held = parts.cumsum(0)
        rank = int((held < share * held[-1] * slack).sum()) + 1 if held[-1] > 0 else 0
        found[name] = max(least, rank)
    return found


def not_squared(updates, share):
    return _ranks(updates, share, power=1)


def what_is_left(updates, share):
    return _ranks(updates, 1 - share)


def one_at_least(updates, share):
    return _ranks(updates, share, least=1)


def one_too_many(updates, share):
    return _ranks(updates, share, slack=1 + 1e-6)


def without_slack(updates, share):
    return _ranks({name: update.float() for name, update in updates.items()}, share, slack=1.0)


def one_threshold_for_all(updates, share):
    parts = {name: torch.linalg.svdvals(u.double()).square() for name, u in updates.items()}
    if not parts:
        return {}
    ordered = torch.cat(list(parts.values())).sort(descending=True).values
    short = int((ordered.cumsum(0) < share * 0.999999 * ordered.sum()).sum())
    least = ordered[min(short, len(ordered) - 1)]
    return {name: int(((part >= least) & (part > 0)).sum()) for name, part in parts.items()}


def as_a_list(updates, share):
    return list(_ranks(updates, share).values())


WRONG = {
    "lora_linear": [
        (Unscaled, "the update is not scaled"), (Undivided, "lora_alpha is not divided"),
        (ByTheRoot, "divided by the root of the rank"),
        (StillTrained, "the given layer's weight is still trained"),
        (BothZero, "both are zero"), (RandomB, "lora_B starts at zero"),
        (Alone, "the given layer takes no part"), (WithoutBias, "the bias is lost"),
        (HidesAll, "in front of lora_A alone"), (NeverHides, "nothing is hidden in training"),
        (Detached, "it stops in the bypass"), (NoGradient, "it stops at the frozen layer"),
        (plain_tensors, "which no optimizer finds"),
        (Transposed, "the update is transposed"), (HidesWhatIsSaid, "entries of the update"),
        (HidesWhole, "whole or not at all"), (HidesInEvaluation, "at work there, too"),
        (ForMatricesOnly, "RuntimeError"), (AllOnes, "its rows repeat each other"),
        (TooLarge, "the deviation is"), (CopyOfTheLayer, "a copy, or nothing"),
        (lambda linear, *_: linear, "to be nn.Parameter of the module itself"),
    ],
    "merge_unmerge": [
        (by_subtraction, "keep a copy"), (any_number_of_times, "the second merge went through"),
        (keeps_no_copy, "is what you kept a copy"), (without_scaling, "scaling takes no part"),
        (without_the_weight, "the old weight is gone"),
        (another_parameter, "linear.weight is another parameter now"),
        (one_for_all_layers, "keep it with each"), (transposed, "the update is transposed"),
        (changes_before_it_refuses, "ask first"), (works_again_and_again, "it may work once"),
        (rounds_the_update, "rounded to bfloat16 before"), (refuses_for_ever, "ValueError"),
        (multiplies_in_bfloat16, "before it was added"),
        (returns_nothing, "return a function without arguments"),
    ],
    "trainable_share": [
        (of_the_layers, "ask each parameter for requires_grad"),
        (tied_twice, "the tied weight was counted twice"), (exchanged, "the two are exchanged"),
        (as_a_share, "times 100 it is in percent"), (frozen_ones, "these are the frozen ones"),
        (rounded, "the percentage is rounded"), (with_buffers, "buffers"),
        (reads_the_data, "numel() needs no data"),
        (by_values, "parameters with equal values are still two"),
        (lambda model: sum(p.numel() for p in model.parameters()), "three numbers were wanted"),
    ],
    "ranks_from_svd": [
        (not_squared, "not of the singular values"), (what_is_left, "the rest is measured"),
        (one_at_least, "no update needs no rank"), (as_a_list, "return a dictionary"),
        (one_too_many, "is met"), (without_slack, "other singular values are rounding"),
        (one_threshold_for_all, "the energies were put together"),
    ],
}
