"""The Smalltalk parser against two that nobody here wrote: pharo-tree-sitter and amber's.

Neither is Pharo's own. The grammar of tree-sitter accepts more than Pharo (a second assignment in
an expression, a literal after a literal's message), amber's less (no `_` in names, no byte arrays),
so what is compared is what one of them is sure of.
"""

import random
from importlib import metadata
from pathlib import Path

import pytest
from judges import amber_judge, broken_once, methods_of, ours, tree_sitter_judge

LIBRARY = Path(__file__).resolve().parents[2] / "data" / "smalltalk"


@pytest.fixture(scope="module")
def methods() -> list[str]:
    found = methods_of(LIBRARY)
    assert len(found) > 500
    return found


@pytest.fixture(scope="module")
def broken(methods) -> list[str]:
    rng = random.Random(0)
    return [text for source in methods for _, text in broken_once(source, rng)]


def test_nothing_that_tree_sitter_reads_is_missed(methods, parity):
    judge = tree_sitter_judge()
    name = f"pharo-tree-sitter {metadata.version('pharo-tree-sitter')}"
    wrong = sum(judge(source) and not ours(source) for source in methods)
    assert parity("Smalltalk parser, methods of the class library", against=name, error=wrong,
                  cases=len(methods))


def test_nothing_that_tree_sitter_refuses_is_accepted(broken, parity):
    judge = tree_sitter_judge()
    name = f"pharo-tree-sitter {metadata.version('pharo-tree-sitter')}"
    refused = [source for source in broken if not judge(source)]
    assert len(refused) > 2_000
    assert parity("Smalltalk parser, methods broken by one edit", against=name,
                  error=sum(map(ours, refused)), cases=len(refused))
    more = sum(judge(source) and not ours(source) for source in broken)
    assert more > 0  # an assignment in the middle of an expression, `a | b := c`, is refused too


def test_amber_says_the_same_of_broken_methods(methods, parity):
    """Where amber reads the whole method, it reads the broken one as we do."""
    judge = amber_judge()
    rng = random.Random(1)
    known = [source for source, read in zip(methods, judge(methods), strict=True) if read]
    texts = [text for source in known for _, text in broken_once(source, rng)]
    wrong = sum(ours(text) != theirs for text, theirs in zip(texts, judge(texts), strict=True))
    assert parity("Smalltalk parser, methods broken by one edit", against="amber 0.14.18",
                  error=wrong / len(texts), cases=len(texts), bound=0.002)
