"""What stands behind chapter 08's figures and what it computes on the page.

A function that draws returns a figure and its alternative text; the tables and sentences of the
recorded runs are in `lora_tables`.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import statistics
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from scratchbook.runtime import named_generator
from scratchbook.teaching.draws import draw
from scratchbook.teaching.figures import INK, figure_svg, palette
from scratchbook.teaching.results import results_dir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vPX"
METHODS = ("AdaLoRA", "DoRA", "rsLoRA", "LoRA", "IA3", "prefix", "BitFit")  # longest names first


class Parts(NamedTuple):
    """A matrix taken apart: left @ diag(strengths) @ right.

    Shapes:   left (out, n), strengths (n,) falling, right (n, in)
    """

    left: Tensor
    strengths: Tensor
    right: Tensor


def plain_layer(size_in: int, size_out: int, seed: int) -> nn.Linear:
    """A linear layer without bias whose numbers depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        layer = nn.Linear(size_in, size_out, bias=False)
    layer.weight.data = draw(size_out, size_in, seed=seed, name="layer") / size_in**0.5
    return layer


# --- the change that fine-tuning makes ---------------------------------------------------------


def changes(base: nn.Module, tuned: nn.Module) -> dict[str, Tensor]:
    """After minus before, for every linear layer in the blocks; path: (out, in)."""
    before = dict(base.named_modules())
    return {path: (layer.weight - before[path].weight).detach()
            for path, layer in tuned.named_modules()
            if isinstance(layer, nn.Linear) and path.startswith("blocks.")}


def taken_apart(matrices: Mapping[str, Tensor]) -> dict[str, Parts]:
    """The singular value decomposition of each."""
    return {path: Parts(*torch.linalg.svd(m, full_matrices=False)) for path, m in matrices.items()}


def held_by(strengths: Tensor) -> Tensor:
    """The share of a matrix's squared size that its first r directions hold, r = 1, 2, …"""
    squares = strengths.double().square()
    return squares.cumsum(0) / squares.sum()


def spectra(parts: Mapping[str, Parts], matrices: Mapping[str, Tensor], weights: nn.Module,
            seed: int) -> dict[str, list[float]]:
    """Mean over the layers of `held_by`: the changes, two controls, and the weights themselves."""
    layers, kinds = dict(weights.named_modules()), {"the change": [], "shuffled": [], "random": [],
                                                    "the weights": []}
    for path, matrix in matrices.items():
        order = torch.randperm(matrix.numel(), generator=named_generator(seed, path))
        shuffled = matrix.flatten()[order].view_as(matrix)
        kinds["the change"].append(held_by(parts[path].strengths))
        kinds["the weights"].append(held_by(torch.linalg.svdvals(layers[path].weight.detach())))
        for name, other in (("shuffled", shuffled),
                            ("random", draw(*matrix.shape, seed=seed, name=path))):
            kinds[name].append(held_by(torch.linalg.svdvals(other)))
    least = min(len(line) for line in kinds["the change"])
    return {name: torch.stack([line[:least] for line in lines]).mean(0).tolist()
            for name, lines in kinds.items()}


@torch.no_grad()
def with_directions(base: nn.Module, parts: Mapping[str, Parts], lora_rank: int, way: str,
                    seed: int) -> nn.Module:
    """A copy of the base with `lora_rank` directions of each change put in.

    `way` is "strongest", or "random": as many of the same directions, drawn without regard to
    their strength.
    """
    model = copy.deepcopy(base)
    layers = dict(model.named_modules())
    for path, (left, strengths, right) in parts.items():
        count = min(lora_rank, len(strengths))
        chosen = torch.arange(count)
        if way == "random":
            generator = named_generator(seed, f"directions of {path}")
            chosen = torch.randperm(len(strengths), generator=generator)[:count]
        layers[path].weight += (left[:, chosen] * strengths[chosen]) @ right[chosen]
    return model


