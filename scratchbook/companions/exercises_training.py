"""The checks of chapter 06's exercises: properties first, then the mistakes people make.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from numbers import Number

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.data.batches import IGNORED
from scratchbook.runtime import named_generator
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw
from scratchbook.training.schedules import learning_rate_factor

Parts = Sequence[tuple[Tensor, Tensor]]


def _close(got: object, want: Tensor | float, bound: float = 1e-6) -> bool:
    """Nearly equal; anything that is NaN, inf or not of the right shape is not."""
    if isinstance(got, Number) and not isinstance(got, bool | complex):
        got = torch.tensor(float(got), dtype=torch.float64)
    want = want if isinstance(want, Tensor) else torch.tensor(float(want))
    return (isinstance(got, Tensor) and got.shape == want.shape
            and torch.allclose(got.detach().to(want.dtype), want, rtol=bound, atol=bound))


OPTIONS = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.5}


def _torch_adamw(weight: Tensor, gradients: Sequence[Tensor], options: dict = OPTIONS,
                 kind: type = torch.optim.AdamW) -> Tensor:
    """Where torch's own optimizer takes a weight."""
    parameter = nn.Parameter(weight.clone())
    optimizer = kind([parameter], **options)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def _walk(answer: Callable, weight: Tensor, gradients: Sequence[Tensor],
          options: dict = OPTIONS) -> object:
    """The same walk with the reader's step."""
    state: dict = {}
    for gradient in gradients:
        weight = answer(weight.clone(), gradient.clone(), state, **options)
    return weight


@exercise
def adamw_step(answer: Callable) -> Iterator[Property]:
    """06.1: one step of AdamW."""
    weight, gradient = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.01, -5.0, 400.0])
    plain, sign = {**OPTIONS, "weight_decay": 0.0, "eps": 1e-12}, gradient.sign()
    got = _walk(answer, weight, [gradient], plain)
    few = (1 - 0.8) / math.sqrt(1 - 0.95)  # the first step's length without correction
    yield expect(
        "the first step moves every number by lr, against its gradient",
        _close(got, weight - 0.1 * sign, 1e-5),
        (got is None, "return the new weight"),
        (_close(got, weight + 0.1 * sign, 1e-5), "it walks uphill: subtract the step"),
        (_close(got, weight - 0.1 * few * sign, 1e-5),
         "both means start at zero and are too small at first: divide the first by "
         "1 - betas[0]**step, the second by 1 - betas[1]**step"),
        (_close(got, weight - 0.1 * 0.2 * sign, 1e-5)
         or _close(got, weight - 0.1 / math.sqrt(0.05) * sign, 1e-5),
         "one of the two means is corrected and the other is not"),
        (_close(got, weight - 0.1 / gradient, 1e-4),
         "the root is missing: divide by the root of the mean square"),
        (_close(got, weight - 0.1 * gradient, 1e-4), "this is plain gradient descent"),
        (_close(got, weight - sign, 1e-5), "lr takes no part in the step"),
        (_close(got, weight - 0.1 * 5 * sign, 1e-5),
         "the running mean was squared: the second mean is that of the gradient's square"),
        (_close(got, weight - 0.1 * 0.8 / math.sqrt(0.95) * sign, 1e-5),
         "the shares are exchanged: keep beta of the old mean, take 1 - beta of the new gradient"),
        (_close(got, weight - 0.1 * (0.2 / 0.36) / math.sqrt(0.05 / (1 - 0.95**2)) * sign, 1e-5),
         "the first step is counted as the second: count it before you use the number"),
        (isinstance(got, Tensor) and not got.isfinite().all(),
         "not finite: the first step is number 1, for which 1 - beta**1 is not zero"),
        (True, f"expected {(weight - 0.1 * sign).tolist()}, got {got}"))
    zeros = [torch.zeros(3)]
    still = _walk(answer, weight, zeros)
    yield expect(
        "without a gradient, weight decay alone shrinks the weight by lr * weight_decay",
        _close(still, weight * (1 - 0.1 * 0.5), 1e-5),
        (_close(still, _torch_adamw(weight, zeros, kind=torch.optim.Adam), 1e-5),
         "the decay went into the gradient, and the root took its size away: that is Adam with "
         "L2. Shrink the weight itself"),
        (_close(still, weight * 0.5, 1e-5), "the decay is multiplied with lr as well"),
        (_close(still, weight * (1 + 0.1 * 0.5), 1e-5), "the weight grew: subtract the decay"),
        (_close(still, weight, 1e-5), "the weight did not shrink"))
    yield from _many_steps(answer)


