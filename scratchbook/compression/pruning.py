"""Leaving weights out: which ones, keeping them out, and whole heads and channels at once.

Every method here is a score for each weight; the lowest go. Masks are boolean, True = stays.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from scratchbook.attention import MultiHeadAttention
from scratchbook.feedforward import FeedForward, GatedFeedForward
from scratchbook.generation import eval_mode
from scratchbook.model import DecoderLM

Scores = dict[str, Tensor]
Masks = dict[str, Tensor]
SCOPES = ("row", "layer", "global")


def linears(model: nn.Module, skip: str | Sequence[str] = ("lm_head",)) -> dict[str, nn.Linear]:
    """The linear layers of any model by name, but those whose name ends in one of `skip`.

    Raises:   ValueError when there is none
    """
    skip = (skip,) if isinstance(skip, str) else skip  # a string would be taken letter by letter
    found = {name: module for name, module in model.named_modules()
             if isinstance(module, nn.Linear) and not name.endswith(tuple(skip))}
    if not found:
        raise ValueError(f"{type(model).__name__} has no nn.Linear outside of {', '.join(skip)}: "
                         "nothing can be pruned (GPT-2 of transformers has Conv1D; "
                         "load_pretrained reads its weights into linear layers)")
    return found


def magnitude_scores(model: nn.Module, skip: str | Sequence[str] = ("lm_head",)) -> Scores:
    """How large each weight is: the oldest score, and it asks for no data.

    Paper:    Han et al. (2015), arXiv:1506.02626, section 3
    Chapter:  chapters/07_compression.ipynb
    """
    return {name: linear.weight.detach().abs() for name, linear in linears(model, skip).items()}


@contextmanager
def movement_scores(model: nn.Module, skip: str | Sequence[str] = ("lm_head",)) -> Iterator[Scores]:
    """Within the block, every backward pass adds minus weight times gradient to the scores.

    A step of descent moves a weight against its gradient, so a positive sum says that training
    pushes the weight away from zero, whatever its size. Train in fp32 or bf16: gradients of
    fp16 are multiplied by a changing scale.

    Raises:   ValueError naming a layer that does not learn
    Paper:    Sanh et al. (2020), arXiv:2005.07683, equation 4 (all learning rates equal)
    Chapter:  chapters/07_compression.ipynb
    """
    found = linears(model, skip)
    if frozen := [name for name, linear in found.items() if not linear.weight.requires_grad]:
        raise ValueError(f"{frozen[0]} and {len(frozen) - 1} more layers are frozen and have no "
                         "gradient: unfreeze or skip them")
    scores = {name: torch.zeros_like(linear.weight, dtype=torch.float32)
              for name, linear in found.items()}

    def add(name: str, gradient: Tensor) -> None:
        scores[name].sub_(found[name].weight.detach().float() * gradient.float())

    hooks = [linear.weight.register_hook(partial(add, name)) for name, linear in found.items()]
    try:
        yield scores
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def wanda_scores(model: nn.Module, batches: Iterable[Tensor],
                 skip: str | Sequence[str] = ("lm_head",)) -> Scores:
    """The size of each weight times the norm of what it is multiplied by, over all batches.

    Shapes:   batches of ids (batch, time) -> for each layer (out_features, in_features)
    Raises:   ValueError when there is no batch, or a layer was never called
    Paper:    Sun et al. (2023), arXiv:2306.11695, equation 1
    Chapter:  chapters/07_compression.ipynb
    """
    squares: dict[str, Tensor] = {}

    def add(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found = inputs[0].float().flatten(0, -2).square().sum(dim=0)  # (in_features,)
        squares[name] = squares.get(name, 0) + found

    found = linears(model, skip)
    hooks = [module.register_forward_pre_hook(partial(add, name))
             for name, module in found.items()]
    try:
        with eval_mode(model):
            for ids in batches:
                model(ids)
    finally:
        for hook in hooks:
            hook.remove()
    if unseen := found.keys() - squares.keys():
        raise ValueError(f"{min(unseen)} saw no input: give batches of ids that reach every layer")
    return {name: linear.weight.detach().abs().float() * squares[name].sqrt().float()
            for name, linear in found.items()}


def lowest_dropped(scores: Tensor, drop: int) -> Tensor:
    """Of each row all but the `drop` lowest.

    Shapes:   scores (..., n) -> (..., n), bool
    Raises:   ValueError for scores that are not finite: NaN has no place in an order
    """
    if not scores.isfinite().all():
        raise ValueError("a score is NaN or infinite: look for the layer whose weights or inputs "
                         "are, before you prune")
    lowest = scores.topk(drop, largest=False).indices
    return torch.ones_like(scores, dtype=torch.bool).scatter(-1, lowest, False)


def masks_of_lowest(scores: Scores, sparsity: float, scope: str = "layer") -> Masks:
    """Drop the share `sparsity` of the weights with the lowest scores.

    They are compared within each output ("row", as Wanda does), each matrix ("layer"), or all
    matrices together ("global": scores of different layers must mean the same).

    Raises:   ValueError for a share outside 0..1, an unknown scope, no scores or a NaN among them
    Chapter:  chapters/07_compression.ipynb
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity={sparsity} is not within 0..1, one excluded")
    if scope not in SCOPES:
        raise ValueError(f"scope={scope!r} is unknown; choose one of {', '.join(SCOPES)}")
    if not scores:
        raise ValueError("there are no scores: nothing can be compared")
    if scope == "global":
        joined = torch.cat([table.flatten() for table in scores.values()])
        kept = lowest_dropped(joined, round(sparsity * len(joined)))
        parts = kept.split([table.numel() for table in scores.values()])
        return {name: part.view_as(scores[name])
                for name, part in zip(scores, parts, strict=True)}
    rows = {name: table if scope == "row" else table.flatten() for name, table in scores.items()}
    drop = {name: min(round(sparsity * table.shape[-1]), table.shape[-1] - 1)  # one stays
            for name, table in rows.items()}
    return {name: lowest_dropped(table, drop[name]).view_as(scores[name])
            for name, table in rows.items()}


