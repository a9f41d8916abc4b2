"""Three small things to learn beside a frozen model: scales, bottlenecks, biases.

Each is put into a `DecoderLM` in place, freezes everything else and starts without an effect.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from scratchbook.feedforward import ACTIVATIONS
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator

IA3_TARGETS = ("k_proj", "v_proj", "down_proj")
ON_INPUT = ("down_proj",)  # IA3 scales the hidden vector of the feed-forward part
PLACES = {"houlsby": ("attention", "feedforward"), "pfeiffer": ("feedforward",)}


class ScaledLinear(nn.Module):
    """A frozen linear layer whose result, or input, is multiplied by a learned vector of ones.

    Shapes:   x (..., in_features) -> (..., out_features)
    Paper:    Liu et al. (2022), arXiv:2205.05638, section 3.3
    Chapter:  chapters/08_lora.ipynb
    """

    def __init__(self, base_layer: nn.Linear, on_input: bool, like: Tensor):
        super().__init__()
        self.base_layer, self.on_input = base_layer, on_input
        self.scale = nn.Parameter(like.new_ones(scale_size(base_layer, on_input)))

    def forward(self, x: Tensor) -> Tensor:
        """Scale what goes in, or what comes out, bias included."""
        if self.on_input:
            return self.base_layer((x * self.scale).to(x.dtype))
        out = self.base_layer(x)
        return (out * self.scale).to(out.dtype)


def ia3(model: DecoderLM, targets: Collection[str] = IA3_TARGETS) -> DecoderLM:
    """Learn one factor for each coordinate of keys, values and hidden vectors.

    `targets` names linear layers of a block. Of `down_proj` the input is scaled, of all others
    the result. The count of what learns is the sum of these widths over all blocks.

    Raises:   ValueError for a name that no block has, or a model that is adapted already
    Paper:    Liu et al. (2022), arXiv:2205.05638, section 3.3
    Chapter:  chapters/08_lora.ipynb
    """
    places = target_linears(model, targets)
    like = begin(model, "ia3", targets=sorted(targets))
    for parent, name, layer in places:
        setattr(parent, name, ScaledLinear(layer, name in ON_INPUT, like))
    return model


@torch.no_grad()
def merge_ia3(model: DecoderLM) -> DecoderLM:
    """Multiply the learned factors into the weights: the same model, without wrappers.

    Raises:   ValueError when the model has no factors, or its weights are packed; it is
              unchanged then
    """
    found = [(parent, name, child) for parent in model.modules()
             for name, child in parent.named_children() if isinstance(child, ScaledLinear)]
    if not found:
        raise ValueError("the model has no IA3 factors to merge: call ia3(model) first")
    for _, name, child in found:
        if type(child.base_layer) is not nn.Linear:
            raise ValueError(f"{name} is a {type(child.base_layer).__name__}: factors are merged "
                             "into an nn.Linear only; load them into the model before it was "
                             "quantized")
    for parent, name, child in found:
        layer, scale = child.base_layer, child.scale
        layer.weight.mul_(scale if child.on_input else scale[:, None])
        if layer.bias is not None and not child.on_input:
            layer.bias.mul_(scale)
        setattr(parent, name, layer)
    del model.adaptation
    return model


class Bottleneck(nn.Module):
    """Add to a vector what two thin layers make of it; nothing at first.

    The paper draws `up` near zero, here it is zero: the first step starts at the base exactly.

    Shapes:   x (..., d_model) -> (..., d_model)
    Raises:   ValueError for an unknown activation or a size below one
    Paper:    Houlsby et al. (2019), arXiv:1902.00751, section 2.1
    Chapter:  chapters/08_lora.ipynb
    """

    def __init__(self, d_model: int, size: int, activation: str = "gelu", seed: int = 0,
                 name: str = ""):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is unknown; choose one of "
                             f"{', '.join(ACTIVATIONS)}")
        if size < 1:
            raise ValueError(f"size={size} must be at least 1")
        self.activation = ACTIVATIONS[activation]
        self.down = skip_init(nn.Linear, d_model, size)  # torch's own draw would move its generator
        self.up = skip_init(nn.Linear, size, d_model)
        with torch.no_grad():
            drawn = torch.randn(size, d_model, generator=named_generator(seed, name))
            self.down.weight.copy_(drawn * 0.01)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Narrow, bend, widen, and add."""
        wide = x if torch.is_autocast_enabled(x.device.type) else x.to(self.down.weight.dtype)
        return (x + self.up(self.activation(self.down(wide)))).to(x.dtype)


