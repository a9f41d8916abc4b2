"""The calculator of chapter 02b counts what Python counts, and Python what the tensors take."""

from __future__ import annotations

import random
from pathlib import Path

from scratchbook.cache import WindowCache
from scratchbook.companions.variants_figures import KINDS, cache_bytes, live_data
from tests.node import run_figure


def random_sizes(seed: int) -> dict:
    pick = random.Random(seed)
    kv_heads = pick.randint(1, 16)
    return {"layers": pick.randint(1, 126), "heads": kv_heads * pick.randint(1, 8),
            "kv_heads": kv_heads, "head_dim": pick.randint(1, 256), "latent": pick.randint(1, 2048),
            "rope": pick.randint(0, 128), "window": pick.randint(1, 9000),
            "context": pick.randint(1, 2**20), "batch": pick.randint(1, 64),
            "size": pick.choice([1, 2, 4])}


def test_the_javascript_equals_python(tmp_path: Path) -> None:
    sizes = [*live_data()["presets"].values(), *(random_sizes(seed) for seed in range(100))]
    cases = [{"kind": kind, "sizes": s, "slack": WindowCache.SLACK, "bytes": cache_bytes(kind, **s)}
             for s in sizes for kind in KINDS]
    assert run_figure("cache_calculator", tmp_path, cases)
