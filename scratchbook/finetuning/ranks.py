"""How large an update's rank should be: read from a spectrum, or found while it learns.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.finetuning.lora import apply_lora, linear_layers, lora_layers
from scratchbook.finetuning.low_rank import LowRank, full_matrix

TRIPLET = ("lora_A", "lora_E", "lora_B")


def weight_changes(tuned: nn.Module, base: nn.Module) -> dict[str, Tensor]:
    """What a full fine-tuning added to every linear layer; (out_features, in_features) each.

    Raises:   ValueError for a model whose change lies in an adapter beside the weights
    Chapter:  chapters/08_lora.ipynb
    """
    if any(layer.active and layer.kept is None for layer in lora_layers(tuned).values()):
        raise ValueError("what this model learned lies in an adapter beside its weights: "
                         "merge(model) first, or ask the adapter for its delta()")
    before = linear_layers(base)
    return {path: (full_matrix(layer) - full_matrix(before[path])).detach()
            for path, layer in linear_layers(tuned).items()}


def energy_rank(matrix: Tensor, energy: float = 0.9) -> int:
    """The fewest directions that hold this share of a matrix's energy, its squared length.

    Directions are the singular ones: no other choice of as many holds more (Eckart and Young,
    1936). A matrix of zeros needs none.

    Shapes:   matrix (rows, columns)
    Raises:   ValueError when energy is not within 0..1, zero excluded
    Chapter:  chapters/08_lora.ipynb
    """
    if not 0 < energy <= 1:
        raise ValueError(f"energy={energy} is not within 0..1, zero excluded")
    squares = torch.linalg.svdvals(matrix.double()).square()
    shares = squares.cumsum(0) / squares.sum()
    return int((shares < energy - 1e-12).sum()) + 1 if squares.sum() > 0 else 0


def ranks_by_energy(matrices: Mapping[str, Tensor], energy: float = 0.9) -> dict[str, int]:
    """`energy_rank` of each: the `ranks` of `apply_lora`.

    Chapter:  chapters/08_lora.ipynb
    """
    return {path: energy_rank(matrix, energy) for path, matrix in matrices.items()}


def ranks_by_budget(matrices: Mapping[str, Tensor], total: int) -> dict[str, int]:
    """Give the `total` largest singular values of all matrices together a direction each.

    Raises:   ValueError for a total below 1, or above the number of directions there are
    Chapter:  chapters/08_lora.ipynb
    """
    values = {path: torch.linalg.svdvals(matrix.double()) for path, matrix in matrices.items()}
    every = torch.cat(list(values.values()))
    if not 1 <= total <= len(every):
        raise ValueError(f"total={total} is not within 1..{len(every)}, the directions there are")
    owners = torch.cat([torch.full((len(v),), i) for i, v in enumerate(values.values())])
    counts = torch.bincount(owners[every.argsort(descending=True)[:total]], minlength=len(values))
    return dict(zip(values, counts.tolist(), strict=True))


class AdaLoRA(LowRank):
    """An update P diag(lambda) Q, whose lambdas can be put to zero one by one.

    lora_B is P, lora_E lambda, lora_A Q. Beside each lies the running mean of how much the loss
    would feel its loss, |weight * gradient|, and of how far that strays from its mean. The
    gradients are saved too: a `RankBudget` takes in a step after its checkpoint is written.

    Shapes:   lora_A (rank, in_features), lora_E (rank, 1), lora_B (out_features, rank)
    Paper:    Zhang et al. (2023), arXiv:2303.10512, section 3
    Chapter:  chapters/08_lora.ipynb
    """

    def __init__(self, base_layer: nn.Module, lora_rank: int = 12, lora_alpha: float = 16,
                 dropout: float = 0.0):
        super().__init__(base_layer, lora_rank, lora_alpha, dropout)
        nn.init.normal_(self.lora_A, std=0.02)
        nn.init.normal_(self.lora_B, std=0.02)
        self.lora_E = nn.Parameter(self.lora_A.new_zeros(lora_rank, 1))
        for part in TRIPLET:
            for kept in ("sensitivity", "uncertainty", "gradient"):
                self.register_buffer(f"{kept}_{part}", torch.zeros_like(getattr(self, part)))
        self.register_state_dict_pre_hook(AdaLoRA._keep_gradients)
        self.register_load_state_dict_post_hook(AdaLoRA._give_gradients)

    def update(self, x: Tensor) -> Tensor:
        """x Q^T diag(lambda) P^T, scaled."""
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_A.dtype)
        return F.linear(F.linear(x, self.lora_A * self.lora_E), self.lora_B) * self.scaling

    def delta(self, dtype: torch.dtype | None = None) -> Tensor:
        """The update as a matrix; (out_features, in_features)."""
        dtype = dtype or self.lora_A.dtype
        thin = (self.lora_A * self.lora_E).to(dtype)  # (rank, in_features)
        return self.lora_B.to(dtype) @ thin * self.scaling

    def _keep_gradients(self, *_: object) -> None:
        for part in TRIPLET:
            gradient = getattr(self, part).grad
            kept = getattr(self, f"gradient_{part}")
            kept.zero_() if gradient is None else kept.copy_(gradient)

    def _give_gradients(self, *_: object) -> None:
        kept = {part: getattr(self, f"gradient_{part}") for part in TRIPLET}
        if any(gradient.any() for gradient in kept.values()):
            for part, gradient in kept.items():
                getattr(self, part).grad = gradient.clone()

    @torch.no_grad()
    def watch(self, betas: tuple[float, float]) -> None:
        """Take the gradients of this step into the running means."""
        for part in TRIPLET:
            parameter = getattr(self, part)
            felt = (parameter * parameter.grad).abs()
            mean = getattr(self, f"sensitivity_{part}").lerp_(felt, 1 - betas[0])
            strayed = (felt - mean).abs()
            getattr(self, f"uncertainty_{part}").lerp_(strayed, 1 - betas[1])

    def importance(self) -> Tensor:
        """For each direction its lambda's score and the mean scores of its vectors; (rank,)."""
        a, e, b = (getattr(self, f"sensitivity_{part}") * getattr(self, f"uncertainty_{part}")
                   for part in TRIPLET)
        return e[:, 0] + a.mean(dim=1) + b.mean(dim=0)


