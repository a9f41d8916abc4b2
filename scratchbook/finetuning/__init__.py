"""A trained model adapted to another task, by learning little beside it or all of it.

Chapter:  chapters/08_lora.ipynb
"""

from scratchbook.finetuning.adapters import (
    adapter_names,
    load_adapter,
    mixed,
    save_adapter,
    use_adapter,
)
from scratchbook.finetuning.lora import (
    PRESETS,
    apply_lora,
    chosen_layers,
    install,
    linear_layers,
    lora_layers,
    merge,
    unmerge,
    unwrap,
)
from scratchbook.finetuning.low_rank import DoRA, LoRALinear, LowRank

__all__ = [
    "PRESETS",
    "DoRA",
    "LoRALinear",
    "LowRank",
    "adapter_names",
    "apply_lora",
    "chosen_layers",
    "install",
    "linear_layers",
    "load_adapter",
    "lora_layers",
    "merge",
    "mixed",
    "save_adapter",
    "unmerge",
    "unwrap",
    "use_adapter",
]
