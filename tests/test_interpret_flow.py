"""Rollout, value-weighted attention, logit lens and importance: by hand, by law, by planting."""

import pytest
import torch
from torch import nn

from scratchbook.config import ModelConfig
from scratchbook.interpret import capture
from scratchbook.interpret.flow import logit_lens, rollout, value_lengths, value_weighted
from scratchbook.interpret.importance import (
    MEASURES,
    embedding_slope,
    importance,
    leave_one_out,
)
from tests import tiny_models
from tests.random_models import random_model

SMALL = ModelConfig(vocab_size=50, max_seq_len=64, num_layers=3, d_model=32, num_heads=4, d_ff=48)
IDS = torch.randint(50, (2, 19), generator=torch.Generator().manual_seed(1))


def test_rollout_by_hand():
    first = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    second = torch.tensor([[1.0, 0.0], [0.2, 0.8]])
    found = rollout(torch.stack([first, second])[:, None])
    # 0.5 I + 0.5 A: rows (0.25, 0.75) and then (0.1, 0.9): 0.1 + 0.9 * 0.25 = 0.325
    torch.testing.assert_close(found[0], torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
    torch.testing.assert_close(found[1], torch.tensor([[1.0, 0.0], [0.325, 0.675]]))
    alone = rollout(torch.stack([first, second])[:, None], stays=0.0)
    torch.testing.assert_close(alone[1], second @ first)
    assert torch.equal(rollout(torch.stack([first, second])[:, None], stays=1.0)[1], torch.eye(2))


def test_rollout_averages_heads_and_keeps_distributions():
    model = random_model(SMALL)
    with torch.no_grad(), capture(model) as seen:
        model(IDS)
    maps = seen.stacked()[:, 0]
    found = rollout(maps)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 19))
    assert not found.triu(1).any()
    torch.testing.assert_close(found, rollout(maps.mean(1, keepdim=True)))


@pytest.mark.parametrize(("attention", "stays", "message"), [
    (torch.eye(3)[None], 0.5, "expected .layers, heads"),
    (torch.ones(1, 1, 2, 3) / 3, 0.5, "expected .layers, heads"),
    (torch.eye(3)[None, None] / 2, 0.5, "sums to 1 only within 0.500"),
    (torch.eye(3)[None, None] * torch.nan, 0.5, "sums to 1"),
    (torch.eye(3)[None, None], 1.5, "stays=1.5"),
])
def test_rollout_refuses_what_is_no_attention(attention, stays, message):
    with pytest.raises(ValueError, match=message):
        rollout(attention, stays)


@pytest.mark.parametrize("change", [
    {}, {"num_kv_heads": 2}, {"latent_dim": 12}, {"positions": "learned", "bias": "all"}])
