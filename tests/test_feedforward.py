"""Feed-forward parts: by hand, against torch, position by position; experts and their router."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from scratchbook.feedforward import (
    ACTIVATIONS,
    FeedForward,
    GatedFeedForward,
    MixtureOfExperts,
    hidden_size,
)

BOTH = (FeedForward, GatedFeedForward)


def near(a: torch.Tensor, b: torch.Tensor, bound: float = 1e-6) -> bool:
    return a.shape == b.shape and (a - b).abs().max().item() <= bound


def test_either_but_not_both_by_hand():
    part = FeedForward(2, 2, "relu", bias=True)
    part.load_state_dict({
        "up_proj.weight": torch.ones(2, 2), "up_proj.bias": torch.tensor([0.0, -1.0]),
        "down_proj.weight": torch.tensor([[1.0, -2.0], [0.0, 0.0]]),
        "down_proj.bias": torch.zeros(2)})
    x = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    assert part(x)[:, 0].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_follow_their_formulas(name):
    x = torch.linspace(-6, 6, 400, dtype=torch.float64)
    half = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    formulas = {"relu": x.clamp(min=0), "relu2": x.clamp(min=0) ** 2, "identity": x,
                "sigmoid": 1 / (1 + (-x).exp()), "silu": x / (1 + (-x).exp()), "gelu": x * half,
                "gelu_tanh": 0.5 * x * (1 + inner.tanh())}
    assert near(ACTIVATIONS[name](x), formulas[name], 1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gate_multiplies_what_passes(activation):
    torch.manual_seed(0)
    part, x = GatedFeedForward(6, 10, activation, bias=True), torch.randn(3, 4, 6)
    gate = F.linear(x, part.gate_proj.weight, part.gate_proj.bias)
    up = F.linear(x, part.up_proj.weight, part.up_proj.bias)
    want = F.linear(ACTIVATIONS[activation](gate) * up, part.down_proj.weight, part.down_proj.bias)
    assert near(part(x), want)


@pytest.mark.parametrize("kind", BOTH)
def test_every_position_is_treated_alone_and_alike(kind):
    torch.manual_seed(0)
    part, x = kind(6, 10), torch.randn(2, 5, 6)
    alone = torch.stack([torch.stack([part(vector) for vector in row]) for row in x])
    assert near(part(x), alone)
    changed = x.clone()
    changed[:, 3] += 1
    moved = (part(changed) - part(x)).abs().amax(dim=(0, 2))
    assert moved[3] > 0.01 and (moved[[0, 1, 2, 4]] < 1e-6).all()


@pytest.mark.parametrize("kind", BOTH)
def test_dropout_works_in_training_only(kind):
    torch.manual_seed(0)
    part, x = kind(8, 64, dropout=0.5), torch.randn(4, 8)
    assert not torch.equal(part(x), part(x))
    part.eval()
    assert torch.equal(part(x), part(x))
    without = kind(8, 64)
    without.load_state_dict(part.state_dict())
    assert torch.equal(part(x), without(x))


@pytest.mark.parametrize(("d_model", "mult", "multiple_of", "size"), [
    (768, 2.5, 8, 1920), (512, 2.5, 8, 1280), (100, 2.5, 8, 256), (64, 8 / 3, 8, 176),
    (4096, 8 / 3, 256, 11008), (10, 1, 1, 10), (3, 1, 8, 8)])
def test_hidden_sizes(d_model, mult, multiple_of, size):
    assert hidden_size(d_model, mult, multiple_of) == size
    assert FeedForward(d_model, size)(torch.zeros(2, d_model)).shape == (2, d_model)


@pytest.mark.parametrize("sizes", [(0, 4), (8, 0), (8, -1), (8, 4, 0)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="must all be positive"):
        hidden_size(*sizes)


@pytest.mark.parametrize("kind", BOTH)
def test_an_unknown_activation_is_refused(kind):
    with pytest.raises(ValueError, match="'swish' is unknown; choose one of relu"):
        kind(4, 8, "swish")


def mixture(num_experts: int = 4, num_active: int = 2) -> MixtureOfExperts:
    torch.manual_seed(0)
    part = MixtureOfExperts(6, 10, num_experts, num_active)
    torch.nn.init.normal_(part.router.weight)
    return part


@pytest.mark.parametrize("num_active", [1, 2, 4])
def test_experts_equal_a_loop_over_tokens(num_active):
    part, x = mixture(num_active=num_active), torch.randn(2, 7, 6)
    want, counts = torch.zeros_like(x), torch.zeros(4)
    for b in range(2):
        for t in range(7):
            probs = part.router(x[b, t]).softmax(-1)
            order = sorted(range(4), key=lambda e: -probs[e].item())[:num_active]
            total = sum(probs[e] for e in order) if num_active > 1 else 1.0
            for e in order:
                want[b, t] += probs[e] / total * part.experts[e](x[b, t])
                counts[e] += 1
    assert near(part(x), want)
    assert near(part.router_load, counts / counts.sum())


def test_one_expert_is_a_plain_part():
    part, x = mixture(1, 1), torch.randn(5, 6)
    assert near(part(x), part.experts[0](x))
    assert part.router_load.tolist() == [1.0] and part.balance_loss.item() == pytest.approx(1)


@pytest.mark.parametrize("num_active", [1, 2])
def test_the_router_learns_from_the_loss(num_active):
    part = mixture(num_active=num_active)
    part(torch.randn(9, 6)).square().sum().backward()
    assert part.router.weight.grad.abs().max() > 1e-3


def test_balance_is_one_when_even_and_num_experts_when_one_takes_all():
    part = MixtureOfExperts(4, 8, 4, num_active=1)
    part.router.weight.data = 100 * torch.eye(4)
    part(torch.eye(4))
    assert part.router_load.tolist() == [0.25] * 4
    assert part.balance_loss.item() == pytest.approx(1, abs=1e-6)
    part(torch.eye(4)[:1].expand(9, 4))
    assert part.router_load.tolist() == [1, 0, 0, 0]
    assert part.balance_loss.item() == pytest.approx(4, abs=1e-6)


def test_descending_the_balance_loss_spreads_the_load():
    part, x = mixture(), torch.randn(200, 6) + 2  # a common part makes one expert the favourite
    part(x)
    before = part.router_load.max().item()
    optimizer = torch.optim.SGD(part.parameters(), lr=0.1)
    for _ in range(200):
        part(x)
        optimizer.zero_grad()
        part.balance_loss.backward()
        optimizer.step()
    part(x)
    assert part.router_load.max().item() < 0.35 < before


@pytest.mark.parametrize("num_active", [0, 5])
def test_more_active_experts_than_there_are_is_refused(num_active):
    with pytest.raises(ValueError, match=f"num_active={num_active} is not within 1..num_experts=4"):
        MixtureOfExperts(6, 10, 4, num_active)
