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
from scratchbook.finetuning.budget import METHODS, Budget, equal_budget, trainable_count
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
from scratchbook.finetuning.method_files import load_adaptation, save_adaptation
from scratchbook.finetuning.methods import bitfit, bottleneck, ia3, merge_ia3
from scratchbook.finetuning.prefix_tuning import prefix
from scratchbook.finetuning.quantized_base import (
    dequantized,
    merge_dequantized,
    qlora,
)
from scratchbook.finetuning.ranks import (
    AdaLoRA,
    RankBudget,
    apply_adalora,
    energy_rank,
    orthogonality,
    ranks_by_budget,
    ranks_by_energy,
    settle,
    weight_changes,
)
from scratchbook.finetuning.syntax_aware import apply_syntax_lora, class_shares, ranks_by_class
from scratchbook.finetuning.syntax_files import load_syntax_lora, save_syntax_lora
from scratchbook.finetuning.token_classes import token_classes

__all__ = [
    "METHODS",
    "PRESETS",
    "AdaLoRA",
    "Budget",
    "DoRA",
    "LoRALinear",
    "LowRank",
    "RankBudget",
    "adapter_names",
    "apply_adalora",
    "apply_lora",
    "apply_syntax_lora",
    "bitfit",
    "bottleneck",
    "chosen_layers",
    "class_shares",
    "dequantized",
    "energy_rank",
    "equal_budget",
    "ia3",
    "install",
    "linear_layers",
    "load_adaptation",
    "load_adapter",
    "load_syntax_lora",
    "lora_layers",
    "merge",
    "merge_dequantized",
    "merge_ia3",
    "mixed",
    "orthogonality",
    "prefix",
    "qlora",
    "ranks_by_budget",
    "ranks_by_class",
    "ranks_by_energy",
    "save_adaptation",
    "save_adapter",
    "save_syntax_lora",
    "settle",
    "token_classes",
    "trainable_count",
    "unmerge",
    "unwrap",
    "use_adapter",
    "weight_changes",
]