def _many_steps(answer: Callable) -> Iterator[Property]:
    weight = draw(4, 3, name="weight")
    gradients = [0.01 * draw(4, 3, name=f"gradient {step}") for step in range(6)]
    gradients[1] *= 1000  # long: a gradient that is clipped somewhere shows
    gradients[3][0], gradients[4] = 0.0, torch.zeros(4, 3)  # the running means go on moving it
    want, got, forgetful = _torch_adamw(weight, gradients), _walk(answer, weight, gradients), weight
    for gradient in gradients:
        forgetful = _torch_adamw(forgetful, [gradient])
    exchanged = _torch_adamw(weight, gradients, {**OPTIONS, "betas": (0.95, 0.8)})
    yield expect(
        "six steps equal torch.optim.AdamW", _close(got, want, 2e-6),
        (_close(got, forgetful, 2e-6),
         "every step is a first step: keep step, exp_avg and exp_avg_sq in `state`"),
        (_close(got, exchanged, 2e-6),
         "the two betas are exchanged: the first belongs to the mean of the gradient"),
        (_close(got, _walk(_inside_the_root, weight, gradients), 2e-6),
         "eps is added after the root, not under it"),
        (_close(got, _walk(_decays_last, weight, gradients), 2e-6),
         "the decay shrank the step too: take it from the weight as it was before the step"),
        (_close(got, _walk(_keeps_corrected, weight, gradients), 2e-6),
         "the corrected means went back into `state`, and are corrected again: keep them as "
         "they are, correct copies"),
        (_close(got, _torch_adamw(weight, gradients, {**OPTIONS, "eps": 0.0}), 2e-6),
         "eps takes no part"),
        (_close(got, _walk(_skips_zeros, weight, gradients), 2e-6),
         "where a gradient is zero the weight stood still: the running means go on moving it"),
        (_close(got, _torch_adamw(weight, [g * min(1, 1 / g.norm()) for g in gradients[:4]]
                                  + gradients[4:], OPTIONS), 2e-6), "the gradient was clipped"),
        (_close(got, _torch_adamw(weight, gradients, {**OPTIONS, "betas": (0.9, 0.999)}), 2e-6),
         "the betas are always 0.9 and 0.999: use those that are given"),
        (isinstance(got, Tensor) and got.shape == want.shape,
         f"largest difference {(torch.as_tensor(got) - want).abs().max():.3g}"))
    other = {"lr": 0.02, "betas": (0.9, 0.99), "eps": 1e-4, "weight_decay": 0.2}
    kept = [gradient.clone() for gradient in gradients]
    yield expect("with another lr, other betas, eps and decay, too",
                 _close(_walk(answer, weight, gradients, other),
                        _torch_adamw(weight, gradients, other), 2e-6),
                 (True, "one of the four is not taken from what is given"))
    state: dict = {}
    answer(weight.clone(), gradients[0], state, **OPTIONS)
    yield expect("the gradient is what it was", torch.equal(gradients[0], kept[0]),
                 (True, "it was changed in place, and whoever logs it sees another"))


