"""Positions: each encoding's law, worked examples, and where each of them ends."""

import math

import pytest
import torch
from torch.testing import assert_close

from scratchbook.attention import MultiHeadAttention
from scratchbook.config import RopeSettings
from scratchbook.positions import (
    ALiBi,
    LearnedPositions,
    RotaryEmbedding,
    SinusoidalPositions,
    alibi_slopes,
    inverse_frequencies,
    scaled_frequencies,
    sinusoids,
)
from scratchbook.runtime import named_generator

STRETCHED = [
    RopeSettings(scaling="linear", factor=4.0), RopeSettings(scaling="ntk", factor=4.0),
    RopeSettings(scaling="yarn", factor=4.0, original_max_seq_len=64),
    RopeSettings(scaling="llama3", factor=4.0, original_max_seq_len=64),
]


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=named_generator(0, f"positions{shape}"))


def test_a_quarter_turn_by_hand():
    rotary = RotaryEmbedding(4, RopeSettings(base=100.0))  # speeds 1 and 1/10
    x = torch.tensor([[[[1.0, 0.0, 0.0, 2.0]]]])  # pairs (x0, x2) and (x1, x3)
    c, s = math.cos(0.3), math.sin(0.3)
    want = torch.tensor([math.cos(3.0), -2 * s, math.sin(3.0), 2 * c])
    assert_close(rotary(x, torch.tensor([3]))[0, 0, 0], want)


@pytest.mark.parametrize("settings", [RopeSettings(), *STRETCHED], ids=lambda s: s.scaling)
def test_rotary_scores_depend_on_distance_alone(settings):
    rotary, q, k = RotaryEmbedding(16, settings), normal(1, 2, 1, 16), normal(1, 2, 1, 16)

    def score(i: int, j: int) -> torch.Tensor:
        return (rotary(q, torch.tensor([i])) * rotary(k, torch.tensor([j]))).sum(-1)

    for shift in (1, 50, 1000):
        assert_close(score(7 + shift, 3 + shift), score(7, 3), atol=1e-3, rtol=0)
    assert (score(7, 3) - score(8, 3)).abs().max() > 0.01  # and on distance it does depend


