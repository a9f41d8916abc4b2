"""Parsers of Smalltalk that nobody here wrote, and one-edit breakages to compare them on.

`python tests/judges.py FOLDER [SEED]` prints the agreement of the three over a folder of sources.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from scratchbook.companions.smalltalk_parsers import amber, broken_once, tree_sitter
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import MethodRecord

HERE = Path(__file__).resolve().parent


def ours(source: str) -> bool:
    try:
        return bool(parse_method(source))
    except SmalltalkSyntaxError:
        return False


def tree_sitter_judge() -> Callable[[str], bool]:
    """Whether the grammar of pharo-tree-sitter reads a method without an error node, or a skip."""
    reason = "pip install pharo-tree-sitter: the parser is not compared with it"
    pytest.importorskip("tree_sitter", reason=reason)
    pytest.importorskip("tree_sitter_pharo", reason=reason)
    return tree_sitter()


def amber_judge() -> Callable[[list[str]], list[bool]]:
    """The parser of the npm package amber, which is stricter than Pharo's, or a skip."""
    where = os.environ.get("SCRATCHBOOK_AMBER", str(HERE.parent / "node_modules" / "amber"))
    if not (shutil.which("node") and (Path(where) / "support" / "parser.js").exists()):
        pytest.skip("npm install amber@0.14.18, and SCRATCHBOOK_AMBER=its folder: not compared")
    return amber(where)


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
