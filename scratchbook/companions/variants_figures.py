"""What stands behind chapter 02b's figures: sums, stopwatches, pictures.

Chapter:  chapters/02b_attention_variants.ipynb
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scratchbook.cache import KVCache, WindowCache
from scratchbook.config import PRESETS
from scratchbook.evaluation.comparing import mean_and_spread
from scratchbook.teaching.figures import INK, figure_svg, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("MHA", "GQA", "MQA", "latent", "window", "linear")


# ------------------------------------------------------------------------------- bytes of a cache


def cache_bytes(kind: str, *, layers: int, heads: int, kv_heads: int, head_dim: int, latent: int,
                rope: int, window: int, context: int, batch: int, size: int) -> int:
    """Bytes that a model's caches take for `context` tokens; `size` is the bytes of one number."""
    tokens = context
    if kind == "window":  # the window and the package's spare room behind it
        tokens = min(context, window - 1 + WindowCache.SLACK)
    per_token = {"MHA": 2 * heads * head_dim, "GQA": 2 * kv_heads * head_dim, "MQA": 2 * head_dim,
                 "latent": latent + rope, "window": 2 * kv_heads * head_dim, "linear": 0}[kind]
    state = heads * head_dim * (head_dim + 1) if kind == "linear" else 0
    return layers * batch * size * (per_token * tokens + state)


def kept_bytes(kinds: Mapping[str, Sequence[str]], *, heads: int, head_dim: int, window: int,
               context: int = 1024) -> dict[str, int]:
    """Bytes of the quality experiment's caches, float32: the layers of each kind added up.

    Its GQA halves the key heads, its latents hold one head size, or four when wide.
    """
    def of(layer: str) -> int:
        return cache_bytes(
            "latent" if "latent" in layer else layer, layers=1, heads=heads, head_dim=head_dim,
            window=window, kv_heads=heads // 2 if layer == "GQA" else heads, rope=head_dim // 2,
            latent=4 * head_dim if "wide" in layer else head_dim, context=context, batch=1, size=4)

    return {kind: sum(map(of, layers)) for kind, layers in kinds.items()}


def measured_bytes(cache: object) -> int:
    """What the tensors inside of a cache really take."""
    return sum(x.numel() * x.element_size() for x in tree_leaves(list(vars(cache).values()))
               if torch.is_tensor(x))


def live_data() -> dict:
    """Sizes of known models for the calculator; DeepSeek-V3's stand in its paper."""
    presets = {}
    for name, shown in (("gpt2", "GPT-2"), ("llama-3-8b", "Llama 3 8B")):
        config = PRESETS[name]
        presets[shown] = {
            "layers": config.num_layers, "heads": config.num_heads,
            "kv_heads": config.num_kv_heads, "head_dim": config.head_dim,
            "latent": 4 * config.head_dim, "rope": config.head_dim // 2, "window": 4096,
            "context": config.max_seq_len, "batch": 1, "size": 2}
    presets["DeepSeek-V3"] = {"layers": 61, "heads": 128, "kv_heads": 8, "head_dim": 128,
                              "latent": 512, "rope": 64, "window": 4096, "context": 131_072,
                              "batch": 1, "size": 2}
    presets["GPT-2"]["window"] = 256
    return {"start": "Llama 3 8B", "slack": WindowCache.SLACK, "presets": presets}


def calculator_still(data: Mapping) -> str:
    """The bars of the first preset: what the living figure shows at rest."""
    import matplotlib.pyplot as plt

    sizes = data["presets"][data["start"]]
    found = {kind: cache_bytes(kind, **sizes) / 2**30 for kind in KINDS}
    figure, ax = plt.subplots(figsize=(6.4, 2.6))
    ax.barh(list(found), list(found.values()), color=palette()[0])
    ax.invert_yaxis()
    ax.set(xlabel="GiB of cache")
    alt = (f"Cache of {data['start']} at {sizes['context']} tokens, in GiB: "
           + ", ".join(f"{kind} {value:.3f}" for kind, value in found.items()) + ".")
    svg = figure_svg(figure, alt)
    plt.close(figure)
    return svg


# ---------------------------------------------------------------------------- time, memory, slopes


