"""`scratchbook smalltalk complete`, as a user types it, and trees as lines of text."""

import io

import pytest

from scratchbook.cli import main
from scratchbook.smalltalk.outlines import outline
from scratchbook.smalltalk.parser import parse_method
from tests.tiny_smalltalk import SOURCE, STACK, by_heart, shipped

DEFINITION = ("Object subclass: #Stack instanceVariableNames: 'items' classVariableNames: '' "
              'package: \'Demo\'\n"Last in, first out."')


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shipped(tmp_path_factory.mktemp("shipped"), by_heart())


def complete(*words, status=0):
    assert main(["smalltalk", "complete", *map(str, words)]) == status


def test_the_rest_of_a_method_is_printed(folder, capsys, monkeypatch):
    complete(SOURCE[:20], "--class-definition", DEFINITION, "--model", folder, "--temperature", 0)
    assert capsys.readouterr().out == SOURCE + "\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(SOURCE[:30]))
    complete("-", "--class-definition", DEFINITION, "--model", folder, "--temperature", 0,
             "--tree", "--constrained")
    method, tree = capsys.readouterr().out.split("\n\n", 2)[0], outline(parse_method(SOURCE))
    assert SOURCE.startswith(method) and tree[0] == "method push: anObject"


def test_the_tree_stands_below(folder, capsys):
    complete(SOURCE[:20], "--class-definition", DEFINITION, "--model", folder, "--temperature", 0,
             "--tree")
    assert capsys.readouterr().out == "\n".join([SOURCE, "", *outline(parse_method(SOURCE)), ""])


def test_a_class_by_name_is_a_class_by_definition(folder, monkeypatch):
    import scratchbook.smalltalk_model as model
    seen = []
    monkeypatch.setattr(model, "write_method", lambda *given: seen.append(given) or "foo")
    complete("foo", "--class-definition", DEFINITION, "--model", folder)
    complete("foo", "--class", "Stack", "--fields", "items, size", "--superclass", "Bag",
             "--model", folder, "--class-side", "--top-p", 0.9, "--top-k", 5, "--seed", 3,
             "--length", 7, "--constrained")
    complete("--model", folder)
    (_, _, first, *_), (_, _, named, *rest), (_, _, none, begun, *_) = seen
    assert first == STACK and none is None and begun == ""
    assert (named.name, named.superclass, named.instance_variables) == (
        "Stack", "Bag", ("items", "size"))
    assert rest[:-1] == ["foo", True, 7, 0.8, 5, 0.9, 3, True]


def test_samples_have_the_next_seeds(folder, capsys):
    complete("foo\n\t^ 1.\n", "--model", folder, "--samples", 3, "--seed", 5,
             "--length", 5, "--constrained", "--temperature", 2)
    printed = capsys.readouterr().out
    heads = [line for line in printed.split("\n") if " of 3, seed " in line]
    assert heads == ["1 of 3, seed 5", "2 of 3, seed 6", "3 of 3, seed 7"]


def test_what_does_not_parse_or_is_unfinished_is_said(folder, tmp_path, capsys):
    complete("foo ^ ( ]", "--model", folder, "--length", 3, status=1)
    assert "this is no method: line 1, column 9" in capsys.readouterr().err
    complete(SOURCE[:20], "--class-definition", DEFINITION, "--model", folder, "--temperature", 0,
             "--length", 4, status=1)
    assert "unfinished after " in capsys.readouterr().err
    complete("foo ^ (", "--model", folder, "--length", 1, "--constrained", status=1)
    assert "nothing whole was written, unfinished after " in capsys.readouterr().err


@pytest.mark.parametrize(("words", "said"), [
    (["foo ^ ( ]", "--constrained"], "nothing makes a method"),
    (["foo", "--fields", "a"], "add --class NAME"),
    (["foo", "--class", "A", "--class-definition", DEFINITION], "leave out --class"),
    (["foo", "--class-definition", "no definition"], "a class definition expected"),
    (["foo", "--samples", "0"], "at least one"),
    (["foo", "--temperature", "-1"], "temperature=-1"),
    (["foo", "--length", "0"], "max_new_tokens=0"),
])
def test_a_mistake_is_one_clear_line(folder, capsys, words, said):
    complete(*words, "--model", folder, status=2)
    assert said in capsys.readouterr().err


def test_a_folder_without_a_model_is_named(tmp_path, capsys):
    complete("foo", "--model", tmp_path, status=2)
    assert f"{tmp_path} holds no model.safetensors" in capsys.readouterr().err


def test_a_tree_says_what_each_node_is():
    source = ("at: i put: v\n\t<primitive: 60>\n\t| t |\n\tt := {i. #(a 'b\nc'). #[1]}.\n"
              "\t^ self foo; bar: [ :x | | y | x + nil ]")
    assert outline(parse_method(source)) == [
        "method at: i put: v | t |", "  pragma primitive:", "    argument: number 60",
        "  assignment", "    to: variable t", "    value: brace array", "      variable i",
        "      literal array", "        symbol a", "        string 'b\\nc'", "      byte array",
        "        number 1", "  return", "    cascade", "      receiver: variable self",
        "      message foo", "      message bar:", "        argument: block :x | y |",
        "          message +", "            receiver: variable x",
        "            argument: constant nil"]
    deep = outline(parse_method("foo ^ 1" + " + 1" * 5_000))
    assert len(deep) == 10_003 and deep[1] == "  return"


def test_every_kind_of_node_has_its_word():
    from scratchbook.smalltalk import nodes, outlines
    kinds = {each for each in vars(nodes).values() if isinstance(each, type)
             and issubclass(each, nodes.Node)}
    without = {nodes.Node, nodes.LiteralNode, nodes.CommentNode, nodes.ClassNode}
    assert kinds - without == set(outlines.WORDS)
