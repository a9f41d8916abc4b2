"""Training with the rounding in place: what the packed model will compute, learned beforehand.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn
from torch.nn.utils import parametrize

from scratchbook.compression.layers import quantize, targets
from scratchbook.compression.quantize import Scheme, quantized


class FakeQuantize(nn.Module):
    """Numbers as they will be after rounding; the gradient passes as if nothing was rounded.

    Shapes:   weight (rows, columns) -> (rows, columns)
    Paper:    Bengio et al. (2013), arXiv:1308.3432, section 4, straight-through estimator
    Chapter:  chapters/07_compression.ipynb
    """

    def __init__(self, scheme: Scheme):
        super().__init__()
        self.scheme = scheme

    def forward(self, weight: Tensor) -> Tensor:
        """Round going forward, change nothing going back."""
        return weight + (quantized(weight, self.scheme).to(weight.dtype) - weight).detach()


def prepare_qat(model: nn.Module, kind: str = "int8", group_size: int | str | None = None,
                symmetric: bool = True, double: bool = False, skip: Collection[str] = ()
                ) -> nn.Module:
    """Let every layer that `quantize` would replace compute with rounded weights, and train on.

    Tied weights stay tied. Scales are not rounded here, even where `double` will round them.

    Raises:   ValueError as `quantize` does
    Chapter:  chapters/07_compression.ipynb
    """
    scheme = Scheme(kind, group_size, symmetric, double)
    for name, layer in targets(model, scheme, skip).items():
        if type(layer) not in (nn.Linear, nn.Embedding):
            raise ValueError(f"{name} is a {type(layer).__name__}, whose matrix lies the other "
                             "way: skip it, or load the model by load_pretrained")
        parametrize.register_parametrization(layer, "weight", FakeQuantize(scheme))
    return model


def convert_qat(model: nn.Module) -> nn.Module:
    """Pack the weights of a model that was trained after `prepare_qat`.

    Raises:   ValueError when it was not prepared
    Chapter:  chapters/07_compression.ipynb
    """
    layers = [m for m in model.modules() if parametrize.is_parametrized(m, "weight")
              and isinstance(m.parametrizations.weight[0], FakeQuantize)]
    if not layers:
        raise ValueError("no layer computes with rounded weights: call prepare_qat and train first")
    scheme = layers[0].parametrizations.weight[0].scheme
    shared: dict[int, nn.Parameter] = {}
    for layer in layers:
        original = layer.parametrizations.weight.original
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        layer.weight = shared.setdefault(id(original), original)
    learning = {id(layer) for layer in layers}
    skip = [name for name, m in model.named_modules()
            if type(m) in (nn.Linear, nn.Embedding) and id(m) not in learning]
    return quantize(model, scheme.kind, scheme.group_size, scheme.symmetric, scheme.double, skip)
