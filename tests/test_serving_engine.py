"""The engine: the same tokens under every schedule, in company and alone."""

import random
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.attention import LinearAttention
from scratchbook.compression import quantize
from scratchbook.config import ModelConfig
from scratchbook.generation import generate
from scratchbook.model import EncoderModel
from scratchbook.serving import Engine, Request
from tests.random_models import random_model
from tests.serving_tools import SIZES, VOCAB, alone, check_books, mixed_requests, tiny

SCHEDULES = ["one", "static", "continuous"]
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


@lru_cache
def model_and_answers(kind="rope", count=64, **options):
    model, requests = tiny(**MODELS[kind]), mixed_requests(count, **options)
    return model, requests, [alone(model, request) for request in requests]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", MODELS)
def test_every_model_writes_what_generate_writes(kind, schedule):
    model, requests, expected = model_and_answers(kind, 16)
    engine = Engine(model, schedule=schedule, block_size=4, max_batch=5, chunk=9)
    assert engine.run(requests) == expected
    assert engine.idle and engine.stats.blocks_in_use == 0


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_64_mixed_requests_get_the_same_tokens(schedule, prefix_cache):
    model, requests, expected = model_and_answers()
    assert len({tuple(answer) for answer in expected}) > 40  # the requests do differ
    engine = Engine(model, schedule=schedule, block_size=8, prefix_cache=prefix_cache)
    assert engine.run(requests) == expected
    prompts = sum(len(request.prompt_ids) for request in requests)
    stats = engine.stats
    assert stats.prompt_tokens_read + stats.prompt_tokens_found == prompts
    assert (stats.prompt_tokens_found > 400) == prefix_cache
    assert stats.new_tokens == sum(map(len, expected))


@settings(max_examples=25, derandomize=True)
@given(st.data())
def test_any_sizes_give_the_same_tokens(data):
    """Pools too small for all at once, too: then the youngest give way and are read again."""
    model, requests, expected = model_and_answers()
    size = data.draw(st.integers(1, 40), "block_size")
    least = max(-(-(len(r.prompt_ids) + r.max_new_tokens - 1) // size) for r in requests)
    engine = Engine(
        model, block_size=size, blocks=data.draw(st.integers(least, 3 * least), "blocks"),
        max_batch=data.draw(st.integers(1, 12), "max_batch"),
        chunk=data.draw(st.integers(1, 70), "chunk"),
        schedule=data.draw(st.sampled_from(["continuous", "continuous", "static"]), "schedule"),
        prefix_cache=data.draw(st.booleans(), "prefix_cache"))
    chosen = data.draw(st.lists(st.integers(0, 63), min_size=1, max_size=14), "requests")
    assert engine.run([requests[i] for i in chosen]) == [expected[i] for i in chosen]
    check_books(engine)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_seed_gives_the_same_text_alone_and_in_company(schedule):
    model, requests, _ = model_and_answers()
    options = [{"temperature": 1.0}, {"temperature": 0.7, "top_k": 5},
               {"temperature": 1.3, "top_p": 0.8}, {}]
    requests = [replace(r, seed=number, **options[number % 4])
                for number, r in enumerate(requests[:20])]
    engine = Engine(model, schedule=schedule, block_size=4, max_batch=6, chunk=11, blocks=30)
    together = engine.run(requests)
    assert together == [alone(model, request) for request in requests]
    assert together == [Engine(model).run([request])[0] for request in requests]
    others = [replace(request, seed=request.seed + 100) for request in requests]
    assert engine.run(others) != together


def test_giving_way_changes_no_sampled_text():
    model = tiny()
    requests = [Request([1, 2, number], 40, temperature=1.0, seed=number) for number in range(6)]
    engine = Engine(model, block_size=4, blocks=14, prefix_cache=False)
    assert engine.run(requests) == [alone(model, request) for request in requests]
    assert engine.stats.preempted > 3


def test_logprobs_are_the_models_own():
    model = tiny()
    plain = Request([3, 1, 4], 12, temperature=2.0, top_k=3, seed=1, logprobs=True)
    engine = Engine(model, block_size=4)
    number = engine.submit(plain)
    engine.submit(Request([9] * 30, 12))  # without: no number is computed
    events = []
    while not engine.idle:
        events += engine.step()
    own = [event for event in events if event.request == number]
    assert all(event.logprob is None for event in events if event.request != number)
    ids = [3, 1, 4, *(event.token for event in own)]
    with torch.no_grad():
        table = model(torch.tensor([ids]))[0].float().log_softmax(-1)
    expected = [float(table[place, ids[place + 1]]) for place in range(2, len(ids) - 1)]
    assert [event.logprob for event in own] == pytest.approx(expected, abs=1e-5)


def test_allowed_hides_tokens_and_is_told_what_was_written():
    model, seen = tiny(), []

    def rising(new_ids):
        seen.append(new_ids)
        mask = torch.zeros(VOCAB, dtype=torch.bool)
        mask[len(new_ids) :: 2] = True
        return mask if len(new_ids) != 3 else None

    engine = Engine(model)
    (free, ruled) = engine.run([Request([5, 6], 8), Request([5, 6], 8, allowed=rising)])
    assert free == generate(model, [5, 6], 8, temperature=0) != ruled
    assert all((token - place) % 2 == 0 and token >= place
               for place, token in enumerate(ruled) if place != 3)
    assert seen == [ruled[:place] for place in range(8)]


# the models of others, and those of chapter 07


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen3"])
def test_loaded_models_write_what_transformers_writes(name, tmp_path):
    pytest.importorskip("transformers")
    from scratchbook.weights import load_pretrained
    from tests.tiny_models import build

    theirs = build(name)
    theirs.save_pretrained(tmp_path)
    ours, theirs = load_pretrained(tmp_path).double(), theirs.double()
    rng = random.Random(0)
    prompts = [[rng.randrange(99) for _ in range(rng.randint(1, 30))] for _ in range(7)]
    expected = [
        theirs.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)),
                        max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
                        )[0, len(prompt) :].tolist()
        for prompt in prompts]
    engine = Engine(ours, block_size=4, max_batch=4, chunk=8)
    assert engine.run([Request(prompt, 12) for prompt in prompts]) == expected


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantized_models_run(kind):
    model = random_model(ModelConfig(**SIZES, d_ff=96), std=0.5)
    quantize(model, kind)
    requests = mixed_requests(10)
    engine = Engine(model, block_size=4, max_batch=4)
    assert engine.run(requests) == [alone(model, request) for request in requests]


