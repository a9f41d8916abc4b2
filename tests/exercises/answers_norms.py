"""Wrong answers to the exercises of chapter 04, and what the check must say to each."""

from __future__ import annotations

import copy

import torch
from torch import nn

from scratchbook.norms import RMSNorm


def _parts(x):
    centred = x - x.mean(-1, keepdim=True)
    std = centred.square().mean(-1, keepdim=True).sqrt()
    return centred / std, std


# 04.1
def constants(x, upstream):
    return upstream / _parts(x)[1]


def without_the_mean(x, upstream):
    normed, std = _parts(x)
    return (upstream - normed * (upstream * normed).mean(-1, keepdim=True)) / std


def without_the_deviation(x, upstream):
    return (upstream - upstream.mean(-1, keepdim=True)) / _parts(x)[1]


def not_divided(x, upstream):
    normed, _ = _parts(x)
    along = normed * (upstream * normed).mean(-1, keepdim=True)
    return upstream - upstream.mean(-1, keepdim=True) - along


def one_less(x, upstream):
    std = x.std(-1, keepdim=True)
    y = (x - x.mean(-1, keepdim=True)) / std
    along = y * (upstream * y).mean(-1, keepdim=True)
    return (upstream - upstream.mean(-1, keepdim=True) - along) / std


def with_eps(x, upstream):
    centred = x - x.mean(-1, keepdim=True)
    std = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    along = centred / std * (upstream * centred / std).mean(-1, keepdim=True)
    return (upstream - upstream.mean(-1, keepdim=True) - along) / std


def centres_in_place(x, upstream):
    x -= x.mean(-1, keepdim=True)
    std = x.square().mean(-1, keepdim=True).sqrt()
    along = x * (upstream * x).mean(-1, keepdim=True) / std**2
    return (upstream - upstream.mean(-1, keepdim=True) - along) / std


