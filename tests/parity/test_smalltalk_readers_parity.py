"""Tonel as it is written and read here, against the grammar of tree-sitter-pharo."""

import random
from importlib import metadata

import pytest

from scratchbook.smalltalk.readers import Origin, read_tonel
from scratchbook.smalltalk.readers.scanning import pattern_end
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.smalltalk.writers import write_tonel

tree_sitter = pytest.importorskip("tree_sitter", reason="pip install pharo-tree-sitter")
grammar = pytest.importorskip("tree_sitter_pharo", reason="pip install pharo-tree-sitter")

PATTERNS = ["size", "at: key put: value", "+ other", "isOpen", "do: aBlock", "--> x"]
STATEMENTS = ["^ '[' size", "^ $]", "cage add: [ :x | x = $' ]", '"it]s open" ^ 1', "^ #(a [ ])",
              "^ self at: 'it''s]' put: #[1 2]", "^ { [ 1 ]. $[ }", "n := 16r1F. ^ n \\\\ 2"]


def drawn_file(seed: int) -> tuple[str, list[MethodRecord]]:
    """A Tonel file of one class with its methods, drawn from the corners of the format."""
    rng = random.Random(seed)
    cage = ClassRecord("Cage", "Object", ("animals",), comment='I am a "cage".' * rng.randint(0, 1),
                       category="Zoo-Core", package="Zoo")
    methods = [MethodRecord(f"{pattern}\n\t{rng.choice(STATEMENTS)}", "Cage", rng.random() < 0.3,
                            rng.choice(["adding", "as yet unclassified", "*Zoo-Extras"]), "Zoo")
               for pattern in rng.sample(PATTERNS, rng.randint(1, len(PATTERNS)))]
    return write_tonel([cage], methods)["Zoo/Cage.class.st"], methods


def seen_by_tree_sitter(text: str) -> list[tuple[str, bool, str, str]]:
    """Pattern, class side, protocol and body of each method that the grammar finds."""
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    root = parser.parse(text.encode()).root_node
    assert not root.has_error
    found = []
    for node in root.children[0].children:
        if node.type == "method_definition":
            parts = {part.type: part for part in node.children}
            owner, _, pattern = parts["method_header"].text.decode().partition(">>")
            protocol = parts["method_metadata"].text.decode().split("'")[1]
            rest = node.text[parts["method_header"].end_byte - node.start_byte:].decode().strip()
            found.append((pattern.strip(), owner.split()[1:] == ["class"], protocol,
                          rest.removeprefix("[").removesuffix("]").strip()))
    return found


def test_methods_of_tonel_files(parity):
    ours, theirs = [], []
    for seed in range(200):
        text, _ = drawn_file(seed)
        for record in read_tonel(text, Origin("Zoo/Cage.class.st")):
            if isinstance(record, MethodRecord):
                end = pattern_end(record.source)
                ours.append((record.source[:end], record.class_side, record.protocol,
                             record.source[end:].strip()))
        theirs += seen_by_tree_sitter(text)
    differing = sum(one != other for one, other in zip(ours, theirs, strict=True))
    assert parity("Tonel, methods of a file",
                  against=f"pharo-tree-sitter {metadata.version('pharo-tree-sitter')}",
                  error=differing, cases=len(ours))
