"""Norms against torch's and transformers', with their gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.norms import LayerNorm, RMSNorm


def largest_gap(ours, theirs, x: torch.Tensor) -> float:
    """Over outputs, input gradients and parameter gradients, as a share of the largest entry."""
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    results = []
    for norm in (ours, theirs):
        given = x.clone().requires_grad_()
        out = norm(given)
        (out * upstream).sum().backward()
        results.append([out, given.grad, *(p.grad for p in norm.parameters())])
        norm.zero_grad()
    return max(((a - b).abs().max() / b.abs().max().clamp_min(1)).item()
               for a, b in zip(*results, strict=True))


def same_weights(ours, theirs) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.copy_(torch.randn(a.shape, generator=generator))
            b.copy_(a)


def pairs(width: int, eps: float) -> list:
    transformers = pytest.importorskip("transformers.models.llama.modeling_llama")
    return [
        ("LayerNorm", "torch nn.LayerNorm", LayerNorm(width, eps),
         torch.nn.LayerNorm(width, eps)),
        ("LayerNorm without bias", "torch nn.LayerNorm", LayerNorm(width, eps, bias=False),
         torch.nn.LayerNorm(width, eps, bias=False)),
        ("RMSNorm", "torch nn.RMSNorm", RMSNorm(width, eps), torch.nn.RMSNorm(width, eps)),
        ("RMSNorm", "transformers LlamaRMSNorm", RMSNorm(width, eps),
         transformers.LlamaRMSNorm(width, eps)),
    ]


@pytest.mark.parametrize("which", range(4))
def test_norms_and_gradients_equal_the_libraries(which, parity):
    worst, cases = 0.0, 0

    @settings(max_examples=60, derandomize=True)
    @given(st.integers(2, 200), st.integers(1, 40), st.sampled_from([1e-6, 1e-5, 1e-2]),
           st.sampled_from([1e-3, 1.0, 50.0]))
    def compare(width, rows, eps, size):
        nonlocal worst, cases
        _, _, ours, theirs = pairs(width, eps)[which]
        same_weights(ours, theirs)
        x = size * torch.randn(rows, width, generator=torch.Generator().manual_seed(width))
        worst, cases = max(worst, largest_gap(ours, theirs, x)), cases + 1

    compare()
    name, against, _, _ = pairs(8, 1e-5)[which]
    # small inputs have gradients up to 1e5: the gap is relative to the largest entry
    assert parity(f"{name}, with gradients", against=against, error=worst, cases=cases, bound=1e-6)


@pytest.mark.parametrize("which", [2, 3])
def test_bfloat16_equals_the_libraries_to_one_rounding(which, parity):
    _, against, ours, theirs = pairs(64, 1e-5)[which]
    ours, theirs = ours.bfloat16(), theirs.bfloat16()
    same_weights(ours, theirs)
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    gap = ((ours(x) - theirs(x)).float().abs() / theirs(x).float().abs().clamp_min(1)).max()
    # torch multiplies by the gain before it rounds, we (and Llama) after: one digit of bfloat16
    assert parity("RMSNorm in bfloat16", against=against, error=gap.item(), cases=50, bound=2**-7)
