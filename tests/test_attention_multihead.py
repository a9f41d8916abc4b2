"""MultiHeadAttention and KVCache: laws, our own paths against each other, errors."""

import pytest
import torch
from torch.testing import assert_close

from scratchbook.attention import (
    MultiHeadAttention,
    assert_no_future_leak,
    attend,
    causal_mask,
    padding_mask,
)
from scratchbook.cache import KVCache
from scratchbook.runtime import named_generator

SHARING = [(4, 4), (4, 2), (4, 1), (1, 1), (6, 3)]


def normal(*shape: int, name: str = "") -> torch.Tensor:
    return torch.randn(*shape, generator=named_generator(0, f"{name}{shape}"))


def build(num_heads: int = 4, num_kv_heads: int | None = None, **options) -> MultiHeadAttention:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MultiHeadAttention(6 * num_heads, num_heads, num_kv_heads, **options)


def by_hand(layer: MultiHeadAttention, x: torch.Tensor, causal: bool = True) -> torch.Tensor:
    """Every head by itself, on its own slice of the weights, in two plain loops."""
    d, group = layer.head_dim, layer.num_heads // layer.num_kv_heads
    sequences = []
    for sequence in x:
        parts = []
        for head in range(layer.num_heads):
            mine = slice(head * d, (head + 1) * d)
            shared = slice(head // group * d, (head // group + 1) * d)
            q = sequence @ layer.q_proj.weight[mine].T
            k = sequence @ layer.k_proj.weight[shared].T
            v = sequence @ layer.v_proj.weight[shared].T
            parts.append(attend(q, k, v, causal_mask(len(sequence)) if causal else None))
        sequences.append(torch.cat(parts, dim=-1) @ layer.o_proj.weight.T)
    return torch.stack(sequences)


@pytest.mark.parametrize("heads, kv_heads", SHARING)
@pytest.mark.parametrize("impl", ["eager", "sdpa"])
@pytest.mark.parametrize("causal", [True, False])
def test_equals_a_loop_over_heads(heads: int, kv_heads: int, impl: str, causal: bool) -> None:
    layer = build(heads, kv_heads, impl=impl, causal=causal)
    x = normal(2, 7, 6 * heads)
    assert_close(layer(x), by_hand(layer, x, causal), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_shared_heads_equal_full_heads_with_repeated_weights(kv_heads: int) -> None:
    shared, full = build(4, kv_heads), build(4)
    full.load_state_dict(shared.state_dict() | {
        name: shared.state_dict()[name].view(kv_heads, 1, 6, 24).expand(-1, 4 // kv_heads, -1, -1)
        .reshape(24, 24) for name in ("k_proj.weight", "v_proj.weight")
    })
    x = normal(2, 5, 24)
    assert_close(shared(x), full(x), atol=1e-6, rtol=0)


def test_parameters_shrink_with_the_heads_that_are_shared() -> None:
    sizes = [sum(p.numel() for p in build(4, n).parameters()) for n in (4, 2, 1)]
    assert sizes == [4 * 24 * 24, 3 * 24 * 24, 24 * 24 * 5 // 2]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("chunks", [[9], [1] * 9, [4, 1, 3, 1]])
def test_cached_equals_full(kv_heads: int, chunks: list[int]) -> None:
    layer, x, cache = build(4, kv_heads), normal(2, 9, 24), KVCache(12)
    parts = [layer(part, cache=cache) for part in x.split(chunks, dim=1)]
    assert_close(torch.cat(parts, dim=1), layer(x), atol=1e-6, rtol=0)
    assert cache.length == 9


def test_cached_equals_full_with_padding() -> None:
    layer, x, cache = build(), normal(2, 6, 24), KVCache(6)
    padding = padding_mask([6, 4], 6, side="left")
    full = layer(x, mask=padding)
    first = layer(x[:, :4], mask=padding[..., :4], cache=cache)
    rest = [layer(x[:, t : t + 1], mask=padding[..., : t + 1], cache=cache) for t in (4, 5)]
    assert_close(torch.cat([first, *rest], dim=1), full, atol=1e-6, rtol=0)
    assert cache.length == 6
    assert (full[1, :2] == 0).all(), "rows that see nothing are zero (the layer has no bias)"


def test_padding_changes_nothing_for_the_real_tokens() -> None:
    layer, x = build(), normal(1, 4, 24)
    padded = torch.cat([x, 50 * normal(1, 3, 24)], dim=1)
    out = layer(padded, mask=padding_mask([4], 7))
    assert_close(out[:, :4], layer(x), atol=1e-6, rtol=0)
    left = layer(padded.flip(1), mask=padding_mask([4], 7, side="left"))
    assert_close(left[:, 3:], layer(x.flip(1)), atol=1e-6, rtol=0)


def test_permutation_equivariance_without_a_mask_and_not_with_one() -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    x = normal(2, 5, 24)
    free, causal = build(causal=False), build()
    assert_close(free(x[:, order]), free(x)[:, order], atol=1e-6, rtol=0)
    assert not torch.allclose(causal(x[:, order]), causal(x)[:, order], atol=1e-2)


def test_weights_are_those_the_output_was_made_with() -> None:
    layer, x = build(4, 2), normal(2, 5, 24)
    out, weights = layer(x, return_weights=True)
    assert weights.shape == (2, 4, 5, 5)
    assert_close(out, layer(x), atol=1e-6, rtol=0)
    v = (x @ layer.v_proj.weight.T).view(2, 5, 2, 6).transpose(1, 2)
    mixed = torch.stack([weights[:, h] @ v[:, h // 2] for h in range(4)], dim=2)
    assert_close(mixed.flatten(2) @ layer.o_proj.weight.T, out, atol=1e-6, rtol=0)


@pytest.mark.parametrize("heads, kv_heads", SHARING)
def test_no_leak_by_default(heads: int, kv_heads: int) -> None:
    assert_no_future_leak(build(heads, kv_heads), inputs=normal(2, 8, 6 * heads))


@pytest.mark.parametrize("bias", [True, False])
def test_bias_is_an_option(bias: bool) -> None:
    names = dict(build(bias=bias).named_parameters())
    assert ("q_proj.bias" in names) == bias and ("o_proj.bias" in names) == bias


def test_errors_carry_the_values() -> None:
    with pytest.raises(ValueError, match="d_model=10 is not divisible by num_heads=4"):
        MultiHeadAttention(10, 4)
    with pytest.raises(ValueError, match="num_heads=4 is not divisible by num_kv_heads=3"):
        MultiHeadAttention(8, 4, 3)
    with pytest.raises(ValueError, match="num_kv_heads=0"):
        MultiHeadAttention(8, 4, 0)
    with pytest.raises(ValueError, match="impl='quick' is unknown"):
        MultiHeadAttention(8, 4, impl="quick")
    with pytest.raises(ValueError, match=r"\(2, 5, 7\).*d_model=24"):
        build()(normal(2, 5, 7))
    with pytest.raises(ValueError, match=r"\(4, 5, 5\).*heads, time, keys.*mask\[:, None\]"):
        build()(normal(4, 5, 24), mask=torch.ones(4, 5, 5).bool())


def test_cache_returns_everything_so_far_in_order() -> None:
    cache, k = KVCache(5), normal(2, 3, 5, 4)
    cache.append(k[:, :, :2], -k[:, :, :2])
    keys, values = cache.append(k[:, :, 2:], -k[:, :, 2:])
    assert torch.equal(keys, k) and torch.equal(values, -k)
    assert cache.bytes_per_token == 2 * (2 * 3 * 4) * 4  # k and v, float32


def test_cache_truncates_and_continues() -> None:
    layer, x, cache = build(), normal(1, 6, 24), KVCache(6)
    layer(normal(1, 5, 24, name="other")[:, :2], cache=cache)
    cache.truncate(0)
    layer(x[:, :5], cache=cache)
    cache.truncate(3)
    assert_close(layer(x[:, 3:], cache=cache), layer(x)[:, 3:], atol=1e-6, rtol=0)


def test_cache_keeps_no_graph() -> None:
    layer, cache = build(), KVCache(4)
    layer(normal(1, 2, 24), cache=cache)
    keys, _ = cache.append(normal(1, 4, 1, 6), normal(1, 4, 1, 6))
    assert not keys.requires_grad


def test_cache_errors_carry_the_values() -> None:
    cache, k = KVCache(4), normal(1, 2, 3, 4)
    cache.append(k, k)
    with pytest.raises(ValueError, match="3 tokens are cached and 2 more .* max_seq_len=4"):
        cache.append(k[:, :, :2], k[:, :, :2])
    full, _ = cache.append(k[:, :, :1], k[:, :, :1])
    assert full.shape[2] == cache.length == 4
    cache.truncate(3)
    with pytest.raises(ValueError, match="batch=1, kv_heads=2, head_dim=4"):
        cache.append(normal(2, 2, 1, 4), normal(2, 2, 1, 4))
    with pytest.raises(ValueError, match=r"length=9 is not within 0\.\.3"):
        cache.truncate(9)
    with pytest.raises(ValueError, match="max_seq_len=0"):
        KVCache(0)
    assert cache.length == 3, "a refused token must not count"
