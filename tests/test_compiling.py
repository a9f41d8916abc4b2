"""Compile rates: Python by Python, other languages by their own tools or not at all."""

import shutil
import stat
import subprocess

import pytest

from scratchbook.data import standard_library
from scratchbook.evaluation import compiling
from scratchbook.evaluation.compiling import body_of, compile_rate, continued, judges

SOURCES = {  # language: (accepted, refused)
    "python": (["x = 1\n", "def f():\n    return 1\n", ""],
               ["def f(:\n", "return 1\n", "x = \0", "for x in y:\n", "(" * 300, "'" + "a"]),
    "go": (["package main\n\nfunc main() { x := 1; _ = x }\n"],
           ["package main\nfunc main() { x := }\n", "func ("]),
    "vue": (["<template><p>{{ a }}</p></template>\n<script setup>\nconst a = 1\n</script>\n"],
            ["<template><p></template>\n", "hello", "<script setup>\nconst = 1\n</script>\n"]),
    "smalltalk": (["sum: a with: b\n\t| t |\n\tt := a + b.\n\t^ #(1 $a) -> [:x | x foo; bar: t]\n"],
                  ["foo ^ (1 +", "x := := 3", "m ^ ]"]),
}


@pytest.mark.parametrize("language", SOURCES)
def test_right_and_wrong_sources(language):
    if isinstance(judges()[language], str):
        pytest.skip(f"the compiler of {language} is not installed here")
    right, wrong = SOURCES[language]
    found = compile_rate([*right, *wrong], language)
    accepted = [text == "" for text in found["complaints"]]
    assert accepted == [True] * len(right) + [False] * len(wrong)
    assert (found["passed"], found["total"]) == (len(right), len(right) + len(wrong))
    assert found["low"] < found["share"] < found["high"]


def test_python_s_own_library_compiles():
    assert compile_rate(standard_library(400_000)[:-1])["share"] == 1  # the last one is cut


def test_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert compile_rate(["open('written', 'w')\n"])["passed"] == 1
    assert not (tmp_path / "written").exists()


def test_a_tool_is_asked_and_its_first_complaint_kept(tmp_path, monkeypatch):
    tool = tmp_path / "gofmt"
    tool.write_text("#!/bin/sh\nread line\n[ \"$line\" = good ] || { echo first >&2; "
                    "echo second >&2; exit 2; }\n", encoding="utf-8")
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compile_rate(["good\n", "bad\n"], "go")["complaints"] == ["", "first"]
    assert isinstance(judges()["vue"], str)  # no node on this path


def test_a_tool_that_hangs_is_no_success(monkeypatch):
    monkeypatch.setattr(compiling.shutil, "which", lambda name: "/bin/sleep")
    assert "no answer within" in compiling._tool([shutil.which("sleep") or "sleep", "9"], "", 0.1)


def test_a_missing_tool_and_an_unknown_language_are_said(monkeypatch):
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    for language, said in (("go", "comes with Go"), ("vue", "npm install"), ("cobol", "unknown")):
        with pytest.raises(ValueError, match=said):
            compile_rate(["x"], language)
    with pytest.raises(ValueError, match="0 of 0"):
        compile_rate([])


def test_a_body_is_what_is_indented():
    assert body_of("    a\n\n    b\nc\n    d\n") == "    a\n\n    b\n"
    assert body_of("    a\n    cut") == "    a\n" and body_of("    cut") == ""
    assert body_of("x = 1\n") == ""


def test_models_write_what_authors_did():
    source = ("import x\n\n\ndef f(a):\n    return a + 1\n\n\ndef long():\n" + "    pass\n" * 9
              + "\n\ndef g():\n    pass\n\n\nclass C:\n    def m(self):\n        pass\n# end\n")

    def author(prompts, length):
        return [source.split(prompt, 1)[1][:length] for prompt in prompts]

    pairs = continued(author, [source], length=40)
    assert [theirs.split("(")[0] for _, theirs in pairs] == ["def f", "def g"]
    assert all(ours == theirs for ours, theirs in pairs)
    assert compile_rate([ours for ours, _ in pairs])["share"] == 1
    nonsense = continued(lambda prompts, length: ["(" * length] * len(prompts), [source], 1, 40)
    assert [ours for ours, _ in nonsense] == ["def f(a):\n"]
    assert compile_rate([nonsense[0][0]])["share"] == 0
    for wrong, options in (("x = 1\n", {}), (source, {"count": 0}), (source, {"length": 3})):
        with pytest.raises(ValueError, match="are not there"):
            continued(author, [wrong], **options)


def test_scripts_for_node_are_sound():
    if not (node := shutil.which("node")):
        pytest.skip("needs node")
    for _, _, script in compiling.NODE.values():
        done = subprocess.run([node, "--check", "-"], input=script, text=True, check=False,
                              capture_output=True)
        assert done.returncode == 0, done.stderr
