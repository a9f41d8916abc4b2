"""Runs chapters with papermill: one notebook with a receipt, or all of them two at a time.

What it leaves out: any judgement of the outputs. The chapters' own asserts fail the run.
"""

import argparse
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scratchbook.publishing.chapters import Chapter, all_chapters, find_chapter

THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                 "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")
QUIET = {"TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1",
         "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Receipt:
    """What one run cost and where it ended; `error` is empty when every cell passed."""

    stem: str
    output: Path
    seconds: float
    peak_mb: float | None
    error: str = ""
    interrupted: bool = False

    @property
    def passed(self) -> bool:
        return not self.error and not self.interrupted


def run_notebook(
    source: Path,
    output: Path,
    parameters: dict | None = None,
    threads: int | None = 1,
    notebook: object | None = None,
) -> Receipt:
    """Execute `source` into `output`, writing after every cell so that nothing is lost.

    The working directory is the folder of `source`, as in JupyterLab. `notebook` is run in
    place of the file's content when it is given. Never raises for what a cell does: a failure
    or Ctrl-C is told in the receipt, and the partial notebook stays at `output`.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import CellControlSignal, CellTimeoutError, DeadKernelError

    source, output = source.resolve(), output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    error, interrupted, start = "", False, time.perf_counter()
    with _threads(threads), _PeakMemory() as memory:
        try:
            papermill.execute_notebook(
                notebook or nbformat.read(source, as_version=4),
                str(output).replace("{", "{{").replace("}", "}}"),
                parameters=parameters or None,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=str(source.parent),
                extra_arguments=["--log-level=CRITICAL"],
            )
        except papermill.PapermillExecutionError as failure:
            error = describe_failure(failure)
        except KeyboardInterrupt:
            interrupted = True
        except (DeadKernelError, CellControlSignal, CellTimeoutError, RuntimeError) as failure:
            error = f"the kernel died: {str(failure) or 'no message'}"
    seconds = time.perf_counter() - start
    return Receipt(source.stem, output, seconds, memory.peak_mb, error, interrupted)


def describe_failure(failure: object) -> str:
    """Return one line for a papermill error: which cell, which exception, which message."""
    value = ANSI.sub("", str(failure.evalue)).strip().splitlines()  # type: ignore[attr-defined]
    message = value[0][:300] if value else ""
    count = failure.exec_count  # type: ignore[attr-defined]
    return f"code cell {count}: {failure.ename}: {message}"  # type: ignore[attr-defined]


def execute_chapters(
    chapters: list[Chapter], output_dir: Path, profile: str = "quick", workers: int = 2
) -> list[Receipt]:
    """Run chapters side by side, one thread each, and print a line as each ends.

    The longest starts first, so that two workers end at nearly the same time.
    """
    order = sorted(chapters, key=lambda c: -c.budget_seconds.get(profile, 0))
    parameters = None if profile == "quick" else {"PROFILE": profile}
    receipts: dict[str, Receipt] = {}
    with ProcessPoolExecutor(max_workers=max(1, min(workers, len(order) or 1))) as pool:
        jobs = {
            pool.submit(run_notebook, c.path, output_dir / c.path.name, parameters): c
            for c in order
        }
        for done, job in enumerate(as_completed(jobs), start=1):
            receipt = job.result()
            receipts[receipt.stem] = receipt
            print(f"[{done}/{len(jobs)}] {progress_line(receipt, jobs[job], profile)}", flush=True)
    return [receipts[c.stem] for c in chapters]


def progress_line(receipt: Receipt, chapter: Chapter, profile: str) -> str:
    """Return the line a reader sees when a chapter ends."""
    budget = chapter.budget_seconds.get(profile)
    limit = f"of {budget:.0f} s" if budget else "(no budget)"
    line = f"{chapter.stem:<28} {receipt.seconds:6.1f} s {limit}"
    if receipt.peak_mb:
        line += f", {receipt.peak_mb:.0f} MB"
    if not receipt.passed:
        reason = receipt.error or "interrupted"
        return f"{line}  FAILED\n      {reason}\n      partial notebook: {receipt.output}"
    return line + ("  (over its budget)" if budget and receipt.seconds > budget else "")


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let the kernels started inside use `count` threads; None leaves that to them."""
    before = dict(os.environ)
    if count is not None:
        limits = dict.fromkeys(THREAD_LIMITS, str(count))
        os.environ.update(limits | QUIET)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _PeakMemory:
    """Watches the largest resident size of this process's children while a block runs."""

    def __init__(self) -> None:
        self.peak_mb: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=2)

    def _watch(self) -> None:
        try:
            import psutil
        except ImportError:
            return
        parent = psutil.Process()
        while not self._stop.wait(0.25):
            total = 0
            for child in parent.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.Error:
                    continue
            self.peak_mb = max(self.peak_mb or 0.0, total / 1e6)


def main(arguments: list[str] | None = None) -> int:
    """Run `python -m scratchbook.publishing.execute OUTPUT [CHAPTER ...]`."""
    parser = argparse.ArgumentParser(prog="python -m scratchbook.publishing.execute")
    parser.add_argument("output", type=Path, help="folder for the executed notebooks")
    parser.add_argument("chapters", nargs="*", help="numbers or stems; all when left out")
    parser.add_argument("--profile", default="quick", choices=("quick", "full"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--enforce-budget", action="store_true", help="fail when over budget")
    options = parser.parse_args(arguments)
    known = all_chapters()
    chosen = [find_chapter(name, known) for name in options.chapters] or known
    receipts = execute_chapters(chosen, options.output, options.profile, options.workers)
    failed = [r.stem for r in receipts if not r.passed]
    if options.enforce_budget:
        failed += [r.stem for r, c in zip(receipts, chosen, strict=True)
                   if r.seconds > c.budget_seconds.get(options.profile, float("inf"))]
    if failed:
        print(f"{len(set(failed))} of {len(chosen)} chapters failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
