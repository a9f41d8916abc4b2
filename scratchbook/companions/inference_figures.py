"""The drawing behind chapter 07b: each function returns a figure and its alt text.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scratchbook.teaching.figures import palette, table_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = "os^DvP*X<>"


def plot_reading(rows: Sequence[Mapping[str, float]]) -> tuple[Figure, str]:
    """Milliseconds to read a prompt at once and one by one, and what the roofline predicts."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    sizes = [row["tokens"] for row in rows]
    for colour, mark, key in zip(palette(), MARKS, ("at once", "one by one"), strict=False):
        ax.plot(sizes, [row[key] for row in rows], mark + "-", color=colour, label=key)
        ax.plot(sizes, [row[f"{key}, predicted"] for row in rows], ls=":", color=colour)
    ax.set(xscale="log", yscale="log", xlabel="tokens of the prompt", ylabel="milliseconds")
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.legend()
    end = rows[-1]
    return figure, (f"A prompt of {end['tokens']:.0f} tokens takes {end['at once']:.3g} ms at once "
                    f"and {end['one by one']:.3g} ms one by one; predicted "
                    f"{end['at once, predicted']:.3g} and {end['one by one, predicted']:.3g}.")


def plot_cache(rows: Sequence[Mapping[str, float]]) -> tuple[Figure, str]:
    """Tokens a second with and without a cache, at different lengths of the past."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure, ax = plt.subplots()
    past = [row["past"] for row in rows]
    for colour, mark, key in zip(palette(), MARKS, ("with cache", "without"), strict=False):
        ax.plot(past, [row[key] for row in rows], mark + "-", color=colour, label=key)
    ax.set(xscale="log", yscale="log", xlabel="tokens before the next one",
           ylabel="tokens a second")
    ax.set_xticks(past, [str(each) for each in past])
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    ax.legend()
    end = rows[-1]
    return figure, (f"Behind {end['past']} tokens {end['with cache']:.3g} tokens a second with a "
                    f"cache and {end['without']:.3g} without; behind {past[0]} token "
                    f"{rows[0]['with cache']:.3g} and {rows[0]['without']:.3g}.")


def draw_timelines(timelines: Mapping[str, Sequence[Sequence[int | None]]]) -> tuple[Figure, str]:
    """Who has which place at each step: a row for each place, a panel for each schedule."""
    import matplotlib.pyplot as plt

    longest = max(len(steps) for steps in timelines.values())
    figure, axes = plt.subplots(len(timelines), 1, figsize=(6.4, 1.5 * len(timelines)), sharex=True)
    for ax, (name, steps) in zip(axes, timelines.items(), strict=True):
        for step, places in enumerate(steps):
            for place, request in enumerate(places):
                colour = "none" if request is None else palette()[request % 8]
                ax.barh(place, 1, left=step, color=colour, edgecolor="gray", lw=0.6,
                        hatch="////" if request is None else None)
                if request is not None:
                    ax.text(step + 0.5, place, "ABCDEFGH"[request], ha="center", va="center",
                            color="white", fontsize=9)
        ax.set(yticks=range(len(steps[0])), ylabel="place", xlim=(0, longest),
               title=f"{name}: {len(steps)} steps")
        ax.invert_yaxis()
    axes[-1].set_xlabel("step")
    figure.tight_layout()
    said = "; ".join(
        f"{name}: {len(steps)} steps, {sum(r is None for s in steps for r in s)} places empty"
        for name, steps in timelines.items())
    return figure, f"Which request has which place at each step. {said}."


def plot_schedules(kinds: Mapping[str, Any]) -> tuple[Figure, str]:
    """Throughput (left) and the wait for the last token (right) against requests at once."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(8.4, 3.2))
    said = []
    panels = (("mixed", "tokens_per_second", "tokens a second, mixed"),
              ("equal", "tokens_per_second", "tokens a second, equal"),
              ("mixed", "last_p50", "median wait for the end, s"))
    for ax, (kind, key, label) in zip(axes, panels, strict=True):
        for colour, mark, (schedule, by_count) in zip(palette(), MARKS, kinds[kind].items(),
                                                      strict=False):
            counts = [int(count) for count in by_count]
            means = [sum(run[key] for run in runs) / len(runs) for runs in by_count.values()]
            ax.plot(counts, means, mark + "-", color=colour, label=schedule)
            for count, runs in zip(counts, by_count.values(), strict=True):
                ax.plot([count] * 2, [min(run[key] for run in runs), max(run[key] for run in runs)],
                        color=colour, lw=1)
            said.append(f"{label}, {schedule}: {means[-1]:.3g} at {counts[-1]}")
        ax.set(xscale="log", xlabel="requests at once", title=label, ylim=(0, None))
        ax.set_xticks(counts, [str(count) for count in counts])
        ax.minorticks_off()
    axes[0].legend()
    figure.tight_layout()
    return figure, "Three schedules. " + "; ".join(said) + "."


