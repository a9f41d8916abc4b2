"""scratchbook.attention.dot_product and masks: a worked example, laws, behaviour, errors."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from scratchbook.attention import attend, causal_mask, padding_mask
from scratchbook.runtime import named_generator

IMPLS = ["eager", "sdpa"]


def normal(*shape: int, name: str = "") -> torch.Tensor:
    return torch.randn(*shape, generator=named_generator(0, f"{name}{shape}"))


def hidden_some(time: int, keys: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(time, keys, generator=named_generator(seed, "mask")) < 0.5


# Worked by hand. head_dim is 4, so the scores are halved. The query meets its first key with
# 2 * ln 3, the second with 0: weights 3/4 and 1/4 of the values 8 and 0.
HAND_Q = torch.tensor([[2 * math.log(3.0), 0.0, 0.0, 0.0]])
HAND_K = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
HAND_V = torch.tensor([[8.0], [0.0]])


def test_worked_example_weights() -> None:
    out, weights = attend(HAND_Q, HAND_K, HAND_V, return_weights=True)
    assert_close(weights, torch.tensor([[0.75, 0.25]]), atol=1e-6, rtol=0)
    assert_close(out, torch.tensor([[6.0]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("impl", IMPLS)
def test_worked_example_with_its_first_key_hidden(impl: str) -> None:
    mask = torch.tensor([[False, True]])
    assert_close(attend(HAND_Q, HAND_K, HAND_V, mask, impl=impl), torch.zeros(1, 1))


def test_scores_are_divided_by_the_root_of_head_dim() -> None:
    # Repeating every coordinate four times makes dot products four times as large and head_dim
    # too, so the scores double: exactly as if q had been doubled.
    q, k, v = normal(3, 5), normal(4, 5), normal(4, 2)
    wide = attend(q.repeat(1, 4), k.repeat(1, 4), v)
    assert_close(wide, attend(2 * q, k, v), atol=1e-6, rtol=0)


def test_causal_mask_worked_example() -> None:
    expected = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool()
    assert torch.equal(causal_mask(3), expected)


def test_causal_mask_with_a_past_is_aligned_bottom_right() -> None:
    expected = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    assert torch.equal(causal_mask(2, past=2), expected)
    assert torch.equal(causal_mask(5)[3:], causal_mask(2, past=3))


def test_the_shortcut_of_sdpa_is_wrong_once_there_is_a_past() -> None:
    # Why causal_mask is built by hand: with keys from a cache, is_causal hides the recent ones.
    q, k, v = normal(2, 4), normal(5, 4), normal(5, 3)
    shortcut = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert_close(shortcut, attend(q, k, v, causal_mask(5)[:2]), atol=1e-6, rtol=0)
    assert not torch.allclose(shortcut, attend(q, k, v, causal_mask(2, past=3)), atol=1e-2)


def test_padding_mask_worked_example() -> None:
    assert padding_mask([1, 3], 3).tolist() == [[[[True, False, False]]], [[[True, True, True]]]]
    left = padding_mask(torch.tensor([1, 3]), 3, side="left")
    assert left.tolist() == [[[[False, False, True]]], [[[True, True, True]]]]


@pytest.mark.parametrize("impl", IMPLS)
def test_future_cannot_change_the_past(impl: str) -> None:
    q, k, v = normal(6, 4, name="q"), normal(6, 4, name="k"), normal(6, 4, name="v")
    before = attend(q, k, v, causal_mask(6), impl=impl)
    for s in range(1, 6):
        k[s:], v[s:] = 100 + normal(6 - s, 4), -100 + normal(6 - s, 4)
        after = attend(q, k, v, causal_mask(6), impl=impl)
        assert torch.equal(after[:s], before[:s])
        assert not torch.allclose(after[s:], before[s:])
        before = after


@pytest.mark.parametrize("impl", IMPLS)
def test_permuting_keys_with_their_values_changes_nothing(impl: str) -> None:
    q, k, v = normal(5, 4, name="q"), normal(7, 4), normal(7, 3)
    order = torch.randperm(7, generator=named_generator(0))
    assert_close(attend(q, k[order], v[order], impl=impl), attend(q, k, v, impl=impl),
                 atol=1e-6, rtol=0)


def test_weights_are_a_distribution_over_what_may_be_seen() -> None:
    mask = hidden_some(6, 8) | (torch.arange(8) == 0)
    _, weights = attend(normal(6, 4), normal(8, 4), normal(8, 4), mask, return_weights=True)
    assert_close(weights.sum(-1), torch.ones(6), atol=1e-6, rtol=0)
    assert (weights[~mask] == 0).all() and (weights[mask] > 0).all()


def test_output_stays_within_the_values() -> None:
    out = attend(10 * normal(6, 4), normal(8, 4), v := normal(8, 3))
    assert (out <= v.amax(0) + 1e-6).all() and (out >= v.amin(0) - 1e-6).all()


@pytest.mark.parametrize("impl", IMPLS)
def test_a_query_that_may_look_at_nothing_gets_zeros(impl: str) -> None:
    q, k, v = (normal(2, 4, 3, name=n).requires_grad_() for n in "qkv")
    mask = causal_mask(4) & padding_mask([4, 2], 4, side="left")[:, 0]  # (batch, time, keys)
    assert not mask[1, :2].any()
    out = attend(q, k, v, mask, impl=impl)
    assert (out[1, :2] == 0).all() and (out[1, 2:] != 0).all()
    out.square().sum().backward()
    for tensor in (q, k, v):
        assert tensor.grad.isfinite().all()
    assert (q.grad[1, :2] == 0).all() and (v.grad[1, :2] == 0).all()


@pytest.mark.parametrize("impl", IMPLS)
def test_large_scores_do_not_overflow(impl: str) -> None:
    q, k, v = 1e4 * normal(5, 4, name="q"), 1e4 * normal(5, 4, name="k"), normal(5, 4, name="v")
    assert attend(q, k, v, causal_mask(5), impl=impl).isfinite().all()


@pytest.mark.parametrize("impl", IMPLS)
def test_hidden_keys_might_as_well_not_exist(impl: str) -> None:
    # Scores far below any "large negative number" that one might hide keys with.
    q, k, v = -1e6 * torch.ones(3, 4), torch.ones(5, 4), normal(5, 2)
    mask = torch.arange(5) < 3
    out = attend(q, k, v, mask.expand(3, 5), impl=impl)
    assert_close(out, attend(q, k[:3], v[:3], impl=impl), atol=1e-6, rtol=0)


def test_both_paths_agree_with_their_gradients() -> None:
    mask = hidden_some(7, 9)
    mask[3] = False
    grads = []
    for impl in IMPLS:
        q, k, v = (normal(2, time, 4, name=name).requires_grad_()
                   for name, time in (("q", 7), ("k", 9), ("v", 9)))
        out = attend(q, k, v, mask, impl=impl)
        out.square().mean().backward()
        grads.append((out, q.grad, k.grad, v.grad))
    for one, other in zip(*grads, strict=True):
        assert_close(one, other, atol=1e-6, rtol=0)


def test_a_mask_for_each_sequence_broadcasts_over_heads() -> None:
    q = normal(2, 3, 5, 4)  # (batch, heads, time, head_dim)
    both = causal_mask(5) & padding_mask([5, 2], 5)
    assert both.shape == (2, 1, 5, 5)
    _, weights = attend(q, q, q, both, return_weights=True)
    assert (weights[1, :, :, 2:] == 0).all() and (weights[0, :, 4] > 0).all()


def test_float64_stays_float64() -> None:
    q = normal(3, 4).double()
    assert attend(q, q, q, causal_mask(3)).dtype == torch.float64


Q = torch.zeros(3, 4)


@pytest.mark.parametrize(
    "arguments, fragments",
    [
        ((Q, torch.zeros(5, 6), torch.zeros(5, 4)), ["head_dim=4", "6"]),
        ((Q, torch.zeros(5, 4), torch.zeros(6, 4)), ["5 keys", "6 values"]),
        ((Q[0], Q, Q), ["(4,)", "q[None]"]),
        ((Q, Q, Q, torch.ones(3, 3)), ["float32", "True = may look", "mask == 0"]),
        ((Q, Q, Q, torch.ones(3, 5).bool()), ["(3, 5)", "3 keys", "causal_mask(time, past)"]),
        ((Q, Q, Q, torch.ones(3).bool()), ["(3,)", "it needs (time, keys)"]),
    ],
)
def test_errors_carry_the_values_and_the_way_out(arguments: tuple, fragments: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        attend(*arguments)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_errors_of_paths_and_masks() -> None:
    with pytest.raises(ValueError, match="'flash' is unknown; choose one of eager, sdpa"):
        attend(Q, Q, Q, impl="flash")
    with pytest.raises(ValueError, match="'readable' is unknown; choose one of eager, sdpa"):
        attend(Q, Q, Q, impl="readable")  # its name of old
    with pytest.raises(ValueError, match="impl='eager'"):
        attend(Q, Q, Q, impl="sdpa", return_weights=True)
    with pytest.raises(ValueError, match="past=-1"):
        causal_mask(3, past=-1)
    with pytest.raises(ValueError, match="length 4 is not within 0..seq_len=3"):
        padding_mask([1, 4], 3)
    with pytest.raises(ValueError, match="side='top'"):
        padding_mask([1], 3, side="top")
    with pytest.raises(ValueError, match=r"shape \(\)"):
        padding_mask(torch.tensor(2), 3)
