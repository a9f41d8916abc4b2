"""Wrong answers to the exercises of chapter 02b, and what the check must say to each."""

from __future__ import annotations

import math

import torch


# 02b.1
def whole_copies(x, group):
    return x.repeat(1, group, 1, 1)


def along_time(x, group):
    return x.repeat_interleave(group, dim=2)


def along_the_batch(x, group):
    return x.repeat_interleave(group, dim=0)


def left_apart(x, group):
    return x[:, :, None].expand(-1, -1, group, -1, -1)


def always_two(x, group):
    return x.repeat_interleave(2 if group > 1 else 1, dim=1)


# 02b.2
def keeps_the_window(kept, new, window):
    seen = torch.cat([kept, new])
    return seen, seen[max(len(seen) - window, 0):]


def keeps_too_few(kept, new, window):
    seen = torch.cat([kept, new])
    return seen, seen[max(len(seen) - window + 2, 0):]


def keeps_the_oldest(kept, new, window):
    seen = torch.cat([kept, new])
    return seen, seen[: window - 1]


def cuts_before_looking(kept, new, window):
    seen = torch.cat([kept, new])[-window:]
    return seen, seen[max(len(seen) - window + 1, 0):]


def counts_from_the_end(kept, new, window):
    seen = torch.cat([kept, new])
    return seen, seen[-(window - 1):]


def newest_first(kept, new, window):
    seen = torch.cat([new, kept])
    return seen, seen[: window - 1]


def _rolls(prompt):
    def roll(kept, new, window):
        seen = torch.cat([kept, new])
        if len(seen) > window:
            return seen, prompt(seen, window)
        return seen, seen[max(len(seen) - window + 1, 0):]
    return roll


def shows_the_new_only(kept, new, window):
    seen = torch.cat([kept, new])
    return new, seen[max(len(seen) - window + 1, 0):]


def clears_the_new(kept, new, window):
    seen = torch.cat([kept, new])
    new.zero_()
    return seen, seen[max(len(seen) - window + 1, 0):]


# 02b.3
def _step(largest, total, mixed, scores, values, shrink_total=True, shrink_mixed=True):
    new = torch.maximum(largest, scores.max())
    shrink, weights = (largest - new).exp(), (scores - new).exp()
    total = total * (shrink if shrink_total else 1) + weights.sum()
    return new, total, mixed * (shrink if shrink_mixed else 1) + weights @ values


def never_shrinks(*given):
    return _step(*given, shrink_total=False, shrink_mixed=False)


def shrinks_the_sum_only(*given):
    return _step(*given, shrink_mixed=False)


def grows(largest, total, mixed, scores, values):
    new = torch.maximum(largest, scores.max())
    factor = (new - largest).exp() if largest.isfinite() else torch.tensor(0.0)
    weights = (scores - new).exp()
    return new, total * factor + weights.sum(), mixed * factor + weights @ values


def grows_from_nothing(largest, total, mixed, scores, values):
    new = torch.maximum(largest, scores.max())
    factor, weights = (new - largest).exp(), (scores - new).exp()
    return new, total * factor + weights.sum(), mixed * factor + weights @ values


def takes_no_maximum(largest, total, mixed, scores, values):
    return largest, total + scores.exp().sum(), mixed + scores.exp() @ values


def last_block_wins(largest, total, mixed, scores, values):
    new = torch.maximum(largest, scores.max())
    shrink, weights = (largest - new).exp(), (scores - scores.max()).exp()
    return new, total * shrink + weights.sum(), mixed * shrink + weights @ values


def the_blocks_own_maximum(largest, total, mixed, scores, values):
    new = scores.max()
    shrink, weights = (largest - new).exp(), (scores - new).exp()
    return new, total * shrink + weights.sum(), mixed * shrink + weights @ values


def divides_each_time(*given):
    new, total, mixed = _step(*given)
    return new, total, mixed / total


def starts_at_zero(largest, total, mixed, scores, values):
    return _step(largest.clamp(min=0), total, mixed, scores, values)


def last_score_for_the_largest(largest, total, mixed, scores, values):
    new = torch.maximum(largest, scores[-1])
    shrink, weights = (largest - new).exp(), (scores - new).exp()
    return new, total * shrink + weights.sum(), mixed * shrink + weights @ values


def mean_for_sum(largest, total, mixed, scores, values):
    new, total, mixed = _step(largest, total * len(scores), mixed * len(scores), scores, values)
    return new, total / len(scores), mixed / len(scores)


def old_maximum(largest, *given):
    return (largest, *_step(largest, *given)[1:])


# 02b.4
def scales_in_place(q, up_k):
    q *= math.sqrt(up_k.shape[1] / q.shape[-1])
    return unscaled(q, up_k)


def negated(q, up_k):
    return -unscaled(q, up_k) * math.sqrt(up_k.shape[1] / q.shape[-1])


def unscaled(q, up_k):
    return q @ up_k.unflatten(0, (len(q), -1))


def upside_down(q, up_k):
    return unscaled(q, up_k) * math.sqrt(q.shape[-1] / up_k.shape[1])


def without_root(q, up_k):
    return unscaled(q, up_k) * up_k.shape[1] / q.shape[-1]


def one_position_only(q, up_k):
    return (unscaled(q, up_k) * math.sqrt(up_k.shape[1] / q.shape[-1]))[:, :1]


def heads_last(q, up_k):
    return q @ up_k.unflatten(0, (-1, len(q))).transpose(0, 1)


WRONG = {
    "repeat_kv": [
        (whole_copies, "heads 0 and 3 share"), (along_time, "repeats in time"),
        (along_the_batch, "repeats the batch"), (left_apart, "merged into the heads"),
        (lambda x, group: x.repeat_interleave(group, 1) / group, "at [0, 0, 0, 0], got 0.66"),
        (always_two, "the group's size is what is given"),
    ],
    "roll": [
        (shows_the_new_only, "only the new rows are shown"), (clears_the_new, "in place"),
        (keeps_the_window, "one too many"), (keeps_too_few, "one too few"),
        (keeps_the_oldest, "the oldest were kept"),
        (cuts_before_looking, "cut before anybody looked"),
        (counts_from_the_end, "x[-0:] is everything"), (newest_first, "newest first"),
        (_rolls(lambda seen, window: seen[-window - 1:]), "5 rows are kept"),
        (_rolls(lambda seen, window: seen[:window - 1]), "the oldest were kept"),
        (_rolls(lambda seen, window: seen), "12 rows are kept"),
    ],
    "online_step": [
        (starts_at_zero, "the maximum starts at -inf"), (old_maximum, "but 2 came back"),
        (last_score_for_the_largest, "the maximum of the whole block"),
        (mean_for_sum, "the number of scores in a block"),
        (never_shrinks, "made with another maximum"),
        (shrinks_the_sum_only, "only the sum was shrunk"), (grows, "it grew"),
        (grows_from_nothing, "at the start the largest is -inf"),
        (takes_no_maximum, "no maximum was taken out"),
        (divides_each_time, "waits until after the last"),
        (the_blocks_own_maximum, "the new maximum is the larger of"),
        (last_block_wins, "made with the block's own"),
    ],
    "absorb": [
        (scales_in_place, "in place"), (negated, "the sign is turned round"),
        (unscaled, "divides by the root"), (upside_down, "stands on its head"),
        (without_root, "wants a root"), (heads_last, "mixed up"),
        (one_position_only, "as many as positions"),
    ],
}
