"""Wrong answers to the exercises of chapter 03, and what the check must say to each."""

from __future__ import annotations

import math

import torch


# 03.1
def clockwise(x, y, position, speed):
    c, s = math.cos(position * speed), math.sin(position * speed)
    return c * x + s * y, -s * x + c * y


def one_step(x, y, position, speed):
    c, s = math.cos(speed), math.sin(speed)
    return c * x - s * y, s * x + c * y


def in_degrees(x, y, position, speed):
    angle = math.radians(position * speed)
    return (math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y)


def uses_the_new_x(x, y, position, speed):
    c, s = math.cos(position * speed), math.sin(position * speed)
    x = c * x - s * y
    return x, s * x + c * y


def by_atan(x, y, position, speed):
    size, angle = math.hypot(x, y), math.atan(y / x) if x else math.pi / 2
    angle += position * speed
    return size * math.cos(angle), size * math.sin(angle)


def half_turns_lost(x, y, position, speed):
    angle = position * speed % math.pi
    return (math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y)


def sine_from_cosine(x, y, position, speed):
    c = math.cos(position * speed)
    s = math.sqrt(1 - c * c)
    return c * x - s * y, s * x + c * y


def _by_series(terms):
    def rotate(x, y, position, speed):
        angle = position * speed
        c = sum((-1)**n * angle ** (2 * n) / math.factorial(2 * n) for n in range(terms))
        s = sum((-1)**n * angle ** (2 * n + 1) / math.factorial(2 * n + 1) for n in range(terms))
        return c * x - s * y, s * x + c * y
    return rotate


def rounded_pair(x, y, position, speed):
    c, s = math.cos(position * speed), math.sin(position * speed)
    return round(c * x - s * y, 4), round(s * x + c * y, 4)


# 03.2
def always(encode, q, k):
    return True


def never(encode, q, k):
    return False


def compares_vectors(encode, q, k):
    return torch.allclose(encode(q, torch.tensor([3])), encode(q, torch.tensor([9])))


def moves_one_only(encode, q, k):
    def score(i, j):
        return (encode(q, torch.tensor([i])) * encode(k, torch.tensor([j]))).sum()
    return torch.isclose(score(3, 1), score(9, 1), atol=1e-4)


def shifts_a_little(encode, q, k):
    def score(i, j):
        return (encode(q, torch.tensor([i])) * encode(k, torch.tensor([j]))).sum()
    return all(torch.isclose(score(7, 3), score(7 + s, 3 + s), atol=1e-4) for s in (1, 2, 3))


def _only(steps, atol=1e-4, average=False, rtol=0.0):
    def depends(encode, q, k):
        def score(i, j):
            product = encode(q, torch.tensor([i])) * encode(k, torch.tensor([j]))
            return product.mean() if average else product.sum()
        return all(torch.isclose(score(7, 3), score(7 + s, 3 + s), atol=atol, rtol=rtol)
                   for s in steps)
    return depends


def _scores(judge, score=lambda q, k: float((q * k).sum()), q=None, steps=200):
    def depends(encode, given, k):
        used = given if q is None else q
        return judge([score(encode(used, torch.tensor([step + 5])), encode(k, torch.tensor([step])))
                      for step in range(steps)])
    return depends


def _all_near(scores):
    return all(abs(score - scores[0]) <= 1e-4 for score in scores)


def _cosine(q, k):
    return float(torch.cosine_similarity(q, k, dim=-1).sum())


# 03.3
def begins_with_one(num_heads):
    return [2.0**-n for n in range(num_heads)]


def same_ratio_for_all(num_heads):
    return [2.0 ** -(n + 1) for n in range(num_heads)]


def flattest_first(num_heads):
    return [2 ** (-8 * (n + 1) / num_heads) for n in range(num_heads)][::-1]


def negative(num_heads):
    return [-(2 ** (-8 * (n + 1) / num_heads)) for n in range(num_heads)]


def harmonic(num_heads):
    return [1 / (n + 1) for n in range(num_heads)]


def geometric_to_1_of_256(num_heads):
    return [2.0 ** (-1 - 7 * n / max(num_heads - 1, 1)) for n in range(num_heads)]


def at_most_half(num_heads):
    return [2 ** (-max(8 / num_heads, 1) * (n + 1)) for n in range(num_heads)]


# 03.4
def times_the_factor(base, head_dim, factor):
    return base * factor


def upside_down(base, head_dim, factor):
    return base * factor ** ((head_dim - 2) / head_dim)


def faster(base, head_dim, factor):
    return base / factor ** (head_dim / (head_dim - 2))


def written_for_64(base, head_dim, factor):
    return base * factor ** (64 / 62)


WRONG = {
    "rotate_pair": [
        (clockwise, "clockwise"), (one_step, "turned by one step"),
        (by_atan, "atan2 does"), (half_turns_lost, "half a turn was lost"),
        (sine_from_cosine, "a root of 1 - cos^2 loses it"), (_by_series(9), "may be large"),
        (rounded_pair, "but rounded"),
        (in_degrees, "in radians already"), (uses_the_new_x, "used the new x"),
    ],
    "depends_only_on_distance": [
        (always, "the sum has cross terms"), (never, "they obey the law to rounding"),
        (compares_vectors, "compare scores, not vectors"),
        (moves_one_only, "they obey the law to rounding"), (shifts_a_little, "shift further"),
        (_only(range(1, 200), atol=1.0), "the tolerance is too wide"),
        (_only(range(1, 100)), "wraps around after 128"), (_only((1, 90, 180)), "try every step"),
        (_only(range(1, 200), average=True), "a score is a sum"),
        (_scores(_all_near, score=_cosine), "do not normalise"),
        (_scores(lambda found: all(abs(a - b) <= 1e-4 for a, b in zip(found, found[1:],
                                                                      strict=False))),
         "not with the one before"),
        (_scores(lambda found: all(abs(abs(a) - abs(found[0])) <= 1e-4 for a in found)),
         "keep the sign"),
        (_scores(lambda found: all(a - found[0] <= 1e-4 for a in found)), "may rise or fall"),
        (_scores(lambda found: abs(sum(found) / len(found) - found[0]) <= 1e-4), "not their mean"),
        (_scores(_all_near, steps=150), "try every step"),
        (_scores(_all_near, q=torch.ones(1, 1, 1, 16)), "do not draw your own"),
        (_only(range(1, 200), atol=1e-5), "the tolerance is too tight"),
    ],
    "slopes": [
        (begins_with_one, "it begins with 1"), (same_ratio_for_all, "the last slope is always"),
        (flattest_first, "steepest first"), (negative, "the bias takes the minus"),
        (harmonic, "times a ratio"), (geometric_to_1_of_256, "it equals the ratio"),
        (at_most_half, "16 heads: 0.7071"),
        (lambda n: [round(2 ** (-8 * (i + 1) / n), 4) for i in range(n)], "but rounded"),
        (lambda n: [2 ** (-8 * (i + 1) / min(n, 16)) for i in range(n)], "64 heads: 0.9170"),
    ],
    "ntk_base": [
        (times_the_factor, "a little more is needed"), (upside_down, "stands on its head"),
        (faster, "a smaller base turns faster"), (written_for_64, "written into your answer"),
        (lambda base, d, factor: 10_000 * factor ** (d / (d - 2)), "the base 10,000 is written"),
        (lambda base, d, factor: round(base * factor ** (d / (d - 2))), "but rounded"),
    ],
}
