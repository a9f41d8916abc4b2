"""Optimizers and schedules against torch's and transformers'."""

import pytest
import torch
import transformers
from torch import nn

from scratchbook.training.optim import Optimizer
from scratchbook.training.schedules import learning_rate_factor

TORCH = f"torch {torch.__version__.split('+')[0]}"


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def group(parameter, rule, **options):
    return Optimizer([{"params": [parameter], "rule": rule, **options}])


def side_by_side(ours, theirs, steps=50):
    """Run two optimizers over the same gradients and return the largest difference of weights."""
    one, other = (nn.Parameter(0.1 * normal(12, 8, seed=1)) for _ in range(2))
    first, second = ours(one), theirs(other)
    for step in range(steps):
        one.grad = normal(12, 8, seed=100 + step)
        other.grad = one.grad.clone()
        first.step()
        second.step()
    return (one - other).abs().max().item()


def test_adamw_equals_torch(parity):
    difference = side_by_side(
        lambda p: group(p, "adamw", lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1),
        lambda p: torch.optim.AdamW([p], lr=1e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1))
    assert parity("AdamW, weights after 50 steps", against=TORCH, error=difference, cases=50,
                  bound=7e-8)


def test_muon_equals_torch(parity):
    difference = side_by_side(
        lambda p: group(p, "muon", lr=0.02, weight_decay=0.1),
        lambda p: torch.optim.Muon([p], lr=0.02, weight_decay=0.1, momentum=0.95), steps=20)
    # equal here to the last bit; another processor may round a bfloat16 product otherwise
    assert parity("Muon, weights after 20 steps", against=TORCH, error=difference, cases=20,
                  bound=1e-4)
    same = side_by_side(
        lambda p: group(p, "muon", lr=0.02, weight_decay=0.1),
        lambda p: torch.optim.AdamW([p], lr=0.02, weight_decay=0.1), steps=20)
    assert same > 1e-3  # the test can tell one from another


def test_adafactor_equals_torch(parity):
    difference = side_by_side(
        lambda p: group(p, "adafactor", lr=0.05, eps=1e-30),
        lambda p: torch.optim.Adafactor([p], lr=0.05, eps=(1e-60, 1e-3), beta2_decay=-0.8,
                                        d=1.0))
    assert parity("Adafactor, weights after 50 steps", against=TORCH, error=difference, cases=50,
                  bound=3e-7)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_schedules_equal_transformers(kind, parity):
    make = getattr(transformers, f"get_{kind}_schedule_with_warmup")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer, num_warmup_steps=10, num_training_steps=100)
    differences = []
    for step in range(100):
        if step >= 10:  # theirs begins at exactly zero, so that the first step does nothing
            differences.append(abs(schedule.get_last_lr()[0]
                                   - learning_rate_factor(step, 100, 10, kind)))
        optimizer.step()
        schedule.step()
    assert parity(f"{kind} schedule", against=f"transformers {transformers.__version__}",
                  error=max(differences), cases=len(differences), bound=1e-15)