def test_value_weighted_is_the_length_of_what_is_added(change):
    model = random_model(SMALL.with_(**change))
    with torch.no_grad(), capture(model, keep=("attention", "values")) as seen:
        model(IDS)
    found = value_weighted(seen, 1)
    assert found.shape == (2, 4, 19, 19)
    attention = model.blocks[1].attention
    values = seen.values[1].repeat_interleave(4 // seen.values[1].shape[1], dim=1)
    for batch, head, query, key in ((0, 0, 5, 2), (1, 3, 18, 18), (1, 2, 9, 0)):
        part = attention.o_proj.weight[:, head * 8 : head * 8 + 8] @ values[batch, head, key]
        expected = (seen.attention[1][batch, head, query, key] * part).norm()
        torch.testing.assert_close(found[batch, head, query, key], expected, atol=1e-5, rtol=1e-5)
    assert not found.triu(1).any()


def test_values_of_transformers_are_weighed_too():
    for name in ("gpt2", "llama"):
        model = tiny_models.build(name)
        with torch.no_grad(), capture(model, keep=("attention", "values")) as seen:
            model(IDS)
        attention = seen.modules[0]
        weight = attention.c_proj.weight.T if name == "gpt2" else attention.o_proj.weight
        part = weight[:, 8:16] @ seen.values[0][0, 1 if name == "gpt2" else 0, 3]
        torch.testing.assert_close(value_lengths(seen, 0)[0, 1, 3], part.norm())


def test_what_was_not_captured_cannot_be_weighed():
    with torch.no_grad(), capture(model := random_model(SMALL)) as seen:
        model(IDS)
    with pytest.raises(ValueError, match=r"keep=\('attention', 'values'\)"):
        value_weighted(seen, 1)


@pytest.mark.parametrize("change", [{}, {"layout": "post"}, {"layout": "parallel"},
                                    {"layout": "sandwich", "norm": "layer"}])
def test_the_last_lens_is_the_model_itself(change):
    model = random_model(SMALL.with_(**change))
    with torch.no_grad(), capture(model, keep=("residuals",)) as seen:
        logits = model(IDS)
    found = logit_lens(model, seen.residuals)
    assert found.shape == (4, 2, 19, 50) and torch.equal(found[-1], logits)
    with torch.no_grad():
        first = model.lm_head(model.final_norm(model.token_embedding(IDS)))
    assert torch.equal(found[0], first) and not torch.equal(found[1], found[2])


def test_the_lens_of_transformers_and_of_strangers():
    for name in ("gpt2", "llama"):
        model = tiny_models.build(name)
        with torch.no_grad(), capture(model, keep=("residuals",)) as seen:
            logits = model(IDS).logits
        assert torch.equal(logit_lens(model, seen.residuals)[-1], logits)
    with pytest.raises(ValueError, match="Linear has no final norm"):
        logit_lens(nn.Linear(2, 2), seen.residuals)
    with pytest.raises(ValueError, match="keep="):
        logit_lens(random_model(SMALL), {})


def test_gradient_times_input_is_the_slope():
    model = random_model(SMALL).double()
    ids = IDS[0]
    slope, embedded = embedding_slope(model, ids, 7)
    found = (slope * embedded).sum(-1)

    def logprob(scale, place):
        factor = torch.ones(len(ids), 1, dtype=torch.float64)
        factor[place] = scale
        handle = model.token_embedding.register_forward_hook(lambda m, a, out: out * factor)
        with torch.no_grad():
            said = model(ids[None])[0, -1].log_softmax(-1)[7]
        handle.remove()
        return said

    for place in (0, 11, 18):
        slope = (logprob(1 + 1e-5, place) - logprob(1 - 1e-5, place)) / 2e-5
        torch.testing.assert_close(found[place].double(), slope, atol=1e-4, rtol=1e-3)
    assert not model.token_embedding._forward_hooks


def test_leaving_one_out_hides_it_from_everyone():
    model = random_model(SMALL)
    ids = IDS[0]
    found = leave_one_out(model, ids, 7, chunk=5)
    assert found.shape == (18,)
    mask = torch.ones(1, 1, 1, 19, dtype=torch.bool)
    mask[..., 4] = False
    with torch.no_grad():
        whole = model(ids[None])[0, -1].log_softmax(-1)[7]
        without = model(ids[None], mask=mask)[0, -1].log_softmax(-1)[7]
        other = model(torch.where(torch.arange(19) == 4, 1, ids)[None], mask=mask)[0, -1]
    torch.testing.assert_close(found[4], whole - without, atol=1e-5, rtol=0)
    # whatever stood there: nobody could see it
    torch.testing.assert_close(other.log_softmax(-1)[7], without, atol=1e-5, rtol=0)


def test_all_measures_find_the_one_token_that_can_matter():
    """A window of two and one layer: the last position sees its neighbour and nothing else."""
    model = random_model(SMALL.with_(num_layers=1, window=2))
    found = importance(model, IDS[0])
    assert tuple(found) == MEASURES
    for name, each in found.items():
        assert each.shape == (18,), name
        assert each[:-1].abs().max() < 1e-5, name
        if name == "gradient x input":  # the norm hides the embedding's scale
            assert each[-1] < 1e-2 * found["gradient"][-1]
        else:
            assert each[-1].abs() > 1e-4, name


def test_the_target_is_the_likeliest_unless_told_and_the_mode_comes_back():
    model = random_model(SMALL.with_(dropout=0.4)).train()
    first, again = importance(model, IDS[0]), importance(model, IDS[0])
    assert model.training and all(torch.equal(first[name], again[name]) for name in MEASURES)
    with torch.no_grad():
        likely = int(model.eval()(IDS[:1])[0, -1].argmax())
    named, other = importance(model, IDS[0], likely), importance(model, IDS[0], (likely + 1) % 50)
    assert torch.equal(named["ablation"], first["ablation"])
    assert not torch.equal(other["ablation"], first["ablation"])
    assert torch.equal(other["attention"], first["attention"])  # a map does not know the question
    with pytest.raises(ValueError, match="two tokens"):
        importance(model, IDS[0, :1])
