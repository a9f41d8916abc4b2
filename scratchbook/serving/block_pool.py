"""The bookkeeping of a paged cache: which block belongs to whom, and what text stands in it.

The memory for keys and values is cut into blocks of a few tokens each, as an operating system
cuts its memory into pages. A text holds a list of blocks that may lie anywhere, so nothing must
be reserved for the longest text that might come. There is no tensor in this file: a block is a
number.

Paper:    Kwon et al. (2023), arXiv:2309.06180, sections 4.2 to 4.5
Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b


@dataclass
class Table:
    """The blocks of one text, in order, and how many of its tokens are written there.

    `names` are those of its full blocks.

    Chapter:  chapters/07b_inference_engine.ipynb
    """

    blocks: list[int] = field(default_factory=list)
    length: int = 0
    names: list[bytes] = field(default_factory=list)


class BlockPool:
    """`count` blocks of `size` tokens, lent to tables and taken back.

    A full block gets a name, the hash of its ids and of the name before it: keys and values
    depend on all earlier tokens, so only the whole beginning tells what a block holds. A text
    that begins the same way holds the same blocks, and `holders` counts how many do. A named
    block that nobody holds stays findable until its room is needed, the longest unused first.

    Raises:   ValueError for a count or a size below 1
    Paper:    Kwon et al. (2023), arXiv:2309.06180, section 4.4 (sharing); Zheng et al. (2023),
              arXiv:2312.07104, section 3 (a cache of prefixes, least recently used first out)
    Chapter:  chapters/07b_inference_engine.ipynb
    """

    def __init__(self, count: int, size: int, prefix_cache: bool = True):
        if count < 1 or size < 1:
            raise ValueError(f"count={count} and size={size}: a pool needs at least one block of "
                             "at least one token")
        self.count, self.size, self.prefix_cache = count, size, prefix_cache
        self.holders = [0] * count
        self._free = list(reversed(range(count)))
        self._unheld: OrderedDict[int, None] = OrderedDict()  # named, the longest unused first
        self._block_of: dict[bytes, int] = {}
        self._name_of: dict[int, bytes] = {}

    @property
    def available(self) -> int:
        """How many blocks nobody holds, findable ones among them."""
        return len(self._free) + len(self._unheld)

    def needed(self, tokens: int) -> int:
        """How many blocks so many tokens fill, the last perhaps in part."""
        return -(-tokens // self.size)

    def open(self, ids: Sequence[int], spare: int = 0) -> Table | None:
        """A table with room for `ids`, its beginning found in the cache as far as it is known.

        At least the last token is left to read: its scores choose the next one. None, and
        nothing taken, when fewer than `spare` blocks would be left.
        """
        names = self._known(ids)
        blocks = [self._block_of[name] for name in names]
        for block in blocks:
            self._hold(block)
        table = Table(blocks, min(len(blocks) * self.size, len(ids) - 1), names)
        missing = self.needed(len(ids)) - len(blocks)
        if missing + spare > self.available:
            self.close(table)
            return None
        table.blocks += [self._take() for _ in range(missing)]
        return table

    def make_room(self, table: Table, length: int) -> list[tuple[int, int]] | None:
        """See that the tokens from `table.length` to `length` can be written; None: too few blocks.

        Returns the (from, to) blocks to copy first: what others hold too is never written to.
        """
        place = table.length // self.size
        shared = place < len(table.blocks) and self.holders[table.blocks[place]] > 1
        missing = max(self.needed(length) - len(table.blocks), 0)
        if missing + shared > self.available:
            return None
        table.blocks += [self._take() for _ in range(missing)]
        old = table.blocks[place]
        if not shared:
            self._unname(old)  # it is about to change; whoever looks for its text must not find it
            del table.names[place:]
            return []
        table.blocks[place] = self._take()
        del table.names[place:]
        self._let_go(old)
        return [(old, table.blocks[place])]

    def advance(self, table: Table, ids: Sequence[int], length: int) -> None:
        """The first `length` of `ids` are written now: blocks that became full get their names."""
        table.length = length
        if not self.prefix_cache:
            return
        for place in range(len(table.names), length // self.size):
            before = table.names[-1] if table.names else b""
            name = _name(before, ids[place * self.size : (place + 1) * self.size])
            table.names.append(name)
            if name not in self._block_of:  # else two wrote the same at once: one is enough
                self._block_of[name] = table.blocks[place]
                self._name_of[table.blocks[place]] = name

    def close(self, table: Table) -> None:
        """Give the table's blocks back; their text stays findable until the room is needed."""
        # the end first: a beginning is of use to more texts, so it should go last
        for block in reversed(table.blocks):
            self._let_go(block)
        table.blocks, table.length, table.names = [], 0, []

    def _known(self, ids: Sequence[int]) -> list[bytes]:
        """The names of the longest beginning of `ids` whose blocks are all there."""
        names: list[bytes] = []
        for start in range(0, len(ids) - self.size + 1, self.size):
            name = _name(names[-1] if names else b"", ids[start : start + self.size])
            if name not in self._block_of:
                break
            names.append(name)
        return names

    def _hold(self, block: int) -> None:
        self.holders[block] += 1
        self._unheld.pop(block, None)

    def _let_go(self, block: int) -> None:
        self.holders[block] -= 1
        if self.holders[block] == 0 and block in self._name_of:
            self._unheld[block] = None
        elif self.holders[block] == 0:
            self._free.append(block)

    def _take(self) -> int:
        if self._free:
            block = self._free.pop()
        else:
            block, _ = self._unheld.popitem(last=False)
            self._unname(block)
        self.holders[block] = 1
        return block

    def _unname(self, block: int) -> None:
        name = self._name_of.pop(block, None)
        if name is not None:
            del self._block_of[name]


def _name(before: bytes, ids: Sequence[int]) -> bytes:
    # 16 bytes of a cryptographic hash: two texts with one name would silently share their past
    return blake2b(before + array("q", ids).tobytes(), digest_size=16).digest()
