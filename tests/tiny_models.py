"""Tiny random models of the published families, as transformers builds them."""

from __future__ import annotations

import torch

SIZES = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
         "intermediate_size": 48, "max_position_embeddings": 128}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}


def configs() -> dict:
    """A configuration of each family, with the traits that set it apart."""
    import transformers as hf

    return {
        "gpt2": hf.GPT2Config(vocab_size=99, n_positions=128, n_embd=32, n_layer=3, n_head=4),
        "llama": hf.LlamaConfig(**SIZES, num_key_value_heads=2),
        "llama 3.1": hf.LlamaConfig(**SIZES, num_key_value_heads=1, rope_parameters=LLAMA3,
                                    tie_word_embeddings=True),
        "mistral": hf.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=9),
        "qwen2": hf.Qwen2Config(**SIZES, num_key_value_heads=2),
        "qwen3": hf.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16),
        "bert": hf.BertConfig(**SIZES),
    }


def build(name: str) -> torch.nn.Module:
    """The model in float32 and eval mode, its weights large enough to make choices clear."""
    import transformers as hf

    config = configs()[name]
    config._attn_implementation = "eager"
    kind = hf.AutoModel if name == "bert" else hf.AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind.from_config(config, dtype=torch.float32).eval()
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.15)
            else:  # biases and gains too: a forgotten one must show
                torch.nn.init.normal_(weight, mean=weight.mean().item(), std=0.1)
    return model