def plot_spectra(lines: Mapping[str, Sequence[float]], ranks: Sequence[int],
                 kept: Mapping[str, Sequence[float]], before: float, after: float
                 ) -> tuple[Figure, str]:
    """Left: size held by the first r directions. Right: the task, with r directions put in."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(6.6, 3.3), layout="constrained")
    styles = ("-", "-", "--", ":")
    for colour, style, (name, line) in zip(palette(), styles, lines.items(), strict=False):
        left.semilogx(range(1, len(line) + 1), line, style, color=colour, label=name)
    left.set(xlabel="directions kept", ylabel="share of the squared size", ylim=(0, 1.02))
    left.legend(fontsize=8)
    for colour, marker, (way, line) in zip(palette(), MARKERS, kept.items(), strict=False):
        right.semilogx(ranks, line, marker=marker, ms=4, color=colour, label=f"{way} directions")
    for name, height, side in (("base", before, "bottom"), ("fine-tuned, all of it", after, "top")):
        right.axhline(height, color=INK, lw=0.8, ls=":")
        right.text(ranks[0], height, f" {name}", va=side, fontsize=8)
    room = 0.08 * abs(before - after)
    right.set_ylim(min(before, after, *sum(kept.values(), [])) - room, max(before, after) + room)
    right.set(xlabel="directions kept", ylabel="bits per byte of the answers")
    right.legend(fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.93))
    for ax in (left, right):
        ax.set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
        ax.minorticks_off()
    words = [f"{name} {line[min(7, len(line) - 1)]:.0%}" for name, line in lines.items()]
    tried = [f"{way} from {line[0]:.2f} to {line[-1]:.2f}" for way, line in kept.items()]
    return figure, (f"Share held by 8 directions: {', '.join(words)}. Bits with {ranks[0]} to "
                    f"{ranks[-1]} directions: {', '.join(tried)}; base {before:.2f}, fine-tuned "
                    f"{after:.2f}.")


def corners(base: nn.Module, matrices: Mapping[str, Tensor], by_hand: Tensor, seed: int,
            size: int = 24) -> dict[str, list[list[float]]]:
    """Matrices for the living figure, in few digits: the upper left corner of each."""
    path = next(p for p in matrices if p.endswith("q_proj"))
    weight = dict(base.named_modules())[path].weight.detach()
    chosen = {"rank two, by hand": by_hand, "a change (queries, layer 1)": matrices[path],
              "the weights it changed": weight,
              "random numbers": draw(size, size, seed=seed, name="corner")}
    return {name: _few_digits(matrix[:size, :size]) for name, matrix in chosen.items()}


def _few_digits(matrix: Tensor) -> list[list[float]]:
    most = matrix.abs().max().clamp_min(1e-12)
    return [[round(x, 3) for x in row] for row in (matrix / most).tolist()]


def rank_still(matrices: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """The living figure at rest: the singular values of its matrices."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    words = []
    for colour, marker, (name, rows) in zip(palette(), MARKERS, matrices.items(), strict=False):
        strengths = torch.linalg.svdvals(torch.tensor(rows))
        line = (strengths / strengths[0]).tolist()
        ax.plot(range(1, len(line) + 1), line, marker=marker, ms=3, color=colour, label=name)
        words.append(f"{name}: the fourth is {line[min(3, len(line) - 1)]:.2f} of the first")
    ax.set(xlabel="direction", ylabel="singular value, strongest = 1")
    ax.legend(fontsize=8)
    svg = figure_svg(figure, "Singular values. " + "; ".join(words) + ".")
    plt.close(figure)
    return svg


def rank_rows(parts: Mapping[str, Parts], share: float, budget: Mapping[str, int]) -> list[dict]:
    """For each kind of layer, fewest to most: directions that hold `share`, and of the budget."""
    kinds: dict[str, list[tuple[int, int]]] = {}
    for path, part in parts.items():
        needed = int((held_by(part.strengths) < share).sum()) + 1
        kinds.setdefault(path.rsplit(".", 1)[-1], []).append((needed, budget[path]))
    rows = []
    for kind, found in kinds.items():
        needed, given = zip(*found, strict=True)
        rows.append({"layer": kind, f"for {share:.0%}": f"{min(needed)} to {max(needed)}",
                     "median": int(statistics.median(needed)),
                     "of the budget": f"{min(given)} to {max(given)}",
                     "its median": int(statistics.median(given))})
    return rows


def kept_rows(settled: nn.Module, budget: Mapping[str, int]) -> tuple[list[dict], str]:
    """Directions that AdaLoRA left to each kind of layer beside another budget; do they agree?"""
    from scratchbook.evaluation.comparing import spearman
    from scratchbook.finetuning import lora_layers

    layers = lora_layers(settled)
    left = {path: layers[path].adapter.lora_rank if path in layers and layers[path].adapter else 0
            for path in budget}
    kinds: dict[str, list[str]] = {}
    for path in budget:
        kinds.setdefault(path.rsplit(".", 1)[-1], []).append(path)
    rows = [{"layer": kind} | {
        name: f"{min(found)} to {max(found)}, median {statistics.median(found):g}"
        for name, found in (("AdaLoRA kept", [left[path] for path in paths]),
                            ("the change's budget", [budget[path] for path in paths]))}
        for kind, paths in kinds.items()]
    rho = spearman(list(left.values()), list(budget.values()))
    return rows, (f"{sum(left.values())} directions are left; rank correlation of the two budgets "
                  f"{rho.value:+.2f} (95 %: {rho.low:+.2f} to {rho.high:+.2f})\n"
                  "(1: both put the layers in one order; near 0: the orders are unrelated)")


