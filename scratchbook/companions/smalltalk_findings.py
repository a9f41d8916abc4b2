"""The sentences of chapter 09 that its numbers write: observations, Summary and Insights.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scratchbook.companions.smalltalk_judged import completion_lines
from scratchbook.companions.smalltalk_tables import MISSING, percent
from scratchbook.evaluation.comparing import Interval, paired_shares, verdict_on, wilson
from scratchbook.smalltalk.viable import is_method

Numbers = Mapping[str, Any]


def share(found: Interval) -> str:
    """A share with its interval."""
    return percent(found._asdict())



def leaks(numbers: Numbers) -> str:
    """How many methods left the training text for what is held out, by hash and by likeness."""
    reasons = numbers["reasons"]
    equal, alike = (reasons.get(f"{word} a held-out method", 0)
                    for word in ("equal to", "resembles"))
    return (f"Left the training text: {equal:,} methods equal to a held-out one, and {alike:,} "
            "more that only resemble one: these the hash did not see.")



def largest_drop(numbers: Numbers) -> str:
    """Which filter took most methods."""
    reasons = numbers["reasons"]
    most = max(reasons, key=reasons.get)
    return f"Most methods went as \"{most}\": {reasons[most]:,} of {sum(reasons.values()):,}."



def hardest_project(numbers: Numbers) -> str:
    """Whether the same project has the fewest characters per token for every tokenizer."""
    fewest = {min(rows, key=rows.get) for rows in numbers["chars_per_token"].values()}
    if len(fewest) > 1:
        return "Which project has the fewest characters per token depends on the tokenizer."
    return f"Fewest characters per token, for every tokenizer: {fewest.pop()}."


def by_length(sources: Sequence[str]) -> str:
    """How many of the shorter and of the longer half are valid."""
    ordered = sorted(sources, key=len)
    halves = ordered[: len(ordered) // 2], ordered[len(ordered) // 2:]
    short, long = (share(wilson(sum(map(is_method, half)), len(half))) for half in halves)
    return f"Trained, free: of the shorter half {short} are valid, of the longer half {long}."



def summary_lines(numbers: Numbers, tokenizers: Numbers, corpus: Numbers, judged: Numbers | None
                  ) -> list[str]:
    """The Summary's sentences, each with the verdict of its data."""
    written = tokenizers["as_written"]["ratios"]
    met = [f"{name} {found['verdict']} (as written: {written[name]['verdict']})"
           for name, found in tokenizers["ratios"].items()]
    lines = [leaks(corpus), "Tokens by syntax, aims on unseen projects, methods in one style: "
             + ", ".join(met) + "."]
    if judged is None:
        return [*lines, tiny_line(numbers), f"The judgement of the trained model is {MISSING}."]
    valid = judged["samples"]["model"]["validity"]["all judges"]
    return [*lines, f"Freely sampled methods valid for both parsers: {percent(valid, 1)}; nine in "
            f"ten: {judged['aim']['model']}. Valid is not good: read it beside length and a "
            "control.", *completion_lines(judged["completion"])]


def tiny_line(numbers: Numbers) -> str:
    """What the page's own training changed."""
    before, after = numbers["before"], numbers["after"]
    word = verdict_on(paired_shares(before, after), "fewer valid methods", "more valid methods")
    return (f"{numbers['steps']} steps of a tiny model: {sum(before)} of {len(before)} valid "
            f"before, {sum(after)} of {len(after)} after: {word}.")


def findings(numbers: Numbers) -> list[str]:
    """The Insights of a run of this page."""
    ways = {name: wilson(sum(found), len(found)) for name, found in numbers["constrained"].items()}
    eye = "; ".join(f"{name} {share(found)}" for name, found in ways.items())
    return [tiny_line(numbers),
            f"Valid under the parser's eye: {eye}; what is not, ended before it was a method.",
            f"The small parser read {numbers['expressions']:,} expressions as the package does; "
            f"with one rule changed, {numbers['control']:,} came out otherwise."]
