"""What a model is made of, as one frozen table of sizes and choices, and the models worth a name.

Only `scratchbook.model` reads a config; every part takes plain arguments.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

NORMS = ("rms", "rms_no_gain", "layer", "none")
LAYOUTS = ("pre", "post", "parallel", "sandwich")
POSITIONS = ("rope", "learned", "sinusoidal", "alibi", "none")
FEEDFORWARDS = ("relu", "gelu", "gelu_tanh", "relu2", "silu", "glu", "reglu", "geglu", "swiglu")
GATED = ("glu", "reglu", "geglu", "swiglu")
BIASES = ("none", "qkv", "all")
SCALINGS = ("none", "linear", "ntk", "yarn", "llama3")


def _choose(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{field}={value!r} is unknown; choose one of {', '.join(known)}")


def _check_types(table: object) -> None:
    """Refuse "64" or 64.0 for a whole number: a config.json may hold anything."""
    for field in fields(table):
        kind, value = field.type.removesuffix(" | None"), getattr(table, field.name)
        if value is None and kind != field.type:
            continue
        fits = type(value).__name__ == kind or (kind == "float" and type(value) is int)
        if not fits or (kind == "float" and not math.isfinite(value)):
            raise ValueError(f"{field.name}={value!r} is no {kind}")


@dataclass(frozen=True)
class RopeSettings:
    """How rotary positions turn, and how they are stretched beyond the trained length.

    `factor` is how many times longer the context becomes; `original_max_seq_len` is the length
    that the model was trained at; the other fields belong to YaRN and Llama 3.

    Raises:   ValueError for an unknown scaling or sizes that make no sense
    Chapter:  chapters/03_positional_encodings.ipynb
    """

    base: float = 10_000.0
    scaling: str = "none"
    factor: float = 1.0
    original_max_seq_len: int | None = None
    beta_fast: float = 32.0  # YaRN: pairs that turn more often than this stay as they are
    beta_slow: float = 1.0  # YaRN: pairs that turn less often than this are stretched in full
    low_freq_factor: float = 1.0  # Llama 3: the same two borders, called otherwise
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        _check_types(self)
        _choose("scaling", self.scaling, SCALINGS)
        if self.original_max_seq_len is not None and self.original_max_seq_len < 1:
            raise ValueError(f"original_max_seq_len={self.original_max_seq_len} must be positive")
        if self.base <= 1 or self.factor < 1:
            raise ValueError(f"base={self.base} must exceed 1 and factor={self.factor} be >= 1")


@dataclass(frozen=True)
class ModelConfig:
    """The sizes and choices of one transformer.

    None means "the usual": `num_kv_heads` as many as heads, `head_dim` d_model / num_heads,
    `d_ff` 4 times d_model (8/3 times, rounded up to a multiple of 8, when gated). `window` is
    how many tokens a position sees, itself included; None is all of them. `latent_dim` switches
    to latent attention, whose cache keeps that many numbers per token. With bias="all" an
    untied `lm_head` has a bias too.

    Raises:   ValueError naming the field for an unknown choice or sizes that do not fit
    Chapter:  chapters/05b_models_and_weights.ipynb
    """

    vocab_size: int
    max_seq_len: int = 1024
    num_layers: int = 6
    d_model: int = 512
    num_heads: int = 8
    num_kv_heads: int | None = None
    head_dim: int | None = None
    d_ff: int | None = None
    feedforward: str = "swiglu"
    norm: str = "rms"
    norm_eps: float = 1e-5
    layout: str = "pre"
    positions: str = "rope"
    rope: RopeSettings = RopeSettings()
    window: int | None = None
    latent_dim: int | None = None
    bias: str = "none"
    qk_norm: bool = False
    tie_embeddings: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_types(self)
        _choose("norm", self.norm, NORMS)
        _choose("layout", self.layout, LAYOUTS)
        _choose("positions", self.positions, POSITIONS)
        _choose("feedforward", self.feedforward, FEEDFORWARDS)
        _choose("bias", self.bias, BIASES)
        self._fill_in()
        self._check_sizes()

    def _fill_in(self) -> None:
        """Put the usual value where None stands, so that readers of a config meet numbers."""
        if self.num_heads < 1 or self.d_model < 1:
            raise ValueError(f"d_model={self.d_model}, num_heads={self.num_heads}: both start at 1")
        if self.head_dim is None and self.d_model % self.num_heads:
            raise ValueError(f"d_model={self.d_model} is not divisible by "
                             f"num_heads={self.num_heads}; or give head_dim")
        hidden = 4 * self.d_model
        if self.feedforward in GATED:
            hidden = -(-8 * self.d_model // 24) * 8  # 8/3, up to a multiple of 8
        for name, usual in (("num_kv_heads", self.num_heads),
                            ("head_dim", self.d_model // self.num_heads), ("d_ff", hidden)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual)

    def _check_sizes(self) -> None:
        for name in ("vocab_size", "max_seq_len", "num_layers", "num_kv_heads", "head_dim", "d_ff",
                     "window", "latent_dim"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"{name}={size} must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads={self.num_heads} is not divisible by "
                             f"num_kv_heads={self.num_kv_heads}")
        if self.positions == "rope" and self.head_dim % 2:
            raise ValueError(f"rotary positions turn pairs: head_dim={self.head_dim} must be even")
        if not 0 <= self.dropout < 1 or self.norm_eps < 0:
            raise ValueError(f"dropout={self.dropout} is not within 0..1, or norm_eps="
                             f"{self.norm_eps} is negative")
        if self.latent_dim is not None and (
                self.window is not None or self.qk_norm or self.positions == "alibi"):
            raise ValueError(f"latent_dim={self.latent_dim}: latent attention knows neither "
                             "window nor qk_norm nor positions='alibi'")

    def with_(self, **changes: object) -> ModelConfig:
        """A copy with some fields changed; sizes that follow from others stay as they are."""
        return replace(self, **changes)


def _gpt2(num_layers: int, d_model: int, num_heads: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=50_257, max_seq_len=1024, num_layers=num_layers, d_model=d_model,
        num_heads=num_heads, feedforward="gelu_tanh", norm="layer", positions="learned",
        bias="all", tie_embeddings=True, dropout=0.1)


def _plain(vocab_size: int, num_layers: int, d_model: int, num_heads: int, **changes: object
           ) -> ModelConfig:
    """Norms without gains, no biases, rotary positions: what the small models here share."""
    return ModelConfig(vocab_size=vocab_size, num_layers=num_layers, d_model=d_model,
                       num_heads=num_heads, norm="rms_no_gain", **changes)


ENCODERS: dict[str, ModelConfig] = {  # for EncoderModel: they read, and write nothing
    "minilm": ModelConfig(
        vocab_size=30_522, max_seq_len=512, num_layers=6, d_model=384, num_heads=12,
        feedforward="gelu", norm="layer", norm_eps=1e-12, layout="post", positions="learned",
        bias="all", dropout=0.1),
}

PRESETS: dict[str, ModelConfig] = {
    "tiny-1m": _plain(256, 5, 128, 4, d_ff=336, tie_embeddings=True),
    "tiny-2m": _plain(1024, 4, 192, 6, tie_embeddings=True),
    "base-10m": _plain(8192, 6, 320, 5, tie_embeddings=True),
    "gpt2": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
    "mini-27m": _plain(8192, 6, 512, 8, feedforward="gelu", dropout=0.1),
    "mini-46m": _plain(8192, 12, 512, 8, feedforward="gelu", dropout=0.1),
    "smalltalk-89m": _plain(10_000, 12, 768, 12, d_ff=1920, tie_embeddings=True),
    "char-513k": ModelConfig(
        vocab_size=200, max_seq_len=512, num_layers=2, d_model=128, num_heads=8, d_ff=512,
        feedforward="relu", norm="layer", layout="post", positions="learned", bias="all"),
    "llama-3-8b": ModelConfig(
        vocab_size=128_256, max_seq_len=8192, num_layers=32, d_model=4096, num_heads=32,
        num_kv_heads=8, d_ff=14_336, rope=RopeSettings(base=500_000.0)),
} | ENCODERS