def in_shards(model: nn.Module, folder: Path, most: int) -> int:
    """Write a model as its published kind is: several files of at most `most` bytes, an index.

    A tensor that is larger has a file of its own. The number of files comes back.
    """
    from safetensors.torch import save_file

    from scratchbook.weights import save_pretrained

    save_pretrained(model, folder)
    (folder / "model.safetensors").unlink()
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in model.state_dict().items():
        held = sum(other.nbytes for other in shards[-1].values())
        if shards[-1] and held + tensor.nbytes > most:
            shards.append({})
        shards[-1][name] = tensor.contiguous()
    files = {f"model-{number:05}-of-{len(shards):05}.safetensors": shard
             for number, shard in enumerate(shards, start=1)}
    for file, shard in files.items():
        save_file(shard, folder / file, metadata={"format": "pt"})
    places = {name: file for file, shard in files.items() for name in shard}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return len(shards)


# --- what the page shows of its own adapters ---------------------------------------------------


def trained_rows(models: Mapping[str, tuple[nn.Module, float]]) -> list[dict]:
    """What learns in each model, what its gradients and AdamW's means take, and how it ended."""
    rows = []
    for way, (model, score) in models.items():
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        everything = sum(p.numel() for p in model.parameters())
        rows.append({"trained": way, "numbers that learn": count,
                     "share of base and adapter": f"{count / everything:.2%}",
                     "gradients and means": f"{12 * count / 1e6:,.2f} MB",
                     "bits per byte after": f"{score:.2f}"})
    return rows


def file_rows(folder: Path, base: nn.Module) -> list[dict]:
    """The size of every adapter's folder below `folder`, beside its base in float32."""
    whole = sum(4 * p.numel() for p in base.parameters())
    rows = [{"file": "the base, float32", "kB": round(whole / 1000), "share": "100%"}]
    for inner in sorted(p for p in folder.iterdir() if (p / "adapter_config.json").is_file()):
        size = sum(file.stat().st_size for file in inner.iterdir())
        rows.append({"file": f"adapter {inner.name}", "kB": round(size / 1000),
                     "share": f"{size / whole:.1%}"})
    return rows


def switch_ms(model: nn.Module, names: Sequence[str | None], rounds: int = 7) -> float:
    """The median of the CPU milliseconds that one switch of adapters takes."""
    from scratchbook.finetuning import use_adapter

    spent = []
    for number in range(rounds):
        start = time.process_time()
        use_adapter(model, names[number % len(names)])
        spent.append(1000 * (time.process_time() - start))
    return statistics.median(spent)


def refused(mistake: Callable[[], object], folder: Path, width: int = 100) -> None:
    """Print the message with which a mistake is refused; that there is one is asserted."""
    try:
        mistake()
    except ValueError as error:
        said = str(error).replace(str(folder), "FOLDER")
        print("refused:", textwrap.shorten(said, width, placeholder=" …"))
    else:
        raise AssertionError("this mistake should have been refused")


def command(main: Callable[[list[str]], int], arguments: Sequence[str], folder: Path,
            lines: int = 14) -> None:
    """Run the command line `main` with these arguments and print the last lines that it says.

    Raises:   RuntimeError when it ends with another status than 0
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = main(list(arguments))
    shown = said.getvalue().replace(str(folder), "FOLDER").splitlines()
    print(*shown[-lines:], sep="\n")
    if status:
        raise RuntimeError(f"scratchbook {arguments[0]} ended with status {status}")


def parity_rows(library: str) -> list[dict]:
    """The parity table against one library: for each method, the largest difference."""
    errors: dict[str, list[float]] = {}
    for path in sorted((results_dir() / "parity").glob(f"*-{library}.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        method = next((name for name in METHODS if name.lower() in row["component"].lower()),
                      "other")
        errors.setdefault(method, []).append(row["error"])
    return [{"method": method, "comparisons": len(errors[method]),
             "largest difference": max(errors[method])} for method in METHODS if method in errors]
