"""Feed-forward parts and blocks against torch's encoder layer and transformers, weights copied."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scratchbook.attention import MultiHeadAttention
from scratchbook.blocks import Block
from scratchbook.config import RopeSettings
from scratchbook.feedforward import FeedForward, GatedFeedForward, MixtureOfExperts
from scratchbook.norms import LayerNorm, RMSNorm
from scratchbook.positions import RotaryEmbedding

transformers = pytest.importorskip("transformers")
HF = f"transformers {transformers.__version__}"
TORCH = f"torch {torch.__version__.split('+')[0]}"
BOUND = 1e-5
CASES = 20


def results(layer, x: Tensor, upstream: Tensor) -> list[Tensor]:
    """The output and the gradient on the input."""
    leaf = x.clone().requires_grad_()
    out = layer(leaf)
    return [out.detach(), *torch.autograd.grad(out, leaf, upstream)]


def largest_gap(ours, theirs, seed: int, width: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    x, upstream = torch.randn(2, 2, 3 + seed % 6, width, generator=generator)
    pairs = zip(results(ours, x, upstream), results(theirs, x, upstream), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def randomise(module: nn.Module, seed: int) -> None:
    """Every weight away from its special starting value: gains of one would hide a norm."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        spread = torch.randn(parameter.shape, generator=generator) * 0.2
        parameter.data = spread + (1.0 if parameter.dim() == 1 else 0.0)


def from_conv1d(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    linear.weight.data, linear.bias.data = weight.T.clone(), bias.clone()


def copy_gpt2_mlp(ours: FeedForward, theirs: nn.Module) -> None:
    from_conv1d(ours.up_proj, theirs.c_fc.weight, theirs.c_fc.bias)
    from_conv1d(ours.down_proj, theirs.c_proj.weight, theirs.c_proj.bias)


def gpt2_config() -> transformers.GPT2Config:
    config = transformers.GPT2Config(n_embd=24, n_head=3, n_inner=40)
    config._attn_implementation = "eager"
    return config


def test_gpt2_mlp(parity) -> None:
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    errors = []
    for seed in range(CASES):
        theirs, ours = GPT2MLP(40, gpt2_config()).eval(), FeedForward(24, 40, "gelu_tanh", True)
        randomise(theirs, seed)
        copy_gpt2_mlp(ours, theirs)
        errors.append(largest_gap(ours, theirs, seed, 24))
    assert parity("FeedForward, with gradients", against=f"{HF} GPT2MLP", error=max(errors),
                  cases=CASES, bound=7e-6)


def test_gpt2_block(parity) -> None:
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block

    errors = []
    for seed in range(CASES):
        theirs = GPT2Block(gpt2_config(), layer_idx=0).eval()
        randomise(theirs, seed)
        ours = Block(MultiHeadAttention(24, 3, bias=True), FeedForward(24, 40, "gelu_tanh", True),
                     LayerNorm(24), LayerNorm(24))
        copy_gpt2_mlp(ours.feedforward, theirs.mlp)
        attention = ours.attention
        for name, weight, bias in zip("qkv", theirs.attn.c_attn.weight.chunk(3, dim=1),
                                      theirs.attn.c_attn.bias.chunk(3), strict=True):
            from_conv1d(getattr(attention, f"{name}_proj"), weight, bias)
        from_conv1d(attention.o_proj, theirs.attn.c_proj.weight, theirs.attn.c_proj.bias)
        ours.attention_norm.load_state_dict(theirs.ln_1.state_dict())
        ours.feedforward_norm.load_state_dict(theirs.ln_2.state_dict())

        def their_block(x: Tensor, theirs: nn.Module = theirs) -> Tensor:
            hidden = torch.full((x.shape[1],) * 2, -torch.inf).triu(1)[None, None]
            return theirs(x, attention_mask=hidden)

        errors.append(largest_gap(ours, their_block, seed, 24))
    assert parity("Block (pre), with gradients", against=f"{HF} GPT2Block", error=max(errors),
                  cases=CASES, bound=BOUND)


def llama_config() -> transformers.LlamaConfig:
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, rms_norm_eps=1e-5)
    config._attn_implementation = "eager"
    return config


def test_llama_mlp(parity) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    errors = []
    for seed in range(CASES):
        theirs, ours = LlamaMLP(llama_config()), GatedFeedForward(32, 48)
        randomise(theirs, seed)
        ours.load_state_dict(theirs.state_dict())
        errors.append(largest_gap(ours, theirs, seed, 32))
    assert parity("GatedFeedForward, with gradients", against=f"{HF} LlamaMLP", error=max(errors),
                  cases=CASES, bound=1e-6)


def llama_pair(seed: int) -> tuple[Block, nn.Module]:
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    theirs = LlamaDecoderLayer(llama_config(), layer_idx=0).eval()
    randomise(theirs, seed)
    rotary = RotaryEmbedding(8, RopeSettings())
    ours = Block(MultiHeadAttention(32, 4, 2, rotary=rotary), GatedFeedForward(32, 48),
                 RMSNorm(32), RMSNorm(32))
    for mine, other in ((ours.attention, theirs.self_attn), (ours.feedforward, theirs.mlp),
                        (ours.attention_norm, theirs.input_layernorm),
                        (ours.feedforward_norm, theirs.post_attention_layernorm)):
        mine.load_state_dict(other.state_dict(), strict=False)
    return ours, theirs