def apply_adalora(model: nn.Module, targets: str | Collection[str] = ("q_proj", "v_proj"),
                  lora_rank: int = 12, lora_alpha: float = 16, dropout: float = 0.0,
                  name: str = "default") -> nn.Module:
    """`apply_lora` with updates that a `RankBudget` can shrink, each by its own rank.

    Raises:   ValueError as `apply_lora` does
    Chapter:  chapters/08_lora.ipynb
    """
    apply_lora(model, targets, lora_rank, lora_alpha, dropout, name=name)
    for layer in lora_layers(model).values():
        if name in layer.adapters:
            layer.adapters[name] = AdaLoRA(
                layer.base_layer, lora_rank, lora_alpha, dropout).train(layer.training)
    return model


class RankBudget:
    """Shares out fewer and fewer directions among all layers, by their importance.

    Given to `train` as `on_step`. Until step `warmup` every direction stays; then their number
    falls along a cube to `target_rank` for each layer on average; for the last `final_steps` the
    choice is made. Every `every` steps the least important lambdas are put to zero: they may
    come back until the choice is made. `penalty` is the rate at which P and Q are drawn towards
    orthogonal directions after each step, as weight decay is: beside the loss, not in it.

    Raises:   ValueError for a model without AdaLoRA, a target above its rank, or too few steps
    Paper:    Zhang et al. (2023), arXiv:2303.10512, sections 3.1 to 3.3
    Chapter:  chapters/08_lora.ipynb
    """

    def __init__(self, model: nn.Module, target_rank: int, total_steps: int, warmup: int,
                 final_steps: int, every: int = 1, betas: tuple[float, float] = (0.85, 0.85),
                 penalty: float = 0.01):
        layers = _triplets(model)
        self.first = sum(adapter.lora_rank for adapter in layers.values())
        self.target = target_rank * len(layers)
        if not 1 <= self.target <= self.first:
            raise ValueError(f"target_rank={target_rank} is not within 1..{self.first} / "
                             f"{len(layers)} layers")
        if not 0 <= warmup < total_steps - final_steps or every < 1 or final_steps < 0:
            raise ValueError(f"warmup={warmup}, final_steps={final_steps}, every={every}: no step "
                             f"of total_steps={total_steps} is left between for the budget to fall")
        self.total_steps, self.warmup, self.final_steps = total_steps, warmup, final_steps
        self.every, self.betas, self.penalty = every, betas, penalty

    def budget(self, step: int) -> int:
        """How many directions all layers together have after this step."""
        last = self.total_steps - self.final_steps
        if step <= self.warmup:
            return self.first
        left = max(0.0, 1 - (step - self.warmup) / (last - self.warmup))
        return int((self.first - self.target) * left**3 + self.target)

    def __call__(self, step: int, model: nn.Module) -> None:
        """After a step: learn what matters, and put the rest to zero."""
        layers, last = _triplets(model), self.total_steps - self.final_steps
        learned = step > 0 and all(a.lora_E.grad is not None for a in layers.values())
        if learned and step < last:
            for adapter in layers.values():
                adapter.watch(self.betas)
        if learned and self.penalty:
            self._straighten(layers)
        if step > last or step > self.warmup and step % self.every == 0:
            mask_to_budget(model, self.budget(step))

    def _straighten(self, layers: Mapping[str, AdaLoRA]) -> None:
        for adapter in layers.values():
            for parameter in (adapter.lora_A, adapter.lora_B):
                with torch.enable_grad():
                    gradient, = torch.autograd.grad(_slant(parameter), parameter)
                parameter.data.sub_(gradient, alpha=self.penalty)


