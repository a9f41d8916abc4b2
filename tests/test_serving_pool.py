"""Blocks: found again by what stands in them, copied before a shared one changes, never lost."""

import random
from functools import lru_cache

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scratchbook.serving import BlockPool, Engine, PagedCache, Request, Table, places_of
from tests.serving_tools import VOCAB, alone, check_books, mixed_requests, tiny


def written(pool, ids):
    """A table whose ids are all written."""
    table = pool.open(ids)
    pool.make_room(table, len(ids))
    pool.advance(table, ids, len(ids))
    return table


def test_a_beginning_is_found_by_whole_blocks():
    pool = BlockPool(count=12, size=4)
    first = written(pool, list(range(10)))  # two full blocks and half a third
    again = pool.open([0, 1, 2, 3, 4, 5, 6, 7, 99, 98])
    assert again.length == 8 and again.blocks[:2] == first.blocks[:2]
    assert again.blocks[2] != first.blocks[2]
    assert [pool.holders[block] for block in first.blocks] == [2, 2, 1]
    other = pool.open([99, 1, 2, 3, 4, 5, 6, 7])  # the second block's ids, behind another first
    assert other.length == 0 and not set(other.blocks) & set(first.blocks)
    assert pool.open([3, 2, 1, 0, 5]).length == 0  # known ids in another order
    assert pool.open([4, 5, 6, 7, 8]).length == 0  # known ids, but at the beginning of a text


def test_what_nobody_holds_is_found_until_its_room_is_needed():
    pool = BlockPool(count=4, size=2)
    a, b = [1, 2, 3], [4, 5, 6]
    pool.close(written(pool, a))
    pool.close(written(pool, b))
    pool.close(written(pool, a))  # used again: now b is the longest unused
    assert pool.available == 4
    taken = pool.open([7, 8, 9, 7, 8])  # two free blocks and the one of b
    assert pool.open(b + [0]) is None and taken.length == 0
    found = pool.open([1, 2])
    assert found.length == 1 and pool.available == 0  # a's block is still there
    pool.close(found)
    pool.close(taken)
    assert pool.open(b).length == 0


def test_the_end_of_a_text_is_let_go_before_its_beginning():
    pool = BlockPool(count=3, size=2)
    pool.close(written(pool, [1, 2, 3, 4, 5, 6]))
    pool.close(pool.open([9]))
    assert pool.open([1, 2, 3, 4, 5, 6]).length == 4  # the third block went, as the least useful


def test_the_last_token_is_read_though_it_is_known_and_its_block_copied():
    pool = BlockPool(count=6, size=4)
    ids = [1, 2, 3, 4, 5, 6, 7, 8]
    first, second = written(pool, ids), pool.open(ids)
    assert second.length == 7 and second.blocks == first.blocks
    copies = pool.make_room(second, 8)
    assert copies == [(first.blocks[1], second.blocks[1])] and copies[0][0] != copies[0][1]
    assert pool.holders[first.blocks[1]] == 1 and pool.holders[first.blocks[0]] == 2
    pool.advance(second, ids, 8)
    pool.close(first)
    pool.close(second)
    third = pool.open(ids)  # alone now: nobody reads along, so nothing is copied
    assert third.length == 7 and pool.make_room(third, 8) == []
    assert pool.open(ids).length == 4  # a block that is about to change is not found


def test_without_the_prefix_cache_nothing_is_found():
    pool = BlockPool(count=6, size=2, prefix_cache=False)
    table = written(pool, [1, 2, 3, 4])
    assert pool.open([1, 2, 3, 4]).length == 0
    pool.close(table)
    assert pool.open([1, 2, 3, 4]).length == 0


