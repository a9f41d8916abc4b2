"""Adapters as files in peft's format, and several of them in one model.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import regex
import torch
from safetensors.torch import save
from torch import Tensor, nn

from scratchbook.compression.files import digest, read_tensors
from scratchbook.finetuning.lora import chosen_layers, install, linear_layers
from scratchbook.finetuning.low_rank import DoRA, LoRALinear, LowRank, is_conv1d, shape_of
from scratchbook.runtime import write_atomically

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
# what peft calls the parts of an adapter
PARTS = {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight",
         "magnitude": "lora_magnitude_vector"}
# entries of peft's config that change the function, and the value at which they do not
PLAIN = {"bias": "none", "modules_to_save": None, "lora_bias": False, "use_qalora": False,
         "layer_replication": None, "trainable_token_indices": None, "target_parameters": None,
         "alora_invocation_tokens": None, "arrow_config": None, "kasa_config": None,
         "monteclora_config": None, "use_bdlora": None}
# ways to draw A that leave the base as it was; PiSSA, OLoRA, CorDA, LoftQ and others change it
DRAWN = (None, True, False, "gaussian", "orthogonal", "eva")
PATTERN_SECONDS = 1.0  # a pattern from a stranger's file may need ages on a path of 40 letters
TYPES = {"r": int, "lora_alpha": (int, float), "lora_dropout": (int, float), "use_dora": bool,
         "use_rslora": bool, "target_modules": (str, list), "rank_pattern": dict,
         "alpha_pattern": dict}


def save_adapter(model: nn.Module, folder: str | Path, name: str = "default",
                 base_name: str | None = None) -> Path:
    """Write one adapter alone, as peft does, with a hash of every tensor of its base.

    `base_name` says where the base can be found; it is not needed to load the adapter here.

    Raises:   ValueError for a name that the model does not hold, an adapter that is merged, or
              of a kind that is no LoRA in peft
    Chapter:  chapters/08_lora.ipynb
    """
    held = {path: layer for path, layer in _at_every_place(model).items()
            if name in layer.adapters}
    _check_name(model, name)
    adapters = {path: layer.adapters[name] for path, layer in held.items()}
    kinds = {type(adapter) for adapter in adapters.values()}
    if len(kinds) > 1 or not kinds <= {LowRank, DoRA}:
        raise ValueError(f"adapter {name!r} consists of {', '.join(k.__name__ for k in kinds)}, "
                         "not of LowRank or DoRA alone: AdaLoRA's is made one by settle(model)")
    tensors = {f"{PREFIX}{path}.{PARTS[part]}": value.detach().cpu().contiguous().clone()
               for path, adapter in adapters.items()
               for part, value in adapter.named_parameters()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "base": json.dumps(base_hashes(model))}
    config = _describe(model, adapters) | {"base_model_name_or_path": base_name}
    (folder / CONFIG).unlink(missing_ok=True)  # an older one would scale the new numbers wrongly
    write_atomically(folder / TENSORS, save(tensors, metadata))
    write_atomically(folder / CONFIG, json.dumps(config, indent=1, sort_keys=True) + "\n")
    return folder


def load_adapter(model: nn.Module, folder: str | Path, name: str = "default",
                 trainable: bool = False, any_base: bool = False) -> nn.Module:
    """Add an adapter from a folder of ours or of peft's, and make it the active one.

    Raises:   FileNotFoundError, or ValueError naming the file and what does not fit: a kind that
              is not read, another rank or target than the config says, a base whose tensors are
              not those it was trained on (unless `any_base`; peft's files do not say)
    Chapter:  chapters/08_lora.ipynb
    """
    folder = Path(folder)
    config = _read_config(folder)
    tensors, metadata = read_tensors(folder / TENSORS)
    try:
        parts = _by_layer(tensors)
        layers = linear_layers(model)
        _check_targets(model, layers, parts, config)
        for path, found in parts.items():
            _check_shapes(path, layers[path], found, config)
        if not any_base and "base" in metadata:
            _check_base(model, json.loads(metadata["base"]), config)
        install(model, {path: layers[path] for path in parts}, name,
                lambda path, layer: _build(path, layer, parts[path], config))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return use_adapter(model, name, trainable)


def use_adapter(model: nn.Module, name: str | None, trainable: bool = False) -> nn.Module:
    """Make another of the held adapters the active one; None is the base alone.

    Raises:   ValueError for a name that the model does not hold, or while one is merged
    Chapter:  chapters/08_lora.ipynb
    """
    for layer in _check_name(model, name):
        layer.active = name if name in layer.adapters else None
        for own, adapter in layer.adapters.items():
            for parameter in adapter.parameters():
                parameter.requires_grad = trainable and own == name
    return model


@contextmanager
def mixed(model: nn.Module, names: Sequence[str | None]) -> Iterator[nn.Module]:
    """Within the block, row i of every batch is changed by the adapter names[i]; None by none.

    The base's product is taken once for the whole batch.

    Raises:   ValueError for a name that the model does not hold, while one is merged, or for a
              batch of another size
    Chapter:  chapters/08_lora.ipynb
    """
    layers = _check_name(model, *names)
    rows = {name: [i for i, own in enumerate(names) if own == name]
            for name in names if name is not None}
    before = [(layer.rows, layer.batch_size) for layer in layers]
    for layer in layers:
        layer.rows, layer.batch_size = rows, len(names)
    try:
        yield model
    finally:
        for layer, (old, size) in zip(layers, before, strict=True):
            layer.rows, layer.batch_size = old, size


def adapter_names(model: nn.Module) -> list[str]:
    """The names of all adapters that a model holds."""
    return list(dict.fromkeys(name for layer in _wrappers(model) for name in layer.adapters))


def base_hashes(model: nn.Module) -> dict[str, str]:
    """A hash of every tensor of the base, under the name that it had before it was wrapped."""
    wrapped = tuple(_at_every_place(model))
    adapters = tuple(f"{path}.adapters." for path in wrapped)
    state = {name: tensor for name, tensor in model.state_dict().items()
             if not name.startswith(adapters)}
    for path in wrapped:
        state = {name.replace(f"{path}.base_layer.", f"{path}.", 1): tensor
                 for name, tensor in state.items()}
    return {name: digest({"": tensor})[:32] for name, tensor in state.items()}


def _at_every_place(model: nn.Module) -> dict[str, LoRALinear]:
    """As `lora_layers`; a layer that stands at two places has two paths here."""
    return {path: layer for path, layer in model.named_modules(remove_duplicate=False)
            if isinstance(layer, LoRALinear)}


def _check_name(model: nn.Module, *names: str | None) -> list[LoRALinear]:
    layers = list(_wrappers(model))
    known = dict.fromkeys(name for layer in layers for name in layer.adapters)
    for name in names:
        if name is not None and name not in known:
            raise ValueError(f"the model holds no adapter {name!r}; there are "
                             f"{', '.join(known) or 'none: apply_lora or load_adapter first'}")
    if any(layer.kept is not None for layer in layers):
        raise ValueError("an adapter is merged into the model: unmerge(model) first")
    return layers


def _wrappers(module: nn.Module) -> Iterator[LoRALinear]:
    """As `lora_layers`, but without a look inside of them: switching should take no time."""
    for child in module.children():
        if isinstance(child, LoRALinear):
            yield child
        else:
            yield from _wrappers(child)


def _describe(model: nn.Module, adapters: Mapping[str, LowRank]) -> dict[str, Any]:
    """The entries of adapter_config.json."""
    first, layers = next(iter(adapters.values())), linear_layers(model)
    lasts = {path.split(".")[-1] for path in adapters}
    short = adapters.keys() == {path for path in layers if path.split(".")[-1] in lasts}
    rank, ranks = _usual({path: adapter.lora_rank for path, adapter in adapters.items()})
    alpha, alphas = _usual({path: adapter.lora_alpha for path, adapter in adapters.items()})
    return {"peft_type": "LORA", "task_type": None, "inference_mode": True, "bias": "none",
            "r": rank, "rank_pattern": ranks, "lora_alpha": alpha, "alpha_pattern": alphas,
            "lora_dropout": first.dropout.p, "use_rslora": first.rslora,
            "use_dora": isinstance(first, DoRA),
            "fan_in_fan_out": any(is_conv1d(layers[path]) for path in adapters),
            "target_modules": sorted(lasts if short else adapters)}


def _usual(values: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """The commonest value, and who has another."""
    usual = Counter(values.values()).most_common(1)[0][0]
    return usual, {path: value for path, value in values.items() if value != usual}


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: an adapter is a folder with {CONFIG} and "
                                f"{TENSORS}")
    if not (folder / TENSORS).is_file() and (folder / "adapter_model.bin").is_file():
        raise ValueError(f"{folder} holds adapter_model.bin alone: a pickle can run any code when "
                         "it is read, so it is not. Save it by peft as safetensors")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, _ = config["peft_type"], config["r"] + config["lora_alpha"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no config of a LoRA adapter: {error!r}") from None
    if kind != "LORA":
        raise ValueError(f"{path}: peft_type={kind!r} is not read here, LORA alone is")
    for entry, plain in PLAIN.items():
        if config.get(entry, plain) not in (plain, None, [], {}):
            raise ValueError(f"{path}: {entry}={config[entry]!r} is not read here")
    if (drawn := config.get("init_lora_weights")) not in DRAWN:
        raise ValueError(f"{path}: init_lora_weights={drawn!r} took a part out of the base, which "
                         "this file does not hold. Save it by peft with "
                         "path_initial_model_for_weight_conversion")
    _check_types(path, config)
    return config


def _check_types(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse entries that are not what peft writes there."""
    for entry, kind in TYPES.items():
        value = config.get(entry)
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{path}: {entry}={value!r} is none of peft's")
    patterns = [config.get(entry) or {} for entry in ("rank_pattern", "alpha_pattern")]
    for piece, value in chain.from_iterable(pattern.items() for pattern in patterns):
        if not isinstance(value, int | float):
            raise ValueError(f"{path}: the pattern {piece!r} has {value!r}, which is no number")
    targets = config.get("target_modules")
    for piece in chain(*patterns, [targets] if isinstance(targets, str) else []):
        try:
            regex.compile(piece)
        except regex.error as error:
            raise ValueError(f"{path}: {piece!r} is no regular expression: {error}") from None


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The parts of every layer's adapter."""
    parts: dict[str, dict[str, Tensor]] = {}
    ends = {theirs: ours for ours, theirs in PARTS.items()}
    for name, tensor in tensors.items():
        found = re.fullmatch(rf"{re.escape(PREFIX)}(.+?)\.({'|'.join(map(re.escape, ends))})",
                             name)
        if found is None:
            raise ValueError(f"{name} is no part of a LoRA adapter of linear layers")
        parts.setdefault(found[1], {})[ends[found[2]]] = tensor
    return parts


def _check_targets(model: nn.Module, layers: Mapping[str, nn.Module],
                   parts: Mapping[str, Mapping], config: Mapping) -> None:
    """Refuse a file with more or fewer layers than its config chooses in this model."""
    targets = config.get("target_modules") or []
    if missing := sorted(parts.keys() - layers.keys()):
        raise ValueError(f"it adapts {missing[0]} and {len(missing) - 1} more layers that this "
                         f"{type(model).__name__} has not: it is for another model")
    if targets == "all-linear":
        chosen = set(chosen_layers(model, targets))
    elif isinstance(targets, str):
        chosen = {path for path in layers if _matches(targets, path)}
    else:
        chosen = {path for path in layers for target in targets
                  if f".{path}".endswith(f".{target}")}
    narrowed = any(config.get(entry) for entry in ("layers_to_transform", "exclude_modules"))
    wrong = sorted(parts.keys() - chosen if narrowed else parts.keys() ^ chosen)
    if wrong or not parts:
        raise ValueError(f"its config chooses {targets}, but {TENSORS} "
                         + (f"and this model differ on {wrong[0]}" if parts else "is empty"))


def _check_shapes(path: str, layer: nn.Module, found: Mapping[str, Tensor], config: Mapping
                  ) -> None:
    out_features, in_features = shape_of(layer)
    rank = _of_pattern(config, "r", "rank_pattern", path)
    wanted = {"lora_A": (rank, in_features), "lora_B": (out_features, rank)}
    if config.get("use_dora"):
        wanted["magnitude"] = (out_features,)
    shapes = {part: tuple(tensor.shape) for part, tensor in found.items()}
    if shapes != wanted:
        raise ValueError(f"{path}: by its config and this model it should consist of {wanted}, "
                         f"the file holds {shapes}")
    if wrong := [tensor.dtype for tensor in found.values() if not tensor.is_floating_point()]:
        raise ValueError(f"{path}: its numbers are {wrong[0]}, not floats")
    if not all(tensor.float().isfinite().all() for tensor in found.values()):
        raise ValueError(f"{path}: its numbers are not finite")


def _check_base(model: nn.Module, wanted: Mapping[str, str], config: Mapping) -> None:
    found = base_hashes(model)
    if not isinstance(wanted, dict):
        raise ValueError(f"the hashes of its base are damaged in {TENSORS}: copy it again")
    if wrong := sorted(n for n in wanted | found if wanted.get(n) != found.get(n)):
        base = config.get("base_model_name_or_path")
        raise ValueError(f"it was trained on another base{f', {base}' if base else ''}: "
                         f"{wrong[0]} and {len(wrong) - 1} more tensors are not those. Load that "
                         "base first, or give any_base=True where you know that it fits")


def _build(path: str, layer: nn.Module, found: Mapping[str, Tensor], config: Mapping) -> LowRank:
    adapter = (DoRA if config.get("use_dora") else LowRank)(
        layer, _of_pattern(config, "r", "rank_pattern", path),
        _of_pattern(config, "lora_alpha", "alpha_pattern", path),
        config.get("lora_dropout") or 0.0, bool(config.get("use_rslora")))
    with torch.no_grad():
        for part, tensor in found.items():
            getattr(adapter, part).copy_(tensor)
    return adapter


def _of_pattern(config: Mapping, entry: str, pattern: str, path: str) -> Any:
    """A value that some layers have for themselves: the first pattern that ends the path."""
    return next((value for piece, value in (config.get(pattern) or {}).items()
                 if _matches(rf"(.*\.)?({piece})", path)), config[entry])


def _matches(pattern: str, path: str) -> bool:
    try:
        return regex.fullmatch(pattern, path, timeout=PATTERN_SECONDS) is not None
    except TimeoutError:
        raise ValueError(f"the pattern {pattern!r} of {CONFIG} needs more than "
                         f"{PATTERN_SECONDS:g} s on {path}: name the layers instead") from None
    except regex.error as error:  # one that holds alone, and not behind the start of a path
        raise ValueError(f"the pattern {pattern!r} of {CONFIG} is no regular expression: "
                         f"{error}") from None
