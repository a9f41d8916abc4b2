"""The drawing behind chapter 03's figures: each function returns a figure and its alternative text.

Chapter:  chapters/03_positional_encodings.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scratchbook.config import RopeSettings
from scratchbook.positions import RotaryEmbedding, alibi_slopes, scaled_frequencies, sinusoids
from scratchbook.teaching.draws import draw
from scratchbook.teaching.figures import INK, figure_svg, palette
from scratchbook.teaching.results import load_result
from scratchbook.teaching.verdicts import verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_table(table: Tensor) -> tuple[Figure, str]:
    """The sinusoids as a picture: a row for each position, a column for each coordinate."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    image = ax.imshow(table, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    ax.set(xlabel="coordinate", ylabel="position")
    figure.colorbar(image, ax=ax, label="value")
    rows, width = table.shape
    crossings = [(table[1:, c] * table[:-1, c] < 0).sum().item() for c in (0, width - 2)]
    return figure, (f"{rows} positions by {width} coordinates, sines and cosines in turn. The "
                    f"first column changes sign {crossings[0]} times, the last sine "
                    f"{crossings[1]} times.")


def distance_curves(seed: int, far: int = 129, wide: int = 64) -> dict[str, Tensor]:
    """The score of two equal vectors at each distance, under each encoding."""
    clockwork, table = sinusoids(torch.arange(far), wide), draw(far, wide, seed=seed, name="table")
    one = torch.ones(1, 1, far, wide)
    turning = RotaryEmbedding(wide)(one, torch.arange(far))[0, 0]
    return {"learned table, untrained": table @ table[0] / wide,
            "sinusoids": clockwork @ clockwork[0] / (wide / 2),
            "RoPE": turning @ turning[0] / wide, "ALiBi, slope 1/8": -torch.arange(far) / 8}


def plot_distance(curves: Mapping[str, Tensor]) -> tuple[Figure, str]:
    """What distance does to a score, one small panel for each encoding."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(6.4, 4.2), sharex=True, layout="constrained")
    parts = []
    for ax, colour, (name, curve) in zip(axes.flat, palette(), curves.items(), strict=False):
        ax.plot(range(len(curve)), curve, color=colour)
        ax.axhline(0, color=INK, lw=0.5)
        ax.set(title=name)
        parts.append(f"{name}: {curve[0]:.2f} at distance 0, {curve[8]:.2f} at 8, "
                     f"{curve[-1]:.2f} at {len(curve) - 1}")
    figure.supxlabel("distance, in tokens", size=10)
    figure.supylabel("score", size=10)
    return figure, "Scores against distance. " + "; ".join(parts) + "."


def plot_lengths(curves: Mapping[str, Mapping[int, Sequence[float]]], trained: int
                 ) -> tuple[Figure, str]:
    """Bits per byte against the length read, one line for each way, a band over the seeds."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    parts = []
    for colour, marker, (name, by_length) in zip(palette(), "osD^vPX*", curves.items(),
                                                 strict=False):
        lengths = list(by_length)
        means = [sum(v) / len(v) for v in by_length.values()]
        ax.plot(lengths, means, marker=marker, ms=4, color=colour, label=name)
        ax.fill_between(lengths, [min(v) for v in by_length.values()],
                        [max(v) for v in by_length.values()], color=colour, alpha=0.2, lw=0)
        parts.append(f"{name} {means[0]:.2f} at {lengths[0]}, {means[-1]:.2f} at {lengths[-1]}")
    ax.axvline(trained, color=INK, lw=0.8, ls=":")
    ax.set(xscale="log", xlabel="tokens read at once", ylabel="bits per byte")
    ticks = sorted({length for by_length in curves.values() for length in by_length})
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    ax.legend(ncols=2)
    return figure, (f"Bits per byte against length; trained at {trained} tokens. "
                    + "; ".join(parts) + ".")