def _inside_the_root(weight: Tensor, gradient: Tensor, state: dict, lr: float,
                     betas: tuple[float, float], eps: float, weight_decay: float) -> Tensor:
    """AdamW with eps under the root, which is a mistake to recognise."""
    step = state["step"] = state.get("step", 0) + 1
    mean = state["exp_avg"] = betas[0] * state.get("exp_avg", 0) + (1 - betas[0]) * gradient
    square = betas[1] * state.get("exp_avg_sq", 0) + (1 - betas[1]) * gradient**2
    state["exp_avg_sq"] = square
    size = (square / (1 - betas[1]**step) + eps).sqrt()
    return weight * (1 - lr * weight_decay) - lr * mean / (1 - betas[0]**step) / size


def _skips_zeros(weight: Tensor, gradient: Tensor, state: dict, **options: object) -> Tensor:
    """AdamW that leaves a weight alone whose gradient is zero, which is a mistake to recognise."""
    still = weight * (1 - options["lr"] * options["weight_decay"])
    return torch.where(gradient == 0, still, _step(weight, gradient, state, options))


def _decays_last(weight: Tensor, gradient: Tensor, state: dict, **options: object) -> Tensor:
    """AdamW whose decay comes after the step, which is a mistake to recognise."""
    plain = {**options, "weight_decay": 0.0}
    return _step(weight, gradient, state, plain) * (1 - options["lr"] * options["weight_decay"])


def _keeps_corrected(weight: Tensor, gradient: Tensor, state: dict, **options: object) -> Tensor:
    """AdamW that keeps what it corrected, which is a mistake to recognise."""
    return _step(weight, gradient, state, options, keep=True)


def _step(weight: Tensor, gradient: Tensor, state: dict, options: dict, keep: bool = False
          ) -> Tensor:
    """AdamW, with corrected means kept or not."""
    number = state["step"] = state.get("step", 0) + 1
    means = []
    for name, beta, new in zip(("exp_avg", "exp_avg_sq"), options["betas"],
                               (gradient, gradient**2), strict=True):
        state[name] = beta * state.get(name, 0) + (1 - beta) * new
        means.append(state[name] / (1 - beta**number))
        state[name] = means[-1] if keep else state[name]
    step = means[0] / (means[1].sqrt() + options["eps"])
    return weight * (1 - options["lr"] * options["weight_decay"]) - options["lr"] * step


class _Watched(nn.Module):
    """A small model that notes how many rows it is given, and what has happened before."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(draw(7, 7, name="table").double())
        self.rows: list[int] = []
        self.had_gradient: list[bool] = []

    def forward(self, ids: Tensor) -> Tensor:
        self.rows.append(len(ids))
        self.had_gradient.append(self.table.grad is not None and bool(self.table.grad.any()))
        return self.table[ids]


def _ragged(counts: Sequence[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
    """Parts of (rows, targets in each row) whose other targets are ignored."""
    generator = named_generator(0, "ragged")
    parts = []
    for rows, counted in counts:
        ids, targets = torch.randint(7, (2, rows, 6), generator=generator)
        targets[:, counted:] = IGNORED
        parts.append((ids, targets))
    return parts


def _wanted(parts: Parts, weigh: Callable[[Tensor], Tensor]) -> tuple[float, Tensor]:
    """The loss, and its gradient, when `weigh` makes one number of each part's summed loss."""
    model = _Watched()
    total = sum(weigh(targets) * F.cross_entropy(
        model(ids).flatten(0, 1), targets.flatten(), reduction="sum") for ids, targets in parts)
    total.backward()
    return total.item(), model.table.grad


