"""The checks of chapter 04's exercises: properties first, then the mistakes people make.

Chapter:  chapters/04_norms.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from scratchbook.companions.norms_figures import chain_sizes
from scratchbook.companions.small_training import train
from scratchbook.norms import layer_norm, rms_norm
from scratchbook.teaching.answers import as_tensor, counterexample
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw


def close(got: object, want: Tensor, atol: float = 1e-4) -> bool:
    """Equal shapes and nearly equal numbers; anything that is no tensor is not close."""
    return (isinstance(got, Tensor) and got.shape == want.shape
            and torch.allclose(got.to(want.dtype), want, atol=atol))


def in_tensors(answer: Callable) -> Callable:
    """The same answer, its numbers as a float32 tensor, whether from an array or in float64."""
    def call(*arguments: object) -> object:
        got = answer(*arguments)
        numbers = as_tensor(got)
        return got if numbers is None else numbers.float()
    return call


@exercise
def layer_norm_backward(answer: Callable) -> Iterator[Property]:
    """04.1: the gradient through LayerNorm."""
    answer = in_tensors(answer)
    x, upstream = draw(3, 5, 8, name="x") * 3 + 1, draw(3, 5, 8, name="upstream")
    given = x.clone().requires_grad_()
    (want,) = torch.autograd.grad((layer_norm(given, eps=0.0) * upstream).sum(), given)
    before = x.clone()
    got = answer(x, upstream)
    yield expect("x is what it was", torch.equal(x, before),
                 (True, "x was changed in place, and its owner still needs it: centre a copy"))
    x = before
    yield expect("one gradient for each number", isinstance(got, Tensor) and got.shape == x.shape,
                 (True, "the result has the shape of x: did a keepdim=True go missing?"))
    if not isinstance(got, Tensor) or got.shape != x.shape:
        return
    centred = x - x.mean(-1, keepdim=True)
    std = centred.square().mean(-1, keepdim=True).sqrt()
    normed = centred / std
    no_mean = (upstream - normed * (upstream * normed).mean(-1, keepdim=True)) / std
    no_size = (upstream - upstream.mean(-1, keepdim=True)) / std
    yield expect("a shift of the whole vector changes nothing, so each row sums to zero",
                 bool(got.sum(-1).abs().max() < 1e-4),
                 (close(got, upstream / std), "mean and deviation were taken as constants: both "
                                              "depend on x"),
                 (close(got, no_mean), "the part through the mean is missing: subtract the mean of "
                                       "the upstream gradient"),
                 (True, f"a row sums to {got.sum(-1).abs().max().item():.3f}"))
    wide = x.std(-1, keepdim=True)
    one_less = (upstream - upstream.mean(-1, keepdim=True)
                - centred * (upstream * centred).mean(-1, keepdim=True) / wide**2) / wide
    yield expect("stretching the centred vector changes nothing either",
                 bool((got * centred).sum(-1).abs().max() < 1e-3),
                 (close(got, no_size), "the part through the deviation is missing: subtract the "
                                       "share of the upstream gradient that lies along the result"),
                 (close(got, one_less), "torch's std divides by one less than the number of "
                                        "entries; LayerNorm does not: std(correction=0)"),
                 (True, "the gradient has a part along the centred vector"))
    yield expect("equal to torch's autograd", close(got, want),
                 (close(got * std, want) or close(got / std, want),
                  "off by the deviation: the whole is divided by it once"),
                 (close(-got, want), "the sign is turned round"),
                 (True, f"largest difference {(got - want).abs().max().item():.3g}"))
    six = draw(1, 3, 6, name="x of 6"), draw(1, 3, 6, name="upstream of 6")
    differs = counterexample(answer, _layer_norm_backward, [six], 1e-4)
    yield expect("vectors of six numbers, too", not differs, (True, differs))
    small = 0.01 * six[0], six[1]
    differs = counterexample(answer, _layer_norm_backward, [small], 1e-3)
    yield expect("a hundred times smaller, too", not differs,
                 (close(answer(*small), _layer_norm_backward(*small, eps=1e-5), atol=0.05),
                  "there is an eps of 1e-5 in it, and the exercise has none"), (True, differs))


def _layer_norm_backward(x: Tensor, upstream: Tensor, eps: float = 0.0) -> Tensor:
    given = x.clone().requires_grad_()
    return torch.autograd.grad((layer_norm(given, eps=eps) * upstream).sum(), given)[0]


@exercise
def rms_norm_half(answer: Callable) -> Iterator[Property]:
    """04.2: RMSNorm on half-precision numbers."""
    small = draw(2, 4, 64, name="half").half()
    got = answer(small)
    yield expect("float16 in, float16 out", getattr(got, "dtype", None) in HALF,
                 (getattr(got, "dtype", None) == torch.float32,
                  "the result stayed in float32: go back to x.dtype at the end"),
                 (True, "the result must be a float16 tensor"))
    answer = in_tensors(answer)
    x = small.float()
    for what, factor in (("entries of size one", 1.0),
                         ("entries of 400 keep their proportions", 400),
                         ("entries of 0.001 too", 1e-3)):
        given = (factor * x).half()
        out = answer(given)
        yield expect(what, close(out, rms_norm(given.float()), atol=0.004),
                     *_half_mistakes(out, given, factor))
    other = draw(3, 40, name="vectors of 40").half()
    differs = counterexample(answer, lambda x: rms_norm(x.float()), [(other,)], 0.004)
    yield expect("vectors of 40 entries, in a batch with one axis less", not differs,
                 (True, differs))
    zero = answer(torch.zeros(2, 8, dtype=torch.float16))
    yield expect("a vector of zeros stays zero", bool((zero == 0).all()),
                 (bool(zero.isnan().any()), "0 / 0: eps is missing, or was too small for float16"))


HALF = (torch.float16, np.dtype("float16"))


def _half_mistakes(out: object, given: Tensor, factor: float) -> list[tuple[bool, str]]:
    """What went wrong with these entries: slips in the formula first, then in the precision."""
    x = given.float()
    square = x.square().mean(-1, keepdim=True)

    def was(other: Tensor) -> bool:
        return close(out, other.half().float(), atol=0.004 + 1e-3 * other.abs().max().item())

    finite = isinstance(out, Tensor) and bool(out.isfinite().all())
    slips = [
        (was(x / (square.sqrt() + 1e-5)), "eps stands outside of the root: it is added to the mean "
                                          "square"),
        (was(layer_norm(x)), "this is LayerNorm: RMSNorm subtracts no mean"),
        (was(x / (square + 1e-5)), "the root is missing: divide by the root of the mean square"),
        (was(x / (x.square().sum(-1, keepdim=True) + 1e-5).sqrt()),
         "this gives length one: divide by the root of the mean square, not of the sum"),
        (was(x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt()),
         "the mean runs over the positions: each vector has its own, over the last axis"),
        *((was(x / (square + eps).sqrt()), f"eps is {eps:g} in your answer, wanted is 1e-5")
          for eps in (1e-4, 2e-5, 1e-6, 1e-8, 0.0) if factor < 1),
        (was(x * (square + 1e-5).sqrt()), "divide by the root of the mean square"),
    ]
    return [
        *slips,
        (finite and factor > 1 and bool((out == 0).all()),
         "all zeros: 400 squared is 160,000, float16 ends at 65,504; square in float32"),
        (not finite and factor > 1, "infinities: the squares left the range of float16, which "
                                    "ends at 65,504; square in float32"),
        (not finite, "divided by zero: the squares fell below what float16 can hold"),
        (factor < 1 and was(x / (given.square().float().mean(-1, keepdim=True) + 1e-5).sqrt()),
         "squares of 0.001 lose most digits in float16: square in float32"),
        (True, f"largest difference {(out - rms_norm(x)).abs().max().item():.3g}"
               if isinstance(out, Tensor) and out.shape == x.shape else "another shape came back")]


@exercise
def which_placement(answer: Callable) -> Iterator[Property]:
    """04.3: tell the placement of the norm from the sizes of the stream."""
    for name, what in (("post", "a flat line is post"), ("pre", "slow growth is pre"),
                       ("residual", "explosive growth is residual")):
        said = {gain: [answer(list(sizes)) for sizes in _chains(name, gain, layers)]
                for gain, layers in GAINS.items()}
        wrong = {gain: given for gain, given in said.items() if set(given) != {name}}
        named = {other for given in wrong.values() for other in given}
        yield expect(
            what, not wrong,
            (name == "pre" and "residual" in named, "steady growth that slows down is pre: each "
             "layer adds something of size one, so the square of the size grows by the same "
             "amount, and the size like the root of the depth. How high it ends is a matter of the "
             "gain"),
            (name == "residual" and "pre" in named, "without a norm each layer multiplies, so the "
             "ratio from layer to layer stays the same however deep"),
            (name == "post" and "pre" in named, "a flat line: look at the last against the second"),
            (True, "with gain " + "; ".join(f"{gain}: you named {', '.join(map(str, given))}"
                                            for gain, given in list(wrong.items())[:2])))


# chains of a small gain are long: after a few layers their sizes are mostly chance
GAINS = {0.3: 128, 0.5: 96, 0.8: 48, 1.6: 24, 200.0: 24}


@cache
def _chains(name: str, gain: float, layers: int) -> list[list[float]]:
    """Three chains of width 48; the third starts with a vector a hundred times smaller."""
    return [chain_sizes(draw(48, seed=seed, name="start") * (0.01 if seed == 2 else 1.0),
                        gain / 48**0.5 * draw(layers, 48, 48, seed=seed, name="which"), name)
            for seed in range(3)]


def _parts(gain: float, seed: int) -> list[nn.Module]:
    """Eight parts of width 16 whose freshly drawn weights are `gain` times too large."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = [nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(8)]
    with torch.no_grad():
        for part in parts:
            for weight in part.parameters():
                weight.mul_(gain)
    return parts


