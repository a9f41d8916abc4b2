"""Chapter 07c's servers on a thread, and what it does to them.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import httpx

from scratchbook.serving.app import Server, Settings, create_app
from scratchbook.serving.engine import Engine
from scratchbook.serving.served import ServedModel
from scratchbook.serving.worker import Ticket

Handler = Callable[[Callable[[object], Awaitable[None]]], Awaitable[None]]
PING = 0.002  # seconds between two questions of a client that only wants to know whether one lives


class Home:
    """A server on a free port of this machine, in a thread of its own, until `stop`."""

    def __init__(self, served: ServedModel, engine: Engine,
                 more: Sequence[tuple[ServedModel, Engine]] = (), **settings: Any):
        self.engine, chosen, listening = engine, Settings(port=0, **settings), Future()
        app = create_app(served, engine, chosen, more)
        self.worker = app.state.worker
        self._server = Server(app, chosen, listening.set_result)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        self.url: str = listening.result(30)

    def stop(self) -> None:
        """Let it end, and wait for that."""
        self._server.should_exit = True
        self._thread.join(30)

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *reason: object) -> None:
        self.stop()


def longest_wait(handler: Handler) -> tuple[float, float, int]:
    """Milliseconds: the longest that a second client waits for "ok" while `handler` writes a text
    to the first, and that the whole text takes; and how often the second asks and is answered
    between the first token and the last."""

    async def both() -> tuple[float, float, int]:
        server = await asyncio.start_server(lambda *pipes: _answer(handler, *pipes), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            return await asyncio.to_thread(_two_clients, f"http://127.0.0.1:{port}")

    return _in_a_thread(both())


def longest_step(tokens: Iterator[object]) -> float:
    """Milliseconds: the longest time between two tokens, with nobody else about."""
    times = [time.perf_counter(), *(time.perf_counter() for _ in tokens)]
    return 1000 * max(b - a for a, b in itertools.pairwise(times))


async def _answer(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
                  ) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")

    async def send(token: object) -> None:
        writer.write(f"{token}\n".encode())
        await writer.drain()

    await (send("ok") if head.startswith(b"GET /health") else handler(send))
    writer.close()


def _two_clients(url: str) -> tuple[float, float, int]:
    begins, ends, longest, answered = threading.Event(), threading.Event(), 0.0, 0
    spent: Future[float] = Future()

    def read_text() -> None:
        with httpx.stream("GET", f"{url}/text", timeout=60) as answer:
            begun = time.perf_counter()
            for _ in answer.iter_raw():
                begins.set()
        ends.set()
        spent.set_result(1000 * (time.perf_counter() - begun))

    with httpx.Client(timeout=60) as client:
        client.get(f"{url}/health")  # in vain: the first question of a client takes longer
        threading.Thread(target=read_text).start()
        while not ends.is_set():
            first, asked = begins.is_set(), time.perf_counter()
            client.get(f"{url}/health")
            longest = max(longest, time.perf_counter() - asked)
            answered += first and not ends.is_set()
            time.sleep(PING)
    return 1000 * longest, spent.result(), answered


def _in_a_thread(work: Any) -> Any:
    """The result of a coroutine; a notebook's own thread has a loop that runs already."""
    found: Future[Any] = Future()

    def run() -> None:
        try:
            found.set_result(asyncio.run(work))
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run).start()
    return found.result(120)


@contextmanager
def deaf() -> Iterator[None]:
    """While it lasts, servers do not notice that a client hung up."""
    heard, Ticket.cancel = Ticket.cancel, lambda ticket, place=None: None
    try:
        yield
    finally:
        Ticket.cancel = heard


def hang_up(served: ServedModel, tokens: int = 160, read: int = 3) -> dict[str, float]:
    """One place; a client asks for `tokens`, reads a few and leaves; then another one comes.

    How many more tokens the engine writes for nobody, and the other's wait for its first.
    """
    ask = {"model": served.name, "prompt": "import os\n", "temperature": 0.0, "stream": True}
    with Home(served, Engine(served.model, max_batch=1, prefix_cache=False)) as home:
        with httpx.stream("POST", f"{home.url}/v1/completions",
                          json=ask | {"max_tokens": tokens, "seed": 1}) as answer:
            events = (line for line in answer.iter_lines() if line)
            for _ in range(read):
                next(events)
        gone, begun = home.engine.stats.new_tokens, time.perf_counter()
        httpx.post(f"{home.url}/v1/completions", timeout=60,
                   json=ask | {"max_tokens": 1, "stream": False}).raise_for_status()
        waited = time.perf_counter() - begun
        return {"written for nobody": home.engine.stats.new_tokens - 1 - gone,
                "the next one waits, ms": 1000 * waited}


def several(*served: ServedModel) -> list[str]:
    """The names among which clients of one server can choose."""
    (first, engine), *more = [(each, Engine(each.model)) for each in served]
    with Home(first, engine, more) as home:
        return [card["id"] for card in httpx.get(f"{home.url}/v1/models").json()["data"]]


def refusals(served: ServedModel, asked: Sequence[tuple[str, dict[str, Any], dict[str, Any]]]
             ) -> list[dict[str, object]]:
    """What servers with these settings say to these requests (`httpx.request`'s arguments)."""
    rows = []
    for name, settings, request in asked:
        with Home(served, Engine(served.model), **settings) as home:
            answer = httpx.request(**{"method": "POST"} | request | {
                "url": home.url + request.get("url", "/v1/completions")})
        error = answer.json().get("error", {}) if answer.is_error else {}
        said = error.get("message", "") if isinstance(error, dict) else error
        rows.append({"request": name, "status": answer.status_code,
                     "says": said or "(an answer)"})
    return rows
