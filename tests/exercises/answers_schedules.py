"""Wrong answers to exercise 06.3, a schedule, and what the check must say to each."""

from __future__ import annotations

import math


# 06.3
def schedule(step, max_steps, warmup_steps, min_lr_ratio, *,
             rise=lambda s, w: (s + 1) / (w + 1),
             fall=lambda done: (1 + math.cos(math.pi * done)) / 2,
             join=lambda fall, ratio: ratio + (1 - ratio) * fall, start=None):
    if step < warmup_steps:
        return rise(step, warmup_steps)
    start = warmup_steps if start is None else start
    return join(fall((step - start) / (max_steps - start)), min_lr_ratio)


def starts_at_nothing(*args):
    return schedule(*args, rise=lambda s, w: s / w)


def arrives_early(*args):
    return schedule(*args, rise=lambda s, w: (s + 1) / w)


def no_rise(*args):
    return schedule(*args, rise=lambda s, w: 1)


def falls_from_the_start(*args):
    return schedule(*args, start=0)


def quarter(*args):
    return schedule(*args, fall=lambda done: math.cos(math.pi / 2 * done))


def whole_period(*args):
    return schedule(*args, fall=lambda done: (1 + math.cos(2 * math.pi * done)) / 2)


def floor_on_top(step, max_steps, warmup_steps, min_lr_ratio):
    return schedule(step, max_steps, warmup_steps, min_lr_ratio,
                    join=lambda fall, ratio: fall + ratio if fall < 1 else 1.0)


def no_floor(*args):
    return schedule(*args, join=lambda fall, ratio: fall)


def floor_cuts(*args):
    return schedule(*args, join=max)


def rises(*args):
    return schedule(*args, fall=lambda done: (1 - math.cos(math.pi * done)) / 2)


def not_halved(*args):
    return schedule(*args, fall=lambda done: math.cos(math.pi * done))


def degrees(*args):
    return schedule(*args, fall=lambda done: (1 + math.cos(180 * done)) / 2)


def whole_length(step, max_steps, warmup_steps, min_lr_ratio):
    return schedule(step, max_steps, warmup_steps, min_lr_ratio,
                    fall=lambda done: (1 + math.cos(
                        math.pi * done * (max_steps - warmup_steps) / max_steps)) / 2)


def floor_from_the_start(step, max_steps, warmup_steps, min_lr_ratio):
    return schedule(step, max_steps, warmup_steps, min_lr_ratio,
                    rise=lambda s, w: min_lr_ratio + (1 - min_lr_ratio) * (s + 1) / (w + 1))


def line(*args):
    return schedule(*args, fall=lambda done: 1 - done)


def a_step_late(step, max_steps, warmup_steps, min_lr_ratio):
    if warmup_steps:
        return schedule(step, max_steps, warmup_steps, min_lr_ratio)
    return schedule(max(step - 1, 0), max_steps, 0, min_lr_ratio)


def divides_by_the_warm_up(step, max_steps, warmup_steps, min_lr_ratio):
    rise = (step + 1) / (warmup_steps + 1) * warmup_steps / warmup_steps
    return min(rise, schedule(max(step, warmup_steps), max_steps, warmup_steps, min_lr_ratio))


WRONG = {
    "warmup_cosine": [
        (starts_at_nothing, "the first step would change nothing"),
        (arrives_early, "one step early"), (no_rise, "there is no warm-up"),
        (falls_from_the_start, "the cosine began at step 0"), (quarter, "a quarter of a period"),
        (whole_period, "a whole period"), (floor_on_top, "min_lr_ratio was added on top"),
        (no_floor, "min_lr_ratio takes no part"), (line, "this is a straight line"),
        (floor_cuts, "min_lr_ratio cuts the fall off"), (rises, "it rises where it should fall"),
        (not_halved, "cos runs from 1 to -1"), (degrees, "math.cos takes radians"),
        (whole_length, "max_steps - warmup_steps steps"),
        (floor_from_the_start, "the rise starts near 0"),
        (a_step_late, "at step 1 it is 1.0"), (divides_by_the_warm_up, "ZeroDivisionError"),
    ],
}