def test_too_few_blocks_take_none():
    pool = BlockPool(count=3, size=2)
    table = pool.open([1, 2, 3])
    assert pool.open([1, 2, 3]) is None and pool.available == 1
    assert pool.open([1], spare=1) is None and pool.available == 1
    assert pool.make_room(table, 7) is None and pool.available == 1
    assert pool.make_room(table, 6) == [] and pool.available == 0
    pool = BlockPool(count=2, size=2)
    written(pool, [1, 2])
    second, third = pool.open([1, 2]), pool.open([3])
    assert pool.make_room(second, 2) is None  # nowhere to copy the shared block to
    pool.close(third)
    assert len(pool.make_room(second, 2)) == 1
    with pytest.raises(ValueError, match="count=0"):
        BlockPool(0, 2)


def test_places_of_a_ragged_pass_by_hand():
    tables = [Table([5, 2], 3), Table([1], 0), Table()]
    places = places_of(tables, [1, 2, 0], size=2, nowhere=99)
    assert places.read.tolist() == [[10, 11, 4, 5], [99, 99, 2, 3], [99] * 4]
    assert places.write.tolist() == [5, 2, 3]
    assert places.new.tolist() == [[False, True], [True, True], [False, False]]
    assert places.positions.tolist() == [[2, 3], [0, 1], [0, 0]]
    assert places.mask[:, 0, 0].int().tolist() == [[1] * 4, [0, 0, 1, 1], [0] * 4]
    assert places_of(tables[:1], [1], 2, 99).mask is None


def test_pages_give_back_what_was_written():
    cache = PagedCache(blocks=6, size=2)
    tables = [Table([5, 2, 0], 0), Table([1, 3], 0)]
    everything = torch.randn(2, 3, 5, 4)  # (batch, kv_heads, time, head_dim)
    for counts in ([3, 1], [1, 1], [1, 2]):
        width, k = max(counts), torch.full((2, 3, max(counts), 4), torch.nan)
        for row, (table, count) in enumerate(zip(tables, counts, strict=True)):
            new = everything[row, :, table.length : table.length + count]
            k[row, :, width - count :] = new
        cache.places = places_of(tables, counts, 2, cache.nowhere)
        keys, values = cache.append(k, k[..., :2])
        for row, (table, count) in enumerate(zip(tables, counts, strict=True)):
            table.length += count
            behind = keys.shape[2] - table.length
            assert torch.equal(keys[row, :, behind:], everything[row, :, : table.length])
            assert not keys[row, :, :behind].any()  # no NaN of the padding, which 0 does not stop
        assert torch.equal(values, keys[..., :2])
        assert cache.length == keys.shape[2] - width
    assert cache.bytes_per_token == 3 * (4 + 2) * 4
    cache.copy(5, 4)
    cache.places = places_of([Table([4], 2)], [0], 2, cache.nowhere)
    assert torch.equal(cache.append(k[:1, :, :0], k[:1, :, :0, :2])[0][0], everything[0, :, :2])


def test_who_shares_a_block_and_writes_on_disturbs_nobody():
    """Two equal prompts that fill their blocks, then different texts: the second copies."""
    model, prompt = tiny(), [7, 3, 1, 2, 6, 5, 4, 0]
    requests = [Request(prompt, 20), Request(prompt, 20, temperature=1.0, seed=1)]
    engine = Engine(model, block_size=4)
    engine.submit(requests[0])
    for _ in range(3):
        engine.step()
    engine.submit(requests[1])
    engine.step()
    first, second = engine._running
    assert first.table.blocks[0] == second.table.blocks[0]
    assert first.table.blocks[1] != second.table.blocks[1]
    assert engine.stats.prompt_tokens_found == 7
    while not engine.idle:
        engine.step()
    assert first.new_ids == alone(model, requests[0])
    assert second.new_ids == alone(model, requests[1])


def test_many_with_one_beginning_read_it_once():
    model, beginning = tiny(), [number % VOCAB for number in range(40)]
    requests = [Request([*beginning, number], 5) for number in range(8)]
    engine = Engine(model, block_size=8, chunk=16)
    assert engine.run(requests) == [alone(model, request) for request in requests]
    assert engine.stats.prompt_tokens_read == 41 + 7  # all the others read their last id alone
    plain = Engine(model, block_size=8, chunk=16, prefix_cache=False)
    plain.run(requests)
    assert plain.stats.prompt_tokens_read == 8 * 41
    assert engine.stats.steps < plain.stats.steps


