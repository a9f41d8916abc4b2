"""How to listen to one attention: which of its parts speak, and what they say together.

A probe hears what the parts of an attention module return while it runs, and puts together from it
the queries, keys and values as they meet, with the rules of who may look at whom. Nothing is
computed a second time that draws random numbers, so that a model in training stays undisturbed.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scratchbook.attention import LatentAttention, MultiHeadAttention, attend
from scratchbook.attention.masks import causal_mask
from scratchbook.attention.shared_heads import for_every_head


@dataclass
class Meeting:
    """Queries and keys as they meet: normed and turned, earlier keys of a cache included.

    Shapes:   queries (batch, heads, time, head_dim), keys (batch, kv_heads, keys, head_dim),
              values (batch, kv_heads, keys, value_dim), mask (..., time, keys) True = may look,
              bias (..., time, keys) added to the scores
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor | None = None
    bias: Tensor | None = None

    def weights(self) -> Tensor:
        """What each query looks at, in float32: (batch, heads, time, keys)."""
        q, k = self.queries.float(), self.keys.float()
        bias = None if self.bias is None else self.bias.float()
        nothing = k.new_zeros(*k.shape[:-1], 1)  # the average of the values is not asked for
        heads = q.shape[1]
        _, weights = attend(q, for_every_head(k, heads), for_every_head(nothing, heads), self.mask,
                            return_weights=True, bias=bias)
        return weights


class Listening:
    """A cache that notes what it hands out; to the attention it is the cache itself."""

    def __init__(self, cache: object):
        self._cache, self.given = cache, None

    def append(self, *new: Tensor) -> tuple[Tensor, Tensor]:
        """As the caches of this course answer."""
        self.given = self._cache.append(*new)
        return self.given

    def update(self, *new: object, **more: object) -> tuple[Tensor, Tensor]:
        """As those of transformers do."""
        self.given = self._cache.update(*new, **more)
        return self.given

    def __getattr__(self, name: str) -> object:
        return getattr(self._cache, name)


