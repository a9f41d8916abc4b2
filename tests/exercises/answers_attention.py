"""Wrong answers to the exercises of chapter 02, and what the check must say to each."""

from __future__ import annotations

import torch


# 02.1
def scores_as_weights(q, k, v):
    return (k @ q / q.shape[0] ** 0.5) @ v


def no_scale(q, k, v):
    return (k @ q).softmax(0) @ v


def scale_by_the_size(q, k, v):
    return (k @ q / q.shape[0]).softmax(0) @ v


def scale_by_the_number_of_keys(q, k, v):
    return (k @ q / len(k) ** 0.5).softmax(0) @ v


def divided_by_the_sum(q, k, v):
    scores = k @ q / q.shape[0] ** 0.5
    return (scores / scores.sum()) @ v


def averages_the_keys(q, k, v):
    return (k @ q / q.shape[0] ** 0.5).softmax(0) @ k


def stops_at_the_weights(q, k, v):
    return (k @ q / q.shape[0] ** 0.5).softmax(0)


def overflows(q, k, v):
    powers = (k @ q / q.shape[0] ** 0.5).exp()
    return powers / powers.sum() @ v


def always_three(q, k, v):
    return (k @ q / 3).softmax(0) @ v


# 02.2
def no_mask(scores, mask):
    return scores.softmax(-1)


def polarity(scores, mask):
    return scores.masked_fill(mask, -torch.inf).softmax(-1).nan_to_num(0.0)


def multiplies_the_scores(scores, mask):
    return (scores * mask).softmax(-1)


def masks_after_the_softmax(scores, mask):
    return scores.softmax(-1) * mask


def over_the_queries(scores, mask):
    return scores.masked_fill(~mask, -torch.inf).softmax(0)


def nan_for_empty_rows(scores, mask):
    return scores.masked_fill(~mask, -torch.inf).softmax(-1)


def uniform_for_empty_rows(scores, mask):
    return scores.masked_fill(~mask, -1e9).softmax(-1)


def not_low_enough(scores, mask):
    return scores.masked_fill(~mask, -1e4).softmax(-1).masked_fill(~mask, 0.0)


def second_axis(scores, mask):
    return scores.masked_fill(~mask, -torch.inf).softmax(1).nan_to_num(0.0)


