"""Window policies: what is kept, by hand; losses against reading each window alone; sinks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scratchbook.cache import KVCache
from scratchbook.config import ModelConfig
from scratchbook.serving.windows import (
    SinkCache,
    cached_losses,
    reread_losses,
    restart,
    sink_caches,
    summarise,
    truncate,
)
from tests.random_models import random_model

CONFIG = ModelConfig(vocab_size=40, num_layers=2, d_model=32, num_heads=4, max_seq_len=64,
                     positions="rope")
MODEL = random_model(CONFIG, seed=3)
IDS = torch.randint(40, (3, 30), generator=torch.Generator().manual_seed(0))


def one_by_one(policy, size: int) -> torch.Tensor:
    """The window kept as a list of places, token by token, each read alone."""
    rows = []
    for row in IDS.tolist():
        window, losses = [row[0]], []
        for place in range(1, len(row)):
            logits = MODEL(torch.tensor([window]))[0, -1]
            losses.append(nn.functional.cross_entropy(logits, torch.tensor(row[place])).item())
            if len(window) == size:
                window = [row[kept] for kept in policy(row[: place + 1])]
            else:
                window = [*window, row[place]]
        rows.append(losses)
    return torch.tensor(rows)


@torch.no_grad()
@pytest.mark.parametrize(("policy", "size"), [
    (restart, 8), (truncate(4), 8), (truncate(8), 8), (truncate(7), 8), (truncate(1), 5),
    (summarise(2, 4, 2, 2), 12), (summarise(0, 0, 3), 7), (restart, 1), (restart, 64)])
def test_losses_equal_those_of_each_window_read_alone(policy, size):
    losses, read = reread_losses(MODEL, IDS, policy, size)
    assert torch.allclose(losses, one_by_one(policy, size), atol=2e-5)
    assert losses.shape == (3, 29)
    assert read >= 1 or size > 30


def test_kept_by_hand():
    assert restart(list("abc")) == [2]
    assert truncate(2)(list("abcd")) == [2, 3]
    assert truncate(9)(list("abc")) == [0, 1, 2]
    #      0 1 2 3 4 5 6 7 8 9
    ids = [9, 1, 7, 2, 5, 5, 3, 4, 7, 8]
    # the head is 9; of (1 7) (2 5) (5 3) the first has the 7 that the recent 7 8 have
    assert summarise(1, 2, 2, 2)(ids) == [0, 1, 2, 8, 9]
    # nothing is shared: the latest segment stays
    assert summarise(1, 2, 2, 2)([9, 1, 2, 2, 5, 5, 3, 4, 7, 8]) == [0, 5, 6, 8, 9]
    # a rare shared token counts more than a common one
    assert summarise(0, 1, 2, 1)([1, 1, 1, 2, 1, 1, 1, 2]) == [3, 6, 7]
    assert summarise(1, 2, 3, 2)([1, 2, 3]) == [0, 1, 2]


def test_how_much_is_read():
    assert reread_losses(MODEL, IDS, truncate(8), 8)[1] == pytest.approx((1 + 21) * 8 / 29, rel=0.1)
    assert reread_losses(MODEL, IDS, restart, 10)[1] == pytest.approx(1, rel=0.1)


@torch.no_grad()
def test_a_cache_with_room_is_an_ordinary_one():
    for sinks in (0, 3):
        losses = cached_losses(MODEL, IDS, 30, sinks)
        assert torch.allclose(losses, reread_losses(MODEL, IDS, restart, 30)[0], atol=2e-5)


@torch.no_grad()
def test_places_are_those_within_the_cache():
    """Against keys kept unturned and all turned to 0, 1, 2, ... at every step."""
    attention, rotary = MODEL.blocks[0].attention, MODEL.blocks[0].attention.rotary
    x = torch.randn(2, 20, 32, generator=torch.Generator().manual_seed(1))
    size, sinks = 8, 3
    cache = SinkCache(size, sinks, rotary)

    def heads(layer, at):
        return layer(x[:, at : at + 1]).unflatten(-1, (4, -1)).transpose(1, 2)

    keys = torch.cat([heads(attention.k_proj, place) for place in range(20)], 2)
    values = torch.cat([heads(attention.v_proj, place) for place in range(20)], 2)
    for place in range(20):
        got = attention(x[:, place : place + 1], cache=cache, positions=torch.tensor([place]))
        kept = list(range(place + 1))
        kept = kept if len(kept) <= size else kept[:sinks] + kept[sinks - size :]
        k, v = rotary(keys[:, :, kept], torch.arange(len(kept))), values[:, :, kept]
        q = rotary(heads(attention.q_proj, place), torch.tensor([len(kept) - 1]))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        wanted = attention.o_proj(mixed.transpose(1, 2).flatten(2))
        assert torch.allclose(got, wanted, atol=1e-5)


@torch.no_grad()
def test_without_sinks_the_last_tokens_stay():
    cache, plain = SinkCache(4, 0), KVCache(10)
    for place in range(10):
        k = torch.full((1, 1, 1, 2), float(place))
        got, _ = cache.append(k, -k)
        plain.append(k, -k)
    assert got[0, 0, :, 0].tolist() == [6, 7, 8, 9]
    assert cache.length == plain.length == 10
    four = SinkCache(4, 2)
    for place in range(10):
        k = torch.full((1, 1, 1, 2), float(place))
        got, v = four.append(k, -k)
    assert got[0, 0, :, 0].tolist() == [0, 1, 8, 9]
    assert v[0, 0, :, 0].tolist() == [0, -1, -8, -9]


def test_what_is_refused_says_the_way_out():
    with pytest.raises(ValueError, match="one place at least"):
        SinkCache(4, 4)
    with pytest.raises(ValueError, match="one by one"):
        SinkCache(4, 1).append(torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, 5, 2))
    with pytest.raises(ValueError, match="must stay"):
        truncate(0)
    with pytest.raises(ValueError, match="must fill"):
        summarise(4, 10, 4)
    with pytest.raises(ValueError, match="must stay"):
        reread_losses(MODEL, IDS, lambda ids: [0], 8)
    with pytest.raises(ValueError, match="at most"):
        reread_losses(MODEL, IDS, truncate(9), 8)
    learned = random_model(CONFIG.with_(positions="learned"), seed=0)
    with pytest.raises(ValueError, match="only rotary keys"):
        sink_caches(learned, 8, 2)
