"""The commands train, sweep, monitor, status and plot."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_training_commands(commands, add) -> None:
    """Hang this file's commands into the command line; `add` is `scratchbook.cli`'s helper."""
    train = add(commands, "train", "training_commands", "train",
                "train a model; every setting can be given: --train.lr 3e-4 --model.d_model 64")
    _add_recipe(train)
    train.add_argument("--out", required=True, metavar="RUN",
                       help="the folder of the run; a run that stopped there goes on, also with "
                            "more --train.max_steps")
    train.add_argument("--init-from", metavar="RUN", help="start from another run's best weights")
    train.add_argument("--warm-restart", action="store_true",
                       help="go on behind the end of a schedule, with a new one for the new steps")
    train.add_argument("--logger", action="append", default=[], choices=("tensorboard", "wandb"),
                       help="log there too; repeatable")
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    sweep = add(commands, "sweep", "training_commands", "sweep",
                "try settings: the YAML file has `space`, and may have `trials`, `sampler`, "
                "`halving`, `seed`")
    sweep.add_argument("file", help="such as space: {train.lr: {low: 1e-4, high: 1e-1, log: true}}")
    _add_recipe(sweep)
    monitor = add(commands, "monitor", "training_commands", "monitor", "follow a run's log")
    monitor.add_argument("run")
    monitor.add_argument("--once", action="store_true", help="show what is there and stop")
    monitor.add_argument("--summary", action="store_true", help="where it stands, what is wrong")
    status = add(commands, "status", "training_commands", "status", "list the runs of a folder")
    status.add_argument("folder", nargs="?", default=".")
    status.add_argument("--json", action="store_true", help="as JSON")
    plot = add(commands, "plot", "training_commands", "plot", "draw a run's losses")
    plot.add_argument("run")
    plot.add_argument("--output", metavar="FILE", help="PNG, SVG or PDF (default: RUN/losses.png)")


def _add_recipe(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", metavar="NAME", help="start from a known recipe, such as "
                         "shakespeare-char-cpu")
    command.add_argument("--config", metavar="FILE", help="YAML with model, data and train")
    command.set_defaults(takes_settings=True)


def _recipe(options: argparse.Namespace):
    from scratchbook.training.recipes import RECIPES, load_recipe

    if options.preset is not None and options.preset not in RECIPES:
        raise ValueError(f"preset {options.preset!r} is unknown; known are {', '.join(RECIPES)}")
    file = ["--config", options.config] if options.config else []
    return load_recipe(file + options.settings, RECIPES.get(options.preset))


def train(options: argparse.Namespace) -> int:
    """Train as told and say where the run lies and what it came to."""
    return run_recipe(_recipe(options), options)


def run_recipe(recipe, options: argparse.Namespace) -> int:
    """Train by a recipe, with what the options say of the run's folder and its loggers.

    Under `scratchbook launch` this is one rank of several, and the first speaks for all.
    """
    from scratchbook.distributed.launching import is_launched
    from scratchbook.training import ProgressBar, TensorBoardLogger, WandbLogger
    from scratchbook.training import train as run_training
    from scratchbook.training.identity import check_folder
    from scratchbook.training.runs import start_from

    folder, first = Path(options.out), True
    device = None
    if is_launched():
        device, first, run_training = _join()
    if first:
        check_folder(folder)
    data, tokenizer = recipe.build_data()
    recipe = recipe.with_vocabulary(tokenizer.vocab_size)
    model, source = recipe.build_model(), recipe.data.source()
    if options.init_from:
        step = start_from(model, options.init_from, tokenizer=tokenizer)
        source["init_from"] = f"{Path(options.init_from).resolve().name}, step {step}"
    model = model if device is None else model.to(device)
    loggers = [] if options.quiet or not first else [ProgressBar(recipe.train.max_steps)]
    if "tensorboard" in options.logger and first:
        loggers.append(TensorBoardLogger(folder / "tensorboard"))
    if "wandb" in options.logger and first:
        loggers.append(WandbLogger("scratchbook", folder))
    try:
        done = run_training(model, data, recipe.train, folder, tuple(loggers), tokenizer=tokenizer,
                            source=source, warm_restart=options.warm_restart)
    finally:
        for logger in loggers:
            logger.close()
    if not first:
        return 0
    print(f"{done.stop_reason} at step {done.progress.step}: best validation loss "
          f"{done.progress.best_loss:.4f} at step {done.progress.best_step}, "
          f"{done.progress.cpu_seconds:.0f} CPU s; the run lies in {folder}")
    return 0


def _join():
    """This rank's device, whether it is the first, and how it trains."""
    import torch.distributed as dist

    from scratchbook.distributed.processes import join_ranks
    from scratchbook.distributed.rank_training import train_on_ranks

    device = join_ranks()
    return device, dist.get_rank() == 0, train_on_ranks


def sweep(options: argparse.Namespace) -> int:
    """Run a sweep and print its trials, best first."""
    import yaml

    from scratchbook.training.sweeps import recipe_objective
    from scratchbook.training.sweeps import sweep as run_sweep

    plan = yaml.safe_load(Path(options.file).read_text(encoding="utf-8"))
    if not isinstance(plan, dict) or not isinstance(plan.get("space"), dict):
        raise ValueError(f"{options.file} has no `space`: name settings and their values, such as "
                         "space: {train.lr: [0.001, 0.003]}")
    known = {"space", "trials", "sampler", "halving", "seed"}
    if extra := set(plan) - known:
        raise ValueError(f"{options.file}: unknown {', '.join(sorted(extra))}; known are "
                         f"{', '.join(sorted(known))}")
    found = run_sweep(recipe_objective(_recipe(options)), **plan)
    if not found:
        print("no trial came to its end: every one diverged or was ended early")
    for values, loss in found:
        print(f"{loss:.4f}  " + ", ".join(f"{name} = {value:g}" if isinstance(value, float)
                                          else f"{name} = {value}"
                                          for name, value in values.items()))
    return 0 if found else 1


def monitor(options: argparse.Namespace) -> int:
    """Print a run's log as it grows, or its summary."""
    from scratchbook.training import monitoring

    lines = (monitoring.summary(options.run) if options.summary
             else monitoring.follow(options.run, options.once))
    for line in lines:
        print(line, flush=True)
    return 0


def status(options: argparse.Namespace) -> int:
    """Print one line for each run at or below a folder."""
    from scratchbook.training import monitoring

    found = [_status(run) for run in monitoring.find_runs(options.folder)]
    if options.json:
        print(json.dumps(found, indent=1))
    elif not found:
        print(f"no run at or below {options.folder}")
    else:
        for run in found:
            if "error" in run:
                print(f"{run['run']}: {run['state']}: {run['error']}")
                continue
            best = "-" if run["best_loss"] is None else f"{run['best_loss']:.4f}"
            going = run["state"] == "running" and run["step"]
            left = f", {run['seconds_left']:.0f} s left" if going else ""
            print(f"{run['run']}: {run['state']}, step {run['step']} of {run['max_steps']}, "
                  f"best validation loss {best}{left}")
    return 0


def _status(run: Path) -> dict:
    """Where a run stands; a damaged one does not keep the others from being listed."""
    from scratchbook.training import monitoring

    try:
        return monitoring.status(run)
    except (ValueError, OSError) as error:
        return {"run": str(run), "state": "unreadable", "error": str(error)}


def plot(options: argparse.Namespace) -> int:
    """Draw a run's losses into a file."""
    from scratchbook.training import monitoring

    output = options.output or Path(options.run) / "losses.png"
    print(f"written: {monitoring.plot(options.run, output)}")
    return 0
