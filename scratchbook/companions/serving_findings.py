"""The tables and sentences of chapter 07c that its numbers write.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scratchbook.evaluation.comparing import (
    bound_verdict,
    mean_and_spread,
    paired,
    verdict_on,
)
from scratchbook.teaching.results import Result, load_result

NAME = "07c_serving_and_chat"
# what an hour costs, as listed by others: an input, not a measurement
MACHINES = (
    {"machine": "Hetzner cx23, 2 cores", "an hour": 0.006, "currency": "EUR",
     "seen": "docs.cnap.tech/compute/providers/hetzner, November 2026"},
    {"machine": "AWS m7g.large, 2 cores", "an hour": 0.0816, "currency": "USD",
     "seen": "factualminds.com on EC2 on-demand prices, June 2026"},
    {"machine": "AWS g5.xlarge, a GPU", "an hour": 1.006, "currency": "USD",
     "seen": "factualminds.com on EC2 on-demand prices, June 2026"},
)
FLAT = 0.01  # of the memory at the start, in ten minutes: what we call flat, chosen beforehand


def recorded(part: str) -> Result:
    """What one of the chapter's studies recorded.

    Raises:   FileNotFoundError when it is not there
    """
    return load_result(f"{NAME}.{part}")


def at(rows: Sequence[Mapping[str, Any]], clients: int, key: str, places: int = 8) -> list[float]:
    """A number of one level, round by round."""
    return [row[key] for row in sorted(rows, key=lambda row: row["round"])
            if (row["clients"], row["places"]) == (clients, places)]


def rates(rows: Sequence[Mapping[str, Any]], clients: int, key: str = "tokens") -> list[float]:
    """So many tokens (or requests) a second at one level, round by round."""
    return [count / seconds for count, seconds in
            zip(at(rows, clients, key), at(rows, clients, "seconds"), strict=True)]


def levels(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The numbers of clients, from few to many."""
    return sorted({row["clients"] for row in rows})


def plus_minus(values: Sequence[float], digits: int = 0, times: float = 1) -> str:
    """Mean and half-width of the 95 % interval."""
    mean, half = mean_and_spread([times * value for value in values])
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def load_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Latency and throughput of each level."""
    return [{"clients": clients, "tokens a second": plus_minus(rates(rows, clients))}
            | {f"{label} {p}, ms": plus_minus(at(rows, clients, f"{key}_{p}"), times=1000)
               for key, label in (("first", "first token"), ("whole", "whole"))
               for p in ("p50", "p95")} for clients in levels(rows)]


def little_rows(rows: Sequence[Mapping[str, Any]], full: int = 8) -> list[dict[str, object]]:
    """Little's law at each level, and the latency that the throughput at `full` clients predicts.

    "clients by the law" is requests a second times the mean latency; the prediction is clients
    over requests a second at `full`, or the latency of one alone where that is more.
    """
    alone, top = at(rows, 1, "whole_mean"), rates(rows, full, "requests")
    found = []
    for clients in levels(rows):
        latency = at(rows, clients, "whole_mean")
        by_law = [rate * each for rate, each in
                  zip(rates(rows, clients, "requests"), latency, strict=True)]
        predicted = [max(one, clients / rate) for one, rate in zip(alone, top, strict=True)]
        ratio = [a / b for a, b in zip(latency, predicted, strict=True)]
        given = clients in (1, full)  # what the prediction is made of
        found.append({"clients": clients, "clients by the law": plus_minus(by_law, 2),
                      "mean latency, ms": plus_minus(latency, times=1000),
                      "predicted, ms": "" if given else plus_minus(predicted, times=1000),
                      "measured / predicted": "" if given else plus_minus(ratio, 2)})
    return found


def little_line(rows: Sequence[Mapping[str, Any]], clients: int = 32, full: int = 8) -> str:
    """How the prediction for so many clients came out."""
    predicted = [max(one, clients / rate) for one, rate in
                 zip(at(rows, 1, "whole_mean"), rates(rows, full, "requests"), strict=True)]
    ratio = [a / b for a, b in zip(at(rows, clients, "whole_mean"), predicted, strict=True)]
    change = paired(ratio, [1.0] * len(ratio))
    return (f"{clients} clients: mean latency {1 + change.value:.2f} times the predicted one (95 % "
            f"over {len(ratio)} rounds {1 + change.low:.2f} to {1 + change.high:.2f}): "
            f"{verdict_on(change, 'shorter', 'longer')}.")


def growth_line(rows: Sequence[Mapping[str, Any]], few: int, many: int) -> str:
    """What more clients do to throughput and to the wait for the first token."""
    speed, wait = ([b / a for a, b in zip(*pair, strict=True)] for pair in (
        (rates(rows, few), rates(rows, many)),
        (at(rows, few, "first_p50"), at(rows, many, "first_p50"))))
    words = [verdict_on(paired(each, [1.0] * len(each)), *pair)
             for each, pair in ((speed, ("less", "more")), (wait, ("shorter", "longer")))]
    return (f"{many} clients against {few}: throughput {plus_minus(speed, 2)} times ({words[0]}), "
            f"median wait for the first token {plus_minus(wait, 1)} times ({words[1]}).")


def places_line(rows: Sequence[Mapping[str, Any]], clients: int = 32, more: int = 16) -> str:
    """What more places, and nothing else, do to the wait for the first token."""
    wait = [b / a for a, b in zip(at(rows, clients, "first_p50"),
                                  at(rows, clients, "first_p50", more), strict=True)]
    word = verdict_on(paired(wait, [1.0] * len(wait)), "shorter", "longer")
    return (f"{clients} clients, {more} places instead of 8: median wait for the first token "
            f"{plus_minus(wait, 2)} times ({word}).")


def lost_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many answers were not those that the same request got when it was alone."""
    wrong, asked = (sum(row[key] for row in rows) for key in ("wrong", "requests"))
    return (f"{wrong} of {asked:,} answers are not what the same request got alone: lost, doubled "
            "or changed.")


