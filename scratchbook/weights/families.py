"""How the published families write their sizes and name their tensors, one table for each.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scratchbook.config import ModelConfig, RopeSettings


@dataclass(frozen=True)
class Family:
    """One way of naming things.

    `names` maps our modules to theirs, `{}` being the number of the layer; "name[1/3]" is the
    second of three parts that were stored side by side. `transposed` lists modules whose
    weights stand the other way round. Tensors whose name holds a word of `ignored` carry
    nothing that we need.
    """

    read: Callable[[Mapping], ModelConfig]
    names: Mapping[str, str]
    prefix: str = ""
    encoder: bool = False
    transposed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = field(default=())


_GPT2_NAMES = {
    "token_embedding": "wte",
    "positions.table": "wpe",
    "blocks.{}.attention_norm": "h.{}.ln_1",
    "blocks.{}.attention.q_proj": "h.{}.attn.c_attn[0/3]",
    "blocks.{}.attention.k_proj": "h.{}.attn.c_attn[1/3]",
    "blocks.{}.attention.v_proj": "h.{}.attn.c_attn[2/3]",
    "blocks.{}.attention.o_proj": "h.{}.attn.c_proj",
    "blocks.{}.feedforward_norm": "h.{}.ln_2",
    "blocks.{}.feedforward.up_proj": "h.{}.mlp.c_fc",
    "blocks.{}.feedforward.down_proj": "h.{}.mlp.c_proj",
    "final_norm": "ln_f",
    "lm_head": "lm_head",
}

_LLAMA_NAMES = {
    "token_embedding": "embed_tokens",
    "blocks.{}.attention_norm": "layers.{}.input_layernorm",
    "blocks.{}.attention.q_proj": "layers.{}.self_attn.q_proj",
    "blocks.{}.attention.k_proj": "layers.{}.self_attn.k_proj",
    "blocks.{}.attention.v_proj": "layers.{}.self_attn.v_proj",
    "blocks.{}.attention.o_proj": "layers.{}.self_attn.o_proj",
    "blocks.{}.attention.q_norm": "layers.{}.self_attn.q_norm",
    "blocks.{}.attention.k_norm": "layers.{}.self_attn.k_norm",
    "blocks.{}.feedforward_norm": "layers.{}.post_attention_layernorm",
    "blocks.{}.feedforward.gate_proj": "layers.{}.mlp.gate_proj",
    "blocks.{}.feedforward.up_proj": "layers.{}.mlp.up_proj",
    "blocks.{}.feedforward.down_proj": "layers.{}.mlp.down_proj",
    "final_norm": "norm",
    "lm_head": "lm_head",
}

_BERT_NAMES = {
    "token_embedding": "embeddings.word_embeddings",
    "segment_embedding": "embeddings.token_type_embeddings",
    "positions.table": "embeddings.position_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "blocks.{}.attention.q_proj": "encoder.layer.{}.attention.self.query",
    "blocks.{}.attention.k_proj": "encoder.layer.{}.attention.self.key",
    "blocks.{}.attention.v_proj": "encoder.layer.{}.attention.self.value",
    "blocks.{}.attention.o_proj": "encoder.layer.{}.attention.output.dense",
    "blocks.{}.attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "blocks.{}.feedforward.up_proj": "encoder.layer.{}.intermediate.dense",
    "blocks.{}.feedforward.down_proj": "encoder.layer.{}.output.dense",
    "blocks.{}.feedforward_norm": "encoder.layer.{}.output.LayerNorm",
}

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
                "relu": "relu", "silu": "silu"}
_QWEN_USUAL = {"num_key_value_heads": 32, "use_sliding_window": False, "sliding_window": 4096,
               "max_window_layers": 28}
# how rotary positions may be stretched, and what each way needs
_ROPE_FACTORS = {"default": (), "linear": ("factor",), "yarn": ("factor",),
                 "llama3": ("factor", "low_freq_factor", "high_freq_factor")}


def read_config(entries: Mapping) -> tuple[Family, ModelConfig]:
    """Turn the entries of a config.json into a family and our config.

    Raises:   ValueError for an unknown model_type, a missing entry, or one that asks for
              something this package does not do
    """
    kind = entries.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"model_type={kind!r} is not one of those that can be read: "
                         f"{', '.join(sorted(FAMILIES))}")
    try:
        return FAMILIES[kind], FAMILIES[kind].read(entries)
    except KeyError as missing:
        raise ValueError(f"config.json of a {kind} model lacks {missing}") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"config.json of a {kind} model is malformed: {error}") from None


def _gpt2_config(entries: Mapping) -> ModelConfig:
    _refuse(entries, scale_attn_by_inverse_layer_idx=False, scale_attn_weights=True,
            add_cross_attention=False, tie_word_embeddings=True)
    return ModelConfig(
        vocab_size=entries["vocab_size"], max_seq_len=entries["n_positions"],
        num_layers=entries["n_layer"], d_model=entries["n_embd"], num_heads=entries["n_head"],
        d_ff=entries.get("n_inner"),
        feedforward=_activation(entries.get("activation_function", "gelu_new")), norm="layer",
        norm_eps=entries.get("layer_norm_epsilon", 1e-5), positions="learned", bias="all",
        tie_embeddings=True,
        dropout=entries.get("resid_pdrop", 0.1))


def _llama_config(entries: Mapping, bias: str = "none", qk_norm: bool = False,
                  usual: Mapping | None = None) -> ModelConfig:
    """`usual` is what transformers takes for an entry that the file leaves out."""
    entries = {**(usual or {}), **entries}
    _refuse(entries, attention_bias=False, mlp_bias=False, hidden_act="silu",
            partial_rotary_factor=1.0)
    return ModelConfig(
        vocab_size=entries["vocab_size"], max_seq_len=entries["max_position_embeddings"],
        num_layers=entries["num_hidden_layers"], d_model=entries["hidden_size"],
        num_heads=entries["num_attention_heads"],
        num_kv_heads=entries.get("num_key_value_heads"), head_dim=entries.get("head_dim"),
        d_ff=entries["intermediate_size"], feedforward="swiglu", norm="rms",
        norm_eps=entries.get("rms_norm_eps", 1e-6), rope=_rope(entries), bias=bias,
        qk_norm=qk_norm, window=_window(entries),
        tie_embeddings=entries.get("tie_word_embeddings", False))


def _bert_config(entries: Mapping) -> ModelConfig:
    _refuse(entries, position_embedding_type="absolute", is_decoder=False)
    return ModelConfig(
        vocab_size=entries["vocab_size"], max_seq_len=entries["max_position_embeddings"],
        num_layers=entries["num_hidden_layers"], d_model=entries["hidden_size"],
        num_heads=entries["num_attention_heads"], d_ff=entries["intermediate_size"],
        feedforward=_activation(entries.get("hidden_act", "gelu")), norm="layer",
        norm_eps=entries.get("layer_norm_eps", 1e-12), layout="post", positions="learned",
        bias="all", dropout=entries.get("hidden_dropout_prob", 0.1))


def _rope(entries: Mapping) -> RopeSettings:
    # transformers asks in this order too: an old rope_scaling hides the newer rope_parameters
    rope = entries.get("rope_scaling") or entries.get("rope_parameters") or {}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling not in _ROPE_FACTORS:
        raise ValueError(f"rope_type={scaling!r} cannot be read; {', '.join(_ROPE_FACTORS)} can")
    if nested := [name for name, value in rope.items() if isinstance(value, Mapping)]:
        raise ValueError(f"rope_parameters differ between layers ({', '.join(nested)}); only "
                         "models whose layers are all alike can be read")
    _refuse(rope, attention_factor=None, mscale=None, mscale_all_dim=None,
            partial_rotary_factor=1.0)
    if not rope.get("truncate", True):
        raise ValueError("truncate=False in rope_parameters is not supported")
    for name in _ROPE_FACTORS[scaling]:
        if rope.get(name) is None:
            raise ValueError(f"rope_type={scaling!r} needs {name}, which config.json leaves out")
    options = {name: rope[name] for name in (*_ROPE_FACTORS[scaling], "beta_fast", "beta_slow")
               if rope.get(name)}
    length = rope.get("original_max_position_embeddings", entries["max_position_embeddings"])
    return RopeSettings(
        base=rope.get("rope_theta", entries.get("rope_theta", 10_000.0)),
        scaling="none" if scaling == "default" else scaling,
        original_max_seq_len=entries.get("original_max_position_embeddings", length), **options)


def _window(entries: Mapping) -> int | None:
    kinds, window = set(entries.get("layer_types") or []), entries.get("sliding_window")
    if len(kinds) > 1 or kinds - {"full_attention", "sliding_attention"}:
        raise ValueError(f"layer_types mixes {', '.join(sorted(kinds))}; only models whose layers "
                         "are all alike, with full or sliding attention, can be read")
    if entries["model_type"].startswith("qwen"):
        window = window if entries["use_sliding_window"] else None
        first, layers = entries["max_window_layers"], entries["num_hidden_layers"]
        if not kinds and window is not None and 0 < first < layers:
            raise ValueError(f"max_window_layers={first}: the first layers have no window; only "
                             "models whose layers are all alike can be read")
        if kinds == {"full_attention"} or (not kinds and first >= layers):
            return None
    elif entries["model_type"] == "llama":
        window = None  # whatever the file says
    if kinds and (kinds == {"sliding_attention"}) != (window is not None):
        raise ValueError(f"layer_types are {kinds.pop()} and sliding_window is {window}: these "
                         "contradict each other")
    return window


def _activation(name: str) -> str:
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation {name!r} cannot be read; {', '.join(_ACTIVATIONS)} can")
    return _ACTIVATIONS[name]


def _refuse(entries: Mapping, **supported: object) -> None:
    """Stop at an entry that asks for anything but what is supported."""
    for name, value in supported.items():
        if entries.get(name, value) not in (value, None):
            raise ValueError(f"{name}={entries[name]!r} in config.json is not supported, only "
                             f"{value!r}: the model would load and answer wrongly")


_LLAMA = {"names": _LLAMA_NAMES, "prefix": "model.", "ignored": ("rotary_emb",)}
FAMILIES: dict[str, Family] = {
    "gpt2": Family(_gpt2_config, _GPT2_NAMES, "transformer.",
                   transposed=("c_attn", "c_proj", "c_fc"),
                   ignored=("attn.bias", "attn.masked_bias")),
    "llama": Family(_llama_config, **_LLAMA),
    "mistral": Family(lambda entries: _llama_config(
        entries, usual={"num_key_value_heads": 8, "sliding_window": 4096}), **_LLAMA),
    "qwen2": Family(lambda entries: _llama_config(
        entries, bias="qkv", usual=_QWEN_USUAL), **_LLAMA),
    "qwen3": Family(lambda entries: _llama_config(
        entries, qk_norm=True, usual=_QWEN_USUAL | {"head_dim": 128}), **_LLAMA),
    "bert": Family(_bert_config, _BERT_NAMES, "bert.", encoder=True,
                   ignored=("pooler", "position_ids", "cls.")),
}
