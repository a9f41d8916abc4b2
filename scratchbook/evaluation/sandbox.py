"""Run a program that a model wrote, in a process of its own that can do little harm.

The program gets an empty folder, an empty environment, and limits on time, memory and output.
Files elsewhere, the network, other processes and programs are out of reach: on Linux by the
kernel's Landlock and seccomp, elsewhere by an audit hook inside Python alone.

What decides is out of its reach as well: the tests run in another process, which hands over
arguments and gets back plain values. A program can lie about a value, and about nothing else.

What it does not protect from: errors in the kernel or in Python itself; without the kernel's
locks, code that sets out to break Python's own memory; reading Python's own files; filling the
disk with many small files within its seconds. It is made for the clumsy programs of small
models. What someone wrote to do harm belongs into a virtual machine.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
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


def run_program(source: str, seconds: float = 2.0, memory_mb: int = 512,
                tests: str = "") -> Outcome:
    """Run Python source in the sandbox; it passes when it ends without an error, and its tests do.

    The tests see it as `program`, as in `assert program.double(4) == 8`, from a process of their
    own: only numbers, texts, bytes, and lists, tuples, sets and dicts of them come back as they
    are. Any other object can be called and asked for attributes, and equals nothing. Without
    tests, that the end was reached is the program's own word. What is left running is killed.

    Raises:   OSError where there are no POSIX processes
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if os.name != "posix":
        raise OSError("the sandbox needs Linux or macOS; on Windows use WSL or a container")
    limits = {"seconds": math.ceil(seconds), "memory": memory_mb * MEGABYTE, "written": MEGABYTE}
    with _own_folder() as own, _own_folder() as office, tempfile.TemporaryFile() as printed, \
            tempfile.TemporaryFile() as verdict, Path(os.devnull).open("wb") as nowhere:
        started, calls, answers = [], os.pipe(), os.pipe()
        try:
            started += [_start(own, printed, {"source": source} | limits,
                               "program", calls[0], answers[1])]
            started += [_start(office, nowhere, {"tests": tests} | limits,
                               "judge", answers[0], calls[1], verdict.fileno())]
            for end in (*calls, *answers):
                os.close(end)
            program, judge = started
            while not _lines(verdict) and judge.poll() is None:  # Python's start is not its time
                time.sleep(0.002)
            start = time.monotonic()
            late = not _ends(judge, start + seconds)
            if not late and len(_lines(verdict)) < 2:  # the program is gone: how did it end?
                late = not _ends(program, start + seconds)
            status = program.poll()
        finally:
            for process in started:
                _kill(process)
        return _judge(_lines(verdict), late, judge.returncode, status, _read(printed),
                      time.monotonic() - start)


def _start(folder: str, printed: IO[bytes], request: dict, *words: object) -> subprocess.Popen:
    """Start the jail in a folder, as the program or as its judge, with some open files."""
    python = getattr(sys, "_base_executable", sys.executable)
    jail = str(Path(__file__).with_name("jail.py"))
    with tempfile.TemporaryFile() as asked:
        asked.write(json.dumps(request).encode())
        asked.seek(0)
        return subprocess.Popen(
            [python, "-I", "-S", "-B", jail, *map(str, words)], stdin=asked, stdout=printed,
            stderr=subprocess.STDOUT, cwd=folder, env={}, start_new_session=True,
            pass_fds=[word for word in words if isinstance(word, int)])


@contextlib.contextmanager
def _own_folder() -> Iterator[str]:
    """An empty folder that is gone afterwards, whatever was put into it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        yield own
        nested = [entry.path for entry in os.scandir(own) if entry.is_dir(follow_symlinks=False)]
        if nested:  # perhaps thousands of folders in each other, too many for shutil's recursion
            subprocess.run(["sh", "-c", 'chmod -R u+rwx "$@"; rm -rf "$@"', "sh", *nested],
                           stderr=subprocess.DEVNULL, check=False)


def _ends(process: subprocess.Popen, until: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=max(until - time.monotonic(), 0))
        return True
    return False


def _kill(process: subprocess.Popen) -> None:
    """Afterwards nothing of the process's group is alive."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(file: IO[bytes]) -> str:
    # not `read`: that would move the place where the other process writes
    return os.pread(file.fileno(), MEGABYTE, 0).decode("utf-8", errors="replace")


def _lines(verdict: IO[bytes]) -> list:
    """What the judge wrote: the locks, then why the program fails, or an empty text."""
    return [json.loads(line) for line in _read(verdict).split("\n")[:-1]]


def _judge(verdict: list, late: bool, judge: int, status: int | None, printed: str,
           seconds: float) -> Outcome:
    locks = verdict[0] if verdict else ()
    failure = verdict[1] if len(verdict) > 1 else None
    if failure is not None:
        reason = failure or "passed"
    elif late:
        reason = f"stopped after {seconds:.1f} seconds"
    elif judge:
        reason = f"the tests themselves ended with status {judge}"
    elif status == -signal.SIGKILL:  # the system's own bound on processor time, or on memory
        reason = f"stopped after {seconds:.1f} seconds: killed by the system"
    elif status < 0:
        reason = f"killed by {signal.Signals(-status).name}"
    else:
        reason = f"left with status {status} before its end"
    return Outcome(failure == "", reason, printed, seconds, tuple(locks))


def read_problems(path: str | Path) -> list[dict[str, str]]:
    """The problems of a HumanEval file, one JSON object a line, compressed or not.

    Paper:    Chen et al. (2021), arXiv:2107.03374, section 2.2
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    raw = Path(path).read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    return [json.loads(line) for line in raw.decode("utf-8").splitlines() if line.strip()]


def solve(problem: dict[str, str], completion: str, seconds: float = 2.0) -> Outcome:
    """Run one completion of a problem against the problem's own tests.

    The tests may use what the prompt defines: in the judge's process that is the prompt's own.
    """
    prompt, name = problem["prompt"], problem["entry_point"]
    tests = f"{prompt}\n    pass\n{name} = program.{name}\n{problem['test']}\ncheck({name})\n"
    return run_program(f"{prompt}{completion}\n", seconds, tests=tests)


def pass_at_k(tries: int, passed: int, k: int) -> float:
    """The chance that at least one of `k` tries passes, estimated from `tries` without bias.

    Raises:   ValueError unless 0 <= passed <= tries and 1 <= k <= tries
    Paper:    Chen et al. (2021), arXiv:2107.03374, section 2.1
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if not (0 <= passed <= tries and 1 <= k <= tries):
        raise ValueError(f"pass@{k} of {tries} tries with {passed} passed makes no sense")
    return 1 - math.comb(tries - passed, k) / math.comb(tries, k)
