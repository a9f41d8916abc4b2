"""The checks of chapter 06f's exercises: properties first, then the mistakes people make.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from scratchbook.teaching.answers import as_list, as_tensor, counterexample, same
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw

# 06f.1 ---------------------------------------------------------------------------------------


def _plans(answer: Callable, ranks: int) -> list[list[tuple[int, int]]] | str:
    """What every rank sends and receives at every step; a message where that makes no sense."""
    steps = []
    for step in range(2 * (ranks - 1)):
        row = []
        for rank in range(ranks):
            got = as_list(answer(rank, step, ranks))
            numbers = None if got is None or len(got) != 2 else as_tensor(got)
            if numbers is None or numbers.shape != (2,) or not (numbers == numbers.round()).all():
                return "return two whole numbers: the chunk to send, the chunk that arrives"
            row.append((int(numbers[0]), int(numbers[1])))
            if not all(0 <= chunk < ranks for chunk in row[-1]):
                return (f"for rank {rank}, step {step} of {ranks} ranks there is no chunk "
                        f"{max(row[-1], key=abs)}: numbers go round, take them % ranks")
        steps.append(row)
    return steps


def _travels(steps: list[list[tuple[int, int]]], ranks: int) -> str:
    """Whether each rank expects what its left neighbour sends."""
    for number, row in enumerate(steps):
        for rank, (_, arriving) in enumerate(row):
            left = row[(rank - 1) % ranks][0]
            if arriving != left:
                right = row[(rank + 1) % ranks][0]
                if all(row[r][1] == row[(r + 1) % ranks][0] for r in range(ranks)):
                    return ("rank r sends to r + 1 and hears r - 1; here each expects what the "
                            "right neighbour sends")
                return (f"at step {number} rank {rank} expects chunk {arriving}, and its left "
                        f"neighbour sends {left} (the right one {right})")
    return ""


def _held(steps: list[list[tuple[int, int]]], ranks: int) -> list[list[set[int]]]:
    """Whose numbers each chunk of each rank holds after the last step; {-1} for some twice."""
    held = [[{rank} for _ in range(ranks)] for rank in range(ranks)]
    for number, row in enumerate(steps):
        before = copy.deepcopy(held)
        for rank, (_, arriving) in enumerate(row):
            came = before[(rank - 1) % ranks][row[(rank - 1) % ranks][0]]
            if number >= ranks - 1:
                held[rank][arriving] = came
            else:
                twice = came & before[rank][arriving]
                held[rank][arriving] = {-1} if twice else came | before[rank][arriving]
    return held


@exercise
def ring_plan(answer: Callable) -> Iterator[Property]:
    """Which chunk each rank sends and receives at each step of a ring all-reduce."""
    steps = _plans(answer, 3)
    said = steps if isinstance(steps, str) else ""
    yield expect("two chunk numbers for every rank and step", not said, (True, said))
    if said:
        return
    said = _travels(steps, 3)
    yield expect("what a rank expects is what its left neighbour sends", not said, (True, said))
    half = steps[:2]
    still = all(row == half[0] for row in half)
    summed = _held(half, 3)
    whole = [sum(chunk == {0, 1, 2} for chunk in rank) for rank in summed]
    yield expect("after ranks - 1 steps each rank has one whole sum", whole == [1, 1, 1],
                 (still, "each step sends the same chunk: what arrived and was added is what goes "
                  "on at the next step"),
                 (any({-1} in rank for rank in summed), "some rank's numbers were added twice"),
                 (True, f"three ranks have {whole} whole sums: send on what has just been added"))
    ended = _held(steps, 3)
    missing = sum(chunk != {0, 1, 2} for rank in ended for chunk in rank)
    yield expect("after the other steps all have all sums", not missing,
                 (steps[2:] == steps[:2], f"{missing} of 9 chunks are no whole sums: the second "
                  "half begins with the chunk that has just become whole, not like the first"),
                 (True, f"{missing} of 9 chunks are no whole sums: in the second half what arrives "
                  "replaces what was there"))
    for ranks in (2, 4, 5, 1, 9):
        steps = _plans(answer, ranks)
        right = not isinstance(steps, str) and not _travels(steps, ranks) and all(
            chunk == set(range(ranks)) for rank in _held(steps, ranks) for chunk in rank)
        yield expect(f"{ranks} ranks", right,
                     (isinstance(steps, str), steps if isinstance(steps, str) else ""),
                     (True, f"with three ranks it works, with {ranks} it does not: is a number of "
                      "ranks written into it?"))


# 06f.2 ---------------------------------------------------------------------------------------


def _sharded_adam(weights: Tensor, gradients: Tensor, states: list[dict[str, Any]], step: int,
                  lr: float, mean: Callable = lambda g: g.mean(0), correct: bool = True) -> Tensor:
    """The step that a right answer takes, in float64 and for all numbers at once."""
    size = -(-len(weights) // len(states))
    fast = torch.cat([state["exp_avg"].double() for state in states])
    slow = torch.cat([state["exp_avg_sq"].double() for state in states])
    gradient = mean(gradients.double())
    fast, slow = 0.9 * fast + 0.1 * gradient, 0.95 * slow + 0.05 * gradient**2
    for rank, state in enumerate(states):
        own = slice(rank * size, (rank + 1) * size)
        state["exp_avg"], state["exp_avg_sq"] = fast[own], slow[own]
    if correct:
        fast, slow = fast / (1 - 0.9**step), slow / (1 - 0.95**step)
    return weights.double() - lr * fast / (slow.sqrt() + 1e-8)


def _begin(ranks: int, count: int, seed: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Weights, and for each rank the two means of its shard, all zero."""
    size = -(-count // ranks)
    lengths = [max(0, min(size, count - rank * size)) for rank in range(ranks)]
    states = [{name: torch.zeros(length) for name in ("exp_avg", "exp_avg_sq")}
              for length in lengths]
    return draw(count, seed=seed, name="weights"), states


def _run(step_by: Callable, ranks: int, count: int, steps: int, seed: int = 0, size: float = 1.0
         ) -> tuple[Any, list[dict]]:
    """The weights after some steps, and the states."""
    weights, states = _begin(ranks, count, seed)
    for step in range(1, steps + 1):
        gradients = size * draw(ranks, count, seed=seed + step, name="gradients")
        weights = step_by(weights, gradients, states, step, 0.1)
        numbers = as_tensor(weights)
        if numbers is None or numbers.shape != (count,):
            return weights, states
        weights = numbers.float()
    return weights, states


@exercise
def sharded_adam(answer: Callable) -> Iterator[Property]:
    """One step of Adam whose two means are divided among the ranks."""
    got, states = _run(answer, 2, 6, 1)
    numbers = as_tensor(got)
    whole = numbers is not None and numbers.shape == (6,)
    yield expect("the new weights, all of them", whole,
                 (numbers is not None and numbers.shape == (3,), "these are one rank's: join the "
                  "shards of all ranks again (all-gather)"),
                 (got is None, "it returns nothing"),
                 (True, "expected as many numbers as there are weights"))
    if not whole:
        return
    slips = {
        "the gradients of the ranks were added: the batch's is their mean":
            {"mean": lambda g: g.sum(0)},
        "each shard used its own rank's gradient: that one saw a part of the batch alone":
            {"mean": lambda g: torch.cat([g[0, :3], g[1, 3:]])},
        "only the first rank's gradient was used": {"mean": lambda g: g[0]},
        "the means begin at zero and are scaled up: divide by 1 - beta ** step":
            {"correct": False}}
    want, kept = _run(_sharded_adam, 2, 6, 1)
    named = [(same(got, _run(lambda *a, s=slip: _sharded_adam(*a, **s), 2, 6, 1)[0], 1e-5), said)
             for said, slip in slips.items()]
    yield expect("the first step is Adam's", same(got, want, 1e-5),
                 (same(got, _begin(2, 6, 0)[0], 1e-7), "the weights did not move"), *named,
                 (True, f"the first weight is {numbers[0]:.4f}, expected {want[0]:.4f}"))
    sizes = [[len(state[name]) for name in ("exp_avg", "exp_avg_sq")] for state in states]
    yield expect("each rank keeps the means of its shard alone", sizes == [[3, 3], [3, 3]],
                 (sizes[0] == [6, 6], "each rank keeps both means of all weights: that is what "
                  "sharding saves"), (True, f"their lengths are {sizes}, expected 3"))
    stale = all(same(state["exp_avg"], torch.zeros(3)) for state in states)
    yield expect("and writes the new ones into its state", all(
        same(state[name], right[name], 1e-5) for state, right in zip(states, kept, strict=True)
        for name in right),
        *((same(states[0]["exp_avg"], _run(lambda *a, s=slip: _sharded_adam(*a, **s), 2, 6, 1)[1][
            0]["exp_avg"], 1e-5), said) for said, slip in slips.items() if "mean" in slip),
        (stale, "the states are as before: the next step would forget this one"),
        (True, "a mean in a state is not the one of this step"))
    got, want = _run(answer, 2, 6, 5)[0], _run(_sharded_adam, 2, 6, 5)[0]
    yield expect("five steps", same(got, want, 1e-4), (True, "the first step is right, later ones "
                 "are not: do the means run on, and does the correction know the step?"))
    small, want = (_run(way, 2, 6, 1, size=1e-8)[0] for way in (answer, _sharded_adam))
    yield expect("gradients as small as eps", same(small, want, 1e-4),
                 (True, "where the root is about 1e-8, eps decides: it is added to the corrected "
                  "root, outside of it"))
    for ranks, count, steps in ((3, 7, 2), (4, 9, 3), (1, 5, 2), (2, 1, 2), (3, 12, 2)):
        got, want = (_run(way, ranks, count, steps, seed=count)[0] for way in (
            answer, _sharded_adam))
        right = same(got, want, 1e-4)
        numbers = as_tensor(got)
        first = count - count % ranks
        yield expect(f"{count} weights on {ranks} ranks", right,
                     (not right and count % ranks and numbers is not None
                      and numbers.shape != (count,),
                      f"{count} does not divide by {ranks}: the last shard is shorter (round the "
                      "size of a shard up)"),
                     (not right and numbers is not None and numbers.shape == (count,)
                      and same(numbers[:first], want[:first], 1e-4),
                      "the last weights, beyond a whole number of shards, are wrong"),
                     (True, "with six weights on two ranks it works, here it does not"))


# 06f.3 ---------------------------------------------------------------------------------------


def _predict_run(flops: list[float], seconds: list[float], parameters: int, tokens: int
                 ) -> float:
    x, y = (torch.tensor(values, dtype=torch.float64) for values in (flops, seconds))
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return float(y.mean() + slope * (6.0 * parameters * tokens - x.mean()))


def _other_predictions(flops: list[float], seconds: list[float], parameters: int, tokens: int
                       ) -> dict[str, float]:
    """What known slips predict."""
    x, y = (torch.tensor(values, dtype=torch.float64) for values in (flops, seconds))
    target = 6.0 * parameters * tokens

    def line(factor: float) -> float:
        return _predict_run(flops, seconds, parameters * factor, tokens)

    logs = (x.log() - x.log().mean())
    power = float((logs * y.log()).sum() / logs.square().sum())
    return {
        "that is the forward pass alone: backwards costs twice as much again, 6 operations for "
        "each parameter and token": line(1 / 3),
        "that counts each product once: a multiplication and an addition": line(1 / 2),
        "that counts the backward pass once: it needs two products for each one forwards":
            line(2 / 3),
        "this line goes through zero: a run has a part that does not grow with it":
            float((x * y).sum() / x.square().sum()) * target,
        "this is the mean rate of the runs: a run has a part that does not grow with it":
            float((y / x).mean()) * target,
        "this rate is all seconds over all operations: a run has a part that does not grow with "
        "it": float(y.sum() / x.sum()) * target,
        "this is the rate of the largest run alone": float(y[-1] / x[-1]) * target,
        "this line was drawn through logarithms: there a constant part bends it":
            float((y.log().mean() + power * (math.log(target) - x.log().mean())).exp()),
        "the part that does not grow was left out at the end":
            _predict_run(flops, seconds, parameters, tokens) - _predict_run(flops, seconds, 0, 0),
    }


@exercise
def predict_run(answer: Callable) -> Iterator[Property]:
    """How long a larger run takes, by a line through small ones."""
    flops, seconds = [1e9, 2e9, 4e9], [1.9, 2.4, 3.4]  # 1.4 seconds, and half for each 1e9
    got = as_tensor(answer(list(flops), list(seconds), 1000, 1_000_000))
    right = got is not None and got.numel() == 1
    yield expect("one number", right, (True, "return the seconds of the larger run"))
    if not right:
        return
    named = [(same(got.reshape(()), wrong, 1e-5), said) for said, wrong in
             _other_predictions(flops, seconds, 1000, 1_000_000).items()]
    yield expect("1,000 parameters, a million tokens: 1.4 + 6 · 0.5 = 4.4 seconds",
                 same(got.reshape(()), 4.4, 1e-5), *named,
                 (True, f"got {float(got):.4g}: fit seconds = a + b · flops, then put in 6 · "
                  "parameters · tokens"))
    noisy = [1.7, 1.9, 3.4, 4.6]
    inputs = [([1e9, 2e9], [1.0, 3.0], 10, 10**8), ([1e9, 2e9, 4e9, 6e9], noisy, 5000, 10**6),
              ([6e9, 1e9, 4e9, 2e9], [noisy[i] for i in (3, 0, 2, 1)], 5000, 10**6),
              ([3.0, 1.0, 2.0], [2.0, 2.0, 5.0], 1, 1), ([1e15, 3e15], [10.0, 40.0], 10**6, 10**9),
              ([1e9, 2e9, 4e9, 6e9, 8e9], [*noisy, 4.1], 0, 5)]
    differs = counterexample(lambda *a: as_tensor(answer(*a)).reshape(()), _predict_run, inputs,
                             1e-5)
    yield expect("other runs, in any order, with noise", not differs, (True, differs))
