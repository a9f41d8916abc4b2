"""What a model remembers while it writes: the keys and values of all earlier tokens.

Chapter:  chapters/02_attention.ipynb
"""

import torch
from torch import Tensor


class KVCache:
    """Keys and values of one attention layer, kept from call to call.

    Room for `max_seq_len` tokens is taken once, at the first call, so that writing a token
    costs a copy of that token only. Caches are for inference: no gradient flows through one.

    Shapes:   append: k, v (batch, kv_heads, time, head_dim)
              -> k, v (batch, kv_heads, past + time, head_dim)
    Raises:   ValueError when the tokens do not fit or their shape changes
    Chapter:  chapters/02_attention.ipynb
    """

    def __init__(self, max_seq_len: int):
        if max_seq_len < 1:
            raise ValueError(f"max_seq_len={max_seq_len} must be at least 1")
        self.max_seq_len = max_seq_len
        self.length = 0
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new keys and values and return all of them, oldest first."""
        self._prepare(k, v)
        end = self.length + k.shape[2]
        if end > self.max_seq_len:
            raise ValueError(
                f"{self.length} tokens are cached and {k.shape[2]} more do not fit into "
                f"max_seq_len={self.max_seq_len}; make the cache longer or call truncate(0)"
            )
        self._k[:, :, self.length : end] = k.detach()
        self._v[:, :, self.length : end] = v.detach()
        self.length = end
        return self._k[:, :, :end], self._v[:, :, :end]

    def truncate(self, length: int) -> None:
        """Forget every token from position `length` on; 0 starts afresh."""
        if not 0 <= length <= self.length:
            raise ValueError(f"length={length} is not within 0..{self.length}, what is cached")
        self.length = length
        if length == 0:
            self._k = self._v = None

    @property
    def bytes_per_token(self) -> int:
        """Memory that each further token takes, for the whole batch; 0 before the first one."""
        buffers = [b for b in (self._k, self._v) if b is not None]
        return sum(b[:, :, 0].numel() * b.element_size() for b in buffers)

    def _prepare(self, k: Tensor, v: Tensor) -> None:
        """Take the room at the first call, and see that later ones fit what is there."""
        if self._k is None or self._v is None:
            self._k, self._v = self._room_for(k), self._room_for(v)
        self._check(k, self._k)
        self._check(v, self._v)

    def _room_for(self, x: Tensor) -> Tensor:
        batch, kv_heads, _, head_dim = x.shape
        return x.new_empty(batch, kv_heads, self.max_seq_len, head_dim)

    def _check(self, new: Tensor, buffer: Tensor) -> None:
        batch, kv_heads, _, head_dim = buffer.shape
        if (new.shape[0], new.shape[1], new.shape[3]) != (batch, kv_heads, head_dim):
            raise ValueError(
                f"the cache holds batch={batch}, kv_heads={kv_heads}, head_dim={head_dim}, "
                f"the new tokens have shape {tuple(new.shape)}; use one cache per layer and batch"
            )


class WindowCache(KVCache):
    """A cache for attention with a window: it lets go of what no later query may see.

    Entries stand in order in a buffer a little longer than the window, behind the first
    `sinks` tokens, which stay for good. When it is full, the last `window - 1` move up: once in
    `slack + 1` tokens, so that most tokens cost a copy of themselves only. Memory is bound by
    the window and the slack, however long the text.

    Shapes:   append: k, v (batch, kv_heads, time, head_dim)
              -> k, v (batch, kv_heads, kept + time, head_dim)
    Raises:   ValueError for a window below 1, or to truncate to what was let go
    Paper:    Xiao et al. (2023), arXiv:2309.17453, section 3.2 (the sinks)
    Chapter:  chapters/02b_attention_variants.ipynb
    """

    SLACK = 64

    def __init__(self, window: int, sinks: int = 0, slack: int | None = None):
        slack = self.SLACK if slack is None else slack
        if window < 1 or sinks < 0 or slack < 1:
            raise ValueError(f"window={window} and slack={slack} must be at least 1 and "
                             f"sinks={sinks} not negative")
        super().__init__(max_seq_len=sinks + window - 1 + slack)
        self.window, self.sinks = window, sinks
        self._kept = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new keys and values; return them behind all that they may look at."""
        self._prepare(k, v)
        self.length += k.shape[2]
        end = self._kept + k.shape[2]
        if end <= self.max_seq_len:
            self._k[:, :, self._kept : end] = k.detach()
            self._v[:, :, self._kept : end] = v.detach()
            self._kept = end
            return self._k[:, :, :end], self._v[:, :, :end]
        everything = [torch.cat([buffer[:, :, : self._kept], new.detach()], dim=2)
                      for buffer, new in ((self._k, k), (self._v, v))]
        self._kept = self.sinks + self.window - 1
        for buffer, full in zip((self._k, self._v), everything, strict=True):
            buffer[:, :, : self.sinks] = full[:, :, : self.sinks]
            buffer[:, :, self.sinks : self._kept] = full[:, :, end - self.window + 1 :]
        return everything[0], everything[1]

    def truncate(self, length: int) -> None:
        """Forget every token from position `length` on, as long as nothing was let go."""
        if self.length > self._kept and length:
            raise ValueError(f"length={length}: {self.length - self._kept} tokens were let go, so "
                             "this cache can only be emptied, truncate(0)")
        super().truncate(length)
        self._kept = length


class StateCache:
    """What linear attention keeps of the past: sums whose size does not grow with the text.

    Caches are for inference: no gradient flows through one.

    Chapter:  chapters/02b_attention_variants.ipynb
    """

    def __init__(self) -> None:
        self.length = 0
        self.state: tuple[Tensor, ...] | None = None

    def keep(self, state: tuple[Tensor, ...], time: int) -> None:
        """Take the sums as they are after `time` more tokens."""
        self.state = tuple(part.detach() for part in state)
        self.length += time