def seconds(call: Callable, repeats: int = 5) -> list[float]:
    """CPU seconds of each of several calls on one thread, after one that does not count."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = []
        with torch.no_grad():
            for _ in range(repeats + 1):
                start = time.process_time()
                call()
                found.append(time.process_time() - start)
        return found[1:]
    finally:
        torch.set_num_threads(threads)


class _Held(TorchDispatchMode):
    """Keep count of the bytes that tensors hold at once, whoever made them."""

    def __init__(self) -> None:
        super().__init__()
        self.peak, self.held = 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.held = {key: kept for key, kept in self.held.items() if not kept[0].expired()}
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                self.held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self.held.values()))
        return out


def peak_bytes(call: Callable) -> int:
    """The most bytes that the tensors of a call held at the same time."""
    with torch.no_grad(), _Held() as counted:
        call()
    return counted.peak


def decode_seconds(layer: torch.nn.Module, make_cache: Callable, past: int, batch: int = 1,
                   tokens: int = 8, repeats: int = 5) -> list[float]:
    """CPU seconds for one new token behind `past` others, in several runs of `tokens` each."""
    x, cache = torch.ones(batch, 1, layer.d_model), make_cache(past + tokens)

    def write() -> None:
        for _ in range(tokens):
            layer(x, cache=cache)
        if isinstance(cache, KVCache) and not isinstance(cache, WindowCache):
            cache.truncate(past)  # the others take as much for every token, however many

    with torch.no_grad():
        for start in range(0, past, 512):  # the past goes in by pieces
            layer(x.expand(-1, min(512, past - start), -1), cache=cache)
    return [value / tokens for value in seconds(write, repeats)]


def slope(found: Mapping[int, float]) -> float:
    """The exponent p of the power law seconds = c * length ** p through the points."""
    xs, ys = [math.log(n) for n in found], [math.log(max(y, 1e-12)) for y in found.values()]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return (sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
            / sum((a - x) ** 2 for a in xs))


def middles(found: Mapping[int, Sequence[float]]) -> dict[int, float]:
    """The median of each length's runs."""
    return {int(n): median(runs) for n, runs in found.items()}


