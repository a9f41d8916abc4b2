"""The page's Smalltalk tokenizer gives the ids of the package's own."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from scratchbook.companions.smalltalk_page import page_tokenizer
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.smalltalk.tasks import definition_of
from scratchbook.smalltalk_model import load_tokenizer
from tests.js.test_tokens_js import fuzz
from tests.node import passed, run_figure

LIBRARY = Path(__file__).resolve().parents[2] / "data" / "smalltalk"
CORNERS = ["", " ", "\n\n\t", "self", "selfish size", "a := self b: c", "x:=y",
           "#at:put: , #+ , ##a", "at: self put: x", ")].\n\t^ self size", "'it''s' \"no\"",
           "$a $' $\n", "[ :each | | t | ]", "{ #( #[ (((", "12345 16r1F 1e10", "a" * 400,
           "-" * 300, "\r\n\r", "<|end|> <|method|>", "<primitive: 1>", ";\n\t\tyourself",
           "||  | |", "nil ifNil: [ { 'a' } ]",
           "\ufeffx", "\x00"]


def record_of(record: ClassRecord) -> dict:
    return {"name": record.name, "superclass": record.superclass, "comment": record.comment,
            "variables": list(record.instance_variables), "package": record.category}


def test_smalltalk_tokens(tmp_path):
    tokenizer, draw = load_tokenizer(), random.Random(0)
    found = list(read_folder(LIBRARY, "course"))
    methods = [record.source for record in found if isinstance(record, MethodRecord)]
    assert len(methods) >= 1500
    letters = "aZ_09é\x80ü:=^.;|()[]{}#$'\"<>+-,!@ \t\n\x1f中🙂"
    mixed = ["".join(draw.choices(letters, k=draw.randrange(1, 40))) for _ in range(1000)]
    texts = CORNERS + methods + [m.replace("\t", "  ") for m in methods[:500]] + mixed + fuzz(2000)
    cases = [{"text": text, "ids": tokenizer.encode_ordinary(text), "chunks": tokenizer.split(text)}
             for text in texts]
    runs = [draw.choices(range(tokenizer.vocab_size), k=20) for _ in range(300)]
    runs += [draw.choices(range(128, 256), k=12) for _ in range(300)]  # parts of letters
    # the figure has no field for what its classes never have
    records = [replace(record, class_variables=(), is_trait=False)
               for record in found if isinstance(record, ClassRecord)]
    printed = run_figure("smalltalk_tokens", tmp_path, {
        "tokenizer": page_tokenizer(tokenizer), "texts": cases,
        "runs": [{"ids": ids, "text": tokenizer.decode(ids)} for ids in runs],
        "records": [{"record": record_of(record), "text": definition_of(record)}
                    for record in records]})
    assert passed(printed) == 4