def test_turning_keeps_lengths_and_position_zero_turns_nothing():
    rotary, x = RotaryEmbedding(16), normal(2, 3, 5, 16)
    assert_close(rotary(x, torch.arange(5)).norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(rotary(x, torch.zeros(5, dtype=torch.long)), x)


def test_each_sequence_may_have_positions_of_its_own():
    rotary, x = RotaryEmbedding(8), normal(2, 3, 4, 8)
    positions = torch.tensor([[0, 1, 2, 3], [5, 6, 7, 8]])
    both = rotary(x, positions)
    for row in (0, 1):
        assert_close(both[row : row + 1], rotary(x[row : row + 1], positions[row]))


def test_linear_scaling_reads_the_middle_between_positions():
    plain, stretched = RotaryEmbedding(8), RotaryEmbedding(8, STRETCHED[0])
    x = normal(1, 1, 1, 8)
    assert_close(stretched(x, torch.tensor([12])), plain(x, torch.tensor([3])))


@pytest.mark.parametrize("settings", STRETCHED[1:], ids=lambda s: s.scaling)
def test_the_others_keep_the_fastest_pair_and_slow_the_slowest_by_the_factor(settings):
    plain, _ = scaled_frequencies(64, RopeSettings())
    scaled, factor = scaled_frequencies(64, settings)
    assert_close(scaled[0], plain[0])
    assert_close(plain[-1] / scaled[-1], torch.tensor(4.0), rtol=1e-4, atol=0)
    assert (scaled[1:] <= scaled[:-1]).all() and (scaled <= plain + 1e-9).all()
    assert factor == pytest.approx(0.1 * math.log(4) + 1 if settings.scaling == "yarn" else 1)


def test_a_factor_of_one_changes_nothing():
    for settings in STRETCHED:
        same = RopeSettings(scaling=settings.scaling, factor=1.0, original_max_seq_len=64)
        assert_close(scaled_frequencies(32, same)[0], scaled_frequencies(32, RopeSettings())[0])


def test_a_sinusoid_shifts_by_one_matrix_for_all_positions():
    turn = torch.block_diag(*(torch.tensor([[math.cos(7 * w), -math.sin(7 * w)],
                                            [math.sin(7 * w), math.cos(7 * w)]])
                              for w in inverse_frequencies(16).tolist()))
    table = sinusoids(torch.arange(100), 16)
    assert_close(table[:90] @ turn, table[7:97], atol=2e-5, rtol=0)


def test_sinusoids_by_hand():
    row = sinusoids(torch.tensor([2]), 4, base=100.0)[0]
    assert_close(row, torch.tensor([math.sin(2), math.cos(2), math.sin(0.2), math.cos(0.2)]))
    x = normal(2, 3, 4)
    assert_close(SinusoidalPositions(4)(x, torch.arange(3)), x + sinusoids(torch.arange(3), 4))


def test_a_learned_table_ends_and_says_so():
    table = LearnedPositions(512, 4)
    x = normal(1, 513, 4)
    assert table(x[:, :512], torch.arange(512)).shape == (1, 512, 4)
    with pytest.raises(ValueError, match="position 512 is past the table.*max_seq_len=512"):
        table(x, torch.arange(513))


def test_slopes_by_hand():
    assert alibi_slopes(8).tolist() == [2.0**-n for n in range(1, 9)]
    assert_close(alibi_slopes(3), torch.tensor([2.0**-4, 2.0**-8, 2.0**-2]))


def test_the_bias_is_a_price_for_distance():
    bias = ALiBi(2)(torch.tensor([3, 4]), torch.arange(5))
    assert bias.shape == (2, 2, 5)
    assert_close(bias[0, 1], -torch.tensor([4.0, 3, 2, 1, 0]) * 2.0**-4)
    assert torch.equal(bias, ALiBi(2)(torch.tensor([13, 14]), torch.arange(10, 15)))


@pytest.mark.parametrize("parts", [{"rotary": RotaryEmbedding(8)}, {"alibi": ALiBi(2)}])
def test_attention_with_relative_positions_does_not_see_where_the_text_begins(parts):
    attention, x = MultiHeadAttention(16, 2, **parts), normal(1, 6, 16)
    later = attention(x, positions=torch.arange(100, 106))
    assert_close(later, attention(x), atol=1e-4, rtol=0)
    shuffled = torch.tensor([3, 0, 5, 1, 4, 2])
    free = MultiHeadAttention(16, 2, causal=False, **parts)
    assert (free(x[:, shuffled]) - free(x)[:, shuffled]).abs().max() > 1e-3


@pytest.mark.parametrize(("action", "message"), [
    (lambda: inverse_frequencies(5), "width=5 must be even"),
    (lambda: RotaryEmbedding(8, RopeSettings(scaling="yarn", factor=2.0)), "original_max_seq_len"),
    (lambda: RopeSettings(scaling="magic"), "none, linear, ntk, yarn, llama3"),
    (lambda: RopeSettings(factor=0.5), "factor=0.5"),
    (lambda: alibi_slopes(0), "num_heads=0"),
])
def test_errors_carry_the_values(action, message):
    with pytest.raises(ValueError, match=message):
        action()


def test_second_derivatives_of_a_turn_are_right_and_torch_func_goes_through():
    rotary, places = RotaryEmbedding(4), torch.arange(3)
    x = normal(1, 2, 3, 4).double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda q: rotary(q, places), x)

    def score(q):
        turned = rotary(q, places)
        return (turned @ turned.mT).pow(2).sum()

    flat = torch.func.hessian(score)(x.detach())
    assert_close(flat, torch.autograd.functional.hessian(score, x.detach()))
