"""Training speed, ours in bfloat16 against the older recipe in float32, in one run and in pairs.

    python -m tests.bench.bench_training [--record]

Both read the same random ids on one thread. The older recipe is a GPT-2 block (LayerNorm with
gain, GELU, learned positions) under AdamW; ours is that of `shakespeare-char-cpu`. Seconds are
CPU seconds of whole steps, optimizer included; each figure is the median over interleaved rounds.
"""

from __future__ import annotations

import argparse
import operator
import statistics
from dataclasses import replace

import torch

from scratchbook.accounting import forward_flops, total_parameters
from scratchbook.data.batches import Windows
from scratchbook.evaluation.comparing import bound_verdict
from scratchbook.model import DecoderLM
from scratchbook.training import train
from scratchbook.training.recipes import RECIPES

SIZES = {"0.8M": {"num_layers": 4, "d_model": 128, "num_heads": 4, "max_seq_len": 64},
         "10M": {"num_layers": 6, "d_model": 384, "num_heads": 6, "max_seq_len": 256}}
ROWS_10M = 16  # at 0.8M each recipe has its own batch
TARGETS = {"0.8M": 1.3, "10M": 1.7}


def tokens_per_second(name: str, size: str, steps: int, compiled: bool = False) -> float:
    """Of one recipe at one size, over `steps` steps after a first few (and after compiling)."""
    recipe, fields = RECIPES[name], SIZES[size]
    model = replace(recipe.model, **fields, num_kv_heads=None, head_dim=None, d_ff=None)
    ids = torch.randint(model.vocab_size, (20_000,), generator=torch.Generator().manual_seed(0))
    data = Windows(ids[:15_000], ids[15_000:], fields["max_seq_len"])
    config = replace(recipe.train, max_steps=steps + 3, compile=compiled,
                     batch_size=ROWS_10M if size == "10M" else recipe.train.batch_size,
                     eval_every=10**6,
                     checkpoint_every=10**6, warmup_steps=0)
    torch.manual_seed(0)
    log = train(DecoderLM(model), _Silent(data), config).log
    steps_of = [entry for entry in log if "cpu_seconds" in entry]
    spent = steps_of[-1]["cpu_seconds"] - steps_of[2]["cpu_seconds"]
    return (steps_of[-1]["tokens"] - steps_of[2]["tokens"]) / spent


class _Silent:
    """The same batches, with a single one to validate on."""

    def __init__(self, data: Windows):
        self.batch = data.batch

    def validation(self, size: int):
        """One batch."""
        yield self.batch(0, size)


def matrix_peak(kind: torch.dtype) -> float:
    """Operations per second of one large product, on one thread."""
    import time

    a = torch.randn(1024, 1024).to(kind)
    a @ a
    start = time.process_time()
    for _ in range(8):
        a @ a
    return 8 * 2 * 1024**3 / (time.process_time() - start)


RUNNERS = {"ours": ("shakespeare-char-cpu", False),
           "ours, compiled": ("shakespeare-char-cpu", True),
           "older": ("nanogpt-char-cpu", False), "older, compiled": ("nanogpt-char-cpu", True)}


def measure(rounds: int = 5) -> dict:
    """All figures, by size. Ratios are to the older recipe as it is documented, not compiled."""
    torch.set_num_threads(1)
    found = {}
    for size, steps in (("0.8M", 25), ("10M", 2)):
        speeds: dict[str, list[float]] = {name: [] for name in RUNNERS}
        for _ in range(rounds):
            for name, (recipe, compiled) in RUNNERS.items():
                speeds[name].append(tokens_per_second(recipe, size, steps, compiled))
        ratios = {name: list(map(operator.truediv, values, speeds["older"]))
                  for name, values in speeds.items()}
        model = replace(RECIPES["shakespeare-char-cpu"].model, **SIZES[size], num_kv_heads=None,
                        head_dim=None, d_ff=None)
        time = SIZES[size]["max_seq_len"]
        flops = 3 * sum(forward_flops(model, time).values()) / time
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        best = max(medians["ours"], medians["ours, compiled"])
        found[size] = {"tokens_per_second": medians, "rounds": speeds, "target": TARGETS[size],
                       "ratios": ratios,
                       "verdict": bound_verdict(ratios["ours"], at_least=TARGETS[size]),
                       "parameters": total_parameters(model),
                       "share_of_matrix_peak": best * flops / matrix_peak(torch.bfloat16)}
    return found


def main() -> None:
    """Measure, print, and record when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write book/results")
    options = parser.parse_args()
    found = measure()
    for size, row in found.items():
        print(f"{size}: {row['parameters']:,} parameters, target {row['target']}, "
              f"{row['share_of_matrix_peak']:.0%} of the matrix peak")
        print(f"  as written, ours against the older: {row['verdict']}")
        for name, ratios in row["ratios"].items():
            print(f"  {name:16} {row['tokens_per_second'][name]:8,.0f} a second, "
                  f"{min(ratios):.2f} to {max(ratios):.2f} times")
    if options.record:
        from scratchbook.teaching import record

        record("training_speed", found, seeds=[0],
               command="python -m tests.bench.bench_training --record")


if __name__ == "__main__":
    main()