# what is refused


def test_what_no_engine_can_page_is_refused():
    encoder = EncoderModel(ModelConfig(**SIZES | {"positions": "learned"}))
    with pytest.raises(ValueError, match="DecoderLM, not .* EncoderModel"):
        Engine(encoder)
    model = tiny()
    model.blocks[1].attention = LinearAttention(32, 4)
    with pytest.raises(ValueError, match="linear attention .*generate"):
        Engine(model)
    model = tiny(window=7)
    model.blocks[1].attention.sinks = 2
    with pytest.raises(ValueError, match="sinks=2.*generate"):
        Engine(model)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"blocks": 0}, "count=0"), ({"block_size": 0}, "block_size=0"), ({"chunk": 0}, "chunk=0"),
    ({"max_batch": 0}, "max_batch=0"), ({"schedule": "fair"}, "one, static, continuous"),
])
def test_sizes_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Engine(tiny(), **wrong)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"prompt_ids": []}, "empty"), ({"prompt_ids": [1.5]}, "whole numbers"),
    ({"prompt_ids": 7}, "whole numbers"), ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ({"temperature": -1.0}, "temperature=-1"), ({"temperature": float("nan")}, "temperature=nan"),
    ({"top_k": 0}, "top_k=0"), ({"top_p": 0.0}, "top_p=0"), ({"top_p": 1.5}, "top_p=1.5"),
    ({"stop_ids": "ab"}, "stop_ids"),
])
def test_impossible_requests_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Request(**{"prompt_ids": [1], "max_new_tokens": 1} | wrong)


def test_what_can_never_fit_is_refused_at_once():
    engine = Engine(tiny(), blocks=6, block_size=4)
    with pytest.raises(ValueError, match="id 23 is outside"):
        engine.submit(Request([VOCAB], 1))
    with pytest.raises(ValueError, match="90 and 7 .*max_seq_len=96; ask for fewer"):
        Engine(tiny()).submit(Request([1] * 90, 7))
    with pytest.raises(ValueError, match="20 and 6 .* 7 blocks of 4, .* has 6; .*blocks=7"):
        engine.submit(Request([1] * 20, 6))
    assert engine.idle
    assert len(engine.run([Request([1] * 20, 5)])[0]) == 5  # to the last slot


def test_a_request_keeps_its_ids_though_the_list_changes():
    prompt = [1, 2, 3]
    request = Request(prompt, 4)
    prompt.append(4)
    assert request.prompt_ids == (1, 2, 3)
