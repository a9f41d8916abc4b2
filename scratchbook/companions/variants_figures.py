"""What stands behind chapter 02b's figures and tables: sums, stopwatches, pictures, verdicts.

Chapter:  chapters/02b_attention_variants.ipynb
"""

from __future__ import annotations

import json
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

from scratchbook.cache import WindowCache
from scratchbook.config import PRESETS
from scratchbook.teaching.figures import INK, figure_svg, palette
from scratchbook.teaching.results import load_result, results_dir
from scratchbook.teaching.verdicts import mean_and_spread, verdict

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


def measured_bytes(cache: object) -> int:
    """What the tensors inside of a cache really take."""
    return sum(x.numel() * x.element_size() for x in vars(cache).values() if torch.is_tensor(x))


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
        if not isinstance(cache, WindowCache):
            cache.truncate(past)

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
    parts = []
    for colour, marker, (name, values) in zip(palette(), "osD^vPX*", quality.items(),
                                              strict=False):
        mean, half = mean_and_spread(values)
        kib = sizes[name] / 1024
        ax.plot([kib] * len(values), values, marker, color=colour, ms=4, alpha=0.6, ls="")
        ax.errorbar([kib], [mean], [half], color=colour, capsize=4, lw=1.5)
        ax.annotate(f" {name}", (kib, mean), color=INK, fontsize=9, xytext=(5, 3),
                    textcoords="offset points")
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


