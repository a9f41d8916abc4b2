"""The thread that steps the engine, and the line in front of it.

The server's event loop must never wait for the model, so the engine works in a thread of its own.
Requests go there through an inbox, its events come back as calls in the loop. The line is bounded:
whoever comes when it is full is told to come again, instead of waiting without end.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
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

    Iterating gives pairs of the request's place in the ticket and an event, until all have ended;
    a reason more than the engine's own is "refused", for what it did not accept.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, worker: Worker, requests: Sequence[Request]):
        self.requests = requests
        self.events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self.begun, self._worker = time.monotonic(), worker

    def cancel(self, place: int | None = None) -> None:
        """End one request, or all of them: their slots are free at the engine's next step."""
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
        self._inbox: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._tickets: dict[int, tuple[Ticket, int]] = {}  # the thread's, by the engine's number
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self.do = self._inbox.put  # let the thread do something before its next step

    # in the loop

    def start(self) -> None:
        """Begin, on the running event loop."""
        self.loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Cancel what is left and end the thread."""
        self._stopping = True
        self.do(lambda: [self.engine.cancel(number) for number in self._tickets])
        self.do(None)
        await asyncio.to_thread(self._thread.join)

    async def submit(self, requests: Sequence[Request]) -> Ticket:
        """Put requests into the line, all of them or none; what the engine refuses has an event.

        Raises:   Busy when there is no room, Closed
        """
        if self.fault or self._stopping:
            raise Closed(self.fault or "the server is shutting down")
        if self.open + len(requests) > self.max_open:
            raise Busy(min(60, max(1, math.ceil(self.seconds))))
        self.open += len(requests)
        ticket = Ticket(self, requests)
        self.do(lambda: self._submit(ticket))
        return ticket

    def _deliver(self, told: list[tuple[Ticket, int, Event]]) -> None:
        for ticket, place, event in told:
            self.open -= event.done
            if event.done and event.token is not None:
                self.seconds += (time.monotonic() - ticket.begun - self.seconds) / 8
            ticket.events.put_nowait((place, event))

    # in the thread

    def cancel(self, ticket: Ticket, place: int | None) -> None:
        """End one request of a ticket, or all."""
        for number, (other, its) in self._tickets.items():
            if other is ticket and place in (None, its):
                self.engine.cancel(number)

    def _submit(self, ticket: Ticket) -> None:
        for place, request in enumerate(ticket.requests):
            try:
                if self.fault:
                    raise Closed(self.fault)
                self._tickets[self.engine.submit(request)] = ticket, place
            except (ValueError, Closed) as error:
                event = Event(-1, done=True, reason="refused", error=str(error))
                self._tell([(ticket, place, event)])

    def _work(self) -> None:
        while True:
            try:
                work = self._inbox.get(block=not self._busy)
            except queue.Empty:
                self._step()
                continue
            if work is None:
                break
            work()
        while self._busy:  # to tell those that were cancelled
            self._step()

    @property
    def _busy(self) -> bool:
        return not self.fault and not self.engine.idle

    def _step(self) -> None:
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
        self._tell(told)

    def _tell(self, told: list[tuple[Ticket, int, Event]]) -> None:
        self.loop.call_soon_threadsafe(self._deliver, told)