@exercise
def accumulate_ragged(answer: Callable) -> Iterator[Property]:
    """06.2: gradients in parts that hold different numbers of targets."""
    parts = _ragged([(2, 6), (2, 1), (1, 3)])
    model, counted = _Watched(), 17
    got = answer(model, parts)
    right = _wanted(parts, lambda targets: 1 / counted)
    means = _wanted(parts, lambda targets: 1 / (targets != IGNORED).sum() / 3)
    places = _wanted(parts, lambda targets: 1 / 30)
    rows = _wanted(parts, lambda targets: 1 / 5)
    sums = _wanted(parts, lambda targets: 1.0)
    last = _wanted(parts[-1:], lambda targets: 1 / 3)
    yield expect(
        "the loss is the mean over all targets that count", _close(got, right[0]),
        (_close(got, means[0]), "the mean of the parts' means: a target in a part with few of "
                                "them weighs more than one in a full part"),
        (_close(got, 3 * means[0]), "the parts' means were added up"),
        (_close(got, places[0]), "divided by all positions: those with target -100 do not count"),
        (_close(got, rows[0]), "divided by rows: divide by targets"),
        (_close(got, sums[0]), "a sum: divide by the number of targets that count"),
        (_close(got, last[0]), "this is the last part's loss alone"),
        (got is None, "return the loss"), (True, f"expected {right[0]:.4f}, got {got}"))
    yield expect("the loss is a number", not (isinstance(got, Tensor) and got.requires_grad),
                 (True, "a tensor with its graph: add up loss.item()"))
    gradient = model.table.grad
    held = gradient is not None
    alone = _wanted(parts[-1:], lambda targets: 1 / counted)[1]
    yield expect(
        "the gradient is that of the whole batch", _close(gradient, right[1]),
        (gradient is None, "there is no gradient: call backward on each part's loss"),
        (_close(gradient, means[1]), "the mean of the parts' gradients: divide each part's summed "
                                     "loss by the number of targets in the whole batch"),
        (_close(gradient, 3 * means[1]), "each part was divided by its own number of targets"),
        (_close(gradient, rows[1]), "divided by rows: divide by targets"),
        (_close(gradient, sums[1]), "the summed losses went backwards undivided"),
        (_close(gradient, places[1]), "divided by all positions, those that do not count included"),
        (_close(gradient, last[1]) or _close(gradient, alone),
         "the last part's gradient alone: zero_grad belongs in front of the loop"),
        (_close(gradient / gradient.norm(), right[1] / right[1].norm()) if held else False,
         "its direction is right, its length is not: it was divided or clipped once more"),
        (held, f"largest difference {(gradient - right[1]).abs().max() if held else 0:.3g}"))
    yield from _in_parts(answer, model, parts)


def _in_parts(answer: Callable, model: _Watched, parts: Parts) -> Iterator[Property]:
    loud = [(torch.zeros_like(ids), targets.clamp_max(1)) for ids, targets in
            _ragged([(3, 4), (1, 6), (2, 2)])]
    other = _Watched()
    other.table.data[0, 2] = 30.0  # sure, and always wrong
    want = sum(F.cross_entropy(other.table[ids].flatten(0, 1), targets.flatten(), reduction="sum")
               for ids, targets in loud) / 22
    (slope,) = torch.autograd.grad(want, other.table)
    got = answer(other, loud)
    yield expect("22 targets whose gradient is large, too",
                 _close(got, want.item()) and _close(other.table.grad, slope),
                 (_close(got, want.item()), "the gradient was clipped: leave that to the step"),
                 (_close(got, want.item() * 22 / 17), "divided by 17: here there are 22 targets"))
    yield expect("the model reads one part at a time", model.rows == [2, 2, 1],
                 (max(model.rows, default=0) > 2, "all rows went through at once: that takes the "
                                                  "memory that the parts were to save"),
                 (True, f"it was called with {model.rows} rows"))
    yield expect(
        "each part's backward comes before the next part's forward", model.had_gradient[-1:] ==
        [True], (True, "backward waits until the end: until then every part's activations are "
                       "kept, as if there were one batch. Call it inside the loop"))
    empty = [*parts, *_ragged([(2, 0)])]
    fresh = _Watched()
    got = answer(fresh, empty)
    yield expect("a part without any target changes nothing", _close(got, _wanted(
        parts, lambda targets: 1 / 17)[0]),
        (isinstance(got, float | Tensor) and math.isnan(float(torch.as_tensor(got).detach())),
         "NaN: the mean over no target is 0 / 0. Take the sum, and divide by the count of all"))
    once = fresh.table.grad.clone()
    answer(fresh, parts)
    untouched = torch.equal(fresh.table, _Watched().table)
    yield expect("the weights are as they were", untouched,
                 (True, "they moved: the step is not asked for, its gradient is"))
    yield expect("gradients of an earlier batch are gone", _close(fresh.table.grad, once),
                 (_close(fresh.table.grad, 2 * once),
                  "called again on the same model, the gradient is twice as large: backward adds "
                  "to what is there, so clear it before the loop"))


