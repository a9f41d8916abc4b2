"""The memory of fine-tuning: what the formula says, against what autograd keeps."""

import pytest
import torch

from scratchbook.compression import quantize
from scratchbook.config import ModelConfig
from scratchbook.finetuning import apply_lora
from scratchbook.finetuning.streaming import UNPACKED
from scratchbook.finetuning.tuning_memory import measured_saved_bytes, saved_bytes, step_bytes
from scratchbook.model import DecoderLM
from scratchbook.training.optim import build_optimizer, state_bytes

SMALL = ModelConfig(211, 64, 3, 64, 4, num_kv_heads=2, d_ff=192)
LARGER = ModelConfig(500, 128, 2, 128, 4, d_ff=320, norm="rms_no_gain", tie_embeddings=True)
OTHERS = {
    "gpt2": ModelConfig(211, 64, 3, 64, 4, feedforward="gelu_tanh", norm="layer",
                        positions="learned", bias="all", tie_embeddings=True),
    "qwen3": ModelConfig(211, 64, 3, 64, 4, num_kv_heads=2, head_dim=32, qk_norm=True)}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def full(config):
    return DecoderLM(config)


def lora(config, **options):
    return apply_lora(DecoderLM(config), **options)


def qlora(config):
    model = quantize(DecoderLM(config), "nf4", double=True,
                     skip=UNPACKED)
    return apply_lora(model, lora_rank=8)


WAYS = {
    "full": full, "LoRA q,v": lora, "QLoRA q,v": qlora,
    "LoRA attention": lambda config: lora(config, targets=ATTENTION),
    "LoRA all": lambda config: lora(config, targets="all-linear", lora_rank=16),
    "LoRA feed-forward": lambda config: lora(config, targets="feedforward"),
    "LoRA down": lambda config: lora(config, targets="down_proj", lora_rank=2),
    "LoRA with dropout": lambda config: lora(config, dropout=0.1),
    "LoRA in a late block": lambda config: lora(config, targets="blocks.1")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("config", "batch", "seq_len"), [(SMALL, 3, 33), (LARGER, 2, 100)],
                         ids=["small", "larger"])
def test_saved_tensors_are_as_many_as_the_formula_says(config, batch, seq_len, way):
    said, measured = said_and_measured(config, batch, seq_len, way)
    assert said == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("way", ["full", "LoRA q,v", "LoRA all"])
@pytest.mark.parametrize("family", OTHERS)
def test_other_families_too(family, way):
    said, measured = said_and_measured(OTHERS[family], 2, 50, way)
    assert said == pytest.approx(measured, rel=0.05)


def said_and_measured(config, batch, seq_len, way):
    """The bytes that a step saves for its backward pass: by formula, and as autograd keeps them."""
    model = WAYS[way](config).train()
    ids = torch.randint(config.vocab_size, (batch, seq_len))
    return (step_bytes(model, batch, seq_len)["saved"],
            measured_saved_bytes(model, ids, ids.roll(-1, 1).clone()))


@pytest.mark.parametrize("way", ["full", "LoRA q,v", "QLoRA q,v"])
def test_gradients_and_the_optimizers_state_are_counted_exactly(way):
    model = WAYS[way](SMALL).train()
    optimizer = build_optimizer(model, "adamw", lr=1e-3)
    ids = torch.randint(211, (2, 16))
    model(ids).float().logsumexp(-1).sum().backward()
    optimizer.step()
    found = step_bytes(model, 2, 16)
    assert found["gradients"] == sum(p.grad.nbytes for p in model.parameters()
                                     if p.grad is not None)
    assert found["optimizer"] == state_bytes(optimizer)
    held = {t.data_ptr(): t.untyped_storage().nbytes()
            for t in (*model.parameters(), *model.buffers()) if t.numel()}
    assert found["weights"] == sum(held.values())


def test_what_adapting_saves_and_what_it_does_not():
    with torch.device("meta"):
        config = ModelConfig(4096, 1024, 6, 256, 8, d_ff=704, tie_embeddings=True)
        whole, adapted = (step_bytes(way(config), 8, 256) for way in (full, lora))
        large = ModelConfig(32_000, 1024, 8, 1024, 16)
        ratio = [sum(step_bytes(way(large), 1, 64)[part] for part in ("gradients", "optimizer"))
                 for way in (lora, full)]
    assert ratio[0] <= 0.01 * ratio[1]
    moved = [found["gradients"] + found["optimizer"] for found in (adapted, whole)]
    assert moved[0] <= 0.01 * moved[1]
    assert adapted["saved"] > 0.5 * whole["saved"]  # gradients still pass through every block
    assert adapted["weights"] > whole["weights"]


def test_nothing_is_kept_below_the_first_adapter():
    early, late = ({f"blocks.{n}.attention.q_proj": 8} for n in (0, 2))
    assert saved_bytes(SMALL, 2, 32, late) < 0.6 * saved_bytes(SMALL, 2, 32, early)
    assert saved_bytes(SMALL, 2, 32, early) < saved_bytes(SMALL, 2, 32)
