"""The living figure of chapter 05 counts what Python counts."""

from __future__ import annotations

import random
from pathlib import Path

from scratchbook import accounting
from scratchbook.companions.blocks_figures import live_data
from scratchbook.config import BIASES, FEEDFORWARDS, LAYOUTS, NORMS, POSITIONS, PRESETS, ModelConfig
from tests.node import run_figure


def random_config(seed: int) -> ModelConfig:
    """Any config: every choice that a config has, sizes up to a large model's."""
    pick = random.Random(seed)
    kv_heads, group = pick.randint(1, 8), pick.randint(1, 8)
    latent = pick.choice([None, None, pick.randint(1, 600)])
    return ModelConfig(
        vocab_size=pick.randint(1, 200_000), max_seq_len=pick.randint(1, 9000),
        num_layers=pick.randint(1, 90), d_model=pick.randint(1, 64) * kv_heads * group,
        num_heads=kv_heads * group, num_kv_heads=kv_heads, head_dim=2 * pick.randint(1, 64),
        d_ff=pick.randint(1, 20_000), feedforward=pick.choice(FEEDFORWARDS),
        norm=pick.choice(NORMS), layout=pick.choice(LAYOUTS), bias=pick.choice(BIASES),
        positions=pick.choice([p for p in POSITIONS if latent is None or p != "alibi"]),
        window=pick.choice([None, None, pick.randint(1, 5000)]) if latent is None else None,
        latent_dim=latent, qk_norm=latent is None and pick.random() < 0.5,
        tie_embeddings=pick.random() < 0.5)


def make_case(config: ModelConfig, time: int) -> dict:
    return {"config": live_data({"it": config}, "it")["presets"]["it"], "time": time,
            "counts": accounting.count_parameters(config),
            "work": accounting.forward_flops(config, time),
            "cache": accounting.kv_bytes_per_token(config, "bf16")}


def test_the_javascript_equals_python(tmp_path: Path) -> None:
    configs = [*PRESETS.values(), *(random_config(seed) for seed in range(300))]
    cases = [make_case(config, 1 + 37 * number % 2048) for number, config in enumerate(configs)]
    assert run_figure("parameters", tmp_path, cases)