def clock_still(i: int, j: int, speed: float) -> str:
    """Two hands of a clock: what the living figure shows at rest."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(3.2, 3.2))
    turn = [math.radians(d) for d in range(0, 361, 3)]
    ax.plot([math.cos(t) for t in turn], [math.sin(t) for t in turn], color=INK, lw=0.8)
    for colour, name, place in zip(palette(), ("query", "key"), (i, j), strict=False):
        x, y = math.cos(place * speed), math.sin(place * speed)
        ax.plot([0, x], [0, y], color=colour, lw=3)
        ax.text(1.15 * x, 1.15 * y, f"{name} at {place}", ha="center", va="center", color=colour)
    ax.set(xlim=(-1.5, 1.5), ylim=(-1.4, 1.4), aspect="equal")
    ax.axis("off")
    alt = (f"A clock with two hands: the query at position {i} and the key at {j}, "
           f"{math.degrees((i - j) * speed) % 360:.0f} degrees apart.")
    svg = figure_svg(figure, alt)
    plt.close(figure)
    return svg


def gaps_to_transformers(seed: int) -> dict[str, float]:
    """The largest difference to transformers' of turned vectors, stretched speeds and slopes."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor
    from transformers.models.llama import modeling_llama as llama

    config = LlamaConfig(hidden_size=256, num_attention_heads=4, max_position_embeddings=512)
    x, places = draw(1, 4, 300, 64, seed=seed), torch.arange(300)
    cos, sin = llama.LlamaRotaryEmbedding(config)(x, places[None])
    theirs = llama.apply_rotary_pos_emb(x, x, cos, sin)[0]
    gaps = {"RoPE, Llama": (RotaryEmbedding(64)(x, places) - theirs).abs().max().item()}
    for name in ("linear", "yarn", "llama3"):
        ours, _ = scaled_frequencies(64, RopeSettings(scaling=name, factor=4.0,
                                                      original_max_seq_len=128))
        config.rope_parameters = {
            "rope_type": name, "factor": 4.0, "rope_theta": 10_000.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 128}
        speeds, _ = ROPE_INIT_FUNCTIONS[name](config, device="cpu")
        gaps[f"{name} scaling, Llama"] = (ours - speeds).abs().max().item()
    bloom = build_alibi_tensor(torch.ones(1, 2), 12, torch.float32)[:, 0, 1]
    gaps["ALiBi slopes of 12 heads, Bloom"] = (alibi_slopes(12) - bloom).abs().max().item()
    return gaps


Curves = Mapping[str, Mapping[int, Sequence[float]]]


def length_rows(curves: Curves, trained: int, far: int) -> list[dict]:
    """A row for each encoding: bits per byte at two lengths, and whether the longer is better."""
    rows = []
    for kind, found in curves.items():
        ends = far not in found
        rows.append({
            "places": kind, f"bits per byte at {trained}": _mean(found[trained]),
            f"at {far}": "ends" if ends else _mean(found[far]),
            "the longer text is": "an error, see below" if ends else
            verdict(found[far], found[trained], "better", "worse")})
    return rows


def stretch_rows(curves: Curves, near: int, far: int) -> list[dict]:
    """A row for each scaling: bits per byte at two lengths, against linear and against none."""
    untouched = curves["RoPE as trained"][far]
    return [{"clock": name, f"at {near}": _mean(found[near]), f"at {far}": _mean(found[far]),
             f"than linear, at {near}": verdict(found[near], curves["linear"][near], "better",
                                                "worse"),
             f"than untouched, at {far}": verdict(found[far], untouched, "better", "worse")}
            for name, found in curves.items()]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def recorded_curves() -> tuple[Curves, int] | None:
    """The lines of the recorded full run, and its trained length; None when there is none."""
    try:
        numbers = load_result("03_positional_encodings").numbers
    except FileNotFoundError:
        return None
    lines = {k: v for k, v in numbers["curves"].items() if k not in ("learned", "none")}
    lines |= {f"RoPE, {name}": numbers["stretched"][name] for name in ("ntk", "yarn")}
    return ({k: {int(n): v for n, v in found.items()} for k, found in lines.items()},
            numbers["trained"])


def insight_lines(numbers: Mapping) -> list[str]:
    """The closing box: what this run found, and what the recorded full run did."""
    curves, far = numbers["curves"], str(numbers["lengths"][-1])
    trained, past_end = str(numbers["trained"]), numbers["past_end"]

    def change(kind: str) -> str:
        return verdict(curves[kind][far], curves[kind][trained], "better", "worse")

    counted = [f"{row['right']:.0%}" for row in numbers["counted"]]
    lines = [
        f"Read at {far} after {trained}: RoPE is {change('RoPE')}, ALiBi {change('ALiBi')}, "
        f"sinusoids {change('sinusoids')}.",
        f"Told no places, a causal model named {counted[0]} of them, one without a mask "
        f"{counted[1]}.",
        f"Past a table's end {_mean(past_end['second word, wrapped']):.0%} of the letters were "
        f"right with places wrapped around, {_mean(past_end['second word, cropped']):.0%} cropped."]
    try:
        recorded = load_result("03_positional_encodings")
        at_far = ", ".join(f"{kind} {_mean(found[far]):.2f}"
                           for kind, found in recorded.numbers["curves"].items() if far in found)
        lines.append(f"Trained longer, on {len(recorded.seeds)} seeds, bits per byte at {far}: "
                     f"{at_far} ({recorded.provenance()}).")
    except FileNotFoundError as missing:
        lines.append(str(missing))
    lines.append("Use it: take RoPE, know the trained length, measure before reading past it.")
    return lines
