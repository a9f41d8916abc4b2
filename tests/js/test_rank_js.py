"""The living figure of ranks finds torch's singular values and best copies of lower rank."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.node import run_figure


def case(matrix: torch.Tensor, rank: int) -> dict:
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ v[:rank]
    return {"matrix": matrix.tolist(), "rank": rank, "s": s.tolist(), "best": best.tolist()}


def test_the_javascript_equals_torch(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cases = [case(draw(24, 24), 3), case(draw(30, 7), 2), case(draw(1, 1), 1),
             case(draw(16, 4) @ draw(4, 12), 4),  # of rank 4: the rest is zero
             case(1e-6 * draw(8, 8), 5), case(1e4 * draw(8, 8), 1),
             case(torch.zeros(5, 4).double(), 2)]
    assert run_figure("rank", tmp_path, cases)
