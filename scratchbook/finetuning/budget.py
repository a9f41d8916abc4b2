"""How much each method learns, by formula, and the sizes at which methods learn equally much.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from torch import nn

from scratchbook.finetuning.methods import (
    IA3_TARGETS,
    ON_INPUT,
    biased_layers,
    bitfit,
    blocks_of,
    bottleneck,
    ia3,
    linears,
    parts_of,
    scale_size,
    sizes_for,
    target_linears,
)
from scratchbook.finetuning.prefix_tuning import check_attention, prefix
from scratchbook.model import DecoderLM

METHODS: dict[str, Callable[..., DecoderLM]] = {
    "ia3": ia3, "prefix": prefix, "bottleneck": bottleneck, "bitfit": bitfit}
TOLERANCE = 0.05


def count_ia3(model: DecoderLM, targets: Collection[str] = IA3_TARGETS) -> int:
    """The widths of what is scaled, summed over the blocks."""
    return sum(scale_size(layer, name in ON_INPUT)
               for _, name, layer in target_linears(model, targets))


def count_prefix(model: DecoderLM, prefix_len: int, **_: object) -> int:
    """Keys and values of every layer: 2 num_layers prefix_len num_kv_heads head_dim."""
    config = model.config
    for block in blocks_of(model):
        check_attention(block.attention)
    return 2 * config.num_layers * prefix_len * config.num_kv_heads * config.head_dim


def count_bottleneck(model: DecoderLM, size: int | Sequence[int], places: str = "houlsby",
                     **_: object) -> int:
    """Two matrices and two biases: 2 d_model size + size + d_model for each adapter."""
    d_model = model.config.d_model
    return len(parts_of(places)) * sum(2 * d_model * width + width + d_model
                                     for width in sizes_for(model, size))


def count_bitfit(model: DecoderLM, targets: Collection[str] | None = None,
                 add_biases: bool = False) -> int:
    """The widths of all biases, summed over the blocks."""
    return sum(width for _, width in biased_layers(model, targets, add_biases))


def count_lora(model: DecoderLM, ranks: dict[str, int], **_: object) -> int:
    """A matrix of each side: rank (in_features + out_features), summed over the layers."""
    layers = _paths(model)
    return sum(rank * (layers[path].in_features + layers[path].out_features)
               for path, rank in ranks.items())


COUNTS: dict[str, Callable[..., int]] = {
    "ia3": count_ia3, "prefix": count_prefix, "bottleneck": count_bottleneck,
    "bitfit": count_bitfit, "lora": count_lora}


def trainable_count(method: str, model: DecoderLM, **options: object) -> int:
    """How many numbers a method would learn on this base; nothing is built.

    Raises:   ValueError for an unknown method, or options that do not fit the model
    Chapter:  chapters/08_lora.ipynb
    """
    _known(method)
    blocks_of(model)
    return COUNTS[method](model, **options)


@dataclass(frozen=True)
class Budget:
    """The options at which a method learns `count` numbers: `METHODS[method](model, **options)`."""

    method: str
    count: int
    options: dict = field(default_factory=dict)


def equal_budget(method: str, model: DecoderLM, count: int, **fixed: object) -> Budget:
    """Choose the size of a method so that it learns `count` numbers, give or take 5 %.

    For "lora" these are ranks, equal or one apart, over `targets` (queries and values unless
    given); for "prefix" the length; for "bottleneck" widths, equal or one apart; "ia3" and
    "bitfit" have no size, so the kinds of layers are chosen. `fixed` are options that stay.

    Raises:   ValueError naming the nearest count when it is further off than that
    Chapter:  chapters/08_lora.ipynb
    """
    _known(method)
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    nearest = min(_choices(method, model, count, fixed), default=None,
                  key=lambda found: abs(found.count - count))  # the first of several
    if nearest is None or abs(nearest.count - count) > TOLERANCE * count:
        found = "nothing" if nearest is None else f"{nearest.count:,}"
        raise ValueError(f"{method} cannot learn {count:,} numbers on this model within "
                         f"{TOLERANCE:.0%}: the nearest found is {found}; take that for all "
                         "methods, or other options")
    return nearest


def _choices(method: str, model: DecoderLM, count: int, fixed: dict) -> Iterator[Budget]:
    if method == "prefix":
        options = _lengths(model, count, fixed)
    elif method == "bottleneck":
        options = _widths(model, count, fixed)
    elif method == "lora":
        options = _ranks(model, count, fixed)
    else:
        options = _kinds(method, model, fixed)
    for each in options:
        yield Budget(method, trainable_count(method, model, **each), each)


def _lengths(model: DecoderLM, count: int, fixed: dict) -> Iterator[dict]:
    length = max(1, round(count / count_prefix(model, 1)))
    if length < model.config.max_seq_len:
        yield fixed | {"prefix_len": length}


def _widths(model: DecoderLM, count: int, fixed: dict) -> Iterator[dict]:
    """Widths that differ by one at the most: the first blocks get what is left over."""
    layers, places = len(blocks_of(model)), len(parts_of(fixed.get("places", "houlsby")))
    d_model = model.config.d_model
    units = round((count / places - layers * d_model) / (2 * d_model + 1))
    units = max(units, layers)
    yield fixed | {"size": [units // layers + (n < units % layers) for n in range(layers)]}


def _ranks(model: DecoderLM, count: int, fixed: dict) -> Iterator[dict]:
    targets = fixed.get("targets", ("q_proj", "v_proj"))
    targets = (targets,) if isinstance(targets, str) else targets
    chosen = {path: layer for path, layer in _paths(model).items()
              if path.rpartition(".")[2] in targets}
    if not chosen:
        raise ValueError(f"targets={targets} name no linear layer of a block")
    widths = {path: layer.in_features + layer.out_features for path, layer in chosen.items()}
    rank, left = divmod(count, sum(widths.values()))
    ranks = dict.fromkeys(chosen, rank)
    for path, width in widths.items():  # one more for the first layers that it still fits
        if width <= left or (rank == 0 and not any(ranks.values())):
            ranks[path], left = rank + 1, left - width
    for path, layer in chosen.items():
        ranks[path] = min(ranks[path], layer.in_features, layer.out_features)
    yield fixed | {"targets": tuple(targets), "ranks": ranks}


def _kinds(method: str, model: DecoderLM, fixed: dict) -> Iterator[dict]:
    """All sets of kinds of layers, the usual one first, then the smaller sets."""
    if "targets" in fixed:
        raise ValueError(f"targets are what {method} chooses: leave them out")
    if method == "ia3":
        kinds = list(dict.fromkeys(name for _, name, _ in linears(model)))
        yield {"targets": IA3_TARGETS} if set(IA3_TARGETS) <= set(kinds) else {"targets": kinds}
    else:
        biased = {id(layer) for layer, _ in biased_layers(model, **fixed)}
        kinds = list(dict.fromkeys(name.rpartition(".")[2] for block in model.blocks
                                   for name, layer in block.named_modules()
                                   if id(layer) in biased))
        yield fixed | {"targets": None}
    for size in range(1, len(kinds) + 1):
        for chosen in combinations(kinds, size):
            yield fixed | {"targets": chosen}


def _paths(model: DecoderLM) -> dict[str, nn.Linear]:
    return {f"blocks.{number}.{path}": layer for number, block in enumerate(blocks_of(model))
            for path, layer in block.named_modules() if isinstance(layer, nn.Linear)}


def _known(method: str) -> None:
    if method not in COUNTS:
        raise ValueError(f"method={method!r} is unknown; choose one of {', '.join(COUNTS)}")
