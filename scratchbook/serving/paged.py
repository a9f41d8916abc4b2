"""Keys and values in blocks: the tensors behind a `BlockPool`, one `PagedCache` for each layer.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scratchbook.serving.block_pool import Table


@dataclass
class Places:
    """Where one pass of the model writes and reads, the same in every layer.

    Rows end in the same column and are padded on the left, as in `generation.generate`: the
    newest token of every row then meets the bottom right corner of the causal mask.

    Shapes:   write (new tokens,) and read (batch, keys) are slots; new (batch, time) True = no
              padding; mask (batch, 1, 1, keys) True = may look; positions (batch, time)
    Chapter:  chapters/07b_inference_engine.ipynb
    """

    write: Tensor
    read: Tensor
    new: Tensor
    mask: Tensor | None
    positions: Tensor


def places_of(tables: Sequence[Table], counts: Sequence[int], size: int, nowhere: int,
              device: torch.device | None = None) -> Places:
    """The places of a pass in which each table gets so many new tokens.

    `nowhere` is the slot that padding reads. A table of length 0 with a count of 0 is a row of
    padding alone.

    Chapter:  chapters/07b_inference_engine.ipynb
    """
    width, most = max(counts), max(1, *(len(table.blocks) for table in tables))
    blocks = torch.tensor([table.blocks + [0] * (most - len(table.blocks)) for table in tables])
    ends = torch.tensor([table.length + n for table, n in zip(tables, counts, strict=True)])
    keys = int(ends.max())
    positions = torch.arange(keys) - (keys - ends)[:, None]  # (batch, keys), padding below 0
    real, at = positions >= 0, positions.clamp_min(0)
    slots = blocks.gather(1, at // size) * size + at % size
    new = torch.arange(width) >= width - torch.tensor(counts)[:, None]  # (batch, time)
    return Places(
        write=slots[:, keys - width :][new].to(device),
        read=slots.where(real, nowhere).to(device),
        new=new.to(device),
        mask=None if real.all() else real[:, None, None].to(device),
        positions=at[:, keys - width :].to(device))


class PagedCache:
    """The cache of one attention layer, for as many texts as there are blocks.

    It is used like a `KVCache`, so a model does not know that its past lies in pages: before
    each pass `places` says where. Gathering the pages copies them; an engine in earnest has a
    kernel that reads them where they lie.

    Shapes:   append: k, v (batch, kv_heads, time, head_dim)
              -> k, v (batch, kv_heads, keys, head_dim), padded on the left
    Paper:    Kwon et al. (2023), arXiv:2309.06180, section 4.1
    Chapter:  chapters/07b_inference_engine.ipynb
    """

    def __init__(self, blocks: int, size: int):
        self.size, self.nowhere = size, blocks * size
        self.places: Places | None = None
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    @property
    def length(self) -> int:
        """The columns before the new ones, padding among them."""
        return 0 if self.places is None else self.places.read.shape[1] - self.places.new.shape[1]

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values to their slots and return all that each row has."""
        if self._k is None or self._v is None:
            self._k, self._v = self._room_for(k), self._room_for(v)
        return self._through(self._k, k), self._through(self._v, v)

    def copy(self, old: int, new: int) -> None:
        """Make one block a copy of another."""
        for pages in (self._k, self._v):
            if pages is not None:
                pages[new * self.size : (new + 1) * self.size] = pages[
                    old * self.size : (old + 1) * self.size]

    @property
    def bytes_per_token(self) -> int:
        """Memory that one token takes; 0 before the first one."""
        return sum(pages[0].nbytes for pages in (self._k, self._v) if pages is not None)

    def _room_for(self, x: Tensor) -> Tensor:
        pages = x.new_empty(self.nowhere + 1, x.shape[1], x.shape[3])
        # padding has weight 0, but 0 times what happens to stand in fresh memory may be NaN
        pages[self.nowhere] = 0
        return pages

    def _through(self, pages: Tensor, x: Tensor) -> Tensor:
        places = self.places
        pages[places.write] = x.transpose(1, 2)[places.new]  # (new tokens, kv_heads, head_dim)
        batch, keys = places.read.shape
        gathered = pages.index_select(0, places.read.flatten())
        return gathered.unflatten(0, (batch, keys)).transpose(1, 2)
