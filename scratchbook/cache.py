"""What a model remembers while it writes: the keys and values of all earlier tokens.

Chapter:  chapters/02_attention.ipynb
"""

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
        k, v = k.detach(), v.detach()
        if self._k is None or self._v is None:
            self._k, self._v = self._room_for(k), self._room_for(v)
        self._check(k, self._k)
        self._check(v, self._v)
        end = self.length + k.shape[2]
        if end > self.max_seq_len:
            raise ValueError(
                f"{self.length} tokens are cached and {k.shape[2]} more do not fit into "
                f"max_seq_len={self.max_seq_len}; make the cache longer or call truncate(0)"
            )
        self._k[:, :, self.length : end] = k
        self._v[:, :, self.length : end] = v
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
