"""The thread that steps the engine, and the line in front of it.

The server's event loop must never wait for the model, so the engine works in a thread of its own.
Requests go there through an inbox, its events come back as calls in the loop. The line is bounded:
whoever comes when it is full is told to come again, instead of waiting without end.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from scratchbook.serving.engine import Engine
from scratchbook.serving.requests import Event, Request, Stats


class Busy(Exception):
    """The line is full; `retry_after` are the seconds after which to ask again."""

    def __init__(self, retry_after: int):
        super().__init__(f"the line is full: ask again in {retry_after} s")
        self.retry_after = retry_after


class Closed(RuntimeError):
    """Nothing is accepted any more: the model failed, or the server ends."""


class Ticket:
    """Requests that belong together, and what the engine says of them, as it says it.

    Iterating gives pairs of the request's place in the ticket and an event, until all have ended.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, worker: Worker, requests: Sequence[Request]):
        self.requests = requests
        self.events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self.accepted: asyncio.Future[None] = worker.loop.create_future()
        self.numbers: list[int] = []  # the worker's thread alone reads and writes them
        self.unfinished, self.begun = len(requests), time.monotonic()
        self._worker = worker

    def cancel(self, place: int | None = None) -> None:
        """End one request, or all of them: their slots are free at the engine's next step."""
        if self.unfinished:
            self._worker.do(lambda: self._worker.cancel(self, place))

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        left = len(self.requests)
        while left:
            place, event = await self.events.get()
            left -= event.done
            yield place, event


class Worker:
    """Steps an engine in a thread and tells each ticket its events.

    At most `max_open` requests are waiting or at work. `stats` is the engine's own count after its
    last step, `fault` what made a step fail, if one did: after that nothing is accepted.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, engine: Engine, max_open: int = 64):
        self.engine, self.max_open, self.open = engine, max_open, 0
        self.stats: Stats = replace(engine.stats)
        self.fault: str | None = None
        self.seconds = 1.0  # that a request took of late
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._tickets: dict[int, tuple[Ticket, int]] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Begin, on the running event loop."""
        self.loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Cancel what is left and end the thread."""
        self.do(lambda: [self.engine.cancel(number) for number in self._tickets])
        with self._wake:
            self._stopping = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    async def submit(self, requests: Sequence[Request]) -> Ticket:
        """Put requests into the line, all of them or none.

        Raises:   Busy when there is no room, ValueError for what the engine refuses
        """
        if self.fault or self._stopping:
            raise Closed(self.fault or "the server is shutting down")
        if self.open + len(requests) > self.max_open:
            raise Busy(min(60, max(1, math.ceil(self.seconds))))
        self.open += len(requests)
        ticket = Ticket(self, requests)
        self.do(lambda: self._submit(ticket))
        try:
            await ticket.accepted
        except BaseException:  # the client may be gone before the engine has answered
            ticket.cancel()
            raise
        return ticket

    def do(self, work: Callable[[], None]) -> None:
        """Let the thread do something before its next step."""
        with self._wake:
            self._inbox.append(work)
            self._wake.notify()

    # the rest runs in the thread, but for what it tells the loop

    def _submit(self, ticket: Ticket) -> None:
        try:
            if self.fault:
                raise Closed(self.fault)
            for place, request in enumerate(ticket.requests):
                number = self.engine.submit(request)
                ticket.numbers.append(number)
                self._tickets[number] = ticket, place
        except (ValueError, Closed) as error:
            self.cancel(ticket, None)
            missing = len(ticket.requests) - len(ticket.numbers)
            self._tell(lambda error=error: self._refuse(ticket, error, missing))
        else:
            self._tell(lambda: ticket.accepted.cancelled() or ticket.accepted.set_result(None))

    def cancel(self, ticket: Ticket, place: int | None) -> None:
        """In the thread: end one request of a ticket, or all."""
        for number in ticket.numbers if place is None else ticket.numbers[place : place + 1]:
            if number in self._tickets:
                self.engine.cancel(number)

    def _work(self) -> None:
        while self._do_inbox():
            try:
                events = self.engine.step()
                self.stats = replace(self.engine.stats)
            except Exception as error:  # of the model or the engine: nothing can go on
                self.fault = f"{type(error).__name__}: {error}"
                events = [Event(number, done=True, reason="failed", error=self.fault)
                          for number in self._tickets]
            told = [(*self._tickets[event.request], event) for event in events]
            for event in events:
                if event.done:
                    del self._tickets[event.request]
            self._tell(lambda told=told: self._deliver(told))

    def _do_inbox(self) -> bool:
        """Do what came in, wait while there is nothing to do; False when it is time to end."""
        while True:
            with self._wake:
                while not self._inbox and not self._busy and not self._stopping:
                    self._wake.wait()
                works = list(self._inbox)
                self._inbox.clear()
            for work in works:
                work()
            if self._busy:
                return True
            if self._stopping:
                return False

    @property
    def _busy(self) -> bool:
        return not self.fault and not self.engine.idle

    def _tell(self, call: Callable[[], object]) -> None:
        self.loop.call_soon_threadsafe(call)

    # in the loop

    def _refuse(self, ticket: Ticket, error: Exception, missing: int) -> None:
        self._ended(ticket, missing)
        if not ticket.accepted.done():
            ticket.accepted.set_exception(error)

    def _deliver(self, told: list[tuple[Ticket, int, Event]]) -> None:
        for ticket, place, event in told:
            if event.done:
                self._ended(ticket, 1)
                self.seconds += (time.monotonic() - ticket.begun - self.seconds) / 8
            ticket.events.put_nowait((place, event))

    def _ended(self, ticket: Ticket, count: int) -> None:
        self.open -= count
        ticket.unfinished -= count
