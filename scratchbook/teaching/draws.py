"""Random tensors that do not depend on which cells ran before."""

from __future__ import annotations

import torch

from scratchbook.runtime import named_generator


def draw(*shape: int, seed: int = 0, name: str = "") -> torch.Tensor:
    """A standard normal float32 tensor that is the same whenever shape, seed and name are.

    A notebook's cells get run twice, skipped and run out of order. With one shared generator the
    numbers would then differ from the page's; here every draw has a generator of its own.

    Shapes:   -> shape
    """
    return torch.randn(*shape, generator=named_generator(seed, name))
