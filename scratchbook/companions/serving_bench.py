"""What chapter 07c records: a server under load, under overload, and for ten minutes.

    python -m scratchbook.companions.serving_bench load        latency and throughput, 6 minutes
    python -m scratchbook.companions.serving_bench overload    more than it can do, 4 minutes
    python -m scratchbook.companions.serving_bench memory      the memory of ten minutes
    python -m scratchbook.companions.serving_bench quick       a bit of each; records nothing

The server is a process of its own on one thread; the clients are in this one and stream their
answers over loopback by httpx. A request is a beginning of a function and asks for 8 to 48 tokens,
by a draw with a seed. Every answer is compared with the one that the same request got when it was
alone: lost, doubled or changed ones are counted, not left out.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psutil
import torch

from scratchbook.serving.app import Server, Settings, create_app
from scratchbook.serving.served import open_served
from scratchbook.serving.top_tokens import TopEngine
from scratchbook.teaching.results import record

LEVELS, ROUNDS, REQUESTS = (1, 2, 4, 8, 16, 32), 6, 96
PLACES, MORE = 8, 16  # texts that are written at once; and those of the control
SECONDS, TIMES, PATIENCE, DRAWS = 4.0, 2.0, 1.0, 5  # of overload
MINUTES = 10
# the most in line or at work, and what who is sent away does: leave, or come again after the time
# that it was told, times a number drawn between these two
WAYS: dict[str, tuple[int, tuple[float, float] | None]] = {
    "no bound": (100_000, None), "bound of 16": (16, None), "bound of 64": (64, None),
    "16, comes again": (16, (1.0, 1.0)), "16, at a drawn time": (16, (0.5, 1.5))}
BEGINNINGS = ("def read_lines(path):\n", "class Queue:\n    def put(", "import os\n\n\ndef walk(",
              "    for name in sorted(", "    raise ValueError(", "def test_", "with open(",
              "try:\n")
Row = dict[str, Any]
KINDS: list[Row] = [
    {"model": "base", "prompt": beginning, "temperature": 0, "max_tokens": tokens, "stream": True,
     "stream_options": {"include_usage": True}}
    for beginning in BEGINNINGS for tokens in (8, 16, 32, 48)]


def endless(seed: int) -> Iterator[Row]:
    """Bodies for /v1/completions, all streamed and greedy, drawn from `KINDS`."""
    draw = random.Random(seed)
    while True:
        yield draw.choice(KINDS)


def requests_of(count: int, seed: int) -> list[Row]:
    """The first of them."""
    return list(itertools.islice(endless(seed), count))


def _serve(max_open: int, places: int, address: Any) -> None:
    """In a process of its own: serve the base model and say where."""
    torch.set_num_threads(1)
    served, settings = open_served("base"), Settings(port=0, max_open=max_open)
    app = create_app(served, TopEngine(served.model, max_batch=places), settings)
    Server(app, settings, address.send).run()


@contextmanager
def server(max_open: int = 64, places: int = PLACES) -> Iterator[tuple[str, int]]:
    """The address of a server that is warm, and its process' number."""
    fresh = multiprocessing.get_context("spawn")
    here, there = fresh.Pipe()
    process = fresh.Process(target=_serve, args=(max_open, places, there))
    process.start()
    there.close()  # should the server die, `recv` says so instead of waiting
    try:
        url = here.recv()
        asyncio.run(one_by_one(url, KINDS[:4]))
        yield url, process.pid
    finally:
        process.terminate()
        process.join(60)


async def ask(client: httpx.AsyncClient, url: str, request: Row,
              again: tuple[float, float] | None = None, seed: int = 0) -> Row:
    """One request: when its first and its last token came, its text, its count of tokens.

    With `again` a client that is sent away comes again: after what it was told, times a number
    drawn evenly between these two.
    """
    draw = random.Random(seed)
    begun, first, text, tokens, tries = time.perf_counter(), None, "", 0, 0
    while True:
        tries += 1
        async with client.stream("POST", f"{url}/v1/completions", json=request) as answer:
            if answer.status_code == 200:
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        first = first or time.perf_counter()
                        event = json.loads(line.removeprefix("data: "))
                        text += "".join(choice["text"] for choice in event["choices"])
                        tokens = (event["usage"] or {}).get("completion_tokens", tokens)
                break
            if answer.status_code != 429:
                answer.raise_for_status()
            if again is None:
                break
        await asyncio.sleep(float(answer.headers["Retry-After"]) * draw.uniform(*again))
    end = time.perf_counter()
    return {"status": answer.status_code, "first": (first or end) - begun, "whole": end - begun,
            "text": text, "tokens": tokens, "tries": tries}


