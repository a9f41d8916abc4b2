"""Chapter 05b's strangers: tiny models as transformers builds them, and folders gone wrong.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from __future__ import annotations

import json
from pathlib import Path

WEIGHTS = "model.safetensors"


def tiny_families() -> dict:
    """A small configuration of each family, with the traits that set it apart."""
    import transformers as hf

    sizes = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 128,
             "initializer_range": 0.15}
    shared = sizes | {"num_key_value_heads": 2}
    stretched = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                 "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    return {"Llama": hf.LlamaConfig(**shared),
            "Llama 3.1": hf.LlamaConfig(**shared, rope_parameters=stretched),
            "Mistral": hf.MistralConfig(**shared, sliding_window=9),
            "Qwen 2": hf.Qwen2Config(**shared),
            "Qwen 3": hf.Qwen3Config(**shared, head_dim=16),
            "BERT": hf.BertConfig(**sizes)}


def cut_short(folder: Path) -> None:
    """Lose the end of the file, as a broken download does."""
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:50_000])


def leave_a_pickle(folder: Path) -> None:
    """Only a file of the old kind is there."""
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def change_the_config(folder: Path) -> None:
    """The config describes another model than the weights."""
    path = folder / "config.json"
    entries = json.loads(path.read_text(encoding="utf-8")) | {"n_inner": 100}
    path.write_text(json.dumps(entries), encoding="utf-8")


DAMAGES = (cut_short, leave_a_pickle, change_the_config)
