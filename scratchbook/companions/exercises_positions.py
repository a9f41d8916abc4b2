"""The checks of chapter 03's exercises: properties first, then the mistakes people make.

Chapter:  chapters/03_positional_encodings.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from scratchbook.config import RopeSettings
from scratchbook.positions import RotaryEmbedding, alibi_slopes, inverse_frequencies, sinusoids
from scratchbook.teaching.answers import as_tensor, counterexample, is_rounded, same
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw


def near(got: object, want: tuple, atol: float = 1e-6) -> bool:
    """A pair of numbers close to the wanted one."""
    return same(got, want, atol)


def _in_numbers(answer: Callable) -> Callable:
    """The answer as a list of floats, whatever holds them."""
    def call(*arguments: object) -> object:
        got = answer(*arguments)
        items = as_tensor(got)
        return got if items is None or items.dim() != 1 else items.tolist()
    return call


@exercise
def rotate_pair(answer: Callable) -> Iterator[Property]:
    """03.1: turn one pair of numbers."""
    answer = _in_numbers(answer)
    quarter = answer(1.0, 0.0, 3, math.pi / 6)
    yield expect(
        "(1, 0) after a quarter turn is (0, 1)", near(quarter, (0.0, 1.0)),
        (near(quarter, (0.0, -1.0)),
         "it turned clockwise: minus the sine belongs with y, in the first row"),
        (near(quarter, (math.cos(math.pi / 18), math.sin(math.pi / 18)), 1e-3)
         or near(quarter, (math.cos(3 / (math.pi / 6)), math.sin(3 / (math.pi / 6)))),
         "the angle is position times speed, not a quotient"),
        (near(quarter, (math.cos(math.pi / 6), math.sin(math.pi / 6))),
         "it turned by one step: the angle is position times speed"),
        (near(quarter, (math.cos(math.radians(math.pi / 2)), math.sin(math.radians(math.pi / 2)))),
         "the speed is in radians already: do not convert it"),
        (True, f"expected (0, 1), got {quarter}"))
    x, y = 0.6, -1.7
    turned = answer(x, y, 5, 0.3)
    c, s = math.cos(1.5), math.sin(1.5)
    yield expect(
        "any pair turns as it should", near(turned, (c * x - s * y, s * x + c * y)),
        (near(turned, (c * x - s * y, s * (c * x - s * y) + c * y)),
         "the second line used the new x: compute both from the old pair"),
        (near(turned, (c * x, s * y)) or near(turned, (c * x, s * x)),
         "a coordinate was left out: each new one mixes both old ones"),
        (near(turned, (c * x + s * y, -s * x + c * y)), "it turned the other way"),
        (_rounded(turned, (c * x - s * y, s * x + c * y)), ROUNDED),
        (True, f"expected {(c * x - s * y, s * x + c * y)}, got {turned}"))
    kept = isinstance(turned, tuple | list) and math.isclose(
        math.hypot(*map(float, turned)), math.hypot(x, y), rel_tol=1e-6)
    yield expect("turning keeps the length", kept,
                 (_rounded(turned, (c * x - s * y, s * x + c * y)), ROUNDED),
                 (True, "cosine squared plus sine squared must come out as one"))
    yield from _whole_circle(answer)


ROUNDED = "the right numbers, but rounded: return all their digits"


def _rounded(got: object, want: Sequence[float]) -> bool:
    pairs = list(zip(got, want, strict=False)) if isinstance(got, list) else []
    return any(is_rounded(*pair) for pair in pairs) and all(
        a == b or is_rounded(a, b) for a, b in pairs)


def _turn(x: float, y: float, position: int, speed: float) -> tuple[float, float]:
    c, s = math.cos(position * speed), math.sin(position * speed)
    return c * x - s * y, s * x + c * y


def _whole_circle(answer: Callable) -> Iterator[Property]:
    differs = counterexample(answer, _turn, [(-0.6, 1.7, 5, 0.3), (0.0, -2.0, 5, 0.3)])
    yield expect("pairs whose x is negative or zero", not differs,
                 (True, f"{differs}: atan(y / x) does not know the quadrant (atan2 does)"))
    x, y = _turn(0.6, -1.7, 13, 0.3)
    got, mirrored = answer(0.6, -1.7, 13, 0.3), _turn(0.6, -1.7, -13, 0.3)
    yield expect("more than half a turn", near(got, (x, y)),
                 (near(got, mirrored), "the sine is negative there: a root of 1 - cos^2 loses it"),
                 (near(got, (-x, -y)), "half a turn was lost: a whole one is 2 pi, not pi"),
                 (True, f"expected {(x, y)}, got {got}"))
    differs = counterexample(answer, _turn, [(0.6, -1.7, 400, 0.3), (0.6, -1.7, 5, -0.3)])
    yield expect("many turns, and a negative speed", not differs,
                 (True, f"{differs}: the angle may be large, and it may be negative"))


def _squared(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return RotaryEmbedding(x.shape[-1])(x, positions**2)


def _added(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return x + sinusoids(positions, x.shape[-1])


def _wrapping(after: int) -> Callable:
    # wrong only from one position on, as a table that wraps around would be
    rotary = RotaryEmbedding(16)
    return lambda x, positions: rotary(x, positions % after)


def _louder(share: float, where: Callable[[torch.Tensor], torch.Tensor]) -> Callable:
    """An encoding that does nothing but make vectors longer by a share at some positions."""
    return lambda x, positions: x * (1 + share * where(positions).double())[:, None]


def _at_some_places(says: Callable[[Callable], bool], unit: float) -> Iterator[Property]:
    """Encodings that break the law a little, at single places, or only far out."""
    yield expect("one that makes vectors longer from place to place does not",
                 not says(_louder(unit / 100, lambda place: place)),
                 (True, "the score is the plain product, lengths included: do not normalise"))
    yield expect("nor one whose scores drift by 0.00004 from place to place",
                 not says(_louder(2e-5 * unit, lambda place: place)),
                 (True, "compare each score with the first, not with the one before"))
    yield expect("nor one that turns all vectors round from place 100 on",
                 not says(lambda x, positions: torch.where(positions < 100, x, -x)),
                 (True, "q before the border and k behind it score the opposite: keep the sign, "
                        "and let q and k stand apart"))
    for after in (64, 128):
        yield expect(f"one that wraps around after {after} does not", not says(_wrapping(after)),
                     (True, "shift further: some encodings go wrong only far out"))
    yield expect("one that is wrong at place 190 alone does not",
                 not says(_louder(unit, lambda place: place == 190)),
                 (True, "try every step up to 200, not some of them"))
    both = [says(_louder(sign * unit / 4, lambda place: place == 137)) for sign in (1, -1)]
    yield expect("a higher score counts as a lower one does", both[0] == both[1],
                 (True, "a score may rise or fall: take the absolute value of the difference"))
    yield expect("nor is a change of 0.0003 at place 137 alone forgiven",
                 not says(_louder(1.5e-4 * unit, lambda place: place == 137)),
                 (True, "one score alone may differ: compare each with the first, not their mean "
                        "or spread; 1e-4 is allowed"))
    yield expect("one whose scores change by 0.0003 far out does not",
                 not says(_louder(1.5e-4 * unit, lambda place: place > 100)),
                 (True, "the tolerance is too wide, or the scores are made smaller before they are "
                        "compared: a score is a sum, and 1e-4 is allowed"))
    yield expect("one whose scores change by 0.00004 passes",
                 says(_louder(2e-5 * unit, lambda place: place > 100)),
                 (True, "the tolerance is too tight: 1e-4 is allowed, which is rounding"))


@exercise
def depends_only_on_distance(answer: Callable) -> Iterator[Property]:
    """03.2: test an encoding for the law of relative positions."""
    q, k = draw(1, 1, 1, 16, name="q"), draw(1, 1, 1, 16, name="k")
    unit = 1 / abs(float((q.double() * k.double()).sum()))  # one in the score of both

    def says(encode: Callable) -> bool:
        return bool(answer(encode, q.clone(), k.clone()))

    rotary = says(RotaryEmbedding(16))
    yield expect("rotary positions pass", rotary,
                 (True, "they obey the law to rounding: compare scores, not vectors, and allow "
                        "1e-4; was only one of the two encoded?"))
    yield expect("stretched rotary positions pass",
                 says(RotaryEmbedding(16, RopeSettings(scaling="linear", factor=4.0))),
                 (not rotary, "mend the case above first"),
                 (True, "a stretched clock still depends on distance alone"))
    yield expect("an encoding that does nothing passes", says(lambda x, positions: x),
                 (True, "its scores depend on nothing at all, so certainly not on the place"))
    used: list[bool] = []

    def spy(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        used.append(x.shape != q.shape or any(torch.equal(x.float(), given) for given in (q, k)))
        return x

    says(spy)
    yield expect("the vectors that are encoded are q and k", all(used),
                 (True, "the check gives q and k: do not draw your own"))
    yield expect("added sinusoids do not", not says(_added),
                 (True, "the sum has cross terms that know the place: does your test move both "
                        "positions by the same step?"))
    yield expect("an encoding by the square of the position does not", not says(_squared),
                 (True, "compare more than one shift, or a pair with some distance"))
    yield from _at_some_places(says, unit)


@exercise
def slopes(answer: Callable) -> Iterator[Property]:
    """03.3: ALiBi's slopes for a power of two."""
    answer = _in_numbers(answer)
    got = list(answer(8))
    yield expect("one slope for each head", len(got) == 8,
                 (len(got) == 9, "one too many: the first is 1/2, not 1"),
                 (True, f"8 heads but {len(got)} slopes"))
    want = alibi_slopes(8).tolist()
    yield expect(
        "8 heads: 1/2, 1/4, ... 1/256", same(got, want, 1e-9),
        (same(got, [2.0**-n for n in range(8)]), "it begins with 1: the exponents run from 1 to 8"),
        (same(sorted(got), sorted(want), 1e-9),
         "the right slopes in another order: steepest first"),
        (same(got, [-s for s in want], 1e-9), "a slope is positive here; the bias takes the minus"),
        (all(math.isclose(a, 1 / (n + 1)) for n, a in enumerate(got)),
         "each slope is the one before times a ratio, not 1/n"),
        (_rounded(got, want), ROUNDED), (True, f"got {[round(s, 4) for s in got]}"))
    for heads, shown in ((2, "1/16, 1/256"), (64, "0.9170, ... 1/256"),
                         (4, "1/4, 1/16, 1/64, 1/256"), (16, "0.7071, 1/2, ... 1/256"),
                         (1, "1/256")):
        found, wanted = list(answer(heads)), alibi_slopes(heads).tolist()
        yield expect(
            f"{heads} heads: {shown}" if heads > 1 else f"one head: {shown}",
            same(found, wanted, 1e-6),
            (same(found, [2.0**-n for n in range(1, heads + 1)]),
             "the ratio does not depend on the heads in your answer: it is 2^(-8/heads), so that "
             "the last slope is always 1/256"),
            (len(found) == heads and same(found[-1], wanted[-1]) and not same(found[0], wanted[0]),
             "the last is right, the first is not: it equals the ratio, 2^(-8/heads)"),
            (True, f"got {[round(s, 4) for s in found]}"))


