"""The tables of chapter 09, and the sentences that its recorded results write.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from scratchbook.companions.smalltalk_tokenizers import LAYOUT, OURS, PLAIN
from scratchbook.evaluation.comparing import bootstrap, paired, wilson
from scratchbook.smalltalk import nodes
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.measures import known_sends
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.records import MethodRecord
from scratchbook.teaching.results import Result, load_result

MISSING = "not recorded yet"
SIMPLE = ("string", "symbol", "constant", "number")


def recorded(name: str) -> Result | None:
    """A part of the chapter's recorded results, or None where it is not there."""
    try:
        return load_result(f"09_smalltalk.{name}")
    except FileNotFoundError:
        return None


def simple_sends(methods: Sequence[MethodRecord]) -> list[tuple[str, nodes.SendNode]]:
    """The largest expressions that consist of messages, names and simple literals, with trees."""
    found = []
    for method in methods:
        inner: set[int] = set()
        for node in parse_method(method.source, method.dialect).walk():
            if id(node) in inner or not isinstance(node, nodes.SendNode):
                continue
            parts, text = list(node.walk()), method.source[node.start:node.stop]
            if all(map(_is_simple, parts)) and '"' not in text:
                inner |= set(map(id, parts))
                found.append((text, node))
    return found


def _is_simple(node: nodes.Node) -> bool:
    if isinstance(node, nodes.LiteralNode):
        word = node.source.strip("'#")
        return node.kind in SIMPLE and word.isalnum() and (node.kind != "number" or word.isdigit())
    return isinstance(node, nodes.SendNode | nodes.VariableNode)


def plain(found: Mapping[str, Any]) -> str:
    """A mean with its interval."""
    return f"{found['value']:.1f} ({found['low']:.1f} to {found['high']:.1f})"


def percent(share: Mapping[str, Any] | None, digits: int = 0) -> str:
    """A share with its interval, as text; empty where nothing was counted."""
    if share is None or share["value"] is None:
        return "nothing to count"
    value, low, high = (100 * share[key] for key in ("value", "low", "high"))
    return f"{value:.{digits}f} % ({low:.{digits}f} to {high:.{digits}f})"


