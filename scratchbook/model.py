"""Whole transformers, put together from the parts by one config.

This is the one file that reads `ModelConfig`: every choice in it becomes a part here.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scratchbook.attention import LatentAttention, MultiHeadAttention
from scratchbook.blocks import Block
from scratchbook.cache import KVCache, WindowCache
from scratchbook.config import GATED, ModelConfig
from scratchbook.feedforward import FeedForward, GatedFeedForward
from scratchbook.norms import LayerNorm, RMSNorm
from scratchbook.positions import ALiBi, LearnedPositions, RotaryEmbedding, SinusoidalPositions

GATES = {"glu": "sigmoid", "reglu": "relu", "geglu": "gelu", "swiglu": "silu"}


class DecoderLM(nn.Module):
    """A language model: for every position, one number per token of the vocabulary.

    Shapes:   ids (batch, time) -> logits (batch, time, vocab)
    Raises:   ValueError for ids that are not integers of two axes
    Chapter:  chapters/05b_models_and_weights.ipynb
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = _position_table(config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(build_block(config) for _ in range(config.num_layers))
        self.final_norm = build_norm(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size,
                                 bias=config.bias == "all" and not config.tie_embeddings)
        if config.tie_embeddings:
            self.lm_head.weight = self.token_embedding.weight
        initialise(self, config.num_layers)

    def forward(
        self,
        ids: Tensor,
        cache: list[KVCache] | None = None,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Score every possible next token; with a cache, `ids` holds only the new ones.

        Shapes:   ids (batch, time), mask (batch, 1, 1, past + time) True = may look,
                  positions (time,) or (batch, time), counting on from the cache by default
                  -> (batch, time, vocab)
        """
        if ids.dim() != 2 or ids.is_floating_point():
            raise ValueError(f"ids must be whole numbers of shape (batch, time), not {ids.dtype} "
                             f"{tuple(ids.shape)}; one text is ids[None]")
        if positions is None:
            past = cache[0].length if cache else 0
            positions = torch.arange(past, past + ids.shape[1], device=ids.device)
        x = self.token_embedding(ids)  # (batch, time, d_model)
        x = x if self.positions is None else self.positions(x, positions)
        x = self.dropout(_as_autocast(x))
        caches = cache or [None] * len(self.blocks)
        for block, layer_cache in zip(self.blocks, caches, strict=True):
            x = block(x, mask, layer_cache, positions)
        return self.lm_head(self.final_norm(x))  # (batch, time, vocab)

    def new_cache(self, max_seq_len: int | None = None) -> list[KVCache]:
        """Room for the keys and values of `max_seq_len` tokens, one cache for each layer."""
        room = max_seq_len or self.config.max_seq_len
        window = self.config.window
        if window is not None and window < room:
            return [WindowCache(window) for _ in self.blocks]
        return [KVCache(room) for _ in self.blocks]


def _as_autocast(x: Tensor) -> Tensor:
    """Under bfloat16 autocast the whole stream is bfloat16, not its products alone."""
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return x
    wanted = torch.get_autocast_dtype(kind)
    return x.to(wanted) if wanted == torch.bfloat16 else x


class EncoderModel(nn.Module):
    """A reader: for every position a vector that knows what stands before and after it.

    The 2018 arrangement (BERT): learned places, a vector for the first or second text of a
    pair, and a norm before the first block; the config's layout is usually "post".

    Shapes:   ids (batch, time) -> vectors (batch, time, d_model)
    Paper:    Devlin et al. (2018), arXiv:1810.04805, section 3
    Chapter:  chapters/05b_models_and_weights.ipynb
    """

    def __init__(self, config: ModelConfig, segments: int = 2):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.segment_embedding = nn.Embedding(segments, config.d_model)
        self.positions = _position_table(config)
        self.embedding_norm = build_norm(config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(build_block(config, causal=False)
                                    for _ in range(config.num_layers))
        initialise(self, config.num_layers)

    def forward(self, ids: Tensor, mask: Tensor | None = None, segments: Tensor | None = None
                ) -> Tensor:
        """Read whole texts at once; `mask` hides padding.

        Shapes:   ids and segments (batch, time), mask (batch, 1, 1, time) True = may look
                  -> (batch, time, d_model)
        """
        positions = torch.arange(ids.shape[1], device=ids.device)
        segments = torch.zeros_like(ids) if segments is None else segments
        x = self.token_embedding(ids) + self.segment_embedding(segments)
        x = x if self.positions is None else self.positions(x, positions)
        x = self.dropout(self.embedding_norm(x))
        for block in self.blocks:
            x = block(x, mask, None, positions)
        return x  # (batch, time, d_model)


def build_block(config: ModelConfig, causal: bool = True) -> Block:
    """One layer as the config describes it."""
    sandwich = config.layout == "sandwich"
    return Block(
        build_attention(config, causal), build_feedforward(config), build_norm(config),
        None if config.layout == "parallel" else build_norm(config),
        layout=config.layout, dropout=config.dropout,
        attention_post_norm=build_norm(config) if sandwich else None,
        feedforward_post_norm=build_norm(config) if sandwich else None)


def build_attention(config: ModelConfig, causal: bool = True) -> nn.Module:
    """The attention of one layer, with whatever turns or norms its queries and keys."""
    if config.latent_dim is not None:
        turned = config.head_dim // 4 * 2 if config.positions == "rope" else 0
        return LatentAttention(
            config.d_model, config.num_heads, config.latent_dim, config.head_dim, turned,
            rotary=RotaryEmbedding(turned, config.rope) if turned else None,
            latent_norm=RMSNorm(config.latent_dim, config.norm_eps))
    rotary = config.positions == "rope"
    return MultiHeadAttention(
        config.d_model, config.num_heads, config.num_kv_heads,
        bias={"none": False, "qkv": "qkv", "all": True}[config.bias],
        causal=causal, head_dim=config.head_dim, window=config.window,
        rotary=RotaryEmbedding(config.head_dim, config.rope) if rotary else None,
        alibi=ALiBi(config.num_heads) if config.positions == "alibi" else None,
        q_norm=_head_norm(config), k_norm=_head_norm(config))


def _head_norm(config: ModelConfig) -> nn.Module | None:
    if not config.qk_norm:
        return None
    return RMSNorm(config.head_dim, config.norm_eps, gain=config.norm != "rms_no_gain")


def build_feedforward(config: ModelConfig) -> nn.Module:
    """The feed-forward part of one layer; dropout stands behind it, in the block."""
    bias = config.bias == "all"
    if config.feedforward in GATED:
        return GatedFeedForward(config.d_model, config.d_ff, GATES[config.feedforward], bias)
    return FeedForward(config.d_model, config.d_ff, config.feedforward, bias)


def build_norm(config: ModelConfig) -> nn.Module:
    """A norm over d_model, as the config names it."""
    if config.norm == "none":
        return nn.Identity()
    if config.norm == "layer":
        return LayerNorm(config.d_model, config.norm_eps)
    return RMSNorm(config.d_model, config.norm_eps, gain=config.norm == "rms")


def _position_table(config: ModelConfig) -> nn.Module | None:
    if config.positions == "learned":
        return LearnedPositions(config.max_seq_len, config.d_model)
    return SinusoidalPositions(config.d_model) if config.positions == "sinusoidal" else None


@torch.no_grad()
def initialise(model: nn.Module, num_layers: int, std: float = 0.02) -> None:
    """Draw the weights as GPT-2 did: normal, smaller where a layer writes to the stream.

    2 num_layers parts add to the stream; dividing what they write by the root of that number
    keeps the size of the sum where it started.

    Paper:    Radford et al. (2019), section 2.3
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            writes = name.endswith(("o_proj", "down_proj"))
            module.weight.normal_(0.0, std / math.sqrt(2 * num_layers) if writes else std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.zero_()
