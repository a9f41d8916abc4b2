"""The Smalltalk model in the published page: its figure in a notebook, and its files for the site.

The figure computes with the codes of the shipped file, in the reader's browser. A page that is
opened from a disk may run scripts but not fetch data: so the file becomes scripts, which lie once
beside the site's pages and are loaded when the reader asks for the model.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from dataclasses import dataclass
from pathlib import Path

from scratchbook.compression.quantize import dynamic_map, table_of
from scratchbook.smalltalk.records import ClassRecord
from scratchbook.smalltalk.tasks import definition_of
from scratchbook.smalltalk_model import TOKENIZER, WEIGHTS, model_folder
from scratchbook.teaching.live_figures import living, living_html
from scratchbook.tokenizers.bpe_files import to_visible
from scratchbook.tokenizers.smalltalk import PATTERN, SmalltalkTokenizer

FIGURE = "smalltalk_writer"
COMPUTED_BY = ("smalltalk_tokens", "safetensors", "smalltalk_model", "smalltalk_syntax",
               "smalltalk_worker", "smalltalk_paper", "smalltalk_tree")
SCRIPT = "smalltalk_weights"
PLACE = f"../live/{SCRIPT}.js"  # from a chapter of the built site
PART = 1_000_000  # characters of a script, so that a reader sees the model come
VARIABLE = "Scratchbook.smalltalkWeights"


@dataclass(frozen=True)
class Beginning:
    """A class, and how one of its methods begins: what the figure offers to start with."""

    record: ClassRecord
    begun: str


BEGINNINGS = (
    Beginning(ClassRecord("Account", "Object", ("owner", "balance"),
                          comment="I am a bank account.", category="Bank"),
              "deposit: anAmount\n\t"),
    Beginning(ClassRecord("Point3D", "Object", ("x", "y", "z"),
                          comment="I am a point in space.", category="Geometry"),
              "distanceTo: aPoint\n\t"),
    Beginning(ClassRecord("Stack", "Object", ("elements",),
                          comment="I keep elements; the last one in comes out first.",
                          category="Collections"), "push: anObject\n\t"),
    Beginning(ClassRecord("StackTest", "TestCase", ("stack",), category="Collections-Tests"),
              "testPush\n\t"),
)


def page_scripts(folder: str | Path | None = None) -> dict[str, str]:
    """The scripts that bring a model of `save_compressed` and its tokenizer to the page, by name.

    `folder` holds both files; None is the shipped one. The first script names the tokenizer and
    the tables of codes, the others hold the weights' file in base64, `PART` characters each.

    Raises:   FileNotFoundError when a file is missing
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    folder = model_folder() if folder is None else Path(folder)
    raw = (folder / WEIGHTS).read_bytes()
    text = base64.b64encode(raw).decode("ascii")
    parts = [text[start : start + PART] for start in range(0, len(text), PART)]
    tokenizer = page_tokenizer(SmalltalkTokenizer.load(folder / TOKENIZER))
    digest = hashlib.sha256(raw + json.dumps(tokenizer).encode()).hexdigest()[:16]
    first = {"digest": digest, "count": len(parts), "parts": [], "tables": _tables(),
             "tokenizer": tokenizer}
    scripts = {f"{SCRIPT}.js": f"{VARIABLE} = {_script(first)};\n"}
    for number, part in enumerate(parts, 1):
        scripts[f"{SCRIPT}_{number}.js"] = (
            f"{VARIABLE}.parts[{number}] = {_script({'of': digest, 'text': part})};\n")
    return scripts


def page_tokenizer(tokenizer: SmalltalkTokenizer) -> dict:
    """What a browser needs to encode as the package does: the first cut, tokens by id, the rest."""
    ordered = sorted(tokenizer.ranks.items(), key=lambda item: item[1])
    if [rank for _, rank in ordered] != list(range(len(ordered))):
        raise ValueError(f"{tokenizer} leaves ids below {ordered[-1][1]} free: train it again")
    # a quote needs no backslash, and in JavaScript's Unicode patterns must not have one
    return {"pattern": PATTERN.replace('\\"', '"'), "special": tokenizer.special_tokens,
            "tokens": [to_visible(token) for token, _ in ordered]}


def _tables() -> dict[str, list[float]]:
    """The numbers that codes stand for, those of doubly quantized scales among them."""
    tables = {kind: table_of(kind).tolist() for kind in ("int4", "nf4", "fp4")}
    return tables | {"scales": dynamic_map().tolist()}


def _script(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def smalltalk_writer(source: str, begun: str, record: ClassRecord,
                     beginnings: tuple[Beginning, ...] = BEGINNINGS) -> None:
    """Show the figure in which the shipped model writes methods, in the reader's browser.

    `source` is what the model wrote behind `begun` in the class `record`; it stands there when
    scripts are off.

    Raises:   ValueError when `source` does not begin with `begun`, or no beginning is given
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    living(FIGURE, writer_data(beginnings), writer_still(source, begun, record), COMPUTED_BY)


def writer_html(source: str, begun: str, record: ClassRecord, place: str = PLACE) -> str:
    """The figure as HTML, with the model's scripts at `place`, seen from the page."""
    data = writer_data(BEGINNINGS) | {"source": place}
    return living_html(FIGURE, data, writer_still(source, begun, record), COMPUTED_BY)


def writer_data(beginnings: tuple[Beginning, ...]) -> dict:
    """What the figure is told: where the model lies, how large it is, and how to begin."""
    if not beginnings:
        raise ValueError("beginnings is empty: the figure needs a class to start with")
    size = (model_folder() / WEIGHTS).stat().st_size
    # base64 writes three bytes as four characters
    return {"source": PLACE, "megabytes": math.ceil(size * 4 / 3 / 1e6), "presets": [
        {"name": each.record.name, "superclass": each.record.superclass,
         "variables": " ".join(each.record.instance_variables), "comment": each.record.comment,
         "package": each.record.category, "begun": each.begun} for each in beginnings]}


def writer_still(source: str, begun: str, record: ClassRecord) -> str:
    """A class, a beginning, and what the model wrote behind it, for when scripts are off."""
    if not source.startswith(begun):
        raise ValueError(f"{source[:40]!r} does not begin with {begun!r}: give what the model "
                         "wrote behind this beginning")
    definition, written = html.escape(definition_of(record)), html.escape(source[len(begun):])
    return (f"<p>Told of this class and that a method begins with <code>{html.escape(begun)}"
            "</code>, the model wrote what is bold:</p>\n"
            f"<pre>{definition}\n\n{html.escape(begun)}<b>{written}</b></pre>")
