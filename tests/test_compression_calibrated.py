"""GPTQ, AWQ and rounding that is trained: each against what it claims."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from scratchbook.compression import PackedWeight, QuantizedLinear, quantize
from scratchbook.compression.awq import awq_scale, quantize_awq
from scratchbook.compression.gptq import calibrate, gptq, layer_error, quantize_gptq
from scratchbook.compression.qat import FakeQuantize, convert_qat, prepare_qat
from scratchbook.compression.quantize import Scheme, choose_scales, from_codes, quantized, to_codes
from scratchbook.compression.saving import load_compressed, save_compressed
from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM

SCHEMES = [Scheme("int4", 8), Scheme("int8"), Scheme("int4", "channel", symmetric=False),
           Scheme("nf4", 8)]


def layer(seed=0, rows=12, columns=24, samples=200):
    """A matrix and correlated inputs, a few of them large."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, columns, generator=generator) @ torch.randn(
        columns, columns, generator=generator)
    x[:, :2] *= 10
    return torch.randn(rows, columns, generator=generator), x


def tiny(**changes) -> DecoderLM:
    torch.manual_seed(0)
    return DecoderLM(ModelConfig(**{"vocab_size": 61, "max_seq_len": 64, "num_layers": 2,
                                    "d_model": 32, "num_heads": 2, "d_ff": 64} | changes)).eval()


def batches():
    return torch.randint(61, (4, 2, 24), generator=torch.Generator().manual_seed(1))


def direct(weight, products, scheme, size):
    """The same greedy choice; after each column all others are solved for anew, from scratch."""
    start, done = weight.double(), torch.zeros_like(weight, dtype=torch.float64)
    left, codes = start.clone(), []
    inner = Scheme(scheme.kind, "channel", scheme.symmetric)
    for column in range(weight.shape[1]):
        if column % size == 0:
            scale, zero = choose_scales(left[:, column : column + size], inner)
        codes.append(to_codes(left[:, column : column + 1], scale, zero, inner))
        done[:, column] = from_codes(codes[-1], scale, zero, inner)[:, 0]
        here, rest = slice(0, column + 1), slice(column + 1, None)
        # what is left of the outputs, in least squares: rest P_rr = (start - done) P_hr + ...
        gap = (start[:, here] - done[:, here]) @ products[here, rest]
        left[:, rest] = start[:, rest] + torch.linalg.solve(products[rest, rest], gap.T).T
    return torch.cat(codes, 1)


@pytest.mark.parametrize("block", [5, 128])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_gptq_makes_the_choices_of_a_direct_solve(scheme, block, monkeypatch):
    monkeypatch.setattr("scratchbook.compression.gptq.BLOCK", block)
    weight, x = layer()
    products = (x.T @ x / len(x)).double()
    codes, _, _ = gptq(weight, products, scheme, damping=0.0)
    size = scheme.group_size if isinstance(scheme.group_size, int) else 24
    assert torch.equal(codes, direct(weight, products, scheme, size))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_gptq_moves_the_outputs_less_than_rounding_to_the_nearest(scheme, seed):
    weight, x = layer(seed)
    products = x.T @ x / len(x)
    codes, scales, zeros = gptq(weight, products, scheme)
    better = layer_error(weight, from_codes(codes, scales, zeros, scheme), products)
    nearest = quantized(weight, scheme)
    assert better < layer_error(weight, nearest, products)
    exact = ((x @ (nearest - weight).T).norm() / (x @ weight.T).norm()).item()
    assert layer_error(weight, nearest, products) == pytest.approx(exact, rel=1e-4)


def test_an_input_that_is_always_zero_and_one_that_repeats_another():
    weight, x = layer()
    x[:, 3], x[:, 5] = 0, x[:, 4]
    codes, scales, zeros = gptq(weight, x.T @ x / len(x), Scheme("int4", 8))
    assert from_codes(codes, scales, zeros, Scheme("int4", 8)).isfinite().all()
    with pytest.raises(ValueError, match="raise damping=0.0"):
        gptq(weight, torch.ones(24, 24), Scheme("int4", 8), damping=0.0)


