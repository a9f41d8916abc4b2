"""One contract for every kind of attention, and what each kind alone promises."""

import copy
import itertools

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from scratchbook.attention import (
    LatentAttention,
    LinearAttention,
    MultiHeadAttention,
    assert_no_future_leak,
    attend,
    banded_attend,
    causal_mask,
    linear_attend,
    padding_mask,
    tiled_attend,
    window_mask,
)
from scratchbook.cache import KVCache, StateCache, WindowCache
from scratchbook.norms import RMSNorm
from scratchbook.positions import ALiBi, RotaryEmbedding
from scratchbook.runtime import named_generator

TIME, WIDTH = 40, 32


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=named_generator(0, f"variants{shape}"))


def heads(**options):
    return lambda: MultiHeadAttention(WIDTH, 4, **copy.deepcopy(options))


def latent(absorbed):
    return lambda: LatentAttention(WIDTH, 4, latent_dim=12, head_dim=8, rope_dim=4, value_dim=6,
                                   rotary=RotaryEmbedding(4), latent_norm=RMSNorm(12),
                                   absorbed=absorbed)


VARIANTS = {  # how to build it, and a cache for it
    "MHA": (heads(), lambda: KVCache(TIME)),
    "GQA": (heads(num_kv_heads=2), lambda: KVCache(TIME)),
    "MQA": (heads(num_kv_heads=1), lambda: KVCache(TIME)),
    "rotary": (heads(num_kv_heads=2, rotary=RotaryEmbedding(8)), lambda: KVCache(TIME)),
    "alibi": (heads(alibi=ALiBi(4)), lambda: KVCache(TIME)),
    "qk-norm": (heads(q_norm=RMSNorm(8), k_norm=RMSNorm(8)), lambda: KVCache(TIME)),
    "wide heads": (heads(head_dim=12, bias="qkv"), lambda: KVCache(TIME)),
    "window": (heads(window=5, rotary=RotaryEmbedding(8)), lambda: WindowCache(5)),
    "window of one": (heads(window=1), lambda: WindowCache(1)),
    "window, full cache": (heads(window=5), lambda: KVCache(TIME)),
    "window and ALiBi": (heads(window=6, alibi=ALiBi(4)), lambda: WindowCache(6)),
    "sinks": (heads(window=5, sinks=2, num_kv_heads=2), lambda: WindowCache(5, sinks=2)),
    "latent": (latent(None), lambda: KVCache(TIME)),
    "latent, absorbed": (latent(True), lambda: KVCache(TIME)),
    "latent, unpacked": (latent(False), lambda: KVCache(TIME)),
    "linear": (lambda: LinearAttention(WIDTH, 4), StateCache),
    "linear, rotary": (lambda: LinearAttention(WIDTH, 4, RotaryEmbedding(8)), StateCache),
}
every_variant = pytest.mark.parametrize("name", VARIANTS)
PADDING = {"no padding": None, "left padding": padding_mask([TIME, 31], TIME, side="left")}


def build(name: str):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VARIANTS[name][0]()


@every_variant
def test_no_output_depends_on_a_later_input(name):
    assert_no_future_leak(build(name), inputs=normal(2, TIME, WIDTH))


@every_variant
@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("chunks", [[1], [17, 1, 1, 5], [TIME]], ids=str)
def test_cached_equals_recomputed_at_every_position(name, padding, chunks, monkeypatch):
    monkeypatch.setattr(WindowCache, "SLACK", 3)  # so that the window moves up often
    layer, cache = build(name), VARIANTS[name][1]()
    x, mask = normal(2, TIME, WIDTH), PADDING[padding]
    parts, sizes = [], itertools.cycle(chunks)
    while cache.length < TIME:
        end = min(cache.length + next(sizes), TIME)
        seen = None if mask is None else mask[..., :end]
        parts.append(layer(x[:, cache.length : end], seen, cache))
    assert_close(torch.cat(parts, dim=1), layer(x, mask), atol=1e-6, rtol=0)


@every_variant
def test_padding_changes_nothing_for_the_real_tokens(name):
    layer, x = build(name), normal(1, TIME, WIDTH)
    if "sinks" in name:
        pytest.skip("sinks are the first columns, padding or not")
    padded = torch.cat([normal(1, 9, WIDTH), x], dim=1)
    mask = padding_mask([TIME], TIME + 9, side="left")
    places = torch.arange(-9, TIME)
    assert_close(layer(padded, mask, positions=places)[:, 9:], layer(x), atol=1e-5, rtol=0)


@every_variant
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_type_goes_through(name, dtype):
    layer, x = build(name), normal(2, 12, WIDTH)
    out = layer.to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    assert_close(out.float(), build(name)(x), atol=tolerance, rtol=0)