class _Says(nn.Module):
    """A part that says the same vector whatever it hears, and remembers what that was."""

    def __init__(self, word: Tensor):
        super().__init__()
        self.word = nn.Parameter(word)

    def forward(self, x: Tensor) -> Tensor:
        self.heard, self.joined = x.detach(), x.requires_grad
        return self.word.expand_as(x)


def _last_loss(answer: Callable, seed: int) -> float:
    """The loss after 60 large steps: name the largest of four sums."""
    x = draw(256, 16, name="points")
    targets = (x @ draw(16, 4, name="sums")).argmax(-1)

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(256, (32, 1), generator=generator)
        return x[rows], targets[rows]

    stack = answer(_parts(4.0, seed), 16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(16, 4)
    losses = train(nn.Sequential(stack, head), batch, steps=60, seed=seed, lr=0.03)
    return sum(losses[-10:]) / 10 if len(losses) == 60 else float("inf")


def _what_the_last_part_hears(answer: Callable) -> float:
    heard, parts = [], _parts(4.0, 0)
    parts[-1].register_forward_hook(lambda _, given, out: heard.append(given[0].square().mean()))
    answer(parts, 16)(draw(5, 16, name="x"))
    return heard[0].sqrt().item() if heard else 0.0


@exercise
def save_the_run(answer: Callable) -> Iterator[Property]:
    """04.4: a stack that diverges, and one that does not."""
    x, parts = draw(5, 16, name="x"), _parts(4.0, 0)
    before = [weight.detach().clone() for part in parts for weight in part.parameters()]
    stack = answer(parts, 16)
    mine = {id(weight) for weight in stack.parameters()} if isinstance(stack, nn.Module) else set()
    held = [id(weight) in mine for part in parts for weight in part.parameters()]
    yield expect("a module that owns all eight parts", bool(held) and all(held),
                 (not isinstance(stack, nn.Module), "return an nn.Module"),
                 (not any(held) and len(mine) >= len(held), "it owns copies of the parts, and who "
                  "made the parts still holds the others: take them as they are"),
                 (not any(held), "the parts are in a plain list, where no optimizer finds their "
                                 "weights: use nn.ModuleList"),
                 (True, "some parts were left out: that saves the run and loses the model"))
    if not all(held):
        return
    now = [weight for part in parts for weight in part.parameters()]
    frozen = not all(weight.requires_grad for weight in now)
    yield expect("the weights are as they came", all(map(torch.equal, before, now)) and not frozen,
                 (frozen, "some weights are frozen: they are to be trained"),
                 (True, "the parts' weights were changed: a norm in front of each part lets them "
                        "stay as large as they are"))
    silent = answer(_parts(0.0, 0), 16)(x)
    yield expect("what comes in passes parts that say nothing", bool(silent.square().sum() > 1),
                 (True, "silent parts, and nothing comes out: add each part to the stream, "
                        "x + part(...)"))
    loud = answer(_parts(40.0, 0), 16)(x).square().mean(-1).sqrt()
    size = loud.max().item()
    yield expect("however loud the parts, each vector of the result is of size one",
                 bool(loud.min() > 0.9) and size < 1.1,
                 (not size < 1e6, "no part's size is put back, so each multiplies that of all "
                                  "before it"),
                 (size < 0.3, f"the result has size {size:.2f}: length one is asked for nowhere, "
                              "size one is the root of the mean square"),
                 (0.5 < loud.square().mean() < 2, "their sizes are "
                  f"{', '.join(f'{one:.2f}' for one in loud.tolist())}: each vector has a mean of "
                  "its own, over the last axis, not one for the whole batch"),
                 (True, f"the result has size {size:,.0f}: behind the last part the stream has "
                        "grown, and the final norm is missing"))
    yield from _what_is_added(answer, x)
    loss, heard = _last_loss(answer, 0), _what_the_last_part_hears(answer)
    yield expect("trained with large steps, it learns", loss < 0.7,
                 (not heard < 10, f"the last part hears a stream of size {heard:,.0f}: a norm at "
                                  "the end alone comes too late for it"),
                 (True, f"the loss ends at {loss:.2f}, knowing nothing costs 1.39"))


def _what_is_added(answer: Callable, x: Tensor) -> Iterator[Property]:
    """Parts that say constant vectors: the result and what each part hears are known."""
    words = 30 * draw(8, 16, name="words")
    parts = [_Says(word) for word in words]
    stack = answer(parts, 16)
    got, again, post = stack(x).detach(), stack(x.clone().requires_grad_()).detach(), x
    for word in words:
        post = rms_norm(post + word)
    stream, said = x + words.sum(0), words.sum(0)
    yield expect("the result is the normed sum of what came in and what the parts said",
                 _normed(got, stream),
                 (_normed(got, x), "the parts take part in nothing: what they say is not added"),
                 (close(got, post, atol=1e-2), "the norm stands on the stream itself (post-norm): "
                                               "put it in front of the part"),
                 (_normed(got, x - said), "what the parts say is subtracted: add it"),
                 (True, "something else is added to the stream than what the parts say"))
    yield expect("asked twice, it answers the same", close(again, got, atol=1e-5),
                 (True, "the second time it does something else: is something used up, as a "
                        "generator is?"))
    called = all(hasattr(part, "heard") for part in parts)
    heard = called and _hear(parts, x)
    yield expect("each part hears the normed stream", heard,
                 (not called, "some parts are not called"),
                 (called and _hear(parts[::-1], x), "the last part is called first"),
                 (True, "a norm of its own stands in front of each part, and the part behind it is "
                        "called once: x + part(norm(x))"))
    if heard:
        yield expect("the gradient reaches what is below", all(part.joined for part in parts),
                     (True, "what the parts hear is cut off from the stream: leave detach() out"))
    three, x = [_Says(word) for word in draw(3, 12, name="three words")], draw(2, 4, 12, name="x3")
    yield expect("three parts of width 12, too",
                 _normed(answer(three, 12)(x), x + sum(part.word for part in three).detach()),
                 (True, "count the parts with len(parts), and norm vectors of `width` numbers"))


def _hear(parts: list[nn.Module], stream: Tensor) -> bool:
    """Whether each part heard the normed sum of what came in and what those before it said."""
    for part in parts:
        if not _normed(part.heard, stream):
            return False
        stream = stream + part.word.detach()
    return True


def _normed(got: Tensor, stream: Tensor) -> bool:
    return any(close(got, norm(stream), atol=1e-3) for norm in (rms_norm, layer_norm))


@exercise
def bounded_scores(answer: Callable) -> Iterator[Property]:
    """04.5: attention scores that cannot run away."""
    answer = in_tensors(answer)
    q, k = draw(6, 16, name="q"), draw(9, 16, name="k")
    got = answer(q, k)
    yield expect("a score for each query and key",
                 isinstance(got, Tensor) and got.shape == (6, 9),
                 (isinstance(got, Tensor) and got.shape == (9, 6), "rows are queries: q @ k.T"),
                 (True, "expected shape (6, 9)"))
    if not isinstance(got, Tensor) or got.shape != (6, 9):
        return
    huge = answer(1000 * q, 1000 * k)
    plain = q @ k.T / 4
    unit = torch.nn.functional.normalize(q, dim=-1) @ torch.nn.functional.normalize(k, dim=-1).T
    yield expect("vectors a thousand times longer give the same scores",
                 close(huge, got, atol=1e-2),
                 (close(got, plain), "nothing was normed: divide queries and keys by their RMS"),
                 (bool((huge / got).median() > 10), "only one of the two was normed"),
                 (True, "the scores still depend on the lengths"))
    want = rms_norm(q, eps=0.0) @ rms_norm(k, eps=0.0).T / 4
    yield expect("none exceeds the root of the head size, and all are right",
                 close(got, want, atol=1e-3),
                 (any(close(got, unit / root, atol=1e-3) for root in (1, 4)),
                  "vectors of length one: scores of at most 1 make softmax almost even. RMS one "
                  "means length sqrt(16)"),
                 (close(got, 4 * want, atol=1e-3), "not divided by the root of the head size"),
                 (True, f"largest difference {(got - want).abs().max().item():.3g}"))
    inputs = [(draw(2, 5, name="q of 5"), draw(3, 5, name="k of 5"))]
    differs = counterexample(
        answer, lambda q, k: rms_norm(q, eps=0.0) @ rms_norm(k, eps=0.0).T / 5**0.5, inputs, 1e-3)
    yield expect("heads of size five, too", not differs, (True, differs))