# 02.3
def view_alone(x, num_heads):
    batch, time, d_model = x.shape
    return x.view(batch, num_heads, time, d_model // num_heads)


def interleaved(x, num_heads):
    batch, time, d_model = x.shape
    return x.view(batch, time, d_model // num_heads, num_heads).permute(0, 3, 1, 2)


def not_transposed(x, num_heads):
    batch, time, d_model = x.shape
    return x.view(batch, time, num_heads, d_model // num_heads)


def heads_of_this_size(x, num_heads):
    batch, time, d_model = x.shape
    return x.view(batch, time, d_model // num_heads, num_heads).transpose(1, 2)


# 02.4
def own_share_only(weights, upstream):
    return weights * upstream


def diagonal_only(weights, upstream):
    return weights * (1 - weights) * upstream


def one_average_for_all(weights, upstream):
    return weights * (upstream - (weights * upstream).sum())


def sum_over_queries(weights, upstream):
    return weights * (upstream - (weights * upstream).sum(0, keepdim=True))


def plain_average(weights, upstream):
    return weights * (upstream - upstream.mean(-1, keepdim=True))


def not_weighted(weights, upstream):
    return upstream - upstream.mean(-1, keepdim=True)


def wrong_sign(weights, upstream):
    return weights * ((weights * upstream).sum(-1, keepdim=True) - upstream)


def second_axis_backward(weights, upstream):
    return weights * (upstream - (weights * upstream).sum(1, keepdim=True))


# 02.5
def _moved(layer, x, s, change=lambda row: torch.randn(row.shape), least=1e-6, size=abs):
    other = x.clone()
    other[s] = change(x[s])
    return size(layer(other) - layer(x)).amax(-1) > least


def _first_leak(**options):
    def find(layer, x):
        pairs = [(t, s) for s in range(len(x)) for t in range(s)
                 if _moved(layer, x, s, **options)[t]]
        return min(pairs, default=None)
    return find


def any_influence(layer, x):
    pairs = [(t, s) for s in range(len(x)) for t in range(len(x)) if _moved(layer, x, s)[t]]
    return min(pairs, default=None)


def turned_round(layer, x):
    pairs = [(t, s) for s in range(len(x)) for t in range(s) if _moved(layer, x, s)[t]]
    return min(pairs)[::-1] if pairs else None


def next_step_only(layer, x):
    pairs = [(s - 1, s) for s in range(1, len(x)) if _moved(layer, x, s)[s - 1]]
    return min(pairs, default=None)


def last_comes_first(layer, x):
    pairs = [(t, s) for s in range(len(x)) for t in range(s) if _moved(layer, x, s)[t]]
    return max(pairs, default=None)


def inputs_in_order(layer, x):
    pairs = [(t, s) for s in range(len(x)) for t in range(s) if _moved(layer, x, s)[t]]
    return pairs[0] if pairs else None


def a_list_of_all(layer, x):
    return [(t, s) for s in range(len(x)) for t in range(s) if _moved(layer, x, s)[t]] or None


def keeps_the_damage(layer, x):
    before, pairs = layer(x), []
    for s in range(len(x)):
        x[s] += 1
        moved = (layer(x) - before).abs().amax(-1)
        pairs += [(t, s) for t in range(s) if moved[t] > 1e-6]
    return min(pairs, default=None)


def works_in_place(layer, x):
    before, pairs = layer(x), []
    for s in reversed(range(len(x))):
        x[s] += torch.randn(x.shape[1])
        moved = (layer(x) - before).abs().amax(-1)
        pairs += [(t, s) for t in range(s) if moved[t] > 1e-6]
        x[s] -= 0.5
        before = layer(x)
    return min(pairs, default=None)


WRONG = {
    "attend_one": [
        (scores_as_weights, "scores themselves were used as weights"),
        (no_scale, "not scaled: divide by the root of the head size"),
        (scale_by_the_size, "9 instead of sqrt(9) = 3"),
        (scale_by_the_number_of_keys, "root of the number of keys (6)"),
        (divided_by_the_sum, "scores can be negative, softmax takes exp first"),
        (averages_the_keys, "average the values, the keys only make the weights"),
        (stops_at_the_weights, "these are the weights, now average v"),
        (always_three, "the 3 is written into your answer"),
        (overflows, "subtract the largest score first"),
    ],
    "masked_softmax": [
        (no_mask, "the mask was not used"),
        (polarity, "True means 'may look'"),
        (multiplies_the_scores, "exp(0) is 1"),
        (masks_after_the_softmax, "the mask came after the softmax"),
        (over_the_queries, "softmax runs over the keys"),
        (nan_for_empty_rows, "0 / 0"),
        (uniform_for_empty_rows, "all four keys got 1/4"),
        (not_low_enough, "not low enough"),
        (second_axis, "softmax runs over the last axis"),
    ],
    "split_heads": [
        (view_alone, "cuts across the positions"),
        (interleaved, "take every third number"),
        (not_transposed, "before the time"),
        (heads_of_this_size, "3 heads of size 4, not 4 heads of size 3"),
    ],
    "softmax_backward": [
        (own_share_only, "the share it takes from the others is missing"),
        (diagonal_only, "also lowers all the other weights"),
        (one_average_for_all, "one average for the whole table"),
        (sum_over_queries, "each row is a softmax of its own, dim=-1"),
        (plain_average, "weighted by w, not the plain one"),
        (not_weighted, "still has to be multiplied by its weight"),
        (wrong_sign, "the sign is turned round"),
        (second_axis_backward, "dim=1 is the last axis of one table only"),
    ],
    "find_leak": [
        (any_influence, "is no leak: looking at itself"),
        (turned_round, "the pair is turned round"),
        (next_step_only, "missed (3, 5)"),
        (inputs_in_order, "go through the outputs in order"),
        (last_comes_first, "does leak, but"),
        (a_list_of_all, "give a pair (output, input) or None"),
        (keeps_the_damage, "start from the same x each time"),
        (works_in_place, "x was changed in place"),
        (_first_leak(change=lambda row: row + 1), "the same number is added"),
        (_first_leak(change=lambda row: 2 * row), "or when it is multiplied by one"),
        (_first_leak(least=0.1), "the tolerance is too wide"),
        (_first_leak(least=0.0), "compare with a small tolerance"),
        (_first_leak(size=lambda moved: moved), "take the absolute value"),
    ],
}
