"""The verdicts of chapter 09: its tables of judgement, its Summary and its Insights.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scratchbook.companions.smalltalk_tables import MISSING, percent
from scratchbook.evaluation.comparing import (
    Interval,
    paired_shares,
    verdict_on,
    wilson,
)
from scratchbook.smalltalk.viable import is_method
from scratchbook.teaching.figures import table

Numbers = Mapping[str, Any]
WRITERS = ("people", "model", "model, constrained", "Kneser-Ney")
JUDGES = ("ours", "pharo-tree-sitter", "all judges")
MEASURES = ("known selectors", "declared names", "block parameters", "temporaries used",
            "parameters kept", "reachable", "returns", "trivial")
CLASSES = ("fields used", "names declared", "self answered", "selectors shared")
COURSE = ("valid", "known selectors", "completion, exact", "completion, selector")


def share(found: Interval) -> str:
    """A share with its interval."""
    return percent(found._asdict())


def interval_of(found: Numbers) -> Interval:
    """A recorded interval as one that the verdict functions take."""
    return Interval(found["value"], found["low"], found["high"])


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


def split_line(numbers: Numbers) -> str:
    """How meaningful the split by projects is, for counting."""
    split = numbers["random_split"]
    both = ", ".join(f"{name} {found['value']:.3f}"
                     for name, found in split["bits_per_character"].items())
    return (f"Counting on two splits, bits per character: {both}. Unseen projects against a split "
            f"by chance: {split['unseen_less_random']['verdict']}.")


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


def show_validity(numbers: Numbers) -> None:
    """The table of validity by writer and judge, and whether the aim is met."""
    table([{"writer": name, **{judge: percent(found["validity"][judge], 1) for judge in JUDGES},
            "at training lengths": percent(
                found["validity"]["at_training_lengths"]["all judges"], 1),
            "never ended": f"{found['validity']['unfinished']} of {found['validity']['methods']}",
            "tokens, middle": found["tokens"]["p50"],
            "aim: 90 %": numbers["aim"].get(name, "")}
           for name, found in numbers["samples"].items()],
          "Share of valid methods; at training lengths each quarter of lengths weighs the same")


def measure_rows(numbers: Numbers) -> list[dict[str, str]]:
    """Measures of meaning: people, the model, counting; and the verdict beside both."""
    rows = []
    for name in MEASURES:
        verdicts = [(numbers["differences"].get(other) or {}).get(name)
                    for other in ("people", "Kneser-Ney")]
        rows.append({"measure": name, **{
            writer: percent(numbers["samples"][writer]["measures"].get(name))
            for writer in WRITERS}, **{
            f"model against {other}": found["verdict"] if found else "not tested"
            for other, found in zip(("people", "Kneser-Ney"), verdicts, strict=True)}})
    return rows


def definition_rows(numbers: Numbers) -> list[dict[str, str]]:
    """What each measure counts, in the judgement's own words."""
    return [{"measure": name, "what it counts": numbers["definitions"][name]}
            for name in (*MEASURES, *CLASSES)]


def class_rows(numbers: Numbers) -> list[dict[str, str]]:
    """Coherence of classes beside the same methods shuffled between the classes."""
    rows = []
    for writer, found in numbers["classes"].items():
        for name in CLASSES:
            gap = found["above_shuffled"].get(name)
            rows.append({"writer": writer, "measure": name,
                         "of one class": percent(found["measures"].get(name)),
                         "shuffled": percent(found["shuffled"].get(name)),
                         "against shuffled": gap["verdict"] if gap else "not tested"})
    return rows


def completion_rows(numbers: Numbers) -> list[dict[str, str]]:
    """The model less each rival, on the same cases."""
    return [{"rival": rival, "measure": measure,
             "difference, points": f"{100 * found['value']:+.1f} "
             f"({100 * found['low']:+.1f} to {100 * found['high']:+.1f})",
             "model against rival": found["verdict"]}
            for rival, measures in numbers["completion"]["differences"].items()
            for measure, found in measures.items()]


def correlation_rows(numbers: Numbers) -> list[dict[str, str]]:
    """Spearman's rank correlation of the shown measures with the loss, and what is left late on.

    Those that never move, or are not shown elsewhere on the page, are left out.
    """
    found = numbers["checkpoints"]["correlation"]
    return [{"measure": name, "with the loss": _rank(found[name]),
             "later half": _rank(found[name].get("late")),
             "step to step": _rank(found[name].get("changes"))}
            for name in dict.fromkeys((*COURSE, *MEASURES)) if found[name] is not None]


def still_line(numbers: Numbers) -> str:
    """The shown measures that are the same at every checkpoint."""
    found = numbers["checkpoints"]["correlation"]
    still = [name for name in dict.fromkeys((*COURSE, *MEASURES)) if found[name] is None]
    return f"The same at every checkpoint, or too rare to count: {', '.join(still) or 'none'}."


def _rank(found: Numbers | None) -> str:
    if found is None or found["value"] is None:
        return ""
    return f"{found['value']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"


def copied_rows(numbers: Numbers) -> list[dict[str, str]]:
    """How much of each writer's methods stands in the training text."""
    return [{"writer": name, "methods": f"{found['methods']:,}",
             "word for word": percent(found["word_for_word"], 1),
             "longest run, mean tokens": _plain(found["run"]),
             "of the method's tokens": percent(found["share"]),
             "longest of all, tokens": f"{found['longest']['run']:,}"}
            for name, found in numbers["copied"].items()]


def _plain(found: Numbers) -> str:
    return f"{found['value']:.1f} ({found['low']:.1f} to {found['high']:.1f})"


def other_lines(numbers: Numbers) -> list[str]:
    """How surprised model and counting are by unseen projects."""
    bits = numbers["surprise"]["bits_per_character"]
    lines = ["Bits per character on unseen projects: " + ", ".join(
        f"{name} {found['value']:.3f}" for name, found in bits.items()) + "."]
    return lines + [f"The model against {name}: {found['verdict']}."
                    for name, found in numbers["surprise"]["differences"].items()]


def summary_lines(numbers: Numbers, tokenizers: Numbers, corpus: Numbers, judged: Numbers | None
                  ) -> list[str]:
    """The Summary's sentences, each with the verdict of its data."""
    met = [f"{name} {found['verdict']}" for name, found in tokenizers["ratios"].items()]
    lines = [leaks(corpus), "Tokens by syntax, aims on unseen projects: " + ", ".join(met) + "."]
    if judged is None:
        return [*lines, tiny_line(numbers), f"The judgement of the trained model is {MISSING}."]
    valid = judged["samples"]["model"]["validity"]["all judges"]
    return [*lines, f"Freely sampled methods valid for both parsers: {percent(valid, 1)}; nine in "
            f"ten: {judged['aim']['model']}. Valid is not good: read it beside length and a "
            "control.", "Completion, the same tokens, model against "
            + ", ".join(f"{rival}: {found['exact']['verdict']}" for rival, found
                        in judged["completion"]["differences"].items()) + "."]


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
