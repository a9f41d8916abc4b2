"""The line and the thread: bounded, all or none, and whoever leaves leaves nothing behind."""

import asyncio
import random

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")

from scratchbook.serving import Engine, Request  # noqa: E402
from scratchbook.serving.worker import Busy, Closed, Worker  # noqa: E402
from tests.serving_home import ScriptedEngine, run_alone, tiny_served  # noqa: E402

SCRIPT = list(range(40))
SERVED = tiny_served()


def in_a_loop(engine, work, max_open: int = 8):
    """Run `work(worker)` with a started worker, and end it."""
    async def main():
        worker = Worker(engine, max_open)
        worker.start()
        try:
            return await asyncio.wait_for(work(worker), 60)
        finally:
            await worker.stop()
            assert not worker._thread.is_alive() and worker.open == 0

    return run_alone(main())


async def tokens_of(ticket) -> list[list[int]]:
    found = [[] for _ in ticket.requests]
    async for place, event in ticket:
        if event.token is not None:
            found[place].append(event.token)
    return found


def test_tickets_get_their_own_tokens_in_order():
    async def work(worker):
        tickets = [await worker.submit([Request([1], 3 + n), Request([1], 5)]) for n in range(4)]
        return await asyncio.gather(*map(tokens_of, tickets))

    found = in_a_loop(ScriptedEngine(SCRIPT, max_batch=3), work)
    assert found == [[SCRIPT[: 3 + n], SCRIPT[:5]] for n in range(4)]


def test_all_or_none_and_the_line_is_bounded():
    engine = ScriptedEngine(SCRIPT, pause=0.01)

    async def work(worker):
        first = await worker.submit([Request([1], 30)] * 3)
        with pytest.raises(Busy) as caught:
            await worker.submit([Request([1], 2)] * 2)
        assert caught.value.retry_after >= 1 and worker.open == 3
        last = await worker.submit([Request([1], 2)])
        assert await tokens_of(last) == [SCRIPT[:2]]
        assert len(engine.seen) == 4  # nothing of what was sent away
        first.cancel()
        await tokens_of(first)
        assert worker.open == 0

    in_a_loop(engine, work, max_open=4)


def test_one_bad_request_takes_its_ticket_along_and_no_other():
    engine = Engine(SERVED.model, max_batch=2)

    async def work(worker):
        bad = await worker.submit([Request([1], 60), Request([1], 60), Request([1], 500)])
        async for place, event in bad:
            if event.reason == "refused":
                assert place == 2 and "do not fit into max_seq_len" in event.error
                bad.cancel()
        good = await worker.submit([Request([1], 5)])
        assert len((await tokens_of(good))[0]) == 5
        assert worker.open == 0

    in_a_loop(engine, work)
    assert engine.idle
    assert engine.stats.new_tokens < 10  # its companions do not write on for nobody


def test_cancelling_one_lets_the_others_write_on():
    async def work(worker):
        ticket = await worker.submit([Request([1], 20)] * 3)
        found = [0, 0, 0]
        async for place, event in ticket:
            found[place] += event.token is not None
            if place == 1 and found[1] == 2:
                ticket.cancel(1)
        return found

    found = in_a_loop(ScriptedEngine(SCRIPT, pause=0.005), work)
    assert found[0] == found[2] == 20 and 2 <= found[1] < 20


def test_who_leaves_before_the_engine_has_it_leaves_nothing():
    engine = ScriptedEngine(SCRIPT, pause=0.05)

    async def work(worker):
        running = await worker.submit([Request([1], 30)])
        (await worker.submit([Request([1], 30)] * 2)).cancel()  # before the thread has seen it
        running.cancel()
        await tokens_of(running)
        while worker.open:
            await asyncio.sleep(0.01)

    in_a_loop(engine, work)
    assert engine.idle and engine.stats.steps < 10


def test_a_step_that_fails_ends_every_ticket_and_refuses_the_next():
    async def work(worker):
        tickets = [await worker.submit([Request([1], 30)] * 2) for _ in range(2)]
        for ticket in tickets:
            reasons = [event.reason async for _, event in ticket if event.done]
            assert reasons == ["failed", "failed"]
        with pytest.raises(RuntimeError, match="ArithmeticError: no memory"):
            await worker.submit([Request([1], 3)])
        assert worker.open == 0 and worker.fault

    in_a_loop(ScriptedEngine(SCRIPT, fails_at=5, pause=0.01), work)


def test_who_comes_while_the_step_fails_is_told_as_well():
    async def work(worker):
        first = await worker.submit([Request([1], 30)])
        await asyncio.sleep(0.1)  # the step that will fail is on its way, and not known yet
        second = await worker.submit([Request([1], 30)] * 2)
        return [[event.reason async for _, event in ticket] for ticket in (first, second)]

    engine = ScriptedEngine(SCRIPT, fails_at=1, pause=0.4)
    assert in_a_loop(engine, work) == [["failed"], ["refused", "refused"]]
    assert len(engine.seen) == 1


def test_a_stop_ends_what_is_at_work_and_nothing_more_is_accepted():
    engine = ScriptedEngine(SCRIPT, pause=0.02)

    async def work(worker):
        ticket = await worker.submit([Request([1], 40)] * 2)
        await worker.stop()
        with pytest.raises(Closed, match="shutting down"):
            await worker.submit([Request([1], 3)])
        return [event.reason async for _, event in ticket if event.done]

    assert in_a_loop(engine, work) == ["cancelled", "cancelled"]
    assert engine.stats.steps < 20


def test_the_time_of_a_request_is_an_average_of_those_that_were_answered():
    async def work(worker):
        assert worker.seconds == 1
        await tokens_of(await worker.submit([Request([1], 1)]))
        first = worker.seconds
        ticket = await worker.submit([Request([1], 30)])
        ticket.cancel()
        await tokens_of(ticket)
        return first, worker.seconds

    first, second = in_a_loop(ScriptedEngine(SCRIPT, pause=0.002), work)
    assert first == pytest.approx(1 - 1 / 8, abs=0.03)  # a few milliseconds count for an eighth
    assert second == first


def test_a_random_crowd_leaves_the_engine_empty():
    engine, draw = Engine(SERVED.model, max_batch=3, blocks=20), random.Random(0)

    async def visitor(worker):
        try:
            count, size = draw.randint(1, 3), draw.randint(1, 30)
            ticket = await worker.submit([Request([1] * draw.randint(1, 40), size)] * count)
        except Busy:
            return "away"
        patience = draw.choice([0, 3, 1000])
        async for _ in ticket:
            patience -= 1
            if patience < 0:
                ticket.cancel()
        return "ended"

    async def work(worker):
        said = await asyncio.gather(*(visitor(worker) for _ in range(60)))
        assert set(said) == {"away", "ended"}
        assert worker.open == 0

    in_a_loop(engine, work, max_open=12)
    assert engine.idle and engine.stats.running == engine.stats.waiting == 0