async def one_by_one(url: str, requests: Sequence[Row]) -> list[Row]:
    """What each request gets when it is alone."""
    async with httpx.AsyncClient(timeout=600) as client:
        return [await ask(client, url, request) for request in requests]


async def closed_loop(url: str, clients: int, seed: int, count: int) -> tuple[list[Row], float]:
    """Clients that ask again as soon as they were answered: `count` answers, and in how long.

    Answers count from where every client could have had one, so that the line is as long as it
    gets; the clients leave, in the middle of an answer, when so many have come.
    """
    draws, found, enough = endless(seed), [], asyncio.Event()
    begun = time.perf_counter()

    async def one(client: httpx.AsyncClient) -> None:
        nonlocal begun
        for request in draws:
            found.append(await ask(client, url, request) | {"request": request})
            if len(found) == clients:
                begun = time.perf_counter()
            if len(found) == clients + count:
                enough.set()

    async with httpx.AsyncClient(timeout=600) as client:
        tasks = [asyncio.ensure_future(one(client)) for _ in range(clients)]
        ends = asyncio.ensure_future(enough.wait())
        await asyncio.wait([*tasks, ends], return_when=asyncio.FIRST_COMPLETED)
        seconds = time.perf_counter() - begun
        for task in (*tasks, ends):
            task.cancel()
        failed = [each for each in await asyncio.gather(*tasks, return_exceptions=True)
                  if not isinstance(each, asyncio.CancelledError)]
    if failed:
        raise RuntimeError(f"a client failed: {failed[0]!r}")
    return found[clients : clients + count], seconds


def load_row(clients: int, found: Sequence[Row], seconds: float, alone: Sequence[Row]) -> Row:
    """Throughput and latencies of one level in one round."""
    expected = [alone[KINDS.index(each["request"])] for each in found]
    wrong = sum(a["text"] != b["text"] or a["tokens"] != b["tokens"]
                for a, b in zip(found, expected, strict=True))
    row = {"clients": clients, "requests": len(found), "wrong": wrong,
           "seconds": round(seconds, 4), "tokens": sum(each["tokens"] for each in found)}
    for name in ("first", "whole"):
        times = [each[name] for each in found]
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        row |= {f"{name}_mean": round(statistics.mean(times), 5)}
        row |= {f"{name}_p{p}": round(cuts[p - 1], 5) for p in (50, 95, 99)}
    return row


def load(rounds: int = ROUNDS, levels: Sequence[int] = LEVELS, count: int = REQUESTS) -> Row:
    """Every level in every round, in an order of its own; and the most clients with more places."""
    rows = []
    with server() as (url, _), server(places=MORE) as (wider, _):
        alone = asyncio.run(one_by_one(url, KINDS))
        for seed in range(rounds):
            order = [*((url, PLACES, clients) for clients in levels), (wider, MORE, max(levels))]
            random.Random(seed).shuffle(order)
            for where, places, clients in order:
                found, seconds = asyncio.run(closed_loop(where, clients, seed, count))
                rows.append({"round": seed, "places": places}
                            | load_row(clients, found, seconds, alone))
    return {"rows": rows, "alone_tokens": [each["tokens"] for each in alone]}


async def open_loop(url: str, rate: float, requests: Sequence[Row],
                    again: tuple[float, float] | None) -> tuple[list[Row], int]:
    """Requests at a steady rate, whoever waits; and how many were in line or at work at most."""
    longest, begun = 0, time.perf_counter()
    limits = httpx.Limits(max_connections=None)

    async def one(client: httpx.AsyncClient, place: int, request: Row) -> Row:
        await asyncio.sleep(max(0.0, begun + place / rate - time.perf_counter()))
        came = time.perf_counter() - begun
        return {"came": came} | await ask(client, url, request, again, place)

    async def watch(client: httpx.AsyncClient) -> None:
        nonlocal longest
        while True:
            text = (await client.get(f"{url}/metrics")).text
            longest = max(longest, *(int(float(row.split()[-1])) for row in text.splitlines()
                                     if row.startswith("scratchbook_unfinished")))
            await asyncio.sleep(0.1)

    async with httpx.AsyncClient(timeout=600, limits=limits) as client:
        watching = asyncio.ensure_future(watch(client))
        found = await asyncio.gather(*(one(client, *each) for each in enumerate(requests)))
        watching.cancel()
    return list(found), longest


