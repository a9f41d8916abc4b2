"""The check of chapter 07c's last exercise: a limit of the rate that tells how long to wait.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import torch

from scratchbook.runtime import named_generator
from scratchbook.teaching.answers import as_tensor, same
from scratchbook.teaching.checking import Property, exercise, expect


def _waits(rate: float, burst: int, times: Sequence[float], begun: float = 0, full: bool = True,
           cap: bool = True, charged: bool = False, whole: bool = False, stays: bool = False,
           least: Callable[[Fraction], bool] = lambda credit: credit >= 1, spaced: bool = False,
           wait: Callable = lambda credit, rate: (1 - credit) / rate) -> list[float]:
    """Seconds to wait for each who asks, 0 for who is let in; the options are mistakes."""
    rate, last = Fraction(rate), Fraction(begun)
    credit, found = Fraction(burst if full else 0), []
    for now in map(Fraction, times):
        gained = (now - last) * rate
        credit += int(gained) if whole else gained
        if cap:
            credit = min(credit, Fraction(1 if spaced else burst))
        last = last if stays else now
        found.append(0.0 if least(credit) else float(wait(credit, rate)))
        credit -= charged or least(credit)
    return found


RATE_SLIPS: dict[str, dict] = {
    "the bucket begins empty: it is full at first": {"full": False},
    "credit grows beyond the burst while nobody asks": {"cap": False},
    "who is refused pays too: then impatient clients never come in": {"charged": True},
    "only whole pieces of credit are counted and the rest of the time is lost: so the rate is "
    "lower than promised": {"whole": True},
    "the same time is counted again: remember when the credit was last brought up to date":
        {"stays": True},
    "a credit of exactly one is enough": {"least": lambda credit: credit > 1},
    "part of a credit is not enough: one whole is": {"least": lambda credit: credit > 0},
    "there is no burst: several may come in at once": {"spaced": True},
    "the wait is that of a whole credit: part of it is there already":
        {"wait": lambda credit, rate: 1 / rate},
    "the wait is counted in credits: divide by the rate": {"wait": lambda credit, rate: 1 - credit},
    "the missing credit is divided by the rate, not multiplied":
        {"wait": lambda credit, rate: (1 - credit) * rate},
    "the wait is rounded up: give it exactly, whoever writes the header may round":
        {"wait": lambda credit, rate: -(-(1 - credit) / rate // 1)},
}


def _rate_mistakes(got: object, rate: float, burst: int, times: Sequence[float], begun: float
                   ) -> list[tuple[bool, str]]:
    right = _waits(rate, burst, times, begun)
    slips = {message: _waits(rate, burst, times, begun, **slip)
             for message, slip in RATE_SLIPS.items()}
    slips["0 is for who is let in, and the seconds to wait for who is not: here it is the other "
          "way round"] = [float(not wait) for wait in right]
    found = [(same(got, wrong) and not same(wrong, right), message)
             for message, wrong in slips.items()]
    at, wanted, given = next(((now, wanted, given) for now, wanted, given in
                              zip(times, right, got if isinstance(got, list) else [], strict=False)
                              if not same(given, wanted)), (None, None, None))
    return [*found, (True, f"rate {rate}, burst {burst}, asked at {list(times[:8])} s (the clock "
                           f"began at {begun}): at {at} expected {wanted}, got {given!r:.60}")]


class _Clock:
    """Stands where it is set, and counts who looks."""

    def __init__(self, now: float):
        self.now, self.looks = now, 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now


def _ask_at(answer: Callable, rate: float, burst: int, times: Sequence[float], begun: float = 0
            ) -> list | object:
    """What a new limit says at these times."""
    clock = _Clock(begun)
    ask = answer(rate, burst, clock)
    found = []
    for clock.now in times:  # the clock is set anew before each question
        said = ask()
        number = as_tensor(said)
        if number is None or number.shape:
            return said
        found.append(float(number))
    return found


RATES = {  # rate, burst, when somebody asks, what the clock said at the beginning
    "full at first": (1, 3, [0, 0, 0], 0),
    "then empty: the wait is told, and is the same while the clock stands still":
        (2, 2, [0, 0, 0, 0, 0], 0),
    "part of a credit is there": (0.5, 1, [0, 0.5, 1, 1.5, 2, 2], 0),
    "exactly when told": (4, 1, [0, 0.125, 0.25, 0.25, 0.5], 0),
    "who asks in vain pays nothing": (1, 1, [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2], 0),
    "a long pause brings no more than the burst": (2, 3, [0, 100, 100, 100, 100, 100.5, 900], 0),
    "a long pause before the first": (2, 2, [500, 500, 500], 0),
    "parts of credit add up": (1, 2, [0, 0, 0.75, 1.5, 2.25, 3, 3, 3.5], 0),
    "a clock that begins late": (2, 2, [4096, 4096, 4096, 4096.25, 4096.5], 4096),
    "a clock that begins below zero": (2, 2, [-64, -64, -64, -63.75, -63.5], -64),
    "a burst of one": (8, 1, [0, 0, 0.0625, 0.125, 0.1875, 0.25], 0),
    "a slow rate": (0.03125, 2, [0, 1, 2, 16, 31, 32, 64, 64], 0),
    "a large burst": (1, 300, [0] * 302 + [1, 1], 0),
    "a rate that is no whole number": (2.5, 2, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1], 0),
    "a fast rate": (1024, 2, [0, 0, 0, 2**-11, 2**-10, 2**-10, 1, 1, 1], 0),
    "a very slow rate, and a pause of hours": (2**-12, 4, [0, 0, 0, 0, 0, 60, 20000, 20000, 20000,
                                                           20000, 20000, 20000], 0),
}


def _drawn_rates(count: int) -> Iterator[tuple[float, int, list[float], float]]:
    """Rates, bursts and times by chance; where sums in floats are inexact, far from an edge."""
    for number in range(count):
        draw = named_generator(number, "rate limit")
        rate = (0.25, 1, 2, 16, 3, 0.7, 10)[number % 7]
        steps, exact = torch.randint(0, 5, (2, 60), generator=draw).prod(0), number % 7 < 4
        times = (steps if exact else steps + 1).cumsum(0).double() * (1 if exact else 1.0137)
        yield rate, 1 + number % 5, (512 + times / rate / 4).tolist(), 512


@exercise
def limit_rate(answer: Callable) -> Iterator[Property]:
    """07c.3: a token bucket."""
    clock = _Clock(0)
    ask = answer(1, 1, clock)
    yield expect("something to ask", callable(ask),
                 (True, f"return a function without arguments, not {ask!r:.60}"))
    if not callable(ask):
        return
    said = ask()
    number = as_tensor(said)
    yield expect("a number of seconds", number is not None and not number.shape,
                 (True, f"return the seconds to wait, 0 for who is let in, not {said!r:.60}"))
    yield expect("the given clock is asked", clock.looks > 0,
                 (True, "the clock that is given is not looked at"))
    for what, given in (RATES | {"2,000 questions: no drift": (
            2, 3, [1024 + 0.1875 * step for step in range(2000)], 1024)}).items():
        got = _ask_at(answer, *given)
        yield expect(what, same(got, _waits(*given), 1e-9), *_rate_mistakes(got, *given))
    yield from _while_it_moves(answer)
    yield from _comes_again(answer)
    yield from _two_limits(answer)
    differing = next((given for given in _drawn_rates(35) if not same(
        _ask_at(answer, *given), _waits(*given), 1e-6)), None)
    yield expect("any rate, any burst, times by chance", differing is None,
                 *(_rate_mistakes(_ask_at(answer, *differing), *differing) if differing else ()))


def _while_it_moves(answer: Callable) -> Iterator[Property]:
    """A real clock moves on between one look and the next: no time may be lost there."""
    clock = itertools.count(0, 2**-3)
    ask, let_in = answer(1, 4, lambda: next(clock)), 0
    for _ in range(80):
        let_in += float(ask()) == 0
    owed = 4 + int(next(clock))
    yield expect("a clock that moves at each look", abs(let_in - owed) <= 1,
                 (let_in < owed, f"{let_in} were let in where about {owed} could: between two "
                                 "looks at the clock time is lost; look once, and keep that"),
                 (True, f"{let_in} were let in where about {owed} could"))


def _comes_again(answer: Callable) -> Iterator[Property]:
    """Whoever waits as long as told is let in, and nobody sooner."""
    for (rate, burst), left in itertools.product(((4, 1), (0.5, 3), (1, 2)), (2**-6, 2**-14)):
        clock = _Clock(256)
        ask = answer(rate, burst, clock)
        early, late = [], []
        for _ in range(40):
            wait = float(ask())
            if wait:
                clock.now += wait - left
                early.append(float(ask()))
                clock.now += left
                late.append(float(ask()))
        yield expect(f"rate {rate}, burst {burst}: back when told", late and not any(late),
                     (True, "who waited exactly as long as told is refused again"
                            if late else "nobody is ever refused"))
        yield expect(f"{left} s sooner: just that is left", same(early, [left] * len(late), 1e-8),
                     (True, f"{left} s before the wait is over expected {left}, got {early[:3]}"))


def _two_limits(answer: Callable) -> Iterator[Property]:
    clock = _Clock(0)
    one, other = answer(1, 2, clock), answer(1, 2, clock)
    said = [float(one()) for _ in range(3)] + [float(other()) for _ in range(3)]
    yield expect("two limits know nothing of each other", same(said, [0, 0, 1, 0, 0, 1]),
                 (True, f"two limits of 2, each asked 3 times, expected [0, 0, 1, 0, 0, 1], got "
                        f"{said}"))