# 04.2
def stays_in_half(x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def stays_in_float32(x):
    wide = x.float()
    return wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def no_eps(x):
    wide = x.float()
    return (wide / wide.square().mean(-1, keepdim=True).sqrt()).to(x.dtype)


def squares_in_half(x):
    return (x.float() / (x.square().float().mean(-1, keepdim=True) + 1e-5).sqrt()).to(x.dtype)


def _half(formula):
    def rms_norm_half(x):
        wide = x.float()
        return formula(wide, wide.square().mean(-1, keepdim=True)).to(x.dtype)
    return rms_norm_half


# 04.3
def two_ratios(sizes):
    half = len(sizes) // 2
    early, late = sizes[half] / sizes[1], sizes[-1] / sizes[half]
    if max(early, late) < 1.05:
        return "post"
    return "residual" if late > 0.6 * early else "pre"


def any_growth_is_explosive(sizes):
    return "residual" if sizes[-1] > 2 * sizes[1] else "post"


def any_growth_is_pre(sizes):
    return "pre" if sizes[-1] > 2 * sizes[1] else "post"


def always_pre(sizes):
    return "pre"


def by_height(sizes):
    if max(sizes) < 1.1 * sizes[1]:
        return "post"
    return "residual" if sizes[-1] > 50 else "pre"


# 04.4
class Stack(nn.Module):
    def __init__(self, parts, width, place, final=True):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.norms = nn.ModuleList(RMSNorm(width) for _ in parts)
        self.place, self.final_norm = place, RMSNorm(width) if final else nn.Identity()

    def forward(self, x):
        for norm, part in zip(self.norms, self.parts, strict=True):
            if self.place == "post":
                x = norm(x + part(x))
            elif self.place == "instead":
                x = norm(part(x))
            else:
                x = x + part(norm(x) if self.place == "pre" else x)
        return self.final_norm(x)


class PlainList(Stack):
    def __init__(self, parts, width):
        super().__init__(parts, width, "pre")
        self.parts = None
        self.__dict__["parts"] = list(parts)


class Sums(Stack):
    """A right stack, with one place that can be broken."""

    def __init__(self, parts, width, *, put=lambda x: x, hear=lambda x: x, order=1):
        super().__init__(parts, width, "pre")
        self.put, self.hear, self.order = put, hear, order

    def forward(self, x):
        for norm, part in list(zip(self.norms, self.parts, strict=True))[::self.order]:
            x = x + self.put(part(self.hear(norm(x))))
        return self.final_norm(x)


def copies_the_parts(parts, width):
    return Sums(copy.deepcopy(parts), width)


def shrinks_the_weights(parts, width):
    for part in parts:
        for weight in part.parameters():
            weight.data /= 4
    return Sums(parts, width)


def freezes_the_parts(parts, width):
    for part in parts:
        part.requires_grad_(False)
    return Sums(parts, width)


def cuts_the_gradient(parts, width):
    return Sums(parts, width, hear=torch.detach)


def clamps_what_is_said(parts, width):
    return Sums(parts, width, put=lambda x: x.clamp(-10, 10))


def from_the_last(parts, width):
    return Sums(parts, width, order=-1)


class AlwaysEight(Stack):
    def forward(self, x):
        for number in range(8):
            x = x + self.parts[number](self.norms[number](x))
        return self.final_norm(x)


class EightAtMost(Sums):
    def forward(self, x):
        return super().forward(x) if len(self.parts) == 8 else self.final_norm(x)


def always_eight(parts, width):
    return AlwaysEight(parts, width, "pre")


def of_length_one(parts, width):
    stack = Sums(parts, width)
    stack.final_norm = LengthOne()
    return stack


class LengthOne(nn.Module):
    def forward(self, x):
        return nn.functional.normalize(x, dim=-1)


def no_norm(parts, width):
    return Stack(parts, width, "none", final=False)


def no_final_norm(parts, width):
    return Stack(parts, width, "pre", final=False)


def only_a_final_norm(parts, width):
    return Stack(parts, width, "none")


def norm_on_the_stream(parts, width):
    return Stack(parts, width, "post")


class Wrong(Stack):
    def __init__(self, parts, width, kind):
        super().__init__(parts, width, "pre")
        self.kind = kind

    def forward(self, x):
        for norm, part in zip(self.norms, self.parts, strict=True):
            if self.kind == "subtracts":
                x = x - part(norm(x))
            elif self.kind == "adds itself":
                x = x + part(norm(x)) + norm(x)
            elif self.kind == "one norm":
                x = x + part(self.whole(x))
        return self.whole(x) if self.kind == "one mean" else self.final_norm(x)

    def whole(self, x):
        return x / x.square().mean().sqrt()


def ignores_the_parts(parts, width):
    return Wrong(parts, width, "ignores")


def subtracts_the_parts(parts, width):
    return Wrong(parts, width, "subtracts")


def adds_the_norm_too(parts, width):
    return Wrong(parts, width, "adds itself")


def norms_over_the_batch(parts, width):
    return Wrong(parts, width, "one norm")


class OneMean(Stack):
    def __init__(self, parts, width):
        super().__init__(parts, width, "pre", final=False)

    def forward(self, x):
        x = super().forward(x)
        return x / x.square().mean().sqrt()


def nothing_is_added(parts, width):
    return Stack(parts, width, "instead")


def half_of_the_parts(parts, width):
    return Stack(parts[:4], width, "pre")


# 04.5
def plain_scores(q, k):
    return q @ k.T / q.shape[-1] ** 0.5


def only_queries(q, k):
    q = q / q.square().mean(-1, keepdim=True).sqrt()
    return q @ k.T / q.shape[-1] ** 0.5


def length_one(q, k):
    return torch.nn.functional.normalize(q, dim=-1) @ torch.nn.functional.normalize(k, dim=-1).T


def length_one_and_scaled(q, k):
    return length_one(q, k) / q.shape[-1] ** 0.5


def not_scaled(q, k):
    q, k = (x / x.square().mean(-1, keepdim=True).sqrt() for x in (q, k))
    return q @ k.T


WRONG = {
    "layer_norm_backward": [
        (constants, "taken as constants"), (without_the_mean, "the part through the mean"),
        (without_the_deviation, "the part through the deviation"),
        (not_divided, "off by the deviation"), (one_less, "std(correction=0)"),
        (with_eps, "there is an eps of 1e-5"), (centres_in_place, "x was changed in place"),
    ],
    "rms_norm_half": [
        (stays_in_half, "65,504"), (stays_in_float32, "stayed in float32"),
        (no_eps, "eps is missing"), (squares_in_half, "65,504"),
        (_half(lambda x, square: x / (square.sqrt() + 1e-5)), "outside of the root"),
        (_half(lambda x, square: x / (square + 1e-6).sqrt()), "eps is 1e-06 in your answer"),
        (_half(lambda x, square: x / (square + 1e-4).sqrt()), "eps is 0.0001 in your answer"),
        (_half(lambda x, square: x / (square * x.shape[-1] / 64 + 1e-5).sqrt()),
         "for (a tensor of shape (3, 40))"),
        (_half(lambda x, square: x / square), "the root is missing"),
        (_half(lambda x, square: x / (x.square().sum(-1, keepdim=True) + 1e-5).sqrt()),
         "length one"),
        (_half(lambda x, square: x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt()),
         "the mean runs over the positions"),
        (_half(lambda x, square: (x - x.mean(-1, keepdim=True))
               / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()), "this is LayerNorm"),
    ],
    "which_placement": [
        (any_growth_is_explosive, "the root of the depth"),
        (any_growth_is_pre, "stays the same however deep"), (always_pre, "a flat line"),
        (by_height, "of the gain"), (two_ratios, "without a norm each layer multiplies"),
    ],
    "save_the_run": [
        (PlainList, "use nn.ModuleList"), (half_of_the_parts, "some parts were left out"),
        (nothing_is_added, "add each part to the stream"), (no_norm, "multiplies that of all"),
        (no_final_norm, "the final norm is missing"),
        (only_a_final_norm, "comes too late"), (norm_on_the_stream, "(post-norm)"),
        (copies_the_parts, "it owns copies of the parts"),
        (shrinks_the_weights, "the parts' weights were changed"),
        (freezes_the_parts, "some weights are frozen"),
        (cuts_the_gradient, "leave detach() out"), (from_the_last, "the last part is called first"),
        (clamps_what_is_said, "something else is added"), (always_eight, "IndexError"),
        (EightAtMost, "count the parts with len(parts)"), (of_length_one, "length one"),
        (ignores_the_parts, "the parts take part in nothing"),
        (subtracts_the_parts, "is subtracted: add it"),
        (adds_the_norm_too, "something else is added"), (OneMean, "not one for the whole batch"),
        (norms_over_the_batch, "a norm of its own"),
    ],
    "bounded_scores": [
        (plain_scores, "nothing was normed"), (only_queries, "only one of the two"),
        (length_one, "length one"), (length_one_and_scaled, "length one"),
        (not_scaled, "not divided by the root"),
    ],
}
