"""Run a program that a model wrote, in a process of its own that can do little harm.

The program gets an empty folder, an empty environment, and limits on time, memory and output.
Files elsewhere, the network, other processes and programs are out of reach: on Linux by the
kernel's Landlock and seccomp, elsewhere by an audit hook inside Python alone.

What it does not protect from: errors in the kernel or in Python itself; without the kernel's
locks, code that sets out to break Python's own memory; reading files below Python's
installation; filling the disk with many small files within its seconds; a program that searches
its own process's memory for the secret which says that it has finished. It is made for the
clumsy programs of small models. What someone wrote to do harm belongs into a virtual machine.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MEGABYTE = 2**20


@dataclass(frozen=True)
class Outcome:
    """Whether a program came to its end, and why not; what it printed; which locks held."""

    passed: bool
    reason: str
    output: str
    seconds: float
    locks: tuple[str, ...]


def run_program(source: str, seconds: float = 2.0, memory_mb: int = 512) -> Outcome:
    """Run Python source in the sandbox; it passes when it reaches its last line without an error.

    An exit status or a printed "ok" proves nothing: the end is reported through a pipe, with a
    secret. Whatever is left running is killed with its whole process group.

    Raises:   OSError where there are no POSIX processes
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if os.name != "posix":
        raise OSError("the sandbox needs Linux or macOS; on Windows use WSL or a container")
    secret, python = secrets.token_hex(16), getattr(sys, "_base_executable", sys.executable)
    request = {"source": source, "secret": secret, "seconds": math.ceil(seconds),
               "memory": memory_mb * MEGABYTE, "written": MEGABYTE}
    command = [python, "-I", "-S", "-B", str(Path(__file__).with_name("jail.py"))]
    with _own_folder() as own, tempfile.TemporaryFile() as printed, \
            tempfile.TemporaryFile() as verdict:
        start, number = time.monotonic(), verdict.fileno()
        process = subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=printed,
                                   stderr=subprocess.STDOUT, cwd=own, env={}, pass_fds=(number,),
                                   start_new_session=True)
        late = not _finished(process, json.dumps(request), seconds)
        return _judge(process.returncode, late, secret, _read(verdict), _read(printed),
                      time.monotonic() - start)


@contextlib.contextmanager
def _own_folder() -> Iterator[str]:
    """An empty folder that is gone afterwards, whatever was put into it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        yield own
        nested = [entry.path for entry in os.scandir(own) if entry.is_dir(follow_symlinks=False)]
        if nested:  # perhaps thousands of folders in each other, too many for shutil's recursion
            subprocess.run(["sh", "-c", 'chmod -R u+rwx "$@"; rm -rf "$@"', "sh", *nested],
                           stderr=subprocess.DEVNULL, check=False)


def _finished(process: subprocess.Popen, request: str, seconds: float) -> bool:
    """Hand over the request and wait; in any case nothing of the group is alive afterwards."""
    try:
        process.communicate(request.encode(), timeout=seconds)
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MEGABYTE).decode("utf-8", errors="replace")


def _judge(status: int, late: bool, secret: str, verdict: str, printed: str,
           seconds: float) -> Outcome:
    locks, _, last = verdict.partition("\n")
    passed = status == 0 and not late and last == secret
    if passed:
        reason = "passed"
    elif late:
        reason = f"stopped after {seconds:.1f} seconds"
    elif last and last != secret:
        reason = last
    elif status < 0:
        reason = f"killed by {signal.Signals(-status).name}"
    else:
        reason = f"left with status {status} before its end"
    return Outcome(passed, reason, printed, seconds, tuple(filter(None, locks.split(","))))


def read_problems(path: str | Path) -> list[dict[str, str]]:
    """The problems of a HumanEval file, one JSON object a line, compressed or not.

    Paper:    Chen et al. (2021), arXiv:2107.03374, section 2.2
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    raw = Path(path).read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    return [json.loads(line) for line in raw.decode("utf-8").splitlines() if line.strip()]


def solve(problem: dict[str, str], completion: str, seconds: float = 2.0) -> Outcome:
    """Run one completion of a problem against the problem's own tests."""
    return run_program(f"{problem['prompt']}{completion}\n{problem['test']}\n"
                       f"check({problem['entry_point']})\n", seconds)


def pass_at_k(tries: int, passed: int, k: int) -> float:
    """The chance that at least one of `k` tries passes, estimated from `tries` without bias.

    Raises:   ValueError unless 0 <= passed <= tries and 1 <= k <= tries
    Paper:    Chen et al. (2021), arXiv:2107.03374, section 2.1
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if not (0 <= passed <= tries and 1 <= k <= tries):
        raise ValueError(f"pass@{k} of {tries} tries with {passed} passed makes no sense")
    return 1 - math.comb(tries - passed, k) / math.comb(tries, k)
