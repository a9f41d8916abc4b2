"""Smaller copies of a model: how small a budget asks, and which layers a copy keeps.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.accounting import total_parameters
from scratchbook.compression.distillation import Distillation, Teacher, distill
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Batches
from scratchbook.generation import eval_mode
from scratchbook.model import DecoderLM
from scratchbook.training.loop import Trained
from scratchbook.training.settings import TrainConfig


def student_config(budget: int, base: ModelConfig) -> ModelConfig:
    """The config most like `base` in its proportions that learns at most `budget` numbers.

    Embeddings count. Heads keep their width; their number and d_ff follow d_model, which grows
    by 32 where that of `base` does, so that formats with blocks of 32 can hold it. Of every
    number of layers the widest model that fits is a candidate; taken is the one whose ratio of
    width to layers is nearest to that of `base`. What is left of the budget goes to d_ff, which
    it doubles at most.

    Raises:   ValueError when not even one narrow layer fits, or `base` has latent attention
    Chapter:  chapters/07_compression.ipynb
    """
    if base.latent_dim is not None:
        raise ValueError(f"latent_dim={base.latent_dim}: a budget is met by taking heads, which "
                         "latent attention shares; write the smaller config by hand")
    step, candidates = math.gcd(base.d_model, 32), {}
    for layers in range(1, base.num_layers + 1):
        for d_model in range(step, base.d_model + 1, step):  # rising: the widest that fits stays
            scaled = _scaled(base, layers, d_model, step)
            if total_parameters(scaled) <= budget:
                candidates[layers] = scaled
    if not candidates:
        smallest = total_parameters(_scaled(base, 1, step, step))
        raise ValueError(f"budget={budget:,}: one layer of width {step} already has {smallest:,} "
                         f"parameters with vocab_size={base.vocab_size:,}; take a smaller "
                         "vocabulary or a base with narrower heads")
    shape = math.log(base.d_model / base.num_layers)
    chosen = min(candidates.values(),
                 key=lambda c: abs(math.log(c.d_model / c.num_layers) - shape))
    most = min(base.d_ff, 2 * chosen.d_ff)
    while (wider := chosen.with_(d_ff=chosen.d_ff + step)).d_ff <= most and (
            total_parameters(wider) <= budget):
        chosen = wider
    return chosen


def _scaled(base: ModelConfig, num_layers: int, d_model: int, step: int) -> ModelConfig:
    if d_model == base.d_model:
        return base.with_(num_layers=num_layers)
    share = d_model / base.d_model
    heads = max(1, round(base.num_heads * share))
    group = base.num_heads // base.num_kv_heads
    kv_heads = max(k for k in range(1, heads + 1) if heads % k == 0 and (k == 1 or k * group
                                                                         <= heads))
    return base.with_(num_layers=num_layers, d_model=d_model, num_heads=heads,
                      num_kv_heads=kv_heads, d_ff=max(step, round(base.d_ff * share / step) * step))


def spread_layers(num_layers: int, keep: int) -> list[int]:
    """`keep` layers at even distances, the first and the last among them.

    Raises:   ValueError when there are not so many
    Paper:    Sanh et al. (2019), arXiv:1910.01108, section 3 (there one layer in two)
    Chapter:  chapters/07_compression.ipynb
    """
    if not 1 <= keep <= num_layers:
        raise ValueError(f"keep={keep} is not within 1..num_layers={num_layers}")
    return [round(i * (num_layers - 1) / max(1, keep - 1)) for i in range(keep)]


@torch.no_grad()
def block_influence(model: DecoderLM, batches: Iterable[Tensor]) -> Tensor:
    """How much each block turns the vectors that pass it: one minus the cosine, on average.

    Shapes:   batches of ids (batch, time) -> (num_layers,); 0 for a block that does nothing
    Raises:   ValueError when there is no batch
    Paper:    Men et al. (2024), arXiv:2403.03853, equation 1
    Chapter:  chapters/07_compression.ipynb
    """
    sums, count = torch.zeros(len(model.blocks)), 0

    def compare(layer: int, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sums[layer] += (1 - F.cosine_similarity(inputs[0].float(), output.float(),
                                                     dim=-1)).sum().cpu()

    hooks = [block.register_forward_hook(partial(compare, layer))
             for layer, block in enumerate(model.blocks)]
    try:
        with eval_mode(model):
            for ids in batches:
                model(ids)
                count += ids.numel()
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise ValueError("there is no batch: give at least one of ids (batch, time)")
    return sums / count


def keep_layers(model: DecoderLM, layers: Sequence[int]) -> DecoderLM:
    """A copy with some of the layers, in their order.

    Raises:   ValueError for a layer that is not there or named twice, or none at all
    Chapter:  chapters/07_compression.ipynb
    """
    if not layers or not set(layers) <= set(range(len(model.blocks))) or len(
            set(layers)) != len(layers):
        raise ValueError(f"layers={list(layers)}: name some of 0..{len(model.blocks) - 1}, each "
                         "once")
    smaller = copy.deepcopy(model)
    smaller.blocks = nn.ModuleList(smaller.blocks[layer] for layer in sorted(layers))
    smaller.config = model.config.with_(num_layers=len(layers))
    return smaller


def shrink(model: DecoderLM, sizes: Sequence[int], data: Batches, config: TrainConfig,
           how: Distillation | None = None, folder: str | Path | None = None,
           by_influence: Iterable[Tensor] | None = None, **options: Any
           ) -> tuple[DecoderLM, list[Trained]]:
    """Take layers away in stages, and let the model learn from its whole self after each.

    `sizes` are the numbers of layers, falling, such as (4, 2); each stage trains for the whole
    config, in FOLDER/layers_N. Kept are layers at even distances or, with batches of ids for
    `by_influence`, those that turn their vectors most. What the last stage returns is a
    student like any other.

    Raises:   ValueError when the sizes do not fall, and as `distill` does
    Chapter:  chapters/07_compression.ipynb
    """
    ladder = [len(model.blocks), *sizes]
    falling = all(a > b for a, b in zip(ladder, ladder[1:], strict=False))
    if len(ladder) < 2 or ladder[-1] < 1 or not falling:
        raise ValueError(f"sizes={tuple(sizes)} must fall, from below num_layers={ladder[0]} "
                         "to 1 or more")
    batches = None if by_influence is None else list(by_influence)
    teacher, student, stages = Teacher(model), model, []
    for size in sizes:
        layers = spread_layers(len(student.blocks), size)
        if batches is not None:
            layers = block_influence(student, batches).topk(size).indices.tolist()
        student = keep_layers(student, layers)
        place = None if folder is None else Path(folder) / f"layers_{size}"
        stages.append(distill(student, teacher, data, config, how, place, **options))
        if stages[-1].stop_reason == "stopped":
            break  # the next stage would grow from a half-trained one, and stay so
    return student, stages
