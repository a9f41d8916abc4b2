"""LoRA whose ranks belong to classes of tokens: each token passes through those of its class.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.finetuning.lora import chosen_layers, install
from scratchbook.finetuning.low_rank import LowRank
from scratchbook.finetuning.token_classes import CLASSES, token_classes
from scratchbook.model import DecoderLM
from scratchbook.tokenizers.base import Tokenizer

ALL = "all"


class TokenClasses:
    """Knows the classes of the tokens that a model reads at the moment.

    A hook before `forward`: it sees the ids, and keeps for every cache what stands in it, so
    that a token has the same class in a text that is written step by step. Padding on the left
    is no part of a text and counts as "other".

    Chapter:  chapters/08_lora.ipynb
    """

    MOST_ROWS = 4096  # texts whose classes are kept: training reads the same ones again

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.now: Tensor | None = None  # (batch, time)
        self.known: dict[tuple[int, ...], list[int]] = {}
        self.pasts: WeakKeyDictionary[Any, list[list[int]]] = WeakKeyDictionary()

    def __deepcopy__(self, memo: dict) -> TokenClasses:
        memo[id(self)] = TokenClasses(self.tokenizer)
        return memo[id(self)]

    def __call__(self, model: nn.Module, arguments: tuple, options: dict) -> None:
        """Read the ids of a call of the model, before it does."""
        given = dict(zip(("ids", "cache", "mask"), arguments, strict=False)) | options
        ids, caches, mask = given["ids"], given.get("cache"), given.get("mask")
        rows = ids.tolist()
        padded = mask is not None and mask.dim() == 4 and mask.shape[1:3] == (1, 1)
        real = mask[:, 0, 0, -ids.shape[1]:].expand(len(ids), -1).tolist() if padded else None
        if real is not None:  # None stands for padding
            rows = [[token if seen else None for token, seen in zip(row, own, strict=True)]
                    for row, own in zip(rows, real, strict=True)]
        pasts = [[] for _ in rows] if not caches else self._past(caches[0], len(rows))
        found = [self._classes(past, row) for past, row in zip(pasts, rows, strict=True)]
        if caches:
            self.pasts[caches[0]] = [past + row for past, row in zip(pasts, rows, strict=True)]
        self.now = torch.tensor(found, device=ids.device)

    def _past(self, cache: Any, batch: int) -> list[list[int]]:
        """The ids that a cache holds; one that was cut back holds their beginning."""
        pasts = self.pasts.get(cache, [[] for _ in range(batch)]) if cache.length else [
            [] for _ in range(batch)]
        if len(pasts) != batch or any(len(past) < cache.length for past in pasts):
            raise ValueError(f"the cache holds {cache.length} tokens that were read without this "
                             "adapter, so their classes are not known: start with an empty cache")
        return [past[: cache.length] for past in pasts]

    def _classes(self, past: list[int | None], row: list[int | None]) -> list[int]:
        text = tuple(token for token in (*past, *row) if token is not None)
        classes = self.known.get(text) or token_classes(self.tokenizer, text)
        if not past:  # a step of decoding is met once
            self.known = {} if len(self.known) >= self.MOST_ROWS else self.known
            self.known[text] = classes
        new = iter(classes[len(text) - sum(token is not None for token in row):])
        return [CLASSES.index("other") if token is None else next(new) for token in row]


class ClassGatedLowRank(nn.Module):
    """The update of one matrix, of whose ranks each token uses those of its class.

    B (g * A x): g is alpha / (ranks of the class) where a rank is one of them and 0 elsewhere.
    So a group of classes is a LoRA of its own rank, and only the groups of the tokens that were
    read get a gradient. With all ranks for all classes it is LoRA, number for number.

    Shapes:   lora_A (rank, in_features), lora_B (out_features, rank), gates (classes, rank);
              x (batch, time, in_features), out (batch, time, out_features) -> as out
    Raises:   ValueError for tokens whose classes are not known
    Chapter:  chapters/08_lora.ipynb
    """

    def __init__(self, base_layer: nn.Module, groups: Mapping[str, int], tokens: TokenClasses,
                 lora_alpha: float = 16, dropout: float = 0.0):
        super().__init__()
        plain = LowRank(base_layer, sum(groups.values()), lora_alpha, dropout)
        self.lora_rank, self.lora_alpha, self.tokens = plain.lora_rank, lora_alpha, tokens
        self.groups = dict(groups)
        self.dropout, self.lora_A, self.lora_B = plain.dropout, plain.lora_A, plain.lora_B
        self.register_buffer("gates", gates_of(groups, lora_alpha).to(self.lora_A))

    def forward(self, x: Tensor, out: Tensor, base_layer: nn.Module) -> Tensor:
        """Add to every vector what the ranks of its token's class make of it."""
        classes = self.tokens.now
        if classes is None or classes.shape != x.shape[:-1]:
            raise ValueError(f"a layer reads vectors of shape {tuple(x.shape)}, the classes are of "
                             f"{None if classes is None else tuple(classes.shape)}: call the model "
                             "that apply_syntax_lora returned, not a part of it")
        x = self.dropout(x)
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_A.dtype)
        thin = F.linear(x, self.lora_A) * self.gates[classes]  # (batch, time, rank)
        return (out + F.linear(thin, self.lora_B)).to(out.dtype)

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"lora_rank={self.lora_rank}, lora_alpha={self.lora_alpha}"


