"""What to keep when the window is full: four policies, and what each costs in loss and in reading.

A model knows a window of so many tokens. When a text outgrows it, either some of its tokens are
read anew from place 0 (`restart`, `truncate`, `summarise`), or the cache lets the oldest go and
nothing is read twice (`SinkCache`).

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from scratchbook.generation import eval_mode
from scratchbook.model import DecoderLM

Policy = Callable[[Sequence[int]], list[int]]  # all ids so far -> the places that are kept, rising


def restart(ids: Sequence[int]) -> list[int]:
    """Keep the last token alone, and begin again: the simplest rival.

    Chapter:  chapters/07b_inference_engine.ipynb
    """
    return [len(ids) - 1]


def truncate(keep: int) -> Policy:
    """Keep the last `keep` tokens. With one token less than the window this slides.

    Raises:   ValueError for less than one token
    Chapter:  chapters/07b_inference_engine.ipynb
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: the token before the next one must stay")
    return partial(_last, keep)


def _last(keep: int, ids: Sequence[int]) -> list[int]:
    return list(range(max(0, len(ids) - keep), len(ids)))


def shared_rarity(ids: Sequence[int], segment: range, recent: int) -> float:
    """How much of a segment the last `recent` tokens have too, rare tokens counting more.

    Chapter:  chapters/07b_inference_engine.ipynb
    """
    counts = Counter(ids)
    return sum(1 / counts[token] for token in {ids[i] for i in segment} & set(ids[-recent:]))


def summarise(head: int, extract: int, recent: int, segment: int = 16,
              worth: Callable[[Sequence[int], range, int], float] = shared_rarity) -> Policy:
    """Keep the first `head` tokens, `extract` from the middle, and the last `recent`.

    The middle is cut into segments, and those of most worth stay. It is an extract: nothing is
    written anew, and no model is asked.

    Raises:   ValueError when no token is recent, or segments do not fill the extract
    Chapter:  chapters/07b_inference_engine.ipynb
    """
    if recent < 1 or head < 0 or extract < 0 or segment < 1 or extract % segment:
        raise ValueError(f"head={head}, extract={extract} and recent={recent}: one token at least "
                         f"must be recent, and segments of {segment} must fill the extract")

    def policy(ids: Sequence[int]) -> list[int]:
        last = len(ids) - recent
        if last <= head + extract:
            return list(range(len(ids)))
        segments = [range(i, i + segment) for i in range(head, last - segment + 1, segment)]
        best = sorted(segments, key=lambda some: (-worth(ids, some, recent), -some.start))
        chosen = sorted(best[: extract // segment], key=lambda some: some.start)
        return [*range(head), *(i for some in chosen for i in some), *range(last, len(ids))]
    return policy


@torch.no_grad()
def reread_losses(model: DecoderLM, ids: Tensor, policy: Policy, size: int) -> tuple[Tensor, float]:
    """The loss at every token but the first when a full window keeps what `policy` says.

    The kept tokens are read anew from place 0 on, with those behind them, until the window of
    `size` tokens is full; the token that a full window predicts is written before it is cut.

    Shapes:   ids (batch, time) -> (batch, time - 1), and tokens read for each token written
    Raises:   ValueError when a policy keeps a full window or more, or lets the last token go
    Chapter:  chapters/07b_inference_engine.ipynb
    """
    batch, time = ids.shape
    losses, read, begin, kept = ids.new_zeros(batch, time - 1, dtype=torch.float32), 0, 1, None
    with eval_mode(model):
        while begin < time:
            kept = torch.tensor([policy(row[:begin]) for row in ids.tolist()])  # (batch, kept)
            if kept.shape[1] > size or (kept[:, -1] != begin - 1).any():
                raise ValueError(f"{kept.shape[1]} tokens are kept of a window of {size}: at most "
                                 f"that many, and token {begin - 1} among them, must stay")
            end = min(begin + size - kept.shape[1], time - 1)
            window = torch.cat([ids.gather(1, kept), ids[:, begin:end]], dim=1)
            logits = model(window)[:, kept.shape[1] - 1 :]  # (batch, end - begin + 1, vocab)
            targets = ids[:, begin : end + 1]
            losses[:, begin - 1 : end] = nn.functional.cross_entropy(
                logits.transpose(1, 2), targets, reduction="none")
            read, begin = read + window.shape[1], end + 1
    return losses, read / (time - 1)


class SinkCache:
    """A cache of `size` tokens that keeps the first `sinks` and otherwise the last, renumbered.

    Rotary scores depend on differences of places alone. So to count the places within the cache,
    it is enough to turn the few sinks forward by as many places as tokens were let go: they then
    stand right before the oldest of the others. With `sinks=0` it is a plain sliding cache.

    Shapes:   append: k, v (batch, kv_heads, time, head_dim)
              -> k, v (batch, kv_heads, at most size, head_dim)
    Raises:   ValueError when the sinks leave no room, or several tokens come at once that do not
              fit: all but the first would see what is already gone
    Paper:    Xiao et al. (2023), arXiv:2309.17453, section 3.2
    Chapter:  chapters/07b_inference_engine.ipynb
    """

    def __init__(self, size: int, sinks: int, rotary: nn.Module | None = None):
        if not 0 <= sinks < size:
            raise ValueError(f"sinks={sinks} of a cache of size={size}: one place at least must "
                             "be left for the newest token")
        self.size, self.sinks, self.rotary = size, sinks, rotary
        self.length = 0  # tokens read, those let go included
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new keys and values, let the oldest that is no sink go, and return the rest."""
        if k.shape[2] > 1 and self.length + k.shape[2] > self.size:
            raise ValueError(f"{k.shape[2]} tokens at once do not fit behind {self.length} in "
                             f"size={self.size}: read them one by one")
        self.length += k.shape[2]
        self._k, self._v = (new if old is None else self._fit(torch.cat([old, new], dim=2))
                            for old, new in ((self._k, k.detach()), (self._v, v.detach())))
        return self._renumbered(self._k), self._v

    def _fit(self, x: Tensor) -> Tensor:
        over = x.shape[2] - self.size
        if over <= 0:
            return x
        return torch.cat([x[:, :, : self.sinks], x[:, :, self.sinks + over :]], dim=2)

    def _renumbered(self, k: Tensor) -> Tensor:
        gone = self.length - k.shape[2]
        if not (gone and self.sinks and self.rotary is not None):
            return k
        forward = torch.full((self.sinks,), gone, device=k.device)
        return torch.cat([self.rotary(k[:, :, : self.sinks], forward), k[:, :, self.sinks :]], 2)


def sink_caches(model: DecoderLM, size: int, sinks: int) -> list[SinkCache]:
    """One `SinkCache` for each layer of a model with rotary positions.

    Raises:   ValueError for a model that knows places in another way: its keys cannot be moved
    Chapter:  chapters/07b_inference_engine.ipynb
    """
    if model.config.positions != "rope" or model.config.latent_dim is not None:
        raise ValueError(f"positions={model.config.positions!r}, latent_dim="
                         f"{model.config.latent_dim}: only rotary keys of plain attention can be "
                         "turned to another place; read the text anew instead (truncate)")
    return [SinkCache(size, sinks, block.attention.rotary) for block in model.blocks]


@torch.no_grad()
def cached_losses(model: DecoderLM, ids: Tensor, size: int, sinks: int) -> Tensor:
    """The loss at every token but the first, each token read once, with a `SinkCache`.

    Shapes:   ids (batch, time) -> (batch, time - 1)
    Raises:   ValueError as `sink_caches` does
    Chapter:  chapters/07b_inference_engine.ipynb
    """
    caches, losses = sink_caches(model, size, sinks), []
    with eval_mode(model):
        logits = model(ids[:, : min(size, ids.shape[1] - 1)], cache=caches)  # what fits, at once
        losses.append(_loss(logits, ids[:, 1 : size + 1]))
        for place in range(size, ids.shape[1] - 1):
            logits = model(ids[:, place : place + 1], cache=caches)
            losses.append(_loss(logits, ids[:, place + 1 : place + 2]))
    return torch.cat(losses, dim=1)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
