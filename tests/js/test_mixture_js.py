"""The living figure of chapter 06b computes the same shares as the package."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from scratchbook.data.mixing import Sizes, shares

SCRIPT = Path(__file__).with_name("mixture.test.mjs")


def make_case(seed: int) -> dict:
    """Two sources of any size, and any weights."""
    chosen = random.Random(seed)
    sizes = {name: Sizes(*(chosen.randrange(1, 10**6) for _ in range(3))) for name in ("a", "b")}
    weights = {"a": chosen.choice([0, 1, 3, chosen.random() * 100]), "b": 1}
    return {"sizes": {name: size._asdict() for name, size in sizes.items()}, "weights": weights,
            "wanted": shares(sizes, weights)}


def test_the_javascript_equals_the_package(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed (https://nodejs.org): the JavaScript is not compared")
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps([make_case(seed) for seed in range(300)]), encoding="utf-8")
    run = subprocess.run([node, "--test", str(SCRIPT)], capture_output=True, text=True, timeout=120,
                         env={**os.environ, "SCRATCHBOOK_MIXTURE": str(path)}, encoding="utf-8")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert "skipped 0" in run.stdout, run.stdout[-1000:]
