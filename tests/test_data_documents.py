"""Documents out of folders, whatever lies in them, and texts without their frames."""

import json
import os
from pathlib import Path

import pytest

from scratchbook.data import available, fetch, library_documents, standard_library
from scratchbook.data.cleaning import (
    clean,
    comments,
    strip_front_matter,
    strip_gutenberg,
)
from scratchbook.data.documents import (
    Document,
    collect,
    decode,
    load_documents,
    read_utf8,
    save_documents,
)


@pytest.fixture
def tree(tmp_path):
    """A folder as a programmer keeps it: two projects, a wiki, and much that is no text."""
    files = {
        "README.md": "# All of it\n", "web/README.md": "---\ntitle: Web\n---\n# Web\n",
        "web/docs/install.md": "Run it.\n", "web/app.py": "# says hello\nprint('hello')\n",
        "web/node_modules/x/README.md": "not ours\n", "web/.git/notes.md": "hidden\n",
        "store/main.go": "// Package store keeps.\npackage store\n", "store/empty.md": "  \n\n",
        "store/notes.txt": "a\r\nb\r\n", "store/picture.png": "no text",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
    return tmp_path


# collecting


def test_markdown_alone(tree):
    found = collect(tree, ["*.md"], clean)
    assert found.documents == [
        Document("README.md", "# All of it\n", tree.name),
        Document("web/README.md", "# Web\n", "web"),
        Document("web/docs/install.md", "Run it.\n", "web")]
    assert found.skipped == {"store/empty.md": "empty"}


def test_everything_comes_in_the_order_of_its_path(tree):
    names = [document.name for document in collect(tree).documents]
    assert names == ["README.md", "store/main.go", "store/notes.txt", "web/README.md",
                     "web/app.py", "web/docs/install.md"]
    texts = {document.name: document.text for document in collect(tree).documents}
    assert texts["store/notes.txt"] == "a\nb\n"
    assert texts["web/README.md"].startswith("---")  # nothing is cleaned unless asked for


def test_a_file_is_a_corpus_of_one(tree):
    (only,) = collect(tree / "store/notes.txt").documents
    assert only == Document("notes.txt", "a\nb\n", "notes")


def test_hostile_files_are_left_out_and_named(tree):
    (tree / "binary.md").write_bytes(b"PK\x03\x04\0\0\0")
    (tree / "wrong.md").write_bytes(b"caf\xe9 in no encoding that is said")
    (tree / "void.md").write_bytes(b"")
    found = collect(tree, ["*.md"])
    assert found.skipped["binary.md"] == "binary"
    assert found.skipped["wrong.md"] == "not utf-8: byte 3"
    assert found.skipped["void.md"] == "empty"
    assert len(found.documents) == 3


def test_links_are_not_followed(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.md"
    outside.write_text("secret", encoding="utf-8")
    try:
        (tree / "web" / "again").symlink_to(tree)  # a circle
        (tree / "secret.md").symlink_to(outside)
        (tree / "broken.md").symlink_to(tree / "nowhere")
    except OSError as error:
        pytest.skip(f"this system makes no links: {error}")
    assert len(collect(tree, ["*.md"]).documents) == 3


def test_a_name_that_is_no_text_is_written_as_one(tree):
    try:
        Path(os.fsdecode(os.fsencode(tree) + b"/\xff.md")).write_text("text", encoding="utf-8")
    except OSError as error:
        pytest.skip(f"this system allows no such name: {error}")
    names = [document.name for document in collect(tree, ["*.md"]).documents]
    assert names[:2] == ["README.md", "\ufffd.md"]


def test_a_folder_that_may_not_be_read_is_named(tree, monkeypatch):
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "docs":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = collect(tree, ["*.md"])
    assert [document.name for document in found.documents] == ["README.md", "web/README.md"]
    assert "Permission denied" in found.skipped["web/docs"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tree):
    os.mkfifo(tree / "endless.md")
    assert len(collect(tree, ["*.md"]).documents) == 3


def test_a_folder_that_is_not_there_is_said():
    with pytest.raises(ValueError, match="nowhere does not exist: give a folder"):
        collect("nowhere")


@pytest.mark.parametrize(("content", "text"), [
    (b"\xef\xbb\xbfwith a mark", "with a mark"), ("zwölf\r\n".encode("utf-16"), "zwölf\n"),
    ("zwölf\r\n".encode("utf-32"), "zwölf\n"),
    (b"# -*- coding: latin-1 -*-\n# \xe9", "# -*- coding: latin-1 -*-\n# é"),
    (b"Character set encoding: ISO-8859-1\n\xe9", "Character set encoding: ISO-8859-1\né"),
    (b"", ""), (b"old\rmac", "old\nmac"),
])
def test_encodings(content, text):
    assert decode(content) == text


@pytest.mark.parametrize("content", [b"a\0b", b"\xff\xfe\x00", b"coding: klingon \xff",
                                     b"coding: utf-8 \xff",
                                     "a\0b".encode("utf-16")])
def test_bytes_that_are_no_text(content):
    with pytest.raises(ValueError, match="binary|not utf"):
        decode(content)


def test_documents_survive_their_file(tmp_path):
    documents = [Document("a", "line\n\u2028\"quoted\" \U0001f642", "p"), Document("b/ä", "", "q")]
    save_documents(tmp_path / "x.jsonl", documents)
    assert load_documents(tmp_path / "x.jsonl") == documents


def test_lines_that_another_program_wrote(tmp_path):
    fields = {"name": "a", "text": "one\u2028two\x85three", "project": "p"}
    line = json.dumps(fields, ensure_ascii=False)  # its text holds what Python takes for new lines
    (tmp_path / "x.jsonl").write_bytes(f"{line}\r\n\n{line}".encode())
    assert load_documents(tmp_path / "x.jsonl") == [Document(**fields)] * 2


def test_lines_of_texts_as_everybody_has_them(tmp_path):
    path = tmp_path / "web.jsonl"
    lines = ['{"text": "one", "url": "x", "score": 3}', "", '{"text": "two", "name": "b"}']
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert load_documents(path) == [Document("web:1", "one", "web:1"), Document("b", "two", "b")]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.txt", "a text".encode("utf-16-le"), "holds zero bytes: it is UTF-16 or no text"),
    ("a.txt", "a text".encode("utf-16"), "is not UTF-8 text .its byte 0"),
    ("a.jsonl", b'{"text": "\xe9"}', "is not UTF-8 text .its byte 10"),
    ("a.jsonl.gz", b"\x1f\x8b", "is compressed: unpack it first"),
    ("a.parquet", b"PAR1", "is a table: write its texts as JSON lines first"),
])
def test_a_file_that_is_no_text_says_what_to_do(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    for read in (read_utf8, load_documents):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / name)


