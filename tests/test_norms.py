"""Norms: worked examples, laws, and what half precision does to them."""

import pytest
import torch
from torch.testing import assert_close

from scratchbook.norms import DynamicTanh, LayerNorm, RMSNorm, layer_norm, rms_norm, softcap
from scratchbook.runtime import named_generator


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=named_generator(0, f"norms{shape}"))


def test_rms_norm_by_hand():
    x = torch.tensor([3.0, -4.0])  # mean square 12.5
    assert_close(rms_norm(x, eps=0.0), x / 12.5**0.5)
    gain = torch.tensor([2.0, 0.5])
    assert_close(rms_norm(x, gain, eps=0.0), x / 12.5**0.5 * gain)


def test_layer_norm_by_hand():
    x = torch.tensor([1.0, 2.0, 3.0])  # mean 2, population variance 2/3
    assert_close(layer_norm(x, eps=0.0), torch.tensor([-1.0, 0.0, 1.0]) * 1.5**0.5)


def test_eps_stands_inside_the_root():
    x = torch.tensor([1e-3, 1e-3])
    assert_close(rms_norm(x, eps=1e-6), x / (2e-6) ** 0.5)
    opposite = torch.tensor([1e-3, -1e-3])
    assert_close(layer_norm(opposite, eps=1e-6), torch.tensor([1.0, -1.0]) / 2**0.5)


@pytest.mark.parametrize("norm", [RMSNorm(16), LayerNorm(16), LayerNorm(16, bias=False),
                                  RMSNorm(16, gain=False)])
def test_size_does_not_matter_and_zero_is_harmless(norm):
    x = normal(5, 16)
    assert_close(norm(1000 * x), norm(x), atol=1e-4, rtol=0)
    zero = torch.zeros(2, 16, requires_grad=True)
    norm(zero).sum().backward()
    assert zero.grad.isfinite().all()


def test_layer_norm_does_not_see_a_shift_and_rms_norm_does():
    x = normal(3, 16)
    assert_close(layer_norm(x + 7), layer_norm(x), atol=1e-5, rtol=0)
    assert (rms_norm(x + 7) - rms_norm(x)).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", [rms_norm, layer_norm])
def test_half_precision_keeps_its_type_and_does_not_overflow(norm, dtype):
    x = (300 * normal(4, 64)).to(dtype)  # squares reach 1e6, past float16's 65,504
    out = norm(x)
    assert out.dtype == dtype and out.isfinite().all()
    # two roundings of the result, each of half a last digit
    step = torch.finfo(dtype).eps
    assert_close(out.float(), norm(x.float()), atol=4 * step, rtol=step)


def test_without_a_gain_there_is_nothing_to_learn():
    assert not list(RMSNorm(8, gain=False).parameters())
    assert [p.shape for p in LayerNorm(8, bias=False).parameters()] == [(8,)]


def test_softcap_keeps_small_numbers_and_bounds_large_ones():
    x = torch.tensor([0.1, -0.1, 1e4, -1e4])
    assert_close(softcap(x, 30.0), torch.tensor([0.1, -0.1, 30.0, -30.0]), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="limit=0"):
        softcap(x, 0)


def test_dynamic_tanh_by_hand():
    norm = DynamicTanh(2, alpha=0.5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 1.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0]))
    assert_close(norm(torch.tensor([2.0, 0.0])), torch.tensor([2 * 0.7615942, 1.0]))


@pytest.mark.parametrize("norm", [RMSNorm(8), LayerNorm(8), DynamicTanh(8)])
def test_another_width_is_refused(norm):
    with pytest.raises(ValueError, match=r"\(2, 9\).*d_model=8"):
        norm(torch.zeros(2, 9))


@pytest.mark.parametrize("norm", [
    rms_norm, layer_norm, lambda x: rms_norm(x, torch.arange(1.0, 5.0)),
    lambda x: softcap(x, 2.0)])
def test_second_derivatives_are_right(norm):
    x = normal(3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(norm, x) and torch.autograd.gradgradcheck(norm, x)


@pytest.mark.parametrize("norm", [rms_norm, layer_norm])
def test_torch_func_goes_through(norm):
    x = normal(3, 4).double()
    by_rows = torch.func.vmap(torch.func.hessian(lambda row: norm(row).pow(3).sum()))(x)
    wanted = [torch.autograd.functional.hessian(lambda row: norm(row).pow(3).sum(), row)
              for row in x]
    assert_close(by_rows, torch.stack(wanted))
