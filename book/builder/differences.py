"""Measure why a number differs between two correct runs, for the page that explains it.

    python -m book.builder.differences

The same sum in several orders, the same product and the same training with one thread and with
two, and the same training from other seeds: each difference is recorded beside the others.
"""

import hashlib
import math
import sys

COMMAND = "python -m book.builder.differences"
SEEDS = (0, 1, 2, 3, 4)


def order_of_addition(count: int = 1_000_000) -> dict[str, float]:
    """One sum of float32 numbers in four orders, each as its relative error."""
    import numpy as np

    numbers = np.random.default_rng(0).random(count, dtype=np.float32)
    true = math.fsum(numbers.tolist())
    ways = {
        "left_to_right": np.cumsum(numbers)[-1],   # cumsum really adds one at a time
        "right_to_left": np.cumsum(numbers[::-1])[-1],
        "smallest_first": np.cumsum(np.sort(numbers))[-1],
        "in_pairs": np.sum(numbers),
    }
    return {name: abs(float(value) - true) / true for name, value in ways.items()}


def product(threads: int):
    """A product of two fixed random matrices, computed with a number of threads."""
    import torch

    from scratchbook.runtime import named_generator

    generator = named_generator(0, "differences")
    a, b = (torch.randn(384, 4096, generator=generator) for _ in range(2))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return a @ b.T   # (384, 384)
    finally:
        torch.set_num_threads(before)


def losses(seed: int, threads: int, steps: int = 60) -> list[float]:
    """The loss of a small character model after each step of training."""
    import torch
    import torch.nn.functional as F

    from scratchbook.data import python_manual
    from scratchbook.runtime import named_generator

    text = torch.tensor(list(python_manual()[:200_000].encode()))
    generator = named_generator(seed, "differences")
    shapes = {"embedding": (256, 48), "hidden": (8 * 48, 512), "out": (512, 256)}
    weights = {name: (torch.randn(shape, generator=generator) * shape[0] ** -0.5).requires_grad_()
               for name, shape in shapes.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=3e-3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    seen = []
    try:
        for _ in range(steps):
            start = torch.randint(len(text) - 9, (256,), generator=generator)
            window = text[start[:, None] + torch.arange(9)]              # (batch, 9)
            x = weights["embedding"][window[:, :8]].flatten(1)           # (batch, 8 * 48)
            logits = torch.tanh(x @ weights["hidden"]) @ weights["out"]  # (batch, 256)
            loss = F.cross_entropy(logits, window[:, 8])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
    finally:
        torch.set_num_threads(before)
    return seen


def measure() -> dict:
    """All measurements as one dictionary of numbers."""
    from scratchbook.data import python_manual

    one, two = product(1), product(2)
    scale = one.abs().mean().item()
    single, double = losses(0, 1), losses(0, 2)
    apart = [abs(a - b) for a, b in zip(single, double, strict=True)]
    ends = [losses(seed, 1)[-1] for seed in SEEDS]
    mean = sum(ends) / len(ends)
    spread = math.sqrt(sum((end - mean) ** 2 for end in ends) / (len(ends) - 1))
    manual = python_manual()
    return {
        "order": order_of_addition(),
        "product_threads": (one - two).abs().max().item() / scale,
        "loss_threads_10": max(apart[:10]),
        "loss_threads_60": max(apart),
        "repeat": max(abs(a - b) for a, b in zip(single, losses(0, 1), strict=True)),
        "loss_mean": mean,
        "loss_seed_spread": spread,
        "manual_characters": len(manual),
        "manual_sha256": hashlib.sha256(manual.encode()).hexdigest()[:12],
        "python": sys.version.split()[0],
    }


def main() -> int:
    """Measure and record."""
    from scratchbook.teaching import record

    path = record("why_numbers_differ", measure(), seeds=list(SEEDS), command=COMMAND)
    print(path.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