def n_of_m_masks(scores: Scores, n: int = 2, m: int = 4) -> Masks:
    """Keep the `n` highest of every `m` neighbours in a row: what sparse tensor cores multiply.

    Raises:   ValueError when in_features is not a multiple of m, or n is not within 1..m
    Paper:    Mishra et al. (2021), arXiv:2104.08378, section 3
    Chapter:  chapters/07_compression.ipynb
    """
    if not 1 <= n <= m:
        raise ValueError(f"n={n} is not within 1..m={m}")
    for name, table in scores.items():
        if table.shape[-1] % m:
            raise ValueError(f"{name} has in_features={table.shape[-1]}, which groups of m={m} do "
                             "not divide; leave it out by `skip`")
    return {name: lowest_dropped(table.unflatten(-1, (-1, m)), m - n).view_as(table)
            for name, table in scores.items()}


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set what is masked to zero, in place.

    Raises:   ValueError for a mask without a layer, or of another shape or type
    Chapter:  chapters/07_compression.ipynb
    """
    for weight, dropped in _dropped(model, masks):
        weight.masked_fill_(dropped, 0)


@contextmanager
def masks_kept(model: nn.Module, masks: Masks) -> Iterator[nn.Module]:
    """Within the block, what is masked is zero again after every step of any optimizer.

    Whoever trains needs to know nothing of it: `with masks_kept(...): train(model, ...)`. What
    a checkpoint holds is masked as well.

    Raises:   ValueError as `apply_masks` does
    Chapter:  chapters/07_compression.ipynb
    """
    pairs = _dropped(model, masks)

    @torch.no_grad()
    def clear(*_: object) -> None:
        for weight, dropped in pairs:
            weight.masked_fill_(dropped, 0)

    clear()
    hook = register_optimizer_step_post_hook(clear)
    try:
        yield model
    finally:
        hook.remove()
        clear()  # a checkpoint that was loaded within may have been dense


def _dropped(model: nn.Module, masks: Masks) -> list[tuple[Tensor, Tensor]]:
    """Each weight and where it becomes zero."""
    modules, pairs = dict(model.named_modules()), []
    for name, mask in masks.items():
        weight = getattr(modules.get(name), "weight", None)
        if weight is None or weight.shape != mask.shape or mask.dtype != torch.bool:
            raise ValueError(f"the mask of {name!r}, {mask.dtype} {tuple(mask.shape)}, fits no "
                             "weight of this model: make it from scores of the same model")
        pairs.append((weight, ~mask.to(weight.device)))
    return pairs


def sparsity_of(model: nn.Module, skip: str | Sequence[str] = ("lm_head",)) -> float:
    """The share of zeros among the weights of the linear layers."""
    weights = [linear.weight for linear in linears(model, skip).values()]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@torch.no_grad()
def prune_heads(model: DecoderLM, scores: Scores, num_kv_heads: int) -> list[Tensor]:
    """Take the lowest heads out of every layer; its matrices are smaller afterwards, in place.

    A key/value head goes together with the query heads that read it. The score of a head is the
    norm of the scores of its columns of o_proj. All layers keep equally many, so that the
    model's config says what is there and any file of it can be read back.

    Shapes:   -> for each layer the heads that stay, (num_kv_heads,), rising
    Raises:   ValueError when there are not so many heads, or the attention is of another kind
    Paper:    Michel et al. (2019), arXiv:1905.10650, section 4 (there by gradients)
    Chapter:  chapters/07_compression.ipynb
    """
    kept = []
    for layer, block in enumerate(model.blocks):
        attention = block.attention
        if type(attention) is not MultiHeadAttention or attention.alibi is not None:
            raise ValueError(f"layer {layer}: the heads of {type(attention).__name__} (or those "
                             "that ALiBi's slopes belong to) cannot be taken out")
        columns = _of_layer(model, scores, layer, "attention.o_proj").square().sum(dim=0)
        per_head = columns.unflatten(0, (attention.num_kv_heads, -1)).sum(dim=1)
        kept.append(_highest(per_head, num_kv_heads, "num_kv_heads"))
    for block, heads in zip(model.blocks, kept, strict=True):
        attention = block.attention
        group = attention.num_heads // attention.num_kv_heads
        narrow = _of_group(heads, attention.head_dim)
        wide = _of_group(heads, group * attention.head_dim)
        _cut(attention.q_proj, rows=wide)
        _cut(attention.k_proj, rows=narrow)
        _cut(attention.v_proj, rows=narrow)
        _cut(attention.o_proj, columns=wide)
        attention.num_heads, attention.num_kv_heads = group * num_kv_heads, num_kv_heads
    model.config = model.config.with_(num_heads=group * num_kv_heads, num_kv_heads=num_kv_heads)
    return kept


@torch.no_grad()
def prune_channels(model: DecoderLM, scores: Scores, d_ff: int) -> list[Tensor]:
    """Take the lowest channels out of every feed-forward part, as `prune_heads` does heads.

    The score of a channel is the norm of the scores of its column of down_proj.

    Shapes:   -> for each layer the channels that stay, (d_ff,), rising
    Raises:   ValueError when there are not so many channels, or the part is of another kind
    Paper:    Ma et al. (2023), arXiv:2305.11627, section 3 (there by gradients)
    Chapter:  chapters/07_compression.ipynb
    """
    kept = []
    for layer, block in enumerate(model.blocks):
        if type(block.feedforward) not in (FeedForward, GatedFeedForward):
            raise ValueError(f"layer {layer}: the channels of "
                             f"{type(block.feedforward).__name__} cannot be taken out")
        columns = _of_layer(model, scores, layer, "feedforward.down_proj").square().sum(dim=0)
        kept.append(_highest(columns, d_ff, "d_ff"))
    for block, channels in zip(model.blocks, kept, strict=True):
        for name, linear in block.feedforward.named_children():
            if name in ("up_proj", "gate_proj"):
                _cut(linear, rows=channels)
        _cut(block.feedforward.down_proj, columns=channels)
    model.config = model.config.with_(d_ff=d_ff)
    return kept


def _of_layer(model: DecoderLM, scores: Scores, layer: int, name: str) -> Tensor:
    full = f"blocks.{layer}.{name}"
    if full not in scores:
        raise ValueError(f"there is no score for {full}: make the scores from this model")
    if scores[full].shape != model.get_submodule(full).weight.shape:
        raise ValueError(f"the scores of {full} were made before this model was cut: make them "
                         "again, each stands for another weight now")
    if (scores[full] < 0).any():
        raise ValueError(f"scores of {full} are below zero, as movement's are: a norm would rank "
                         "the worst first; take magnitude_scores or wanda_scores")
    return scores[full].float()


def _highest(scores: Tensor, count: int, what: str) -> Tensor:
    if not 1 <= count <= len(scores):
        raise ValueError(f"{what}={count} is not within 1..{len(scores)}, what there is")
    return lowest_dropped(scores, len(scores) - count).nonzero()[:, 0]


def _of_group(groups: Tensor, size: int) -> Tensor:
    """The rows that belong to each group: with size 2, groups 0 and 2 are rows 0, 1, 4 and 5."""
    return (groups[:, None] * size + torch.arange(size, device=groups.device)).flatten()


def _cut(linear: nn.Linear, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Leave some rows or columns of a layer's matrix, in place."""
    if rows is not None:
        linear.weight = nn.Parameter(linear.weight[rows], linear.weight.requires_grad)
        linear.out_features = len(rows)
        if linear.bias is not None:
            linear.bias = nn.Parameter(linear.bias[rows], linear.bias.requires_grad)
    if columns is not None:
        linear.weight = nn.Parameter(linear.weight[:, columns], linear.weight.requires_grad)
        linear.in_features = len(columns)