@pytest.mark.parametrize("seed", range(3))
def test_awq_is_never_worse_than_the_nearest_code_and_better_with_large_inputs(seed):
    weight, x = layer(seed)
    model = nn.Sequential(nn.Linear(24, 12))
    model[0].weight.data = weight
    inputs = calibrate(model, {"0": model[0]}, [x[:100], x[100:]])["0"]
    assert_close(inputs.products, x.T @ x / len(x), rtol=1e-4, atol=1e-3)
    assert_close(inputs.sizes, x.abs().mean(0))
    scheme = Scheme("int4", "channel")
    scale = awq_scale(weight, inputs, scheme)
    assert layer_error(weight, quantized(weight * scale, scheme) / scale, inputs.products) < (
        layer_error(weight, quantized(weight, scheme), inputs.products))


def with_large_inputs(**changes) -> DecoderLM:
    """A model whose layers see a few inputs that are much larger than the others."""
    model = tiny(**changes)
    for block in model.blocks:
        block.attention_norm.weight.data[:3] = 20
        block.feedforward_norm.weight.data[:3] = 20
    return model


@pytest.mark.parametrize("method", [quantize_gptq, quantize_awq])
def test_a_whole_model_moves_less_than_by_rounding(method):
    skip = ("token_embedding", "lm_head")
    plain, nearest = with_large_inputs(), quantize(with_large_inputs(), "int4", 32, skip=skip)
    model = method(with_large_inputs(), batches(), "int4", 32, skip=skip)
    assert not any(m._forward_pre_hooks for m in model.modules())
    with torch.no_grad():
        truth = torch.cat([plain(b) for b in batches()])
        gaps = [(torch.cat([m(b) for b in batches()]) - truth).norm() for m in (model, nearest)]
    assert gaps[0] < gaps[1]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", [quantize_gptq, quantize_awq])
@torch.no_grad()
def test_it_is_saved_and_comes_back(method, tied, tmp_path):
    model = method(tiny(tie_embeddings=tied), batches(), "int4", 32)
    assert {type(m) for m in model.modules() if isinstance(m, nn.Linear)} == {QuantizedLinear}
    assert (model.lm_head.packed is model.token_embedding.packed) == tied
    back = load_compressed(save_compressed(model, tmp_path / "model.safetensors"))
    assert torch.equal(back(batches()[0]), model(batches()[0]))


def test_calibration_needs_text():
    with pytest.raises(ValueError, match="saw 0 vectors in 0 batches"):
        quantize_gptq(tiny(), [])


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_gradient_goes_straight_through(scheme):
    weight = torch.randn(4, 16, requires_grad=True)
    goal = torch.randn(4, 16)
    rounded = FakeQuantize(scheme)(weight)
    (0.5 * (rounded - goal) ** 2).sum().backward()
    assert_close(rounded, quantized(weight, scheme))
    assert_close(weight.grad, quantized(weight, scheme) - goal)


@pytest.mark.parametrize("tied", [True, False])
def test_what_was_trained_is_what_is_packed(tied):
    model, ids = prepare_qat(tiny(tie_embeddings=tied), "int4", skip=("blocks.1",)), batches()[0]
    assert model(ids).requires_grad
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    trained = model(ids).detach()
    convert_qat(model)
    assert_close(model(ids), trained, rtol=1e-5, atol=1e-5)
    assert type(model.blocks[1].attention.q_proj) is nn.Linear
    assert (model.lm_head.packed is model.token_embedding.packed) == tied
    assert isinstance(model.lm_head.packed, PackedWeight)


def test_a_model_that_was_not_prepared_is_not_converted():
    with pytest.raises(ValueError, match="call prepare_qat"):
        convert_qat(tiny())
