"""The living sampler of chapter 06c cuts and weighs as the package does."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from scratchbook.generation import keep_min_p, keep_top_k, keep_top_p
from tests.node import run_figure


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
    cases = [make_case(seed, *case) for seed, case in enumerate(itertools.product(
        (0.5, 1.0, 1.7), (None, 1, 7), (None, 0.33, 0.9), (None, 0.07)))]
    assert run_figure("sampler", tmp_path, cases)