def plot_powers(panels: Mapping[str, Mapping[str, Mapping[int, float]]]) -> tuple[Figure, str]:
    """Small log-log panels, a line for each way; the legend carries the fitted slopes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(max(3.4 * len(panels), 5.0), 3.9),
                                layout="constrained", squeeze=False)
    parts = []
    for ax, (label, lines) in zip(axes[0], panels.items(), strict=True):
        for colour, marker, (name, found) in zip(palette(), "osD^vPX*", lines.items(),
                                                 strict=False):
            power = slope(found)
            ax.plot(list(found), list(found.values()), marker=marker, ms=4, color=colour,
                    label=f"{name}: {power:.2f}")
            parts.append(f"{label}, {name}: slope {power:.2f}")
        ticks = sorted({n for found in lines.values() for n in found})
        ax.set(xscale="log", yscale="log", xlabel="tokens", title=label)
        ax.set_xticks(ticks, [str(n) for n in ticks])
        ax.xaxis.minorticks_off()
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), title="slope", fontsize=8)
    return figure, "Log-log lines against length. " + "; ".join(parts) + "."


# ---------------------------------------------------------------------------------------- pictures


def plot_sharing(heads: int = 4) -> tuple[Figure, str]:
    """Query heads above, the keys and values they read below; filled: what the cache keeps."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(7.2, 2.5), layout="constrained")
    kept = palette()[0]
    for ax, (name, groups) in zip(axes, {"MHA": heads, "GQA": heads // 2, "MQA": 1,
                                         "latent": heads}.items(), strict=True):
        middle = [(j + 0.5) * heads / groups for j in range(groups)]  # where each pair stands
        for h in range(heads):
            ax.plot([h + 0.5, middle[h * groups // heads]], [2.0, 1.3], color=INK, lw=0.8, zorder=0)
            ax.text(h + 0.5, 2.1, f"q{h}", ha="center", va="bottom", fontsize=8)
        unpacked = name == "latent"
        for x in middle:
            ax.text(x, 1.1, "k v", ha="center", va="center", fontsize=8,
                    bbox={"fc": "none" if unpacked else kept, "ec": INK, "alpha": 0.55,
                          "ls": ":" if unpacked else "-"})
            if unpacked:
                ax.plot([x, heads / 2], [0.9, 0.4], color=INK, lw=0.8, ls=":", zorder=0)
        if unpacked:
            ax.text(heads / 2, 0.2, "c + turned key", ha="center", va="center", fontsize=8,
                    bbox={"fc": kept, "ec": INK, "alpha": 0.55})
        ax.set(title=name, xlim=(0, heads), ylim=(-0.1, 2.5))
        ax.axis("off")
    return figure, (
        f"Four ways to serve {heads} query heads; what the cache keeps for a word is filled. MHA: "
        f"{heads} keys and values, one for each head. GQA: {heads // 2}, each for two neighbours. "
        "MQA: one for all. Latent: one short vector c and one turned key, from which a key and a "
        "value are unpacked for each head, and not kept.")


def plot_masks(masks: Mapping[str, Tensor]) -> tuple[Figure, str]:
    """Masks side by side, filled where a query may look."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(masks), figsize=(6.8, 2.6), layout="constrained")
    parts = []
    for ax, (name, mask) in zip(axes, masks.items(), strict=True):
        ax.imshow(mask, cmap="Blues", vmin=0, vmax=1.4)
        ax.set_title(name, fontsize=9)
        ax.set(xticks=[], yticks=[])
        parts.append(f"{name}: {mask.sum().item()} of {mask.numel()} filled, the last row "
                     f"{mask[-1].sum().item()}")
    axes[0].set(xlabel="keys", ylabel="queries")
    return figure, "Masks, filled where a query may look. " + "; ".join(parts) + "."


def plot_quality(quality: Mapping[str, Sequence[float]], sizes: Mapping[str, int], context: int
                 ) -> tuple[Figure, str]:
    """Bits per byte against the bytes of a cache: every seed a dot, mean and 95 % interval."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(layout="constrained")
    parts, means = [], {name: mean_and_spread(values)[0] for name, values in quality.items()}
    for colour, marker, (name, values) in zip(palette(), "osD^vPX*", quality.items(),
                                              strict=False):
        mean, half = mean_and_spread(values)
        kib = sizes[name] / 1024
        near = [means[other] for other in quality if 0.6 < sizes[other] / sizes[name] < 1.6]
        ax.plot([kib] * len(values), values, marker, color=colour, ms=4, alpha=0.6, ls="")
        ax.errorbar([kib], [mean], [half], color=colour, capsize=4, lw=1.5)
        at = {"xytext": (0, 4), "ha": "center", "va": "bottom"}  # above the bar
        if min(near) == mean < max(near):
            at = {"xytext": (0, -4), "ha": "center", "va": "top"}
        elif mean < max(near):  # between two others
            at = {"xytext": (-6, 0), "ha": "right", "va": "center"}
        end = mean + half * {"bottom": 1, "top": -1, "center": 0}[at["va"]]
        ax.annotate(name, (kib, end), color=INK, fontsize=9, textcoords="offset points", **at)
        parts.append(f"{name} {mean:.3f} ± {half:.3f} with {kib:.0f} KiB")
    ax.set(xscale="log", xlabel=f"KiB of cache after {context:,} tokens", ylabel="bits per byte")
    ax.margins(x=0.15)
    return figure, "Bits per byte against cache size. " + "; ".join(parts) + "."


def plot_windows(found: Mapping[str, Mapping[int, Sequence[float]]]) -> tuple[Figure, str]:
    """Bits per byte against the window's size: mean and range over seeds."""
    import matplotlib.pyplot as plt

    (figure, ax), parts = plt.subplots(), []
    for colour, marker, (name, by_size) in zip(palette(), "osD^", found.items(), strict=False):
        means = [sum(values) / len(values) for values in by_size.values()]
        ax.fill_between(list(by_size), [min(v) for v in by_size.values()],
                        [max(v) for v in by_size.values()], color=colour, alpha=0.15, lw=0)
        ax.plot(list(by_size), means, marker=marker, color=colour, label=name)
        parts += [f"{name}, {n}: {mean:.3f}" for n, mean in zip(by_size, means, strict=True)]
    ax.set(xscale="log", xlabel="window, in tokens", ylabel="bits per byte")
    ax.legend()
    return figure, "Bits per byte against the window. " + "; ".join(parts) + "."