def overload(rounds: int = DRAWS, seconds: float = SECONDS) -> Row:
    """What comes of twice as many requests as a server can answer; the ways of a round by draw."""
    rows, drawn = [], {}
    with ExitStack() as stack:
        urls = {bound: stack.enter_context(server(bound))[0]
                for bound in sorted({bound for bound, _ in WAYS.values()})}
        for seed in range(rounds):
            capacity = 96 / asyncio.run(closed_loop(urls[64], 8, 50 + seed, 96))[1]
            requests = requests_of(int(TIMES * capacity * seconds), seed)
            for way in random.Random(seed).sample(list(WAYS), len(WAYS)):
                bound, again = WAYS[way]
                found, longest = asyncio.run(open_loop(urls[bound], TIMES * capacity, requests,
                                                       again))
                rows.append({"way": way, "round": seed, "capacity": round(capacity, 3)}
                            | way_row(found) | {"longest_line": longest})
                if not seed:
                    drawn[way] = [[round(e["came"], 3), e["status"] == 200, round(e["whole"], 3)]
                                  for e in found]
    shares = {way: [row["in_time"] / row["requests"] for row in rows if row["way"] == way]
              for way in WAYS}
    return {"bounds": {way: bound for way, (bound, _) in WAYS.items()}, "times": TIMES,
            "seconds": seconds, "patience": PATIENCE, "rows": rows, "shares": shares,
            "drawn": {way: drawn[way] for way in WAYS}}


def way_row(found: Sequence[Row]) -> Row:
    """How many were answered, how many in time, and how long they waited."""
    served = [each for each in found if each["status"] == 200]
    return {"requests": len(found), "answered": len(served),
            "in_time": sum(each["whole"] <= PATIENCE for each in served),
            "seconds": round(max(e["came"] + e["whole"] for e in found), 4),
            "mean_whole": round(statistics.mean(e["whole"] for e in served), 4),
            "worst": round(max(e["whole"] for e in served), 4),
            "tries": sum(each["tries"] for each in found)}


async def _endless(url: str, pid: int, clients: int, seconds: float) -> tuple[list[float], int]:
    memory, answered, draws = [], 0, endless(1)

    async def one(client: httpx.AsyncClient) -> None:
        nonlocal answered
        while True:
            status = (await ask(client, url, next(draws)))["status"]
            answered += status == 200  # not across the await: others count meanwhile

    async with httpx.AsyncClient(timeout=600) as client:
        tasks = [asyncio.ensure_future(one(client)) for _ in range(clients)]
        begun = time.monotonic()
        while len(memory) < seconds and not any(task.done() for task in tasks):
            memory.append(psutil.Process(pid).memory_info().rss / 1e6)
            await asyncio.sleep(max(0.0, begun + len(memory) - time.monotonic()))
        for task in tasks:
            task.cancel()
        failed = [each for each in await asyncio.gather(*tasks, return_exceptions=True)
                  if not isinstance(each, asyncio.CancelledError)]
    if failed:
        raise RuntimeError(f"a client failed: {failed[0]!r}")
    return memory, answered


def memory(minutes: int = MINUTES) -> Row:
    """Megabytes of the server in each minute of a load that does not end."""
    with server() as (url, pid):
        found, answered = asyncio.run(_endless(url, pid, 8, 60 * minutes))
    return {"minutes": [round(statistics.mean(found[60 * n : 60 * n + 60]), 3)
                        for n in range(minutes)],
            "every_ten_seconds": [round(each, 2) for each in found[::10]], "answered": answered}


def record_load() -> None:
    """One to 32 clients."""
    record("07c_serving_and_chat.load", load(), seeds=list(range(ROUNDS)),
           command="python -m scratchbook.companions.serving_bench load")


def record_overload() -> None:
    """More than it can do."""
    record("07c_serving_and_chat.overload", overload(), seeds=list(range(DRAWS)),
           command="python -m scratchbook.companions.serving_bench overload")


def record_memory() -> None:
    """Ten minutes without a pause."""
    record("07c_serving_and_chat.memory", memory(), seeds=[1],
           command="python -m scratchbook.companions.serving_bench memory")


def quick() -> None:
    """A bit of each, printed."""
    print(*load(1, (1, 8, 32), 16)["rows"], sep="\n")
    print(*overload(1, 1.0)["rows"], sep="\n")


def main() -> None:
    """Measure one of the three and record it."""
    parts = {"load": record_load, "overload": record_overload, "memory": record_memory,
             "quick": quick}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=parts)
    parts[parser.parse_args().part]()


if __name__ == "__main__":
    main()
