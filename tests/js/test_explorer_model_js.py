"""The reader's own text in the page: the view and the overlay that the package would make of it."""

from __future__ import annotations

import json
import random
from pathlib import Path

from scratchbook.companions.explorer_reader import reading_model
from scratchbook.companions.smalltalk_page import page_scripts
from scratchbook.interpret import AttentionView
from scratchbook.interpret.token_overlays import token_overlay
from scratchbook.smalltalk import parts
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import MethodRecord
from scratchbook.smalltalk_model import load_smalltalk
from tests.node import passed, run_figure
from tests.tiny_smalltalk import SOURCE, shipped, small_tokenizer, tiny

LIBRARY = Path(__file__).resolve().parents[2] / "data" / "smalltalk"
METHODS = [
    SOURCE,
    "at: i put: v <primitive: 60> | t | <foo: #'|'> t := 'grüße 😀'. ^ (a b; + 3; c: 1 "
    "d: [:x :y || z | z := x-2. [ | x | x := y ] value]) e",
    "+ other \"c\" ^ self \"d\" foo", "x ^ thisContext",
    "foo || ^ {1. #(a #b $c) . #[1 2]}", "a ^ x ||| y"]


def file_of(folder: Path) -> dict:
    """What the page loads, put together as its scripts do."""
    found = page_scripts(folder)
    whole, text = None, ""
    for name, script in found.items():
        value = json.loads(script.split(" = ", 1)[1].rstrip(";\n"))
        if name == "smalltalk_weights.js":
            whole = value
        else:
            text += value["text"]
    return {"tables": whole["tables"], "tokenizer": whole["tokenizer"], "weights": text}


def units(source: str, spans: list[tuple[int, int]]) -> list[list[int]]:
    """Spans in units of JavaScript's strings."""
    place = [0]
    for letter in source:
        place.append(place[-1] + len(letter.encode("utf-16-le")) // 2)
    return [[place[start], place[stop]] for start, stop in spans]


class _Text:
    """As much of a view as an overlay asks for."""

    def __init__(self, source: str, draw: random.Random) -> None:
        cuts = sorted({0, len(source), *(draw.randrange(len(source)) for _ in range(30))})
        self.text, self.spans = source, list(zip(cuts, cuts[1:], strict=False))


def overlay_case(source: str, draw: random.Random) -> dict:
    text = _Text(source, draw)
    return {"source": source, "spans": units(source, text.spans),
            "overlay": token_overlay(text, "smalltalk")}


def test_explorer_model(tmp_path):
    draw = random.Random(1)
    library = draw.sample([each.source for each in read_folder(LIBRARY, "course")
                           if isinstance(each, MethodRecord)], 200)
    cases = [overlay_case(source, draw) for source in [*METHODS, *library]]
    (tmp_path / "model").mkdir()
    folder = shipped(tmp_path / "model", tiny(small_tokenizer().vocab_size, num_layers=3))
    model, tokenizer = load_smalltalk(folder)
    texts = []
    # some begin as the one before did: those parts are not read again
    for text in (*METHODS[:4], SOURCE, SOURCE[:60], SOURCE, SOURCE[:40] + "xyz" + SOURCE[43:]):
        view = AttentionView(model, text, tokenizer,
                             before=[tokenizer.special_tokens[parts.METHOD]])
        view.name = "tiny"
        texts.append({"text": text, "view": json.loads(view.to_json()),
                      "overlay": token_overlay(view, "smalltalk")})
    pieces = [b"ab", b"\xc3", b"\xa9", "é😀".encode(), b"\xf0\x9f\x98", b"a\xe2\x82", b"\xff"]
    spelled = [{"bytes": list(each), "text": each.decode(errors="backslashreplace")}
               for each in pieces]
    assert passed(run_figure("explorer_model", tmp_path, {
        "file": file_of(folder), "before": [parts.METHOD], "name": "tiny", "texts": texts,
        "overlays": cases, "spelled": spelled})) == 4


def test_what_the_page_is_told_of_the_model():
    told = reading_model()
    assert told["source"].endswith("smalltalk_weights.js") and told["megabytes"] >= 1
    assert told["before"] == [parts.METHOD]
