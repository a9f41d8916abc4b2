"""Start a command of this package on several processes, by torchrun.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence


def launch(arguments: Sequence[str], nproc: int, nodes: int = 1, rendezvous: str | None = None,
           restarts: int = 0) -> None:
    """Run `scratchbook ARGUMENTS` in `nproc` processes on each of `nodes` machines.

    torchrun starts and watches them. Over several machines the same line is given on each, with
    the address of one of them ("host:port") as `rendezvous`. When a rank fails or is killed, the
    others are stopped; with `restarts`, all are started again, and go on from their checkpoint.

    Raises:   ValueError for less than one process, or machines without a rendezvous;
              RuntimeError naming the rank that failed first, and how
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    options = torchrun_options(nproc, nodes, rendezvous, restarts)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if nodes == 1 and sys.platform == "linux":  # whatever this machine's name resolves to
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    for name in ("torch.distributed.elastic", "torch.distributed.run"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # we say it ourselves
    try:
        run(parse_args([*options, "-m", "scratchbook", *arguments]))
    except ChildFailedError as error:
        # a killed rank before those that noticed it, whose own end may be reported with it
        rank, failure = min(error.failures.items(),
                            key=lambda found: (found[1].exitcode >= 0, found[1].timestamp))
        who = f"rank {rank} of {nproc * nodes}"
        if failure.exitcode > 0:
            raise RuntimeError(f"{who} ended with exit code {failure.exitcode}, and the others "
                               "were stopped; what it said stands above") from None
        raise RuntimeError(
            f"{who} was ended by {failure.signal_name()}, and the others were stopped. The same "
            "command goes on from the last checkpoint, also with another --nproc") from None


def torchrun_options(nproc: int, nodes: int = 1, rendezvous: str | None = None, restarts: int = 0
                     ) -> list[str]:
    """What torchrun is told: one machine needs no address, several need one that all know.

    Raises:   ValueError for less than one process, or machines without a rendezvous
    """
    if min(nproc, nodes) < 1 or restarts < 0:
        raise ValueError(f"nproc={nproc} and nodes={nodes} must be at least 1, restarts={restarts} "
                         "at least 0")
    options = ["--nproc-per-node", str(nproc), "--max-restarts", str(restarts)]
    if nodes == 1:
        return ["--standalone", *options]
    if not rendezvous:
        raise ValueError(f"nodes={nodes}: the machines need an address at which they meet, such as "
                         "--rendezvous first-machine:29400")
    return [*options, "--nnodes", str(nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint",
            rendezvous, "--rdzv-id", "scratchbook"]


def is_launched() -> bool:
    """Whether torchrun has started this process as one of several ranks."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ
