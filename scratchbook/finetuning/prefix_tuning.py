"""Prefix tuning: keys and values that stand before every text and are learned.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.attention import MultiHeadAttention
from scratchbook.finetuning.methods import begin, blocks_of
from scratchbook.generation import check_ids, eval_mode
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator


class PrefixAttention(nn.Module):
    """A frozen attention that also looks at `prefix_len` learned keys and values.

    They are as a cache would hold them: normed and turned already, seen by every query. The
    text behind them starts at position `prefix_len`.

    Shapes:   keys and values (kv_heads, prefix_len, head_dim); forward as the attention's
    Paper:    Li and Liang (2021), arXiv:2101.00190, section 4.2
    Chapter:  chapters/08_lora.ipynb
    """

    def __init__(self, base: MultiHeadAttention, keys: Tensor, values: Tensor):
        super().__init__()
        self.base, self.keys, self.values = base, nn.Parameter(keys), nn.Parameter(values)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: object | None = None,
                positions: Tensor | None = None, return_weights: bool = False
                ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend; `mask` and `cache` know of the text alone, weights show the prefix first."""
        prefix_len = self.keys.shape[1]
        if positions is None:
            past = 0 if cache is None else cache.length
            positions = torch.arange(past, past + x.shape[1], device=x.device)
        if mask is not None:
            mask = F.pad(mask, (prefix_len, 0), value=True)
        before = _Before(self.keys, self.values, cache)
        return self.base(x, mask, before, positions + prefix_len, return_weights)


class _Before:
    """A cache that returns learned keys and values in front of those of the text."""

    def __init__(self, keys: Tensor, values: Tensor, text: object | None):
        self.keys, self.values, self.text = keys, values, text
        self.length = keys.shape[1] + (0 if text is None else text.length)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the text's new ones where there is a cache; learned ones are never copied there."""
        if self.text is not None:
            k, v = self.text.append(k, v)
        whole = [torch.cat([learned.to(own.dtype).expand(len(own), -1, -1, -1), own], dim=2)
                 for learned, own in ((self.keys, k), (self.values, v))]
        return whole[0], whole[1]  # (batch, kv_heads, prefix_len + past + time, head_dim)


class ShiftedPositions(nn.Module):
    """A table of positions that is read `by` places further on."""

    def __init__(self, base: nn.Module, by: int):
        super().__init__()
        self.base, self.by = base, by

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Mark every vector of `x` with its place behind the prefix."""
        return self.base(x, positions + self.by)


def prefix(model: DecoderLM, prefix_len: int | None = None,
           prompt_ids: Sequence[int] | None = None, std: float = 0.02, seed: int = 0) -> DecoderLM:
    """Learn keys and values of `prefix_len` positions before the text, in every layer.

    Drawn at random they change the model from the start. With `prompt_ids` they start as what
    the model keeps of that prompt, and the adapted model as the base that has read it. What
    learns: 2 num_layers prefix_len num_kv_heads head_dim numbers. A learned table of positions
    has `prefix_len` fewer left for the text.

    Raises:   ValueError without a length or prompt, for one that leaves no position for the
              text, and for windows and latent attention, which have no place for a prefix
    Paper:    Li and Liang (2021), arXiv:2101.00190; section 7.4 for the start from real words
    Chapter:  chapters/08_lora.ipynb
    """
    blocks, prefix_len = blocks_of(model), _length(model, prefix_len, prompt_ids)
    for block in blocks:
        check_attention(block.attention)
    started = None if prompt_ids is None else _kept_of(model, prompt_ids)
    like = begin(model, "prefix", prefix_len=prefix_len, seed=seed, std=std)
    for number, block in enumerate(blocks):
        attention = block.attention
        shape = (2, attention.num_kv_heads, prefix_len, attention.head_dim)
        drawn = torch.randn(shape, generator=named_generator(seed, str(number))) * std
        keys, values = (drawn if started is None else started[number]).to(like.device, like.dtype)
        block.attention = PrefixAttention(attention, keys.clone(), values.clone())
    if model.positions is not None:
        model.positions = ShiftedPositions(model.positions, prefix_len)
    return model


def check_attention(attention: nn.Module) -> None:
    """Refuse an attention that cannot have a prefix.

    Raises:   ValueError saying why
    """
    if not isinstance(attention, MultiHeadAttention):
        raise ValueError(f"{type(attention).__name__} keeps no keys and values of its own: a "
                         "prefix needs MultiHeadAttention; take LoRA or bottlenecks")
    if attention.window is not None:
        raise ValueError(f"window={attention.window}: the prefix would leave the window after as "
                         "many tokens; take LoRA or bottlenecks")


def _length(model: DecoderLM, prefix_len: int | None, prompt_ids: Sequence[int] | None) -> int:
    if prompt_ids is not None:
        check_ids(prompt_ids, model.config.vocab_size)
        if prefix_len not in (None, len(prompt_ids)):
            raise ValueError(f"prefix_len={prefix_len}, but prompt_ids has {len(prompt_ids)} ids: "
                             "give one of the two")
        prefix_len = len(prompt_ids)
    if type(prefix_len) is not int or not 1 <= prefix_len < model.config.max_seq_len:
        raise ValueError(f"prefix_len={prefix_len} is not within 1..{model.config.max_seq_len - 1}:"
                         " give a length that leaves positions for the text, or prompt_ids")
    return prefix_len


class _Recorder:
    """A cache that only remembers what one layer made of one text."""

    length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.kept = torch.stack([k[0], v[0]])  # (2, kv_heads, time, head_dim)
        return k, v


@torch.no_grad()
def _kept_of(model: DecoderLM, prompt_ids: Sequence[int]) -> list[Tensor]:
    recorders = [_Recorder() for _ in model.blocks]
    device = next(iter(model.state_dict().values())).device
    with eval_mode(model):
        model(torch.tensor([list(prompt_ids)], device=device), cache=recorders)
    return [recorder.kept for recorder in recorders]
