"""Tensor parallelism: every rank holds a slice of each layer's matrices.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scratchbook.attention import MultiHeadAttention
from scratchbook.distributed.ring import begin_alike

COLUMNS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
ROWS = ("o_proj", "down_proj")


class _Enter(torch.autograd.Function):
    """Forwards nothing; backwards the sum over ranks: each saw how its own slice used x."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class _Leave(torch.autograd.Function):
    """Forwards the sum over ranks, whose parts each lack the other slices; backwards nothing."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


def tensor_parallel(model: nn.Module) -> nn.Module:
    """Cut attention and feed-forward of every block among the ranks, in place.

    Matrices that read the stream are cut by their outputs (columns of x @ W), so each rank has
    heads, or hidden numbers, of its own; those that write to it are cut by their inputs (rows),
    and what the ranks write is added up. A block costs two sums over the ranks each way. Norms,
    embeddings and head stay whole; all ranks read the same batch. A learned weight between the
    two cuts, such as a head's norm, gets the sum of the ranks' gradients.

    Raises:   ValueError for heads or sizes that do not divide, and for biases on what is summed,
              ALiBi and latent attention, which are not cut here
    Paper:    Shoeybi et al. (2019), arXiv:1909.08053, section 3
    Chapter:  chapters/06f_scaling_and_distributed.ipynb
    """
    ranks = dist.get_world_size()
    for block in model.blocks:
        _check(block, ranks)
    begin_alike(model.parameters())
    for block in model.blocks:
        block.attention.num_heads //= ranks
        block.attention.num_kv_heads //= ranks
        for part in (block.attention, block.feedforward):
            for name, module in part.named_modules():
                if name in COLUMNS or name in ROWS:
                    _cut(module, dim=0 if name in COLUMNS else 1)
                elif name:
                    _sum_gradients(module)
            part.register_forward_pre_hook(_enter)
            part.register_forward_hook(_leave)
    return model


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the uncut model, on every rank; all ranks must ask."""
    found = {}
    for name, parameter in model.named_parameters():
        value, dim = parameter.detach(), getattr(parameter, "cut_along", None)
        if dim is not None:
            parts = [torch.empty_like(value) for _ in range(dist.get_world_size())]
            dist.all_gather(parts, value.contiguous())
            value = torch.cat(parts, dim=dim)
        found[name] = value.clone()
    return found


def _enter(module: nn.Module, arguments: tuple) -> tuple:
    return _Enter.apply(arguments[0]), *arguments[1:]


def _leave(module: nn.Module, arguments: tuple, written: Tensor) -> Tensor:
    return _Leave.apply(written)


def _cut(linear: nn.Linear, dim: int) -> None:
    """Keep this rank's slice of a matrix, and of a bias that goes with its rows."""
    for name, parameter in list(linear.named_parameters()):
        piece = parameter.data.chunk(dist.get_world_size(), dim)[dist.get_rank()].clone()
        kept = nn.Parameter(piece, requires_grad=parameter.requires_grad)
        kept.cut_along = dim
        setattr(linear, name, kept)
    linear.out_features, linear.in_features = linear.weight.shape


def _sum_gradients(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.register_hook(_summed)


def _summed(gradient: Tensor) -> Tensor:
    total = gradient.clone()
    dist.all_reduce(total)
    return total


def _check(block: nn.Module, ranks: int) -> None:
    attention, feedforward = block.attention, block.feedforward
    if not isinstance(attention, MultiHeadAttention) or attention.alibi is not None:
        raise ValueError(f"{type(attention).__name__}, or its ALiBi, is not cut here: use "
                         "MultiHeadAttention with rotary or learned positions")
    sizes = {"num_heads": attention.num_heads, "num_kv_heads": attention.num_kv_heads,
             "d_ff": feedforward.down_proj.in_features}
    for name, size in sizes.items():
        if size % ranks:
            raise ValueError(f"{name}={size} does not divide among {ranks} ranks")
    if attention.o_proj.bias is not None or feedforward.down_proj.bias is not None:
        raise ValueError("o_proj and down_proj have biases, which every rank would add once: use "
                         "a config with bias='none' or bias='qkv'")
