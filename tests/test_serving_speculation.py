"""Speculation with caches: the target's distribution, the target's greedy text, less reading."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.config import ModelConfig
from scratchbook.generation import generate
from scratchbook.serving import speculate_cached
from scratchbook.serving import speculation as module
from scratchbook.serving.speculation import _checked
from tests.random_models import random_model
from tests.serving_tools import VOCAB, tiny

WORDS, LENGTH, DRAWS = 3, 3, 2000
PROMPT = [0, 2]
FAR = 65.0  # chi-square over 26 degrees of freedom is above this with probability 3.5e-5


def small(seed, std, **changes):
    sizes = {"vocab_size": WORDS, "max_seq_len": 16, "num_layers": 1, "d_model": 8,
             "num_heads": 1, "d_ff": 8, "positions": "learned"}
    return random_model(ModelConfig(**sizes | changes), seed, std)


@torch.no_grad()
def own_distribution(model, temperature):
    """The probability of each of the 27 texts, by the chain rule."""
    texts = list(itertools.product(range(WORDS), repeat=LENGTH))
    ids = torch.tensor([[*PROMPT, *text] for text in texts])
    logprobs = (model(ids) / temperature).log_softmax(-1)[:, len(PROMPT) - 1 : -1]
    chosen = logprobs.gather(-1, ids[:, len(PROMPT) :, None])[..., 0]
    return {text: float(p) for text, p in zip(texts, chosen.sum(1).exp(), strict=True)}


def chi_square(target, draft, temperature, guesses=2):
    expected = own_distribution(target, temperature)
    assert min(expected.values()) * DRAWS > 5  # or the statistic has another distribution
    counts = dict.fromkeys(expected, 0)
    generator = torch.Generator().manual_seed(0)
    kept = guessed = 0
    for _ in range(DRAWS):
        found = speculate_cached(target, draft, PROMPT, LENGTH, guesses, temperature,
                                 generator=generator)
        counts[tuple(found.new_ids)] += 1
        kept, guessed = kept + found.kept, guessed + found.guessed
    distance = sum((counts[text] - DRAWS * p) ** 2 / (DRAWS * p) for text, p in expected.items())
    return distance, kept / guessed


def test_texts_have_the_targets_distribution():
    target, draft = small(2, 0.5), small(5, 0.5)
    distance, kept = chi_square(target, draft, temperature=1.2)
    assert distance < FAR
    assert 0.3 < kept < 0.95  # both ends of the rule were walked


def test_the_statistic_sees_a_wrong_rule(monkeypatch):
    """The same draws with every guess kept: the draft's distribution, which is another."""
    monkeypatch.setattr(module, "_checked", lambda p, q, guesses, generator: (
        len(guesses), int(torch.multinomial(p[-1], 1, generator=generator))))
    distance, _ = chi_square(small(2, 0.5), small(5, 0.5), temperature=1.2)
    assert distance > FAR


@settings(max_examples=15, derandomize=True)
@given(st.integers(1, 9), st.integers(0, 40), st.integers(0, 99))
def test_greedy_is_the_targets_own_greedy(guesses, length, seed):
    target, draft = tiny(), tiny(num_layers=1, window=3)
    stops, prompt = [seed % VOCAB], [seed % 7, seed % 11, 4]
    found = speculate_cached(target, draft, prompt, length, guesses, temperature=0,
                             stop_ids=stops)
    assert found.new_ids == generate(target, prompt, length, temperature=0, stop_ids=stops)
    assert found.kept <= found.guessed <= guesses * found.reads


def test_a_perfect_draft_is_always_kept_and_saves_passes():
    target = tiny()
    found = speculate_cached(target, target, [1, 2, 3], 40, guesses=4, temperature=0)
    assert found.kept == found.guessed == 32 and found.reads == 8
    sampled = speculate_cached(target, target, [1, 2, 3], 40, guesses=4,
                               generator=torch.Generator().manual_seed(0))
    assert sampled.kept == sampled.guessed == 32


@pytest.mark.parametrize("guesses", [1, 4, 50])
def test_a_draft_that_is_always_right_does_not_write_on_behind_the_end(guesses):
    """Kept guesses are what may run over the budget, or over a stop id in their midst."""
    model = tiny()
    text = generate(model, [1, 2, 3], 12, temperature=0)
    for length in range(1, 13):
        found = speculate_cached(model, model, [1, 2, 3], length, guesses, temperature=0)
        assert found.new_ids == text[:length]
    for stop in set(text):
        found = speculate_cached(model, model, [1, 2, 3], 12, guesses, temperature=0,
                                 stop_ids=[stop])
        assert found.new_ids == text[: text.index(stop) + 1]


def test_each_token_is_read_once_but_for_what_was_refused():
    target, draft = tiny(), tiny(num_layers=1)
    read = {"target": 0, "draft": 0}
    for name, model in (("target", target), ("draft", draft)):
        def count(_, inputs, name=name):
            read[name] += inputs[0].shape[1]
        model.register_forward_pre_hook(count)
    found = speculate_cached(target, draft, [1, 2, 3], 40, guesses=3, temperature=0)
    assert found.kept < found.guessed
    assert read["target"] == 3 + found.guessed + found.reads - 1
    assert read["draft"] <= 3 + found.guessed + found.reads


def test_a_guess_that_the_target_gives_no_chance_is_not_kept(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size, generator=None: torch.zeros(()))
    p, q = torch.tensor([[0.0, 1.0], [0.5, 0.5]]), [torch.tensor([0.5, 0.5])]
    assert _checked(p, q, [0], None) == (0, 1)


def test_filters_are_the_targets_too():
    target, draft = small(2, 0.5), small(5, 0.5)
    with torch.no_grad():
        likely = target(torch.tensor([PROMPT]))[0, -1].topk(2).indices.tolist()
    generator = torch.Generator().manual_seed(0)
    first = {speculate_cached(target, draft, PROMPT, 3, top_k=2, generator=generator).new_ids[0]
             for _ in range(60)}
    assert first == set(likely)
    assert speculate_cached(target, draft, PROMPT, 5, top_p=1e-6, generator=generator
                            ).new_ids == generate(target, PROMPT, 5, temperature=0)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"prompt_ids": []}, "empty"), ({"guesses": 0}, "guesses=0"), ({"max_new_tokens": -1}, "=-1"),
    ({"temperature": -1}, "temperature=-1"), ({"prompt_ids": [3]}, "id 3 is outside"),
    ({"max_new_tokens": 15}, "max_seq_len=16"),
    ({"draft": small(0, 0.1, vocab_size=4)}, "one vocabulary, not 3 and 4"),
])
def test_what_cannot_be_is_refused(wrong, message):
    usual = {"target": small(0, 0.6), "draft": small(1, 0.6), "prompt_ids": PROMPT,
             "max_new_tokens": 3}
    with pytest.raises(ValueError, match=message):
        speculate_cached(**usual | wrong)
