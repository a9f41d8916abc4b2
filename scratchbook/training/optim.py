"""Optimizers: one class that keeps the state, and one short rule for each way to step.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al.'s: steep near 0, about 1 elsewhere


@torch.no_grad()
def adamw(parameters: list[Tensor], states: list[dict], group: dict) -> None:
    """Step by the running mean of the gradient over the root of that of its square.

    Decay is decoupled: it shrinks the weight itself and never enters the means.

    Paper:    Loshchilov and Hutter (2017), arXiv:1711.05101, algorithm 2
    """
    for parameter, state in zip(parameters, states, strict=True):
        step = adam_direction(parameter.grad, state, group)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(step, alpha=group["lr"])


def adam_direction(gradient: Tensor, state: dict, group: dict) -> Tensor:
    """Adam's step before the learning rate; both means start at zero, so they are scaled up.

    Paper:    Kingma and Ba (2014), arXiv:1412.6980, algorithm 1
    """
    fast, slow = group["betas"]
    if not state:
        state |= {"step": 0, "exp_avg": torch.zeros_like(gradient),
                  "exp_avg_sq": torch.zeros_like(gradient)}
    state["step"] += 1
    state["exp_avg"].lerp_(gradient, 1 - fast)
    state["exp_avg_sq"].mul_(slow).addcmul_(gradient, gradient, value=1 - slow)
    root = math.sqrt(1 - slow ** state["step"])
    size = state["exp_avg_sq"].sqrt().div_(root).add_(group["eps"])
    return (state["exp_avg"] / size).div_(1 - fast ** state["step"])


@torch.no_grad()
def lion(parameters: list[Tensor], states: list[dict], group: dict) -> None:
    """Step by the sign of a mean: every number moves equally far.

    Paper:    Chen et al. (2023), arXiv:2302.06675, program 1
    """
    fast, slow = group["betas"]
    for parameter, state in zip(parameters, states, strict=True):
        mean = state.setdefault("exp_avg", torch.zeros_like(parameter))
        direction = mean.lerp(parameter.grad, 1 - fast).sign_()
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(direction, alpha=group["lr"])
        mean.lerp_(parameter.grad, 1 - slow)


@torch.no_grad()
def muon(parameters: list[Tensor], states: list[dict], group: dict) -> None:
    """Step by the nearest orthogonal matrix to the momentum: all directions count alike.

    Matrices of one shape are worked on together, which is the same and several times faster.

    Paper:    Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks"
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for place, parameter in enumerate(parameters):
        by_shape.setdefault(tuple(parameter.shape), []).append(place)
    for (rows, columns), places in by_shape.items():
        ahead = []  # Nesterov's look: where the momentum will be after this gradient
        for i in places:
            gradient = parameters[i].grad
            mean = states[i].setdefault("exp_avg", torch.zeros_like(gradient))
            mean.lerp_(gradient, 1 - group["momentum"])
            ahead.append(gradient.lerp(mean, group["momentum"]))
        steps = orthogonalised(torch.stack(ahead))  # (count, rows, columns)
        scale = math.sqrt(max(1.0, rows / columns))  # a tall matrix has larger rows to write
        for i, step in zip(places, steps, strict=True):
            parameters[i].mul_(1 - group["lr"] * group["weight_decay"])
            parameters[i].sub_(step, alpha=group["lr"] * scale)


def orthogonalised(matrices: Tensor, steps: int = 5, dtype: torch.dtype = torch.bfloat16
                   ) -> Tensor:
    """Push all singular values of each matrix towards 1, by products alone (Newton-Schulz).

    Shapes:   matrices (..., rows, columns) -> same
    """
    x = matrices.to(dtype).reshape(-1, *matrices.shape[-2:])  # (count, rows, columns)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # the square below is then the smaller one
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        square = x @ x.mT  # (count, rows, rows)
        # x <- a x + (b square + c square²) x, each sum together with its product
        factor = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, factor, x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype).reshape(matrices.shape)


@torch.no_grad()
def galore(parameters: list[Tensor], states: list[dict], group: dict) -> None:
    """AdamW on a matrix's gradient in the few directions where most of it lies.

    The directions come from the gradient's singular vectors, anew every `refresh` steps; the
    means are as small as the projection.

    Paper:    Zhao et al. (2024), arXiv:2403.03507, algorithm 2
    """
    for parameter, state in zip(parameters, states, strict=True):
        gradient, step = parameter.grad, state.get("seen", 0)
        wide = gradient.shape[0] <= gradient.shape[1]
        if step % group["refresh"] == 0:
            left, _, right = torch.linalg.svd(gradient.float(), full_matrices=False)
            basis = left if wide else right.mT  # (shorter side, rank) after the cut
            state["basis"] = basis[:, : group["galore_rank"]].to(gradient.dtype).contiguous()
        state["seen"], basis = step + 1, state["basis"]
        small = basis.mT @ gradient if wide else gradient @ basis
        direction = adam_direction(small, state.setdefault("adam", {}), group)
        direction = basis @ direction if wide else direction @ basis.mT
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(direction, alpha=group["lr"] * group["scale"])


