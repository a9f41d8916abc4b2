"""What a head is good for: its output taken away, and the loss measured again.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.generation import eval_mode

Heads = Iterable[tuple[int, int]]  # (layer, head)


def mixing(model: nn.Module, layer: int) -> nn.Linear:
    """The projection that the outputs of a layer's heads go to, side by side.

    Raises:   ValueError for a layer that is not there
    """
    if not 0 <= layer < len(model.blocks):
        raise ValueError(f"layer={layer} is not within 0..{len(model.blocks) - 1}")
    return model.blocks[layer].attention.o_proj


@contextmanager
def ablated(model: nn.Module, heads: Heads, means: Sequence[Tensor] | None = None
            ) -> Iterator[nn.Module]:
    """Within the block the outputs of some heads are zero or, with `means`, always their mean.

    The output of a head is what it hands to `o_proj`. A mean keeps what the layers behind have
    come to expect of the head; what goes is only that it depends on the text.

    Shapes:   heads (layer, head) pairs; means, one for each layer, (heads * head_dim,)
    Raises:   ValueError for a head that is not there
    Paper:    Michel et al. (2019), arXiv:1905.10650, section 3 (zero)
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        mixing(model, layer)
        if not 0 <= head < model.blocks[layer].attention.num_heads:
            raise ValueError(f"head {head} of layer {layer} is not there: it has "
                             f"{model.blocks[layer].attention.num_heads}")
        by_layer.setdefault(layer, []).append(head)

    def replace(layer: int, chosen: list[int]):
        size = model.blocks[layer].attention.head_dim

        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
            x = inputs[0].clone()  # (batch, time, heads * head_dim)
            for head in chosen:
                part = slice(head * size, (head + 1) * size)
                x[..., part] = 0 if means is None else means[layer][part].to(x)
            return (x,)
        return hook

    hooks = [mixing(model, layer).register_forward_pre_hook(replace(layer, chosen))
             for layer, chosen in by_layer.items()]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def mean_outputs(model: nn.Module, batches: Iterable[Tensor]) -> list[Tensor]:
    """What the heads of each layer hand on, the mean over all tokens of all batches.

    Shapes:   batches of ids (batch, time) -> for each layer (heads * head_dim,)
    Raises:   ValueError when there is no batch
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    sums: list[Tensor | float] = [0.0] * len(model.blocks)

    def add(layer: int):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sums[layer] = sums[layer] + inputs[0].double().flatten(0, -2).sum(0)
        return hook

    hooks = [mixing(model, layer).register_forward_pre_hook(add(layer))
             for layer in range(len(model.blocks))]
    tokens = 0
    try:
        with eval_mode(model):
            for ids in batches:
                model(ids)
                tokens += ids.numel()
    finally:
        for hook in hooks:
            hook.remove()
    if not tokens:
        raise ValueError("there is no batch: give at least one of ids (batch, time)")
    return [(total / tokens).float() for total in sums]


@torch.no_grad()
def text_losses(model: nn.Module, ids: Tensor, size: int = 16, since: int = 0) -> Tensor:
    """The mean loss of each text in nats; of what stands at `since` or behind it.

    Shapes:   ids (texts, time) -> (texts,)
    Raises:   ValueError for texts of less than two tokens behind `since`
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    if ids.dim() != 2 or ids.shape[1] - since < 2:
        raise ValueError(f"ids of shape {tuple(ids.shape)} and since={since}: give (texts, time) "
                         "with two tokens or more to judge")
    found = []
    with eval_mode(model):
        for rows in ids.split(size):
            logits = model(rows[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(),
                                   reduction="none").view(len(rows), -1)
            found.append(loss[:, since:].mean(1))
    return torch.cat(found)


def head_effects(model: nn.Module, ids: Tensor, heads: Sequence[tuple[int, int]],
                 means: Sequence[Tensor] | None = None, since: int = 0) -> Tensor:
    """How much the loss of each text rises without each head, one head at a time.

    Shapes:   ids (texts, time) -> (heads, texts)
    Chapter:  chapters/06e_pattern_mining.ipynb
    """
    whole = text_losses(model, ids, since=since)
    rows = []
    for head in heads:
        with ablated(model, [head], means):
            rows.append(text_losses(model, ids, since=since) - whole)
    return torch.stack(rows)
