"""What chapter 02b's tables, its Insights and its Summary say: each verdict written by numbers.

Chapter:  chapters/02b_attention_variants.ipynb
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import median

from torch import Tensor

from scratchbook.companions.variants_figures import middles, slope
from scratchbook.evaluation.comparing import mean_and_spread, verdict
from scratchbook.teaching.results import load_result, results_dir
from scratchbook.teaching.verdicts import Comparison, comparisons

Runs = Mapping[str, Sequence[float]]
COSTS = (("rows of one query", "keys copied"), ("absorbed, one word", "unpacked, one word"),
         ("absorbed, a prompt", "unpacked, a prompt"))


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


def compare_quality(quality: Runs) -> list[Comparison]:
    """Each way against plain multi-head attention, run by run."""
    return comparisons(quality, against="MHA", unit="bits per byte", low="better", high="worse")


def compare_costs(costs: Runs) -> list[Comparison]:
    """Two ways to the same result, in milliseconds: what each is said to save, measured."""
    costs = {name: [1000 * run for run in runs] for name, runs in costs.items()}
    return comparisons(costs, COSTS, unit="ms", low="faster", high="slower")


def quality_rows(quality: Runs, bytes_kept: Mapping[str, int]) -> list[dict]:
    """A row for each way: bits per byte with its interval, cache, and a verdict against MHA."""
    words = {one.name: one.word for one in compare_quality(quality)}
    rows = []
    for name, values in quality.items():
        mean, half = mean_and_spread(values)
        rows.append({"attention": name, "bits per byte": f"{mean:.3f} ± {half:.3f}",
                     "KiB of cache": bytes_kept[name] / 1024,
                     "than MHA": words.get(name, "itself")})
    return rows


def decode_line(decode: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    """One more word behind the longest past: each way against MHA, in words."""
    last = list(decode["MHA"])[-1]
    return f"Behind {last} words, beside MHA: " + "; ".join(
        f"{name} {faster(runs[last], decode['MHA'][last])}"
        for name, runs in decode.items() if name != "MHA") + "."


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
    """Each sentence said of the variants beside what this run measured."""
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
        ("Window: much faster", f"a prompt of {far}, beside the table",
         faster(prefill["band"][far], prefill["table"][far])),
        ("Window: much faster", "the same, beside torch's kernel",
         faster(prefill["band"][far], prefill["torch's kernel"][far])),
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


def recorded_caption() -> str:
    """Which run the sentences above were judged by the second time."""
    try:
        return f"The same, in the full run {load_result('02b_attention_variants').provenance()}"
    except FileNotFoundError:
        return "The same, in a full run"


def findings(numbers: Mapping) -> list[str]:
    """What a run of the chapter found, in sentences that its numbers write."""
    sizes = numbers["bytes"]
    powers = {name: slope(middles(runs)) for name, runs in numbers["prefill"].items()}
    means = ", ".join(f"{name} {mean_and_spread(values)[0]:.3f}"
                      for name, values in numbers["quality"].items())
    return [
        "Cache against MHA: " + "; ".join(
            f"{name}: 1/{sizes['MHA'] / size:.3g}" for name, size in sizes.items() if name != "MHA")
        + ".",
        "Time of a prompt grows like length to the power of "
        + ", ".join(f"{power:.2f} ({name})" for name, power in powers.items()) + ".",
        decode_line(numbers["decode"]),
        "; ".join(map(str, compare_costs(numbers["costs"]))) + ".",
        f"Bits per byte at equal parameters: {means}.",
        "Against MHA: " + ", ".join(f"{one.name} {one.word}"
                                    for one in compare_quality(numbers["quality"])) + ".",
        "A window cache that keeps one token too few raised no error, and moved results by "
        f"{numbers['off_by_one']:.1g}."]


def summary_lines(numbers: Mapping) -> list[str]:
    """Those lines of the Summary that hold a result of this run."""
    found: dict[str, list[str]] = {}
    for one in compare_quality(numbers["quality"]):
        found.setdefault(one.word, []).append(one.name)
    return [decode_line(numbers["decode"]),
            "Quality at equal parameters, against plain heads, in this short run at this size: "
            + "; ".join(f"{word}: {', '.join(names)}" for word, names in found.items()) + "."]
