"""`scratchbook smalltalk collect`, `prepare` and `stats` from a folder to rows, as a user types."""

import json
import zipfile

import pytest

from scratchbook.cli import main
from scratchbook.data.smalltalk_corpus import load_classes, load_methods
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.preparing import in_style
from scratchbook.smalltalk.records import MethodRecord


def words(seed: int) -> str:
    """A variable's name that no other number has."""
    return "v" + "".join(chr(97 + int(digit)) for digit in str(seed * 7919))


def tonel(package: int, name: int) -> str:
    """A class with ten methods, one of them broken and one generated."""
    methods = [f"{{ #category : 'sums' }}\nC{name} >> m{m}: x [\n\n\t| {words(m)} |\n"
               f"\t{words(m)} := x {words(name)}: {words(m + name)} with: [ :e | e {words(m)} ].\n"
               f"\t^ {words(m)} {words(m * name)}\n]\n" for m in range(8)]
    methods += [f"{{ #category : 'sums' }}\nC{name} >> broken [\n\n\t^ 3 + ) {words(name)}\n]\n",
                f"{{ #category : 'sums' }}\nC{name} >> made [\n\t<generated>\n\t^ {name}\n]\n"]
    return (f"\"\nI am class {name}.\n\"\nClass {{\n\t#name : 'C{name}',\n\t#superclass : 'Object',"
            f"\n\t#category : 'Package{package}',\n\t#package : 'Package{package}'\n}}\n\n"
            + "\n".join(methods))


@pytest.fixture
def project(tmp_path):
    """A folder of 30 packages with two classes each, and an archive that is none."""
    root = tmp_path / "own"
    for package in range(30):
        for name in (2 * package, 2 * package + 1):
            file = root / f"Package{package}" / f"C{name}.class.st"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(tonel(package, name), encoding="utf-8")
    (root / "Package0" / "Broken-ann.1.mcz").write_bytes(b"PK no archive")
    with zipfile.ZipFile(root / "Package1" / "Empty-ann.1.mcz", "w") as zipped:
        zipped.writestr("version", "()")
    return root


def scratchbook(*words, status: int = 0) -> None:
    assert main(["smalltalk", *map(str, words)]) == status


def test_from_a_folder_to_three_files(project, tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    scratchbook("collect", "--from", project, "--output", raw, "--licence", "MIT")
    assert "own folder: 62 files" in capsys.readouterr().out
    scratchbook("prepare", raw, "--output", out, "--cap", "1")
    printed = capsys.readouterr().out
    assert "says that it is generated" in printed and "does not parse" in printed
    assert "1 sources with unreadable files, 2 files or parts" in printed
    parts = {split: load_methods(out / f"{split}.jsonl")
             for split in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == 60 * 8
    one = parts["train"][0]
    assert (one.project, one.licence, one.protocol) == ("own", "MIT", "sums")
    assert one.package == f"Package{int(one.class_name[1:]) // 2}"
    packages = [{record.package for record in records} for records in parts.values()]
    assert len(set.union(*packages)) == sum(map(len, packages)) == 30 and all(packages)
    classes = load_classes(out / "classes.jsonl")
    assert {c.name for c in classes} == {r.class_name for r in parts["train"]}
    assert classes[0].comment == f"I am class {classes[0].name[1:]}."
    account = json.loads((out / "funnel.json").read_text(encoding="utf-8"))
    assert account["reasons"] == {"does not parse": 60, "says that it is generated": 60}
    assert account["not_read"]["own"]["count"] == 2
    scratchbook("stats", out)
    assert "test: 0 of " in capsys.readouterr().out
    scratchbook("stats", out, "--json")
    assert json.loads(capsys.readouterr().out) == account["splits"]


def test_the_same_folder_gives_the_same_files(project, tmp_path, capsys):
    scratchbook("collect", "--from", project, "--output", tmp_path / "raw")
    for name in ("one", "two"):
        scratchbook("prepare", tmp_path / "raw", "--output", tmp_path / name)
    for split in ("train", "validation", "test"):
        file = f"{split}.jsonl"
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_every_row_is_in_one_layout_when_asked(project, tmp_path):
    scratchbook("collect", "--from", project, "--output", tmp_path / "raw")
    for name, more in (("plain", []), ("styled", ["--format"])):
        scratchbook("prepare", tmp_path / "raw", "--output", tmp_path / name, *more)
    plain, styled = (load_methods(tmp_path / name / "train.jsonl") for name in ("plain", "styled"))
    assert len(styled) == len(plain) > 100
    assert all(in_style(record.source) == record.source for record in styled)
    assert all(parse_method(a.source) == parse_method(b.source)
               for a, b in zip(plain, styled, strict=True))
    assert [r.source for r in plain] != [r.source for r in styled]


def test_mistakes_end_in_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for words, message in [
            (("collect", "--from", tmp_path / "nowhere"), "is no folder"),
            (("collect", "--from", tmp_path / "empty"), "holds no Smalltalk file"),
            (("collect", "nobody/nothing"), "0 sources are called 'nobody/nothing'"),
            (("collect", "--sources", tmp_path / "no.toml"), "no such file"),
            (("prepare", tmp_path / "empty"), "first run scratchbook smalltalk collect"),
            (("stats", tmp_path / "empty"), "first run scratchbook smalltalk prepare")]:
        scratchbook(*words, status=2)
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_a_share_that_is_none_is_refused(project, tmp_path, capsys):
    scratchbook("collect", "--from", project, "--output", tmp_path / "raw")
    for option in ("--cap", "--threshold"):
        scratchbook("prepare", tmp_path / "raw", "--output", tmp_path / "out", option, "1.5",
                    status=2)
        assert "1.5 " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_collecting_nothing_is_a_failure(tmp_path, capsys):
    (tmp_path / "here").mkdir()
    scratchbook("collect", "cormas/cormas", "--from", tmp_path / "here", "--output",
                tmp_path / "raw", status=1)
    printed = capsys.readouterr().out
    assert "cormas/cormas: skipped: not below" in printed and "1 could not be had" in printed


def test_the_recorded_account_holds_no_text_and_no_path(project, tmp_path):
    pytest.importorskip("tree_sitter_pharo", reason="pip install pharo-tree-sitter")
    from scratchbook.companions.smalltalk_funnel import account, sampled

    scratchbook("collect", "--from", project, "--output", tmp_path / "raw")
    scratchbook("collect", "cormas/cormas", "--from", tmp_path / "raw", "--output",
                tmp_path / "raw", status=0)  # one source that is not there
    numbers = account(str(tmp_path / "raw"), str(tmp_path / "out"))
    text = json.dumps(numbers)
    assert str(tmp_path) not in text and "broken" not in text and words(1) not in text
    assert [source["name"] for source in numbers["sources"]] == ["own"]
    assert numbers["unread"] == {"sources": 1, "files": 2}
    parts = {"train": load_methods(tmp_path / "out" / "train.jsonl")}
    assert numbers["other_judge"]["methods"] == 480 and numbers["other_judge"]["refused"] == 0
    assert sampled(parts, 5) == sampled(parts, 5) != sampled(parts, 5, seed=1)


def test_the_other_judge_refuses_what_is_broken():
    pytest.importorskip("tree_sitter_pharo", reason="pip install pharo-tree-sitter")
    from scratchbook.companions.smalltalk_funnel import other_judge

    good, bad = MethodRecord("a ^ [1]", "A", False), MethodRecord("a ^ [1", "A", False)
    assert other_judge([good, bad, good])["refused"] == 1
