"""The living figure of chapter 04 sends its vector through the same layers as torch."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from scratchbook.companions.norms_figures import chain_sizes, stability_data

SCRIPT = Path(__file__).with_name("stability.test.mjs")


def test_the_javascript_equals_torch(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed (https://nodejs.org): the JavaScript is not compared")
    data = stability_data()
    matrices = torch.tensor(data["matrices"]).view(-1, data["width"], data["width"])
    cases = [{**data, "gain": gain, "placement": placement, "sizes": chain_sizes(
        torch.tensor(data["start"]), gain * matrices, placement)}
        for gain, placement in itertools.product((0.1, 1.0, 2.5),
                                                 ("no residual", "residual", "post", "pre"))]
    path = tmp_path / "stability.json"
    path.write_text(json.dumps(cases), encoding="utf-8")
    run = subprocess.run([node, "--test", str(SCRIPT)], capture_output=True, text=True, timeout=120,
                         env={**os.environ, "SCRATCHBOOK_STABILITY": str(path)}, encoding="utf-8")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert "skipped 0" in run.stdout, run.stdout[-1000:]
