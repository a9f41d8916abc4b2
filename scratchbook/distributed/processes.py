"""Several processes that compute one thing: started together, ended together.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist

PATIENCE = timedelta(seconds=120)  # that a collective waits for ranks that do not come


class RanksFailed(RuntimeError):
    """A rank ended before its work was done; the message says which and why."""


def join_ranks(init_method: str = "env://", rank: int = -1, ranks: int = -1) -> torch.device:
    """Join the process group and return this rank's device: NCCL where there are GPUs, else gloo.

    With "env://" rank and number of ranks come from the environment, where torchrun puts them.

    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    dist.init_process_group("nccl" if on_gpu else "gloo", init_method=init_method, rank=rank,
                            world_size=ranks, timeout=PATIENCE)
    return device


def run_ranks(function: Callable[..., Any], nproc: int, *arguments: Any, seconds: float = 120.0
              ) -> list[Any]:
    """Call `function(*arguments)` in `nproc` processes at once, and return what each returned.

    In each the process group stands already: `dist.get_rank()` says which one it is. The function
    must be importable by name; results travel as files, so they are tensors, numbers, texts,
    lists or dicts. A rank that fails or is killed ends the others.

    Raises:   RanksFailed naming the first rank that failed, or those that did not end in
              `seconds`; ValueError for less than one process
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    if nproc < 1:
        raise ValueError(f"nproc={nproc}: at least one process is needed")
    context = _context()
    with TemporaryDirectory() as folder:
        processes = [context.Process(target=_rank, args=(function, arguments, rank, nproc, folder),
                                     daemon=True) for rank in range(nproc)]
        for process in processes:
            process.start()
        try:
            _watch(processes, Path(folder), seconds)
        finally:
            for process in processes:
                process.kill()  # those that ended are not moved by it
                process.join()
        return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(nproc)]


def _context() -> Any:
    """How processes begin: forked from a clean one that has torch already, where that exists."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scratchbook.training", "scratchbook.distributed"])
    return context


def _rank(function: Callable, arguments: tuple, rank: int, ranks: int, folder: str) -> None:
    """What one process does: join, compute, leave its result or its error as a file."""
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    if sys.platform == "linux":  # all are on this machine, whatever its name resolves to
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        join_ranks(Path(folder, "store").as_uri(), rank, ranks)
        torch.save(function(*arguments), Path(folder, f"{rank}.pt"))
        dist.barrier()  # nobody leaves while another still has something to receive
        dist.destroy_process_group()
    except BaseException as error:
        said = "".join(traceback.format_exception_only(error)).strip()
        Path(folder, f"{rank}.error").write_text(
            f"{time.time()}\n{said}\n{traceback.format_exc()}", encoding="utf-8")
        os._exit(1)  # at once: the others see the connection close


def _watch(processes: list, folder: Path, seconds: float) -> None:
    """Wait until all have ended well; raise as soon as one has not."""
    until = time.monotonic() + seconds
    running = {process.sentinel: rank for rank, process in enumerate(processes)}
    while running:
        ended = wait(list(running), timeout=max(0.0, until - time.monotonic()))
        if not ended:
            raise RanksFailed(f"ranks {sorted(running.values())} of {len(processes)} did not end "
                              f"within {seconds:g} s: do all ranks call the same collectives in "
                              "the same order?")
        for sentinel in ended:
            running.pop(sentinel)
        for process in processes:
            process.join(timeout=0)
        if any(process.exitcode for process in processes):
            raise _first_failure(processes, folder)


def _first_failure(processes: list, folder: Path) -> RanksFailed:
    """A killed rank before those that noticed it; among errors the oldest."""
    count = len(processes)
    for process in processes:  # who notices a death may be gone before the dead one is reported
        process.join(timeout=0.5)
    for rank, process in enumerate(processes):
        if (process.exitcode or 0) < 0:
            return RanksFailed(f"rank {rank} of {count} was ended by {signal_name(process)}; the "
                               "others were stopped")
    errors = sorted((path.read_text(encoding="utf-8").split("\n", 2) + [int(path.stem)]
                     for path in folder.glob("*.error")), key=lambda found: float(found[0]))
    if not errors:
        codes = [process.exitcode for process in processes]
        return RanksFailed(f"a rank left without a word; the exit codes are {codes}")
    _, said, trace, rank = errors[0]
    failed = RanksFailed(f"rank {rank} of {count} failed, and the others were stopped: {said}")
    failed.add_note(trace)
    return failed


def signal_name(process: Any) -> str:
    """The signal that ended a process, such as SIGKILL."""
    try:
        return signal.Signals(-process.exitcode).name
    except ValueError:
        return f"signal {-process.exitcode}"
