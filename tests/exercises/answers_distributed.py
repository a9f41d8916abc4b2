"""Wrong answers to the exercises of chapter 06f, and what the check must say to each."""

from __future__ import annotations

import torch


# 06f.1
def _ring(first=lambda rank, step: rank - step, second=lambda rank, step: rank + 1 - step,
          back=1, ranks_known=None, wrap=True):
    def ring_plan(rank, step, ranks):
        ranks = ranks_known or ranks
        half = ranks - 1
        send = first(rank, step) if step < half else second(rank, step - half)
        pair = send, send - back
        return tuple(chunk % ranks for chunk in pair) if wrap else pair
    return ring_plan


def one_number(rank, step, ranks):
    return (rank - step) % ranks


def not_its_neighbour(rank, step, ranks):
    return (rank - step) % ranks, (rank - step + 1) % ranks


def for_five_ranks_at_most(rank, step, ranks):
    return ((rank - step) % ranks, (rank - step - 1) % ranks) if ranks < 6 else (0, 0)


# 06f.2
def _adam(mean=lambda gradients: gradients.mean(0), correct=True, keep=True, whole=False,
          round_up=True, join=True, state_step=False, eps=1e-8):
    def sharded_adam(weights, gradients, states, step, lr):
        ranks = len(gradients)
        size = -(-len(weights) // ranks) if round_up else max(1, len(weights) // ranks)
        pieces = []
        for rank, state in enumerate(states):
            own = slice(rank * size, (rank + 1) * size)
            gradient = mean(gradients)[own] if mean else gradients[rank, own]
            fast = 0.9 * state["exp_avg"][:size] + 0.1 * gradient
            slow = 0.95 * state["exp_avg_sq"][:size] + 0.05 * gradient**2
            if keep:
                state["exp_avg"], state["exp_avg_sq"] = fast, slow
            if whole:
                state["exp_avg"] = torch.zeros(len(weights)).index_copy(
                    0, torch.arange(len(weights))[own], fast)
                state["exp_avg_sq"] = torch.zeros(len(weights)).index_copy(
                    0, torch.arange(len(weights))[own], slow)
            at = 1 if state_step else step
            if correct:
                fast, slow = fast / (1 - 0.9**at), slow / (1 - 0.95**at)
            pieces.append(weights[own] - lr * fast / (slow.sqrt() + eps))
        return torch.cat(pieces) if join else pieces[0]
    return sharded_adam


def stands_still(weights, gradients, states, step, lr):
    return weights


def returns_nothing(weights, gradients, states, step, lr):
    weights -= lr


# 06f.3
def _line(factor=6, through_zero=False, last=False):
    def predict_run(flops, seconds, parameters, tokens):
        x, y = torch.tensor(flops).double(), torch.tensor(seconds).double()
        target = factor * parameters * tokens
        if through_zero:
            return float((x * y).sum() / (x * x).sum()) * target
        if last:
            return float(y[-1] / x[-1]) * target
        slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
        return float(y.mean() - slope * x.mean() + slope * target)
    return predict_run


def mean_rate(flops, seconds, parameters, tokens):
    return sum(s / f for s, f in zip(seconds, flops, strict=True)) / len(flops) * (
        6 * parameters * tokens)


def no_constant(flops, seconds, parameters, tokens):
    return _line()(flops, seconds, parameters, tokens) - _line()(flops, seconds, 0, 0)


def both(flops, seconds, parameters, tokens):
    return [1.0, 2.0]


def first_and_last(flops, seconds, parameters, tokens):
    slope = (seconds[-1] - seconds[0]) / (flops[-1] - flops[0])
    return seconds[0] + slope * (6 * parameters * tokens - flops[0])


WRONG = {
    "ring_plan": [
        (one_number, "return two whole numbers"),
        (_ring(wrap=False), "numbers go round"),
        (not_its_neighbour, "expects what the right neighbour sends"),
        (_ring(back=2), "its left neighbour sends"),
        (_ring(first=lambda rank, step: rank), "each step sends the same chunk"),
        (_ring(second=lambda rank, step: rank - step), "begins with the chunk that has just"),
        (_ring(second=lambda rank, step: rank + 2 - step), "are no whole sums: in the second"),
        (_ring(second=lambda rank, step: rank + 1 - step if rank + step < 5 else rank - step),
         "with three ranks it works"),
        (for_five_ranks_at_most, "is a number of ranks written into it?"),
    ],
    "sharded_adam": [
        (_adam(join=False), "join the shards of all ranks"),
        (returns_nothing, "it returns nothing"),
        (stands_still, "the weights did not move"),
        (_adam(mean=lambda g: g.sum(0)), "the batch's is their mean"),
        (_adam(mean=None), "saw a part of the batch alone"),
        (_adam(mean=lambda g: g[0]), "only the first rank's gradient"),
        (_adam(correct=False), "scaled up: divide by"),
        (_adam(whole=True), "keeps both means of all weights"),
        (_adam(keep=False), "the next step would forget this one"),
        (_adam(state_step=True), "does the correction know the step"),
        (_adam(eps=1e-6), "eps decides"),
        (_adam(round_up=False), "does not divide by"),
    ],
    "predict_run": [
        (_line(2), "that is the forward pass alone"),
        (_line(3), "a multiplication and an addition"),
        (_line(4), "counts the backward pass once"),
        (_line(through_zero=True), "this line goes through zero"),
        (mean_rate, "this is the mean rate"),
        (_line(last=True), "the rate of the largest run alone"),
        (no_constant, "was left out at the end"),
        (both, "return the seconds of the larger run"),
        (first_and_last, "for ("),
    ],
}
