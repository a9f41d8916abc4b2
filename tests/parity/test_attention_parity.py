"""Outputs and gradients against torch's own attention, on shapes and masks drawn at random."""

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from scratchbook.attention import MultiHeadAttention, attend, causal_mask, padding_mask

TORCH = f"torch {torch.__version__.split('+')[0]}"
BOUND = 1e-6
RANDOM = settings(max_examples=250, deadline=None, derandomize=True, database=None,
                  suppress_health_check=list(HealthCheck))
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 17), st.integers(1, 17),
                  st.integers(1, 24), st.integers(0, 2**31))


def gap(ours, theirs) -> float:
    """The largest absolute difference; infinite when either side holds something not finite."""
    differences = [(a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)]
    return max(d if d == d else float("inf") for d in differences)


def with_gradients(function, *tensors: torch.Tensor, upstream: torch.Tensor) -> list[torch.Tensor]:
    """[output, gradient of each tensor]; `upstream` is scaled so that gradients are of size one."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def random_mask(kind: str, time: int, keys: int, generator: torch.Generator) -> torch.Tensor | None:
    if kind == "none":
        return None
    if kind == "causal":
        return causal_mask(time, past=keys - time) if keys >= time else None
    mask = torch.rand(time, keys, generator=generator) < 0.6
    return mask if kind == "empty rows" else mask | (torch.arange(keys) == 0)


def test_attend_equals_sdpa(parity) -> None:
    errors: dict[str, list[float]] = {"eager": [], "sdpa": []}

    @RANDOM
    @given(SIZES, st.sampled_from(["none", "causal", "random", "empty rows"]))
    def compare(sizes: tuple, kind: str) -> None:
        batch, heads, time, keys, head_dim, seed = sizes
        generator = torch.Generator().manual_seed(seed)
        q, k, v, upstream = (torch.randn(batch, heads, n, head_dim, generator=generator)
                             for n in (time, keys, keys, time))
        mask = random_mask(kind, time, keys, generator)
        seeing = None if mask is None else mask.any(-1, keepdim=True)

        def reference(*qkv: torch.Tensor) -> torch.Tensor:
            if mask is None:
                return F.scaled_dot_product_attention(*qkv)
            # torch promises nothing for rows without a single True: they are ours to define
            out = F.scaled_dot_product_attention(*qkv, attn_mask=mask | ~seeing)
            return torch.where(seeing, out, 0.0)

        theirs = with_gradients(reference, q, k, v, upstream=upstream / time)
        for impl, found in errors.items():
            ours = with_gradients(lambda *qkv, impl=impl: attend(*qkv, mask, impl=impl), q, k, v,
                                  upstream=upstream / time)
            found.append(gap(ours, theirs))
            assert found[-1] <= BOUND, (impl, sizes, kind, found[-1])

    compare()
    for impl, found in errors.items():
        assert len(found) >= 200
        assert parity(f"attend, {impl} impl, with gradients",
                      against=f"{TORCH} scaled_dot_product_attention",
                      error=max(found), cases=len(found), bound=BOUND)


def test_causal_equals_is_causal(parity) -> None:
    errors = []
    for time in range(1, 41):
        q, k, v = torch.randn(3, 2, 2, time, 8, generator=torch.Generator().manual_seed(time))
        theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        errors.append(gap([attend(q, k, v, causal_mask(time))], [theirs]))
    assert parity("causal_mask", against=f"{TORCH} scaled_dot_product_attention(is_causal=True)",
                  error=max(errors), cases=len(errors), bound=BOUND)


def copy_weights(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    projections = (ours.q_proj, ours.k_proj, ours.v_proj)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.out_proj.weight.copy_(ours.o_proj.weight)
        if theirs.in_proj_bias is not None:
            theirs.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
            theirs.out_proj.bias.copy_(ours.o_proj.bias)


def parameter_gradients(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> tuple:
    """Gradients of both layers in one order: q, k, v, o, then their biases."""
    projections = (ours.q_proj, ours.k_proj, ours.v_proj, ours.o_proj)
    mine = [p.weight.grad for p in projections]
    others = [*theirs.in_proj_weight.grad.chunk(3), theirs.out_proj.weight.grad]
    if theirs.in_proj_bias is not None:
        mine += [p.bias.grad for p in projections]
        others += [*theirs.in_proj_bias.grad.chunk(3), theirs.out_proj.bias.grad]
    return mine, others


def test_multihead_equals_nn_multiheadattention(parity) -> None:
    errors = []

    @RANDOM
    @given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 12), st.integers(1, 8),
           st.booleans(), st.sampled_from(["none", "causal", "padded"]),
           st.sampled_from(["eager", "sdpa"]), st.integers(0, 2**31))
    def compare(batch: int, heads: int, time: int, head_dim: int, bias: bool, kind: str, impl: str,
                seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        d_model = heads * head_dim
        ours = MultiHeadAttention(d_model, heads, bias=bias, impl=impl, causal=kind != "none")
        theirs = nn.MultiheadAttention(d_model, heads, bias=bias, batch_first=True)
        copy_weights(ours, theirs)
        x, upstream = torch.randn(2, batch, time, d_model, generator=generator)
        upstream = upstream / (batch * time)
        lengths = torch.randint(1, time + 1, (batch,), generator=generator)
        padding = padding_mask(lengths, time) if kind == "padded" else None

        def torch_layer(x: torch.Tensor) -> torch.Tensor:
            # torch's polarity is the opposite: True = may not look
            hidden = None if kind == "none" else ~causal_mask(time)
            ignored = None if padding is None else ~padding[:, 0, 0]
            return theirs(x, x, x, key_padding_mask=ignored, attn_mask=hidden,
                          need_weights=False)[0]

        results = []
        for layer in (lambda x: ours(x, mask=padding), torch_layer):
            leaf = x.clone().requires_grad_()
            out = layer(leaf)
            out.backward(upstream)
            results.append([out.detach(), leaf.grad])
        mine, others = parameter_gradients(ours, theirs)
        errors.append(max(gap(*results), gap(mine, others)))
        assert errors[-1] <= BOUND, (batch, heads, time, head_dim, bias, kind, impl, errors[-1])

    compare()
    assert len(errors) >= 200
    assert parity("MultiHeadAttention, with gradients", against=f"{TORCH} nn.MultiheadAttention",
                  error=max(errors), cases=len(errors), bound=BOUND)


def test_grouped_queries_equal_sdpa_with_enable_gqa(parity) -> None:
    errors = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        kv_heads, group, time = (int(torch.randint(1, n, (1,), generator=generator))
                                 for n in (4, 5, 12))
        torch.manual_seed(seed)
        layer = MultiHeadAttention(6 * kv_heads * group, kv_heads * group, kv_heads)
        x = torch.randn(2, time, 6 * kv_heads * group, generator=generator)
        q, k, v = (projection(x).view(2, time, -1, 6).transpose(1, 2)
                   for projection in (layer.q_proj, layer.k_proj, layer.v_proj))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        errors.append(gap([layer(x)], [layer.o_proj(mixed.transpose(1, 2).flatten(2))]))
    assert parity("MultiHeadAttention with num_kv_heads", against=f"{TORCH} enable_gqa=True",
                  error=max(errors), cases=len(errors), bound=BOUND)