def test_llama_decoder_layer(parity) -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    turn, errors = LlamaRotaryEmbedding(llama_config()), []
    for seed in range(CASES):
        ours, theirs = llama_pair(seed)

        def their_layer(x: Tensor, theirs: nn.Module = theirs) -> Tensor:
            hidden = torch.full((x.shape[1],) * 2, -torch.inf).triu(1)[None, None]
            places = turn(x, torch.arange(x.shape[1])[None])
            return theirs(x, attention_mask=hidden, position_embeddings=places)

        errors.append(largest_gap(ours, their_layer, seed, 32))
    assert parity("Block (pre, rotary, grouped), with gradients", against=f"{HF} LlamaDecoderLayer",
                  error=max(errors), cases=CASES, bound=BOUND)


@pytest.mark.parametrize("norm_first", [False, True])
def test_torch_encoder_layer(parity, norm_first: bool) -> None:
    errors = []
    for seed in range(CASES):
        theirs = nn.TransformerEncoderLayer(128, 8, 512, 0.0, batch_first=True,
                                            norm_first=norm_first)
        randomise(theirs, seed)
        for parameter in theirs.parameters():  # wide sums: scores of a fresh layer's size
            parameter.data *= 0.3 if parameter.dim() == 2 else 1.0
        ours = Block(MultiHeadAttention(128, 8, bias=True, causal=False),
                     FeedForward(128, 512, "relu", bias=True), LayerNorm(128), LayerNorm(128),
                     layout="pre" if norm_first else "post")
        copy_encoder_layer(ours, theirs)
        errors.append(largest_gap(ours, theirs, seed, 128))
    assert parity(f"Block ({'pre' if norm_first else 'post'}), with gradients",
                  against=f"{TORCH} nn.TransformerEncoderLayer(norm_first={norm_first})",
                  error=max(errors), cases=CASES, bound=BOUND)


def copy_encoder_layer(ours: Block, theirs: nn.TransformerEncoderLayer) -> None:
    """In the order of both modules: q, k, v in one, output, up, down, norms."""
    attention = theirs.self_attn
    for name, weight, bias in zip("qkv", attention.in_proj_weight.chunk(3),
                                  attention.in_proj_bias.chunk(3), strict=True):
        getattr(ours.attention, f"{name}_proj").load_state_dict({"weight": weight, "bias": bias})
    for mine, other in ((ours.attention.o_proj, attention.out_proj),
                        (ours.feedforward.up_proj, theirs.linear1),
                        (ours.feedforward.down_proj, theirs.linear2),
                        (ours.attention_norm, theirs.norm1), (ours.feedforward_norm, theirs.norm2)):
        mine.load_state_dict(other.state_dict())


def mixtral_config(num_active: int) -> transformers.MixtralConfig:
    return transformers.MixtralConfig(
        hidden_size=16, intermediate_size=24, num_local_experts=5, num_experts_per_tok=num_active)


def mixtral_pair(seed: int, num_active: int) -> tuple[MixtureOfExperts, nn.Module]:
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    theirs = MixtralSparseMoeBlock(mixtral_config(num_active)).eval()
    randomise(theirs, seed)
    for parameter in theirs.parameters():
        parameter.data -= parameter.data.mean()
    ours = MixtureOfExperts(16, 24, num_experts=5, num_active=num_active)
    ours.router.weight.data = theirs.gate.weight.data
    for expert, gate_up, down in zip(ours.experts, theirs.experts.gate_up_proj,
                                     theirs.experts.down_proj, strict=True):
        gate, up = gate_up.chunk(2)
        expert.load_state_dict({"gate_proj.weight": gate, "up_proj.weight": up,
                                "down_proj.weight": down})
    return ours, theirs


def test_mixtral_sparse_block(parity) -> None:
    errors = []
    for seed in range(CASES):
        ours, theirs = mixtral_pair(seed, num_active=2 + seed % 4)
        errors.append(largest_gap(ours, theirs, seed, 16))
    assert parity("MixtureOfExperts, with gradients", against=f"{HF} MixtralSparseMoeBlock",
                  error=max(errors), cases=CASES, bound=3e-6)


def test_mixtral_balance_loss(parity) -> None:
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    errors = []
    for seed in range(CASES):
        num_active = 1 + seed % 5
        ours, _ = mixtral_pair(seed, num_active)
        x = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(seed))
        ours(x)
        logits = ours.router(x).flatten(0, 1)
        # theirs counts every choice of a token as a whole one, ours shares one among them
        theirs = load_balancing_loss_func((logits,), 5, num_active) / num_active
        errors.append((ours.balance_loss - theirs).abs().item())
    assert parity("MixtureOfExperts, balance loss", against=f"{HF} load_balancing_loss_func",
                  error=max(errors), cases=CASES, bound=1e-6)


def test_the_reference_model_has_513736_parameters() -> None:
    layer = nn.TransformerEncoderLayer(d_model=128, nhead=8, dim_feedforward=512, batch_first=True)
    encoder = nn.TransformerEncoder(layer, num_layers=2)
    tables = [nn.Embedding(200, 128), nn.Embedding(512, 128), nn.LayerNorm(128),
              nn.Linear(128, 200)]
    count = sum(p.numel() for module in (encoder, *tables) for p in module.parameters())
    ours = Block(MultiHeadAttention(128, 8, bias=True), FeedForward(128, 512, "relu", True),
                 LayerNorm(128), LayerNorm(128), layout="post")
    own = 2 * sum(p.numel() for p in ours.parameters())
    assert own == sum(p.numel() for p in encoder.parameters())
    assert own + sum(p.numel() for table in tables for p in table.parameters()) == count == 513_736
