"""Parsers of Smalltalk that nobody here wrote, and one-edit breakages to compare them on.

`python tests/judges.py FOLDER [SEED]` prints the agreement of the three over a folder of sources.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.lexer import tokenize
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import MethodRecord

HERE = Path(__file__).resolve().parent
OPERANDS = ("name", "number", "string", "symbol", "character", "constant")


def ours(source: str) -> bool:
    try:
        return bool(parse_method(source))
    except SmalltalkSyntaxError:
        return False


def tree_sitter_judge() -> Callable[[str], bool]:
    """Whether the grammar of pharo-tree-sitter reads a method without an error node, or a skip."""
    reason = "pip install pharo-tree-sitter: the parser is not compared with it"
    tree_sitter = pytest.importorskip("tree_sitter", reason=reason)
    grammar = pytest.importorskip("tree_sitter_pharo", reason=reason)
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    return lambda source: not parser.parse(source.encode()).root_node.has_error


def amber_judge() -> Callable[[list[str]], list[bool]]:
    """The parser of the npm package amber, which is stricter than Pharo's, or a skip."""
    where = os.environ.get("SCRATCHBOOK_AMBER", str(HERE.parent / "node_modules" / "amber"))
    parser, node = Path(where) / "support" / "parser.js", shutil.which("node")
    if not (node and parser.exists()):
        pytest.skip("npm install amber@0.14.18, and SCRATCHBOOK_AMBER=its folder: not compared")

    def accepted(sources: list[str]) -> list[bool]:
        done = subprocess.run([node, str(HERE / "js" / "amber_judge.mjs"), str(parser)],
                              input=json.dumps(sources), capture_output=True, text=True,
                              encoding="utf-8", timeout=600, check=True)
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


def methods_of(folder: Path) -> list[str]:
    return [record.source for record in read_folder(folder, folder.name)
            if isinstance(record, MethodRecord)]


def main(folder: str, seed: str = "0") -> None:
    rng, tree_sitter = random.Random(int(seed)), tree_sitter_judge()
    valid = [source for source in methods_of(Path(folder)) if ours(source)]
    rows = [("as it is", source) for source in valid]
    rows += [row for source in valid for row in broken_once(source, rng)]
    amber = amber_judge()([source for _, source in rows])
    counts = Counter((kind, ours(source), tree_sitter(source), third)
                     for (kind, source), third in zip(rows, amber, strict=True))
    print("edit, then accepted by: ours, pharo-tree-sitter, amber; number")
    for row, number in sorted(counts.items()):
        print(*row, number)


if __name__ == "__main__":
    main(*sys.argv[1:])
