"""The figures of chapter 00: plumbing that would hide its lesson. Each says in words what it shows.

Chapter:  chapters/00_start_here.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from scratchbook.teaching.figures import palette
from scratchbook.teaching.figures import show as show_figure

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
    for (name, bits), style in zip(curves.items(), ("o-", "s--"), strict=False):
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


def forecast_bars(forecasts: Mapping[str, float], measured: float) -> dict[str, float]:
    """Forecast and measured seconds as bars; returns each forecast's error in percent."""
    import matplotlib.pyplot as plt

    errors = {name: 100 * (value / measured - 1) for name, value in forecasts.items()}
    bars = {**forecasts, "measured": measured}
    fig, ax = plt.subplots(figsize=(6.4, 2.4))
    colours = [palette()[0]] * len(forecasts) + [palette()[1]]
    ax.barh(list(bars), list(bars.values()), color=colours)
    ax.invert_yaxis()
    ax.set_xlabel("seconds of training")
    said = "; ".join(f"{name} {forecasts[name]:.1f} s ({errors[name]:+.0f} %)"
                     for name in forecasts)
    show(fig, f"Bars: forecasts of the training time by {said}; measured {measured:.1f} s.")
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


def price_bars(text: str, prices: Mapping[str, torch.Tensor], length: int = 46) -> None:
    """What each letter of `text` but the first costs two players, and where the second saves.

    Shapes:   prices (letters - 1) each, bits
    """
    import matplotlib.pyplot as plt

    (_, first), (_, second) = prices.items()
    # not from the beginning, where nobody has had anything to read yet
    show_from = text.index(" ", 90)
    part = text[show_from + 1 : show_from + 1 + length]
    fig, ax = plt.subplots(figsize=(8, 2.8))
    for (name, bits), width in zip(prices.items(), (0.9, 0.45), strict=True):
        heights = bits[show_from : show_from + len(part)].tolist()
        edges = [place + side * width / 2 for place in range(len(part)) for side in (-1, 1)]
        # one path for all bars, with gaps of height zero: sixty rectangles fill a file
        steps = [height for pair in zip(heights, [0] * len(part), strict=True) for height in pair]
        ax.stairs(steps[:-1], edges, fill=True, label=name)
    ax.set_xticks(range(len(part)), [SIGNS.get(letter, letter) for letter in part], fontsize=8)
    ax.tick_params(axis="x", bottom=False)
    ax.set(ylabel="bits")
    ax.legend()
    begins = torch.tensor([letter == " " for letter in text[:-1]])
    saved = first - second
    said = (f"saved a letter, over the paragraph: {saved[begins].mean():.2f} bits where a word "
            f"begins, {saved[~begins].mean():.2f} elsewhere")
    show(fig, f"Bars of the price of each letter of {part!r} for two players; {said}.")
    print(said)


def insights(*lines: str) -> None:
    """A box of findings at a chapter's end; the lines carry numbers that the page computed."""
    from IPython.display import HTML, display

    items = "".join(f"<li>{line}</li>" for line in lines)
    display(HTML('<div class="admonition tip"><p class="admonition-title">Insights</p>'
                 f"<ul>{items}</ul></div>"))


def verdicts(players: Sequence[Mapping], rivals: Sequence[Mapping], noise: float) -> None:
    """Say for each player which rivals it beats, loses to, or cannot be told apart from.

    Rows have "player" and "bits per byte"; a difference up to `noise` counts as none.
    """
    for player in players:
        words = []
        for rival in rivals:
            gain = rival["bits per byte"] - player["bits per byte"]
            name = rival["player"]
            if abs(gain) <= noise:
                words.append(f"no clear difference from {name}")
            else:
                words.append(f"{'beats' if gain > 0 else 'loses to'} {name} by {abs(gain):.2f}")
        print(f"{player['player']}: {'; '.join(words)}")
    print(f"(a gap of up to {noise:.3f}, twice the spread between seeds, would count as none)")
