"""Whole projects: the reader is chosen file by file, from a folder and from git alike."""

import io
import subprocess
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.smalltalk.readers import (
    Origin,
    read_bracketed,
    read_file,
    read_folder,
    read_mcz,
    read_repository,
    read_topaz,
    read_visualworks,
)
from scratchbook.smalltalk.records import ClassRecord, MethodRecord, Skipped

GNU = """"======================================
| A file's banner, with [ and a 'quote' |
 ======================================"

Eval [ Smalltalk at: #Open put: 3 ]
Object subclass: Cage [
    | animals keeper |
    <comment: 'I''m a cage.'>
    <category: 'Zoo-Core'>
    Open := [:x | x. 3] value: 1.
    Cage class [ | last | ]
    Cage class >> new [ ^super new ]
    add: x "[" [
	"Put it in."

	<category: 'adding'>
	| a |
	^animals add: x -> $]
    ]
    | other [ <category: 'sets'> ^3 ]
    < other [ ^'<' ]
]
Cage extend [ isOpen [^true] ]
Cage class extend [ of: n [ ^n ] ]
Smalltalk.Cage class >> loud [ ^'!' ]
Namespace current: Zoo.Parts [ Cage subclass: Den [ dark [ ^1 ] ] ]
Cage new printNl.
"""
VISUALWORKS = """<?xml version="1.0"?>
<st-source>
<class><name>Cage</name><environment>Zoo</environment><super>Core.Object</super>
<inst-vars>animals keeper </inst-vars><class-inst-vars></class-inst-vars>
<imports>private Zoo.Parts.*</imports><category>Zoo-Core</category>
<attributes><package>Zoo</package></attributes></class>
<comment><class-id>Zoo.Cage</class-id><body>I hold &lt;animals&gt;.</body></comment>
<shared-variable><name>Open</name><environment>Zoo.Cage</environment></shared-variable>
<methods><class-id>Zoo.Cage</class-id> <category>testing</category>
<body package="Zoo" selector="isOpen">isOpen&#13;\t^self size &lt; 3</body>
<body package="Zoo" selector="a">^ 3</body></methods>
<methods><class-id>Zoo.Cage class</class-id> <category>making</category>
<body package="Den" selector="new">new
	^super new</body></methods>
</st-source>
"""
TOPAZ = """set class Cage
run
Object subclass: 'Cage'
  instVarNames: #( 'animals' keeper)
  classVars: #()
  classInstVars: #( last)
  poolDictionaries: #()
  inDictionary: Globals
%
doit
Cage comment: 'I''m one.'.
Cage category: 'Zoo-Core'
%
category: 'it''s testing'
method:
isOpen
  ^ 10 \\\\ 3 % 2
%
classmethod: Den
new
  ^ super new
%
"""
TONEL = "Class { #name : #Cage, #superclass : #Object, #category : 'Zoo' }\n\n" \
    "{ #category : #a }\nCage >> size [\n\t^ 1\n]\n"
PROPERTIES = '{"name": "Cage", "super": "Object", "instvars": ["a"], "category": "Zoo-Core"}'
SCRIPT = "Transcript show: 'hello'; cr"


def mcz(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "/"), text)
    return file.getvalue()


CHUNKS = "Object subclass: #Cage\n\tcategory: 'Z'!\n!Cage methodsFor: 'm'!\nsize ^ 1! !\n"
MCZ = mcz(package="(name 'Zoo-Core')", version="(name 'x')", **{"snapshot__source.st": CHUNKS})
PROJECT = {
    "src/Zoo/Cage.class.st": TONEL,
    "src/Zoo/package.st": "Package { #name : #Zoo }",
    "gnu/Cage.st": GNU,
    "vw/Cage.xml": VISUALWORKS,
    "gs/Cage.gs": TOPAZ,
    "old/Zoo-ab.3.mcz": MCZ,
    "squeak/Cage.st": CHUNKS,
    "squeak/Den.st": "Object subclass: #Den\n\tcategory: 'Z'",
    "tree/Zoo.package/Cage.class/properties.json": PROPERTIES,
    "tree/Zoo.package/Cage.class/README.md": "I hold animals.\n",
    "tree/Zoo.package/Cage.class/instance/at.put..st": "adding\nat: k put: v\n\t^ v",
    "tree/Zoo.package/Cage.class/class/new.st": '"\nnotice: mine\ncategory: making\n"\nnew ^ 1\n',
    "tree/Zoo.package/Int.extension/instance/b.st": "*Zoo\n\"said\" b\n\t^ 2",
    "tree/Zoo.package/Int.extension/properties.json": '{"name": "Int"}',
    "tree/Zoo.package/monticello.meta/categories.st": "SystemOrganization addCategory: #Zoo!",
    "pharo6/Zoo.package/Den.class/definition.st": "Object subclass: #Den\n\tcategory: 'Zoo'",
    "pharo6/Zoo.package/Den.class/instance/my own/a.st": "a ^ 1",
    "pharo6/Zoo.package/extension/Int/class/c_.st": "c: x\n\t^ x",
    "pharo1/Zoo/Den/instance/a-2F-b/d.cs": "d\n\t^ 1",
    "scripts/load.st": SCRIPT,
    "sharp/Program.cs": "class Program { }",
    "picture.png": b"\x89PNG\0\0",
    "broken.st": b"\0\0\0\1\2",
}


