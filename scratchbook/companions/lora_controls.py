"""Controls of chapter 08's comparisons: what looks like the cause, taken away alone.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from scratchbook.finetuning import apply_lora, apply_syntax_lora
from scratchbook.finetuning.syntax_aware import TokenClasses
from scratchbook.finetuning.token_classes import CLASSES
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator
from scratchbook.tokenizers import Tokenizer


class DrawnClasses(TokenClasses):
    """Classes that know no syntax: each kind of token has one that was drawn by the shares.

    Gates, ranks and scales stay what they were; only which tokens share them does not.
    """

    def __init__(self, tokenizer: Tokenizer, shares: Mapping[str, float], seed: int):
        super().__init__(tokenizer)
        self.shares, self.seed = dict(shares), seed
        chances = torch.tensor([shares[name] for name in CLASSES])
        self.table = torch.multinomial(
            chances, tokenizer.vocab_size, replacement=True,
            generator=named_generator(seed, "drawn classes")).tolist()

    def __deepcopy__(self, memo: dict) -> DrawnClasses:
        memo[id(self)] = DrawnClasses(self.tokenizer, self.shares, self.seed)
        return memo[id(self)]

    def _classes(self, past: list[int | None], row: list[int | None]) -> list[int]:
        other = CLASSES.index("other")
        return [other if token is None else self.table[token] for token in row]


def apply_drawn(model: DecoderLM, tokenizer: Tokenizer, groups: Mapping[str, int],
                shares: Mapping[str, float], seed: int, **how: object) -> DecoderLM:
    """`apply_syntax_lora` with classes that were drawn instead of read."""
    model.register_forward_pre_hook(DrawnClasses(tokenizer, shares, seed), with_kwargs=True)
    return apply_syntax_lora(model, tokenizer, groups, **how)


def dora_ranks(model: DecoderLM, count: int, targets: Sequence[str] = ("q_proj", "v_proj")
               ) -> dict[str, int]:
    """Ranks at which DoRA, its lengths included, learns at most `count` numbers.

    The lengths are one for each row of the chosen matrices; what they leave goes to ranks that
    are equal or one apart, the first layers first.

    Raises:   ValueError when that is not a rank for each layer
    """
    layers = {path: layer for path, layer in model.named_modules()
              if isinstance(layer, nn.Linear) and path.rpartition(".")[2] in targets}
    left = count - sum(layer.out_features for layer in layers.values())
    sizes = {path: layer.in_features + layer.out_features for path, layer in layers.items()}
    rank, left = divmod(left, sum(sizes.values()))
    if rank < 1:
        raise ValueError(f"count={count} leaves no rank for each of {len(layers)} layers: give "
                         f"{count - left - rank * sum(sizes.values()) + sum(sizes.values())}")
    ranks = {}
    for path, size in sizes.items():
        more = size <= left
        ranks[path], left = rank + more, left - size * more
    return ranks


def apply_dora(model: DecoderLM, count: int) -> DecoderLM:
    """DoRA on queries and values that learns as many numbers as another method."""
    ranks = dora_ranks(model, count)
    return apply_lora(model, ("q_proj", "v_proj"), ranks=ranks, dora=True)
