"""What stands behind chapter 03's figures and sentences.

A function that draws returns a figure and its alternative text; `findings` writes the Insights.

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
from scratchbook.teaching.verdicts import Comparison, comparisons

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
    parts, curves = [], _numbered(curves)
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
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
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
    # theirs takes the factor from the length that is read: 512 after 128
    config.max_position_embeddings = 128
    config.rope_parameters = {"rope_type": "dynamic", "factor": 1.0, "rope_theta": 10_000.0}
    speeds, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, device="cpu", seq_len=512)
    ours, _ = scaled_frequencies(64, RopeSettings(scaling="ntk", factor=4.0))
    gaps["ntk scaling, Llama's dynamic"] = (ours - speeds).abs().max().item()
    bloom = build_alibi_tensor(torch.ones(1, 2), 12, torch.float32)[:, 0, 1]
    gaps["ALiBi slopes of 12 heads, Bloom"] = (alibi_slopes(12) - bloom).abs().max().item()
    return gaps


Runs = Mapping[str, Sequence[float]]
Curves = Mapping[str, Mapping[int, Sequence[float]]]
BITS = "bits per byte"
AT_HOME = (("learned", "none"), ("sinusoids", "none"), ("ALiBi", "none"), ("RoPE", "none"),
           ("RoPE", "ALiBi"), ("RoPE", "learned"), ("learned, loud", "learned"))


def _numbered(curves: Mapping) -> Curves:
    """The same with lengths as numbers, which JSON makes into text."""
    return {kind: {int(n): v for n, v in found.items()} for kind, found in curves.items()}


def _better(name: str, other: str, first: Sequence[float], second: Sequence[float]) -> Comparison:
    return Comparison(name, other, first, second, unit=BITS, low="better", high="worse")


def _beside(first: Sequence[float], second: Sequence[float]) -> str:
    found = _better("", "", first, second)
    return f"{found.word} ({found.gap})"


def compare_at_home(curves: Mapping, trained: int) -> list[Comparison]:
    """The encodings held against each other at the length that all were trained on."""
    return comparisons({kind: found[trained] for kind, found in _numbered(curves).items()},
                       AT_HOME, unit=BITS, low="better", high="worse")


def length_rows(curves: Mapping, nearby: Runs, trained: int, far: int) -> list[dict]:
    """A row for each encoding: what a longer text does, and what its far keys have to do with it.

    `nearby` was read at the longer length too, each guess looking back no further than `trained`.
    """
    rows = []
    for kind, found in _numbered(curves).items():
        ends = far not in found
        rows.append({
            "places": kind, f"at {trained}": _mean(found[trained]),
            f"at {far}": "ends" if ends else _mean(found[far]),
            "the longer text is": "an error" if ends else _beside(found[far], found[trained]),
            f"at {far}, last {trained} keys": "" if ends else _mean(nearby[kind]),
            "without far keys it is": "" if ends else _beside(nearby[kind], found[far])})
    return rows


def stretch_rows(curves: Mapping, at_home: Runs, trained: int, far: int) -> list[dict]:
    """A row for each scaling: what it does at the longer length, and to a text of the old one.

    `at_home` was read at the trained length by clocks stretched for the longer one.
    """
    curves = _numbered(curves)
    plain = curves["RoPE as trained"]
    return [{"clock": name, f"at {far}": _mean(found[far]),
             f"than as trained, at {far}": _beside(found[far], plain[far]),
             f"at {trained}": _mean(at_home[name]),
             f"than as trained, at {trained}": _beside(at_home[name], plain[trained])}
            for name, found in curves.items() if found is not plain]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def recorded_run() -> Mapping | None:
    """The numbers of the recorded full run; None when there is none, or an older one."""
    try:
        numbers = load_result("03_positional_encodings").numbers
    except FileNotFoundError:
        return None
    return numbers if "nearby" in numbers else None


def recorded_lines(numbers: Mapping) -> Curves:
    """The lines of the recorded run worth a picture: the encodings without a table's end."""
    lines = {k: v for k, v in numbers["curves"].items() if k != "learned"}
    return lines | {f"RoPE, {name}": numbers["stretched"][name] for name in ("ntk", "yarn")}


def findings(numbers: Mapping) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    trained, far = numbers["trained"], numbers["lengths"][-1]
    past_end = numbers["past_end"]
    home = "; ".join(str(one) for one in compare_at_home(numbers["curves"], trained))
    rows = length_rows(numbers["curves"], numbers["nearby"], trained, far)
    longer = "; ".join(f"{row['places']} {row['the longer text is']}" for row in rows
                       if row["without far keys it is"])
    nearer = "; ".join(f"{row['places']} {row['without far keys it is']}" for row in rows
                       if row["without far keys it is"])
    stretched = stretch_rows(numbers["stretched"], numbers["at_home"], trained, far)
    there, here = ("; ".join(f"{row['clock']} {row[f'than as trained, at {n}']}"
                             for row in stretched) for n in (far, trained))
    return [
        f"At the trained length of {trained}: {home}.",
        f"Read at {far} instead: {longer}.",
        f"Read at {far}, the keys further back than {trained} taken away: {nearer}.",
        f"Clocks stretched for {far}, against the clock as trained: at {far} {there}; at "
        f"{trained} {here}.",
        f"Past a table's end {_mean(past_end['second word, wrapped']):.0%} of the letters were "
        f"right with places wrapped around, {_mean(past_end['second word, cropped']):.0%} "
        "cropped."]


def summary_lines(numbers: Mapping) -> list[str]:
    """Those lines of the Summary that hold a result of this run."""
    trained, far = numbers["trained"], numbers["lengths"][-1]
    home = [one for one in compare_at_home(numbers["curves"], trained) if one.other == "none"]
    rows = length_rows(numbers["curves"], numbers["nearby"], trained, far)
    return [
        "At the trained length, beside a model that is told nothing: "
        + ", ".join(f"{one.name} {one.word}" for one in home) + ".",
        f"At {far // trained} times that length, beside itself: "
        + ", ".join(f"{row['places']} {row['the longer text is'].split(' (')[0]}"
                    for row in rows if row["without far keys it is"]) + ". The table ends."]