def plot_gap(gaps: Mapping[str, Sequence[float]], window: int) -> tuple[Figure, str]:
    """How far cached results are from recomputed ones, position by position."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    parts = []
    for width, colour, (name, found) in zip((4, 1.2), palette(), gaps.items(), strict=False):
        ax.plot([max(gap, 1e-8) for gap in found], color=colour, lw=width, label=name)
        parts.append(f"{name}: at most {max(found[:window - 1]):.0e} before position "
                     f"{window - 1}, at most {max(found):.0e} in all")
    ax.axvline(window - 1, color=INK, lw=0.8, ls=":")
    ax.set(yscale="log", xlabel="position", ylabel="largest difference")
    ax.legend()
    return figure, "Cached against recomputed. " + "; ".join(parts) + "."


# -------------------------------------------------------------------------------- tables, verdicts


def backend_rows(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, want: Tensor) -> list[dict]:
    """Which of torch's kernels take which question on this device, and how far off they are."""
    import warnings

    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention as kernel

    asked = {"causal": {"is_causal": True}, "boolean mask": {"attn_mask": mask}}
    rows = []
    for label, backend in (("math", SDPBackend.MATH), ("flash", SDPBackend.FLASH_ATTENTION),
                           ("efficient", SDPBackend.EFFICIENT_ATTENTION),
                           ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        row = {"kernel": label}
        for name, options in asked.items():
            try:
                with sdpa_kernel(backend), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    gap = (kernel(q, k, v, **options) - want).abs().max().item()
                row[name] = f"yes, off by {gap:.0e}"
            except RuntimeError:
                row[name] = "not here"
        rows.append(row)
    return rows


def parity_rows() -> list[dict]:
    """This chapter's rows of the parity table, where a checkout of the book has recorded them."""
    found = [json.loads(path.read_text(encoding="utf-8"))
             for path in sorted((results_dir() / "parity").glob("*.json"))]
    return [{"part": row["component"], "against": row["against"],
             "largest difference": row["error"]}
            for row in found if "test_variants_parity" in row["test"]] or [
                {"part": "recorded in a checkout of the book only"}]


def quality_rows(quality: Mapping[str, Sequence[float]], bytes_kept: Mapping[str, int]
                 ) -> list[dict]:
    """A row for each way: bits per byte with its interval, cache, and a verdict against MHA."""
    rows = []
    for name, values in quality.items():
        mean, half = mean_and_spread(values)
        rows.append({"attention": name, "bits per byte": f"{mean:.3f} ± {half:.3f}",
                     "KiB of cache": bytes_kept[name] / 1024,
                     "than MHA": "itself" if name == "MHA" else
                     verdict(values, quality["MHA"], "better", "worse")})
    return rows


def faster(first: Sequence[float], second: Sequence[float]) -> str:
    """Who is faster, and by how much; "much" is a factor of two or more."""
    ratio = median(second) / median(first)
    word = verdict(first, second, "faster", "slower")
    much = "much " if word != "no clear difference" and not 0.5 < ratio < 2 else ""
    return f"{much}{word} ({ratio:.2f} times as fast)"


def better(numbers: Mapping, name: str) -> str:
    """A way's quality against that of MHA, in words."""
    word = verdict(numbers["quality"][name], numbers["quality"]["MHA"], "better", "worse")
    return f"{word} than MHA" if word != "no clear difference" else word


def within(value: float, low: float, high: float) -> str:
    """Whether a stated range held."""
    return "holds" if low <= value <= high else "more" if value > high else "less"


def claim_rows(numbers: Mapping) -> list[dict]:
    """Each sentence of the early notes beside what this run measured."""
    sizes, decode, prefill = (numbers[key] for key in ("bytes", "decode", "prefill"))
    last = list(decode["MHA"])[-1]
    end = {name: runs[last] for name, runs in decode.items()}
    far = list(prefill["band"])[-1]
    half, quarter, latent = (sizes["MHA"] / sizes[name] for name in
                             ("GQA, half", "GQA, quarter", "latent"))
    memory, tiles, square = (slope({int(n): b for n, b in numbers["memory"][name].items()})
                             for name in ("band", "tiles", "table"))
    quality, others = numbers["quality"], [n for n in numbers["quality"] if n != "MHA"]
    beaten = [n for n in others if verdict(quality[n], quality["MHA"]) == "higher"]
    above = [n for n in others if verdict(quality[n], quality["MHA"]) == "lower"]
    rows = [
        ("GQA: 2 to 4 times less memory", f"{half:.1f} and {quarter:.1f} times",
         "holds" if half >= 2 and quarter <= 4 else "does not hold"),
        ("GQA: faster", f"a token behind {last}", faster(end["GQA, quarter"], end["MHA"])),
        ("GQA: slightly lower quality", "bits per byte", better(numbers, "GQA")),
        ("MLA: 3 to 5 times less memory", f"{latent:.1f} times", within(latent, 3, 5)),
        ("MLA: much faster", f"a token behind {last}", faster(end["latent"], end["MHA"])),
        ("MLA: much faster", "the same for 8 texts",
         faster(numbers["decode 8"]["latent"], numbers["decode 8"]["MHA"])),
        ("MLA: good quality", "bits per byte", better(numbers, "latent")),
        ("Window: linear memory", f"slope {memory:.2f}",
         "holds" if abs(memory - 1) <= 0.15 else "does not hold"),
        ("Window: much faster", f"a prompt of {far}",
         faster(prefill["band"][far], prefill["table"][far])),
        ("Window: much faster", f"a token behind {last}", faster(end["window"], end["MHA"])),
        ("Window: good quality", "bits per byte", better(numbers, "window")),
        ("Long texts: memory squared", f"slope {square:.2f} with the table, {tiles:.2f} in tiles",
         "holds for the table" + ("" if tiles > 1.5 else " only")),
        ("Standard: best quality", f"{len(others)} others",
         f"clearly better than {len(beaten)}, clearly worse than {len(above)}"),
    ]
    return [dict(zip(("said", "measured", "verdict"), row, strict=True)) for row in rows]


def recorded_rows() -> list[dict]:
    """The same sentences under the recorded full run; a single line when there is none."""
    try:
        recorded = load_result("02b_attention_variants")
    except FileNotFoundError as missing:
        return [{"said": "not recorded", "measured": str(missing), "verdict": ""}]
    return claim_rows(recorded.numbers)


def insight_lines(numbers: Mapping) -> list[str]:
    """The closing box: what this run found, and what the recorded full run did."""
    sizes = numbers["bytes"]
    powers = {name: slope(middles(runs)) for name, runs in numbers["prefill"].items()}
    lines = [
        "Cache against MHA: " + "; ".join(
            f"{name}: 1/{sizes['MHA'] / size:.3g}" for name, size in sizes.items() if name != "MHA")
        + ".",
        "Time of a prompt grows like length to the power of "
        + ", ".join(f"{power:.2f} ({name})" for name, power in powers.items()) + ".",
        "Quality at equal parameters, against MHA: " + ", ".join(
            f"{name} {better(numbers, name).removesuffix(' than MHA')}"
            for name in numbers["quality"] if name != "MHA") + ".",
        f"A window cache that keeps one token too few raised no error, and moved results by "
        f"{numbers['off_by_one']:.1g}."]
    try:
        recorded = load_result("02b_attention_variants")
        found = recorded.numbers
        far = list(found["prefill"]["band"])[-1]
        line = ", ".join(f"{name} {mean_and_spread(values)[0]:.3f}"
                         for name, values in found["quality"].items())
        lines.append(f"Full run, {len(recorded.seeds)} seeds, prompts up to {far}: bits per byte "
                     f"{line} ({recorded.provenance()}).")
    except FileNotFoundError as missing:
        lines.append(str(missing))
    lines.append("Use it: share heads first; take a latent for very long contexts, a window "
                 "where far text is of no use.")
    return lines
