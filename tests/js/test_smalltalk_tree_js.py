"""The page tells a parse tree in the words of the package, and an error at its place."""

from __future__ import annotations

import random
from pathlib import Path

from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.outlines import outline
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import MethodRecord
from tests.js.test_smalltalk_syntax_js import CORNERS
from tests.node import passed, run_figure

LIBRARY = Path(__file__).resolve().parents[2] / "data" / "smalltalk"


def case(source: str) -> dict:
    try:
        return {"source": source, "lines": outline(parse_method(source)), "fault": None}
    except SmalltalkSyntaxError as error:
        return {"source": source, "lines": None,
                "fault": {"line": error.line, "column": error.column}}


def test_smalltalk_tree(tmp_path):
    draw = random.Random(1)
    library = draw.sample([record.source for record in read_folder(LIBRARY, "course")
                           if isinstance(record, MethodRecord)], 150)
    cut = [source[:draw.randrange(len(source))] for source in library]
    cases = [case(source) for source in CORNERS + library + cut]
    faults = sum(each["lines"] is None for each in cases)
    assert faults > 50 and len(cases) - faults > 150
    assert passed(run_figure("smalltalk_tree", tmp_path, cases)) == 3