@torch.no_grad()
def mask_to_budget(model: nn.Module, budget: int) -> dict[str, Tensor]:
    """Put all lambdas but those of the `budget` most important directions to zero.

    Shapes:   -> for each layer (rank,) True = kept
    """
    layers = _triplets(model)
    scores = {path: adapter.importance() for path, adapter in layers.items()}
    every = torch.cat(list(scores.values()))
    if budget >= len(every):
        return {path: torch.ones_like(score, dtype=torch.bool) for path, score in scores.items()}
    highest = torch.zeros_like(every, dtype=torch.bool)
    highest[every.argsort(descending=True, stable=True)[:budget]] = True  # of equals the first
    kept = dict(zip(scores, highest.split([len(score) for score in scores.values()]), strict=True))
    for path, adapter in layers.items():
        adapter.lora_E.masked_fill_(~kept[path][:, None], 0.0)
    return kept


def orthogonality(model: nn.Module) -> Tensor:
    """How far the P and Q of a model are from orthogonal directions of length 1, on average.

    Paper:    Zhang et al. (2023), arXiv:2303.10512, equation 4
    Chapter:  chapters/08_lora.ipynb
    """
    slants = [_slant(parameter) for adapter in _triplets(model).values()
              for parameter in (adapter.lora_A, adapter.lora_B)]
    return torch.stack(slants).mean()


def settle(model: nn.Module) -> nn.Module:
    """Turn AdaLoRA into the plain LoRA that it has become: the ranks that are left, one for each.

    A layer that has lost all its directions holds no adapter any more.

    Raises:   ValueError for a model without AdaLoRA
    Chapter:  chapters/08_lora.ipynb
    """
    _triplets(model)
    for layer in lora_layers(model).values():
        for name, adapter in list(layer.adapters.items()):
            if isinstance(adapter, AdaLoRA):
                plain = _as_lora(layer.base_layer, adapter)
                if plain is None:
                    del layer.adapters[name]
                    layer.active = None if layer.active == name else layer.active
                else:
                    layer.adapters[name] = plain.train(layer.training)
    return model


@torch.no_grad()
def _as_lora(base_layer: nn.Module, adapter: AdaLoRA) -> LowRank | None:
    kept = adapter.lora_E[:, 0] != 0
    lora_rank = int(kept.sum())
    if lora_rank == 0:
        return None
    plain = LowRank(base_layer, lora_rank, adapter.scaling * lora_rank, adapter.dropout.p)
    plain = plain.to(adapter.lora_A)
    plain.lora_A.copy_(adapter.lora_A[kept])
    plain.lora_B.copy_(adapter.lora_B[:, kept] * adapter.lora_E[kept, 0])
    return plain.requires_grad_(adapter.lora_A.requires_grad)


def _triplets(model: nn.Module) -> dict[str, AdaLoRA]:
    found = {path: layer.adapter for path, layer in lora_layers(model).items()
             if isinstance(layer.adapter, AdaLoRA)}
    if not found:
        raise ValueError("no active adapter of the model is AdaLoRA: apply_adalora first")
    return found


def _slant(matrix: Tensor) -> Tensor:
    """Length of M M^T - 1 over the shorter side of P or Q."""
    thin = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T  # (rank, width)
    return (thin @ thin.T - torch.eye(len(thin), device=thin.device, dtype=thin.dtype)).norm()
