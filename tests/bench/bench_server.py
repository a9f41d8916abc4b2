"""Latency of `scratchbook serve base` against the number of clients, its memory, and its price.

    python -m tests.bench.bench_server --machine NAME=USD_PER_HOUR ...    about 20 minutes; records
    python -m tests.bench.bench_server --quick                            half a minute; records not

The server is a process of its own on one thread; the clients are in this one and stream their
answers over loopback by httpx. At each level every client sends its next request as soon as the
last is answered. A request is a beginning of a function and asks for 8 to 48 tokens, by a draw
with a seed. Every answer is compared with the one that the same request got when it was alone:
lost, doubled or changed tokens are counted, not left out. Afterwards one level goes on for some
minutes, and the server's memory is read every second. Dollars per million tokens are the price of
an hour over the tokens of an hour at the level that wrote most: they hold for machines on which
the server is as fast as here.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import Any

import httpx
import psutil

from scratchbook.teaching.results import record

LEVELS, REQUESTS, MINUTES = (1, 2, 4, 8, 16, 32), 160, 10
BEGINNINGS = ("def read_lines(path):\n", "class Queue:\n    def put(", "import os\n\n\ndef walk(",
              "    for name in sorted(", "    raise ValueError(", "def test_", "with open(",
              "try:\n")
Row = dict[str, Any]


def requests_of(count: int, seed: int = 0) -> list[Row]:
    draw = random.Random(seed)
    return [{"model": "base", "prompt": draw.choice(BEGINNINGS), "temperature": 0,
             "max_tokens": draw.choice((8, 16, 32, 48)), "stream": True,
             "stream_options": {"include_usage": True}} for _ in range(count)]


@contextmanager
def server():
    """The address of a server, and its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scratchbook", "serve", "base", "--port", "0"], text=True,
        stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        yield re.search(r"http://[\d.]+:\d+", process.stdout.readline())[0], process
    finally:
        process.terminate()
        process.wait(60)


async def ask(client: httpx.AsyncClient, url: str, request: Row) -> Row:
    """One request: when its first and its last token came, its text and its count of tokens."""
    begun, first, text, tokens = time.perf_counter(), None, "", 0
    async with client.stream("POST", f"{url}/v1/completions", json=request) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                first = first or time.perf_counter()
                event = json.loads(line.removeprefix("data: "))
                text += "".join(choice["text"] for choice in event["choices"])
                tokens = (event["usage"] or {}).get("completion_tokens", tokens)
    end = time.perf_counter()
    return {"first": (first or end) - begun, "whole": end - begun, "text": text, "tokens": tokens}


async def level(url: str, clients: int, requests: list[Row]) -> tuple[list[Row], float]:
    """All requests by so many clients, in the order of the list, and the seconds it took."""
    queue, found = iter(enumerate(requests)), [{} for _ in requests]

    async def one(client: httpx.AsyncClient) -> None:
        for place, request in queue:
            found[place] = await ask(client, url, request)

    begun = time.perf_counter()
    async with httpx.AsyncClient(timeout=600) as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))
    return found, time.perf_counter() - begun


def row(clients: int, found: list[Row], seconds: float, alone: list[Row]) -> Row:
    def percentiles(name: str) -> Row:
        cuts = statistics.quantiles([each[name] for each in found], n=100, method="inclusive")
        return {f"{name}_p{p}": round(cuts[p - 1], 4) for p in (50, 95, 99)}

    wrong = sum(a["text"] != b["text"] or a["tokens"] != b["tokens"]
                for a, b in zip(found, alone, strict=True))
    return {"clients": clients, "requests": len(found), "wrong": wrong,
            "tokens_per_second": round(sum(each["tokens"] for each in found) / seconds, 2),
            **percentiles("first"), **percentiles("whole")}


async def steady(url: str, process: subprocess.Popen, clients: int, seconds: float) -> list[float]:
    """The server's memory in MB, every second, under a load that does not end."""
    memory, endless = [], itertools.cycle(requests_of(64, seed=1))

    async def one(client: httpx.AsyncClient) -> None:
        while True:
            await ask(client, url, next(endless))

    async with httpx.AsyncClient(timeout=600) as client:
        tasks = [asyncio.ensure_future(one(client)) for _ in range(clients)]
        late = time.monotonic() + seconds
        while time.monotonic() < late and not any(task.done() for task in tasks):
            memory.append(round(psutil.Process(process.pid).memory_info().rss / 1e6, 1))
            await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        failed = [each for each in await asyncio.gather(*tasks, return_exceptions=True)
                  if not isinstance(each, asyncio.CancelledError)]
    assert not failed, failed[0]
    return memory


def growth(memory: list[float]) -> float:
    """Megabytes a minute: the slope of a straight line through the second half."""
    late = memory[len(memory) // 2 :]
    return statistics.linear_regression(range(len(late)), late).slope * 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two levels; records nothing")
    parser.add_argument("--machine", action="append", default=[], metavar="NAME=USD_PER_HOUR",
                        help="a machine as fast as this one, and its price; repeatable")
    options = parser.parse_args()
    prices = {name: float(price) for name, price in (m.split("=") for m in options.machine)}
    if not options.quick and len(prices) < 3:
        parser.error("name three machines and their prices, such as --machine small=0.05")
    requests = requests_of(16 if options.quick else REQUESTS)
    with server() as (url, process):
        asyncio.run(level(url, 1, requests[:4]))  # the first ones warm it up
        alone, seconds = asyncio.run(level(url, 1, requests))
        rows = [row(1, alone, seconds, alone)]
        for clients in ((8,) if options.quick else LEVELS[1:]):
            rows.append(row(clients, *asyncio.run(level(url, clients, requests)), alone))
        for each in rows:
            print("  ".join(f"{key}={value}" for key, value in each.items()), flush=True)
        memory = asyncio.run(steady(url, process, 8, 5 if options.quick else 60 * MINUTES))
    print(f"memory {memory[0]} MB at first, {memory[-1]} MB at last, {growth(memory):+.2f} MB a "
          "minute in the second half")
    best = max(each["tokens_per_second"] for each in rows)
    costs = [{"machine": name, "usd_per_hour": price,
              "usd_per_million_tokens": round(price / (best * 3600) * 1e6, 3)}
             for name, price in prices.items()]
    print(*costs, sep="\n")
    if not options.quick:
        machines = " ".join(f"--machine {name}={price}" for name, price in prices.items())
        record("server_load", {"rows": rows, "memory_mb": memory[::10], "costs": costs,
                               "growth_mb_per_minute": round(growth(memory), 3)},
               seeds=[0, 1], command=f"python -m tests.bench.bench_server {machines}")


if __name__ == "__main__":
    main()
