"""What LoRA learns of an 8B model, counted on the meta device, beside what early notes said.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from scratchbook.config import PRESETS, ModelConfig
from scratchbook.finetuning.lora import apply_lora, chosen_layers
from scratchbook.finetuning.streaming import loading_bytes
from scratchbook.finetuning.tuning_memory import FLOAT, saved_bytes
from scratchbook.model import DecoderLM

BF16 = 2  # bytes of a number in the files


@dataclass(frozen=True)
class Count:
    """How much an adapter learns: numbers, the share of the base's, and bytes in bfloat16."""

    learned: int
    base: int

    @property
    def share(self) -> float:
        """Of the base's own parameters."""
        return self.learned / self.base

    @property
    def adapter_bytes(self) -> int:
        """Of a file with the adapter alone."""
        return BF16 * self.learned

    @property
    def base_bytes(self) -> int:
        """Of the files of the base."""
        return BF16 * self.base


def count_adapter(config: ModelConfig, targets: str | Collection[str] = ("q_proj", "v_proj"),
                  lora_rank: int = 8) -> Count:
    """Build model and adapter without memory, and count.

    >>> count_adapter(PRESETS["llama-3-8b"]).learned
    3407872

    Raises:   ValueError as `apply_lora` does
    Chapter:  chapters/08_lora.ipynb
    """
    with torch.device("meta"):
        model = DecoderLM(config)
        base = sum(p.numel() for p in model.parameters())
        apply_lora(model, targets, lora_rank)
    return Count(sum(p.numel() for p in model.parameters() if p.requires_grad), base)


def ways_to_tune(config: ModelConfig, batch: int, seq_len: int,
                 targets: str | Collection[str] = ("q_proj", "v_proj"), lora_rank: int = 8
                 ) -> dict[str, dict[str, int]]:
    """Bytes of a step of full fine-tuning, LoRA and QLoRA, part by part; nothing is allocated.

    What learns is float32, with gradients and AdamW's two means; a frozen base is bfloat16, or
    NF4 but for embedding and head, one matrix of which at a time is unpacked beside that. Saved
    tensors are float32.

    Shapes:   -> {"full" | "LoRA" | "QLoRA": {"learned": numbers, "weights": bytes, ...}}
    Chapter:  chapters/08_lora.ipynb
    """
    with torch.device("meta"):
        model = DecoderLM(config)
        ranks = dict.fromkeys(chosen_layers(model, targets), lora_rank)
    count = count_adapter(config, targets, lora_rank)
    packed = loading_bytes(config, dtype=torch.bfloat16)["model"]
    found = {}
    for way, learned, frozen in (("full", count.base, 0), ("LoRA", count.learned, count.base_bytes),
                                 ("QLoRA", count.learned, packed)):
        saved = saved_bytes(config, batch, seq_len, None if way == "full" else ranks)
        found[way] = {"learned": learned, "weights": frozen + FLOAT * learned,
                      "gradients": FLOAT * learned, "optimizer": 2 * FLOAT * learned,
                      "saved": saved}
    return found


@dataclass(frozen=True)
class Claim:
    """A number of the early notes about r=8 on q_proj and v_proj, and the counted one."""

    said: str
    claimed: float
    counted: float
    unit: str

    @property
    def factor(self) -> float:
        """How many times too large the claim is."""
        return self.claimed / self.counted


def llama_claims() -> list[Claim]:
    """The notes' numbers for Llama-3-8B, each beside the exact one; the notes disagree among
    themselves.

    Chapter:  chapters/08_lora.ipynb
    """
    count = count_adapter(PRESETS["llama-3-8b"])
    return [Claim("only about 0.1 % of the parameters learn", 0.1, 100 * count.share, "%"),
            Claim("0.5 % of the parameters learn", 0.5, 100 * count.share, "%"),
            Claim("about 40M parameters learn", 40.0, count.learned / 1e6, "million"),
            Claim("40 MB of LoRA weights", 40.0, count.adapter_bytes / 1e6, "MB in bf16"),
            Claim("16 GB of base weights", 16.0, count.base_bytes / 1e9, "GB in bf16")]