def plot_speedups(rows: Sequence[Mapping[str, Any]]) -> tuple[Figure, str]:
    """How many times faster with a guesser: predicted and measured, by how much it guesses."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    drafts = list(dict.fromkeys(row["draft"] for row in rows))
    for colour, mark, draft in zip(palette(), MARKS, drafts, strict=False):
        own = [row for row in rows if row["draft"] == draft]
        guesses = [row["guesses"] for row in own]
        ax.plot(guesses, [row["predicted"] for row in own], ls=":", color=colour)
        ax.plot(guesses, [row["measured"] for row in own], mark + "-", color=colour, label=draft)
    ax.axhline(1, lw=0.8, color="gray")
    ax.set(xlabel="guesses for each pass", ylabel="times as fast as without (dotted: predicted)",
           ylim=(0, None))
    ax.set_xticks(sorted({row["guesses"] for row in rows}))
    ax.legend()
    said = "; ".join(f"{row['draft']}, {row['guesses']} guesses: predicted {row['predicted']:.2f}, "
                     f"measured {row['measured']:.2f}" for row in rows)
    return figure, f"Speed against the model alone. {said}."


def plot_windows(policies: Mapping[str, Any], shown: Sequence[str], against: str = "restart",
                 failure: str = "no limit") -> tuple[Figure, str]:
    """The loss in each of ten windows (left), and some policies beside the simplest (right)."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.4))
    means = {name: [sum(each) / len(each) for each in zip(*policies[name]["losses"], strict=True)]
             for name in (against, failure, *shown)}
    places = range(1, len(means[against]) + 1)
    for mark, colour, name in (("o", "gray", against), ("X", palette()[6], failure)):
        left.plot(places, means[name], mark + "-", ms=4, color=colour, label=name)
    right.axhline(0, lw=0.8, color="gray")
    for colour, mark, name in zip(palette(), MARKS, shown, strict=False):
        gaps = [own - other for own, other in zip(means[name], means[against], strict=True)]
        right.plot(places, gaps, mark + "-", ms=4, color=colour, label=name)
    left.set(xlabel="window of the text", ylabel="loss, nats per token")
    right.set(xlabel="window of the text", ylabel=f"loss less that of {against}")
    for ax in (left, right):
        ax.set_xticks(places)
        ax.legend(ncols=2, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.tight_layout()
    said = "; ".join(f"{name}: {each[0]:.2f} in the first window, {each[-1]:.2f} in the last"
                     for name, each in means.items())
    return figure, f"Loss by window. {said}."


def scheduler_still(requests: Sequence[Sequence[int]]) -> str:
    """A table that stands in for the living scheduler where scripts are off."""
    return table_html([{"request": "ABCDEFGH"[number], "prompt, tokens": prompt,
                        "writes, tokens": new} for number, (prompt, new) in enumerate(requests)],
                      "The requests that wait at the start")