class WithBottleneck(nn.Module):
    """A frozen part of a block with a bottleneck behind it."""

    def __init__(self, base: nn.Module, adapter: Bottleneck):
        super().__init__()
        self.base, self.adapter = base, adapter

    def forward(self, *arguments: object, **options: object) -> Tensor | tuple:
        """What the part returns, its vectors adapted."""
        result = self.base(*arguments, **options)
        if isinstance(result, tuple):  # attention that was asked for its weights
            return self.adapter(result[0]), *result[1:]
        return self.adapter(result)


def bottleneck(model: DecoderLM, size: int | Sequence[int], places: str = "houlsby",
               activation: str = "gelu", seed: int = 0) -> DecoderLM:
    """Put a bottleneck behind attention and feed-forward ("houlsby"), or the latter ("pfeiffer").

    It stands before the sum with the stream. `size` is its width, one for all blocks or one for
    each. One adapter learns 2 d_model size + size + d_model numbers.

    Raises:   ValueError for unknown places, sizes that do not fit, or a model adapted already
    Paper:    Houlsby et al. (2019), arXiv:1902.00751; Pfeiffer et al. (2020), arXiv:2005.00247
    Chapter:  chapters/08_lora.ipynb
    """
    blocks, sizes = blocks_of(model), sizes_for(model, size)
    parts, d_model = parts_of(places), model.config.d_model
    made = [(block, part, Bottleneck(d_model, width, activation, seed, f"{number}.{part}"))
            for number, (block, width) in enumerate(zip(blocks, sizes, strict=True))
            for part in parts]
    like = begin(model, "bottleneck", size=sizes, places=places, activation=activation, seed=seed)
    for block, part, adapter in made:
        adapter.to(like.device, like.dtype)
        setattr(block, part, WithBottleneck(getattr(block, part), adapter))
    return model


def bitfit(model: DecoderLM, targets: Collection[str] | None = None, add_biases: bool = False
           ) -> DecoderLM:
    """Learn nothing but biases: those of the linear layers and norms inside of the blocks.

    `targets` names layers of a block, None means all. A model without biases is refused unless
    `add_biases`, which gives zeros to the linear layers that have none.

    Raises:   ValueError for a model or targets without biases, a name that no block has, or a
              model that is adapted already
    Paper:    Ben Zaken et al. (2021), arXiv:2106.10199, section 3
    Chapter:  chapters/08_lora.ipynb
    """
    layers = biased_layers(model, targets, add_biases)
    begin(model, "bitfit", targets=None if targets is None else sorted(targets),
          add_biases=add_biases)
    for layer, width in layers:
        if layer.bias is None:
            like = layer.packed.like if hasattr(layer, "packed") else layer.weight
            layer.bias = nn.Parameter(like.new_zeros(width))
        layer.bias.requires_grad_(True)
    return model


