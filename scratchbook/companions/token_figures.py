"""The drawings of chapters/01_tokenization.ipynb: each takes computed numbers and shows them.

What a figure says (who wins, which language pays most) is worked out here from the numbers, with
"no clear difference" among the outcomes, and serves as the figure's text alternative as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

from scratchbook.teaching.figures import palette, show, table, table_html
from scratchbook.teaching.live_figures import living
from scratchbook.teaching.results import load_result
from scratchbook.teaching.themes import dressed

GREY = "#888888"


def recorded(name: str, command: str) -> dict | None:
    """The numbers of a recorded result, or None; a line says where they come from, or could."""
    try:
        result = load_result(name)
    except FileNotFoundError:
        print(f"{name} is not recorded yet; this makes it:\n  {command}")
        return None
    _note(result.provenance())
    return result.numbers


def _note(line: str) -> None:
    """A line in small print that wraps where a printed one would run out of the page."""
    import html

    from IPython.display import HTML, display

    line = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(line))
    display(HTML(dressed(f'<p class="sb-muted"><small>{line}</small></p>')))


# what merges do ------------------------------------------------------------------------------


def merges_by_hand(steps: Sequence[Mapping[tuple, int]], merges: Sequence[tuple]) -> None:
    """Words as boxes, a column for each state: `steps[i]` is the corpus after i merges."""
    fig, ax = plt.subplots(figsize=(6.4, 2.9))
    colours = {left + right: colour
               for (left, right), colour in zip(merges, palette(), strict=False)}
    lengths = [sum(len(word) * count for word, count in words.items()) for words in steps]
    for column, words in enumerate(steps):
        x = 5.2 * column
        name = "letters" if not column else f"merge {column}:\n{' + '.join(merges[column - 1])}"
        ax.text(x + 1.7, 1.1, name, ha="center", va="bottom")
        ax.text(x + 1.7, -len(words) + 0.4, f"{lengths[column]} tokens", ha="center")
        for row, (word, count) in enumerate(words.items()):
            if not column:
                ax.text(-0.6, 0.33 - row, f"{count} ×", ha="right", va="center")
            _boxes(ax, word, x, -row, colours)
    ax.set(xlim=(-2.5, 5.2 * len(steps) - 0.5), ylim=(-len(steps[0]) + 0.2, 2.2))
    ax.axis("off")
    show(fig, f"Ten words cut into tokens after each of {len(merges)} merges. The text shrinks "
         f"from {lengths[0]} tokens to {', '.join(map(str, lengths[1:]))}.",
         "The merges learned, step by step. Each colour is one new token.")


def _boxes(ax: plt.Axes, word: Sequence[str], x: float, y: float, colours: Mapping) -> None:
    for token in word:
        face = colours.get(token, "none")
        ax.add_patch(plt.Rectangle((x, y), len(token) - 0.1, 0.7, facecolor=face, alpha=0.45))
        ax.add_patch(plt.Rectangle((x, y), len(token) - 0.1, 0.7, fill=False, edgecolor=GREY))
        ax.text(x + len(token) / 2 - 0.05, y + 0.33, token, ha="center", va="center")
        x += len(token)


def shares_touched(words: Mapping[tuple, int], merges: Sequence[tuple], merge: Callable) -> list:
    """For each merge in turn, the share of the distinct words that it changes."""
    shares, current = [], list(words)
    for pair in merges:
        after = [merge(word, pair) for word in current]
        changed = sum(len(new) < len(old) for old, new in zip(current, after, strict=True))
        shares.append(changed / len(current))
        current = after
    return shares


def touched(shares: Sequence[float]) -> float:
    """Plot what `shares_touched` found; return the median share."""
    middle = float(np.median(shares))
    fig, ax = plt.subplots(figsize=(6.4, 3.0))
    ax.plot(range(1, len(shares) + 1), [100 * share for share in shares], ".")
    ax.axhline(100 * middle, color=GREY, lw=1, ls="--")
    ax.set(xscale="log", yscale="log", xlabel="merge number", ylabel="chunks changed (%)")
    for axis, ticks in ((ax.xaxis, (1, 10, 100)), (ax.yaxis, (0.3, 1, 3, 10))):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.grid(True)
    show(fig, f"Share of distinct chunks that each merge changes: {100 * shares[0]:.1f} percent "
         f"for the first, {100 * shares[-1]:.2f} for merge {len(shares)}, median "
         f"{100 * middle:.2f} percent.",
         f"Half of the merges change at most {100 * middle:.1f} % of the chunks.")
    return middle


def _spaces_shown(text: str) -> str:
    return text.replace(" ", "␣").replace("\n", "⏎")


def splits(samples: Sequence[str], splitters: Mapping[str, Callable[[str], list[str]]]) -> None:
    """A table: each text as each pattern cuts it."""
    table([{"pattern": name} | {
        f"text {i}": " | ".join(map(_spaces_shown, split(text)))
        for i, text in enumerate(samples, start=1)} for name, split in splitters.items()],
        caption="Three texts, cut by three patterns. | marks an edge, ␣ a space, ⏎ a line's end")


def tokens(tokenizer, text: str) -> None:
    """The living figure: type, and see the text cut. `tokenizer` is a trained BPETokenizer."""
    pieces = [tokenizer.token_bytes(i).decode(errors="replace") for i in tokenizer.encode(text)]
    still = [{"cut by": "characters", "pieces": " | ".join(text)},
             {"cut by": "our BPE", "pieces": " | ".join(map(_spaces_shown, pieces))},
             {"cut by": "the pattern alone",
              "pieces": " | ".join(map(_spaces_shown, tokenizer.split(text)))}]
    living("tokens", {
        "pattern": tokenizer.pattern, "text": text,
        "alphabet": list(b"".join(map(tokenizer.token_bytes, range(256)))),
        "merges": [tokenizer.ranks[half] for pair in tokenizer.merges for half in pair],
    }, still=table_html(still, caption="One sentence, cut three ways"))


# the best path -------------------------------------------------------------------------------


def lattice(word: str, probs: Mapping[str, float], best: Sequence[float],
            cut: Sequence[str]) -> None:
    """Each piece of `probs` as an arc over its place in the word, the best cut drawn thick."""
    fig, ax = plt.subplots(figsize=(6.4, 3.1))
    ends = np.cumsum([0, *map(len, cut)]).tolist()
    rise = np.linspace(0, 1, 31)
    spans = [(start, end) for end in range(len(word) + 1) for start in range(end)]
    for start, end in [span for span in spans if word[slice(*span)] in probs]:
        won, height = (start, end) in pairwise(ends), 0.62 * (end - start) - 0.3
        ax.plot(start + (end - start) * rise, height * 4 * rise * (1 - rise),
                color=palette()[1 if won else 0], lw=3.5 if won else 1)
        piece = word[start:end]
        ax.text((start + end) / 2, height + 0.05, f"{piece} {100 * probs[piece]:.0f} %",
                ha="center", fontsize=8)
    for end, value in enumerate(best):
        ax.plot(end, 0, "o", color=palette()[2], ms=7)
        ax.text(end, -0.2, f"{value:.1g}", ha="center", va="top", fontsize=9)
    ax.set(xlim=(-0.4, len(word) + 0.4), ylim=(-0.5, 2.6))
    ax.axis("off")
    show(fig, f"The pieces of {word} as arcs. Best probability of each prefix: "
         f"{', '.join(f'{value:.1g}' for value in best)}. Best path: {' + '.join(cut)}.",
         "Arcs are pieces; below each place, the best probability of reaching it; thick, the best "
         "path.")


# a tokenizer measured ------------------------------------------------------------------------


REPORT_COLUMNS = {
    "vocabulary": "vocab_size", "bytes/token": "bytes_per_token", "tokens/word": "fertility",
    "lines that come back": "round_trips", "never used": "unused_share"}


def percent(name: str, value: float) -> float | str:
    """The value, as a percentage where its column holds shares."""
    shares = ("in embeddings", "lines that come back", "never used")
    return f"{100 * value:.0f} %" if name in shares else value


def reports(found: Mapping[str, Mapping[str, float]]) -> None:
    """What `quality.report` says of each tokenizer."""
    table([{"tokenizer": who} | {name: percent(name, report[key])
                                 for name, key in REPORT_COLUMNS.items()}
           for who, report in found.items()], caption="On text that none of them was trained on")


# the price of a language ---------------------------------------------------------------------


def price(counts: Sequence[int], english: Sequence[int], seed: int = 0) -> list[float]:
    """Tokens compared with English's: the ratio, and the range of 95 in 100 resamplings.

    Sentences are resampled in pairs, so that a long one is long in both languages.
    """
    ours, base = np.array(counts), np.array(english)
    pick = np.random.default_rng(seed).integers(len(ours), size=(4000, len(ours)))
    ratios = ours[pick].sum(1) / base[pick].sum(1)  # (4000,)
    return [float(ours.sum() / base.sum()), *map(float, np.percentile(ratios, [2.5, 97.5]))]


def dearest(prices: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """For each tokenizer a sentence: which language pays most, or that two cannot be told apart."""
    lines = []
    for title, found in prices.items():
        first, second = sorted((name for name in found if name != "English"),
                               key=lambda name: -found[name][0])[:2]
        said = f"{title}: {first}, {found[first][0]:.1f} times English"
        if found[first][1] <= found[second][2]:
            said += f" ({second}, {found[second][0]:.1f} times: no clear difference)"
        lines.append(said)
    return lines


def price_dots(prices: Mapping[str, Mapping[str, Sequence[float]]], order: str) -> None:
    """A row for each language, a dot with its range for each tokenizer, sorted by `order`."""
    languages = sorted((name for name in prices[order] if name != "English"),
                       key=lambda name: prices[order][name][0])
    fig, ax = plt.subplots(figsize=(6.4, 0.45 * len(languages) + 1.2))
    for i, (title, found) in enumerate(prices.items()):
        rows = np.arange(len(languages)) + 0.16 * ((len(prices) - 1) / 2 - i)
        ratio, low, high = (np.array([found[name][k] for name in languages]) for k in range(3))
        ax.errorbar(ratio, rows, xerr=np.maximum([ratio - low, high - ratio], 0), ms=5, lw=1.2,
                    fmt="osD^v"[i % 5], color=palette()[i], label=title)
    ax.axvline(1, color=GREY, lw=1, ls="--")
    ax.set_yticks(range(len(languages)), languages)
    ax.set(xscale="log", xlabel="tokens for the same sentences, English = 1")
    ends = [end for found in prices.values() for triple in found.values() for end in triple]
    ax.set_xlim(0.9 * min(ends), 1.1 * max(ends))
    ticks = [tick for tick in (0.5, 1, 2, 3, 4, 6, 8, 12) if min(ends) <= tick <= max(ends)]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.grid(True, axis="x")
    ax.legend(loc="lower right")
    show(fig, f"Tokens relative to English, by language and tokenizer. Most: "
         f"{'; '.join(dearest(prices))}.", "Whiskers: 95 % of resamplings of the sentences.")


def languages(sentences: Mapping[str, Sequence[str]], encode: Callable[[str], list],
              splitters: Mapping[str, Callable[[str], list[str]]]) -> None:
    """A table: bytes per token in each language, and pieces per word that each pattern makes."""
    rows = []
    for language, texts in sentences.items():
        size = sum(len(text.encode()) for text in texts)
        words = sum(len(text.split()) for text in texts)
        rows.append({"language": language,
                     "bytes/token": f"{size / sum(len(encode(text)) for text in texts):.2f}"}
                    | {f"pieces/word, {name}":
                       f"{sum(len(split(text)) for text in texts) / words:.2f}"
                       for name, split in splitters.items()})
    table(rows, caption="Our English BPE's bytes per token; pieces per word before any merge")


# what the run found --------------------------------------------------------------------------


# Tokens per second that the project's first README stated without a measurement; its third row
# was minbpe, whose encoder is the textbook one that the benchmark calls naive.
CLAIMED = {"tiktoken": 50_000, "naive": 35_000, "tokenizers": 25_000}
AGAIN = "ours, again"
NAMES = {"ours": "this package", AGAIN: "this package, chunks remembered"}


def speeds(numbers: Mapping | None) -> None:
    """The recorded speeds of the implementations, beside what had been claimed for three."""
    if numbers is None:
        return
    rows = []
    for row in numbers["rows"]:
        rate = row.get("tokens_per_second")
        claim = CLAIMED.get(row["who"]) if rate else None
        rows.append({
            "task": row["task"].partition(", GPT")[0],
            "by": NAMES.get(row["who"], row["who"]),
            "CPU seconds": f"{row['seconds']:,.2f}",
            "range": f"{row['fastest']:,.2f} to {row['slowest']:,.2f}" if row["runs"] > 1
            else _made(row),
            "MB/s": f"{row['megabytes_per_second']:,.3g}",
            "tokens/s": f"{rate:,}" if rate else "",
            "claimed tokens/s": f"{claim:,} ({_factor(rate / claim)})" if claim else ""})
    table(rows, caption="Medians of several runs on one thread")
    print(*_race_lines(numbers["rows"]), sep="\n")


def _factor(ratio: float) -> str:
    return f"measured {ratio:.0f} times that" if ratio >= 2 else f"measured {ratio:.2g} times that"


def _made(row: Mapping) -> str:
    """How a row without a range was made."""
    return "extrapolated" if row["extrapolated"] else f"one run, on {row['megabytes']:.2f} MB"


def _race_lines(rows: Sequence[Mapping]) -> list[str]:
    """Who was faster, by the ratio of medians; no one where the ranges of times overlap."""
    lines = []
    for ours in (row for row in rows if row["who"] == "ours"):
        for other in rows:
            if other["task"] != ours["task"] or other["who"] in ("ours", AGAIN):
                continue
            mine, theirs = ([row[key] / row["megabytes"] for key in ("seconds", "fastest",
                                                                     "slowest")]
                            for row in (ours, other))
            ratio = theirs[0] / mine[0]
            if mine[1] <= theirs[2] and theirs[1] <= mine[2]:
                said = f"not clearly faster or slower than {other['who']} (ranges overlap)"
            elif ratio > 1:
                said = f"{ratio:,.{0 if ratio > 20 else 1}f} times as fast as {other['who']}"
                said += f" ({_made(other)})" if other["runs"] == 1 else ""
            else:
                said = f"{1 / ratio:,.1f} times slower than {other['who']}"
            lines.append(f"{ours['task'].partition(', GPT')[0]}: the package is {said}")
    return lines


def closing(prices: Mapping, share_touched: float, times_faster: float) -> list[str]:
    """The last Insights: what this run found beside the sweep."""
    return [f"Half of the merges change at most {100 * share_touched:.1f} % of the chunks. "
            f"The trainer that counts only there was {times_faster:.0f} times as fast, on 40 kB.",
            f"Who pays most: {'; '.join(dearest(prices))}.",
            "Use it: test decode(encode(text)) == text on your own texts, and count the tokens "
            "that each of your languages takes."]
