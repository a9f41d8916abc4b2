"""The tables of chapter 09, and the sentences that its recorded results write.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from scratchbook.accounting import total_parameters
from scratchbook.smalltalk import nodes
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.records import MethodRecord
from scratchbook.smalltalk_model import RECIPES, load_tokenizer
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


def task_rows(numbers: Mapping[str, Any]) -> list[dict[str, object]]:
    """The five tasks: examples, characters to be learned, leaks found by the audit."""
    rows = []
    for task, found in numbers["account"]["train"].items():
        held = [numbers["audit"][f"{split}: {task}"] for split in ("validation", "test")]
        rows.append({"task": task, "training examples": found["examples"],
                     "characters learned": found["learned_characters"],
                     "projects": found["projects"], "inequality (Gini)": found["gini"],
                     "held-out examples": sum(each["examples"] for each in held),
                     "told by training": sum(each["exact"] for each in held)})
    return rows


def cost_rows(numbers: Mapping[str, Any]) -> list[dict[str, str]]:
    """What each recipe asks for: computed for the graphics cards, measured here where it ran."""
    rows = []
    for found in numbers["cost"]:
        ran = found["recipe"] == "small"
        rows.append({"recipe": found["recipe"], "parameters": f"{found['parameters']:,}",
                     "tokens": f"{found['tokens'] / 1e6:,.0f} million",
                     "memory, GB": f"{found['bytes'] / 1e9:.1f}",
                     "a processor here, hours": f"{numbers['predicted_cpu_seconds'] / 3600:.1f}"
                     if ran else "",
                     **{f"{name}, hours": f"{hours:.2g}"
                        for name, hours in found["hours"].items()}})
    return rows


def cost_line(numbers: Mapping[str, Any]) -> str:
    """Predicted against measured, as a sentence."""
    predicted, spent = numbers["predicted_cpu_seconds"], numbers["cpu_seconds"]
    return (f"small, {numbers['steps']:,} of {numbers['max_steps']:,} steps, "
            f"{numbers['tokens']:,} tokens: predicted {predicted:,.0f} seconds of a processor, "
            f"measured {spent:,.0f}: {spent / predicted - 1:+.0%}")


def range_rows() -> list[dict[str, str]]:
    """What was asked of the model's shape, and what the recipes for a graphics card have."""
    found = [RECIPES[name].with_vocabulary(load_tokenizer().vocab_size).model
             for name in ("23m", "89m")]
    asked = [("6 to 12 layers", [c.num_layers for c in found], 6, 12),
             ("512 to 768 wide", [c.d_model for c in found], 512, 768),
             ("8 to 12 heads", [c.num_heads for c in found], 8, 12),
             ("feed-forward 2.5 times as wide", [c.d_ff / c.d_model for c in found], 2.5, 2.5),
             ("about 10,000 tokens (9,000 to 11,000)", [c.vocab_size for c in found], 9e3, 11e3),
             ("under 100 million parameters", [total_parameters(c) for c in found], 0, 1e8 - 1)]
    return [{"asked": said, "23m": f"{values[0]:,}", "89m": f"{values[1]:,}",
             "verdict": "met" if all(low <= value <= high for value in values) else "missed"}
            for said, values, low, high in asked]


def kinds_of(source: str) -> Counter[str]:
    """How many nodes of each kind a method has."""
    return Counter(type(node).__name__.removesuffix("Node") for node in
                   parse_method(source).walk())