@pytest.mark.parametrize("line", ["{", "[]", "[" * 100_000,
                                  '{"name": "a", "text": "\\ud83d", "project": "b"}',
                                  '{"name": "a"}', '"text"', '{"text": null}',
                                  '{"text": "a", "name": 3}',
                                  '{"name": "a", "text": 3, "project": "b"}'])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "x.jsonl"
    path.write_text('{"name": "a", "text": "t", "project": "p"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: .*must be an object with"):
        load_documents(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="x.jsonl is not UTF-8"):
        load_documents(path)


# what is cut off


def test_front_matter():
    page = "# Title\n\nText.\n"
    for front in ("---\ntitle: x\ntags:\n  - a\n---\n", "---\n---\n",
                  "+++\ntitle = 'x'\n[extra]\n+++\n\n",
                  "---\n# a comment\nlast edited: now\n---\n"):
        assert strip_front_matter(front + page) == page
    for text in ("---\nA ruler above a sentence. And then\n---\nanother.\n", page, "", "---",
                 "---\ntitle: never ends\n", "text\n---\ntitle: x\n---\n"):
        assert strip_front_matter(text) == text


START, END = "*** START OF {} PROJECT GUTENBERG EBOOK {} ***", "*** END OF {} PROJECT GUTENBERG"
FRAMES = {
    "this": (START.format("THIS", "EMMA"), END.format("THIS") + " EBOOK EMMA ***"),
    "the": (START.format("THE", "EMMA"), END.format("THE") + " EBOOK EMMA ***"),
    "no spaces": ("***START OF THE PROJECT GUTENBERG EBOOK EMMA***",
                  "***END OF THE PROJECT GUTENBERG EBOOK EMMA***"),
    "two lines": (START.format("THE", "EMMA: A NOVEL\nIN THREE VOLUMES"),
                  END.format("THE") + " EBOOK EMMA:\nA NOVEL ***"),
    "small print": ("*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
                    "End of Project Gutenberg's Etext of Emma"),
    "credits": (START.format("THIS", "EMMA") + "\n\n\n\nProduced by Anna and\nthe volunteers\n",
                "End of the Project Gutenberg EBook of Emma\n\n" + END.format("THIS") + " ***"),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_six_frames_of_gutenberg(frame):
    book = "CHAPTER I\n\nEmma Woodhouse, handsome.\n\nThe end of it all.\n"
    start, end = frame
    licence = "\n\n*** START: FULL LICENSE ***\nYou may copy it, give it away or re-use it.\n"
    whole = f"The Project Gutenberg EBook of Emma\n\n{start}\n\n\n{book}\n\n\n{end}{licence}"
    assert strip_gutenberg(whole) == book
    assert strip_gutenberg(book) == book and strip_gutenberg("") == ""


def test_a_real_book_loses_its_frame_and_nothing_else():
    name = "gutenberg_sherlock_holmes"
    if not available(name):
        pytest.skip(f"{name} is not in the folder of downloads; SCRATCHBOOK_DATA moves it")
    text = decode(fetch(name).read_bytes())
    book = strip_gutenberg(text)
    assert book.startswith("THE ADVENTURES OF SHERLOCK HOLMES")
    assert "Gutenberg" not in book and "Produced by" not in book
    assert text.count("Watson") - book.count("Watson") == 0
    assert 0.95 < len(book) / len(text) < 0.99


# comments

GO = '''// Package store keeps things.
// For a while.
package store

/*
 * Put stores a value.
 */
func Put(url string) { // see below
	x := "https://example.org" + `raw // no` + '"'
}
'''
VUE = '''<template>
  <!-- the list, don't sort it -->
  <p>it's "here" // not a comment</p>
</template>
<script>
// loads the list
const url = 'https://example.org' /* fixed
   address */
</script>
<style>
/* wide */
a { background: url(//example.org/x.png) }
</style>
'''
PYTHON = '''#!/usr/bin/env python
"""A module.

    indented
"""
# one
# two
def f():
    """Says '#'."""
    return "# no"  # yes
'''


def test_comments_of_go():
    assert comments(GO, ".go") == ("Package store keeps things.\nFor a while.\n\n"
                                   "Put stores a value.\n\nsee below")


def test_comments_of_vue_in_all_three_parts():
    assert comments(VUE, ".vue") == ("the list, don't sort it\n\nloads the list\n\n"
                                     "fixed\naddress\n\nwide")


def test_comments_of_python():
    assert comments(PYTHON, ".py") == ("/usr/bin/env python\n\nA module.\n\nindented\n\n"
                                       "one\ntwo\n\nSays '#'.\nyes")
    assert comments("# kept\ndef broken(:\n  'x", ".py") == "kept"


def test_comments_of_smalltalk():
    code = '''foo "Answer ""it""." ^ 'isn''t "this"' , $" asString "last"'''
    assert comments(code, ".st") == 'Answer "it".\n\nlast'


@pytest.mark.parametrize("suffix", [".py", ".go", ".vue", ".js", ".st"])
@pytest.mark.parametrize("code", ["", "\n", "/*", "<!--", '"', "'", "`", "\\", "<script>", "x"])
def test_odd_code_gives_text(code, suffix):
    assert isinstance(comments(code, suffix), str)


def test_an_unknown_language_is_said():
    with pytest.raises(ValueError, match=r"'.rb' files are not known; known: .py"):
        comments("# x", ".rb")


def test_cleaning_goes_by_the_suffix():
    assert clean("---\na: b\n---\nx", ".md") == "x"
    assert clean("# a\nb = 1\n", ".py") == "# a\nb = 1\n"
    assert clean("# a\nb = 1\n", ".py", only_comments=True) == "a"
    assert clean("no code", ".txt", only_comments=True) == "no code"


# the standard library as documents


def test_the_library_by_package():
    documents = library_documents(2_000_000)
    assert [d.text for d in documents] == standard_library(2_000_000)
    projects = {d.name: d.project for d in documents}
    assert projects["argparse.py"] == "argparse" and projects["asyncio/base_events.py"] == "asyncio"
