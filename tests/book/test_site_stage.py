"""Staging: sources stay as they are, links follow what moved, badges point at the Colab copies."""

import base64
import json
from pathlib import Path

import pytest

from book.builder import stage
from book.builder.stage import Address, dress_chapter, link_resolver, rewrite_links

ROOT = Path(__file__).resolve().parents[2]
LISTED = ["book/index", "book/notation", "chapters/01_tokenization"]
CHAPTER = "chapters/01_tokenization.ipynb"
HERE = Address("https://example.org/a/b", "main")


def resolver(source: str):
    staged = stage.MOVED.get(source, source)
    return link_resolver(ROOT, source, staged, LISTED)


@pytest.mark.parametrize(("source", "link", "expected"), [
    ("book/index.md", "notation.md", "book/notation.md"),
    ("book/index.md", "../chapters/01_tokenization.ipynb", "chapters/01_tokenization.ipynb"),
    ("book/notation.md", "index.md#top", "../index.md#top"),
    (CHAPTER, "../book/notation.md", "../book/notation.md"),
    (CHAPTER, "01_tokenization.ipynb", "../chapters/01_tokenization.ipynb"),
    (CHAPTER, "no_such_file.md", "no_such_file.md"),
])
def test_links_follow_what_moved(source: str, link: str, expected: str):
    assert resolver(source)(link) == expected


def test_links_to_other_files_lead_to_the_repository():
    link = resolver("chapters/01_tokenization.ipynb")("../scratchbook/runtime.py")
    assert link == Address.read(ROOT).blob("scratchbook/runtime.py")


def test_code_and_outside_links_are_left_alone():
    text = ("[a](b.md) `x[0](y)` [c](https://d.org/e) [f](#g)\n```python\nh[i](j)\n```\n"
            '![k](l.png "title")\n')
    seen = []
    rewrite_links(text, lambda target: seen.append(target) or target)
    assert seen == ["b.md", "l.png"]


def test_links_after_a_block_are_seen():
    text = "```{raw} html\n[a](b)\n```\n[c](d.md)\n```sh\n[e](f)\n```\n[g](h.md)\n"
    seen = []
    rewrite_links(text, lambda target: seen.append(target) or target)
    assert seen == ["d.md", "h.md"]


def test_a_link_to_a_term_becomes_the_role_that_sphinx_follows():
    text = ("[clipped](../book/glossary.md#term-clipping), [m](glossary.md#term-causal-mask), "
            "[x](glossary.md#term-no-such), [words](glossary.md)\n```\n"
            "[clipped](glossary.md#term-clipping)\n```\n")
    said = rewrite_links(text, lambda target: target)
    assert said == ("{term}`clipped <clipping>`, {term}`m <causal mask>`, "
                    "[x](glossary.md#term-no-such), [words](glossary.md)\n```\n"
                    "[clipped](glossary.md#term-clipping)\n```\n")


def test_directives_are_no_code():
    text = "```{admonition} Look\n[a](b.md)\n```\n"
    assert "moved.md" in rewrite_links(text, lambda target: "moved.md")


def notebook() -> dict:
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# 01 · Title\n", "\n", "Text."]},
        {"cell_type": "code", "metadata": {"tags": ["solution", "hide-cell"]}, "source": "1",
         "outputs": [], "execution_count": 1}]
    passport = {"budget_seconds": {"full": 700, "quick": 45}, "memory_mb": 300,
                "downloads_mb": {"quick": 0, "full": 0}, "papers": ["gage1994bpe"]}
    return {"cells": cells, "metadata": {"scratchbook": passport}}


def test_a_chapter_gets_its_badge_and_its_card_below_the_title():
    original = notebook()
    dressed = dress_chapter(original, "chapters/01_tokenization.ipynb", HERE, lambda t: t)
    lines = [line for line in dressed["cells"][0]["source"].splitlines() if line]
    assert lines[0] == "# 01 · Title" and lines[-1] == "Text."
    assert "colab/01_tokenization.ipynb" in lines[1] and "_static/colab.svg" in lines[1]
    assert ": 45 s quick, 12 min full" in lines
    assert ": {cite}`gage1994bpe`" in lines
    assert original == notebook(), "the source was changed"


