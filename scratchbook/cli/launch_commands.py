"""The command launch: another command on several processes."""

from __future__ import annotations

import argparse

LAUNCHED = ("train",)


def add_launch_commands(commands, add) -> None:
    """Hang this file's command into the command line; `add` is `scratchbook.cli`'s helper."""
    launch = add(commands, "launch", "launch_commands", "launch",
                 "run `train ...` on several processes, with torchrun: launch --nproc 2 train ...")
    launch.add_argument("--nproc", type=int, required=True, metavar="N",
                        help="processes on this machine, one for each GPU where there are any")
    launch.add_argument("--nodes", type=int, default=1, metavar="N",
                        help="machines; the same line is started on each (default: 1)")
    launch.add_argument("--rendezvous", metavar="HOST:PORT",
                        help="where the machines meet: one of them, at a free port")
    launch.add_argument("--restarts", type=int, default=0, metavar="N",
                        help="how often all are started again when one was lost (default: 0)")
    launch.add_argument("command", nargs=argparse.REMAINDER, metavar="train ...",
                        help="the command with its settings, as without launch")


def launch(options: argparse.Namespace) -> int:
    """Start the ranks and wait for them."""
    from scratchbook.distributed.launching import launch as start

    if not options.command or options.command[0] not in LAUNCHED:
        raise ValueError(f"launch runs {', '.join(LAUNCHED)}, not {' '.join(options.command[:1])!r}"
                         ": scratchbook launch --nproc 2 train --preset shakespeare-char-cpu "
                         "--out runs/first")
    start(options.command, options.nproc, options.nodes, options.rendezvous, options.restarts)
    return 0
