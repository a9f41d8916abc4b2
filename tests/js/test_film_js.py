"""The learning film of chapter 06 plays a real run, and measures attention as torch does."""

from __future__ import annotations

from pathlib import Path

import torch

from scratchbook.companions.training_figures import Film
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.model import DecoderLM
from scratchbook.training import TrainConfig, train
from tests.node import run_figure

SIZES = ModelConfig(vocab_size=256, max_seq_len=32, num_layers=1, d_model=16, num_heads=2)


def film_of_a_run() -> dict:
    """Eight checkpoints of forty steps on a line that repeats itself."""
    torch.manual_seed(0)
    ids = torch.tensor(list(b"the cat sat on the mat. " * 60))
    film = Film([0, 1, 2, 5, 10, 20, 30, 40], prompt="the ", text="the cat sat", length=12)
    config = TrainConfig(max_steps=40, batch_size=4, lr=1e-2, eval_every=40)
    log = train(DecoderLM(SIZES), Windows(ids[:1200], ids[1200:], 16), config, on_step=film).log
    return film.data(log)


def test_the_javascript_plays_what_the_chapter_hands_it(tmp_path: Path) -> None:
    data = film_of_a_run()
    maps = torch.tensor(data["attention"], dtype=torch.float64)  # (frames, time, time)
    shares = maps / maps.sum(-1, keepdim=True)
    back = torch.arange(11)[:, None] - torch.arange(11)
    case = {"data": data, "prompt": "the ",
            "spreads": torch.special.entr(shares).sum(-1).exp().tolist(),
            "reaches": (shares * back).sum(-1).tolist()}
    assert run_figure("film", tmp_path, case)
