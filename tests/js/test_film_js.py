"""The learning film of chapter 06 plays a real run, and measures attention as torch does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from scratchbook.companions.training_figures import Film
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.model import DecoderLM
from scratchbook.training import TrainConfig, train

SCRIPT = Path(__file__).with_name("film.test.mjs")
SIZES = ModelConfig(vocab_size=256, max_seq_len=32, num_layers=1, d_model=16, num_heads=2)


def film_of_a_run() -> dict:
    """Eight checkpoints of forty steps on a line that repeats itself."""
    torch.manual_seed(0)
    ids = torch.tensor(list(b"the cat sat on the mat. " * 60))
    film = Film([0, 1, 2, 5, 10, 20, 30, 40], prompt="the ", text="the cat sat", length=12)
    config = TrainConfig(max_steps=40, batch_size=4, lr=1e-2, eval_every=40)
    log = train(DecoderLM(SIZES), Windows(ids[:1200], ids[1200:], 16), config, watch=film).log
    return film.data(log)


def test_the_javascript_plays_what_the_chapter_hands_it(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed (https://nodejs.org): the JavaScript is not compared")
    data = film_of_a_run()
    maps = torch.tensor(data["attention"], dtype=torch.float64)  # (frames, time, time)
    shares = maps / maps.sum(-1, keepdim=True)
    back = torch.arange(11)[:, None] - torch.arange(11)
    case = {"data": data, "prompt": "the ",
            "spreads": torch.special.entr(shares).sum(-1).exp().tolist(),
            "reaches": (shares * back).sum(-1).tolist()}
    path = tmp_path / "film.json"
    path.write_text(json.dumps(case), encoding="utf-8")
    run = subprocess.run([node, "--test", str(SCRIPT)], capture_output=True, text=True, timeout=120,
                         env={**os.environ, "SCRATCHBOOK_FILM": str(path)}, encoding="utf-8")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert "skipped 0" in run.stdout, run.stdout[-1000:]
