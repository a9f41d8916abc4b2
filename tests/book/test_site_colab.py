"""What Colab cannot show is turned into what it can."""

import json
from pathlib import Path

import pytest

from book.builder import colab

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"gage1994bpe": "[Gage (1994)](https://x.org)", "kudo2018unigram": "Kudo (2018)"}


def convert(text: str) -> str:
    return colab.convert_markdown(text, NAMES)


@pytest.mark.parametrize(("myst", "plain"), [
    (":::{admonition} Predict\n:class: tip\n\nHow *many*?\n:::",
     "> **Predict**\n>\n> How *many*?"),
    ("```{note}\nMind this.\n```", "> **Note**\n>\n> Mind this."),
    (":::{dropdown} Hint\nLook at `x`.\n:::",
     "<details>\n<summary><b>Hint</b></summary>\n\nLook at `x`.\n\n</details>"),
    (":::{admonition} Later\n:class: dropdown\nText.\n:::",
     "<details>\n<summary><b>Later</b></summary>\n\nText.\n\n</details>"),
    ("```{math}\n:label: eq\na^2\n```", "$$\na^2\n$$"),
    ("$$ a^2 $$ (eq-square)", "$$ a^2 $$"),
    ("```{code-block} python\nx = 1\n```", "```python\nx = 1\n```"),
    ("(a-label)=\n## Title", "## Title"),
    ("See {cite}`gage1994bpe,kudo2018unigram`.",
     "See [Gage (1994)](https://x.org), Kudo (2018)."),
    ("A {term}`token` and {term}`tokens <token>`.", "A *token* and *tokens*."),
    ("{py:func}`~scratchbook.attention.attend`", "`scratchbook.attention.attend`"),
    ("Inline {math}`a_i` and `{cite}` stays.", "Inline $a_i$ and `{cite}` stays."),
    ("```python\n{cite}`gage1994bpe`\n```", "```python\n{cite}`gage1994bpe`\n```"),
    ("plain text", "plain text"),
])
def test_directives_and_roles(myst: str, plain: str):
    assert convert(myst) == plain


def test_blocks_inside_of_blocks():
    text = "::::{admonition} Outer\n:::{dropdown} Inner\nText.\n:::\n::::"
    got = convert(text)
    assert got.startswith("> **Outer**") and "> <details>" in got and ":::" not in got


def make(cells: list[dict]) -> dict:
    return colab.convert_notebook({"cells": cells, "metadata": {}}, NAMES, lambda t: f"web/{t}")


def code(source: str, tags=(), html: str = "") -> dict:
    outputs = [{"output_type": "display_data", "metadata": {}, "data": {"text/html": html}},
               {"output_type": "stream", "name": "stdout", "text": "3"}]
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source,
            "outputs": outputs, "execution_count": 4}


def test_living_figures_are_kept_and_other_outputs_dropped():
    live = make([code("living()", html='<div data-live="tokens">')])["cells"][0]
    dead = make([code("print(3)")])["cells"][0]
    assert len(live["outputs"]) == 1 and "data-live" in live["outputs"][0]["data"]["text/html"]
    assert dead["outputs"] == [] and dead["execution_count"] is None


@pytest.mark.parametrize("tag", ["solution", "hide-input", "hide-cell"])
def test_folded_code_is_folded_in_colab(tag: str):
    cell = make([code("x = 1", [tag])])["cells"][0]
    assert cell["metadata"]["cellView"] == "form"
    assert cell["source"].startswith("# @title ") and cell["source"].endswith("\nx = 1")


def test_links_lead_to_the_web():
    cell = {"cell_type": "markdown", "metadata": {}, "source": "[a](b.md#c) [d](https://e.f)"}
    assert make([cell])["cells"][0]["source"] == "[a](web/b.md#c) [d](https://e.f)"


def test_chapters_link_to_each_other_inside_of_colab():
    from book.builder.stage import Address

    here = Address("https://github.com/a/b", "main")
    blob = "https://github.com/a/b/blob"
    assert colab._web(here, "02_attention.ipynb").endswith("gh-pages/colab/02_attention.ipynb")
    assert colab._web(here, "../book/claims.md") == f"{blob}/main/book/claims.md"


def test_names_of_people():
    names = colab.citation_names(ROOT / "book" / "references.bib")
    assert names["sennrich2016bpe"].startswith("[Sennrich et al. (2016)](http")
    assert names["schuster2012wordpiece"].startswith("[Schuster and Nakajima (2012)](https://doi")
    assert names["gage1994bpe"] == "Gage (1994)"


def test_every_chapter_gets_a_copy_that_holds_no_myst(tmp_path: Path):
    copies = colab.write_copies(ROOT, tmp_path)
    assert {p.name for p in copies} == {p.name for p in (ROOT / "chapters").glob("*.ipynb")}
    for path in copies:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] != "markdown":
                continue
            text = "".join(cell["source"])
            assert ":::" not in text and "{cite}" not in text and "```{" not in text, (
                f"{path.name}: {text[:80]!r}")
