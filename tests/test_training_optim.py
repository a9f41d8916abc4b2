"""Optimizers against torch's, the laws of the projected ones, and the schedules' values."""

import math

import pytest
import torch
from torch import nn

from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.training.optim import (
    DEFAULTS,
    Optimizer,
    adam_direction,
    build_optimizer,
    orthogonalised,
    state_bytes,
)
from scratchbook.training.schedules import learning_rate_factor

TINY = ModelConfig(vocab_size=23, max_seq_len=16, num_layers=2, d_model=16, num_heads=2,
                   tie_embeddings=True)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def group(parameter, rule, **options):
    return Optimizer([{"params": [parameter], "rule": rule, **options}])


def test_lion_by_hand():
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = group(weight, "lion", lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    weight.grad = torch.tensor([3.0, -0.001])
    optimizer.step()  # decay to 0.95 and -1.9, then 0.1 against the sign of the gradient
    torch.testing.assert_close(weight.data, torch.tensor([0.85, -1.8]))
    torch.testing.assert_close(optimizer.state[weight]["exp_avg"], torch.tensor([0.03, -0.00001]))


def test_the_first_step_of_adam_is_the_sign():
    gradient = torch.tensor([4.0, -1e-3, 50.0])
    torch.testing.assert_close(adam_direction(gradient, {}, DEFAULTS),
                               torch.tensor([1.0, -1.0, 1.0]), atol=1e-4, rtol=0)


def test_decay_never_enters_the_means():
    weight = nn.Parameter(torch.ones(3))
    optimizer = group(weight, "adamw", lr=0.1, weight_decay=0.5)
    weight.grad = torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(weight.data, torch.full((3,), 0.95))
    assert not optimizer.state[weight]["exp_avg"].any()


@pytest.mark.parametrize("shape", [(4, 12, 16), (2, 32, 8), (3, 8, 32)])
def test_singular_values_come_near_one(shape):
    values = torch.linalg.svdvals(orthogonalised(normal(*shape), dtype=torch.float32))
    assert values.min() > 0.6 and values.max() < 1.3
    one = orthogonalised(normal(*shape))[0]
    torch.testing.assert_close(one, orthogonalised(normal(*shape)[:1])[0], atol=0.03, rtol=0)


def test_galore_at_full_rank_is_adamw_in_the_turned_basis():
    weight, gradient = nn.Parameter(normal(6, 10)), normal(6, 10, seed=3)
    before = weight.detach().clone()
    optimizer = group(weight, "galore", lr=0.1, galore_rank=6, scale=1.0)
    weight.grad = gradient
    optimizer.step()
    left = torch.linalg.svd(gradient, full_matrices=False).U
    expected = left @ adam_direction(left.T @ gradient, {}, DEFAULTS)
    torch.testing.assert_close(before - weight.detach(), 0.1 * expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(64, 128), (128, 64)])
def test_galore_keeps_less_and_steps_within_its_rank(shape):
    sizes = {}
    for rule in ("adamw", "galore"):
        weight = nn.Parameter(torch.zeros(shape))
        optimizer = group(weight, rule, lr=1.0, galore_rank=8)
        weight.grad = normal(*shape)
        optimizer.step()
        sizes[rule] = state_bytes(optimizer)
    assert torch.linalg.matrix_rank(weight.data) == 8
    assert sizes["adamw"] == 2 * 4 * 64 * 128
    assert sizes["galore"] == 4 * (2 * 8 * 128 + 8 * 64)  # two means, and the directions


def test_galore_renews_its_directions():
    weight = nn.Parameter(torch.zeros(16, 16))
    optimizer = group(weight, "galore", lr=1.0, galore_rank=2, refresh=3)
    bases = []
    for step in range(7):
        weight.grad = normal(16, 16, seed=step)
        optimizer.step()
        bases.append(optimizer.state[weight]["basis"].clone())
    changed = [not torch.equal(a, b) for a, b in zip(bases, bases[1:], strict=False)]
    assert changed == [False, False, True, False, False, True]


def test_only_matrices_decay_and_only_those_in_blocks_are_orthogonalised():
    model = DecoderLM(TINY.with_(norm="layer", bias="all"))
    names = {id(p): name for name, p in model.named_parameters()}
    groups = build_optimizer(model, "muon", lr=0.02, adamw_lr=0.001, weight_decay=0.1).param_groups
    special, matrices, vectors = ([names[id(p)] for p in g["params"]] for g in groups)
    assert all("blocks." in name and name.endswith("weight") for name in special)
    assert matrices == ["token_embedding.weight"]
    assert all(model.get_parameter(name).dim() == 1 for name in vectors)
    assert sum(map(len, (special, matrices, vectors))) == len(names)
    assert [(g["rule"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("muon", 0.02, 0.1), ("adamw", 0.001, 0.1), ("adamw", 0.001, 0.0)]
    with pytest.raises(ValueError, match="optimizer='adam' is unknown; choose one of adamw"):
        build_optimizer(model, "adam")


@pytest.mark.parametrize("name", ["adamw", "muon", "lion", "galore", "adafactor"])
def test_every_optimizer_overfits_one_batch(name):
    torch.manual_seed(0)
    model = DecoderLM(TINY)
    ids = torch.randint(23, (4, 9), generator=torch.Generator().manual_seed(0))
    rate = {"adamw": 1e-2, "muon": 3e-2, "lion": 3e-3, "galore": 3e-2, "adafactor": 0.1}[name]
    optimizer = build_optimizer(model, name, lr=rate, adamw_lr=1e-2)
    for _ in range(150):
        loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5


@pytest.mark.parametrize(("kind", "values"), [
    ("constant", [1 / 11, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ("linear", [1 / 11, 1.0, 8 / 9, 5 / 9, 1 / 9, 0.0]),
    ("cosine", [1 / 11, 1.0, 0.5 + 0.5 * math.cos(math.pi / 9),
                0.5 + 0.5 * math.cos(math.pi * 4 / 9), 0.5 + 0.5 * math.cos(math.pi * 8 / 9), 0.0]),
    ("wsd", [1 / 11, 1.0, 1.0, 1.0, 0.5, 0.0]),
])
def test_schedules_at_six_points(kind, values):
    found = [learning_rate_factor(step, 100, 10, kind) for step in (0, 10, 20, 50, 90, 100)]
    assert found == pytest.approx(values)
    ends = [learning_rate_factor(step, 100, 10, kind, min_lr_ratio=0.1) for step in (10, 100)]
    assert ends == pytest.approx([1.0, 1.0 if kind == "constant" else 0.1])


def test_schedules_refuse_what_is_no_step():
    with pytest.raises(ValueError, match="schedule='step' is unknown"):
        learning_rate_factor(1, 10, kind="step")
    with pytest.raises(ValueError, match="step=11 is not within a run of 10"):
        learning_rate_factor(11, 10)
