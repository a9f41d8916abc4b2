"""Speculation with caches: the same as without, the target's distribution, and what is counted."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from scratchbook.config import ModelConfig
from scratchbook.generation import generate
from scratchbook.sampling import speculate
from scratchbook.serving.speculation import (
    judge,
    predicted_speedup,
    speculate_cached,
    tokens_per_pass,
)
from tests.random_models import random_model

CONFIG = ModelConfig(vocab_size=11, num_layers=2, d_model=16, num_heads=2, max_seq_len=64,
                     positions="rope")
TARGET = random_model(CONFIG, seed=1, std=0.3)
DRAFT = random_model(CONFIG.with_(num_layers=1), seed=2, std=0.3)
TABLE = torch.randn(11, 11, generator=torch.Generator().manual_seed(5))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("guesses", [1, 3, 5])
@pytest.mark.parametrize("draft", [DRAFT, TARGET, lambda ids: TABLE[ids]],
                         ids=["small", "itself", "table"])
def test_with_and_without_caches_the_same_tokens(guesses, draft):
    for seed in range(8):
        plain, reads = speculate(TARGET, draft, [1, 2, 3], 20, guesses, 0.9, seeded(seed))
        cached = speculate_cached(TARGET, draft, [1, 2, 3], 20, guesses, 0.9, seeded(seed))
        assert cached.new_ids == plain
        assert cached.passes == reads
        assert cached.kept <= cached.offered <= guesses * cached.passes


@pytest.mark.parametrize("guesses", [1, 2, 7])
def test_greedy_is_the_targets_greedy_text(guesses):
    wanted = generate(TARGET, [4, 5], 30, temperature=0.0)
    assert speculate_cached(TARGET, DRAFT, [4, 5], 30, guesses, 0.0).new_ids == wanted
    itself = speculate_cached(TARGET, TARGET, [4, 5], 30, guesses, 0.0)
    assert itself.new_ids == wanted
    assert itself.kept == itself.offered
    assert itself.passes == -(-30 // (guesses + 1))


def chi_square(counts: Counter, probs: torch.Tensor, draws: int) -> float:
    return sum((counts[token] - draws * p) ** 2 / (draws * p)
               for token, p in enumerate(probs.tolist()))


def test_two_tokens_have_the_targets_distribution():
    # 10 degrees of freedom: above 46 once in a million; the draft's own must be above
    draws, generator = 1000, seeded(0)
    logits = TARGET(torch.tensor([[7, 3]]))[0, -1].detach()
    first = Counter(speculate_cached(TARGET, DRAFT, [7, 3], 2, 2, 1.0, generator).new_ids[0]
                    for _ in range(draws))
    assert chi_square(first, logits.softmax(-1), draws) < 46
    own = DRAFT(torch.tensor([[7, 3]]))[0, -1].detach().softmax(-1)
    assert chi_square(first, own, draws) > 100


def test_judge_by_hand():
    p = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    q = [torch.tensor([0.2, 0.5, 0.3])]
    kept = Counter(judge(p, q, [1], seeded(seed)) for seed in range(4000))
    share = sum(count for (number, _), count in kept.items() if number) / 4000
    assert abs(share - 0.6) < 0.04  # five standard errors
    assert {token for (number, token) in kept if not number} == {0}  # all that q left uncovered
    assert all(judge(p, q, [0], seeded(seed))[0] == 1 for seed in range(50))


def test_formulas_by_hand():
    assert tokens_per_pass(0.5, 3) == 1.875
    assert tokens_per_pass(1, 4) == 5
    assert tokens_per_pass(0, 4) == 1
    assert predicted_speedup(0.5, 1, 0.0, 1.0) == 1.5
    assert predicted_speedup(1, 3, 1.0, 1.0) == 1.0  # a draft as dear as the target gains nothing
    with pytest.raises(ValueError, match="no probability"):
        tokens_per_pass(1.2, 3)


def test_nothing_asked_nothing_written():
    assert speculate_cached(TARGET, DRAFT, [1], 0).new_ids == []
    assert len(speculate_cached(TARGET, DRAFT, [1], 63, 8, 0.0).new_ids) == 63


def test_what_is_refused_says_the_way_out():
    other = random_model(CONFIG.with_(vocab_size=12), seed=0)
    for draft, prompt, new, options, words in (
            (DRAFT, [], 3, {}, "one id and one guess"),
            (DRAFT, [1], 3, {"guesses": 0}, "one guess"),
            (DRAFT, [1], 3, {"temperature": -1.0}, "nothing negative"),
            (other, [1], 3, {}, "need the same"), (DRAFT, [99], 3, {}, "outside the vocabulary"),
            (DRAFT, [1], 64, {}, "ask for fewer")):
        with pytest.raises(ValueError, match=words):
            speculate_cached(TARGET, draft, prompt, new, **options)
