"""The fast product: equal to torch's, put back afterwards, and a reason where it cannot be."""

import shutil

import pytest
import torch
from torch import nn

from scratchbook import fast_decoding as fast
from scratchbook.config import PRESETS, ModelConfig
from scratchbook.fast_decoding import FastLinear, compile_library, fast_decoding
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.norms import LayerNorm

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="no C++ compiler (c++, g++, clang++) on this machine")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gpt() -> DecoderLM:
    """GPT-2 in small, its norms and biases no longer ones and zeros."""
    torch.manual_seed(0)
    model = DecoderLM(PRESETS["gpt2"].with_(
        vocab_size=211, max_seq_len=96, num_layers=3, d_model=64, num_heads=4, num_kv_heads=None,
        head_dim=None, d_ff=None)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    nn.init.normal_(model.positions.table.weight, std=4.0)  # so that it does not repeat itself
    return model


@needs_compiler
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("height", "width"), [(1, 16), (3, 48), (64, 64), (211, 336)])
@torch.no_grad()
def test_the_product_equals_torchs_in_float64(height, width, bias):
    model = nn.Sequential(nn.Linear(width, height, bias=bias))
    with fast_decoding(model) as reason:
        assert reason is None and type(model[0]) is FastLinear
        for rows in range(1, 11):  # from 9 on torch's own
            x = torch.randn(rows, width)
            expected = nn.functional.linear(
                x.double(), model[0].weight.double(), model[0].bias.double() if bias else None)
            torch.testing.assert_close(model(x).double(), expected, rtol=1e-5, atol=1e-6)


@needs_compiler
@torch.no_grad()
def test_bfloat16_is_summed_in_float32_and_rounded_once():
    linear = nn.Linear(512, 77).bfloat16()
    x = torch.randn(2, 3, 512).bfloat16()
    exact = nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double())
    with fast_decoding(model := nn.Sequential(linear)):
        out = model(x)
    assert out.dtype == torch.bfloat16 and out.shape == (2, 3, 77)
    torch.testing.assert_close(out.double(), exact, rtol=2**-8, atol=1e-5)


@needs_compiler
@torch.no_grad()
def test_a_matrix_on_large_pages_keeps_its_numbers():
    model = nn.Sequential(nn.Linear(1024, 2049))
    before, x = model[0].weight.clone(), torch.randn(1, 1024)
    assert before.nbytes > fast.LARGE
    with fast_decoding(model):
        torch.testing.assert_close(model(x), nn.functional.linear(x, before, model[0].bias),
                                   rtol=1e-5, atol=1e-6)
    assert torch.equal(model[0].weight, before)


@needs_compiler
def test_vectors_that_do_not_lie_side_by_side():
    model = nn.Sequential(nn.Linear(32, 8))
    x = torch.randn(32, 4).T  # its rows are columns of another
    expected = model(x)
    with torch.no_grad(), fast_decoding(model):
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_64_greedy_tokens_are_identical(batch):
    model = gpt()
    prompts = torch.randint(211, (batch, 7)).tolist()
    plain = generate(model, prompts, 64, temperature=0)
    with fast_decoding(model) as reason:
        assert reason is None
        assert generate(model, prompts, 64, temperature=0) == plain
    assert len(set(plain[0])) > 5  # not one token again and again


@needs_compiler
@torch.no_grad()
def test_logits_equal_the_plain_models_in_both_types():
    ids = torch.randint(211, (1, 5))
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.04)):
        model = gpt().to(dtype)
        plain = model(ids).float()
        with fast_decoding(model):
            difference = (model(ids).float() - plain).abs().max() / plain.abs().max()
        assert difference < tolerance, dtype


@needs_compiler
def test_any_config_decodes_the_same():
    model = DecoderLM(ModelConfig(vocab_size=97, max_seq_len=64, num_layers=2, d_model=48,
                                  num_heads=4, num_kv_heads=2, qk_norm=True)).eval()
    plain = generate(model, [5, 6, 7], 20, temperature=0)
    with fast_decoding(model) as reason:
        assert reason is None
        assert generate(model, [5, 6, 7], 20, temperature=0) == plain


@needs_compiler
def test_afterwards_everything_is_as_it_was_even_after_an_error():
    model = gpt()
    before = dict(model.named_modules())
    names = list(model.state_dict())
    with pytest.raises(ZeroDivisionError), fast_decoding(model):
        kinds = {type(module) for module in model.modules()}
        assert nn.Linear not in kinds and LayerNorm not in kinds
        assert list(model.state_dict()) == names
        assert model.lm_head.weight is model.token_embedding.weight
        raise ZeroDivisionError
    after = dict(model.named_modules())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


@needs_compiler
def test_gradients_still_flow():
    model = gpt()
    with fast_decoding(model):
        model(torch.randint(211, (1, 4))).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@needs_compiler
def test_a_width_that_no_lane_divides_is_left_alone():
    model = nn.Sequential(nn.Linear(30, 32), nn.Linear(32, 3))
    with fast_decoding(model):
        assert [type(layer) for layer in model] == [nn.Linear, FastLinear]
        with torch.no_grad():
            model(torch.randn(1, 30))


def test_without_a_compiler_nothing_changes_and_the_reason_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    fast._library.cache_clear()
    model = gpt()
    with fast_decoding(model) as reason:
        assert "no C++ compiler" in reason and "CXX" in reason
        assert type(model.lm_head) is nn.Linear and type(model.final_norm) is LayerNorm


@needs_compiler
def test_what_the_compiler_refuses_is_quoted(tmp_path):
    source = tmp_path / "broken.cpp"
    source.write_text("int nonsense(", encoding="utf-8")
    with pytest.raises(RuntimeError, match="refused.*broken.cpp"):
        compile_library(source)


def test_several_threads_or_nothing_to_replace_are_reasons():
    with fast_decoding(nn.Sequential(nn.ReLU())) as reason:
        assert "no linear layer" in reason
    torch.set_num_threads(2)
    with fast_decoding(gpt()) as reason:
        assert "set_num_threads(1)" in reason
