"""One file that llama.cpp and its relatives read: weights in blocks, sizes and tokens beside them.

Chapter:  chapters/09d_deployment.ipynb
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from scratchbook.compression.files import check_plain
from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.bpe_files import to_visible

BLOCK = 32  # weights that share a scale
NAMES = {
    "token_embedding": "token_embd", "final_norm": "output_norm", "lm_head": "output",
    "attention.q_proj": "attn_q", "attention.k_proj": "attn_k", "attention.v_proj": "attn_v",
    "attention.o_proj": "attn_output", "feedforward.gate_proj": "ffn_gate",
    "feedforward.up_proj": "ffn_up", "feedforward.down_proj": "ffn_down",
    "attention_norm": "attn_norm", "feedforward_norm": "ffn_norm",
}
PATTERNS = {"gpt2": "gpt-2", "cl100k": "gpt-4", "o200k": "gpt-4o"}  # as llama.cpp calls them


def q8_0_blocks(weight: np.ndarray) -> np.ndarray:
    """Blocks of 32 weights as a float16 scale and 32 whole numbers from -127 to 127.

    The scale is the largest magnitude over 127; halves are rounded away from zero. The numbers
    are made by the scale before it is rounded to float16, as llama.cpp does.

    Shapes:   weight (..., n) -> (..., n / 32 * 34) bytes
    Raises:   ValueError when 32 does not divide n
    Source:   ggml-quants.c of github.com/ggml-org/llama.cpp, quantize_row_q8_0_ref
    """
    blocks = _blocks(weight)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)  # (..., n / 32, 1)
    scaled = blocks * _inverse(scale)
    size = np.abs(scaled)
    codes = np.sign(scaled) * (np.floor(size) + np.floor(2 * (size - np.floor(size))))
    return _joined(scale, codes.astype(np.int8).view(np.uint8))


def q4_0_blocks(weight: np.ndarray) -> np.ndarray:
    """Blocks of 32 weights as a float16 scale and 32 numbers from 0 to 15, two in a byte.

    The weight of the largest magnitude becomes 0, which stands for -8 times the scale: the scale
    has the opposite sign. Number i lies in the lower half of byte i, number i + 16 in the upper.

    Shapes:   weight (..., n) -> (..., n / 32 * 18) bytes
    Raises:   ValueError when 32 does not divide n
    Source:   ggml-quants.c of github.com/ggml-org/llama.cpp, quantize_row_q4_0_ref
    """
    blocks = _blocks(weight)
    place = np.abs(blocks).argmax(axis=-1, keepdims=True)
    scale = np.take_along_axis(blocks, place, axis=-1) / np.float32(-8)  # (..., n / 32, 1)
    codes = np.trunc(blocks * _inverse(scale) + np.float32(8.5)).astype(np.uint8).clip(0, 15)
    return _joined(scale, codes[..., :16] | (codes[..., 16:] << np.uint8(4)))


def _blocks(weight: np.ndarray) -> np.ndarray:
    if weight.shape[-1] % BLOCK:
        raise ValueError(f"rows of {weight.shape[-1]} weights cannot be cut into blocks of {BLOCK}")
    return weight.astype(np.float32).reshape(*weight.shape[:-1], -1, BLOCK)


def _inverse(scale: np.ndarray) -> np.ndarray:
    """One over each scale; 0 for a block of zeros."""
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)


def _joined(scale: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Each block's scale, then its codes, byte after byte."""
    halves = _halves(scale).view(np.uint8)
    return np.concatenate([halves, codes], axis=-1).reshape(*scale.shape[:-2], -1)


def _halves(numbers: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        halves = numbers.astype(np.float16)
    if np.isinf(halves).any():
        raise ValueError(f"{np.abs(numbers).max():.3g} does not fit into float16, which ends at "
                         "65,504: take F32")
    return halves


FORMATS = {"F32": lambda weight: weight.astype(np.float32),
           "F16": _halves,
           "Q8_0": q8_0_blocks, "Q4_0": q4_0_blocks}


def export_gguf(model: DecoderLM, path: str | Path, kind: str = "F16",
                tokenizer: BPETokenizer | None = None, name: str = "scratchbook") -> Path:
    """Write a Llama-like model into one GGUF file: matrices as `kind`, norms as F32.

    llama.cpp turns neighbouring coordinates of queries and keys where this package turns halves:
    the rows of q_proj and k_proj are written in that order. Norms without gains get ones.

    A token `<|endoftext|>` ends a text; without one, nothing does. Without a tokenizer the file
    holds weights alone, for readers that need no text.

    Raises:   ValueError naming what the format cannot say of this model, or rows that blocks do
              not divide; ImportError with the command that installs gguf
    Source:   the GGUF specification, github.com/ggml-org/ggml/blob/master/docs/gguf.md
    Chapter:  chapters/09d_deployment.ipynb
    """
    try:
        import gguf
    except ImportError:
        raise ImportError("a GGUF file is written by: pip install gguf") from None
    check_plain(model)
    config = model.config
    _check(config, kind, tokenizer)
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_name(name)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope.base)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_file_type(getattr(gguf.LlamaFileType, {
        "F32": "ALL_F32"}.get(kind, f"MOSTLY_{kind}")))
    if tokenizer is not None:
        _add_tokenizer(writer, gguf, tokenizer, config.vocab_size)
    for ours, tensor in _tensors(model):
        stored = kind if tensor.ndim == 2 else "F32"
        data = FORMATS[stored](tensor)
        writer.add_tensor(ours, data, raw_dtype=gguf.GGMLQuantizationType[stored])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return partial.replace(path)


