"""The checks of chapter 04's exercises: properties first, then the mistakes people make.

Chapter:  chapters/04_norms.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from scratchbook.companions.norms_figures import chain_sizes
from scratchbook.companions.small_training import train
from scratchbook.norms import layer_norm, rms_norm
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw


def close(got: object, want: Tensor, atol: float = 1e-4) -> bool:
    """Equal shapes and nearly equal numbers; anything that is no tensor is not close."""
    return (isinstance(got, Tensor) and got.shape == want.shape
            and torch.allclose(got.to(want.dtype), want, atol=atol))


@exercise
def layer_norm_backward(answer: Callable) -> Iterator[Property]:
    """04.1: the gradient through LayerNorm."""
    x, upstream = draw(5, 8, name="x") * 3 + 1, draw(5, 8, name="upstream")
    given = x.clone().requires_grad_()
    (want,) = torch.autograd.grad((layer_norm(given, eps=0.0) * upstream).sum(), given)
    got = answer(x, upstream)
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


@exercise
def rms_norm_half(answer: Callable) -> Iterator[Property]:
    """04.2: RMSNorm on half-precision numbers."""
    small = draw(4, 64, name="half").half()
    got = answer(small)
    yield expect("float16 in, float16 out", isinstance(got, Tensor) and got.dtype == torch.float16,
                 (isinstance(got, Tensor) and got.dtype == torch.float32,
                  "the result stayed in float32: go back to x.dtype at the end"),
                 (True, "the result must be a float16 tensor"))
    large = (400 * draw(4, 64, name="half")).half()
    out = answer(large)
    finite = isinstance(out, Tensor) and bool(out.isfinite().all())
    want = rms_norm(large.float())
    yield expect("entries of 400 keep their proportions",
                 finite and torch.allclose(out.float(), want, atol=0.01),
                 (finite and bool((out == 0).all()), "all zeros: 400 squared is 160,000, float16 "
                                                     "ends at 65,504; square in float32"),
                 (not finite, "infinities: the squares left the range of float16"),
                 (True, "the result is off: was the mean taken in float16?"))
    tiny = (1e-3 * draw(4, 64, name="half")).half()
    out = answer(tiny).float()
    yield expect("entries of 0.001 too", torch.allclose(out, rms_norm(tiny.float()), atol=0.01),
                 (bool(out.isfinite().all()) is False, "divided by zero: the squares fell below "
                                                       "what float16 can hold"),
                 (True, "squares of 0.001 lose most digits in float16: square in float32; eps is "
                        "1e-5, inside the root"))
    zero = answer(torch.zeros(2, 8, dtype=torch.float16))
    yield expect("a vector of zeros stays zero", bool((zero == 0).all()),
                 (bool(zero.isnan().any()), "0 / 0: eps is missing, or was too small for float16"))


@exercise
def which_placement(answer: Callable) -> Iterator[Property]:
    """04.3: tell the placement of the norm from the sizes of the stream."""
    for name, what in (("post", "a flat line is post"), ("pre", "slow growth is pre"),
                       ("residual", "explosive growth is residual")):
        said = []
        for seed in range(4):
            gain = (0.8, 1.0, 1.6, 200.0)[seed]  # so that no height tells the three apart
            matrices = gain * draw(24, 48, 48, seed=seed, name="which") / 48**0.5
            said.append(answer(chain_sizes(draw(48, seed=seed, name="start"), matrices, name)))
        yield expect(
            what, said == [name] * 4,
            (name == "pre" and "residual" in said, "steady growth that slows down is pre: each "
             "layer adds something of size one, so the size follows the root of the depth. Compare "
             "the growth of the second half with that of the first: how high it ends is a matter "
             "of the gain"),
            (name == "residual" and "pre" in said, "without a norm each layer multiplies, so the "
             "ratio from layer to layer stays the same however deep"),
            (name == "post" and "pre" in said, "a flat line: look at the last against the second"),
            (True, f"of four runs you named {', '.join(map(str, said))}"))


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


def _last_loss(answer: Callable, seed: int) -> float:
    """The loss after 60 large steps: name the largest of four sums."""
    x = draw(256, 16, name="points")
    targets = (x @ draw(16, 4, name="sums")).argmax(-1)

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(256, (64, 1), generator=generator)
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
    stack = answer(parts, 16)
    mine = {id(weight) for weight in stack.parameters()} if isinstance(stack, nn.Module) else set()
    held = [id(weight) in mine for part in parts for weight in part.parameters()]
    yield expect("a module that owns all eight parts", bool(held) and all(held),
                 (not isinstance(stack, nn.Module), "return an nn.Module"),
                 (not any(held), "the parts are in a plain list, where no optimizer finds their "
                                 "weights: use nn.ModuleList"),
                 (True, "some parts were left out: that saves the run and loses the model"))
    if not all(held):
        return
    silent = answer(_parts(0.0, 0), 16)(x)
    yield expect("what comes in passes parts that say nothing", bool(silent.square().sum() > 1),
                 (True, "silent parts, and nothing comes out: add each part to the stream, "
                        "x + part(...)"))
    size = answer(_parts(40.0, 0), 16)(x).square().mean().sqrt().item()
    yield expect("however loud the parts, the result is of size one", 0.5 < size < 2,
                 (not size < 1e6, "no part's size is put back, so each multiplies that of all "
                                  "before it"),
                 (True, f"the result has size {size:,.0f}: behind the last part the stream has "
                        "grown, and the final norm is missing"))
    loss = max(_last_loss(answer, seed) for seed in range(2))
    heard = _what_the_last_part_hears(answer)
    yield expect("trained with large steps, it learns", loss < 0.6,
                 (not heard < 10, f"the last part hears a stream of size {heard:,.0f}: a norm at "
                                  "the end alone comes too late for it"),
                 (True, f"the loss ends at {loss:.2f}, knowing nothing costs 1.39. Does the "
                        "norm stand on the stream itself (post-norm)? Put it in front of the part"))


@exercise
def bounded_scores(answer: Callable) -> Iterator[Property]:
    """04.5: attention scores that cannot run away."""
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
