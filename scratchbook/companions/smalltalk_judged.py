"""The recorded judgement of the Smalltalk model as chapter 09 shows it: tables, and what they say.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scratchbook.companions.smalltalk_tables import percent, plain
from scratchbook.teaching.figures import table

Numbers = Mapping[str, Any]
WRITERS = ("people", "model", "model, constrained", "Kneser-Ney")
MEASURED = (*WRITERS, "a training method, whole")
SAMPLERS = ("model", "model, top-p 0.9", "model, temperature 0.7")
JUDGES = ("ours", "pharo-tree-sitter", "all judges")
MEASURES = ("known selectors", "declared names", "block parameters", "temporaries used",
            "parameters kept", "reachable", "returns", "trivial")
CLASSES = ("fields used", "names declared", "self answered", "selectors shared")
COURSE = ("valid", "known selectors", "completion, exact", "completion, selector")
RIVALS = ("people", "Kneser-Ney", "a training method, whole")


def split_line(numbers: Numbers) -> str:
    """How meaningful the split by projects is, for counting."""
    split, apart = numbers["random_split"], numbers["surprise"]["by_project"]["Kneser-Ney"]
    both = split["bits_per_character"]
    harder = sum(value > both["random split"]["value"] for value in apart.values())
    return ("Counting on two splits, bits per character: "
            + ", ".join(f"{name} {found['value']:.3f}" for name, found in both.items())
            + f". Unseen projects against a split by chance: "
            f"{split['unseen_less_random']['verdict']}; above it in {harder} of {len(apart)} "
            "projects.")


def show_validity(numbers: Numbers) -> None:
    """The table of validity by writer and judge, and whether the aim is met."""
    table([{"writer": name, **{judge: percent(found["validity"][judge], 1) for judge in JUDGES},
            "at training lengths": percent(
                found["validity"]["at_training_lengths"]["all judges"], 1),
            "never ended": _unfinished(found), "tokens, middle": found["tokens"]["p50"],
            "aim: 90 %": numbers["aim"].get(name, "")}
           for name, found in numbers["samples"].items()],
          "Share of valid methods. At training lengths each quarter of lengths weighs the same, "
          "which forgives a writer that runs on to the window's end")


def _unfinished(found: Numbers) -> str:
    validity, given_up = found["validity"], found.get("given_up")
    return (f"{validity['unfinished']} of {validity['methods']}"
            + (f", {given_up} of them given up after refused tokens" if given_up else ""))


def measure_rows(numbers: Numbers) -> list[dict[str, str]]:
    """Measures of meaning of all valid methods, and the verdicts at the same lengths."""
    rows = []
    for name in MEASURES:
        verdicts = [numbers["differences"][other].get(name) for other in RIVALS]
        rows.append({"measure": name, **{
            writer: percent(numbers["samples"][writer]["measures"].get(name))
            for writer in MEASURED}, **{
            f"model against {other}": found["verdict"] if found else "not tested"
            for other, found in zip(RIVALS, verdicts, strict=True)}})
    return rows


def lengths_line(numbers: Numbers) -> str:
    """How many methods the verdicts of `measure_rows` rest on."""
    found = numbers["differences"]
    return ("The shares are those of all valid methods; of the model these are mostly short ones. "
            "So the verdicts compare as many valid methods of each quarter of lengths on both "
            "sides: " + ", ".join(f"{found[other]['methods']} with {other}" for other in RIVALS)
            + f". Each of the {len(RIVALS) * len(MEASURES)} verdicts is at 95 %, none corrected.")


def definition_rows(numbers: Numbers) -> list[dict[str, str]]:
    """What each measure counts, in the judgement's own words."""
    return [{"measure": name, "what it counts": numbers["definitions"][name]}
            for name in (*MEASURES, *CLASSES)]


def class_rows(numbers: Numbers) -> list[dict[str, str]]:
    """Coherence of classes beside the same methods shuffled within their projects."""
    rows = []
    for writer, found in numbers["classes"].items():
        for name in CLASSES:
            gap = found["above_shuffled"].get(name)
            rows.append({"writer": f"{writer}: {found['classes']} classes, {found['methods']} "
                                   "methods", "measure": name,
                         "of one class": percent(found["measures"].get(name)),
                         "shuffled": percent(found["shuffled"].get(name)),
                         "against shuffled": gap["verdict"] if gap else "not tested"})
    return rows


def alone_line(numbers: Numbers) -> str:
    """What the model's methods gain from seeing those before them, beyond their head."""
    found = numbers["classes"]["model"]["alone"]
    said = "; ".join(f"{name} {gap['verdict'] if gap else 'not tested'}"
                     for name, gap in found["above"].items())
    return (f"The model's methods of a class, written one after the other, against as many that "
            f"it wrote one by one behind the same heads ({found['methods']} methods of "
            f"{found['classes']} classes on either side, lengths not equalised): {said}.")