def gates_of(groups: Mapping[str, int], lora_alpha: float = 16) -> Tensor:
    """How much each rank counts for a token of each class.

    `groups` gives ranks to classes, joined by "+" where they share them; "all" are all classes.
    A class that no group names is left to the base.

    >>> gates_of({"keyword+operator": 1, "name": 1, "all": 1}, lora_alpha=2)[:3].tolist()
    [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]]

    Shapes:   -> (classes, rank)
    Raises:   ValueError for an unknown class, or a rank that is no whole number from 0 up
    """
    columns = []
    for names, rank in groups.items():
        chosen = CLASSES if names == ALL else names.split("+")
        if unknown := [name for name in chosen if name not in CLASSES]:
            raise ValueError(f"{unknown[0]!r} is no class of tokens; there are "
                             f"{', '.join(CLASSES)}, or 'all'")
        if type(rank) is not int or rank < 0:
            raise ValueError(f"group {names!r} has rank {rank!r}: give a whole number from 0 up")
        columns += [[float(name in chosen) for name in CLASSES]] * rank
    if not columns:
        raise ValueError(f"groups={dict(groups)} has no rank to learn with")
    gates = torch.tensor(columns).T  # (classes, rank)
    return gates * lora_alpha / gates.sum(1, keepdim=True).clamp_min(1)


def apply_syntax_lora(
    model: DecoderLM, tokenizer: Tokenizer, groups: Mapping[str, int],
    targets: str | Collection[str] = ("q_proj", "v_proj"), lora_alpha: float = 16,
    dropout: float = 0.0, name: str = "syntax",
) -> DecoderLM:
    """Freeze a model and put an adapter gated by token classes beside the chosen layers.

    It learns as many numbers as a LoRA whose rank is the sum of the groups' ranks. The class of
    a token comes from the text up to its end, so the model stays causal and writes with a cache.
    It is no change of a matrix, so it cannot be merged.

    Raises:   ValueError for groups or targets that are not there, or another model's tokenizer
    Chapter:  chapters/08_lora.ipynb
    """
    gates_of(groups, lora_alpha)
    if not isinstance(model, DecoderLM):
        raise ValueError(f"{type(model).__name__} is no DecoderLM: load_pretrained makes one of "
                         "the weights of most families")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} ids, the model "
                         f"{model.config.vocab_size}: take the tokenizer that it was trained with")
    tokens = next((hook for hook in model._forward_pre_hooks.values()
                   if isinstance(hook, TokenClasses) and hook.tokenizer is tokenizer), None)
    made = tokens or TokenClasses(tokenizer)
    install(model, chosen_layers(model, targets), name, lambda path, layer: ClassGatedLowRank(
        layer, groups, made, lora_alpha, dropout))
    if tokens is None:
        model.register_forward_pre_hook(made, with_kwargs=True)
    return model


def class_shares(tokenizer: Tokenizer, texts: Sequence[Sequence[int]]) -> dict[str, float]:
    """Which part of the tokens of some texts is of each class.

    Raises:   ValueError for no tokens
    Chapter:  chapters/08_lora.ipynb
    """
    counts = Counter(chain.from_iterable(token_classes(tokenizer, ids) for ids in texts))
    if not counts:
        raise ValueError("there are no tokens to count: give lists of ids")
    return {name: counts[place] / counts.total() for place, name in enumerate(CLASSES)}


def ranks_by_class(shares: Mapping[str, float], lora_rank: int) -> dict[str, int]:
    """Divide a rank among classes (or groups of them) by their shares; the sum is exact.

    Each gets the whole part of what is due, the largest remainders one more; what gets 0 is
    left to the base.

    >>> ranks_by_class({"name": 0.55, "operator": 0.3, "keyword": 0.15}, 8)
    {'name': 5, 'operator': 2, 'keyword': 1}

    Raises:   ValueError for a rank below one, or shares that are negative or sum to zero
    Chapter:  chapters/08_lora.ipynb
    """
    total = sum(shares.values())
    if lora_rank < 1 or not 0 < total < math.inf or min(shares.values()) < 0:
        raise ValueError(f"lora_rank={lora_rank} must be at least 1, and shares numbers from 0 up "
                         f"that do not sum to {total}")
    due = {name: lora_rank * share / total for name, share in shares.items()}
    ranks = {name: int(part) for name, part in due.items()}
    left = sorted(due, key=lambda name: ranks[name] - due[name])[: lora_rank - sum(ranks.values())]
    return {name: rank + (name in left) for name, rank in ranks.items()}
