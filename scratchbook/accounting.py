"""What a model costs, from its config alone: parameters, multiplications, memory, time per token.

Nothing is built here; tests hold these sums against built models and against torch's profiler.

Chapter:  chapters/05_blocks.ipynb
"""

from __future__ import annotations

from scratchbook.config import GATED, ModelConfig

BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5}
NORMS_PER_BLOCK = {"pre": 2, "post": 2, "parallel": 1, "sandwich": 4}


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """How many numbers a `DecoderLM` of this config learns, by part; tied ones count once.

    Chapter:  chapters/05_blocks.ipynb
    """
    d, layers, biased = config.d_model, config.num_layers, config.bias == "all"
    norm = {"rms": d, "layer": 2 * d}.get(config.norm, 0)
    head = 0 if config.tie_embeddings else config.vocab_size * (d + biased)
    return {
        "token_embedding": config.vocab_size * d,
        "positions": config.max_seq_len * d if config.positions == "learned" else 0,
        "attention": layers * _attention_parameters(config),
        "feedforward": layers * _feedforward_parameters(config),
        "norms": norm * (layers * NORMS_PER_BLOCK[config.layout] + 1),
        "lm_head": head,
    }


def total_parameters(config: ModelConfig) -> int:
    """All of `count_parameters` in one number."""
    return sum(count_parameters(config).values())


def forward_flops(config: ModelConfig, seq_len: int) -> dict[str, int]:
    """Floating-point operations to read `seq_len` tokens at once, by part.

    Counted as profilers count: matrix products alone, a multiplication and an addition each,
    and attention scores for all pairs, hidden ones too (under a window, `window` keys each).

    Raises:   ValueError for seq_len below one
    Chapter:  chapters/05_blocks.ipynb
    """
    if seq_len < 1:
        raise ValueError(f"seq_len={seq_len} must be at least 1")
    seen = seq_len if config.window is None else min(seq_len, config.window)
    return {
        "attention": 2 * seq_len * config.num_layers * _projection_weights(config),
        "scores": 2 * seq_len * config.num_layers * _score_width(config) * seen,
        "feedforward": (2 * seq_len * config.num_layers * _matrices(config)
                        * config.d_model * config.d_ff),
        "lm_head": 2 * seq_len * config.vocab_size * config.d_model,
    }


def decoding_flops_per_token(config: ModelConfig, past: int = 0) -> int:
    """Operations to write one token when the keys and values of `past` others are cached."""
    one = forward_flops(config, 1)
    seen = _seen(config, past)
    return sum(one.values()) + seen * one["scores"]


def kv_bytes_per_token(config: ModelConfig, dtype: str = "bf16") -> int:
    """What every token read so far keeps in the caches of all layers, in bytes.

    Raises:   ValueError for an unknown dtype
    Chapter:  chapters/05_blocks.ipynb
    """
    if config.latent_dim is not None:
        kept = config.latent_dim + rope_part(config)
    else:
        kept = 2 * config.num_kv_heads * config.head_dim
    return round(config.num_layers * kept * _bytes(dtype))


def weight_bytes(config: ModelConfig, dtype: str) -> int:
    """The size of all weights; int8 and int4 without the scales that a real format adds.

    Raises:   ValueError for an unknown dtype
    """
    return round(total_parameters(config) * _bytes(dtype))


def tokens_per_second(config: ModelConfig, bandwidth: float, dtype: str = "bf16",
                      past: int = 0, cache_dtype: str = "bf16") -> float:
    """The most tokens one text can get while `bandwidth` bytes are read each second.

    Every token needs every matrix once, and the keys and values of the past, whose type need not
    be that of the weights. Of a table that is only looked up one row is read, which counts as
    nothing.

    Raises:   ValueError for an unknown dtype or a bandwidth that is not positive
    Chapter:  chapters/05_blocks.ipynb
    """
    if bandwidth <= 0:
        raise ValueError(f"bandwidth={bandwidth} must be positive (bytes per second)")
    parts = count_parameters(config)
    looked_up = parts["positions"] + (0 if config.tie_embeddings else parts["token_embedding"])
    read = (sum(parts.values()) - looked_up) * _bytes(dtype)
    seen = _seen(config, past)
    return bandwidth / (read + seen * kv_bytes_per_token(config, cache_dtype))


def rope_part(config: ModelConfig) -> int:
    """Latent attention turns half a head's width (an even part), in a key all heads share."""
    return config.head_dim // 4 * 2 if config.positions == "rope" else 0


def _bytes(dtype: str) -> float:
    if dtype not in BYTES:
        raise ValueError(f"dtype={dtype!r} is unknown; choose one of {', '.join(BYTES)}")
    return BYTES[dtype]


def _seen(config: ModelConfig, past: int) -> int:
    """How many of the `past` tokens the next one sees: a window holds itself and those before."""
    return past if config.window is None else min(past, config.window - 1)


def _matrices(config: ModelConfig) -> int:
    return 3 if config.feedforward in GATED else 2


def _projection_weights(config: ModelConfig) -> int:
    """The entries of one layer's attention matrices, which every token meets once."""
    d, head_dim, heads, latent = (config.d_model, config.head_dim, config.num_heads,
                                  config.latent_dim)
    if latent is None:
        # queries and output, keys and values
        return d * head_dim * (2 * heads + 2 * config.num_kv_heads)
    turned = rope_part(config)
    return (d * heads * (head_dim + turned) + d * (latent + turned)
            + latent * heads * 2 * head_dim + heads * head_dim * d)


def _score_width(config: ModelConfig) -> int:
    """Products per pair of positions: a query by a key, and a weight by a value."""
    turned = 0 if config.latent_dim is None else rope_part(config)
    return config.num_heads * (2 * config.head_dim + turned)


def _attention_parameters(config: ModelConfig) -> int:
    count, head_dim = _projection_weights(config), config.head_dim
    if config.latent_dim is not None:
        return count + config.latent_dim  # the gain of its norm
    if config.qk_norm and config.norm != "rms_no_gain":
        count += 2 * head_dim
    if config.bias != "none":
        count += (config.num_heads + 2 * config.num_kv_heads) * head_dim
    return count + (config.d_model if config.bias == "all" else 0)


def _feedforward_parameters(config: ModelConfig) -> int:
    matrices, d, d_ff = _matrices(config), config.d_model, config.d_ff
    biases = (matrices - 1) * d_ff + d if config.bias == "all" else 0
    return matrices * d * d_ff + biases
