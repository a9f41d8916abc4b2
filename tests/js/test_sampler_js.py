"""The living sampler of chapter 06c cuts and weighs as the package does."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from scratchbook.generation import keep_min_p, keep_top_k, keep_top_p

SCRIPT = Path(__file__).with_name("sampler.test.mjs")


def make_case(seed: int, temperature: float, top_k: int | None, top_p: float | None,
              min_p: float | None) -> dict:
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(40, generator=generator)).round(decimals=2)
    scores = logits / temperature
    for keep, value in ((keep_top_k, top_k), (keep_top_p, top_p), (keep_min_p, min_p)):
        scores = scores if value is None else keep(scores, value)
    return {"logits": logits.tolist(), "probs": scores.softmax(-1).tolist(),
            "settings": {"temperature": temperature, "topK": top_k, "topP": top_p, "minP": min_p}}


def test_the_javascript_equals_the_package(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed (https://nodejs.org): the JavaScript is not compared")
    cases = [make_case(seed, *case) for seed, case in enumerate(itertools.product(
        (0.5, 1.0, 1.7), (None, 1, 7), (None, 0.33, 0.9), (None, 0.07)))]
    path = tmp_path / "sampler.json"
    path.write_text(json.dumps(cases), encoding="utf-8")
    run = subprocess.run([node, "--test", str(SCRIPT)], capture_output=True, text=True, timeout=120,
                         env={**os.environ, "SCRATCHBOOK_SAMPLER": str(path)}, encoding="utf-8")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert "skipped 0" in run.stdout, run.stdout[-1000:]