@pytest.fixture
def project(tmp_path):
    for path, content in PROJECT.items():
        file = tmp_path / "zoo" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / "zoo"


def kinds(records):
    found = {}
    for record in records:
        if not isinstance(record, Skipped):
            method = isinstance(record, MethodRecord)
            found.setdefault(record.path, []).append(
                record.source.split("\n")[0] if method else record.name)
    return found


def test_each_file_finds_its_reader(project):
    records = list(read_folder(project, "zoo", "MIT"))
    assert {(record.project, record.licence) for record in records
            if not isinstance(record, Skipped)} == {("zoo", "MIT")}
    found = kinds(records)
    assert found["src/Zoo/Cage.class.st"] == ["Cage", "size"]
    assert found["old/Zoo-ab.3.mcz"] == found["squeak/Cage.st"] == ["Cage", "size ^ 1"]
    assert found["squeak/Den.st"] == ["Den"]
    assert sorted(found) == sorted(
        path for path in PROJECT if path.endswith((".st", ".cs", ".mcz", ".json", ".xml", ".gs"))
        and path.split("/")[0] not in ("scripts", "sharp", "broken.st")
        and not any(part in path for part in ("package.st", "extension/prop", "monticello")))
    assert {record.path: record.reason.split(":")[0] for record in records
            if isinstance(record, Skipped)} == {
        "scripts/load.st": "no format of Smalltalk files",
        "broken.st": "full of NUL characters",
        "vw/Cage.xml": "no message pattern in a method of Cage"}


def test_filetree_in_all_its_variants(project):
    records = list(read_folder(project, "zoo",
                               wanted=lambda path: path.startswith(("tree", "pharo"))))
    methods = {(m.class_name, m.source, m.class_side, m.protocol, m.package)
               for m in records if isinstance(m, MethodRecord)}
    assert methods == {
        ("Cage", "at: k put: v\n\t^ v", False, "adding", "Zoo"),
        ("Cage", "new ^ 1", True, "making", "Zoo"),
        ("Int", '"said" b\n\t^ 2', False, "*Zoo", "Zoo"),
        ("Den", "a ^ 1", False, "my own", "Zoo"), ("Int", "c: x\n\t^ x", True, "*Zoo", "Zoo"),
        ("Den", "d\n\t^ 1", False, "a/b", "Zoo")}
    den, cage = [record for record in records if isinstance(record, ClassRecord)]
    assert (cage.name, cage.superclass, cage.instance_variables) == ("Cage", "Object", ("a",))
    assert (cage.comment, cage.category, cage.package) == ("I hold animals.", "Zoo-Core", "Zoo")
    assert (den.name, den.superclass, den.category) == ("Den", "Object", "Zoo")


def git(folder, *words):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", folder, *words],
                   check=True, capture_output=True)


def test_a_repository_reads_as_its_folder_does(project, tmp_path):
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    (project / "src/Zoo/Cage.class.st").write_text(TONEL.replace("size", "later"))
    (project / "link.st").symlink_to("squeak/Cage.st")
    git(project, "add", ".")
    git(project, "commit", "-qm", "second")
    git(tmp_path, "clone", "-q", "--bare", str(project), "bare")
    assert list(read_repository(tmp_path / "bare", "zoo", "MIT")) == list(
        read_folder(project, "zoo", "MIT"))
    first = read_repository(tmp_path / "bare", "zoo", commit="HEAD~1",
                            wanted=lambda path: path.startswith("src"))
    assert kinds(first) == {"src/Zoo/Cage.class.st": ["Cage", "size"]}


