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


def by_the_values(q, k, v):
    return (k @ q / v.shape[1] ** 0.5).softmax(0) @ v


def keys_in_place(q, k, v):
    k /= len(q) ** 0.5
    return (k @ q).softmax(0) @ v


def cut_off(q, k, v):
    return (k @ q / len(q) ** 0.5).clamp(-50, 50).softmax(0) @ v


def largest_from_zero(q, k, v):
    scores = k @ q / len(q) ** 0.5
    powers = (scores - scores.max().clamp(min=0)).exp()
    return powers / powers.sum() @ v


def squeezed(q, k, v):
    return ((k @ q / len(q) ** 0.5).softmax(0) @ v).squeeze()


# 02.2
def scores_in_place(scores, mask):
    scores[~mask] = -torch.inf
    return scores.softmax(-1).nan_to_num(0.0)


def _powers(largest):
    def weights(scores, mask):
        powers = (scores - largest(scores, mask)).exp() * mask
        return (powers / powers.sum(-1, keepdim=True)).nan_to_num(0.0)
    return weights


def first_table_for_all(scores, mask):
    mask = mask if mask.dim() == 2 else mask[:1]
    return scores.masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num(0.0)


def all_or_nothing(scores, mask):
    if not mask.any(-1).all():
        return torch.zeros_like(scores)
    return scores.masked_fill(~mask, -torch.inf).softmax(-1)


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


def heads_reversed(x, num_heads):
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2).flip(1)


def without_axes_of_one(x, num_heads):
    return x.squeeze().unflatten(-1, (num_heads, -1)).transpose(-3, -2)


def by_strides(x, num_heads):
    batch, time, d_model = x.shape
    size = d_model // num_heads
    return x.as_strided((batch, num_heads, time, size), (time * d_model, size, d_model, 1))


# 02.4
def upstream_in_place(weights, upstream):
    upstream -= (weights * upstream).sum(-1, keepdim=True)
    return weights * upstream


def softmax_again(weights, upstream):
    weights = weights.softmax(-1)
    return weights * (upstream - (weights * upstream).sum(-1, keepdim=True))


def over_the_rows(weights, upstream):
    return weights * (upstream - (weights * upstream).sum(-1, keepdim=True)) / len(weights)


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
def _other(row):
    """Drawn, but the same draw each time: what a wrong answer is told must not hang on luck."""
    return torch.randn(row.shape, generator=torch.Generator().manual_seed(3))


def _moved(layer, x, s, change=_other, least=1e-6, size=abs):
    other = x.clone()
    other[s] = change(x[s])
    return size(layer(other) - layer(x)).amax(-1) > least


def _first_leak(**options):
    def find(layer, x):
        pairs = [(t, s) for s in range(len(x)) for t in range(s)
                 if _moved(layer, x, s, **options)[t]]
        return min(pairs, default=None)
    return find


def all_later_rows_at_once(layer, x):
    pairs = []
    for s in range(1, len(x)):
        other = x.clone()
        other[s:] = torch.randn(other[s:].shape)
        moved = (layer(other) - layer(x)).abs().amax(-1)
        pairs += [(t, s) for t in range(s) if moved[t] > 1e-6]
    return min(pairs, default=None)


def needs_two_rows(layer, x):
    found = _first_leak()(layer, x)
    return found or (0, 1 % len(x)) if len(x) == 1 else found


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
        (by_the_values, "the root of the values' size"), (keys_in_place, "in place"),
        (cut_off, "nothing may be cut off"), (largest_from_zero, "starts at -inf, not at 0"),
        (squeezed, "a tensor of shape (1, 1)) expected"),
        (always_three, "the 3 is written into your answer"),
        (overflows, "subtract the largest score first"),
    ],
    "masked_softmax": [
        (no_mask, "the mask was not used"),
        (scores_in_place, "in place"), (all_or_nothing, "each row is on its own"),
        (_powers(lambda scores, mask: 0), "take out the largest score first"),
        (_powers(lambda scores, mask: scores.amax(-1, keepdim=True)), "of the visible keys only"),
        (_powers(lambda scores, mask: scores[mask].max()), "of each row its own"),
        (first_table_for_all, "at [1, 0, 0], got 0"),
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
        (heads_reversed, "in reverse order"), (without_axes_of_one, "(1, 1, 6), 2) expected"),
        (by_strides, "(2, 3, 10), 5) expected"),
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
        (upstream_in_place, "in place"), (softmax_again, "do not apply it again"),
        (over_the_rows, "(5, 7)) expected 0.13581 at [0, 0], got 0.0271"),
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
        (_first_leak(change=lambda row: -row), "a row and its negative"),
        (_first_leak(size=lambda moved: moved.mean(-1, keepdim=True).abs()), "absolute values"),
        (_first_leak(size=lambda moved: moved[:, :1].abs()), "look at every coordinate"),
        (_first_leak(change=lambda row: torch.randn(4)), "(4) at non-singleton"),
        (_first_leak(least=1e-4), "1e-6 is enough"),
        (all_later_rows_at_once, "Change one row at a time"), (needs_two_rows, "expected None"),
        (_first_leak(least=0.1), "the tolerance is too wide"),
        (_first_leak(least=0.0), "compare with a small tolerance"),
        (_first_leak(size=lambda moved: moved), "take the absolute value"),
    ],
}
