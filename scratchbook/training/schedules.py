"""How the learning rate rises and falls over a run.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import math


def learning_rate_factor(step: int, max_steps: int, warmup_steps: int = 0, kind: str = "cosine",
                         min_lr_ratio: float = 0.0, cooldown_frac: float = 0.2) -> float:
    """What to multiply the learning rate with at `step`, counted from 0.

    It rises in equal steps over `warmup_steps`; then "cosine" and "linear" fall to `min_lr_ratio`
    at `max_steps`, "wsd" (warm up, stay, decay) stays until the last `cooldown_frac` of the run
    and falls along a line, and "constant" stays.

    Raises:   ValueError for an unknown kind or a step outside the run
    Paper:    cosine: Loshchilov and Hutter (2016), arXiv:1608.03983; wsd: Hu et al. (2024),
              arXiv:2404.06395
    Chapter:  chapters/06_training.ipynb
    """
    if not 0 <= step <= max_steps:
        raise ValueError(f"step={step} is not within a run of {max_steps} steps")
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    start = max(warmup_steps, math.ceil(max_steps * (1 - cooldown_frac))) if kind == "wsd" \
        else warmup_steps
    done = max(0.0, (step - start) / max(1, max_steps - start))
    falls = {"constant": 1.0, "linear": 1 - done, "wsd": 1 - done,
             "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    if kind not in falls:
        raise ValueError(f"schedule={kind!r} is unknown; choose one of {', '.join(falls)}")
    return min_lr_ratio + (1 - min_lr_ratio) * falls[kind] if kind != "constant" else 1.0
