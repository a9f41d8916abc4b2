"""What a small model is for, measured: bytes, memory, tokens a second, the wait for the first.

Every function takes any way to write, `write(prompt_ids, max_new_tokens) -> ids`, such as
`partial(generate, model, temperature=0.0)`, so that ours and another engine are timed alike.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

Write = Callable[[list[int], int], Sequence[int]]
REPORT = """
import resource, sys
try:  # getrusage would count what the parent held when it started this process
    lines = open("/proc/self/status", encoding="utf-8").read().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
except (OSError, StopIteration):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
print("\\npeak", peak)
"""


def disk_bytes(path: str | Path) -> int:
    """The size of a file, or of all files in a folder, in bytes.

    Raises:   FileNotFoundError when there is nothing
    Chapter:  chapters/07_compression.ipynb
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: save the model first")
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def peak_memory(code: str, timeout: float = 600) -> int:
    """The most memory that `code` held at once, in bytes, run by a fresh Python.

    All of it counts, the interpreter and what it imports too: `import torch` alone takes far
    more than a small model.

    Raises:   RuntimeError with the last lines of what went wrong in there
    Chapter:  chapters/07_compression.ipynb
    """
    done = subprocess.run([sys.executable, "-c", code + "\n" + REPORT], capture_output=True,
                          text=True, timeout=timeout, check=False)
    if done.returncode or "\npeak" not in done.stdout:  # it may have left by sys.exit(0)
        raise RuntimeError(f"the code failed in a fresh process: {done.stderr[-500:]}")
    return int(done.stdout.rsplit("peak", 1)[1])


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch computes on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def writing_speed(write: Write, prompt_ids: list[int], max_new_tokens: int = 64,
                  repeats: int = 3) -> float:
    """Tokens a second on one thread, prompt included: the best of `repeats`, after one in vain.

    Raises:   ValueError when nothing was written
    Chapter:  chapters/07_compression.ipynb
    """
    with one_thread():
        write(prompt_ids, 1)
        speeds = []
        for _ in range(repeats):
            began = time.perf_counter()
            written = len(write(prompt_ids, max_new_tokens))
            speeds.append(written / (time.perf_counter() - began))
    if not max(speeds):
        raise ValueError("nothing was written: there is no speed")
    return max(speeds)


def first_token_seconds(write: Write, prompts: Sequence[list[int]]) -> dict[str, float]:
    """How long the first token of an answer takes on one thread, over all prompts.

    Shapes:   -> {"p50": seconds, "p95": seconds}
    Raises:   ValueError for less than two prompts
    Chapter:  chapters/07_compression.ipynb
    """
    if len(prompts) < 2:
        raise ValueError(f"{len(prompts)} prompts have no quantiles: give 20 or more")
    waits = []
    with one_thread():
        write(prompts[0], 1)
        for prompt in prompts:
            began = time.perf_counter()
            write(prompt, 1)
            waits.append(time.perf_counter() - began)
    cuts = statistics.quantiles(waits, n=20, method="inclusive")
    return {"p50": cuts[9], "p95": cuts[18]}
