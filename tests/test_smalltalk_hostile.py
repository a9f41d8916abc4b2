"""Files that nobody meant well: what readers, collection and prepare make of them."""

import io
import json
import os
import time
import zipfile

import pytest

from scratchbook import cli
from scratchbook.smalltalk.collecting import collect_folder
from scratchbook.smalltalk.readers import Origin, read_file, read_folder
from scratchbook.smalltalk.records import ClassRecord, MethodRecord, Skipped

HEAD = "Class { #name : 'A', #superclass : 'Object' }\n\n"
CHUNKS = "Object subclass: #A instanceVariableNames: ''!\n!A methodsFor: 'x'!\nfoo! !\n"
MANY = 100_000


def method(number, of="A"):
    return (f"{{ #category : 'x' }}\n{of} >> foo{number}: anObject [\n\t^ count + anObject size * "
            f"{number} - self bar: 'a text that is long enough'\n]\n\n")


def read(text, path="a.st"):
    return list(read_file(text.encode(), Origin(path, "p")))


def archive(way, **members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", way) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/").replace("source", "source.st"), content)
    return data.getvalue()


@pytest.mark.parametrize("text", [
    f"Object subclass: #A {'a' * MANY}!\n!A methodsFor: 'x'!\nfoo! !",
    HEAD + "{ #category : 'x' }\nA >> foo\n" * 3_000,
    f"A >> {' ' * MANY}x",
    f"{' ' * MANY}method{' ' * MANY}x y\n%\n",
    f"A class {'x ' * MANY}!\n!A methodsFor: 'x'!\nfoo! !",
    f"A extend [\n{') .' * 2_000}]",
    "Namespace current: A [\n" * 2_000,
])
def test_no_text_takes_a_reader_more_than_seconds(text):
    """Each took minutes where a pattern could match in many ways."""
    start = time.process_time()
    read(text, "a.gs" if "%" in text else "a.st")
    assert time.process_time() - start < 8


@pytest.mark.parametrize(("value", "names"), [
    ("'a b'", ("a", "b")), ("'count'", ("count",)), ("true", ()), ("nil", ()), ("{ }", ()),
    ("[ 'a', [ 'b' ], #c ]", ("a", "c"))])
def test_variables_are_whole_names_or_none(value, names):
    [found] = read(f"Class {{ #name : 'A', #instVars : {value} }}\n")
    assert found.instance_variables == names


@pytest.mark.parametrize(("value", "names"), [
    ("a b", ("a", "b")), (5, ()), (None, ()), (["a", ["b"], 3, "c"], ("a", "c"))])
def test_properties_of_another_kind_are_left_out(value, names):
    text = json.dumps({"instvars": value, "super": ["x"], "category": 3})
    [found] = read(text, "P.package/A.class/properties.json")
    assert (found.instance_variables, found.superclass, found.category) == (names, "", "")


def test_a_class_without_a_name_is_no_class():
    skipped, found = read("Class { #superclass : 'A' }\n\n" + method(1))
    assert isinstance(skipped, Skipped) and "no name" in skipped.reason
    assert found.class_name == "A"


@pytest.mark.parametrize("way", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_archive_compressed_otherwise_is_skipped(way):
    data = bytearray(archive(way, snapshot__source=CHUNKS * 99))
    for damaged in (data, data[:70] + b"\xff" * 9 + data[79:]):
        [found] = read_file(bytes(damaged), Origin("x.mcz", "p"))
        assert isinstance(found, Skipped) and f"way {way}" in found.reason


def test_a_bomb_in_an_archive_takes_no_memory():
    tracemalloc = pytest.importorskip("tracemalloc")
    data = archive(zipfile.ZIP_DEFLATED, snapshot__source=CHUNKS, package=b"\0" * 60_000_000)
    tracemalloc.start()
    found = list(read_file(data, Origin("Zoo-ab.1.mcz", "p")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [each.package for each in found] == ["Zoo", "Zoo"] and peak < 20_000_000


@pytest.fixture
def folder(tmp_path):
    """A project with links, a pipe, a name and an escape that UTF-8 cannot say."""
    place = tmp_path / "zoo"
    place.mkdir()
    (place / "A.class.st").write_text(HEAD + "".join(map(method, range(9))), encoding="utf-8")
    escaped = HEAD.replace("'A'", "'B'").replace("Object", "\\uD800Odd")
    (place / "B.class.st").write_text(escaped + method(20, "B"), encoding="utf-8")
    (place / "gone.st").symlink_to("/nonexistent")
    (place / "out.st").symlink_to(__file__)
    return place


def test_links_and_pipes_are_left_alone(folder):
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.st")
    [entry] = collect_folder(folder, folder.parent / "out")
    assert entry.files == 2
    found = list(read_folder(folder, "p"))
    assert {each.path for each in found} == {"A.class.st", "B.class.st"}
    assert sum(isinstance(each, MethodRecord) for each in found) == 10


def test_what_utf_8_cannot_say_is_prepared_all_the_same(folder, tmp_path, capsys):
    try:
        (folder / os.fsdecode(b"\xff.class.st")).write_text(
            HEAD.replace("'A'", "'C'") + method(30, "C"), encoding="utf-8")
    except OSError:
        pytest.skip("this disk has no such names")
    words = ["smalltalk", "collect", "--from", str(folder), "--output", str(tmp_path / "out")]
    assert cli.main(words) == 0
    corpus = tmp_path / "corpus"
    assert cli.main(["smalltalk", "prepare", str(tmp_path / "out"), "--output", str(corpus)]) == 0
    rows = [json.loads(line) for line in (corpus / "classes.jsonl").open(encoding="utf-8")]
    assert {row["name"]: row["superclass"] for row in rows} == {
        "A": "Object", "B": "?Odd", "C": "Object"}
    paths = {json.loads(line)["path"] for line in (corpus / "train.jsonl").open(encoding="utf-8")}
    assert paths == {"A.class.st", "B.class.st", "?.class.st"}
    capsys.readouterr()


def test_a_folder_of_xml_or_of_rarer_suffixes_is_smalltalk_too(tmp_path):
    for name, text in (("works/a.xml", "<st-source><class><name>Cage</name></class></st-source>"),
                       ("rare/A.GST", "Object subclass: A [ foo [ ^1 ] ]")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text, encoding="utf-8")
        collect_folder(tmp_path / name.partition("/")[0], tmp_path / "out")
        found = read_folder(tmp_path / name.partition("/")[0], "p")
        assert any(isinstance(each, ClassRecord) for each in found)
    with pytest.raises(ValueError, match="no Smalltalk file"):
        collect_folder(tmp_path / "out", tmp_path / "out")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"splits": 3}', '{"splits": {"test": {}}}'])
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_damaged_account_is_refused_with_its_name(tmp_path, capsys, content, more):
    if more and content.startswith('{"splits'):
        return      # what is there is printed
    (tmp_path / "funnel.json").write_text(content, encoding="utf-8")
    assert cli.main(["smalltalk", "stats", str(tmp_path), *more]) == 2
    assert "funnel.json is no account" in capsys.readouterr().err
