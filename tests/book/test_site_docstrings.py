"""Docstrings as we write them become pages: labels are fields, chapters and papers are links."""

from book.builder.docstrings import to_rst


def rst(text: str) -> str:
    return "\n".join(to_rst(text.splitlines()))


def test_labels_become_fields():
    got = rst("Say it.\n\nShapes:   q (time, d) -> (time, d),\n          mask (time)\nRaises:   "
              "ValueError when *args do not fit")
    assert ":Shapes: q (time, d) -> (time, d),\n    mask (time)" in got
    assert ":Raises: ValueError when \\*args do not fit" in got


def test_a_field_directly_below_text_gets_an_empty_line():
    assert rst("Say it.\nRaises:   never") == "Say it.\n\n:Raises: never"


def test_papers_and_chapters_are_linked():
    got = rst("Paper:    Vaswani et al. (2017), arXiv:1706.03762\n"
              "Chapter:  chapters/02_attention.ipynb")
    assert "`arXiv:1706.03762 <https://arxiv.org/abs/1706.03762>`__" in got
    assert ":doc:`02_attention </chapters/02_attention>`" in got


def test_a_chapter_still_to_be_written_is_named_without_a_link():
    assert rst("Chapter:  chapters/99_later.ipynb") == ":Chapter: ``99_later``"


def test_other_labels_need_two_spaces():
    assert rst("See also:   bpe.py") == ":See also: bpe.py"
    assert rst("Special tokens: a rule") == "Special tokens: a rule"


def test_indented_blocks_stay_as_they_are():
    got = rst("Like this:\n\n    a * b   c\n\nAfter.")
    assert "::\n\n        a * b   c" in got and got.endswith("\n\nAfter.")


def test_code_in_backticks_is_not_escaped():
    assert rst("Use `*args` and x_ and `y_`.") == "Use `*args` and x\\_ and `y_`."
