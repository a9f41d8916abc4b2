"""The engine: the same tokens under every schedule, in company and alone."""

import random

import pytest

from scratchbook.config import ModelConfig
from scratchbook.generation import generate
from scratchbook.serving import Engine, Request
from tests.random_models import random_model

SIZES = {"vocab_size": 23, "max_seq_len": 96, "num_layers": 2, "d_model": 32, "num_heads": 4}
MODELS = {
    "learned": {"positions": "learned", "norm": "layer", "bias": "all"},
    "rope": {},
    "sinusoidal": {"positions": "sinusoidal", "layout": "parallel"},
    "alibi": {"positions": "alibi", "layout": "post"},
    "grouped": {"num_kv_heads": 2, "qk_norm": True},
    "window": {"window": 7, "num_kv_heads": 1},
    "latent": {"latent_dim": 12},
    "latent without positions": {"latent_dim": 12, "positions": "none"},
}


def tiny(**changes):
    """In float64, where padding and batch size move no choice of the greedy token."""
    return random_model(ModelConfig(**SIZES | changes)).double()


def mixed_requests(count=64, seed=0, vocab=23):
    """Prompts of 1 to 50 ids, half of them behind a shared beginning; budgets 1 to 30; stops."""
    rng = random.Random(seed)
    shared = [rng.randrange(vocab) for _ in range(33)]
    requests = []
    for number in range(count):
        own = [rng.randrange(vocab) for _ in range(rng.randint(1, 17))]
        prompt = shared[: rng.choice([16, 32, 33])] + own if number % 2 else own
        stops = rng.sample(range(vocab), rng.randint(0, 2))
        requests.append(Request(prompt, rng.randint(1, 30), stop_ids=stops))
    return requests


def alone(model, request):
    return generate(model, request.prompt_ids, request.max_new_tokens, temperature=0,
                    stop_ids=request.stop_ids)


@pytest.mark.parametrize("schedule", ["one", "static", "continuous"])
@pytest.mark.parametrize("kind", MODELS)
def test_every_model_writes_what_generate_writes(kind, schedule):
    model, requests = tiny(**MODELS[kind]), mixed_requests(24)
    expected = [alone(model, request) for request in requests]
    engine = Engine(model, schedule=schedule, block_size=4, max_batch=5, chunk=9)
    assert engine.run(requests) == expected
    assert engine.idle and engine.stats.blocks_in_use == 0
