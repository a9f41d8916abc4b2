"""The tables and sentences of chapter 07b that its numbers write.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scratchbook.evaluation.comparing import (
    Interval,
    bound_verdict,
    mean_and_spread,
    paired,
    verdict_on,
)
from scratchbook.teaching.results import Result, load_result

NAME = "07b_inference_engine"
FASTER = {"low": "slower", "high": "faster"}


def recorded(part: str) -> Result:
    """What one of the chapter's studies recorded.

    Raises:   FileNotFoundError when it is not there
    """
    return load_result(f"{NAME}.{part}")


def later_losses(policy: Mapping[str, Any]) -> list[float]:
    """For each text the mean loss behind its first window, where policies begin to differ."""
    return [sum(windows[1:]) / (len(windows) - 1) for windows in policy["losses"]]


def window_rows(policies: Mapping[str, Any], against: str = "restart") -> list[dict[str, object]]:
    """A row for each policy: loss, difference from one of them, and what is read."""
    rows, other = [], later_losses(policies[against])
    for name, policy in policies.items():
        own = later_losses(policy)
        change = paired(own, other)
        same = name == against
        rows.append({
            "policy": name, "loss": f"{sum(own) / len(own):.3f}",
            f"against {against}": "" if same else f"{change.value:+.3f} ({change.low:+.3f} to "
                                                  f"{change.high:+.3f})",
            "verdict": "" if same else verdict_on(change),
            "read for one written": round(policy["read"], 1)})
    return rows


def window_line(policies: Mapping[str, Any], name: str, other: str) -> str:
    """One comparison of two policies as a sentence."""
    change = paired(later_losses(policies[name]), later_losses(policies[other]))
    texts = len(policies[name]["losses"])
    return (f"Full window, {name} against {other}: {verdict_on(change)} "
            f"({change.value:+.3f} nats a token, 95 % over {texts} texts {change.low:+.3f} to "
            f"{change.high:+.3f}).")


def schedule_rows(kinds: Mapping[str, Any]) -> list[dict[str, object]]:
    """Throughput and waits of every schedule at every number of requests."""
    rows: list[dict[str, object]] = []
    for kind, schedules in kinds.items():
        for count in next(iter(schedules.values())):
            for schedule, by_count in schedules.items():
                runs = by_count[count]
                rows.append({"load": kind, "at once": int(count), "schedule": schedule} | {
                    label: sum(run[key] for run in runs) / len(runs) for label, key in (
                        ("tokens a second", "tokens_per_second"),
                        ("first token p50, s", "first_p50"), ("p95, s", "first_p95"),
                        ("last token p50, s", "last_p50"), ("its p95, s", "last_p95"))})
    return rows


def ratios(kinds: Mapping[str, Any], kind: str, count: str, first: str = "continuous",
           second: str = "static") -> list[float]:
    """Seed by seed, how many times the throughput of another schedule one has."""
    return [a["tokens_per_second"] / b["tokens_per_second"] for a, b in
            zip(kinds[kind][first][count], kinds[kind][second][count], strict=True)]


def schedule_line(kinds: Mapping[str, Any], kind: str, count: str, first: str = "continuous",
                  second: str = "static") -> str:
    """How two schedules compare at a number of requests, and whether three times is reached."""
    found = ratios(kinds, kind, count, first, second)
    change = paired(found, [1.0] * len(found))
    line = (f"{kind.capitalize()} load, {count} requests: {first} against {second} batching: "
            f"{verdict_on(change, **FASTER)}, {1 + change.value:.2f} times the throughput (95 % "
            f"over {len(found)} draws {1 + change.low:.2f} to {1 + change.high:.2f})")
    if kind == "mixed" and second == "static":
        line += f"; three times: {bound_verdict(found, at_least=3)}"
    return line + "."


def steps_line(kinds: Mapping[str, Any], kind: str, count: str, first: str = "static",
               second: str = "one") -> str:
    """Throughput in its two factors: how many steps a schedule takes, and how long each is."""
    runs = list(zip(kinds[kind][first][count], kinds[kind][second][count], strict=True))
    steps = mean_and_spread([a["steps"] / b["steps"] for a, b in runs])
    each = mean_and_spread([a["seconds"] / a["steps"] / (b["seconds"] / b["steps"])
                            for a, b in runs])
    return (f"{kind.capitalize()} load, {count} requests: {first} batching takes {steps[0]:.2f} "
            f"± {steps[1]:.2f} times the steps of {second}, and {each[0]:.2f} ± {each[1]:.2f} "
            "times the time for each.")


def speculation_line(row: Mapping[str, Any]) -> str:
    """Whether one way of guessing paid, text by text."""
    change = paired(row["speeds"], [1.0] * len(row["speeds"]))
    return (f"{row['draft']}, {row['guesses']} guesses: {row['kept']:.0%} kept, a guess costs "
            f"{row['draft cost']:.2f} steps and the wide pass {row['pass cost']:.2f}; predicted "
            f"{row['predicted']:.2f} times as fast, measured "
            f"{row['measured']:.2f} (95 % over {len(row['speeds'])} texts "
            f"{1 + change.low:.2f} to {1 + change.high:.2f}): "
            f"{verdict_on(change, **FASTER)}.")


def parts_line(runs: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """For each load what part of the seconds without is left with: pairs (without, with)."""
    found = []
    for name, pairs in runs.items():
        mean, half = mean_and_spread([after / before for before, after in pairs])
        found.append(f"{mean:.0%} ± {100 * half:.0f} of the time with {name}")
    return ", ".join(found)


def fitting_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many times as many requests run at once in blocks as with room reserved, by load."""
    key = "at once, while others wait"
    found = [f"{blocks[key] / reserved[key]:.2f} where a request {blocks['load']} "
             f"({blocks['gave way']} gave way)"
             for reserved, blocks in zip(rows[::2], rows[1::2], strict=True)]
    return f"At once in blocks, times as many as reserved: {'; '.join(found)}."


def times_line(name: str, seconds: Sequence[float], bound: float) -> str:
    """The median of nine times beside the bound that was asked for.

    The second and the eighth of nine hold the true median between them with 96 %.
    """
    _, low, *_, high, _ = ordered = sorted(seconds)
    median = ordered[len(ordered) // 2]
    word = bound_verdict(Interval(median, low, high), at_most=bound)
    return (f"{name}: median {1000 * median:.0f} ms ({1000 * low:.0f} to {1000 * high:.0f}), at "
            f"most {1000 * bound:.0f} ms: {word}.")