def test_what_is_no_project_is_said(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        list(read_folder(tmp_path / "none", "zoo"))
    with pytest.raises(ValueError, match="git cannot list HEAD"):
        list(read_repository(tmp_path, "zoo"))


def test_changes_win_over_the_sources_beside_them(tmp_path):
    (tmp_path / "A.sources").write_text(CHUNKS + "!Cage methodsFor: 'm'!\nother ^ 2! !\n")
    (tmp_path / "B.changes").write_text("!Cage methodsFor: 'm' prior: 5!\nsize ^ 2! !\n")
    methods = [r for r in read_folder(tmp_path, "zoo") if isinstance(r, MethodRecord)]
    assert [(m.source, m.path) for m in methods] == [
        ("size ^ 2", "B.changes"), ("other ^ 2", "A.sources")]


def test_gnu_brackets():
    cage, *methods = read_bracketed(GNU, Origin("zoo/Cage.st"))
    den = methods.pop(-2)
    assert (cage.name, cage.superclass, cage.instance_variables, cage.class_variables) == (
        "Cage", "Object", ("animals", "keeper"), ("Open",))
    assert (cage.class_instance_variables, cage.comment, cage.category, cage.dialect) == (
        ("last",), "I'm a cage.", "Zoo-Core", "gnu")
    assert [(m.source, m.class_side, m.protocol) for m in methods] == [
        ("new ^super new", True, ""),
        ('add: x "["\n\t"Put it in."\n\n\t| a |\n\t^animals add: x -> $]', False, "adding"),
        ("| other ^3", False, "sets"), ("< other ^'<'", False, ""),
        ("isOpen ^true", False, ""), ("of: n ^n", True, ""), ("loud ^'!'", True, ""),
        ("dark ^1", False, "")]
    assert (den.name, den.package, methods[-1].package, methods[0].package) == (
        "Den", "Zoo.Parts", "Zoo.Parts", "zoo")


def test_gnu_damage_is_skipped_and_the_rest_kept():
    text = "Object subclass: A [\n a [ ^1 ]\n b: 3.\n c [ ^2 ]\n]\nB extend [ d [ ^1 ]"
    found = list(read_bracketed(text, Origin()))
    assert [r.source for r in found if isinstance(r, MethodRecord)] == ["a ^1", "c ^2", "d ^1"]
    assert [r.reason.split(":")[0] for r in found if isinstance(r, Skipped)] == ["line 3", "line 6"]


def test_visualworks():
    is_open, skipped, new, cage = read_visualworks(VISUALWORKS, Origin("vw/Cage.xml"))
    assert (is_open.source, is_open.class_name, is_open.protocol, is_open.package) == (
        "isOpen\n\t^self size < 3", "Cage", "testing", "Zoo")
    assert (new.source, new.class_side, new.package) == ("new\n\t^super new", True, "Den")
    assert "no message pattern" in skipped.reason
    assert (cage.superclass, cage.instance_variables, cage.comment, cage.package) == (
        "Core.Object", ("animals", "keeper"), "I hold <animals>.", "Zoo")
    assert (cage.class_variables, cage.pools) == (("Open",), ("Zoo.Parts.*",))
    cut = list(read_visualworks(VISUALWORKS[:VISUALWORKS.index("<methods><class-id>Zoo.Cage cl")],
                                Origin()))
    assert [type(record) for record in cut] == [MethodRecord, Skipped, ClassRecord, Skipped]


def test_topaz():
    is_open, new, cage = read_topaz(TOPAZ, Origin("gs/Cage.gs"))
    assert (is_open.source, is_open.class_name, is_open.protocol, is_open.class_side) == (
        "isOpen\n  ^ 10 \\\\ 3 % 2", "Cage", "it's testing", False)
    assert (new.source, new.class_name, new.class_side) == ("new\n  ^ super new", "Den", True)
    assert (cage.name, cage.instance_variables, cage.class_instance_variables) == (
        "Cage", ("animals", "keeper"), ("last",))
    assert (cage.comment, cage.category) == ("I'm one.", "Zoo-Core")


def test_monticello():
    cage, size = read_mcz(MCZ, Origin("Other-ab.3.mcz"))
    assert (cage.package, size.package, size.source) == ("Zoo-Core", "Zoo-Core", "size ^ 1")
    (_, size) = read_mcz(mcz(**{"snapshot__source.st": CHUNKS}), Origin("a/Zoo-Core-ab.3.mcz"))
    assert size.package == "Zoo-Core"
    for data, reason in [(mcz(version=""), "no snapshot/source.st"), (MCZ[:60], "damaged zip"),
                         (MCZ.replace(b"size ^ 1", b"size ^ 2"), "damaged zip")]:
        (skipped,) = read_mcz(data, Origin("a.mcz"))
        assert reason in skipped.reason


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(PROJECT)), st.integers(0, 2000), st.integers(0, 40),
       st.binary(max_size=6))
def test_no_damage_stops_a_reader(path, start, length, noise):
    """A stretch of any file is replaced by noise: records or a reason come out, never an error."""
    content = PROJECT[path]
    data = content if isinstance(content, bytes) else content.encode()
    start %= len(data)
    damaged = data[:start] + noise + data[start + length:]
    for record in read_file(damaged, Origin(path)):
        assert isinstance(record, MethodRecord | ClassRecord) or record.reason
