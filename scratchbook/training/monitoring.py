"""Looking at runs from outside, while they train or afterwards.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scratchbook.training.diagnosis import diagnose
from scratchbook.training.logs import read_log
from scratchbook.training.runs import is_training, read_config


def log_line(entry: dict[str, Any]) -> str:
    """One line for a person: "Step 1000: loss = 3.5, ppl = 33.1, lr = 9.8e-05"."""
    if "diverged" in entry:
        return f"Step {entry['step']}: the loss or its gradient is NaN or inf; the run ended here"
    loss = entry.get("validation_loss", entry.get("loss"))
    if loss is None:  # another program's line
        return f"Step {entry['step']}"
    perplexity = math.exp(min(loss, 700.0))  # what is past that fits into no float
    if "validation_loss" in entry:
        per_byte = f", bits/byte = {entry['bits_per_byte']:.3f}" if "bits_per_byte" in entry else ""
        return (f"Step {entry['step']}: validation loss = {loss:.4g}, "
                f"ppl = {perplexity:.4g}{per_byte}")
    speed = entry.get("tokens", 0) / entry["cpu_seconds"] if entry.get("cpu_seconds") else 0.0
    return (f"Step {entry['step']}: loss = {loss:.4g}, ppl = {perplexity:.4g}"
            f", lr = {entry.get('lr', math.nan):.2g}, tokens/s = {speed:,.0f}")


def status(run: str | Path) -> dict[str, Any]:
    """Where a run stands: "running", "stopped" or "finished", step, best, time left in seconds.

    Raises:   FileNotFoundError when the folder is none of a run, ValueError when it was damaged
    Chapter:  chapters/06_training.ipynb
    """
    run = Path(run)
    config = read_config(run)["train"]
    try:
        log = read_log(run)
    except FileNotFoundError:
        log = []
    steps = [entry for entry in log if "loss" in entry]
    seen = [entry for entry in log if "validation_loss" in entry]
    best = min(seen, key=lambda entry: entry["validation_loss"], default=None)
    at = steps[-1]["step"] if steps else 0
    left = (config["max_steps"] - at) * steps[-1].get("cpu_seconds", 0) / at if at else None
    state = "finished" if at >= config["max_steps"] else "stopped"
    return {"run": str(run), "state": "running" if is_training(run) else state, "step": at,
            "max_steps": config["max_steps"], "loss": steps[-1]["loss"] if steps else None,
            "best_loss": best and best["validation_loss"], "best_step": best and best["step"],
            "seconds_left": left}


def find_runs(folder: str | Path) -> list[Path]:
    """The folders at or below `folder` that hold a run."""
    return sorted(path.parent for path in Path(folder).rglob("config.json")
                  if (path.parent / "log.jsonl").is_file())


def summary(run: str | Path) -> list[str]:
    """What a run came to, in a few lines, with what is wrong with it.

    Raises:   FileNotFoundError when the folder is none of a run; ValueError before its first step
    Chapter:  chapters/06_training.ipynb
    """
    at, log, config = status(run), read_log(run), read_config(Path(run))
    steps = [entry for entry in log if "loss" in entry]
    lines = [f"{run}: {at['state']}, step {at['step']} of {at['max_steps']}"]
    if at["best_loss"] is not None:
        lines.append(f"best validation loss {at['best_loss']:.4f} at step {at['best_step']}")
    vocab = config["model"]["vocab_size"] if config.get("model") else None
    found = diagnose(log, vocab)
    lines.append(log_line(steps[-1]))
    return lines + ([str(finding) for finding in found] or ["nothing is wrong with it"])


def follow(run: str | Path, once: bool = False, every: float = 1.0) -> Iterator[str]:
    """Yield the lines of a run's log as they come, until it ends; with `once` those there are."""
    shown = 0
    while True:
        running, log = is_training(Path(run)), read_log(run)
        yield from map(log_line, log[shown:])
        shown = len(log)
        if once or not running:
            return
        time.sleep(every)


def plot(run: str | Path, path: str | Path) -> Path:
    """Draw loss, validation loss and learning rate over the steps into a PNG, SVG or PDF file.

    Raises:   FileNotFoundError when the folder is none of a run; ValueError before its first step
    Chapter:  chapters/06_training.ipynb
    """
    from matplotlib.figure import Figure

    log = read_log(run)
    steps = [entry for entry in log if "loss" in entry]
    if not steps:
        raise ValueError(f"{run} has no training step yet: there is nothing to draw")
    seen = [entry for entry in log if "validation_loss" in entry]
    figure = Figure(figsize=(8, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([e["step"] for e in steps], [e["loss"] for e in steps], lw=0.7, label="training")
    top.plot([e["step"] for e in seen], [e["validation_loss"] for e in seen], "o-", ms=3,
             label="validation")
    top.set_ylabel("loss (nats per token)")
    top.legend()
    bottom.plot([e["step"] for e in steps], [e.get("lr", math.nan) for e in steps])
    bottom.set(xlabel="step", ylabel="learning rate")
    figure.savefig(path, dpi=150)
    return Path(path)
