"""Our server beside llama-cpp-python's, on the same weights in float32, one thread each.

    python -m tests.bench.bench_llama_cpp --python ENVIRONMENT/bin/python     about two minutes

The environment is one with `llama-cpp-python[server]`: it is compiled when it is installed, so it
is not among the requirements. The base model is exported to GGUF; both servers get the same greedy
requests for completions over loopback, in turns, and ratios are taken within a round. What stands
before every text in training is added here by the server, there by the client, who also turns off
the penalty for repeating that llama.cpp's server usually has. Answers are compared: how many texts
are the same is recorded beside the times.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from scratchbook.compression.export_gguf import export_gguf
from scratchbook.evaluation.comparing import bound_verdict
from scratchbook.serving.served import open_served
from scratchbook.teaching.results import record

ROUNDS, CLIENTS, REQUESTS, PROMPTS = 7, (1, 8), 32, (
    "def read_lines(path):\n", "class Queue:\n    def put(", "import os\n\n\ndef walk(",
    "    for name in sorted(", "    raise ValueError(", "def test_", "with open(", "try:\n")
Row = dict[str, Any]


@contextmanager
def serving(command: Sequence[str], port: int) -> Iterator[str]:
    """The address of a server that was started and answers."""
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL,
                               env=os.environ | {"OMP_NUM_THREADS": "1"})
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
            try:
                httpx.get(f"{url}/v1/models").raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.25)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def requests_of(seed: int) -> list[Row]:
    draw = random.Random(seed)
    return [{"model": "base", "prompt": draw.choice(PROMPTS), "temperature": 0,
             "max_tokens": draw.choice((8, 16, 32, 48))} for _ in range(REQUESTS)]


async def answers(url: str, clients: int, requests: list[Row], before: str
                  ) -> tuple[list[str], float]:
    """The texts, and tokens a second, by so many clients that share the requests."""
    requests = [each | {"prompt": before + each["prompt"], "repeat_penalty": 1.0}
                for each in requests]
    found: list[Row] = [{}] * len(requests)
    line = iter(range(len(requests)))

    async def one(client: httpx.AsyncClient) -> None:
        for place in line:
            answer = await client.post(f"{url}/v1/completions", json=requests[place])
            found[place] = answer.raise_for_status().json()

    async with httpx.AsyncClient(timeout=300) as client:
        begun = time.perf_counter()
        await asyncio.gather(*(one(client) for _ in range(clients)))
        seconds = time.perf_counter() - begun
    tokens = sum(each["usage"]["completion_tokens"] for each in found)
    return [each["choices"][0]["text"] for each in found], tokens / seconds


def compare(urls: dict[str, str], clients: int, before: dict[str, str]) -> Row:
    """Both servers in every round, the first of them in turns."""
    speeds: dict[str, list[float]] = {who: [] for who in urls}
    same = 0
    for seed in range(-1, ROUNDS):  # the first one warms up
        texts = {}
        for who in list(urls)[:: 1 if seed % 2 else -1]:
            texts[who], speed = asyncio.run(answers(urls[who], clients, requests_of(seed),
                                                     before[who]))
            if seed >= 0:
                speeds[who].append(speed)
        same += sum(map(str.__eq__, *texts.values())) if seed >= 0 else 0
    ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
    return {"clients": clients, "ratios": ratios, "ratio": statistics.median(ratios),
            "verdict": bound_verdict(ratios, at_least=1.0),
            "same_texts": same, "texts": ROUNDS * REQUESTS,
            "tokens_per_second": {who: statistics.median(each) for who, each in speeds.items()}}


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", required=True, help="of an environment with llama_cpp.server")
    theirs = parser.parse_args().python
    served = open_served("base")
    version = subprocess.run([theirs, "-c", "import llama_cpp; print(llama_cpp.__version__)"],
                             check=True, text=True, capture_output=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = export_gguf(served.model, Path(folder) / "base.gguf", "F32", served.tokenizer)
        commands = {
            "ours": [sys.executable, "-m", "scratchbook", "serve", "base"],
            "llama.cpp": [theirs, "-m", "llama_cpp.server", "--model", str(path), "--model_alias",
                          "base", "--n_threads", "1", "--n_threads_batch", "1",
                          "--interrupt_requests", "false", "--n_ctx",
                          str(served.window)]}
        urls = {who: stack.enter_context(serving(command, free_port()))
                for who, command in commands.items()}
        names = {number: text for text, number in served.control.items()}
        before = {"ours": "", "llama.cpp": "".join(names[each] for each in served.before)}
        rows = [compare(urls, clients, before) for clients in CLIENTS]
    for row in rows:
        print(row)
    record("serving_beside_llama_cpp", {"rows": rows, "llama_cpp_python": version},
           seeds=list(range(ROUNDS)),
           command="python -m tests.bench.bench_llama_cpp --python ENVIRONMENT/bin/python")


if __name__ == "__main__":
    main()
