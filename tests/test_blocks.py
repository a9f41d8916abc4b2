"""The block: its four layouts by hand, its laws, what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scratchbook.attention import MultiHeadAttention, assert_no_future_leak, padding_mask
from scratchbook.blocks import LAYOUTS, Block
from scratchbook.cache import KVCache
from scratchbook.feedforward import FeedForward, MixtureOfExperts
from scratchbook.norms import RMSNorm

WIDTH = 8


def make_block(layout: str, dropout: float = 0.0, feedforward: nn.Module | None = None) -> Block:
    """A block whose four norms have different gains, so that none can stand for another."""
    torch.manual_seed(0)
    norms = [RMSNorm(WIDTH) for _ in range(4)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 2.0)
    sandwich = layout == "sandwich"
    return Block(MultiHeadAttention(WIDTH, 2), feedforward or FeedForward(WIDTH, 16), norms[0],
                 None if layout == "parallel" else norms[1], layout, dropout,
                 norms[2] if sandwich else None, norms[3] if sandwich else None)


def by_hand(block: Block, x: torch.Tensor) -> torch.Tensor:
    attend, feed = block.attention, block.feedforward
    first, second = block.attention_norm, block.feedforward_norm
    if block.layout == "pre":
        middle = x + attend(first(x))
        return middle + feed(second(middle))
    if block.layout == "post":
        middle = first(x + attend(x))
        return second(middle + feed(middle))
    if block.layout == "parallel":
        return x + attend(first(x)) + feed(first(x))
    middle = x + block.attention_post_norm(attend(first(x)))
    return middle + block.feedforward_post_norm(feed(second(middle)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_the_sum_it_says(layout):
    block, x = make_block(layout), torch.randn(2, 5, WIDTH)
    assert (block(x) - by_hand(block, x)).abs().max() <= 1e-6
    others = [by_hand(make_block(other), x) for other in LAYOUTS if other != layout]
    assert all((block(x) - other).abs().max() > 0.01 for other in others)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_future_never_changes_the_past(layout):
    assert_no_future_leak(make_block(layout), inputs=torch.randn(2, 7, WIDTH))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_token_by_token_equals_at_once(layout):
    block, x, cache = make_block(layout), torch.randn(2, 6, WIDTH), KVCache(6)
    steps = [block(x[:, t : t + 1], cache=cache) for t in range(6)]
    assert (torch.cat(steps, dim=1) - block(x)).abs().max() <= 3e-6  # entries reach 5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_padding_is_not_seen(layout):
    block, x = make_block(layout), torch.randn(1, 6, WIDTH)
    mask = padding_mask([4], 6)
    changed = x.clone()
    changed[:, 4:] += 5
    assert torch.equal(block(x, mask)[:, :4], block(changed, mask)[:, :4])
    assert (block(x, mask)[:, :4] - block(x[:, :4])).abs().max() <= 1e-6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dropout_is_random_in_training_and_gone_after(layout):
    block, x = make_block(layout, dropout=0.5), torch.randn(2, 5, WIDTH)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))
    assert torch.equal(block(x), make_block(layout)(x))


def test_dropout_takes_from_what_is_written_never_from_the_stream():
    x = torch.randn(2, 5, WIDTH)
    for layout in ("pre", "parallel", "sandwich"):
        nearly_all = make_block(layout, dropout=1 - 1e-9)
        assert torch.equal(nearly_all(x), x)
    post = make_block("post", dropout=1 - 1e-9)
    assert torch.equal(post(x), post.feedforward_norm(post.attention_norm(x)))


def test_silent_parts_leave_the_stream_as_it_is():
    x = torch.randn(2, 5, WIDTH)
    for layout in ("pre", "parallel", "sandwich"):
        block = make_block(layout)
        nn.init.zeros_(block.attention.o_proj.weight)
        nn.init.zeros_(block.feedforward.down_proj.weight)
        assert torch.equal(block(x), x)


def test_experts_fit_where_a_feedforward_fits():
    block = make_block("pre", feedforward=MixtureOfExperts(WIDTH, 16, 4))
    x = torch.randn(2, 5, WIDTH)
    assert (block(x) - by_hand(block, x)).abs().max() <= 1e-6
    assert block.feedforward.router_load.sum().item() == pytest.approx(1)


def parts(count: int) -> list[nn.Module]:
    return [nn.Identity() for _ in range(count)]


@pytest.mark.parametrize(("layout", "given", "complaint"), [
    ("middle", (None, None, None), "choose one of pre, post, parallel, sandwich"),
    ("pre", (None, None, None), "the others need feedforward_norm"),
    ("parallel", (nn.Identity(), None, None), "the parallel block has one norm"),
    ("sandwich", (nn.Identity(), nn.Identity(), None), "'sandwich' with 1 norms"),
    ("post", (nn.Identity(), nn.Identity(), nn.Identity()), "'post' with 2 norms")])
def test_norms_that_do_not_fit_are_refused(layout, given, complaint):
    second, *behind = given
    with pytest.raises(ValueError, match=complaint):
        Block(*parts(3), second, layout, 0.0, *behind)