def completion_rows(numbers: Numbers) -> list[dict[str, str]]:
    """The model less each rival, on the same cases."""
    found = numbers["completion"]
    return [{"rival": rival, "measure": measure,
             "difference, points": f"{100 * gap['value']:+.1f} "
             f"({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})",
             "model against rival": gap["verdict"], "projects where ahead": _ahead(
                 found["by_project"], rival, measure)}
            for rival, measures in found["differences"].items()
            for measure, gap in measures.items()]


def _ahead(projects: Numbers, rival: str, measure: str) -> str:
    shares = [each["shares"] for each in projects.values()]
    ahead = sum(each["model"][measure] > each[rival][measure] for each in shares)
    return f"{ahead} of {len(shares)}"


def completion_lines(found: Numbers) -> list[str]:
    """Who completes best: the level, the verdict on the same tokens, and on the last selector."""
    return [f"Completion, {name}: " + ", ".join(
        f"{rival} {100 * each[kind]['value']:.1f} %" for rival, each in found["rivals"].items())
        + "; the model against " + ", ".join(
            f"{rival}: {gap[kind]['verdict']}" for rival, gap in found["differences"].items())
        + "." for kind, name in (("exact", "the same tokens"), ("selector", "the last selector"))]


def correlation_rows(numbers: Numbers) -> list[dict[str, str]]:
    """Spearman's rank correlation of the shown measures with the loss, and what is left late on.

    Those that never move, or are not shown elsewhere on the page, are left out.
    """
    found = numbers["checkpoints"]["correlation"]
    return [{"measure": name, "with the loss": _rank(found[name]),
             "later half": _rank(found[name].get("late")),
             "step to step": _rank(found[name].get("changes"))} for name in _moving(found)]


def _moving(found: Numbers) -> list[str]:
    return [name for name in dict.fromkeys((*COURSE, *MEASURES)) if found[name] is not None]


def correlation_line(numbers: Numbers) -> str:
    """Which of the shown measures go with the loss, as if the checkpoints were independent."""
    found = numbers["checkpoints"]["correlation"]
    ways: dict[str, list[str]] = {"rise": [], "fall": [], "do neither clearly": []}
    for name in _moving(found):
        low, high = found[name]["low"], found[name]["high"]
        ways["rise" if high < 0 else "fall" if low > 0 else "do neither clearly"].append(name)
    steps = [found[name]["changes"] for name in _moving(found) if found[name].get("changes")]
    clear = sum(each["low"] > 0 or each["high"] < 0 for each in steps)
    said = [f"{way}: {', '.join(name.replace(', ', ' by ') for name in names)}"
            for way, names in ways.items() if names]
    return ("As the loss falls, these " + "; these ".join(said)
            + ". The loss is that of the validation projects, the measures those of the test "
            "projects; none is corrected for their number. "
            f"From one checkpoint to the next {clear} of {len(steps)} go with it. The "
            "intervals take the checkpoints for independent, which they are not: they are too "
            "narrow.")


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
    """How much of each writer's valid methods stands in the training text."""
    return [{"writer": name, "methods": f"{found['methods']:,}",
             "word for word": percent(found["word_for_word"], 1),
             "longest run, mean tokens": plain(found["run"]),
             "of the method's tokens": percent(found["share"]),
             "longest of all, tokens": f"{found['longest']['run']:,}: "
                                       f"{_short(found['longest']['text'])}"}
            for name, found in numbers["copied"].items()]


def _short(text: str, most: int = 24) -> str:
    words = " ".join(text.split())
    return words if len(words) <= most else f"{words[: most - 1]}…"


def copied_line(numbers: Numbers, writer: str) -> str:
    """A writer's copied shares less people's, quarter by quarter of lengths."""
    names = ("shortest quarter", "second", "third", "longest")  # of the training lengths
    quarters: Sequence[Numbers | None] = numbers["copied"][writer]["less_people"]
    return (f"The copied share of {writer} less that of people, by length: " + "; ".join(
        f"{name} {100 * gap['value']:+.0f} points ({100 * gap['low']:+.0f} to "
        f"{100 * gap['high']:+.0f}), {gap['verdict']}" if gap else f"{name} none to compare"
        for name, gap in zip(names, quarters, strict=True)) + ".")


def other_lines(numbers: Numbers) -> list[str]:
    """How surprised model and counting are by unseen projects."""
    found = numbers["surprise"]
    lines = ["Bits per character on unseen projects: " + ", ".join(
        f"{name} {each['value']:.3f}" for name, each in found["bits_per_character"].items()) + "."]
    for name, gap in found["differences"].items():
        ours, theirs = (found["by_project"][each] for each in ("model", name))
        fewer = sum(ours[project] < theirs[project] for project in ours)
        lines.append(f"The model less {name}: {gap['value']:+.3f} ({gap['low']:+.3f} to "
                     f"{gap['high']:+.3f}), {gap['verdict']}; fewer bits in {fewer} of "
                     f"{len(ours)} projects.")
    return lines
