"""Who runs when: first come first served, within bounds; cancelled and failed ones go alone."""

import math
import random
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.serving import Engine, Request
from tests.serving_tools import VOCAB, alone, check_books, mixed_requests, tiny

PLAIN = {"num_layers": 1, "d_model": 8, "num_heads": 1, "d_ff": 8, "positions": "learned"}


def bound(requests, chunk):
    """Steps after which each is done at the latest: those before it and it, one after another."""
    steps, bounds = 0, []
    for request in requests:
        reading = math.ceil((len(request.prompt_ids) + request.max_new_tokens) / chunk)
        steps += reading + request.max_new_tokens
        bounds.append(steps)
    return bounds


@settings(max_examples=15, derandomize=True)
@given(st.data())
def test_nobody_waits_longer_than_those_before_need(data):
    """The oldest moves on at every step, whatever comes behind it and however small the pool."""
    model, rng = tiny(**PLAIN), random.Random(data.draw(st.integers(0, 999), "seed"))
    requests = mixed_requests(12, seed=rng.randrange(999), budget=20)
    chunk, size = data.draw(st.integers(1, 40), "chunk"), data.draw(st.integers(1, 16), "size")
    least = max(-(-(len(r.prompt_ids) + r.max_new_tokens - 1) // size) for r in requests)
    engine = Engine(model, chunk=chunk, block_size=size, max_batch=data.draw(st.integers(1, 6)),
                    blocks=least + data.draw(st.integers(0, least)),
                    prefix_cache=data.draw(st.booleans()),
                    schedule=data.draw(st.sampled_from(["one", "continuous"])))
    numbers = [engine.submit(request) for request in requests]
    done, begun, steps = {}, [], 0
    while not engine.idle:
        steps += 1
        for event in engine.step():
            if event.request not in begun:
                begun.append(event.request)
            if event.done:
                done[event.request] = steps
        check_books(engine)
        assert steps <= 5000, "something hangs"
        if steps % 7 == 0 and len(done) < 6:  # whoever comes later delays nobody
            engine.submit(Request([rng.randrange(VOCAB)] * 30, 5))
    for number, latest in zip(numbers, bound(requests, chunk), strict=True):
        assert done[number] <= latest


def test_a_place_is_filled_as_soon_as_it_is_free_and_in_a_batch_when_all_are():
    budgets, steps = [2, 9, 3, 3], {}
    for schedule in ("continuous", "static", "one"):
        engine = Engine(tiny(**PLAIN), schedule=schedule, max_batch=2)
        for budget in budgets:
            engine.submit(Request([1], budget))
        done = {}
        while not engine.idle:
            for event in engine.step():
                if event.done:
                    done[event.request] = engine.stats.steps
        steps[schedule] = [done[number] for number in range(4)]
    assert steps == {"continuous": [2, 9, 5, 8], "static": [2, 9, 12, 12], "one": [2, 11, 14, 17]}


def test_a_static_batch_computes_the_rows_that_are_done():
    columns = {}
    for schedule in ("continuous", "static"):
        engine = Engine(tiny(**PLAIN), schedule=schedule, max_batch=2, prefix_cache=False)
        engine.run([Request([1, 2, 3, 4], 2), Request([1], 9)])
        columns[schedule] = engine.stats.columns
    assert columns == {"continuous": 4 + 1 + 9, "static": 2 * 4 + 2 * 8}


def test_a_long_prompt_does_not_keep_the_others_from_writing():
    engine = Engine(tiny(**PLAIN), chunk=8)
    first = engine.submit(Request([1, 2], 30))
    engine.step()
    second = engine.submit(Request(list(range(20)) * 2, 3))
    heard = [sorted(event.request for event in engine.step()) for _ in range(6)]
    # 40 ids in chunks of 8: the fifth of them gives the first token
    assert heard == [[first]] * 4 + [[first, second]] * 2


def test_cancelled_ones_are_free_at_once():
    engine = Engine(tiny(), max_batch=2, block_size=4, prefix_cache=False)
    numbers = [engine.submit(Request([1, 2, 3, 4, 5], 40)) for _ in range(3)]
    engine.step()
    before = engine.stats
    assert (before.running, before.waiting) == (2, 1)
    assert engine.cancel(numbers[0]) and engine.cancel(numbers[2])
    after = engine.stats
    assert after.blocks_in_use < before.blocks_in_use and (after.running, after.waiting) == (1, 0)
    assert not engine.cancel(numbers[0]) and not engine.cancel(99)
    reasons = {event.request: event.reason for event in engine.step() if event.done}
    assert reasons == {numbers[0]: "cancelled", numbers[2]: "cancelled"}
    assert engine.cancel(numbers[1])
    assert engine.stats.blocks_in_use == 0 and not engine.idle  # it is still to be told
    assert [event.reason for event in engine.step()] == ["cancelled"] and engine.idle


def raises(new_ids):
    raise RuntimeError("not today")


@pytest.mark.parametrize(("allowed", "error"), [
    (raises, "RuntimeError: not today"),
    (lambda new: torch.zeros(VOCAB, dtype=torch.bool), "leaves no token"),
    (lambda new: torch.ones(VOCAB), "float32"), (lambda new: torch.ones(3) > 0, r"\(3,\)"),
    (lambda new: [True], "AttributeError"),
])
@pytest.mark.parametrize("schedule", ["one", "static", "continuous"])
def test_a_request_that_fails_ends_alone(allowed, error, schedule):
    model = tiny(**PLAIN)
    good = [Request([4, 2], 9), Request([4, 2, 1], 9)]
    engine = Engine(model, schedule=schedule, max_batch=3)
    engine.submit(good[0])
    bad = engine.submit(Request([1, 2, 3], 9, allowed=allowed))
    engine.submit(good[1])
    events = []
    while not engine.idle:
        events += engine.step()
    (failed,) = [event for event in events if event.request == bad]
    assert failed.reason == "failed" and failed.done and failed.token is None
    assert re.search(error, failed.error)
    for number, request in ((0, good[0]), (2, good[1])):
        assert [e.token for e in events if e.request == number] == alone(model, request)
    assert engine.stats.blocks_in_use == 0
    with pytest.raises(ValueError, match=f"request 3 failed: .*{error}"):
        engine.run([Request([1], 3, allowed=allowed)])


@pytest.mark.parametrize("last", [{"allowed": raises}, {"prompt_ids": [VOCAB]}])
def test_a_run_that_ends_early_leaves_nothing_of_its_own(last):
    """Whether a request fails on the way or is refused; what others submitted goes on."""
    model = tiny(**PLAIN)
    engine = Engine(model, max_batch=3, prefix_cache=False)
    other = engine.submit(Request([4, 2], 20))
    bad = Request(**{"prompt_ids": [3]} | last, max_new_tokens=3)
    requests = [Request([1], 30), bad, Request([1], 30)]
    with pytest.raises(ValueError):
        engine.run(requests)
    assert engine.stats.running + engine.stats.waiting == 1
    events = []
    while not engine.idle:
        events += engine.step()
    assert {event.request for event in events} == {other}
    assert engine.stats.blocks_in_use == 0
    assert engine.run([Request([1], 3)]) == [alone(model, Request([1], 3))]


def test_who_comes_leaves_a_block_to_each_who_runs():
    """A prompt that would take the very last blocks waits, one block less comes in."""
    for length, running in ((8, 1), (4, 2)):
        engine = Engine(tiny(**PLAIN), block_size=4, blocks=4, prefix_cache=False)
        engine.submit(Request([1] * 5, 3))
        engine.step()
        engine.submit(Request([2] * length, 2))
        engine.step()
        assert engine.stats.running == running and engine.stats.preempted == 0


def test_scores_that_are_nan_end_their_request_alone():
    """One token's embedding is NaN: who reads it fails, the block goes on to others unharmed."""
    model = tiny(tie_embeddings=False)
    with torch.no_grad():
        model.token_embedding.weight[7] = torch.nan
        model.lm_head.weight[7] = -model.lm_head.weight[:7].sum(0)
    good = [Request([1, 2, number], 20) for number in (3, 4, 5)]
    engine = Engine(model, block_size=4, blocks=14, chunk=5)
    number = engine.submit(Request([1, 7, 2, 3, 4, 5, 6, 1, 2], 9))
    for request in good:
        engine.submit(request)
    events = []
    while not engine.idle:
        events += engine.step()
    assert [e.reason for e in events if e.request == number] == ["failed"]
    for other, request in enumerate(good, number + 1):
        mine = [event for event in events if event.request == other]
        expected = [t for t in [event.token for event in mine] if t is not None]
        assert expected == _until_nan(model, request)
    assert engine.stats.blocks_in_use == 0


def _until_nan(model, request):
    """The greedy text, up to where the model itself writes what it cannot read."""
    ids = list(request.prompt_ids)
    with torch.no_grad():
        for _ in range(request.max_new_tokens):
            scores = model(torch.tensor([ids]))[0, -1]
            if scores.isnan().any():
                break
            ids.append(int(scores.argmax()))
    return ids[len(request.prompt_ids) :]


def test_when_the_model_itself_fails_nothing_is_lost():
    """Out of memory in any one pass: the step raises, the next tries again."""
    model, requests = tiny(), mixed_requests(8, budget=10)
    expected = [alone(model, request) for request in requests]
    engine = Engine(model, block_size=4, blocks=30, max_batch=3, chunk=6)
    numbers = [engine.submit(request) for request in requests]
    rng, failures, tokens = random.Random(0), 0, {number: [] for number in numbers}

    def now_and_then(module, args, output):
        if rng.random() < 0.3:
            raise MemoryError

    model.blocks[1].register_forward_hook(now_and_then)
    while not engine.idle:
        try:
            events = engine.step()
        except MemoryError:
            failures += 1
            check_books(engine)
            continue
        for event in events:
            tokens[event.request].append(event.token)
    assert failures > 10 and list(tokens.values()) == expected


def test_events_carry_every_token_once_and_one_end():
    model, requests = tiny(**PLAIN), mixed_requests(20)
    engine = Engine(model, block_size=4, max_batch=4)
    numbers = [engine.submit(request) for request in requests]
    events = []
    while not engine.idle:
        step = engine.step()
        assert len({event.request for event in step}) == len(step)  # one token each at most
        events += step
    for number, request in zip(numbers, requests, strict=True):
        mine = [event for event in events if event.request == number]
        assert [event.done for event in mine] == [False] * (len(mine) - 1) + [True]
        stopped = mine[-1].token in request.stop_ids
        assert mine[-1].reason == ("stop" if stopped else "length")
        assert stopped or len(mine) == request.max_new_tokens
    assert engine.step() == [] and engine.idle
