"""How the loss falls with size and data: fitted on small runs, asked about larger ones.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scratchbook.runtime import named_generator

EXPONENTS = (0.02, 1.2)  # within which both exponents are looked for


@dataclass(frozen=True)
class ScalingLaw:
    """loss = E + A / N^alpha + B / D^beta, for N parameters that have read D tokens.

    Paper:    Hoffmann et al. (2022), arXiv:2203.15556, equation 2
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """

    E: float  # what no size and no data take away
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """The loss that the law predicts, in the unit of the losses that it was fitted to."""
        return self.E + self.A * parameters**-self.alpha + self.B * tokens**-self.beta

    def best_size(self, budget: float, flops_per_pair: float = 6.0) -> float:
        """How many parameters to spend `budget` operations on, by this law.

        `flops_per_pair` are the operations for each parameter and token.

        Paper:    Hoffmann et al. (2022), equation 4
        """
        share = self.alpha * self.A / (self.beta * self.B)
        return (share * (budget / flops_per_pair) ** self.beta) ** (1 / (self.alpha + self.beta))


def fit_scaling_law(parameters: Sequence[float], tokens: Sequence[float],
                    losses: Sequence[float], steps: int = 60) -> ScalingLaw:
    """The law that is nearest to the runs in squares.

    With both exponents given, E, A and B follow from a linear system; so only two numbers are
    searched for, on a grid that is drawn again around its best point, and no start is guessed.

    Raises:   ValueError for fewer than six runs, numbers that are not positive and finite, or
              runs that no law with positive A and B fits
    Paper:    Golub and Pereyra (1973), "The differentiation of pseudo-inverses and nonlinear
              least squares problems whose variables separate"
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    runs = torch.tensor([list(parameters), list(tokens), list(losses)], dtype=torch.float64)
    if runs.shape[1] < 6:
        raise ValueError(f"{runs.shape[1]} runs: five numbers are fitted, six runs are the least")
    if not (runs.isfinite() & (runs > 0)).all():
        raise ValueError("parameters, tokens and losses must all be finite numbers above 0")
    low = torch.full((2,), EXPONENTS[0], dtype=torch.float64)
    high = torch.full((2,), EXPONENTS[1], dtype=torch.float64)
    for _ in range(4):
        alpha, beta = (torch.linspace(*ends, steps, dtype=torch.float64)
                       for ends in zip(low.tolist(), high.tolist(), strict=True))
        pairs = torch.cartesian_prod(alpha, beta)  # (steps², 2)
        numbers, errors = _given_exponents(runs, pairs)
        best = int(errors.argmin())
        if not errors[best].isfinite():
            raise ValueError("no law with positive A and B fits: the losses do not fall with both "
                             "parameters and tokens. Spread the runs over more sizes and lengths")
        around = 3 * (high - low) / steps
        low = (pairs[best] - around).clamp_min(EXPONENTS[0])
        high = (pairs[best] + around).clamp_max(EXPONENTS[1])
    return ScalingLaw(*numbers[best].tolist(), *pairs[best].tolist())


def _given_exponents(runs: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """E, A and B for each pair of exponents, and the squared error; inf where A or B is negative.

    Shapes:   runs (3, runs), pairs (count, 2) -> (count, 3), (count,)
    """
    parameters, tokens, losses = runs
    scale = parameters.log().mean(), tokens.log().mean()  # so that columns are of size one
    columns = torch.stack([
        torch.ones(len(pairs), len(losses), dtype=torch.float64),
        torch.exp(-pairs[:, :1] * (parameters.log() - scale[0])),
        torch.exp(-pairs[:, 1:] * (tokens.log() - scale[1]))], dim=-1)  # (count, runs, 3)
    square = columns.mT @ columns + 1e-12 * torch.eye(3, dtype=torch.float64)
    numbers = torch.linalg.solve(square, columns.mT @ losses)  # (count, 3)
    errors = (columns @ numbers[..., None] - losses[:, None]).square().sum(dim=(-1, -2))
    errors = errors.masked_fill((numbers[:, 1:] <= 0).any(dim=-1) | (numbers[:, 0] < 0), math.inf)
    back = torch.stack([torch.ones(len(pairs), dtype=torch.float64),
                        (pairs[:, 0] * scale[0]).exp(), (pairs[:, 1] * scale[1]).exp()], dim=-1)
    return numbers * back, errors


def bootstrap_laws(parameters: Sequence[float], tokens: Sequence[float],
                   losses: Sequence[float], times: int = 200, seed: int = 0) -> list[ScalingLaw]:
    """Laws of as many runs, drawn with replacement; draws that no law fits are left out.

    Raises:   ValueError when fewer than half of the draws are fitted by a law
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    laws, count = [], len(losses)
    generator = named_generator(seed, "bootstrap of runs")
    for _ in range(times):
        drawn = torch.randint(count, (count,), generator=generator).tolist()
        try:
            laws.append(fit_scaling_law(*([column[i] for i in drawn]
                                          for column in (parameters, tokens, losses)), steps=24))
        except ValueError:
            continue
    if 2 * len(laws) < times:
        raise ValueError(f"only {len(laws)} of {times} draws were fitted by a law: too few runs "
                         "for an interval")
    return laws


def isoflop_minimum(parameters: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    """The best size at one budget: the bottom of a parabola over the logarithm of the size.

    Raises:   ValueError for fewer than three sizes, or where the parabola has no bottom
    Paper:    Hoffmann et al. (2022), arXiv:2203.15556, section 3.2
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    if len(set(parameters)) < 3:
        raise ValueError(f"{len(set(parameters))} sizes: a parabola needs three")
    x = torch.tensor(parameters, dtype=torch.float64).log()
    y, centre = torch.tensor(losses, dtype=torch.float64), x.mean()
    powers = torch.stack([torch.ones_like(x), x - centre, (x - centre) ** 2], dim=-1)
    constant, slope, bend = torch.linalg.lstsq(powers, y).solution.tolist()
    if bend <= 0:
        raise ValueError("the losses bend downwards: no size in between is the best")
    bottom = -slope / (2 * bend)
    return math.exp(bottom + centre), constant + slope * bottom / 2


def power_law(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """factor and exponent of y = factor · x^exponent, nearest in the logarithms.

    Raises:   ValueError for fewer than two different x, or numbers that are not positive
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    if len(set(x)) < 2 or min([*x, *y]) <= 0:
        raise ValueError(f"a power law needs two different x, and numbers above 0: {x}, {y}")
    logs = torch.tensor([list(x), list(y)], dtype=torch.float64).log()
    centred = logs - logs.mean(dim=1, keepdim=True)
    exponent = float((centred[0] * centred[1]).sum() / centred[0].square().sum())
    return float((logs[1].mean() - exponent * logs[0].mean()).exp()), exponent
