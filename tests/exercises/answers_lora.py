"""Wrong answers to the exercises on a LoRA layer and on merging, and what must be said to each."""

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


class HidesInPlace(Layer):
    def forward(self, x):
        out = self.linear(x)
        return out + self.scaling * self.update(
            nn.functional.dropout(x, self.dropout.p, self.training, inplace=True))


class KeepsTheProduct(Layer):
    def update(self, x):
        if not hasattr(self, "product"):
            self.product = self.lora_B @ self.lora_A
        return x @ self.product.T


class SharesA(Layer):
    drawn = {}

    def __init__(self, *options):
        super().__init__(*options)
        self.lora_A = self.drawn.setdefault(self.lora_A.shape, self.lora_A)


class HidesAQuarter(Layer):
    def __init__(self, linear, lora_rank, lora_alpha, dropout):
        super().__init__(linear, lora_rank, lora_alpha, 0.25 if dropout else 0.0)


class HidesTheSame(Layer):
    def forward(self, x):
        drawn = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
        kept = (drawn >= self.dropout.p) / (1 - self.dropout.p) if self.training else 1.0
        return self.linear(x) + self.scaling * self.update(kept * x)


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


def _kept(linear, lora_A, lora_B, scaling, keep=lambda linear: linear.weight.detach().clone(),
          back=lambda linear, kept: linear.weight.data.copy_(kept)):
    if hasattr(linear, "merged"):
        raise ValueError("merged")
    todo, linear.merged = [keep(linear)], True
    linear.weight.data.copy_(linear.weight.data.float() + _update(lora_A, lora_B, scaling))

    def undo():
        if todo:
            back(linear, todo.pop())
            del linear.merged
    return undo


def puts_all_back(*given):
    return _kept(*given, lambda linear: copy.deepcopy(linear.state_dict()),
                 lambda linear, kept: linear.load_state_dict(kept))


def frozen_afterwards(*given):
    return _kept(*given, back=lambda linear, kept: linear.weight.requires_grad_(
        False).copy_(kept))


def keeps_float32(*given):
    return _kept(*given, lambda linear: linear.weight.detach().float())


def rounds_the_adapter(linear, lora_A, lora_B, scaling):
    lora_A, lora_B = (part.to(linear.weight.dtype) for part in (lora_A, lora_B))
    return _kept(linear, lora_A, lora_B, scaling)


def asks_for_a_bias(linear, *given):
    linear.bias.detach()
    return _kept(linear, *given)


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
        (HidesInPlace, "x was changed in place"), (SharesA, "two layers share a matrix"),
        (KeepsTheProduct, "numbers of an earlier call"), (HidesAQuarter, "another share is hidden"),
        (HidesTheSame, "the same entries are hidden at each call"),
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
        (puts_all_back, "an old bias was put back"), (frozen_afterwards, "is frozen now"),
        (keeps_float32, "was kept in float32"), (rounds_the_adapter, "not them to the weight's"),
        (asks_for_a_bias, "AttributeError"),
        (multiplies_in_bfloat16, "before it was added"),
        (returns_nothing, "return a function without arguments"),
    ],
}