@exercise
def ntk_base(answer: Callable) -> Iterator[Property]:
    """03.4: the base that slows the slowest pair by a factor."""
    got = float(answer(10_000.0, 64, 4.0))
    plain = inverse_frequencies(64)
    ratio = (plain[-1] / inverse_frequencies(64, got)[-1]).item() if got > 1 else math.nan
    want = 10_000.0 * 4.0 ** (64 / 62)
    yield expect(
        "the slowest pair becomes slower by the factor", math.isclose(ratio, 4.0, rel_tol=1e-4),
        (math.isclose(got, 40_000.0), "the base itself times the factor: the slowest pair has the "
                                      "exponent (d - 2)/d, so a little more is needed"),
        (math.isclose(got, 10_000.0 * 4.0 ** (62 / 64)),
         "the exponent stands on its head: solve base^((d-2)/d) = factor * old^((d-2)/d)"),
        (math.isclose(got, 10_000.0 / 4.0 ** (64 / 62)), "a smaller base turns faster"),
        (math.isclose(got, 10_000.0 * 4.0**2), "squared: the exponent is d/(d - 2), about one"),
        (True, f"expected {want:,.1f}, got {got:,.1f}: slower by {ratio:.3f}, not 4"))
    yield expect("a factor of one changes nothing",
                 math.isclose(float(answer(500.0, 16, 1.0)), 500.0, rel_tol=1e-9),
                 (float(answer(500.0, 16, 1.0)) == 10_000, "the base 10,000 is written into your "
                                                           "answer"),
                 (True, f"expected 500, got {float(answer(500.0, 16, 1.0)):,.1f}"))
    yield expect(
        "it also holds for heads of size 8",
        math.isclose(float(answer(10_000.0, 8, 2.0)), 10_000.0 * 2.0 ** (8 / 6), rel_tol=1e-9),
        (math.isclose(float(answer(10_000.0, 8, 2.0)), 10_000.0 * 2.0 ** (64 / 62)),
         "the size 64 is written into your answer"),
        (is_rounded(float(answer(10_000.0, 8, 2.0)), 10_000.0 * 2.0 ** (8 / 6)), ROUNDED),
        (True, f"expected 25,198.4, got {float(answer(10_000.0, 8, 2.0)):,.1f}"))