@every_variant
def test_every_weight_gets_a_gradient(name):
    layer = build(name)
    layer(normal(2, 12, WIDTH)).square().sum().backward()
    for key, weight in layer.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), key
        if not (name == "window of one" and key[0] in "qk"):  # one weight is always 1
            assert weight.grad.abs().max() > 0, key


def test_a_window_by_hand():
    rows = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert window_mask(4, 2).int().tolist() == rows
    assert window_mask(2, 2, past=3, sinks=1).int().tolist() == [[1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]
    assert torch.equal(window_mask(5, 9), causal_mask(5))


@pytest.mark.parametrize(("time", "window", "sinks"),
                         [(40, 7, 0), (41, 1, 0), (64, 16, 3), (9, 4, 2)])
def test_the_band_equals_the_masked_table(time, window, sinks):
    q, k, v = normal(3, 2, 4, time, 8)
    want = attend(q, k, v, window_mask(time, window, sinks=sinks))
    assert_close(banded_attend(q, k, v, window, sinks), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("block_size", [1, 5, 16, 64])
@pytest.mark.parametrize("causal", [True, False])
def test_tiles_of_any_size_give_the_same(block_size, causal):
    q, k, v = normal(3, 2, 4, 37, 8)
    mask = padding_mask([37, 30], 37, side="left")
    want = attend(q, k, v, mask & causal_mask(37) if causal else mask)
    assert_close(tiled_attend(q, k, v, mask, causal, block_size), want, atol=2e-6, rtol=0)


def test_tiles_align_new_queries_with_the_last_keys():
    q, k, v = normal(3, 1, 2, 20, 8)
    late = tiled_attend(q[:, :, 14:], k, v, block_size=4)
    assert_close(late, attend(q, k, v, causal_mask(20))[:, :, 14:], atol=2e-6, rtol=0)


def test_tiles_do_not_overflow():
    q, k, v = normal(3, 1, 1, 20, 8)
    out = tiled_attend(200 * q, 200 * k, v, block_size=4)  # scores in the tens of thousands
    assert_close(out, attend(200 * q, 200 * k, v, causal_mask(20)), atol=1e-5, rtol=0)


class LargestTensor(TorchDispatchMode):
    """Remember the most entries that any result had, whoever asked for it."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                self.entries = max(self.entries, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize(("attention", "linear"), [
    (lambda q, k, v: attend(q, k, v, causal_mask(q.shape[2])), False),
    (lambda q, k, v: tiled_attend(q, k, v, block_size=32), True),
    (lambda q, k, v: banded_attend(q, k, v, window=32), True),
    (lambda q, k, v: linear_attend(q, k, v)[0], True),
], ids=["table", "tiles", "band", "linear"])
def test_who_builds_a_table_of_time_by_time(attention, linear):
    sizes = []
    for time in (512, 1024):
        with LargestTensor() as seen:
            attention(*normal(3, 1, 1, time, 8))
        sizes.append(seen.entries)
    assert sizes[1] / sizes[0] == (2 if linear else 4)


def test_linear_attention_equals_its_sum_written_out():
    q, k, v = normal(3, 2, 3, 20, 8)
    phi_q, phi_k = (torch.where(x > 0, x + 1, x.exp()) for x in (q, k))
    weights = (phi_q @ phi_k.transpose(-2, -1)).tril()
    want = (weights / weights.sum(-1, keepdim=True)) @ v
    for chunk in (1, 7, 64):
        assert_close(linear_attend(q, k, v, chunk=chunk)[0], want, atol=1e-5, rtol=0)


def test_linear_attention_carries_its_past_in_a_state_that_does_not_grow():
    q, k, v = normal(3, 1, 2, 30, 8)
    whole, _ = linear_attend(q, k, v)
    parts, state = [], None
    for t in range(30):
        out, state = linear_attend(*(x[:, :, t : t + 1] for x in (q, k, v)), state)
        parts.append(out)
        assert [s.shape for s in state] == [(1, 2, 8, 8), (1, 2, 8)]
    assert_close(torch.cat(parts, dim=2), whole, atol=1e-5, rtol=0)
    mask = padding_mask([30], 33, side="left")
    padded = [torch.cat([normal(1, 2, 3, 8), x], dim=2) for x in (q, k, v)]
    assert_close(linear_attend(*padded, mask=mask)[0][:, :, 3:], whole, atol=1e-5, rtol=0)


def test_linear_weights_turned_behind_the_feature_map_depend_on_distance_alone():
    """Su et al. (2021), equation 19: turned above the fraction bar, plain below it."""
    rotary, q, k = RotaryEmbedding(8), normal(8), normal(1, 2, 1, 8)[0, :, 0]
    q, k, v = (x.expand(1, 1, 12, 8) for x in (q, k[0], k[1]))  # the same word everywhere

    def turn(x, first=0):
        return rotary(x, torch.arange(first, first + x.shape[2]))

    phi_q, phi_k = (torch.where(x > 0, x + 1, x.exp()) for x in (q, k))
    weights = (turn(phi_q) @ turn(phi_k).transpose(-2, -1)).tril()
    plain = (phi_q @ phi_k.transpose(-2, -1)).tril()
    want = weights @ v / plain.sum(-1, keepdim=True)
    for chunk in (1, 5, 64):
        assert_close(linear_attend(q, k, v, chunk=chunk, turn=turn)[0], want, atol=1e-5, rtol=0)
    for distance in range(6):  # every diagonal is constant
        along = weights[0, 0].diagonal(-distance)
        assert_close(along, along[:1].expand_as(along), atol=1e-5, rtol=0)
    layer, x = build("linear, rotary"), normal(2, 12, WIDTH)
    assert_close(layer(x, positions=torch.arange(100, 112)), layer(x), atol=1e-5, rtol=0)
    assert (layer(x) - build("linear")(x)).abs().max() > 1e-3, "the turn must matter"


def test_the_state_of_linear_attention_does_not_grow():
    layer, cache = build("linear, rotary"), StateCache()
    for _ in range(3):
        layer(normal(2, 30, WIDTH), cache=cache)
        assert [part.shape for part in cache.state] == [(2, 4, 8, 8), (2, 4, 8)]
        assert not any(part.requires_grad for part in cache.state)
    assert cache.length == 90


@pytest.mark.parametrize("slack", [1, 2, 64])
def test_the_window_moves_up_once_in_slack_plus_one_tokens(slack):
    layer, cache = build("window"), WindowCache(5, slack=slack)
    assert cache.max_seq_len == 4 + slack
    x, moved = normal(1, TIME, WIDTH), []
    for t in range(TIME):
        kept = cache._kept
        out = layer(x[:, t : t + 1], cache=cache)
        moved += [t] if cache._kept <= kept and t >= 4 + slack else []
        assert_close(out, layer(x[:, : t + 1])[:, -1:], atol=1e-6, rtol=0)
    assert moved == list(range(4 + slack, TIME, slack + 1))


def test_the_latent_cache_holds_what_its_formula_says():
    layer, cache = build("latent"), KVCache(TIME)
    layer(normal(2, 7, WIDTH), cache=cache)
    assert cache.bytes_per_token == 2 * 4 * (12 + 4)  # batch x float32 x (latent + rotated key)


def test_a_window_cache_stays_small_and_forgets_only_as_a_whole():
    layer, cache = build("sinks"), WindowCache(5, sinks=2)
    for _ in range(200):
        layer(normal(1, 1, WIDTH), cache=cache)
    assert cache.length == 200 and cache.max_seq_len == 2 + 5 - 1 + WindowCache.SLACK
    with pytest.raises(ValueError, match="can only be emptied"):
        cache.truncate(199)
    cache.truncate(0)
    assert cache.length == 0
    layer(normal(1, 6, WIDTH), cache=cache)
    cache.truncate(4)
    x = normal(1, 6, WIDTH)
    assert_close(layer(x[:, 4:], cache=cache), layer(x)[:, 4:], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("action", "message"), [
    (lambda: MultiHeadAttention(8, 2, window=0), "window=0"),
    (lambda: MultiHeadAttention(8, 2, window=3, causal=False), "causal=False"),
    (lambda: window_mask(3, 0), "window=0"),
    (lambda: WindowCache(0), "window=0"),
    (lambda: WindowCache(4, slack=0), "slack=0"),
    (lambda: LinearAttention(9, 2), "d_model=9"),
    (lambda: LinearAttention(8, 2)(normal(1, 4, 8), causal_mask(4)[None, None]), "row by row"),
    (lambda: LatentAttention(8, 2, 0), "latent_dim=0"),
    (lambda: LatentAttention(8, 2, 4, rope_dim=4), "rope_dim=4"),
    (lambda: tiled_attend(*normal(3, 1, 1, 4, 8), block_size=0), "block_size=0"),
    (lambda: tiled_attend(normal(1, 1, 5, 8), *normal(2, 1, 1, 4, 8)), "5 queries but 4 keys"),
    (lambda: linear_attend(*normal(3, 1, 1, 4, 8), chunk=0), "chunk=0"),
    (lambda: banded_attend(*normal(3, 1, 1, 4, 8), 2, mask=causal_mask(4)[None, None]),
     "by columns"),
])
def test_errors_carry_the_values(action, message):
    with pytest.raises(ValueError, match=message):
        action()
