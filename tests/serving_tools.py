"""What the tests of serving share: tiny models, mixed requests, and the look of sound books."""

import random
from collections import Counter

from scratchbook.config import ModelConfig
from scratchbook.generation import generate
from scratchbook.serving import Request
from tests.random_models import random_model

VOCAB = 23
SIZES = {"vocab_size": VOCAB, "max_seq_len": 96, "num_layers": 2, "d_model": 32, "num_heads": 4}


def tiny(**changes):
    """A random model in float64, where padding and batch size move no greedy choice."""
    return random_model(ModelConfig(**SIZES | changes)).double()


def mixed_requests(count=64, seed=0, budget=30, **options):
    """Prompts of 1 to 50 ids, half of them behind a shared beginning; budgets; stop ids."""
    rng = random.Random(seed)
    shared = [rng.randrange(VOCAB) for _ in range(33)]
    requests = []
    for number in range(count):
        own = [rng.randrange(VOCAB) for _ in range(rng.randint(0 if number % 2 else 1, 17))]
        prompt = shared[: rng.choice([16, 32, 33])] + own if number % 2 else own
        requests.append(Request(prompt, rng.randint(1, budget),
                                stop_ids=rng.sample(range(VOCAB), rng.randint(0, 2)), **options))
    return requests


def alone(model, request):
    """What `generate` writes for this one prompt."""
    return generate(model, request.prompt_ids, request.max_new_tokens, request.temperature,
                    request.top_k, request.top_p, stop_ids=request.stop_ids, seed=request.seed)


def check_books(engine):
    """Every block is held exactly by the tables that list it, free, or findable; none is lost."""
    pool = engine.pool
    held = Counter(block for job in engine._running for block in job.table.blocks)
    assert [held[block] for block in range(pool.count)] == pool.holders
    free, unheld = list(pool._free), list(pool._unheld)
    idle = [block for block in range(pool.count) if not held[block]]
    assert sorted(free + unheld) == idle, "a block is lost or lent twice"
    assert pool._block_of == {name: block for block, name in pool._name_of.items()}
    assert set(unheld) <= set(pool._name_of) and not set(free) & set(pool._name_of)
    numbers = [job.number for job in [*engine._running, *engine._waiting]]
    assert numbers == sorted(numbers), "somebody was overtaken"
    for job in engine._waiting:
        assert not job.table.blocks and not job.table.length
    for job in engine._running:
        table = job.table
        assert len(set(table.blocks)) == len(table.blocks)
        assert table.length < len(job.ids) <= len(table.blocks) * pool.size + 1
        assert len(table.names) <= table.length // pool.size + 1
