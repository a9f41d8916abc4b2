"""Rotary positions and ALiBi against transformers'."""

import pytest
import torch

from scratchbook.config import RopeSettings
from scratchbook.positions import RotaryEmbedding, alibi_slopes, scaled_frequencies

llama = pytest.importorskip("transformers.models.llama.modeling_llama")
from transformers import LlamaConfig  # noqa: E402
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402


def config(head_dim: int, rope: dict, length: int = 128) -> LlamaConfig:
    return LlamaConfig(hidden_size=4 * head_dim, num_attention_heads=4, head_dim=head_dim,
                       max_position_embeddings=length, rope_parameters=rope)


@pytest.mark.parametrize("head_dim", [4, 64, 128])
def test_rotation_equals_llama(head_dim, parity):
    theirs = llama.LlamaRotaryEmbedding(config(head_dim, {"rope_type": "default",
                                                          "rope_theta": 10_000.0}))
    ours = RotaryEmbedding(head_dim)
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for length in (1, 17, 300):
        q, k = torch.randn(2, 2, 4, length, head_dim, generator=generator)
        positions = torch.arange(length)
        cos, sin = theirs(q, positions[None])
        want = llama.apply_rotary_pos_emb(q, k, cos, sin)
        worst = max(worst, *((ours(x, positions) - y).abs().max().item()
                             for x, y in zip((q, k), want, strict=True)))
    assert parity("rotary positions", against="transformers Llama", error=worst, cases=6,
                  bound=1e-6)


@pytest.mark.parametrize(("settings", "rope"), [
    (RopeSettings(scaling="linear", factor=8.0), {"rope_type": "linear", "factor": 8.0}),
    (RopeSettings(scaling="yarn", factor=4.0, original_max_seq_len=4096),
     {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}),
    (RopeSettings(base=500_000.0, scaling="yarn", factor=40.0, original_max_seq_len=4096),
     {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096,
      "rope_theta": 500_000.0}),
    (RopeSettings(base=500_000.0, scaling="llama3", factor=8.0, original_max_seq_len=8192),
     {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 8192, "rope_theta": 500_000.0}),
], ids=["linear", "yarn", "yarn-40", "llama3"])
@pytest.mark.parametrize("head_dim", [32, 128])
def test_stretched_frequencies_equal_transformers(settings, rope, head_dim, parity):
    rope = {"rope_theta": 10_000.0} | rope
    length = int(rope.get("original_max_position_embeddings", 128) * rope["factor"])
    want, want_factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config(head_dim, rope, length),
                                                               device="cpu")
    ours, factor = scaled_frequencies(head_dim, settings)
    error = max(((ours - want).abs() / want).max().item(), abs(factor - want_factor))
    assert parity(f"{rope['rope_type']} scaling of rotary speeds", against="transformers",
                  error=error, cases=head_dim // 2, bound=1e-6)


@pytest.mark.parametrize("head_dim", [32, 128])
def test_ntk_equals_transformers_dynamic_rule(head_dim, parity):
    # theirs takes the factor from the length that is read: 4096 after 1024
    theirs = config(head_dim, {"rope_type": "dynamic", "factor": 1.0, "rope_theta": 10_000.0}, 1024)
    want, _ = ROPE_INIT_FUNCTIONS["dynamic"](theirs, device="cpu", seq_len=4096)
    ours, factor = scaled_frequencies(head_dim, RopeSettings(scaling="ntk", factor=4.0))
    error = max(((ours - want).abs() / want).max().item(), abs(factor - 1.0))
    assert parity("NTK scaling of rotary speeds", against="transformers, dynamic",
                  error=error, cases=head_dim // 2, bound=1e-6)


def test_slopes_equal_bloom(parity):
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    worst, heads = 0.0, range(1, 41)
    for number in heads:
        # Bloom writes slope x key position; softmax only sees differences along the keys
        bias = bloom.build_alibi_tensor(torch.ones(1, 3), number, torch.float32)
        worst = max(worst, (bias[:, 0, 1] - alibi_slopes(number)).abs().max().item())
    assert parity("ALiBi slopes, 1 to 40 heads", against="transformers Bloom", error=worst,
                  cases=len(heads), bound=1e-7)
