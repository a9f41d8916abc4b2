"""Packed layers: the product of what they hold, in the memory of their codes, in any model."""

import copy
import platform
import shutil

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torch.testing import assert_close

from scratchbook.compression import (
    PackedWeight,
    QuantizedEmbedding,
    QuantizedLinear,
    Scheme,
    packed_product,
    quantize,
    size_in_bytes,
)
from scratchbook.config import ModelConfig
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from tests.tiny_models import build

SCHEMES = [Scheme("int8"), Scheme("int8", "tensor"), Scheme("int8", 32, symmetric=False),
           Scheme("int4"), Scheme("int4", "channel", symmetric=False), Scheme("int4", "tensor"),
           Scheme("nf4", double=True), Scheme("fp4", 32), Scheme("int4", 16),
           Scheme("int4", 32, symmetric=False, double=True)]
every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="no C++ compiler (c++, g++, clang++) on this machine")


def tiny(**changes) -> DecoderLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "max_seq_len": 64, "num_layers": 2, "d_model": 64, "num_heads": 2,
             "d_ff": 128}
    return DecoderLM(ModelConfig(**sizes | changes)).eval()


def linear(scheme: Scheme, out=37, width=128, bias=True) -> QuantizedLinear:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, out, bias=bias))
    return quantize(model, scheme.kind, scheme.group_size, scheme.symmetric, scheme.double)[0]


@needs_compiler
@every_scheme
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_the_compiled_product_is_that_of_the_numbers_it_holds(scheme, bias):
    assert not isinstance(packed_product.library(), str)
    layer = linear(scheme, bias=bias)
    for shape in ((1,), (2,), (2, 3), (32,), (33,), (0,)):  # few rows, then some, then many
        x = torch.randn(*shape, 128)
        exact = F.linear(x.double(), layer.dequantize().double(),
                         layer.bias.double() if bias else None)
        assert_close(layer(x).double(), exact, rtol=1e-5, atol=2e-6)
    for height in (1, 2, 3, 5):  # fewer rows than are read side by side
        layer, x = linear(scheme, height), torch.randn(1, 128)
        assert_close(layer(x), F.linear(x, layer.dequantize(), layer.bias), rtol=1e-5, atol=2e-6)


@needs_compiler
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"),
                    reason="the flags are those of x86-64 processors")
@pytest.mark.parametrize("flags", ["-mno-avx512f", "-mno-avx512f -mno-avx2 -mno-avx"])
@torch.no_grad()
def test_older_processors_compute_the_same(monkeypatch, tmp_path, flags):
    compiler = tmp_path / "older"
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    compiler.write_text(f'#!/bin/sh\nexec "{found}" "$@" {flags}\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    packed_product.library.cache_clear()
    try:
        assert not isinstance(packed_product.library(), str)
        for scheme in SCHEMES:
            test_the_compiled_product_is_that_of_the_numbers_it_holds(scheme, True)
    finally:
        packed_product.library.cache_clear()


@needs_compiler
@torch.no_grad()
def test_the_product_is_compiled_where_it_can_be_and_told_where_not(monkeypatch):
    taken = []
    monkeypatch.setattr(packed_product, "library", lambda: taken.append(1) or "none here")
    layer = linear(Scheme("int4"))
    layer(torch.randn(1, 128))
    assert taken
    taken.clear()
    layer(torch.randn(33, 128))
    linear(Scheme("int4", 16))(torch.randn(1, 128))
    with torch.enable_grad():
        layer(torch.randn(1, 128))
    assert not taken


@torch.no_grad()
def test_without_a_compiler_the_results_are_the_same(monkeypatch):
    layer, x = linear(Scheme("nf4")), torch.randn(2, 128)
    compiled = layer(x)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    packed_product.library.cache_clear()
    try:
        assert "no C++ compiler" in packed_product.library()
        assert_close(layer(x), compiled, rtol=1e-5, atol=2e-6)
    finally:
        packed_product.library.cache_clear()


@torch.no_grad()
def test_inputs_in_other_types_and_arrangements():
    layer = linear(Scheme("int4"))
    x = torch.randn(128, 3).T  # its rows are columns of another
    expected = F.linear(x, layer.dequantize(), layer.bias)
    assert_close(layer(x), expected, rtol=1e-5, atol=2e-6)
    layer.bfloat16()
    out = layer(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), expected, rtol=0.02, atol=0.02)
    with pytest.raises(ValueError, match="64 numbers a row, the matrix 128"):
        layer(torch.randn(1, 64))


