"""The figures of chapter 00: plumbing that would hide its lesson. Each says in words what it shows.

Chapter:  chapters/00_start_here.ipynb
"""

from __future__ import annotations

import ast
import hashlib
import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING

import torch
from torch import nn

from scratchbook.teaching.conclusions import summary
from scratchbook.teaching.figures import palette, table
from scratchbook.teaching.figures import show as show_figure
from scratchbook.teaching.verdicts import Comparison, comparisons

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(figure: Figure, alt: str) -> None:
    """Show a figure with its words as text: outlines of letters would fill this chapter's file."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none"}):
        show_figure(figure, alt)


SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥"}


def pair_map(probs: torch.Tensor, letters: Sequence[str], rows: Sequence[int]) -> None:
    """Heat map of how likely each chosen letter is after each other one.

    Shapes:   probs (vocab, vocab), a row per letter before
    """
    import matplotlib.pyplot as plt

    names = [SIGNS.get(letters[row], letters[row]) for row in rows]
    places = range(len(rows))
    fig, ax = plt.subplots(figsize=(5.6, 5))
    image = ax.imshow(probs[rows][:, rows].cpu(), cmap="viridis", vmin=0, vmax=1)
    ax.set(xticks=places, yticks=places, xticklabels=names, yticklabels=names,
           xlabel="the letter that follows", ylabel="the letter before")
    ax.tick_params(labelsize=8, bottom=False, left=False)
    fig.colorbar(image, label="probability", shrink=0.8)
    sure = max(rows, key=lambda row: probs[row].max())
    follower = letters[probs[sure].argmax()]
    said = (f"surest row: {letters[sure]!r}, followed by {follower!r} with probability "
            f"{probs[sure].max():.2f}")
    show(fig, f"Heat map of the {len(rows)} commonest letters, the letter before against the one "
              f"that follows; {said}.")
    print(said)


def order_curves(orders: Sequence[int], curves: Mapping[str, Sequence[float]]) -> None:
    """Bits per byte of count tables against their order, one curve per name."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    for (name, bits), style in zip(curves.items(), ("o-", "s--", "^:"), strict=False):
        ax.plot(orders, bits, style, label=name)
    ax.set(xlabel="order: letters in a run", ylabel="bits per byte", xticks=list(orders),
           ylim=(0, None))
    ax.grid(axis="y")
    ax.legend()
    said = []
    for name, bits in curves.items():
        best, order = min(zip(bits, orders, strict=True))
        said.append(f"{name}: best {best:.2f} bits per byte, at order {order}; "
                    f"{bits[-1]:.2f} at order {orders[-1]}")
    show(fig, "Curves of bits per byte against the order of a count table. "
              + ". ".join(said) + ".")
    print("\n".join(said))


def new_runs(known: Counter, met: Counter) -> None:
    """Say what share of the runs met in one text was never met in the other."""
    new = sum(times for run, times in met.items() if run not in known)
    print(f"{new / met.total():.0%} of the unseen text's runs of {len(next(iter(met)))} are new")


