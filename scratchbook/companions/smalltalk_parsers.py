"""Three parsers beside each other: ours, pharo-tree-sitter's grammar, and that of the npm amber.

    scratchbook smalltalk collect --output smalltalk
    npm install amber@0.14.18
    python -m scratchbook.companions.smalltalk_parsers smalltalk AMBER

AMBER is the folder node_modules/amber. Methods are drawn from the held-out projects before any
parser has seen them, then broken by one edit of each kind; recorded is how many each combination
of the three accepts, and no text.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from scratchbook.runtime import repository_root
from scratchbook.smalltalk.collecting import load_manifest
from scratchbook.smalltalk.lexer import tokenize
from scratchbook.smalltalk.preparing import cleaned, objection, read_checkout
from scratchbook.smalltalk.records import MethodRecord
from scratchbook.smalltalk.viable import is_method

OPERANDS = ("name", "number", "string", "symbol", "character", "constant")
AS_IT_IS = "as it is"


def tree_sitter() -> Callable[[str], bool]:
    """Whether the grammar of pharo-tree-sitter reads a method without an error node.

    Raises:   ImportError where it is not installed
    """
    import tree_sitter
    import tree_sitter_pharo

    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_pharo.language()))
    return lambda source: not parser.parse(source.encode()).root_node.has_error


def amber(package: str | Path) -> Callable[[list[str]], list[bool]]:
    """Which methods the parser of the npm package amber, in this folder, accepts; it needs node."""
    script = (repository_root() or Path.cwd()) / "tests" / "js" / "amber_judge.mjs"
    parser = Path(package) / "support" / "parser.js"

    def accepted(sources: list[str]) -> list[bool]:
        done = subprocess.run(["node", str(script), str(parser)], input=json.dumps(sources),
                              capture_output=True, text=True, encoding="utf-8", timeout=600,
                              check=True)
        return json.loads(done.stdout)

    return accepted


def broken_once(source: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """One edit of each kind that has a place in this method; some leave it valid, as in life."""
    tokens = tokenize(source)
    code = [token for token in tokens if token.kind != "comment"]
    ends = [(each.start + len(each.text) - 1, each) for each in code]
    places = {
        "bracket": [end for end, each in ends if each.text in "()[]{}"
                    or each.kind in ("array", "bytes")],
        "quote": [at for at, character in enumerate(source) if character in "'\""],
        "period": [each.start for each in code if each.text == "."],
        "colon": [end for end, each in ends if each.kind == "keyword" or each.text == ":"]
        + [each.start for each in code if each.text == ":="],
        "temp bar": [each.start for each in code[1:] if each.text in ("|", "||")],
    }
    for kind, found in places.items():
        if found:
            at = rng.choice(found)
            yield kind, source[:at] + source[at + 1:]
    operands = [each for each in code[1:] if each.kind in OPERANDS]
    if operands:
        each = rng.choice(operands)
        yield "operand", source[:each.start] + source[each.start + len(each.text):]
    closers = [each for each in code if each.text in (")", "]", "}")]
    if closers:
        each = rng.choice(closers)
        other = rng.choice([text for text in ")]}" if text != each.text])
        yield "closer swapped", source[:each.start] + other + source[each.start + 1:]
    if len(source) > 10:
        yield "truncation", source[:rng.randrange(3, len(source))]


def unjudged(collected: str, split: str = "test") -> list[str]:
    """The cleaned methods of a split's projects, none twice; no parser has chosen among them."""
    found: dict[str, None] = {}
    for checkout in load_manifest(collected):
        if checkout.split != split or checkout.error:
            continue
        for record in read_checkout(checkout):
            if isinstance(record, MethodRecord) and not objection(record := cleaned(record)):
                found.setdefault(record.source)
    return list(found)


def compare(sources: list[str], package: str | Path, seed: int = 0) -> dict[str, Any]:
    """How many methods each combination of the three accepts, as they are and broken once."""
    rng, grammar = random.Random(seed), tree_sitter()
    rows = [(AS_IT_IS, source) for source in sources]
    rows += [row for source in sources if is_method(source) for row in broken_once(source, rng)]
    third = amber(package)([source for _, source in rows])
    counts = Counter((kind, is_method(source), grammar(source), stricter)
                     for (kind, source), stricter in zip(rows, third, strict=True))
    return {"methods": len(sources),
            "versions": {"tree-sitter": metadata.version("pharo-tree-sitter"),
                         "amber": json.loads(Path(package, "package.json").read_text("utf-8"))[
                             "version"]},
            "counts": [{"edit": kind, "ours": ours, "tree-sitter": other, "amber": stricter,
                        "methods": number}
                       for (kind, ours, other, stricter), number in sorted(counts.items())]}


if __name__ == "__main__":
    from scratchbook.teaching import record

    if len(sys.argv) != 3:
        sys.exit(__doc__)
    methods = unjudged(sys.argv[1])
    drawn = random.Random(0).sample(methods, min(2_000, len(methods)))
    record("09_smalltalk.parsers", compare(drawn, sys.argv[2]), seeds=[0],
           command="python -m scratchbook.companions.smalltalk_parsers smalltalk AMBER")