def _tensors(model: DecoderLM) -> list[tuple[str, np.ndarray]]:
    config, found = model.config, []
    for name, tensor in model.state_dict().items():
        module = name.removesuffix(".weight")
        if module == "lm_head" and config.tie_embeddings:
            continue
        if module.endswith(("q_proj", "k_proj")):
            tensor = interleaved(tensor, config.head_dim)
        layer, rest = "", module
        if module.startswith("blocks."):
            _, number, rest = module.split(".", 2)
            layer = f"blk.{number}."
        found.append((f"{layer}{NAMES[rest]}.weight", _array(tensor)))
    if config.norm == "rms_no_gain":
        ones = np.ones(config.d_model, dtype=np.float32)
        norms = [f"blk.{layer}.{norm}" for layer in range(config.num_layers)
                 for norm in ("attn_norm", "ffn_norm")]
        found += [(f"{norm}.weight", ones) for norm in [*norms, "output_norm"]]
    return found


def interleaved(weight: Tensor, head_dim: int) -> Tensor:
    """The rows of each head in the order 0, h, 1, h + 1, ... with h half a head.

    Shapes:   weight (heads * head_dim, d_model) -> same
    """
    halves = weight.unflatten(0, (-1, 2, head_dim // 2))  # (heads, 2, head_dim / 2, d_model)
    return halves.transpose(1, 2).flatten(0, 2)


def _array(tensor: Tensor) -> np.ndarray:
    array = tensor.detach().float().cpu().contiguous().numpy()
    if not np.isfinite(array).all():
        raise ValueError("a weight is NaN or infinite: no format of GGUF should carry it")
    return array


def _add_tokenizer(writer: object, gguf: object, tokenizer: BPETokenizer, vocab_size: int) -> None:
    """Every token as visible characters, and the merges in their order."""
    kinds = gguf.TokenType
    special = {token_id: text for text, token_id in tokenizer.special_tokens.items()}
    ordinary = {token_id: to_visible(token) for token, token_id in tokenizer.ranks.items()}
    names = [special.get(i) or ordinary.get(i) or f"[UNUSED_{i}]" for i in range(vocab_size)]
    types = [kinds.CONTROL if i in special else kinds.NORMAL if i in ordinary else kinds.UNUSED
             for i in range(vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PATTERNS[tokenizer.pattern])
    writer.add_token_list(names)
    writer.add_token_types(types)
    writer.add_token_merges([f"{to_visible(a)} {to_visible(b)}" for a, b in tokenizer.merges])
    writer.add_add_bos_token(False)
    end = tokenizer.special_tokens.get("<|endoftext|>")
    if end is not None:  # no other special token is known to end a text
        writer.add_bos_token_id(end)
        writer.add_eos_token_id(end)


def _check(config: ModelConfig, kind: str, tokenizer: BPETokenizer | None) -> None:
    if kind not in FORMATS:
        raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(FORMATS)}")
    wanted = {"layout": ("pre",), "positions": ("rope",), "feedforward": ("swiglu",),
              "norm": ("rms", "rms_no_gain"), "bias": ("none",), "qk_norm": (False,),
              "window": (None,), "latent_dim": (None,)}
    for field, known in wanted.items():
        if getattr(config, field) not in known:
            raise ValueError(f"{field}={getattr(config, field)!r}: the llama architecture of GGUF "
                             f"has {' or '.join(map(repr, known))} only")
    if config.rope.scaling != "none":
        raise ValueError(f"rope.scaling={config.rope.scaling!r} is not written; export the model "
                         "with the length that it was trained for")
    widths = {"d_model": config.d_model, "d_ff": config.d_ff,
              "num_heads * head_dim": config.num_heads * config.head_dim}
    for field, width in widths.items() if kind.startswith("Q") else ():
        if width % BLOCK:
            raise ValueError(f"{kind} cuts rows into blocks of {BLOCK}, and {field}={width} is no "
                             "multiple of it; take F16")
    if tokenizer is None:
        return
    if not isinstance(tokenizer, BPETokenizer) or not tokenizer.merges:
        raise ValueError(f"{type(tokenizer).__name__} cannot be written: GGUF's readers know "
                         "byte-level BPE with merges, a trained BPETokenizer")
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model room for "
                         f"{config.vocab_size}: they do not belong together")