def memory_line(minutes: Sequence[float]) -> str:
    """Whether memory grows from minute to minute, the first two left out, and is it flat."""
    later = minutes[2:]
    slope = paired(later[1:], later[:-1])
    bound = FLAT * minutes[0] / 10
    return (f"Memory under load: {verdict_on(slope, 'it shrinks', 'it grows')}, {slope.value:+.2f} "
            f"MB a minute (95 % {slope.low:+.2f} to {slope.high:+.2f}) behind the second of "
            f"{len(minutes)} minutes; flat, at most {bound:+.2f}: "
            f"{bound_verdict(slope, at_most=bound)}.")


def way_rows(overload: Mapping[str, Any]) -> list[dict[str, object]]:
    """What each way of receiving too many brings."""
    found = []
    for way in overload["bounds"]:
        rows = [row for row in overload["rows"] if row["way"] == way]
        found.append({
            "way": way,
            "answered": f"{sum(r['answered'] for r in rows)} of {sum(r['requests'] for r in rows)}",
            f"within {overload['patience']:g} s": plus_minus(
                [100 * r["in_time"] / r["requests"] for r in rows]) + " %",
            "mean wait of those, s": plus_minus([r["mean_whole"] for r in rows], 2),
            "longest, s": plus_minus([r["worst"] for r in rows], 2),
            "answers a second": plus_minus([r["answered"] / r["seconds"] for r in rows], 1),
            "tries": sum(r["tries"] for r in rows),
            "most in line or at work": max(r["longest_line"] for r in rows)})
    return found


def way_values(overload: Mapping[str, Any], key: str) -> dict[str, list[float]]:
    """One number of each way, round by round; "share" is what was answered in time, in percent."""
    found: dict[str, list[float]] = {}
    for row in sorted(overload["rows"], key=lambda row: row["round"]):
        value = 100 * row["in_time"] / row["requests"] if key == "share" else row[key]
        found.setdefault(row["way"], []).append(value)
    return found


def bound_line(overload: Mapping[str, Any], way: str) -> str:
    """What Little's law says of the mean wait behind a full line, and what was measured."""
    bound = overload["bounds"][way]
    rows = [row for row in overload["rows"] if row["way"] == way]
    mean, longest = ([row[key] * row["capacity"] / bound for row in rows]
                     for key in ("mean_whole", "worst"))
    predicted = [bound / row["capacity"] for row in rows]
    return (f"{way.capitalize()}: by the law a mean wait of {plus_minus(predicted, 2)} s where the "
            f"line is full; the mean was {plus_minus(mean, 2)} times that, the longest "
            f"{plus_minus(longest, 2)}.")


def cost_rows(rows: Sequence[Mapping[str, Any]], machines: Sequence[Mapping[str, Any]] = MACHINES
              ) -> list[dict[str, object]]:
    """A million tokens on machines as fast as the one that was measured, at its best level."""
    best = max(levels(rows), key=lambda clients: sum(rates(rows, clients)))
    return [{"machine": each["machine"], "an hour": f"{each['an hour']:g} {each['currency']}",
             f"a million tokens, {best} clients": plus_minus(
                 [each["an hour"] * 1e6 / 3600 / rate for rate in rates(rows, best)], 4)
             + f" {each['currency']}",
             "with 1 client": plus_minus([each["an hour"] * 1e6 / 3600 / rate
                                          for rate in rates(rows, 1)], 4) + f" {each['currency']}",
             "price seen at": each["seen"]} for each in machines]
