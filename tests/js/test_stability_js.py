"""The living figure of chapter 04 sends its vector through the same layers as torch."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from scratchbook.companions.norms_figures import chain_sizes, stability_data
from tests.node import run_figure


def test_the_javascript_equals_torch(tmp_path: Path) -> None:
    data = stability_data()
    matrices = torch.tensor(data["matrices"]).view(-1, data["width"], data["width"])
    cases = [{**data, "gain": gain, "placement": placement, "sizes": chain_sizes(
        torch.tensor(data["start"]), gain * matrices, placement)}
        for gain, placement in itertools.product((0.1, 1.0, 2.5),
                                                 ("no residual", "residual", "post", "pre"))]
    assert run_figure("stability", tmp_path, cases)
