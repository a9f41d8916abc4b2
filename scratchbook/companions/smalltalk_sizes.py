"""Three sizes of the Smalltalk model, each trained shortly on the same batches.

    scratchbook smalltalk pack CORPUS --output PACKED
    python -m scratchbook.companions.smalltalk_sizes PACKED     # eight minutes of a processor

What a short run says of sizes at equal steps and at equal operations; the learning rate is the
small recipe's for all of them, tuned for none, and there is one run of each.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from scratchbook.accounting import total_parameters
from scratchbook.smalltalk_model import RECIPES
from scratchbook.training import train
from scratchbook.training.planning import training_flops_per_token

STEPS, GROUP = 150, 10
SIZES = {"4 layers, 64 wide": (4, 64, 4), "4 layers, 128 wide": (4, 128, 4),
         "6 layers, 256 wide": (6, 256, 8)}


def one_size(packed: str, num_layers: int, d_model: int, num_heads: int) -> dict[str, Any]:
    """Train one size and return its curve: operations and mean loss of every ten steps."""
    small = RECIPES["small"]
    recipe = replace(
        small, data=replace(small.data, text=packed),
        model=small.model.with_(num_layers=num_layers, d_model=d_model, num_heads=num_heads,
                                num_kv_heads=None, head_dim=None, d_ff=d_model * 5 // 2),
        train=replace(small.train, max_steps=STEPS, eval_every=STEPS, precision="bf16"))
    data, tokenizer = recipe.build_data()
    recipe = recipe.with_vocabulary(tokenizer.vocab_size)
    log = train(recipe.build_model(), data, recipe.train).log
    steps = [entry for entry in log if "loss" in entry]
    groups = [steps[at:at + GROUP] for at in range(0, len(steps), GROUP)]
    tokens = recipe.train.batch_size * recipe.data.seq_len
    flops = training_flops_per_token(recipe.model, recipe.data.seq_len) * tokens
    held_out = next(entry for entry in log if "validation_loss" in entry)
    return {"parameters": total_parameters(recipe.model), "cpu_seconds": steps[-1]["cpu_seconds"],
            "flops_per_step": flops, "bits_per_byte": held_out["bits_per_byte"],
            "steps": [group[-1]["step"] for group in groups],
            "loss": [sum(entry["loss"] for entry in group) / len(group) for group in groups]}


if __name__ == "__main__":
    from scratchbook.teaching import record

    if len(sys.argv) != 2:
        sys.exit(__doc__)
    record("09_smalltalk.sizes", {name: one_size(sys.argv[1], *size)
                                  for name, size in SIZES.items()}, seeds=[0],
           command="python -m scratchbook.companions.smalltalk_sizes PACKED")