def test_a_solution_is_folded_under_its_name():
    dressed = dress_chapter(notebook(), "chapters/01_x.ipynb", HERE, lambda t: t)
    assert dressed["cells"][1]["metadata"]["mystnb"]["code_prompt_show"] == "Solution"


def test_staging_changes_no_source(tmp_path: Path):
    before = stage.fingerprint(ROOT)
    staged = stage.stage(ROOT, target=tmp_path)
    assert stage.fingerprint(ROOT) == before, "a source was changed"
    for name in ("index.md", "_toc.yml", "_config.yml", "book/references.bib"):
        assert (staged / name).is_file(), name


def test_staging_twice_changes_nothing(tmp_path: Path):
    """Unchanged files keep their times, so that Sphinx reads only what is new."""
    staged = stage.stage(ROOT, target=tmp_path)
    times = {path: path.stat().st_mtime_ns for path in staged.rglob("*") if path.is_file()}
    stage.stage(ROOT, target=tmp_path)
    assert times == {path: path.stat().st_mtime_ns for path in staged.rglob("*")
                     if path.is_file()}


def test_the_smalltalk_model_lies_beside_the_pages_once(tmp_path: Path):
    """Its scripts, put together, are the shipped file; no chapter carries it a second time."""
    staged = stage.stage(ROOT, target=tmp_path)
    found = sorted(staged.rglob("smalltalk_weights*.js"))
    assert {path.parent for path in found} == {staged / "extra" / "live"}
    parts = [json.loads(path.read_text(encoding="utf-8").partition(" = ")[2].rstrip(";\n"))
             for path in found]
    [first] = [part for part in parts if "count" in part]
    numbered = sorted((path for path in found if path.stem[-1].isdigit()),
                      key=lambda path: int(path.stem.rpartition("_")[2]))
    assert len(numbered) == first["count"] == len(found) - 1
    text = "".join(json.loads(path.read_text(encoding="utf-8").partition(" = ")[2].rstrip(";\n"))
                   ["text"] for path in numbered)
    shipped = (ROOT / "data" / "smalltalk_model" / "model.safetensors").read_bytes()
    assert base64.b64decode(text) == shipped
    for page in staged.rglob("*.ipynb"):
        assert text[:200] not in page.read_text(encoding="utf-8"), page


def test_freshly_run_chapters_are_preferred(tmp_path: Path):
    name = next((ROOT / "chapters").glob("*.ipynb")).name
    content = json.loads((ROOT / "chapters" / name).read_text(encoding="utf-8"))
    content["cells"][0]["source"] = "# A fresh run"
    (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    staged = stage.stage(ROOT, executed=tmp_path, target=tmp_path / "staged")
    assert "# A fresh run" in (staged / "chapters" / name).read_text(encoding="utf-8")


def test_a_fresh_run_shows_what_a_committed_one_would(tmp_path: Path):
    """What a library logs while it is loaded would break the build, which allows no stderr."""
    path = ROOT / "chapters" / "01_tokenization.ipynb"
    fresh = json.loads(path.read_text(encoding="utf-8"))
    for cell in (c for c in fresh["cells"] if c["cell_type"] == "code" and c["outputs"]):
        cell["outputs"].insert(0, {"output_type": "stream", "name": "stderr", "text": "W: load"})
    (tmp_path / path.name).write_text(json.dumps(fresh), encoding="utf-8")
    staged = [stage.stage(ROOT, executed=executed, target=tmp_path / name) / "chapters" / path.name
              for executed, name in ((tmp_path, "fresh"), (None, "committed"))]
    texts = []
    for page in staged:
        cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
        texts.append([["".join(o.get("text", "")) for o in c.get("outputs", [])] for c in cells])
    assert texts[0] == texts[1] and any(map(any, texts[0]))


def test_a_missing_page_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="book/nowhere"):
        stage.find_source(tmp_path, "book/nowhere")


def test_what_is_no_longer_a_source_disappears(tmp_path: Path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "page.md").write_text("# Old", encoding="utf-8")
    stage.stage(ROOT, target=tmp_path)
    assert not (tmp_path / "old").exists()
