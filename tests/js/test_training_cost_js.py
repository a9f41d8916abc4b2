"""The calculator of chapter 06f counts what Python counts."""

from __future__ import annotations

import random
from pathlib import Path

from scratchbook.companions.scaling_findings import run_cost
from scratchbook.distributed import zero_bytes
from tests.node import run_figure


def random_case(seed: int) -> dict:
    pick = random.Random(seed)
    settings = {"parameters": 10 ** pick.uniform(6, 12), "tokens_each": pick.randint(1, 1000),
                "ranks": 2 ** pick.randint(0, 14), "speed": 10 ** pick.uniform(9, 15),
                "price": pick.uniform(0.5, 10)}
    stage = pick.randint(0, 3)
    return {"settings": settings | {"stage": stage}, **run_cost(**settings),
            "bytes": zero_bytes(settings["parameters"], settings["ranks"], stage)}


def test_the_javascript_equals_python(tmp_path: Path) -> None:
    assert run_figure("training_cost", tmp_path, [random_case(seed) for seed in range(60)])
