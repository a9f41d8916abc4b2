"""Heads taken away: by hand, by weights set to zero, and put back afterwards."""

import pytest
import torch
import torch.nn.functional as F

from scratchbook.config import ModelConfig
from scratchbook.interpret.ablation import ablated, head_effects, mean_outputs, text_losses
from tests.random_models import random_model

CONFIG = ModelConfig(vocab_size=13, max_seq_len=16, num_layers=2, d_model=12, num_heads=3,
                     num_kv_heads=1, d_ff=16)
IDS = torch.randint(13, (5, 9), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_head_without_output_is_one_whose_columns_are_zero():
    model, cut = random_model(CONFIG), random_model(CONFIG)
    with ablated(model, [(1, 2), (0, 0)]):
        got = model(IDS)
    cut.blocks[1].attention.o_proj.weight[:, 8:12] = 0
    cut.blocks[0].attention.o_proj.weight[:, 0:4] = 0
    assert torch.allclose(got, cut(IDS), atol=1e-6)
    assert not torch.allclose(got, model(IDS), atol=1e-3)  # it is back


@torch.no_grad()
def test_means_are_those_of_all_tokens_and_the_text_no_longer_counts():
    model = random_model(CONFIG)
    means = mean_outputs(model, [IDS[:2], IDS[2:]])
    heard = []
    hook = model.blocks[0].attention.o_proj.register_forward_pre_hook(
        lambda module, inputs: heard.append(inputs[0]))
    model(IDS)
    hook.remove()
    assert torch.allclose(means[0], heard[0].mean((0, 1)), atol=1e-6)
    with ablated(model, [(1, 0), (1, 1), (1, 2)], means):
        last = []
        hook = model.blocks[1].attention.register_forward_hook(
            lambda module, inputs, output: last.append(output))
        model(IDS)
        hook.remove()
    want = model.blocks[1].attention.o_proj(means[1])
    assert torch.allclose(last[0], want.expand_as(last[0]), atol=1e-5)


@torch.no_grad()
def test_losses_of_texts_by_hand():
    model = random_model(CONFIG)
    logits = model(IDS[:, :-1])
    for row in range(5):
        want = F.cross_entropy(logits[row, 3:], IDS[row, 4:])
        assert text_losses(model, IDS, size=2, since=3)[row] == pytest.approx(want.item(), abs=1e-5)
    with pytest.raises(ValueError, match="to judge"):
        text_losses(model, IDS, since=8)


def test_effects_are_differences_of_losses():
    model = random_model(CONFIG)
    effects = head_effects(model, IDS, [(0, 1), (1, 2)])
    assert effects.shape == (2, 5)
    with ablated(model, [(1, 2)]):
        without = text_losses(model, IDS)
    assert torch.allclose(effects[1], without - text_losses(model, IDS), atol=1e-6)
    assert effects.abs().max() > 1e-3


@pytest.mark.parametrize("head", [(2, 0), (-1, 0), (0, 3), (0, -1)])
def test_heads_that_are_not_there(head):
    model = random_model(CONFIG)
    with pytest.raises(ValueError, match="not"), ablated(model, [head]):
        pass
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_hooks_go_with_an_error():
    model = random_model(CONFIG)
    with pytest.raises(RuntimeError), ablated(model, [(0, 0)]):
        raise RuntimeError
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ValueError, match="no batch"):
        mean_outputs(model, [])
