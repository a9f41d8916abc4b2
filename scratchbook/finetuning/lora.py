"""LoRA on a whole model: adapters beside its linear layers, merged into them, taken off again.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from torch import nn

from scratchbook.finetuning.low_rank import (
    DoRA,
    LoRALinear,
    LowRank,
    check_name,
    check_numbers,
    is_conv1d,
    shape_of,
)

PRESETS = {"journey": {"targets": ("q_proj", "v_proj"), "lora_rank": 8, "lora_alpha": 32,
                       "dropout": 0.1}}


def apply_lora(
    model: nn.Module, targets: str | Collection[str] = ("q_proj", "v_proj"), lora_rank: int = 8,
    lora_alpha: float = 16, dropout: float = 0.0, ranks: Mapping[str, int] | None = None,
    rslora: bool = False, dora: bool = False, name: str = "default",
) -> nn.Module:
    """Freeze a model and put an adapter beside each of the chosen linear layers, in place.

    `targets` are names of layers or pieces of their path ("q_proj", "attention", "blocks.3"),
    or "all-linear": all of them but the head. `ranks` gives some of them another rank, by the
    first such piece that fits; 0 leaves a layer out. A second call under another `name` adds a
    second adapter, which is then the active one.

    >>> model = apply_lora(DecoderLM(ModelConfig(256, num_layers=2, d_model=64, num_heads=4)))
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)  # 4 layers, 8 (64 + 64)
    4096

    Raises:   ValueError naming the target or layer for whatever cannot be; the model is
              unchanged then
    Chapter:  chapters/08_lora.ipynb
    """
    ranks, kind = dict(ranks or {}), DoRA if dora else LowRank
    layers = chosen_layers(model, targets)
    if unused := [piece for piece in ranks if not any(_fits(piece, path) for path in layers)]:
        raise ValueError(f"ranks names {unused[0]!r}, which is none of the targets: "
                         f"{', '.join(layers)[:300]}")
    wanted = {path: next((ranks[piece] for piece in ranks if _fits(piece, path)), lora_rank)
              for path in layers}
    layers = {path: layer for path, layer in layers.items() if wanted[path] != 0}
    for path, layer in layers.items():
        try:
            check_numbers(wanted[path], lora_alpha, dropout, shape_of(layer))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return install(model, layers, name, lambda path, layer: kind(
        layer, wanted[path], lora_alpha, dropout, rslora))


def install(model: nn.Module, layers: Mapping[str, nn.Module], name: str,
            make: Callable[[str, nn.Module], nn.Module]) -> nn.Module:
    """Freeze a model and give each of the layers the adapter that `make` builds, in place.

    An adapter is a module whose `forward(x, out, base_layer)` returns what the layer is to give
    in place of `out`. `layers` come from `chosen_layers`.

    Raises:   ValueError for a name that is taken, a merged layer, or when no layer is left
    Chapter:  chapters/08_lora.ipynb
    """
    check_name(name)
    held = lora_layers(model)
    if any(name in layer.adapters for layer in held.values()):
        raise ValueError(f"the model holds an adapter called {name!r} already: give another name, "
                         "or unwrap(model) first")
    if any(layer.kept is not None for layer in held.values()):
        raise ValueError("an adapter is merged into the model: unmerge(model) first")
    if not layers:
        raise ValueError("no layer is left to adapt: give one of them a rank above 0")
    made = {id(layer): make(path, layer) for path, layer in layers.items()}
    model.requires_grad_(False)
    for layer in held.values():
        layer.active = None
    wrappers = {id(layer.base_layer): layer for layer in held.values()}
    for path, layer in layers.items():
        wrapper = wrappers.get(id(layer)) or LoRALinear(layer, 0).train(layer.training)
        wrappers[id(layer)] = wrapper
        if name not in wrapper.adapters:  # a layer may stand at two places of the model
            wrapper.add(name, made[id(layer)])
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, wrapper)
    return model


def merge(model: nn.Module) -> dict[str, float]:
    """Write the active adapter into the model's weights; returns the share of it that was lost.

    Raises:   ValueError naming the layer that cannot take it; nothing is merged then
    Chapter:  chapters/08_lora.ipynb
    """
    layers = {path: layer for path, layer in _wrapped(model).items() if layer.active is not None}
    if not layers:
        raise ValueError("no adapter is active: use_adapter(model, name) first")
    owners = Counter(id(parameter) for module in model.modules()
                     for parameter in module.parameters(recurse=False))
    for path, layer in layers.items():
        try:
            layer.check_merge()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if owners[id(layer.base_layer.weight)] > 1:
            raise ValueError(f"{path} shares its weight with another layer (tied embeddings), "
                             "which would change too: keep the adapter beside it, or untie them "
                             "before")
    lost = {}
    for path, layer in layers.items():
        try:
            lost[path] = layer.merge()
        except ValueError as error:
            for done in lost:
                layers[done].unmerge()
            raise ValueError(f"{path}: {error}") from None
    return lost


def unmerge(model: nn.Module) -> None:
    """Put every weight back that `merge` changed, bit for bit.

    Raises:   ValueError when nothing is merged
    Chapter:  chapters/08_lora.ipynb
    """
    layers = [layer for layer in _wrapped(model).values() if layer.kept is not None]
    if not layers:
        raise ValueError("nothing is merged into the model")
    for layer in layers:
        layer.unmerge()


def unwrap(model: nn.Module) -> nn.Module:
    """Put the plain layers back in place, and let go of all adapters.

    After `merge` that is the adapted model as others load it. Weights stay frozen.

    Raises:   ValueError when there is no adapter
    Chapter:  chapters/08_lora.ipynb
    """
    _wrapped(model)
    for path, layer in list(model.named_modules(remove_duplicate=False)):
        if isinstance(layer, LoRALinear):
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.base_layer)
    return model


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The wrapped layers of a model by their path."""
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, LoRALinear)}


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer, wrapped or not, by the path that it had before it was wrapped.

    Raises:   ValueError for a model that another library has wrapped
    Chapter:  chapters/08_lora.ipynb
    """
    found: dict[str, nn.Module] = {}
    inside: list[str] = []
    for path, module in model.named_modules(remove_duplicate=False):
        if any(path.startswith(wrapper) for wrapper in inside):
            continue
        if isinstance(module, LoRALinear):
            found[path], inside = module.base_layer, [*inside, f"{path}."]
        elif hasattr(module, "base_layer"):
            raise ValueError(f"{path} is wrapped already, as {type(module).__module__}."
                             f"{type(module).__name__}: give the model without it")
        elif isinstance(module, nn.Linear) or is_conv1d(module):
            found[path] = module
    return found


def chosen_layers(model: nn.Module, targets: str | Collection[str]) -> dict[str, nn.Module]:
    """The linear layers that `targets` name, by path; what they are is said at `apply_lora`.

    Raises:   ValueError naming the target that is no linear layer, and those that there are
    """
    layers = linear_layers(model)
    if not layers or "" in layers:
        raise ValueError(f"there is no linear layer inside of {type(model).__name__}")
    if targets == "all-linear":
        head = getattr(model, "get_output_embeddings", lambda: None)()
        return {path: layer for path, layer in layers.items()
                if layer is not head and path.split(".")[-1] != "lm_head"}
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    names = ", ".join(dict.fromkeys(path.split(".")[-1] for path in layers))
    for target in targets or ("",):
        if not any(_fits(target, path) for path in layers):
            raise ValueError(f"target {target!r} names no linear layer of the model; there are "
                             f"{names}, or 'all-linear'")
    return {path: layer for path, layer in layers.items()
            if any(_fits(target, path) for target in targets)}


def _wrapped(model: nn.Module) -> dict[str, LoRALinear]:
    layers = lora_layers(model)
    if not layers:
        raise ValueError(f"this {type(model).__name__} holds no adapter: apply_lora or "
                         "load_adapter first")
    return layers


def _fits(piece: str, path: str) -> bool:
    return f".{piece}." in f".{path}."
