"""Generation: cached equals uncached for every architecture, filters by hand, clear errors."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from scratchbook.config import ENCODERS, PRESETS, ModelConfig, RopeSettings
from scratchbook.generation import choose, generate, keep_min_p, keep_top_k, keep_top_p, stream
from scratchbook.model import DecoderLM

SMALL = {"vocab_size": 97, "max_seq_len": 96, "num_layers": 2, "d_model": 32, "num_heads": 4}
ARCHITECTURES = {
    "gpt2": {"feedforward": "gelu_tanh", "norm": "layer", "positions": "learned", "bias": "all",
             "tie_embeddings": True},
    "char": {"feedforward": "relu", "norm": "layer", "layout": "post", "positions": "learned",
             "bias": "all"},
    "llama": {"num_kv_heads": 2},
    "llama 3.1": {"num_kv_heads": 2, "rope": RopeSettings(
        base=500_000.0, scaling="llama3", factor=8.0, original_max_seq_len=32)},
    "qwen3": {"num_kv_heads": 2, "head_dim": 16, "qk_norm": True},
    "mistral": {"num_kv_heads": 2, "window": 7},
    "mini": {"feedforward": "gelu", "norm": "rms_no_gain"},
    "parallel, alibi": {"layout": "parallel", "positions": "alibi", "feedforward": "geglu"},
    "grouped, alibi": {"num_kv_heads": 2, "positions": "alibi"},
    "sandwich, sinusoidal": {"layout": "sandwich", "positions": "sinusoidal"},
    "latent": {"latent_dim": 12},
    "no positions": {"positions": "none"},
}
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], [3], [40, 41, 42, 40, 41]]


def build(name: str = "llama", **changes) -> DecoderLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DecoderLM(ModelConfig(**SMALL | ARCHITECTURES[name] | changes))
        for weight in model.parameters():  # far from zero, so that choices are not ties
            torch.nn.init.normal_(weight, std=0.3) if weight.dim() > 1 else None
    return model.eval()


@every_architecture
def test_cached_equals_uncached(name):
    model = build(name)
    for prompt in (PROMPTS[0], [1]):
        fast = generate(model, prompt, 64, temperature=0)
        assert fast == generate(model, prompt, 64, temperature=0, cache=False)
        assert len(fast) == 64 and len(set(fast)) > 3


@every_architecture
def test_the_scores_of_every_cached_step_are_those_of_the_whole_text(name):
    generator = torch.Generator().manual_seed(1)
    model, ids = build(name), torch.randint(97, (2, 40), generator=generator)
    cache, parts = model.new_cache(), []
    with torch.no_grad():
        for chunk in ids.split([19, 1, 1, 5, 1, 13], dim=1):
            parts.append(model(chunk, cache))
        assert_close(torch.cat(parts, dim=1), model(ids), atol=2e-5, rtol=1e-5)


@every_architecture
@pytest.mark.parametrize("cache", [True, False])
def test_a_batch_writes_what_each_prompt_writes_alone(name, cache):
    model = build(name)
    together = generate(model, PROMPTS, 20, temperature=0, cache=cache)
    assert together == [generate(model, p, 20, temperature=0) for p in PROMPTS]


@pytest.mark.parametrize("preset", [n for n in PRESETS if n not in ENCODERS])
def test_every_preset_in_small_is_cached_exactly(preset):
    config = PRESETS[preset]
    heads, kv_heads = (4, 4 * config.num_kv_heads // config.num_heads)
    model = DecoderLM(config.with_(vocab_size=97, num_layers=2, d_model=32, num_heads=heads,
                                   num_kv_heads=kv_heads, head_dim=8, d_ff=48, max_seq_len=80))
    assert (generate(model, PROMPTS, 30, seed=1, temperature=0)
            == generate(model, PROMPTS, 30, seed=1, temperature=0, cache=False))


def test_sampling_repeats_with_its_seed_and_leaves_the_global_one_alone():
    model, before = build(), torch.random.get_rng_state()
    first, again, other = (generate(model, PROMPTS, 12, seed=s, top_k=20) for s in (1, 1, 2))
    assert first == again != other
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_stop_id_ends_a_text_and_the_stream_ends_with_the_last():
    model = build()
    alone = [generate(model, p, 30, temperature=0) for p in PROMPTS]
    stop = alone[0][4]
    texts = generate(model, PROMPTS, 30, temperature=0, stop_ids=[stop])
    for text, full in zip(texts, alone, strict=True):
        end = full.index(stop) + 1 if stop in full else 30
        assert text == full[:end]
    assert len(list(stream(model, PROMPTS[0], 30, temperature=0, stop_ids=[stop]))) == 5


def test_a_stream_gives_each_token_when_it_is_there_and_restores_the_mode():
    model = build().train()
    steps = stream(model, PROMPTS[0], 30, temperature=0)
    first = next(steps)
    assert first.shape == (1,) and not model.training
    steps.close()
    assert model.training
    assert generate(model, PROMPTS[0], 0) == []


def test_filters_by_hand():
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
    kept = lambda out: out.isfinite().tolist()  # noqa: E731
    assert kept(keep_top_k(logits, 2)) == [True, True, False, False]
    assert kept(keep_top_k(logits, 9)) == [True] * 4
    assert kept(keep_top_p(logits, 0.7)) == [True, True, False, False]
    assert kept(keep_top_p(logits, 0.8)) == [True, True, True, False]
    assert kept(keep_top_p(logits, 0.01)) == [True, False, False, False]
    assert kept(keep_min_p(logits, 0.25)) == [True, True, True, False]
    assert kept(keep_min_p(logits, 1.0)) == [True, False, False, False]
    order = torch.tensor([2, 0, 3, 1])
    for keep, value in ((keep_top_k, 2), (keep_top_p, 0.7), (keep_min_p, 0.25)):
        assert torch.equal(keep(logits[order], value), keep(logits, value)[order])


def test_temperature_sharpens_and_zero_takes_the_largest():
    logits = torch.tensor([[0.0, 1.0]]).expand(20_000, 2)
    for temperature in (0.5, 2.0):
        generator = torch.Generator().manual_seed(0)
        share = choose(logits, temperature, generator=generator).float().mean().item()
        want = 1 / (1 + torch.tensor(-1 / temperature).exp().item())
        assert abs(share - want) < 5 * (want * (1 - want) / 20_000) ** 0.5  # one in 1.7 million
    assert choose(logits, 0).all()


@pytest.mark.parametrize(("arguments", "options", "message"), [
    (([], 5), {}, "prompt is empty"), (([[1], []], 5), {}, "prompt is empty"),
    (([1, 97], 5), {}, "id 97 is outside the vocabulary, 0 to 96"),
    (([1] * 90, 7), {}, "90 and 7 new tokens do not fit into max_seq_len=96"),
    (([1], -1), {}, "max_new_tokens=-1"), (([1], 5), {"temperature": -1}, "temperature=-1"),
    (([1], 5), {"top_k": 0}, "top_k=0"), (([1], 5), {"top_p": 0.0}, "top_p=0.0"),
    (("text", 5), {}, "not 'text': encode the text"), (([1, 2.5], 5), {}, "whole numbers"),
    ((3, 5), {}, "a list of token ids, not 3"), (([[[1]]], 5), {}, "whole numbers"),
    (([1], 5), {"temperature": float("nan")}, "temperature=nan"),
    (([1], 5), {"temperature": float("inf")}, "temperature=inf"),
    (([1], 5), {"top_p": 1.5}, "top_p=1.5"), (([1], 5), {"min_p": -0.1}, "min_p=-0.1"),
])
def test_errors_carry_the_values(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        generate(build(), *arguments, **options)


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("row", [[0.0, float("nan")], [0.0, float("inf")], [-float("inf")] * 2])
def test_scores_with_nothing_to_choose_are_refused(temperature, row):
    with pytest.raises(ValueError, match="nothing can be chosen"):
        choose(torch.tensor([[0.0, 1.0], row]), temperature)


def test_a_tiny_temperature_is_greedy_and_hidden_scores_are_never_drawn():
    logits = torch.tensor([[1.0, 5.0, -torch.inf]])
    assert all(choose(logits, t).item() == 1 for t in (1e-320, 1e-40, 1e-6))
    assert choose(logits.expand(5000, 3)).max() == 1


def test_top_p_keeps_no_more_of_what_ties_than_it_needs():
    assert keep_top_p(torch.zeros(4), 0.5).isfinite().sum() == 2
    assert keep_top_p(torch.zeros(4), 0.6).isfinite().sum() == 3


@pytest.mark.parametrize("kind", [list, torch.tensor, np.array])
def test_one_prompt_may_be_a_list_a_tensor_or_an_array(kind):
    model = build()
    want = generate(model, PROMPTS[2], 6, temperature=0)
    assert generate(model, kind(PROMPTS[2]), 6, temperature=0) == want
    assert generate(model, [kind(PROMPTS[2])], 6, temperature=0) == [want]


def test_a_prompt_may_fill_the_context_and_a_window_may_be_one():
    assert len(generate(build(), [1] * 95, 1, temperature=0)) == 1
    assert generate(build(), [1] * 96, 0) == []
    model = build(window=1)
    alone = [generate(model, p, 60, temperature=0, cache=False) for p in PROMPTS]
    assert generate(model, PROMPTS, 60, temperature=0) == alone