@torch.no_grad()
def adafactor(parameters: list[Tensor], states: list[dict], group: dict) -> None:
    """Adam whose squares are kept as one number per row and one per column.

    Paper:    Shazeer and Stern (2018), arXiv:1804.04235, algorithm 4
    """
    for parameter, state in zip(parameters, states, strict=True):
        squared = parameter.grad.square()
        state["step"] = state.get("step", 0) + 1
        keep = 1 - state["step"] ** -0.8
        if parameter.dim() < 2:
            size = _running(state, "exp_avg_sq", squared, keep).sqrt()
        else:
            rows = _running(state, "rows", squared.mean(-1, keepdim=True), keep)
            columns = _running(state, "columns", squared.mean(-2, keepdim=True), keep)
            size = (rows * columns / rows.mean(-2, keepdim=True).clamp_min(1e-30)).sqrt()
        step = parameter.grad / size.clamp_min(group["eps"])
        root_mean_square = step.square().mean().sqrt().item()
        rate = group["lr"] * max(1e-3, parameter.square().mean().sqrt().item())
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(step, alpha=rate / max(1.0, root_mean_square))


def _running(state: dict, name: str, value: Tensor, keep: float) -> Tensor:
    mean = state.setdefault(name, torch.zeros_like(value))
    return mean.lerp_(value, 1 - keep)


RULES: dict[str, Callable[[list[Tensor], list[dict], dict], None]] = {
    "adamw": adamw, "muon": muon, "lion": lion, "galore": galore, "adafactor": adafactor}
HIDDEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "router")
# blocks.0.attention.q_proj.weight, or q_proj.base_layer.weight under a wrapper that says `base`
WHOLE = rf"\.(?:{'|'.join(HIDDEN)})(?:\.(?:base|base_layer|inner|linear|original))?\.weight$"
DEFAULTS = {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.95,
            "galore_rank": 32, "refresh": 200, "scale": 0.25}


class Optimizer(torch.optim.Optimizer):
    """Steps every group of parameters by the rule that the group names.

    A group is a dict with "params", "rule" (a name in `RULES`), "lr", and what else the rule
    reads; `initial_lr` keeps the rate that schedules multiply.

    Raises:   ValueError for an unknown rule
    Chapter:  chapters/06_training.ipynb
    """

    def __init__(self, groups: Iterable[dict]):
        groups = [{**group, "initial_lr": group["lr"]} for group in groups]
        for group in groups:
            if group["rule"] not in RULES:
                raise ValueError(f"optimizer rule {group['rule']!r} is unknown; choose one of "
                                 f"{', '.join(RULES)}")
        super().__init__(groups, DEFAULTS)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if moved:
                RULES[group["rule"]](moved, [self.state[p] for p in moved], group)


def is_hidden_matrix(path: str) -> bool:
    """Whether a parameter's name is that of a whole matrix of a hidden layer."""
    return "blocks." in path and re.search(WHOLE, path) is not None


def build_optimizer(
    model: nn.Module, name: str = "adamw", lr: float = 1e-3, adamw_lr: float | None = None,
    betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.0,
) -> Optimizer:
    """An optimizer for all of a model's parameters, in groups.

    Matrices decay; gains and biases never do; what is frozen is left out. "muon" and "galore"
    take the full matrices of the hidden layers: those called `weight` of the projections in
    `HIDDEN`, wrapped or not. Everything else steps by AdamW at `adamw_lr`: embeddings, head,
    and whatever a wrapper adds, such as LoRA's A and B, whose product is the matrix, not they.

    Raises:   ValueError for an unknown name, or where "muon" or "galore" finds no such matrix
    Chapter:  chapters/06_training.ipynb
    """
    if name not in RULES:
        raise ValueError(f"optimizer={name!r} is unknown; choose one of {', '.join(RULES)}")
    special, matrices, vectors = [], [], []
    for path, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name in ("muon", "galore") and parameter.dim() == 2 and is_hidden_matrix(path):
            special.append(parameter)
        else:
            (matrices if parameter.dim() >= 2 else vectors).append(parameter)
    if name in ("muon", "galore") and not special:
        raise ValueError(f"optimizer={name!r} finds no full matrix of a hidden layer that learns "
                         f"(blocks... {', '.join(HIDDEN)}): use optimizer='adamw'")
    rest = {"rule": "adamw" if special else name, "betas": betas,
            "lr": adamw_lr if special and adamw_lr else lr}
    groups = [{"params": special, "rule": name, "lr": lr, "betas": betas,
               "weight_decay": weight_decay},
              {"params": matrices, **rest, "weight_decay": weight_decay},
              {"params": vectors, **rest, "weight_decay": 0.0}]
    return Optimizer([group for group in groups if group["params"]])


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of everything that the optimizer keeps beside the weights.

    Chapter:  chapters/06_training.ipynb
    """
    def size(value: object) -> int:
        if isinstance(value, dict):
            return sum(map(size, value.values()))
        return value.numel() * value.element_size() if isinstance(value, Tensor) else 0

    return sum(size(state) for state in optimizer.state.values())
