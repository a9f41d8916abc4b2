"""The verdicts of chapter 09: its tables of judgement, its Summary and its Insights.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from scratchbook.companions.smalltalk_tables import MISSING, percent
from scratchbook.evaluation.comparing import (
    Interval,
    bound_verdict,
    paired_shares,
    verdict_on,
    wilson,
)
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.measures import Share, known_sends
from scratchbook.smalltalk.parser import parse_method
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


def audit_lines(numbers: Numbers) -> list[str]:
    """What the audit finds in the finished texts."""
    return [f"{split}: {found['methods']:,} methods, {found['exact']} of them word for word in the "
            f"training text; of {found['compared']:,} long ones "
            + ", ".join(f"{100 * value:.2f} % at {limit} or more"
                        for limit, value in found["near"].items()) + "."
            for split, found in numbers["audit"].items()]


def sample_row(name: str, sources: Sequence[str], selectors: Collection[str]) -> dict[str, object]:
    """Of some sources: how many are methods, how long, and how many messages are known."""
    trees, known = [], Share(0, 0)
    for source in sources:
        try:
            trees.append(parse_method(source))
        except SmalltalkSyntaxError:
            continue
        known += known_sends(trees[-1], frozenset(selectors))
    lengths = sorted(map(len, sources))
    return {"writer": name, "valid": share(wilson(len(trees), len(sources))),
            "characters, middle": lengths[len(lengths) // 2], "messages in valid ones": known.total,
            "of known selectors": share(wilson(*known)) if known.total else "nothing to count"}


def show_validity(numbers: Numbers) -> None:
    """The table of validity by writer and judge, and whether the aim is met."""
    table([{"writer": name, **{judge: percent(found["validity"][judge], 1) for judge in JUDGES},
            "at training lengths": percent(
                found["validity"]["at_training_lengths"]["all judges"], 1),
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


def class_rows(numbers: Numbers) -> list[dict[str, str]]:
    """Coherence of classes beside the same methods shuffled between the classes."""
    rows = []
    for writer, found in numbers["classes"].items():
        for name in CLASSES:
            gap = found["above_shuffled"].get(name)
            rows.append({"writer": writer, "measure": name,
                         "of one class": percent(found["measures"].get(name)),
                         "shuffled": percent(found["shuffled"].get(name)),
                         "verdict": gap["verdict"] if gap else "not tested"})
    return rows


def completion_rows(numbers: Numbers) -> list[dict[str, str]]:
    """The model less each rival, on the same cases."""
    return [{"rival": rival, "measure": measure,
             "difference, points": f"{100 * found['value']:+.1f} "
             f"({100 * found['low']:+.1f} to {100 * found['high']:+.1f})",
             "the model is": found["verdict"]}
            for rival, measures in numbers["completion"]["differences"].items()
            for measure, found in measures.items()]


def correlation_rows(numbers: Numbers) -> list[dict[str, str]]:
    """Spearman's rank correlation of each measure with the loss, with what is left late on."""
    rows = []
    for name, found in numbers["checkpoints"]["correlation"].items():
        if found is None:
            rows.append({"measure": name, "with the loss": "never moves", "later half": "",
                         "step to step": ""})
            continue
        rows.append({"measure": name, "with the loss": _rank(found),
                     "later half": _rank(found.get("late")),
                     "step to step": _rank(found.get("changes"))})
    return rows


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
    """What the judgement says besides: surprise, and how meaningful the split is."""
    bits, split = numbers["surprise"]["bits_per_character"], numbers["random_split"]
    lines = ["Bits per character on unseen projects: " + ", ".join(
        f"{name} {found['value']:.3f}" for name, found in bits.items()) + "."]
    lines += [f"The model against {name}: {found['verdict']}."
              for name, found in numbers["surprise"]["differences"].items()]
    both = ", ".join(f"{name} {found['value']:.3f}"
                     for name, found in split["bits_per_character"].items())
    return [*lines, f"Counting, on two splits: {both} bits per character; unseen projects are "
            f"{split['unseen_less_random']['verdict']} than a split by chance."]


def card_rows(corpus: Numbers, run: Numbers, judged: Numbers | None) -> list[dict[str, str]]:
    """The model's card: data, licences, size, training, figures, limits."""
    trained = corpus["splits"]["train"]
    licences = ", ".join(f"{name}: {count:,} methods"
                         for name, count in trained["methods_by_licence"].items())
    rows = [("learned from", f"{trained['methods']:,} methods, {trained['bytes'] / 1e6:.1f} MB, of "
             f"{len(trained['bytes_by_project'])} projects"), ("licences", licences),
            ("size", f"{run['parameters']:,} weights, windows of {run['seq_len']} tokens"),
            ("training", f"{run['steps']:,} steps, {run['tokens']:,} tokens, "
             f"{run['cpu_seconds'] / 3600:.1f} hours of a processor")]
    if judged:
        model = judged["samples"]["model"]
        rows += [("judged at", f"step {judged['model']['step']:,} of the run"),
                 ("valid, both parsers", percent(model["validity"]["all judges"], 1)),
                 ("bits per character, unseen projects", _plain(
                     judged["surprise"]["bits_per_character"]["model"])),
                 ("word for word from training", percent(
                     judged["copied"]["model"]["word_for_word"], 1))]
    else:
        rows.append(("judged", MISSING))
    rows += [("good for", "showing how such a model is made; short methods of common classes"),
             ("not good for", "code that somebody relies on: nothing was run, and what a method "
              "means was not judged")]
    return [{"": name, "what": what} for name, what in rows]


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
    aim = bound_verdict(wilson(sum(numbers["after"]), len(numbers["after"])), at_least=0.9)
    return [tiny_line(numbers), f"Nine in ten valid, by the tiny model: {aim}.",
            f"Valid under the parser's eye: {eye}; what is not, ended before it was a method.",
            f"The small parser read {numbers['expressions']:,} expressions as the package does; "
            f"with one rule changed, {numbers['control']:,} came out otherwise."]