class Probe:
    """Hears one attention module; a subclass knows the names of its parts and their meaning.

    `inputs` are the arguments of the module's forward in their order.
    """

    parts: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("x", "mask", "cache", "positions")
    cache_name = "cache"

    def __init__(self, module: nn.Module):
        self.module = module
        self.heard: dict[str, list[Tensor]] = {}
        self.call: dict[str, object] = {}
        self.active = False

    def attach(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Listen to the parts; the handles end it."""
        handles = [self.module.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for name in self.parts:
            part = getattr(self.module, name, None)
            if isinstance(part, nn.Module):
                handles.append(part.register_forward_hook(self._listener(name)))
        return handles

    def meeting(self) -> Meeting:
        """What was heard in the call that has just ended; it is then forgotten."""
        try:
            return self._put_together()
        finally:
            self.active, self.heard, self.call = False, {}, {}

    def _put_together(self) -> Meeting:
        raise NotImplementedError

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        self.call = dict(zip(self.inputs, args, strict=False)) | kwargs
        self.heard, self.active = {}, True
        cache = self.call.get(self.cache_name)
        if cache is None:
            return args, kwargs
        self.call[self.cache_name] = listening = Listening(cache)
        args = tuple(listening if each is cache else each for each in args)
        return args, {name: listening if each is cache else each for name, each in kwargs.items()}

    def _listener(self, name: str):
        def hear(module: nn.Module, args: tuple, output: Tensor) -> None:
            if self.active:
                self.heard.setdefault(name, []).append(output)
        return hear

    def _last(self, name: str) -> Tensor:
        if name not in self.heard:
            raise ValueError(f"{type(self.module).__name__} did not call its {name}: what it looks "
                             "at cannot be told from its parts")
        return self.heard[name][-1]

    def _from_cache(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        cache = self.call.get(self.cache_name)
        return (k, v) if cache is None or cache.given is None else cache.given


class MultiHeadProbe(Probe):
    """`MultiHeadAttention`, with shared heads, windows, sinks, ALiBi, rotary positions, QK-norm."""

    parts = ("v_proj", "q_norm", "k_norm", "rotary")

    def _put_together(self) -> Meeting:
        attention = self.module
        q, k = self._last("q_norm"), self._last("k_norm")
        if attention.rotary is not None:
            q, k = self.heard["rotary"]  # in the order in which it is called
        v = self._last("v_proj").unflatten(-1, (attention.num_kv_heads, -1)).transpose(1, 2)
        k, v = self._from_cache(k, v)
        time, keys, mask = q.shape[2], k.shape[2], self.call.get("mask")
        if self.call.get("cache") is not None:
            mask = attention._of_kept(mask, keys)
        return Meeting(q, k, v, attention._allowed(time, keys, mask, q.device),
                       attention._distance_bias(time, keys, q.device))


class LatentProbe(Probe):
    """`LatentAttention`: keys and values as they are unpacked, or would be."""

    parts = ("q_proj", "down_proj", "latent_norm", "rotary", "up_proj")

    def _put_together(self) -> Meeting:
        attention, heads = self.module, self.module.num_heads
        q = self._last("q_proj").unflatten(-1, (heads, -1)).transpose(1, 2)
        latent, key = self._last("down_proj").split(
            [attention.latent_dim, attention.rope_dim], dim=-1)
        if attention.latent_norm is not None:
            latent = self._last("latent_norm")
        key, latent = key[:, None], latent[:, None]  # (batch, 1, time, ...)
        if attention.rotary is not None:
            turned, key = self.heard["rotary"]
            q = torch.cat([q[..., : attention.head_dim], turned], dim=-1)
        key, latent = self._from_cache(key, latent)
        both = self._unpacked(latent).unflatten(-1, (heads, -1)).transpose(1, 2)
        k, v = both.split([attention.head_dim, attention.value_dim], dim=-1)
        k = torch.cat([k, key.expand(-1, heads, -1, -1)], dim=-1)
        mask = attention._rules(q.shape[2], k.shape[2], self.call.get("mask"), q.device)
        return Meeting(q, k, v, mask)

    def _unpacked(self, latent: Tensor) -> Tensor:
        """(batch, keys, heads * (head_dim + value_dim)), without calling a part again."""
        latent = latent[:, 0]
        if "up_proj" not in self.heard:  # absorbed, and a plain matrix
            return latent @ self.module.up_proj.weight.T
        said = self._last("up_proj")
        # absorbed, a wrapped matrix is asked for by unpacking the identity: two axes
        return latent @ said if said.dim() == 2 else said


class TransformersProbe(Probe):
    """The attentions of transformers' decoders that keep a q_proj, a k_proj and a v_proj."""

    parts = ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm")
    inputs = ("hidden_states", "position_embeddings", "attention_mask", "past_key_values")
    cache_name = "past_key_values"

    def _put_together(self) -> Meeting:
        q, k, v = (self._heads(f"{name}_proj", f"{name}_norm") for name in "qkv")
        cos, sin = (each[:, None] for each in self.call["position_embeddings"])
        return self._met(_turn(q, cos, sin), _turn(k, cos, sin), v)

    def _heads(self, projected: str, normed: str) -> Tensor:
        x = self.heard[normed][-1] if normed in self.heard else self._last(projected)
        x = x if x.dim() == 4 else x.unflatten(-1, (-1, self.module.head_dim))
        return x.transpose(1, 2)  # (batch, heads, time, head_dim)

    def _met(self, q: Tensor, k: Tensor, v: Tensor) -> Meeting:
        k, v = self._from_cache(k, v)
        scale = self.module.scaling * math.sqrt(q.shape[-1])  # beyond the usual division
        q = q if scale == 1 else q * scale
        time, keys, mask = q.shape[2], k.shape[2], self.call.get("attention_mask")
        if mask is None:
            return Meeting(q, k, v, causal_mask(time, keys - time, q.device))
        mask = mask[..., :keys]
        return Meeting(q, k, v, mask) if mask.dtype == torch.bool else Meeting(q, k, v, bias=mask)


class GPT2Probe(TransformersProbe):
    """transformers' GPT-2, whose queries, keys and values leave one matrix side by side."""

    parts = ("c_attn",)
    inputs = ("hidden_states", "past_key_values", "attention_mask")

    def _put_together(self) -> Meeting:
        q, k, v = (x.unflatten(-1, (-1, self.module.head_dim)).transpose(1, 2)
                   for x in self._last("c_attn").chunk(3, dim=-1))
        return self._met(q, k, v)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate coordinate i with i + head_dim / 2, as transformers and this course do."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


OURS = {MultiHeadAttention: MultiHeadProbe, LatentAttention: LatentProbe}
THEIRS = {"GPT2Attention": GPT2Probe} | dict.fromkeys(
    ("LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention"), TransformersProbe)


def probe_for(module: nn.Module) -> Probe | None:
    """A probe for an attention of this course or of transformers, None for other modules."""
    for kind, probe in OURS.items():
        if isinstance(module, kind):
            return probe(module)
    probe = THEIRS.get(type(module).__name__)
    return None if probe is None else probe(module)
