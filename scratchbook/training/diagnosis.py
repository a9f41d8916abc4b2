"""What a run's log says about its health: the usual illnesses by their symptoms.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One illness: its name, the numbers that show it, and what helps."""

    name: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.evidence}. {self.remedy}."


def diagnose(log: Sequence[dict[str, Any]], vocab_size: int | None = None) -> list[Finding]:
    """Name what is wrong with a run; an empty list when nothing shows.

    `log` is what `train` returns or `read_log` reads. `vocab_size` lets it judge the first loss,
    which should lie near ln(vocab_size).

    Raises:   ValueError when the log holds no training step
    Chapter:  chapters/06_training.ipynb
    """
    steps = [entry for entry in log if "loss" in entry]
    if not steps:
        raise ValueError("the log holds no training step yet")
    losses = [entry["loss"] for entry in steps]
    checks = (_overflow(steps), _diverged(log), _initialisation(losses, vocab_size),
              _leak(log, losses, vocab_size), _rate(steps, losses),
              _stuck(steps, losses, vocab_size), _spikes(losses), _overfitting(log))
    return [finding for finding in checks if finding is not None]


def spikes(losses: Sequence[float], window: int = 20, times: float = 8.0) -> list[int]:
    """Steps, counted from 1, whose loss stands far above those just before.

    "Far" is `times` the typical change from step to step within the last `window` losses.
    """
    found = []
    for step in range(window, len(losses)):
        before = losses[step - window : step]
        level = statistics.median(before[-5:])
        typical = statistics.median(abs(b - a) for a, b in pairwise(before))
        if losses[step] > level + times * max(typical, 0.01 * level):
            found.append(step + 1)
    return found


def roughness(losses: Sequence[float]) -> float:
    """How much a curve trembles: the typical change from step to step, over the whole fall."""
    changes = [abs(b - a) for a, b in pairwise(losses)]
    fall = max(losses) - min(losses)
    return statistics.fmean(changes) / fall if changes and fall else 0.0


def smooth(losses: Sequence[float]) -> list[float]:
    """Means over a twentieth of the run, so that one lucky batch is no trend."""
    width = max(1, len(losses) // 20)
    return [statistics.fmean(losses[max(0, i - width) : i + width + 1])
            for i in range(len(losses))]


def _start(losses: Sequence[float]) -> float:
    return statistics.fmean(losses[:3])


def _end(losses: Sequence[float]) -> float:
    return statistics.fmean(losses[-max(1, len(losses) // 10):])


def _overflow(steps: list[dict]) -> Finding | None:
    skipped = sum(entry.get("skipped", False) for entry in steps)
    if skipped <= max(2, len(steps) // 20):
        return None
    return Finding("fp16 overflow", f"{skipped} of {len(steps)} steps were skipped, the loss scale "
                   f"ended at {steps[-1]['loss_scale']:g}",
                   'Train with precision="bf16", whose range is that of float32')


def _diverged(log: Sequence[dict]) -> Finding | None:
    steps = [entry["step"] for entry in log if "diverged" in entry]
    if not steps or any(entry.get("skipped") for entry in log[-3:]):
        return None  # numbers that left float16 are another illness
    return Finding("diverged", f"the loss or its gradient was NaN or inf at step {steps[-1]}",
                   "Lower lr, warm up longer, or clip gradients")


def _initialisation(losses: list[float], vocab_size: int | None) -> Finding | None:
    if vocab_size is None or losses[0] < 1.5 * math.log(vocab_size):
        return None
    return Finding("bad initialisation", f"the first loss is {losses[0]:.2f}; guessing evenly "
                   f"among {vocab_size} tokens costs {math.log(vocab_size):.2f}",
                   "Draw smaller weights, above all those of lm_head and of the output projections")


def _leak(log: Sequence[dict], losses: list[float], vocab_size: int | None) -> Finding | None:
    """Almost nothing, on held-out text too: no text is that easy to foretell."""
    held_out = [entry["validation_loss"] for entry in log if "validation_loss" in entry]
    end = max(_end(losses), held_out[-1] if held_out else 0.0)
    if vocab_size is None or end > 0.05 * math.log(vocab_size):
        return None
    return Finding("too good to be true", f"the loss ends at {end:.3f} nats",
                   "See whether a position can look at its own target (assert_no_future_leak), and "
                   "whether most targets are padding: those must be -100")


def _rate(steps: list[dict], losses: list[float]) -> Finding | None:
    """It rose at once, or ends far above its best: the steps are too long."""
    best, end = min(smooth(losses)), _end(losses)
    rates = [entry.get("lr", 0.0) for entry in steps]
    early = losses[: max(5, len(losses) // 10)]
    rose = max(early) > 1.1 * losses[0]
    if rose and rates[0] > 0.5 * max(rates) and end < 0.98 * _start(losses):
        return Finding("no warm-up", f"the loss rose from {losses[0]:.2f} to {max(early):.2f} in "
                       f"the first {len(early)} steps, then fell to {end:.2f}",
                       "Let the learning rate rise over the first hundred steps")
    if rose or end > max(1.15 * best, best + 0.3):
        return Finding("learning rate too high", f"the loss began at {losses[0]:.2f}, reached "
                       f"{max(losses):.2f} and ends at {end:.2f}, with lr up to {max(rates):g}",
                       "Divide lr by 3, and clip gradients")
    return None


def _stuck(steps: list[dict], losses: list[float], vocab_size: int | None) -> Finding | None:
    if len(losses) < 50:
        return None
    quarter, end = smooth(losses)[len(losses) // 4], _end(losses)
    if quarter - end > 0.03 * quarter:
        return None
    if vocab_size is not None and end < 0.5 * math.log(vocab_size):
        return None  # a run that has learned and is done
    lr = max(entry.get("lr", 0.0) for entry in steps)
    return Finding("loss not decreasing", f"it was {quarter:.2f} after a quarter and is {end:.2f}"
                   f", with lr up to {lr:g}", "See that targets are the ids shifted by one, then "
                   "try 3 times the lr and a third of it")


def _spikes(losses: list[float]) -> Finding | None:
    found = spikes(losses)
    if not found:
        return None
    return Finding("spikes", f"the loss jumps at step {', '.join(map(str, found[:5]))}",
                   "Look at those batches; clip gradients at 1.0; lower the second beta to 0.95")


def _overfitting(log: Sequence[dict]) -> Finding | None:
    seen = [(e["step"], e["validation_loss"]) for e in log if "validation_loss" in e]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    if len(seen) < 3 or _end(losses) > 1.1 * min(smooth(losses)):
        return None  # a run that loses what it had learned is ill in another way
    step, best = min(seen, key=lambda pair: pair[1])
    if seen[-1][1] < 1.02 * best or sum(s > step for s, _ in seen) < 2:
        return None
    return Finding("overfitting", f"the validation loss was {best:.3f} at step {step} and is "
                   f"{seen[-1][1]:.3f} now",
                   "Stop there (patience), add dropout, or read more text")
