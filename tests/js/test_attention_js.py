"""The living figure of chapter 02 computes the same attention as torch."""

from __future__ import annotations

from pathlib import Path

import torch

from scratchbook.attention import attend
from scratchbook.runtime import named_generator
from tests.node import run_figure


def make_case(seed: int) -> dict:
    """One query over a few keys, in float64, with every option of the figure."""
    generator = named_generator(seed, "attention.js")
    keys, size = (int(torch.randint(1, n, (1,), generator=generator)) for n in (9, 6))
    q, k = (torch.randn(n, size, generator=generator, dtype=torch.float64) * 3 for n in (1, keys))
    v = torch.randn(keys, 1, generator=generator, dtype=torch.float64)
    visible = torch.rand(keys, generator=generator) < 0.8
    temperature, scale = (0.1, 1.0, 3.7)[seed % 3], seed % 2 == 0
    # attend always divides by the root of the size: undo it where the figure does not
    effective = q / temperature * (1.0 if scale else size**0.5)
    out, weights = attend(effective, k, v, visible[None], return_weights=True)
    return {"query": q[0].tolist(), "keys": k.tolist(), "values": v[:, 0].tolist(),
            "options": {"scale": scale, "temperature": temperature, "visible": visible.tolist()},
            "weights": weights[0].tolist(), "output": out.item()}


def test_the_javascript_equals_torch(tmp_path: Path) -> None:
    assert run_figure("attention", tmp_path, [make_case(seed) for seed in range(300)])
