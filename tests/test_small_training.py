"""The loop that the experiments share: it learns, it repeats, it stops where numbers end."""

import math

import pytest
import torch
from torch import nn

from scratchbook.companions.small_training import bits_per_byte, byte_ids, train, windows


class Bigram(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(256, 256)

    def forward(self, ids):
        return self.table(ids)


TEXT = byte_ids("abcd" * 200)


def test_it_learns_a_text_without_surprises():
    model = Bigram()
    losses = train(model, windows(TEXT, 8, 16), steps=150, seed=0, lr=0.1)
    assert len(losses) == 150 and losses[0] > 4
    assert bits_per_byte(model, TEXT, 8) < 0.1


def test_the_same_seed_gives_the_same_run():
    runs = [train(Bigram(), windows(TEXT, 8, 4), 5, seed, 0.1) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_a_run_that_is_no_longer_finite_ends():
    class Broken(Bigram):
        def forward(self, ids):
            return super().forward(ids) * math.nan

    losses = train(Broken(), windows(TEXT, 8, 4), steps=9, seed=0, lr=0.1)
    assert len(losses) == 1 and math.isnan(losses[0])


def test_targets_are_the_ids_one_later():
    ids, targets = windows(torch.arange(50), 6, 3)(torch.Generator().manual_seed(0))
    assert ids.shape == (3, 6) and torch.equal(ids + 1, targets)


def test_a_uniform_guess_costs_eight_bits():
    class Uniform(nn.Module):
        def forward(self, ids):
            return torch.zeros(*ids.shape, 256)

    assert bits_per_byte(Uniform(), TEXT, 16) == pytest.approx(8)


@pytest.mark.parametrize("action", [lambda: windows(TEXT[:8], 8, 1),
                                    lambda: bits_per_byte(Bigram(), TEXT[:8], 8)])
def test_too_short_a_text_is_refused(action):
    with pytest.raises(ValueError, match="8 ids are too few"):
        action()
