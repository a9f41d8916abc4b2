"""The living figure of chapter 06b computes the same shares as the package."""

from __future__ import annotations

import random
from pathlib import Path

from scratchbook.data.mixing import Sizes, shares
from tests.node import run_figure


def make_case(seed: int) -> dict:
    """Two sources of any size, and any weights."""
    chosen = random.Random(seed)
    sizes = {name: Sizes(*(chosen.randrange(1, 10**6) for _ in range(3))) for name in ("a", "b")}
    weights = {"a": chosen.choice([0, 1, 3, chosen.random() * 100]), "b": 1}
    return {"sizes": {name: size._asdict() for name, size in sizes.items()}, "weights": weights,
            "wanted": shares(sizes, weights)}


def test_the_javascript_equals_the_package(tmp_path: Path) -> None:
    assert run_figure("mixture", tmp_path, [make_case(seed) for seed in range(300)])
