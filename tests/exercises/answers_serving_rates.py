"""Foreseen wrong answers of exercise 07c.3: (answer, a piece of its message)."""

import math
import time
from collections import deque


def _limit(full=True, cap=True, charged=False, whole=False, stays=False, ok=lambda credit:
           credit >= 1, most=None, wait=lambda credit, rate: (1 - credit) / rate, yes=0, no=None):
    def limit_rate(rate, burst, clock):
        credit, last = (burst if full else 0), clock()

        def ask():
            nonlocal credit, last
            now = clock()
            gained = (now - last) * rate
            credit += int(gained) if whole else gained
            credit = min(credit, most or burst) if cap else credit
            last = last if stays else now
            if ok(credit):
                credit -= 1
                return yes
            found = wait(credit, rate) if no is None else no
            credit -= charged
            return found
        return ask
    return limit_rate


def fixed_window(rate, burst, clock):
    begun, count = clock(), 0

    def ask():
        nonlocal begun, count
        if clock() - begun >= burst / rate:
            begun, count = clock(), 0
        count += 1
        return 0 if count <= burst else begun + burst / rate - clock()
    return ask


def sliding_window(rate, burst, clock):
    seen = deque()

    def ask():
        now = clock()
        while seen and now - seen[0] >= burst / rate:
            seen.popleft()
        if len(seen) < burst:
            seen.append(now)
            return 0
        return seen[0] + burst / rate - now
    return ask


def its_own_clock(rate, burst, clock):
    return _limit()(rate, burst, time.monotonic)


def reads_once(rate, burst, clock):
    now = clock()
    return _limit()(rate, burst, lambda: now)


def clock_from_zero(rate, burst, clock):
    credit, last = 0, 0

    def ask():
        nonlocal credit, last
        now = clock()
        credit, last = min(credit + (now - last) * rate, burst), now
        if credit >= 1:
            credit -= 1
            return 0
        return (1 - credit) / rate
    return ask


def reserves(rate, burst, clock):
    free = clock() - burst / rate

    def ask():
        nonlocal free
        now = clock()
        free = max(free, now - burst / rate) + 1 / rate
        return max(0, free - now)
    return ask


BUCKETS = {}


def shared(rate, burst, clock):
    return BUCKETS.setdefault((rate, burst), _limit()(rate, burst, clock))


def rounds_to_milliseconds(rate, burst, clock):
    ask = _limit()(rate, burst, clock)
    return lambda: round(ask(), 3)


def rounds_credit(rate, burst, clock):
    credit, last = burst, clock()

    def ask():
        nonlocal credit, last
        now = clock()
        credit, last = min(round(credit + (now - last) * rate, 1), burst), now
        if credit >= 1:
            credit -= 1
            return 0
        return (1 - credit) / rate
    return ask


def at_most_ten(rate, burst, clock):
    return _limit()(rate, min(burst, 10), clock)


def rates_of_two(rate, burst, clock):
    return _limit()(2 ** round(math.log2(rate)), burst, clock)


def tired(rate, burst, clock):
    ask, count = _limit()(rate, burst, clock), 0

    def counted():
        nonlocal count
        count += 1
        return ask() if count < 500 else 1
    return counted


def looks_twice(rate, burst, clock):
    credit, last = burst, clock()

    def ask():
        nonlocal credit, last
        credit = min(credit + (clock() - last) * rate, burst)
        last = clock()
        if credit >= 1:
            credit -= 1
            return 0
        return (1 - credit) / rate
    return ask


def waits_a_minute_at_most(rate, burst, clock):
    ask = _limit()(rate, burst, clock)
    return lambda: min(ask(), 60)


def an_hour_at_most(rate, burst, clock):
    begun, lost = clock(), 0

    def shorter():
        nonlocal begun, lost
        now = clock()
        lost += max(0, now - begun - 3600)
        begun = now
        return now - lost
    return _limit()(rate, burst, shorter)


def _rates(change):
    return lambda rate, burst, clock: _limit()(change(rate), burst, clock)


def nearly_is_enough(rate, burst, clock):
    return _limit(ok=lambda credit: credit > 0.999)(rate, burst, clock)


def one_too_many(rate, burst, clock):
    return _limit()(rate, burst + 1, clock)


WRONG = {
    "limit_rate": [
        (_limit(full=False), "begins empty"), (_limit(cap=False), "grows beyond the burst"),
        (_limit(charged=True), "who is refused pays too"), (_limit(whole=True), "is lost"),
        (_limit(stays=True), "counted again"), (_limit(ok=lambda credit: credit > 1), "is enough"),
        (_limit(ok=lambda credit: credit > 0), "one whole is"),
        (_limit(most=1), "several may come in at once"),
        (_limit(wait=lambda credit, rate: 1 / rate), "part of it is there already"),
        (_limit(wait=lambda credit, rate: 1 - credit), "divide by the rate"),
        (_limit(wait=lambda credit, rate: (1 - credit) * rate), "not multiplied"),
        (_limit(wait=lambda credit, rate: math.ceil((1 - credit) / rate)), "rounded up"),
        (_limit(yes=True, no=False), "the other way round"),
        (_limit(no=math.inf), "got inf"), (_limit(yes=None), "0 for who is let in"),
        (fixed_window, "expected"), (sliding_window, "expected"), (its_own_clock, "not looked at"),
        (reads_once, "expected"), (clock_from_zero, "expected"), (reserves, "expected"),
        (shared, "two limits"), (rounds_to_milliseconds, "expected"),
        (rounds_credit, "expected"), (at_most_ten, "at 0 expected"),
        (rates_of_two, "rate 3, burst"), (tired, "got 1.0"),
        (looks_twice, "look once, and keep"), (waits_a_minute_at_most, "expected 4096.0"),
        (an_hour_at_most, "at 20000 expected"),
        (_rates(lambda rate: int(rate) or rate), "rate 2.5"),
        (_rates(lambda rate: min(rate, 16)), "rate 1024"),
        (_rates(lambda rate: max(rate, 1 / 32)), "rate 0.000244"),
        (lambda rate, burst, clock: _limit()(rate, min(burst, 50), clock), "burst 300"),
        (nearly_is_enough, "s before the wait is over"), (one_too_many, "expected"),
        (lambda rate, burst, clock: 0, "without arguments"),
    ],
}