@exercise
def warmup_cosine(answer: Callable) -> Iterator[Property]:
    """06.3: warm up along a line, fall along a cosine."""
    first = answer(0, 100, 10, 0.1)
    yield expect(
        "with 10 steps of warm-up, step 0 has 1/11 of the rate", _close(first, 1 / 11),
        (_close(first, 0), "the first step would change nothing: count the rising steps from 1"),
        (_close(first, 0.1), "the top would be reached one step early: of 11 equal rises, the "
                             "last leads to step 10"),
        (_close(first, 1), "there is no warm-up"),
        (_close(first, 0.1 + 0.9 / 11), "min_lr_ratio belongs to the fall: the rise starts near 0"))
    top = answer(10, 100, 10, 0.1)
    yield expect(
        "step 10 has all of it", _close(top, 1),
        (_close(top, 0.1), "it rises where it should fall: 1 + cos runs down from 2, 1 - cos up"),
        (_close(top, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 10))),
         "the cosine began at step 0: it begins where the warm-up ends"))
    half, end = answer(55, 100, 10, 0.1), answer(100, 100, 10, 0.1)
    yield expect(
        "half-way down it is midway between 1 and min_lr_ratio", _close(half, 0.55),
        (_close(half, 0.1 + 0.9 * math.cos(math.pi / 4)) or _close(half, math.cos(math.pi / 4)),
         "a quarter of a period: (1 + cos) / 2 runs over half a period, from 0 to pi"),
        (_close(half, 0.1) and _close(end, 1),
         "a whole period: it would rise again. Half of one, from 0 to pi"),
        (_close(half, 0.1), "cos runs from 1 to -1: (1 + cos) / 2 runs from 1 to 0"),
        (_close(half, 0.6),
         "min_lr_ratio was added on top: min_lr_ratio + (1 - min_lr_ratio) * fall"),
        (_close(half, 0.1 + 0.9 * (1 + math.cos(math.pi * 0.45)) / 2),
         "the fall takes max_steps - warmup_steps steps, not max_steps"),
        (_close(half, 0.1 + 0.9 * (1 + math.cos(90)) / 2), "math.cos takes radians: a half is pi"),
        (_close(half, 0.5) and _close(end, 0.1), "min_lr_ratio cuts the fall off, as "
         "max(min_lr_ratio, fall) does: the whole fall lies between, min_lr_ratio + "
         "(1 - min_lr_ratio) * fall"),
        (_close(half, 0.5),
         "min_lr_ratio takes no part here: min_lr_ratio + (1 - min_lr_ratio) * fall"))
    yield expect("at the end it is min_lr_ratio", _close(end, 0.1),
                 (_close(end, 0), "min_lr_ratio takes no part"), (True, f"it is {end}"))
    late = answer(77, 100, 10, 0.0)
    yield expect("the fall is a cosine's", _close(late, 0.5 * (1 + math.cos(math.pi * 67 / 90))),
                 (_close(late, 1 - 67 / 90), "this is a straight line"))
    for sizes in ((100, 10, 0.1), (50, 0, 0.0), (40, 39, 0.5)):
        pairs = [(answer(step, *sizes),
                  learning_rate_factor(step, *sizes[:2], min_lr_ratio=sizes[2]))
                 for step in range(sizes[0] + 1)]
        wrong = [f"at step {step} it is {got}, and should be {want:.4f}"
                 for step, (got, want) in enumerate(pairs) if not _close(got, want)]
        yield expect("max_steps={}, warmup_steps={}, min_lr_ratio={}: every step".format(*sizes),
                     not wrong, (True, "".join(wrong[:1])))