@lru_cache
def short_answers():
    model = tiny(num_layers=1, d_model=8, num_heads=1, d_ff=8, positions="learned")
    requests = mixed_requests(40, budget=12)
    return model, requests, [alone(model, request) for request in requests]


class Events(RuleBasedStateMachine):
    """Whatever comes in whatever order, the books stay right and nothing hangs."""

    def __init__(self):
        super().__init__()
        self.model, self.requests, self.expected = short_answers()
        self.engine = Engine(self.model, blocks=17, block_size=4, max_batch=6, chunk=20)
        self.asked, self.written, self.ended = {}, {}, {}

    @rule(which=st.integers(0, 39))
    def submit(self, which):
        number = self.engine.submit(self.requests[which])
        self.asked[number], self.written[number] = which, []

    @rule(which=st.integers(0, 39), after=st.integers(0, 3))
    def submit_one_that_fails(self, which, after):
        def allowed(new_ids):
            if len(new_ids) >= after:
                raise KeyError(f"after {after}")
        request = self.requests[which]
        number = self.engine.submit(Request(request.prompt_ids, 12, allowed=allowed))
        self.asked[number], self.written[number] = None, []

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data):
        number = data.draw(st.sampled_from(sorted(self.asked)))
        assert self.engine.cancel(number) == (number not in self.ended)
        assert not self.engine.cancel(number)
        self.ended.setdefault(number, "cancelled")

    @rule(times=st.integers(1, 6))
    def step(self, times):
        for _ in range(times):
            for event in self.engine.step():
                self.tell(event)

    def tell(self, event):
        if event.token is not None:
            assert self.ended.get(event.request) in (None, "cancelled")
            self.written[event.request].append(event.token)
        if not event.done:
            return
        if event.reason == "failed":
            assert self.asked[event.request] is None and "KeyError: 'after " in event.error
        elif event.reason != "cancelled":
            assert self.written[event.request] == self.expected[self.asked[event.request]]
        self.ended.setdefault(event.request, event.reason)

    @invariant()
    def books_are_right(self):
        check_books(self.engine)

    def teardown(self):
        for _ in range(3000):
            if self.engine.idle:
                break
            self.step(times=1)
        assert self.engine.idle, "something hangs"
        assert self.engine.pool.available == 17 and self.ended.keys() == self.asked.keys()


TestEvents = Events.TestCase
TestEvents.settings = settings(max_examples=15, stateful_step_count=30)


@pytest.mark.slow
def test_10000_random_events_lose_no_block():
    """One long life of an engine: submitted, cancelled, failed, stepped, evicted, in any order."""
    rng, machine = random.Random(0), Events()
    happened = dict.fromkeys(["submit", "fail", "cancel", "step"], 0)
    for _ in range(10_000):
        kind = rng.choices(list(happened), [3, 1, 1, 12])[0]
        happened[kind] += 1
        if kind == "submit":
            machine.submit(rng.randrange(40))
        elif kind == "fail":
            machine.submit_one_that_fails(rng.randrange(40), rng.randint(0, 3))
        elif kind == "step":
            machine.step(1)
        elif open_ones := sorted(machine.asked.keys() - machine.ended.keys()):
            number = rng.choice(open_ones)
            assert machine.engine.cancel(number)
            machine.ended[number] = "cancelled"
        check_books(machine.engine)
    stats = machine.engine.stats
    machine.teardown()
    assert min(happened.values()) > 400 and stats.preempted > 20
    assert stats.prompt_tokens_found > 1000 and len(machine.engine.pool._name_of) > 0
    assert set(machine.ended.values()) == {"stop", "length", "cancelled", "failed"}
