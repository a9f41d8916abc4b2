"""QLoRA: packed weights under adapters give what their numbers give, and only adapters learn.

That the codes are bitsandbytes' is tests/parity/test_quantization_parity.py's matter.
"""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from scratchbook.compression import QuantizedEmbedding, QuantizedLinear, quantize, size_in_bytes
from scratchbook.config import ModelConfig
from scratchbook.finetuning.adapters import load_adapter, save_adapter
from scratchbook.finetuning.lora import apply_lora, lora_layers, merge
from scratchbook.finetuning.quantized_base import (
    dequantized,
    merge_dequantized,
    qlora,
)
from scratchbook.finetuning.tuning_memory import step_bytes
from scratchbook.generation import generate
from scratchbook.weights import load_pretrained, save_pretrained
from tests.random_models import random_model

CONFIG = ModelConfig(64, max_seq_len=64, num_layers=2, d_model=64, num_heads=4, num_kv_heads=2,
                     d_ff=128)
KINDS = {"plain": {}, "tied": {"tie_embeddings": True},
         "gpt2": {"norm": "layer", "positions": "learned", "bias": "all",
                  "feedforward": "gelu_tanh", "tie_embeddings": True}}
IDS = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(0))


def base(kind="plain"):
    return random_model(CONFIG.with_(**KINDS[kind]), std=0.1)


def learned(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def trained(kind="plain", **options):
    torch.manual_seed(0)
    model = qlora(base(kind), lora_rank=4, **options)
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    return model


def step(model):
    logits = model(IDS)
    cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    return logits.detach()


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_the_numbers_that_the_codes_stand_for(kind):
    model = trained(kind)
    twin = dequantized(model)
    assert not any(isinstance(m, QuantizedLinear | QuantizedEmbedding) for m in twin.modules())
    assert_close(step(model), step(twin), atol=1e-5, rtol=0)
    mine, other = learned(model), learned(twin)
    assert mine.keys() == other.keys() and len(mine) == 2 * len(lora_layers(model))
    for name, parameter in mine.items():
        assert parameter.grad.abs().max() > 1e-5, name
        assert_close(parameter.grad, other[name].grad, atol=1e-5, rtol=0)
    assert (twin(IDS) - base(kind)(IDS)).abs().max() > 1e-3  # the codes did round


def test_gradients_go_to_adapters_alone_and_packed_codes_stay():
    model = trained()
    before = {name: b.clone() for name, b in model.named_buffers()}
    optimizer = torch.optim.AdamW(learned(model).values(), lr=0.02, weight_decay=0.0)
    losses = []
    for _ in range(40):
        loss = cross_entropy(model(IDS[:, :-1]).flatten(0, 1), IDS[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(".lora_" in name for name in learned(model))
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())


def test_memory_is_what_tensors_take():
    full, packed = base(), quantize(base(), "nf4", double=True)
    model = trained()
    counted = step_bytes(model, 2, 16)
    packed_bytes = counted["weights"] - sum(p.nbytes for p in learned(model).values())
    assert packed_bytes == size_in_bytes(packed) < 0.25 * size_in_bytes(full)
    step(model)
    optimizer = torch.optim.AdamW(learned(model).values(), lr=0.01)
    optimizer.step()
    grads = sum(p.grad.numel() * p.grad.element_size() for p in learned(model).values())
    states = sum(t.numel() * t.element_size() for state in optimizer.state.values()
                 for name, t in state.items() if name != "step")
    assert (counted["gradients"], counted["optimizer"]) == (grads, states)
    # half a byte a weight, a byte of scale for 64, and per 256 scales a float32; a mean for each
    matrices = [m.packed for m in packed.modules() if hasattr(m, "packed")]
    numbers = [p.shape[0] * p.shape[1] for p in matrices]
    norms = 4 * sum(p.numel() for p in packed.parameters())
    assert packed_bytes == norms + sum(n // 2 + n // 64 + 4 * -(-n // (64 * 256)) + 4
                                          for n in numbers)


def test_the_adapter_is_saved_alone_and_loaded_on_the_packed_base(tmp_path):
    model = trained()
    folder = save_adapter(model, tmp_path / "adapter")
    size = (folder / "adapter_model.safetensors").stat().st_size
    assert size < 4 * sum(p.numel() for p in learned(model).values()) + 12_000
    again = load_adapter(quantize(base(), "nf4", double=True), folder)
    assert torch.equal(again(IDS), model(IDS))
    with pytest.raises(ValueError, match="adapter"):
        load_adapter(base(), folder)  # the base before it was packed is another one
    wide = load_adapter(base(), folder, any_base=True)
    assert (wide(IDS) - model(IDS)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_merging_into_a_dequantized_copy(kind, tmp_path):
    model = trained(kind)
    before = model(IDS)
    plain = merge_dequantized(model)
    assert_close(plain(IDS), before, atol=1e-5, rtol=0)
    assert plain.state_dict().keys() == base(kind).state_dict().keys()
    assert torch.equal(model(IDS), before)  # the packed one is as it was
    again = load_pretrained(save_pretrained(plain, tmp_path))
    assert_close(again(IDS), before, atol=1e-5, rtol=0)
    assert generate(again, [1, 2], 8, temperature=0) == generate(model, [1, 2], 8, temperature=0)
    if CONFIG.with_(**KINDS[kind]).tie_embeddings:
        assert plain.lm_head.weight is plain.token_embedding.weight
    packed_again = quantize(copy.deepcopy(plain), "nf4", double=True)
    assert (packed_again(IDS) - before).abs().max() > 1e-3  # what packing it again loses


def test_scales_of_the_input_are_part_of_the_numbers():
    model = trained()
    for place, layer in enumerate(lora_layers(model).values()):  # as AWQ leaves them
        packed = layer.base_layer
        packed.input_scale = torch.linspace(0.5, 1.5 + place / 10, packed.in_features)
    assert_close(merge_dequantized(model)(IDS), model(IDS), atol=1e-5, rtol=0)


def test_what_does_not_fit_is_refused():
    model = base()
    with pytest.raises(ValueError, match="names no linear layer"):
        qlora(model, "c_attn")
    assert not any(isinstance(m, QuantizedLinear) for m in model.modules())
    with pytest.raises(ValueError, match="plain already"):
        dequantized(apply_lora(model))
    with pytest.raises(ValueError, match="packed as nf4.*or merge into the model in float32"):
        merge(trained())
    with pytest.raises(ValueError, match="holds no adapter|no adapter"):
        merge_dequantized(quantize(base(), "nf4"))
