"""Sums from a config equal what built models hold and what torch's profiler counts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scratchbook import accounting
from scratchbook.config import BIASES, FEEDFORWARDS, LAYOUTS, NORMS, POSITIONS, PRESETS, ModelConfig
from scratchbook.model import DecoderLM

EXACT = {"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080,
         "gpt2-xl": 1_557_611_200, "llama-3-8b": 8_030_261_248, "char-513k": 513_736}


def built(config: ModelConfig) -> DecoderLM:
    with torch.device("meta"):
        return DecoderLM(config)


@st.composite
def configs(draw) -> ModelConfig:
    """Any config of a few hundred parameters, with every choice that a config has."""
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    head_dim = 2 * draw(st.integers(1, 4))
    return ModelConfig(
        vocab_size=draw(st.integers(1, 40)), max_seq_len=draw(st.integers(8, 20)),
        num_layers=draw(st.integers(1, 3)), d_model=2 * draw(st.integers(1, 3)) * kv_heads * group,
        num_heads=kv_heads * group, num_kv_heads=kv_heads, head_dim=head_dim,
        d_ff=draw(st.integers(1, 30)), feedforward=draw(st.sampled_from(FEEDFORWARDS)),
        norm=draw(st.sampled_from(NORMS)), layout=draw(st.sampled_from(LAYOUTS)),
        positions=draw(st.sampled_from([p for p in POSITIONS if p != "alibi"])),
        bias=draw(st.sampled_from(BIASES)), qk_norm=draw(st.booleans()),
        tie_embeddings=draw(st.booleans()))


@pytest.mark.parametrize(("name", "count"), EXACT.items())
def test_known_models_have_their_known_size(name, count):
    assert accounting.total_parameters(PRESETS[name]) == count


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_counted_as_built(name):
    model = built(PRESETS[name])
    assert accounting.total_parameters(PRESETS[name]) == sum(p.numel() for p in model.parameters())


def parts_of(model: nn.Module) -> dict[str, int]:
    """The numel of a built model under the names that the sums use."""
    found = dict.fromkeys(accounting.count_parameters(PRESETS["gpt2"]), 0)
    for name, parameter in model.named_parameters():
        if "norm" in name and ".q_norm" not in name and ".k_norm" not in name:
            part = "norms"
        else:
            part = next(part for part in found if part in name)
        found[part] += parameter.numel()
    return found


@settings(max_examples=150)
@given(configs())
def test_the_parts_of_any_config_are_counted_as_built(config):
    assert accounting.count_parameters(config) == parts_of(built(config))


@pytest.mark.parametrize("positions", ["rope", "none"])
def test_latent_attention_is_counted_as_built(positions):
    config = ModelConfig(50, num_layers=2, d_model=56, num_heads=4, latent_dim=20,
                         positions=positions)
    model = built(config)
    assert accounting.total_parameters(config) == sum(p.numel() for p in model.parameters())
    # a prompt is read with everything unpacked
    assert sum(accounting.forward_flops(config, 3).values()) == measured_flops(
        DecoderLM(config), 3)
    turned = 6 if positions == "rope" else 0
    assert accounting.kv_bytes_per_token(config, "fp32") == 2 * (20 + turned) * 4


def measured_flops(model: nn.Module, seq_len: int) -> int:
    for block in model.blocks:
        block.attention.impl = "eager"  # torch's fused kernel is not counted on a CPU
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, seq_len, dtype=torch.long))
    return counter.get_total_flops()


@settings(max_examples=40)
@given(configs(), st.integers(1, 8))
def test_operations_equal_the_profilers(config, seq_len):
    counted = sum(accounting.forward_flops(config, seq_len).values())
    assert counted == measured_flops(DecoderLM(config), seq_len)


def test_a_token_with_a_past_costs_the_difference_of_two_readings():
    config = PRESETS["mini-27m"]
    one = accounting.forward_flops(config, 1)
    first = accounting.decoding_flops_per_token(config)
    assert first == sum(one.values())
    assert accounting.decoding_flops_per_token(config, 9) - first == (
        9 * 6 * 2 * 2 * 512)  # past, layers, two products, multiply and add, width


def test_the_cache_keeps_what_the_formula_says():
    config = ModelConfig(50, num_layers=3, d_model=32, num_heads=4, num_kv_heads=2)
    model = DecoderLM(config)
    caches = model.new_cache(5)
    model(torch.zeros(1, 5, dtype=torch.long), cache=caches)
    kept = sum(2 * cache.length * 2 * 8 * 4 for cache in caches)
    assert 5 * accounting.kv_bytes_per_token(config, "fp32") == kept
    assert accounting.kv_bytes_per_token(config, "bf16") * 2 == kept // 5


def test_bytes_and_speed_of_llama():
    llama = PRESETS["llama-3-8b"]
    assert accounting.weight_bytes(llama, "bf16") == 16_060_522_496
    assert accounting.weight_bytes(llama, "int4") == 4_015_130_624
    assert accounting.kv_bytes_per_token(llama) == 2 * 32 * 8 * 128 * 2
    # the table of 128,256 vectors is looked up, not read
    read = 2 * (8_030_261_248 - 128_256 * 4096)
    assert accounting.tokens_per_second(llama, 1e12) == pytest.approx(1e12 / read)
    slower = accounting.tokens_per_second(llama, 1e12, past=8192)
    assert slower == pytest.approx(1e12 / (read + 8192 * 131_072))
    small = accounting.tokens_per_second(llama, 1e12, "int4", past=8192)  # the cache stays bf16
    assert small == pytest.approx(1e12 / (read / 4 + 8192 * 131_072))
    smaller = accounting.tokens_per_second(llama, 1e12, "int4", past=8192, cache_dtype="int4")
    assert smaller == pytest.approx(4 * slower)


def test_a_window_bounds_what_is_read():
    wide = PRESETS["llama-3-8b"].with_(window=100)
    assert (accounting.tokens_per_second(wide, 1e9, past=5000)
            == accounting.tokens_per_second(wide, 1e9, past=99)
            < accounting.tokens_per_second(wide, 1e9, past=98))
    near, far = (accounting.decoding_flops_per_token(wide, past) for past in (99, 5000))
    assert near == far
    reading = accounting.forward_flops(wide, 400)
    assert reading["scores"] * 4 == accounting.forward_flops(PRESETS["llama-3-8b"], 400)["scores"]


@pytest.mark.parametrize(("call", "complaint"), [
    (lambda c: accounting.weight_bytes(c, "fp8"), "fp8"),
    (lambda c: accounting.tokens_per_second(c, 0), "bandwidth=0"),
    (lambda c: accounting.forward_flops(c, 0), "seq_len=0")])
def test_nonsense_is_refused_with_its_value(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call(PRESETS["gpt2"])
