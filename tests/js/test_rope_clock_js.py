"""The living clock of chapter 03 turns as the package does."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from scratchbook.config import RopeSettings
from scratchbook.positions import RotaryEmbedding, scaled_frequencies
from tests.node import run_figure


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
    cases = [make_case(*case) for case in itertools.product(
        (8, 16, 64), (100.0, 10_000.0), ("none", "linear", "ntk", "yarn"), (2.0, 8.0))]
    assert run_figure("rope_clock", tmp_path, cases)