@every_scheme
def test_gradients_pass_to_the_input_and_the_bias_and_stop_there(scheme):
    layer, x = linear(scheme), torch.randn(3, 128, requires_grad=True)
    grad = torch.randn(3, 37)
    layer(x).backward(grad)
    assert_close(x.grad, grad @ layer.dequantize())
    assert_close(layer.bias.grad, grad.sum(0))
    assert [name for name, _ in layer.named_parameters()] == ["bias"]


def test_what_is_kept_for_the_gradient_is_not_the_unpacked_matrix():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), lambda t: t):
        linear(Scheme("nf4"))(torch.randn(3, 128, requires_grad=True))
    assert sum(kept) == 0


def test_the_gradient_under_bfloat16_autocast():
    layer, x = linear(Scheme("nf4")), torch.randn(3, 128, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    out.float().sum().backward()
    assert_close(x.grad, layer.dequantize().sum(0).expand(3, -1), rtol=0.05, atol=0.1)


@every_scheme
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_equals_its_twin_of_the_rounded_numbers(scheme, tied):
    model = tiny(tie_embeddings=tied)
    quantize(model, scheme.kind, scheme.group_size, scheme.symmetric, scheme.double)
    twin = tiny(tie_embeddings=tied)
    for name, layer in twin.named_modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            layer.weight.data = model.get_submodule(name).dequantize()
    ids = torch.randint(61, (2, 9))
    assert_close(model(ids), twin(ids), atol=1e-5, rtol=0)
    with torch.no_grad():
        cache = model.new_cache()
        steps = torch.cat([model(part, cache=cache) for part in ids.split([5] + [1] * 4, 1)], dim=1)
    assert_close(steps, twin(ids), atol=1e-5, rtol=0)
    options = {"max_new_tokens": 20, "temperature": 0}
    assert generate(model, [[1, 2, 3], [4]], **options) == generate(
        twin, [[1, 2, 3], [4]], **options)


@pytest.mark.parametrize(("kind", "options", "bits"), [
    ("int8", {}, 8), ("int4", {}, 4 + 32 / 32), ("nf4", {}, 4 + 32 / 64),
    ("nf4", {"double": True}, 4 + 8 / 64 + 32 / 64 / 256), ("int4", {"group_size": 64}, 4.5)])
def test_memory_shrinks_to_the_bits_of_the_scheme(kind, options, bits):
    model = nn.Sequential(nn.Linear(512, 256, bias=False))
    assert size_in_bytes(model) == 4 * 512 * 256
    quantize(model, kind, **options)
    rows = 256 * 32 if kind == "int8" else 32 * 8  # a scale for each row; a mean, a part of a block
    assert 0 <= 8 * size_in_bytes(model) - bits * 512 * 256 <= rows


def test_tied_embeddings_are_one_copy_and_stay_one():
    model = quantize(tiny(tie_embeddings=True), "int4")
    once = size_in_bytes(model)
    assert model.lm_head.packed is model.token_embedding.packed
    assert size_in_bytes(quantize(tiny(), "int4")) == once + model.lm_head.packed.codes.nbytes + (
        model.lm_head.packed.scales.nbytes)
    for other in (copy.deepcopy(model), copy.deepcopy(model).to("cpu").bfloat16()):
        assert other.lm_head.packed is other.token_embedding.packed
        assert size_in_bytes(other) <= once


def test_a_cast_of_the_model_leaves_codes_and_scales_alone():
    model = quantize(tiny(norm="layer"), "nf4", double=True)
    before = copy.deepcopy(model.lm_head.packed.state_dict())
    ids = torch.randint(61, (1, 5))
    exact = model(ids)
    model.bfloat16()
    after = model.lm_head.packed.state_dict()
    assert all(before[name].dtype == after[name].dtype for name in before)
    assert model.token_embedding(ids).dtype == model.lm_head.weight.dtype == torch.bfloat16
    assert_close(model(ids).float(), exact, atol=0.1, rtol=0)


def test_weights_can_be_looked_at_but_not_written():
    layer = linear(Scheme("int8"))
    assert torch.equal(layer.weight, layer.dequantize())
    with pytest.raises(RuntimeError, match="inference tensor"), torch.no_grad():
        layer.weight.zero_()
    assert isinstance(layer, nn.Linear) and (layer.in_features, layer.out_features) == (128, 37)


def test_skipped_layers_stay_and_so_does_what_is_tied_to_them():
    model = quantize(tiny(tie_embeddings=True), "int8", skip=("lm_head", "blocks.1"))
    kinds = {name: type(m) for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert kinds["lm_head"] is nn.Linear and type(model.token_embedding) is nn.Embedding
    assert {kind is QuantizedLinear for name, kind in kinds.items() if "blocks.0" in name} == {True}
    assert {kind is nn.Linear for name, kind in kinds.items() if "blocks.1" in name} == {True}
    assert type(quantize(tiny(), "int8", skip="q_proj").blocks[0].attention.q_proj) is nn.Linear


def test_modules_are_replaced_in_place_and_keep_their_mode():
    model = tiny().train()
    assert quantize(model, "int8") is model and all(m.training for m in model.modules() if not
                                                     isinstance(m, PackedWeight))
    assert type(model.token_embedding) is QuantizedEmbedding


@pytest.mark.parametrize(("change", "options", "message"), [
    (lambda m: None, {"skip": ("lm_haed",)}, "skip='lm_haed' names no layer; there are token_emb"),
    (lambda m: None, {"kind": "int4", "group_size": 48},
     "token_embedding: group_size=48 does not divide the 64 inputs.*or skip it"),
    (lambda m: m.blocks[1].feedforward.down_proj.weight.data.fill_(torch.nan), {},
     "blocks.1.feedforward.down_proj: the largest weight is nan.*skip"),
    (lambda m: m.lm_head.register_forward_hook(print), {}, "lm_head has hooks"),
    (lambda m: quantize(m), {}, "is it quantized already"),
    (lambda m: None, {"kind": "q4"}, "choose one of int8, int4, nf4, fp4")])
def test_what_cannot_be_is_refused_by_name_and_nothing_changes(change, options, message):
    model = tiny()
    change(model)
    before = dict(model.named_modules())
    with pytest.raises(ValueError, match=message):
        quantize(model, **options)
    assert before == dict(model.named_modules())


def test_latent_attention_is_packed_but_for_the_matrix_that_it_folds_into_queries():
    model = tiny(latent_dim=32)
    with pytest.raises(ValueError, match='blocks.0.attention.up_proj: .*skip="attention.up_proj"'):
        quantize(model)
    quantize(model, skip="attention.up_proj")
    kept = [n for n, m in model.named_modules() if type(m) is nn.Linear]
    assert kept == ["blocks.0.attention.up_proj", "blocks.1.attention.up_proj"]
    whole = model(torch.tensor([[1, 2, 3, 4]]))
    with torch.no_grad():
        cache = model.new_cache()
        steps = [model(torch.tensor([[i]]), cache=cache) for i in (1, 2, 3, 4)]
    assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=0)


def test_a_model_that_is_one_layer_cannot_be_replaced_in_place():
    with pytest.raises(ValueError, match="inside of Linear"):
        quantize(nn.Linear(8, 8))


def test_buffers_that_do_not_belong_together_are_refused():
    packed = PackedWeight.of(torch.randn(4, 64), Scheme("int4"))
    buffers = dict(packed.named_buffers())
    buffers.pop("like")
    with pytest.raises(ValueError, match=r"matrix of shape \(4, 128\) consists of"):
        PackedWeight(Scheme("int4"), (4, 128), torch.float32, **buffers)


@pytest.mark.parametrize("family", ["gpt2", "llama", "llama 3.1", "qwen3"])
@pytest.mark.parametrize(("kind", "group_size"), [("int8", "channel"), ("nf4", 16)])
def test_models_of_transformers_are_replaced_too(family, kind, group_size):
    model = build(family)
    ids = torch.arange(9)[None]
    plain = model(ids).logits
    before = size_in_bytes(model)
    quantize(model, kind, group_size)
    assert not any(type(m) in (nn.Linear, nn.Embedding, transformers.pytorch_utils.Conv1D)
                   for m in model.modules())
    assert size_in_bytes(model) < before / 2
    logits = model(ids).logits
    error = (logits - plain).norm() / plain.norm()
    assert error < (0.05 if kind == "int8" else 0.6)
    with torch.no_grad():
        assert_close(model(ids).logits, logits, atol=1e-4, rtol=1e-4)
    written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6,
                             do_sample=False, pad_token_id=0)
    assert written.shape == (1, 15)


def test_a_quantized_layer_below_an_adapter_learns_as_qlora_does():
    model = quantize(tiny(), "nf4", double=True)
    down = nn.Parameter(0.1 * torch.randn(4, 64))
    up = nn.Parameter(torch.zeros(64, 4))
    inner = model.blocks[0].attention.q_proj

    class Adapted(nn.Module):
        def forward(self, x):
            return inner(x) + x @ down.T @ up.T

    model.blocks[0].attention.q_proj = Adapted()
    ids = torch.randint(61, (4, 12))
    optimizer = torch.optim.Adam([down, up], lr=0.01)
    losses = []
    for _ in range(10):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