def funnel_rows(numbers: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row a step of the corpus: methods, MB, what is left, and MB of each licence."""
    steps: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in numbers["steps"]:
        steps.setdefault(entry["step"], {})[entry["licence"]] = entry
    licences = list(dict.fromkeys(entry["licence"] for entry in numbers["steps"]))
    rows, before = [], 0
    for step, found in steps.items():
        size = sum(entry["bytes"] for entry in found.values())
        rows.append({"step": step,
                     "methods": f"{sum(entry['methods'] for entry in found.values()):,}",
                     "MB": f"{size / 1e6:.1f}", "MB left": f"{size / before:.0%}" if before else "",
                     **{f"MB, {licence}": f"{found[licence]['bytes'] / 1e6:.1f}"
                        if licence in found else "0.0" for licence in licences}})
        before = size
    return rows


def audit_lines(corpus: Mapping[str, Any], read: Mapping[str, Any]) -> list[str]:
    """What an audit finds in the methods as they were written, and in those that the model read.

    Between the two stands the printer's style, and what a filter of lengths makes of it.
    """
    lines = []
    for name, audit in (("as written", corpus["audit"]), ("in one style", read["audit"])):
        for split, found in audit.items():
            near = ", ".join(f"{100 * value:.2f} % at {limit} or more"
                             for limit, value in found["near"].items())
            lines.append(f"{split}, {name}: {found['exact']} of {found['methods']:,} word for "
                         f"word in the training text; of {found['compared']:,} long ones {near}.")
    return [*lines, equal_line(read)]


def equal_line(read: Mapping[str, Any]) -> str:
    """How many held-out methods stand word for word in what the model read."""
    alike = "; ".join(f"{found['exact']} of {found['methods']:,} {split} methods stand word for "
                      "word in the training text" for split, found in read["audit"].items())
    return (f"Written in one style, methods become equal: {alike}. (`prepare --format` has since "
            "compared once more in that style; the model was not trained again.)")


def parser_rows(numbers: Mapping[str, Any]) -> list[dict[str, object]]:
    """For each edit: how many methods each parser accepts, and on how many ours and it differ."""
    edits = dict.fromkeys(["as it is"] + [entry["edit"] for entry in numbers["counts"]])
    rows = []
    for edit in edits:
        mine = [entry for entry in numbers["counts"] if entry["edit"] == edit]

        def count(*keys: str, mine: list = mine) -> int:
            return sum(entry["methods"] for entry in mine if all(entry[key] for key in keys))

        total = sum(entry["methods"] for entry in mine)
        rows.append({"edit": edit, "methods": total, "accepted by ours": count("ours"),
                     "tree-sitter": count("tree-sitter"), "amber": count("amber"),
                     "by all three": count("ours", "tree-sitter", "amber"),
                     "ours and tree-sitter differ":
                         count("ours") + count("tree-sitter") - 2 * count("ours", "tree-sitter")})
    return rows


def sides(numbers: Mapping[str, Any]) -> str:
    """Which of two parsers refuses where they differ, and what the third one's word is worth."""
    apart = [entry for entry in numbers["counts"] if entry["ours"] != entry["tree-sitter"]]
    refused = sum(entry["methods"] for entry in apart if not entry["ours"])
    total = sum(entry["methods"] for entry in apart)
    ours = sum(entry["methods"] for entry in apart if entry["amber"] == entry["ours"])
    whole = [entry for entry in numbers["counts"]
             if entry["edit"] == "as it is" and entry["ours"] and entry["tree-sitter"]]
    valid = sum(entry["methods"] for entry in whole)
    strict = sum(entry["methods"] for entry in whole if not entry["amber"])
    said = (f"Ours and tree-sitter differ on {total:,} methods: ours refuses {refused:,} of them, "
            f"tree-sitter {total - refused:,}; amber says what ours says on {ours:,}.")
    if refused and strict:
        said += (f" But amber also refuses {strict:,} of {valid:,} unbroken methods that both "
                 "accept: that a strict parser sides with a refusal proves little.")
    return said


def ratio_rows(numbers: Mapping[str, Any]) -> list[dict[str, str]]:
    """How many times as many characters per token as each rival, against the aim."""
    return [{"against": name,
             "vocabulary": f"{numbers['vocab_size'][name]:,}",
             "times as many characters per token":
                 f"{found['mean']:.2f} ({found['low']:.2f} to {found['high']:.2f})",
             "aim": f"{found['target']:g}" + (" (more)" if found["target"] == 1 else ""),
             "verdict": found["verdict"],
             "as written": numbers["as_written"]["ratios"][name]["verdict"]}
            for name, found in numbers["ratios"].items()]


def gain_line(numbers: Mapping[str, Any]) -> str:
    """How much of the gain over plain byte-pair encoding comes with whole line breaks alone."""
    rows = numbers["chars_per_token"]

    def times(first: str, second: str) -> str:
        ratios = [rows[first][project] / rows[second][project] for project in rows[first]]
        found = paired(ratios, [0.0] * len(ratios))
        return f"{found.value:.2f} times ({found.low:.2f} to {found.high:.2f})"

    return (f"Characters per token: a line break kept whole gives {times(LAYOUT, PLAIN)} those of "
            f"{PLAIN}; the cut at messages and marks, beyond that, {times(OURS, LAYOUT)}; both "
            f"together {times(OURS, PLAIN)}.")


def task_rows(numbers: Mapping[str, Any]) -> list[dict[str, object]]:
    """The five tasks: examples, characters to be learned, what of the held-out ones is told.

    Held-out code that a training example holds exactly was dropped there; what is left to find
    are answers that nearly equal one.
    """
    rows = []
    for task, found in numbers["account"]["train"].items():
        held = [numbers["audit"][f"{split}: {task}"] for split in ("validation", "test")]
        rows.append({"task": task, "training examples": found["examples"],
                     "characters learned": found["learned_characters"],
                     "projects": found["projects"], "inequality (Gini)": found["gini"],
                     "held-out examples": sum(each["examples"] for each in held),
                     "long answers nearly told":
                         f"{sum(round(each['near'] * each['compared']) for each in held):,} of "
                         f"{sum(each['compared'] for each in held):,}"})
    return rows


def kinds_of(source: str) -> Counter[str]:
    """How many nodes of each kind a method has."""
    return Counter(type(node).__name__.removesuffix("Node") for node in
                   parse_method(source).walk())


def sample_row(name: str, sources: Sequence[str], selectors: Collection[str],
               cut_off: int = 0) -> dict[str, object]:
    """Of some sources: how many are methods, how long, and how many messages are known.

    Messages of one method share their luck, so it is methods that are redrawn for the interval.
    Where all methods agree, redrawing shows nothing: then each method counts as one try.
    """
    known, valid = [], 0
    for source in sources:
        try:
            tree = parse_method(source)
        except SmalltalkSyntaxError:
            continue
        valid += 1
        if (found := known_sends(tree, frozenset(selectors))).total:
            known.append(found)
    lengths, told = sorted(map(len, sources)), "nothing to count"
    if known:
        shares = [found.value for found in known]
        told = percent((bootstrap(shares, [found.total for found in known])
                        if len({*shares}) > 1 else wilson(sum(shares), len(shares)))._asdict())
    return {"writer": name, "methods": len(sources),
            "valid": percent(wilson(valid, len(sources))._asdict()),
            "cut off": cut_off,
            "median characters": lengths[len(lengths) // 2],
            "messages in valid ones": sum(found.total for found in known),
            "of known selectors": told}
