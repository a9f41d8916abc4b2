"""Grouped, latent and windowed attention against transformers', weights copied, with gradients."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from scratchbook.attention import LatentAttention, MultiHeadAttention, window_mask
from scratchbook.config import RopeSettings
from scratchbook.norms import RMSNorm
from scratchbook.positions import RotaryEmbedding

transformers = pytest.importorskip("transformers")
from transformers import DeepseekV3Config, LlamaConfig, MistralConfig  # noqa: E402
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek  # noqa: E402
from transformers.models.llama import modeling_llama as llama  # noqa: E402
from transformers.models.mistral import modeling_mistral as mistral  # noqa: E402

HF = f"transformers {transformers.__version__}"
BOUND = 1e-5
CASES = 20
WIDTH = 32


def randomise(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        spread = torch.randn(parameter.shape, generator=generator) * 0.2
        parameter.data = spread + (1.0 if parameter.dim() == 1 else 0.0)
    return module.eval()


def gap(ours, theirs, seed: int) -> float:
    """The largest difference of the outputs and of the gradients on the input."""
    generator = torch.Generator().manual_seed(seed)
    x, upstream = torch.randn(2, 2, 5 + 3 * (seed % 7), WIDTH, generator=generator)
    found = []
    for layer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        out = layer(leaf)
        found.append([out.detach(), *torch.autograd.grad(out, leaf, upstream)])
    return max((a - b).abs().max().item() for a, b in zip(*found, strict=True))


def called(theirs: nn.Module, turn: nn.Module, allowed=None):
    """Their layer as a function of x alone: turned places, and a mask to add."""
    def forward(x: Tensor) -> Tensor:
        time = x.shape[1]
        seen = torch.ones(time, time).tril().bool() if allowed is None else allowed(time)
        added = torch.zeros(time, time).masked_fill(~seen, -torch.inf)[None, None]
        places = turn(x, torch.arange(time)[None])
        return theirs(x, attention_mask=added, position_embeddings=places)[0]

    return forward


def copy(ours: nn.Module, theirs: nn.Module) -> None:
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        getattr(ours, name).load_state_dict(getattr(theirs, name).state_dict())


@pytest.mark.parametrize("kv_heads", [8, 4, 2, 1])
def test_grouped_heads_equal_llama(kv_heads, parity):
    config = LlamaConfig(hidden_size=WIDTH, num_attention_heads=8, num_key_value_heads=kv_heads,
                         rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    config._attn_implementation = "eager"
    turn, worst = llama.LlamaRotaryEmbedding(config), 0.0
    for seed in range(CASES):
        theirs = randomise(llama.LlamaAttention(config, 0), seed)
        rotary = RotaryEmbedding(WIDTH // 8, RopeSettings(base=500.0))
        ours = MultiHeadAttention(WIDTH, 8, kv_heads, rotary=rotary)
        copy(ours, theirs)
        worst = max(worst, gap(ours, called(theirs, turn), seed))
    assert parity(f"MultiHeadAttention, 8 heads over {kv_heads}, rotary, with gradients",
                  against=f"{HF} LlamaAttention", error=worst, cases=CASES, bound=BOUND)


@pytest.mark.parametrize("absorbed", [False, True], ids=["unpacked", "absorbed"])
def test_latent_attention_equals_deepseek(absorbed, parity):
    config = DeepseekV3Config(
        hidden_size=WIDTH, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=None,
        kv_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6,
        rope_interleave=False, rms_norm_eps=1e-6, attention_bias=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0})
    config._attn_implementation = "eager"
    turn, worst = deepseek.DeepseekV3RotaryEmbedding(config), 0.0
    for seed in range(CASES):
        theirs = randomise(deepseek.DeepseekV3Attention(config, 0), seed)
        ours = LatentAttention(
            WIDTH, 4, latent_dim=12, head_dim=8, rope_dim=4, value_dim=6, absorbed=absorbed,
            rotary=RotaryEmbedding(4), latent_norm=RMSNorm(12, eps=1e-6))
        for mine, other in ((ours.q_proj, theirs.q_proj), (ours.o_proj, theirs.o_proj),
                            (ours.down_proj, theirs.kv_a_proj_with_mqa),
                            (ours.up_proj, theirs.kv_b_proj)):
            mine.load_state_dict(other.state_dict())
        ours.latent_norm.weight.data = theirs.kv_a_layernorm.weight.data
        worst = max(worst, gap(ours, called(theirs, turn), seed))
    name = "absorbed" if absorbed else "unpacked"
    assert parity(f"LatentAttention, {name}, with gradients", against=f"{HF} DeepseekV3Attention",
                  error=worst, cases=CASES, bound=BOUND)


@pytest.mark.parametrize("window", [1, 3, 8])
def test_a_window_equals_mistral(window, parity):
    config = MistralConfig(hidden_size=WIDTH, num_attention_heads=4, num_key_value_heads=2,
                           head_dim=8, sliding_window=window,
                           rope_parameters={"rope_type": "default", "rope_theta": 10_000.0})
    config._attn_implementation = "eager"
    turn, worst = mistral.MistralRotaryEmbedding(config), 0.0

    allowed = functools.cache(functools.partial(their_mask, config))
    for seed in range(CASES):  # lengths from 5 to 23: the mask and the band are both met
        theirs = randomise(mistral.MistralAttention(config, 0), seed)
        ours = MultiHeadAttention(WIDTH, 4, 2, rotary=RotaryEmbedding(8), window=window)
        copy(ours, theirs)
        worst = max(worst, gap(ours, called(theirs, turn, allowed), seed))
    assert parity(f"MultiHeadAttention, window {window}, with gradients",
                  against=f"{HF} MistralAttention", error=worst, cases=CASES, bound=BOUND)


def their_mask(config: MistralConfig, time: int) -> Tensor:
    """Mistral's own mask as booleans, (time, time)."""
    from transformers.masking_utils import create_sliding_window_causal_mask

    x = torch.zeros(1, time, WIDTH)
    added = create_sliding_window_causal_mask(
        config=config, inputs_embeds=x, attention_mask=None, past_key_values=None,
        position_ids=torch.arange(time)[None])
    return added[0, 0] >= 0 if added.dtype != torch.bool else added[0, 0]


def test_the_window_mask_equals_mistral(parity):
    cases = [(time, window) for time in (1, 4, 17, 40) for window in (1, 2, 7, 39, 100)]
    wrong = 0
    for time, window in cases:
        config = MistralConfig(hidden_size=WIDTH, num_attention_heads=4, sliding_window=window)
        config._attn_implementation = "eager"
        wrong += (their_mask(config, time) != window_mask(time, window)).sum().item()
    assert parity("window_mask, entries that differ", against=f"{HF} sliding window mask",
                  error=wrong, cases=len(cases), bound=0)
