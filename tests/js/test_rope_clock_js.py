"""The living clock of chapter 03 turns as the package does."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from scratchbook.config import RopeSettings
from scratchbook.positions import RotaryEmbedding, scaled_frequencies

SCRIPT = Path(__file__).with_name("rope_clock.test.mjs")


def make_case(head_dim: int, base: float, scaling: str, factor: float) -> dict:
    settings = RopeSettings(base=base, scaling=scaling, factor=factor, original_max_seq_len=64)
    speeds, length = scaled_frequencies(head_dim, settings)
    rotary = RotaryEmbedding(head_dim, settings)
    one = torch.cat([torch.ones(head_dim // 2), torch.zeros(head_dim // 2)])[None, None, None]
    turned = [rotary(one, torch.tensor([place])) / length for place in (47, 30)]
    return {"head_dim": head_dim, "base": base, "scaling": scaling, "factor": factor,
            "trained": 64, "speeds": speeds.tolist(), "distance": 17,
            "score": (turned[0] * turned[1]).sum().item() / (head_dim // 2)}


def test_the_javascript_equals_the_package(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed (https://nodejs.org): the JavaScript is not compared")
    cases = [make_case(*case) for case in itertools.product(
        (8, 16, 64), (100.0, 10_000.0), ("none", "linear", "ntk", "yarn"), (2.0, 8.0))]
    path = tmp_path / "rope.json"
    path.write_text(json.dumps(cases), encoding="utf-8")
    run = subprocess.run([node, "--test", str(SCRIPT)], capture_output=True, text=True, timeout=120,
                         env={**os.environ, "SCRATCHBOOK_ROPE": str(path)}, encoding="utf-8")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert "skipped 0" in run.stdout, run.stdout[-1000:]
