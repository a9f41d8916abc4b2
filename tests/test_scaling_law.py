"""Fitting how loss falls with size and data."""

import math

import pytest

from scratchbook.training.scaling_law import (
    ScalingLaw,
    bootstrap_laws,
    fit_scaling_law,
    isoflop_minimum,
    power_law,
)

LAW = ScalingLaw(E=1.5, A=60.0, B=400.0, alpha=0.4, beta=0.45)
RUNS = [(n, c / (6 * n)) for c in (1e11, 1e12, 1e13) for n in (2e4, 6e4, 2e5, 6e5, 2e6)]


def columns(noise=0.0):
    losses = [LAW.loss(n, d) + noise * math.sin(7.0 * place)
              for place, (n, d) in enumerate(RUNS)]
    return [n for n, _ in RUNS], [d for _, d in RUNS], losses


def test_a_planted_law_is_found_again():
    found = fit_scaling_law(*columns())
    assert found.alpha == pytest.approx(LAW.alpha, abs=2e-3)
    assert found.beta == pytest.approx(LAW.beta, abs=2e-3)
    assert abs(found.E - LAW.E) < 0.01
    assert found.loss(1e7, 1e8) == pytest.approx(LAW.loss(1e7, 1e8), abs=2e-3)


def test_the_best_size_is_where_the_loss_is_least():
    best = LAW.best_size(1e13)
    around = [LAW.loss(n, 1e13 / (6 * n)) for n in (best * 0.97, best, best * 1.03)]
    assert around[1] < min(around[0], around[2])


def test_the_interval_holds_the_truth_and_narrows_with_less_noise():
    widths = []
    for noise in (0.02, 0.002):
        laws = bootstrap_laws(*columns(noise), times=40)
        ahead = sorted(law.loss(5e6, 1e8) for law in laws)
        assert ahead[0] < LAW.loss(5e6, 1e8) < ahead[-1]
        widths.append(ahead[-2] - ahead[1])
    assert widths[1] < widths[0] / 3


def test_a_parabola_finds_its_bottom():
    sizes = [1e4, 3e4, 1e5, 4e5]
    losses = [2.0 + 0.3 * (math.log(n) - math.log(5e4)) ** 2 for n in sizes]
    size, loss = isoflop_minimum(sizes, losses)
    assert size == pytest.approx(5e4, rel=1e-6) and loss == pytest.approx(2.0, abs=1e-9)


def test_a_power_law_is_found():
    factor, exponent = power_law([1.0, 10.0, 100.0], [3.0, 3.0 * 10**0.6, 3.0 * 100**0.6])
    assert (factor, exponent) == (pytest.approx(3.0), pytest.approx(0.6))


def test_what_cannot_be_fitted_is_refused():
    n, d, losses = columns()
    with pytest.raises(ValueError, match="3 runs"):
        fit_scaling_law(n[:3], d[:3], losses[:3])
    with pytest.raises(ValueError, match="above 0"):
        fit_scaling_law(n, d, [math.nan] + losses[1:])
    with pytest.raises(ValueError, match="do not fall"):
        fit_scaling_law(n, d, [9 - loss for loss in losses])
    with pytest.raises(ValueError, match="2 sizes"):
        isoflop_minimum([1e4, 2e4], [1.0, 2.0])
    with pytest.raises(ValueError, match="bend downwards"):
        isoflop_minimum([1e4, 2e4, 4e4], [1.0, 2.0, 1.0])
    with pytest.raises(ValueError, match="two different x"):
        power_law([1.0, 1.0], [2.0, 3.0])
