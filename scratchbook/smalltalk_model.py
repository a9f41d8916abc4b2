"""The Smalltalk models of chapter 09: their recipes, and the files of the one that ships.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from pathlib import Path

from scratchbook.config import PRESETS, ModelConfig
from scratchbook.runtime import data_dir
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer
from scratchbook.training.recipes import DataConfig, Recipe
from scratchbook.training.settings import TrainConfig

TOKENIZER = "tokenizer.json"
CORPUS = "smalltalk/packed"  # `scratchbook smalltalk train` names the real one


def _sizes(num_layers: int, d_model: int, num_heads: int) -> ModelConfig:
    """A feed-forward part two and a half times as wide as the stream, gated; a tied head."""
    return PRESETS["smalltalk-89m"].with_(
        num_layers=num_layers, d_model=d_model, num_heads=num_heads, num_kv_heads=None,
        head_dim=None, d_ff=d_model * 5 // 2)


def _for_a_gpu(model: ModelConfig, max_steps: int, grad_accum_steps: int) -> Recipe:
    return Recipe(
        model, DataConfig(CORPUS, seq_len=512),
        TrainConfig(max_steps=max_steps, batch_size=64, grad_accum_steps=grad_accum_steps,
                    optimizer="muon", lr=0.01, adamw_lr=0.001, weight_decay=0.1,
                    schedule="linear", warmup_steps=100, precision="bf16",
                    activation_checkpointing=True, eval_every=250, checkpoint_every=250),
        zero_init_residual=True)


RECIPES = {
    "small": Recipe(  # for two cores and two hours and a half
        _sizes(6, 256, 8), DataConfig(CORPUS, seq_len=256),
        TrainConfig(max_steps=5000, batch_size=16, optimizer="muon", lr=0.01, adamw_lr=0.0025,
                    weight_decay=0.1, schedule="linear", warmup_steps=20, eval_every=1000,
                    checkpoint_every=250),
        zero_init_residual=True),
    "23m": _for_a_gpu(_sizes(6, 512, 8), 6_000, 4),
    "89m": _for_a_gpu(_sizes(12, 768, 12), 12_000, 8),
}


def load_tokenizer(path: str | Path | None = None) -> SmalltalkTokenizer:
    """The shipped tokenizer, or another file that `SmalltalkTokenizer.save` wrote.

    Raises:   ValueError for a file of another kind, FileNotFoundError when there is none
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    path = data_dir() / "smalltalk_model" / TOKENIZER if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: install the package again, or name the file "
                                "of a tokenizer")
    return SmalltalkTokenizer.load(path)