def biased_layers(model: DecoderLM, targets: Collection[str] | None = None,
                  add_biases: bool = False) -> list[tuple[nn.Module, int]]:
    """The layers whose biases `bitfit` would learn, and how many numbers each has.

    Raises:   ValueError as `bitfit` does
    """
    targets = (targets,) if isinstance(targets, str) else targets
    found: dict[str, list[tuple[nn.Module, int]]] = {}
    for block in blocks_of(model):
        for name, layer in block.named_modules():
            bias = getattr(layer, "bias", None)
            if isinstance(bias, nn.Parameter) or (add_biases and isinstance(layer, nn.Linear)):
                width = layer.out_features if isinstance(layer, nn.Linear) else bias.numel()
                found.setdefault(name.rpartition(".")[2], []).append((layer, width))
    if not found:
        raise ValueError("this model has no biases to learn: add_biases=True gives zeros to the "
                         "linear layers of its blocks, or take another method, such as ia3")
    if targets is not None and (missing := sorted(set(targets) - found.keys())):
        raise ValueError(f"targets name {', '.join(missing)}, where no block has a bias; there are "
                         f"{', '.join(found)}")
    return [layer for name in (found if targets is None else sorted(set(targets)))
            for layer in found[name]]


# what the methods have in common


def begin(model: DecoderLM, method: str, **options: object) -> Tensor:
    """Freeze a model and note what it is adapted by; returns a tensor like its new parameters.

    They are float32 where the base has fewer bits: a factor of 1 + 0.001 is 1 in bfloat16.

    Raises:   ValueError for a model that is adapted already
    """
    blocks_of(model)
    model.requires_grad_(False)
    model.adaptation = {"method": method, "options": options}
    packed = getattr(model.token_embedding, "packed", None)
    like = model.token_embedding.weight if packed is None else packed.like
    return like.new_empty(0, dtype=torch.promote_types(like.dtype, torch.float32))


def blocks_of(model: DecoderLM) -> Sequence[nn.Module]:
    """The blocks of a decoder that has no adapter yet.

    Raises:   ValueError for anything else
    """
    if not isinstance(model, DecoderLM):
        raise ValueError(f"{type(model).__name__} is no DecoderLM: load_pretrained makes one of "
                         "the weights of most families")
    if getattr(model, "adaptation", None) is not None:
        raise ValueError(f"the model is adapted by {model.adaptation['method']} already: take a "
                         "fresh copy of the base")
    if any(hasattr(module, "base_layer") for module in model.modules()):
        raise ValueError("LoRA adapts the model already: merge(model) and unwrap(model), or take a "
                         "fresh copy of the base")
    return model.blocks


def parts_of(places: str) -> tuple[str, ...]:
    """The parts of a block that get a bottleneck.

    Raises:   ValueError for unknown places
    """
    if places not in PLACES:
        raise ValueError(f"places={places!r} is unknown; choose one of {', '.join(PLACES)}")
    return PLACES[places]


def sizes_for(model: DecoderLM, size: int | Sequence[int]) -> list[int]:
    """One size for each block.

    Raises:   ValueError when there are more or fewer, or one is no whole number from 1 up
    """
    layers = len(model.blocks)
    sizes = [size] * layers if isinstance(size, int) else list(size)
    if len(sizes) != layers or not all(type(each) is int and each > 0 for each in sizes):
        raise ValueError(f"size={size!r}: give a whole number from 1 up, or {layers} of them, one "
                         "for each block")
    return sizes


def scale_size(layer: nn.Linear, on_input: bool) -> int:
    """How many factors IA3 learns for a layer."""
    return layer.in_features if on_input else layer.out_features


def linears(model: DecoderLM) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Every linear layer of the blocks: where it hangs, its name there, and itself."""
    for block in blocks_of(model):
        for parent in block.modules():
            for name, layer in parent.named_children():
                if isinstance(layer, nn.Linear):
                    yield parent, name, layer


def target_linears(model: DecoderLM, targets: Collection[str]
                   ) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Those of `linears` that have one of the names.

    Raises:   ValueError for a name that no block has, or none at all
    """
    targets = {targets} if isinstance(targets, str) else set(targets)
    found = list(linears(model))
    names = list(dict.fromkeys(name for _, name, _ in found))
    if not targets or (missing := sorted(targets - set(names))):
        raise ValueError(f"targets name {', '.join(missing) if targets else 'nothing'}; the linear "
                         f"layers of a block are {', '.join(names)}")
    return [place for place in found if place[1] in targets]
