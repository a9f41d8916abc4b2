"""Where do two models that should be one part ways? The first layer whose outputs differ.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Divergence:
    """How far apart the outputs of each pair of modules are, in order, and who is first."""

    gaps: dict[str, float]
    tolerance: float

    @property
    def first(self) -> str | None:
        """The first module whose gap exceeds the tolerance (NaN does); None when none does."""
        return next((name for name, gap in self.gaps.items() if not gap <= self.tolerance), None)


@torch.no_grad()
def activations(model: nn.Module, run: Callable[[], object], names: list[str]) -> dict[str, Tensor]:
    """What the named modules give while `run()` runs the model.

    Raises:   ValueError for a module that is not there or was not called
    Chapter:  chapters/05b_models_and_weights.ipynb
    """
    modules, found = dict(model.named_modules()), {}
    if unknown := [name for name in names if name not in modules]:
        raise ValueError(f"the model has no module {', '.join(unknown)}")

    def keep(name: str) -> Callable:
        def hook(module: nn.Module, arguments: tuple, output: object) -> None:
            found[name] = (output[0] if isinstance(output, tuple) else output).detach()
        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    if silent := [name for name in names if name not in found]:
        raise ValueError(f"{', '.join(silent)} was not called in this run")
    return found


def first_divergence(
    ours: nn.Module, run_ours: Callable[[], object], theirs: nn.Module,
    run_theirs: Callable[[], object], pairs: Mapping[str, str], tolerance: float = 1e-4,
) -> Divergence:
    """Compare the outputs of paired modules in order: our name -> their name.

    A gap is the largest difference of two entries, divided by the largest entry of theirs.
    What comes after the first divergence differs too, so only the first one says where to look.

    Raises:   ValueError for modules that are not there, not called, or of different shapes
    Chapter:  chapters/05b_models_and_weights.ipynb
    """
    mine = activations(ours, run_ours, list(pairs))
    other = activations(theirs, run_theirs, list(pairs.values()))
    gaps = {}
    for name, partner in pairs.items():
        a, b = mine[name], other[partner]
        if a.shape != b.shape:
            raise ValueError(f"{name} gives {tuple(a.shape)}, {partner} {tuple(b.shape)}")
        gaps[name] = ((a - b).abs().max() / b.abs().max().clamp_min(1e-12)).item()
    return Divergence(gaps, tolerance)