def reach_map(weights: torch.Tensor) -> None:
    """What each head looks at, one small heat map per head.

    Shapes:   weights (heads, time, time)
    """
    import matplotlib.pyplot as plt

    heads, time, _ = weights.shape
    ticks = [0, time // 2, time - 1]
    fig, axes = plt.subplots(1, heads, figsize=(2 * heads, 2.5), sharey=True)
    for head, ax in enumerate(axes):
        image = ax.imshow(weights[head].cpu(), cmap="viridis", vmin=0, vmax=1)
        ax.set(title=f"head {head}", xlabel="looks at", xticks=ticks, yticks=ticks)
    axes[0].set_ylabel("position")
    fig.colorbar(image, ax=list(axes), label="weight", shrink=0.75)
    own = ", ".join(f"{weights[head, -1, -1]:.2f}" for head in range(heads))
    show(fig, f"Attention weights of {heads} heads over {time} positions; all weight lies on or "
              f"below the diagonal. The last position gives itself {own} in heads 0 to "
              f"{heads - 1}.")


def forecast_errors(forecasts: Mapping[str, float], measured: float) -> dict[str, float]:
    """Say what was forecast and measured, in seconds; returns each error in percent."""
    errors = {name: 100 * (value / measured - 1) for name, value in forecasts.items()}
    said = "; ".join(f"{name} {forecasts[name]:.1f} s ({errors[name]:+.0f} %)"
                     for name in forecasts)
    print(f"measured {measured:.1f} s; forecasts: {said}")
    return errors


def learning_curve(curve: Sequence[tuple[int, float]], rivals: Mapping[str, float]) -> None:
    """Bits per byte on unseen text while the model reads, with a line for each rival."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    ax.plot([read / 1000 for read, _ in curve], [bits for _, bits in curve], "o-",
            label="tiny transformer")
    said = []
    for place, (name, score) in enumerate(rivals.items(), start=1):
        ax.axhline(score, color=palette()[place], linestyle="--", label=name)
        passed = next((read for read, bits in curve if bits < score), None)
        said.append(f"passes the {name} ({score:.2f}) after {passed:,} letters" if passed
                    else f"does not pass the {name} ({score:.2f})")
    ax.set(xlabel="thousand letters read in training", ylabel="bits per byte on unseen text")
    ax.grid(axis="y")
    ax.legend()
    show(fig, f"Learning curve of the tiny transformer, from {curve[0][1]:.2f} to "
              f"{curve[-1][1]:.2f} bits per byte. It " + "; it ".join(said) + ".")
    print("\n".join(f"the tiny transformer {line}" for line in said))


def price_bars(text: str, prices: Mapping[str, torch.Tensor], start: int,
               length: int = 46) -> None:
    """What each letter from `start` on costs the first and the last of the players, as bars.

    Below, what every player pays on average, where a word begins and inside of words.

    Shapes:   prices (letters) each, bits, of text[1], text[2], ...
    """
    import matplotlib.pyplot as plt

    part = text[start : start + length]
    ends = list(prices.items())
    fig, ax = plt.subplots(figsize=(8, 2.8))
    for (name, bits), width in zip((ends[0], ends[-1]), (0.9, 0.45), strict=True):
        heights = bits[start - 1 : start - 1 + len(part)].tolist()
        edges = [place + side * width / 2 for place in range(len(part)) for side in (-1, 1)]
        # one path for all bars, with gaps of height zero: sixty rectangles fill a file
        steps = [height for pair in zip(heights, [0] * len(part), strict=True) for height in pair]
        ax.stairs(steps[:-1], edges, fill=True, label=name)
    ax.set_xticks(range(len(part)), [SIGNS.get(letter, letter) for letter in part], fontsize=8)
    ax.tick_params(axis="x", bottom=False)
    ax.set(ylabel="bits")
    ax.legend()
    said = word_prices(text, prices)
    show(fig, f"Bars of the price of each letter of {part!r} for two players. "
              + "; ".join(said) + ".")
    print("\n".join(said))


@torch.no_grad()
def letter_prices(model: nn.Module, ids: torch.Tensor, window: int = 256) -> torch.Tensor:
    """What each letter but the first costs the model, in bits.

    The windows overlap by half, and of all but the first the second half counts.

    Shapes:   ids (letters) -> (letters - 1)
    """
    logprobs, half = [], window // 2
    for start in range(0, len(ids) - 1, half):
        piece = ids[start : start + window + 1]
        costs = model(piece[None, :-1])[0].log_softmax(dim=-1).gather(1, piece[1:, None])
        logprobs.append(costs[half if start else 0 :])
    return -torch.cat(logprobs)[:, 0].cpu() / math.log(2)


def samples(texts: Mapping[str, str], known: Set[str], shown: int = 170) -> None:
    """Print the beginning of each text, and how many of its words are among the known ones."""
    for name, text in texts.items():
        share = sum(word in known for word in text.split()) / len(text.split())
        said = f"[{name}, {share:.0%} known] {' '.join(text[:shown].split())}"
        print(textwrap.fill(said, 84, subsequent_indent="    "))


def word_prices(text: str, prices: Mapping[str, torch.Tensor]) -> list[str]:
    """For each player, what the first letters of words and the letters inside of words cost."""
    pairs = list(zip(text, text[1:], strict=False))[: len(next(iter(prices.values())))]
    begins = torch.tensor([b.isalpha() and not a.isalpha() for a, b in pairs])
    inside = torch.tensor([b.isalpha() and a.isalpha() for a, b in pairs])
    return [f"{name}: {bits[begins].mean():.2f} bits where a word begins, "
            f"{bits[inside].mean():.2f} inside of words" for name, bits in prices.items()]


def kneser_ney_bits(training: str, test: str, order: int, vocab_size: int) -> float:
    """Bits per byte of an interpolated Kneser-Ney table: absolute discounts, counted contexts.

    Of the longest runs it counts how often they occur, of shorter ones after how many different
    letters. Each length's discount is Ney's estimate, (runs met once) / (once + 2 times twice).

    Paper:    Kneser & Ney (1995); Chen & Goodman (1999), section 3.1
    """
    def runs_of(length: int) -> Counter:
        return Counter(training[i : i + length] for i in range(len(training) - length + 1))

    counts = [Counter(run[1:] for run in runs_of(n + 1)) for n in range(1, order)]
    counts.append(runs_of(order))
    tables = []
    for runs in counts:
        contexts, kinds, seen = Counter(), Counter(), Counter(runs.values())
        for run, times in runs.items():
            contexts[run[:-1]] += times
            kinds[run[:-1]] += 1
        tables.append((runs, contexts, kinds, seen[1] / max(seen[1] + 2 * seen[2], 1)))
    bits = 0.0
    for end in range(order - 1, len(test)):
        p = 1 / vocab_size
        for length, (runs, contexts, kinds, discount) in enumerate(tables):
            run = test[end - length : end + 1]
            if not kinds[run[:-1]]:
                break
            kept = max(runs[run] - discount, 0) + discount * kinds[run[:-1]] * p
            p = kept / contexts[run[:-1]]
        bits -= math.log2(p)
    return bits / len(test[order - 1 :].encode())


FULL = "transformer, full profile"


def against_counting(bits: Sequence[float], rivals: Mapping[str, float]) -> list[Comparison]:
    """The transformer's runs against players without chance, whose score is one number."""
    runs = {FULL: bits} | {name: [score] * len(bits) for name, score in rivals.items()}
    pairs = [(FULL, name) for name in rivals]
    return comparisons(runs, pairs, unit="bits per byte", low="better", high="worse")


def _by_word(bits: Sequence[float], rivals: Mapping[str, float]) -> str:
    found: dict[str, list[str]] = {}
    for one in against_counting(bits, rivals):
        found.setdefault(one.word, []).append(one.other)
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in found.items())


