"""The checks of chapter 07c's exercises: a slot that is given back, and a limit of the rate.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import torch

from scratchbook.runtime import named_generator
from scratchbook.teaching.answers import as_tensor, same
from scratchbook.teaching.checking import Property, exercise, expect

# 07c.2 ---------------------------------------------------------------------------------------


class _Left(Exception):
    """What a client that is gone raises."""


class _Engine:
    """Gives out numbers and tokens, and writes down what is done with them."""

    def __init__(self, first: int = 4):
        self.number, self.left = first, {}
        self.asked: dict[int, int] = {}       # how often for a token
        self.released: dict[int, int] = {}    # how often its slot was given back
        self.strange: list[object] = []       # numbers that nobody has

    def submit(self, request: object) -> int:
        """A slot for a request, which is here the list of what comes; an error is raised."""
        if isinstance(request, BaseException):
            raise request
        self.number += 1
        self.left[self.number], self.asked[self.number] = list(request), 0
        self.released[self.number] = 0
        return self.number

    def next(self, number: int) -> object:
        """The next token, or None at the end."""
        if self.released.get(number, 1):
            raise ValueError(f"request {number} is not at work")
        self.asked[number] += 1
        token = self.left[number].pop(0) if self.left[number] else None
        if isinstance(token, BaseException):
            raise token
        return token

    def release(self, number: int) -> None:
        """Give the slot back."""
        if number not in self.released:
            self.strange.append(number)
        else:
            self.released[number] += 1


def _slot(engine: _Engine, when: str, *numbers: int) -> list[tuple[bool, str]]:
    """What is wrong with the slots, where those of these numbers should have been given back."""
    times = engine.released
    lost = [number for number in numbers if not times.get(number)]
    more = [number for number in numbers if times.get(number, 0) > 1]
    others = [number for number in times if times[number] and number not in numbers]
    return [(bool(engine.strange), f"{when}: {engine.strange} was given back, which is no number "
                                   "that submit returned"),
            (bool(others), f"{when}: the slots of {others} are given back, which belong to others "
                           "that are still at work"),
            (bool(lost), f"{when}: the slot is not given back, so one is lost each time"),
            (bool(more), f"{when}: the slot is given back {times.get(more[0]) if more else 0} times"
                         ", and by then it may be somebody else's")]


def _free(engine: _Engine, *numbers: int) -> bool:
    """Whether these slots, and no others, were given back, once each."""
    return not engine.strange and engine.released == {
        number: int(number in numbers) for number in engine.released}


def _raised(call: Callable[[], object]) -> BaseException | None:
    """What a call raises, TooSlow and the like not among it."""
    try:
        call()
    except NotImplementedError:
        raise
    except (Exception, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit) as error:
        return error
    return None


def _reads(tokens: Iterator, count: int = 1000) -> list:
    """What comes, but not without end."""
    return list(itertools.islice(tokens, count))


@exercise
def stream_answer(answer: Callable) -> Iterator[Property]:
    """07c.2: tokens from an engine, and the slot given back whatever happens."""
    engine = _Engine()
    tokens = answer(engine, [9, 0, 7])
    fits = all(hasattr(tokens, name) for name in ("__next__", "close", "throw"))
    yield expect("a generator", fits, (True, f"write a generator: yield each token, not "
                                             f"{tokens!r:.50}"))
    if not fits:
        return
    got = _reads(tokens)
    yield expect("all tokens, in their order", got == [9, 0, 7],
                 (got == [9], "token 0 is no end: the end is None"),
                 (None in got, "the end, None, was given as a token"),
                 (True, f"expected [9, 0, 7], got {got}"))
    yield expect("read to the end: given back once", _free(engine, 5),
                 *_slot(engine, "read to the end", 5))
    tokens.close()
    yield expect("closed once more at the end: still once", _free(engine, 5),
                 *_slot(engine, "closed behind the end", 5))
    for request in ([], [3], list(range(300))):
        engine = _Engine()
        got = _reads(answer(engine, request))
        yield expect(f"{len(request)} tokens", got == request and _free(engine, 5),
                     (got != request, f"expected {request!r:.40}, got {got!r:.40}"),
                     *_slot(engine, "read to the end", 5))
    yield from _as_it_comes(answer)
    yield from _leaves(answer)
    yield from _fails(answer)
    yield from _beside_others(answer)


def _as_it_comes(answer: Callable) -> Iterator[Property]:
    engine = _Engine()
    tokens = answer(engine, [1, 2, 3, 4])
    asked = [(next(tokens), engine.asked.get(5), engine.released.get(5)) for _ in range(4)]
    yield expect("one token is asked for at a time", [each[1] for each in asked] == [1, 2, 3, 4],
                 (True, f"for the first four tokens {[each[1] for each in asked]} were asked for: "
                        "yield each as it comes"))
    yield expect("the slot is kept until the end", not any(each[2] for each in asked),
                 (True, "the slot is given back while tokens are still to come"))
    engine = _Engine()
    answer(engine, [1, 2]).close()
    taken, back = len(engine.released), sum(engine.released.values())
    yield expect("never read: nothing taken, or given back", taken == back and not engine.strange,
                 (True, "a slot is taken before anybody reads, and closing a generator that has "
                        "not begun runs nothing of it: take the slot inside the generator"))


def _leaves(answer: Callable) -> Iterator[Property]:
    """The client goes away while it holds a token."""
    for count in (1, 2, 3):
        engine = _Engine()
        tokens = answer(engine, [1, 0, 3, 4])
        got = _reads(tokens, count)
        error = _raised(tokens.close)
        when = f"closed behind {count} tokens"
        yield expect(when, error is None and _free(engine, 5) and got == [1, 0, 3][:count],
                     (error is not None, f"closing raised {type(error).__name__}: {error}; behind "
                                         "GeneratorExit nothing may be yielded"),
                     *_slot(engine, when, 5))
        _raised(tokens.close)
        yield expect(f"{when}, twice", _free(engine, 5), *_slot(engine, "closed twice", 5))
    engine = _Engine()
    for place, _ in enumerate(answer(engine, [1, 2, 3])):
        if place:
            break
    yield expect("left by `break`", _free(engine, 5), *_slot(engine, "left by break", 5))
    for gone in (_Left("gone"), asyncio.CancelledError("gone"), KeyboardInterrupt("gone"),
                 ConnectionResetError("gone")):
        for count in (1, 3):
            engine = _Engine()
            tokens = answer(engine, [1, 2, 3, 4])
            _reads(tokens, count)
            error, name = _raised(lambda tokens=tokens, gone=gone: tokens.throw(gone)), type(gone)
            when = f"{name.__name__} behind token {count}"
            yield expect(when, error is gone and _free(engine, 5), *_passed_on(error, gone, when),
                         *_slot(engine, when, 5))


def _passed_on(error: BaseException | None, gone: BaseException, when: str
               ) -> list[tuple[bool, str]]:
    return [(error is None, f"{when}: the generator goes on, but nobody is there any more: let "
                            "the error through"),
            (isinstance(error, StopIteration), f"{when}: the error is swallowed, so whoever "
                                               "called believes that all is well"),
            (error is not gone, f"{when}: {type(error).__name__} ({error}) instead of the error "
                                "itself")]


def _fails(answer: Callable) -> Iterator[Property]:
    """The engine raises, for a token or at the beginning."""
    for fault in (RuntimeError("out of memory"), asyncio.CancelledError("waiting"),
                  KeyboardInterrupt("waiting")):
        for before in ([], [1, 2]):
            engine = _Engine()
            tokens, got = answer(engine, [*before, fault, 8]), []
            error = _raised(lambda tokens=tokens, got=got: got.extend(
                itertools.islice(tokens, 1000)))
            when = f"{type(fault).__name__} while waiting for token {len(before) + 1}"
            yield expect(when, error is fault and got == before and _free(engine, 5),
                         (error is None, f"{when}: the error is swallowed"),
                         *_passed_on(error, fault, when),
                         (got != before, f"{when}: expected {before} before it, got {got}"),
                         *_slot(engine, when, 5))
    engine, full = _Engine(), RuntimeError("the line is full")
    error = _raised(lambda: _reads(answer(engine, full)))
    yield expect("not let in: nothing to give back", error is full and _free(engine),
                 (bool(engine.strange), f"submit failed, so there is no slot, and {engine.strange} "
                                        "was given back"),
                 (error is None, "submit failed, and the error is swallowed"),
                 (True, f"submit failed, and {type(error).__name__} ({error}) comes instead"))


def _beside_others(answer: Callable) -> Iterator[Property]:
    """Several requests at once: one leaves, the others go on."""
    for first in (-1, 4, 99):
        engine = _Engine(first)
        numbers = [first + 1, first + 2, first + 3]
        streams = [answer(engine, [10 * place + token for token in range(4)])
                   for place in range(3)]
        got = [_reads(stream, 2) for stream in streams]
        streams[1].close()
        yield expect(f"of requests {numbers} one leaves", _free(engine, numbers[1]),
                     *_slot(engine, "one of three leaves", numbers[1]))
        error = _raised(lambda got=got, streams=streams: [
            got[place].extend(_reads(streams[place])) for place in (0, 2)])
        whole = [[0, 1, 2, 3], [10, 11], [20, 21, 22, 23]]
        yield expect("and the others get all of theirs", got == whole and _free(engine, *numbers),
                     (error is not None, f"another request fails: {error}"),
                     (got != whole, f"expected {whole}, got {got}"),
                     *_slot(engine, "three at once", *numbers))


# 07c.3 ---------------------------------------------------------------------------------------


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
    "a large burst": (1, 50, [0] * 52 + [1, 1], 0),
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
    yield from _comes_again(answer)
    yield from _two_limits(answer)
    differing = next((given for given in _drawn_rates(35) if not same(
        _ask_at(answer, *given), _waits(*given), 1e-6)), None)
    yield expect("any rate, any burst, times by chance", differing is None,
                 *(_rate_mistakes(_ask_at(answer, *differing), *differing) if differing else ()))


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
