"""What chapter 09's models cost, computed and measured, and what a run says of its own size.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scratchbook.accounting import total_parameters
from scratchbook.companions.smalltalk_training import SUSTAINED, difference
from scratchbook.evaluation.comparing import Interval, bound_verdict
from scratchbook.smalltalk_model import RECIPES, load_tokenizer

CARD = "RTX 3060, 12 GB"
ON_A_PROCESSOR = "small"  # the recipe that no graphics card is meant for
MIDDLE = "the largest, in the middle of its schedule"


def cost_rows(numbers: Mapping[str, Any]) -> list[dict[str, str]]:
    """What each recipe asks for: computed for the graphics cards, measured here where it ran."""
    rows = []
    for found in numbers["cost"]:
        ran = found["recipe"] == ON_A_PROCESSOR
        rows.append({"recipe": found["recipe"], "parameters": f"{found['parameters']:,}",
                     "tokens": f"{found['tokens'] / 1e6:,.0f} million",
                     "memory, GB": f"{found['bytes'] / 1e9:.1f}",
                     "a processor here, hours": f"{numbers['predicted_cpu_seconds'] / 3600:.1f}"
                     if ran else "",
                     **{f"{name}, hours": "—" if ran else f"{hours:.2g}"
                        for name, hours in found["hours"].items()}})
    return rows


def budget_rows(numbers: Mapping[str, Any]) -> list[dict[str, str]]:
    """What was asked of memory and time on an RTX 3060, and what is computed for the two recipes.

    Bytes follow from the sizes. Hours hang on the share of the peak that the card reaches, which
    was assumed: the verdict names the share that they need.
    """
    rows = []
    for found in numbers["cost"]:
        if found["recipe"] == ON_A_PROCESSOR:
            continue
        hours, size = found["hours"][CARD], found["bytes"] / 1e9
        epoch = hours * numbers["epoch_tokens"] / found["tokens"]
        asked = [("training fits into 8 GB", size, "GB",
                  bound_verdict(Interval(size, size, size), at_most=8)),
                 ("the whole training within 24 hours", hours, "hours", needed(hours, 24)),
                 ("one epoch within 2 hours", epoch, "hours", needed(epoch, 2))]
        rows += [{"recipe": found["recipe"], "asked, on an RTX 3060": said,
                  "computed": f"{value:.2g} {unit}", "verdict": verdict}
                 for said, value, unit, verdict in asked]
    return rows


def needed(hours: float, limit: float) -> str:
    """Which share of the card's peak keeps within the limit what takes these hours at two fifths.
    """
    share = SUSTAINED * hours / limit
    return (f"met if at least {share:.0%} of the peak is reached" if share <= 1
            else "missed, even at the peak")


def rows_line(numbers: Mapping[str, Any]) -> str:
    """Why the dots stand above the curve: what the final model needs on which rows."""
    nats = numbers["by_times_read"]["nats"]
    read = ", ".join(f"{name} {row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
                     for name, row in nats.items())
    gaps = [f"{first} less {second} {_signed(difference(nats[first], nats[second]))}"
            for first, second in (("never", "once"), ("never", "more than once"),
                                  ("held-out projects", "never"))]
    return (f"{drawn_line(numbers)} The final model's nats per token on {nats['never']['rows']} "
            f"rows of each kind: {read}. Differences: {'; '.join(gaps)}. What rows never drawn "
            "need more than those read more than once was learned by heart; what other projects "
            "need more than rows never drawn is no row learned by heart, though phrases of the "
            "same projects may be.")


def drawn_line(numbers: Mapping[str, Any]) -> str:
    """How often the rows were read."""
    shares = numbers["by_times_read"]["shares"]
    return (f"Rows were drawn with replacement: {shares['never']:.0%} of them never, "
            f"{shares['more than once']:.0%} more than once.")


def _signed(found: Mapping[str, Any]) -> str:
    return (f"{found['value']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f}), "
            f"{found['verdict']}")


def size_rows(numbers: Mapping[str, Any]) -> list[dict[str, str]]:
    """Each size at the end of its run, and where the largest stood after as many operations."""
    largest = max(numbers.values(), key=lambda found: found["parameters"])
    rows = []
    for name, found in numbers.items():
        spent = found["steps"][-1] * found["flops_per_step"]
        reached = [loss for step, loss in zip(largest["steps"], largest["loss"], strict=True)
                   if step * largest["flops_per_step"] <= spent]
        middle = f"{reached[-1]:.2f}" if reached else "no step measured"
        rows.append({"size": name, "parameters": f"{found['parameters']:,}",
                     "operations": f"{spent:.1e}", "training loss": f"{found['loss'][-1]:.2f}",
                     MIDDLE: "at its end" if found is largest else middle,
                     "held out, bits per byte": f"{found['bits_per_byte']:.2f}"})
    return rows


def size_line(numbers: Mapping[str, Any]) -> str:
    """How little these short runs say."""
    largest = max(numbers, key=lambda name: numbers[name]["parameters"])
    return (f"At equal operations the smaller ones stand at the end of their decay and the largest "
            "in the middle of its own, which should flatter the smaller (not tested); and it is "
            f"one seed, {numbers[largest]['steps'][-1]} steps, and the learning rate that "
            f"was chosen for {largest}. Nothing more is read from it.")


def cost_line(numbers: Mapping[str, Any]) -> str:
    """Predicted against measured, as a sentence."""
    predicted, spent = numbers["predicted_cpu_seconds"], numbers["cpu_seconds"]
    return (f"small, {numbers['steps']:,} of {numbers['max_steps']:,} steps, "
            f"{numbers['tokens']:,} tokens: three steps, timed after the run, say "
            f"{predicted:,.0f} seconds of a processor, the run took {spent:,.0f}: "
            f"{spent / predicted - 1:+.0%}")


def range_rows() -> list[dict[str, str]]:
    """What was asked of the model's shape, and what the recipes for a graphics card have."""
    found = [RECIPES[name].with_vocabulary(load_tokenizer().vocab_size).model
             for name in ("23m", "89m")]
    asked = [("6 to 12 layers", [c.num_layers for c in found], 6, 12),
             ("512 to 768 wide", [c.d_model for c in found], 512, 768),
             ("8 to 12 heads", [c.num_heads for c in found], 8, 12),
             ("feed-forward 2.5 times as wide", [c.d_ff / c.d_model for c in found], 2.5, 2.5),
             ("about 10,000 tokens (9,000 to 11,000)", [c.vocab_size for c in found], 9e3, 11e3),
             ("under 100 million parameters", [total_parameters(c) for c in found], 0, 1e8 - 1)]
    return [{"asked": said, "23m": f"{values[0]:,}", "89m": f"{values[1]:,}",
             "verdict": "met" if all(low <= value <= high for value in values) else "missed"}
            for said, values, low, high in asked]
