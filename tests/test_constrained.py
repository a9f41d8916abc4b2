"""Decoding under a rule."""

import pytest
import torch

from scratchbook.config import ModelConfig
from scratchbook.constrained import generate_within
from scratchbook.generation import generate
from scratchbook.model import DecoderLM


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DecoderLM(ModelConfig(vocab_size=11, max_seq_len=64, num_layers=1, d_model=16,
                                 num_heads=2))


def test_without_a_rule_it_is_plain_decoding(model):
    new, refused = generate_within(model, [1, 2], 20, lambda new, token: True, temperature=0)
    assert new == generate(model, [1, 2], 20, temperature=0) and refused == 0


def test_only_what_the_rule_allows_is_written(model):
    def rising(new, token):
        return token % 2 == 0 and (not new or token != new[-1])
    new, refused = generate_within(model, [1], 30, rising, temperature=2.0, seed=3)
    assert len(new) == 30 and refused > 0
    assert all(rising(new[:at], token) for at, token in enumerate(new))


def test_the_rest_keeps_its_proportions(model):
    """Odds: 1,000 draws, a share off by 0.09 has a chance below 1e-6."""
    with torch.no_grad():
        probs = model.eval()(torch.tensor([[5]]))[0, -1].softmax(0)[3:6]
    counts = torch.zeros(3)
    for seed in range(1000):
        [token], _ = generate_within(model, [5], 1, lambda new, t: 3 <= t < 6, seed=seed)
        counts[token - 3] += 1
    assert (counts / counts.sum() - probs / probs.sum()).abs().max() < 0.09


def test_it_ends_at_a_stop_id_and_where_nothing_is_allowed(model):
    assert generate_within(model, [1], 9, lambda new, t: t == 4, stop_ids=[4])[0] == [4]
    new, refused = generate_within(model, [1], 9, lambda new, token: False)
    assert new == [] and refused == 11