def scoreboard(counted: Mapping[str, float], tiny: float, full: Mapping) -> None:
    """All players with their bits per byte, then the full profile's verdicts against the rest."""
    rows = [{"player": name, "bits per byte": bits} for name, bits in counted.items()]
    rows.append({"player": "tiny transformer, one run", "bits per byte": tiny})
    rows.append({"player": f"{FULL}: {full['parameters']:,} weights, "
                 f"{full['letters_read'] / 1e6:.0f} million letters",
                 "bits per byte": sum(full["bits"]) / len(full["bits"])})
    table(rows, caption="Bits per byte on the text from the drawer")
    if len(full["bits"]) >= 3:
        table([one.row() for one in against_counting(full["bits"], counted)],
              caption="The recorded seeds against the others")


def findings(numbers: Mapping, counted: Mapping[str, float]) -> list[str]:
    """What a run found: the transformer's score, and its verdicts against counting players."""
    bits = numbers["bits"]
    said = (f"A transformer of {numbers['parameters']:,} weights paid "
            f"{sum(bits) / len(bits):.2f} bits per byte after {numbers['letters_read']:,} letters")
    if len(bits) < 3:
        return [f"{said}; one run names no winner."]
    return [f"{said}. Against the others: {_by_word(bits, counted)}."]


def summary_line(numbers: Mapping, counted: Mapping[str, float]) -> str:
    """The line of the Summary that names a winner, if there are runs enough for one."""
    bits = numbers["bits"]
    said = ("One run of the transformer names no winner." if len(bits) < 3 else
            f"The transformer's full profile against the others: {_by_word(bits, counted)}.")
    return f"Counting well, long and short contexts together, is a strong rival. {said}"


def write_summary(numbers: Mapping, counted: Mapping[str, float]) -> None:
    """Display the chapter's Summary."""
    summary("A language model bets on what comes next; its score is the average surprise, in "
            "bits per byte.",
            "Training is betting, being surprised, and moving each weight a little downhill, "
            "many times.",
            summary_line(numbers, counted),
            "Forecast before you run: a formula says how cost grows, a few timed steps what it "
            "is here.",
            "Score on unseen text only, and count what it shares with the training text.")


def closing(errors: Mapping[str, float], share: float, table_gain: float,
            blend_gain: float) -> list[str]:
    """The last Insights: this run's forecasts and its leak."""
    missed = ", ".join(f"{name} by {abs(error):.0f} %" for name, error in errors.items())
    return [f"Forecasts of this run's time were off: {missed}.",
            f"{share:.0%} of a carelessly held-out text had been seen in training. That took "
            f"{table_gain:.2f} bits per byte off the best table's score, {blend_gain:.2f} off the "
            "blended one's.",
            "Use it: before you trust any score, look for the test text in the training text, "
            "and hold the model against counting done well."]


def code_hash(lines: Sequence[str]) -> str:
    """A hash of what the lines do: comments and line breaks do not change it."""
    return hashlib.sha256(ast.dump(ast.parse("\n".join(lines))).encode()).hexdigest()
