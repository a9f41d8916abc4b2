"""A term of the field is linked to the glossary, or introduced, where the course first uses it.

Write `[singular value](../book/glossary.md#term-singular-value)` in a chapter: Colab, JupyterLab
and GitHub follow it as it is, the book makes a `{term}` role of it. A word set in *italics* or
**bold** counts as introduced there.
"""

import re
import tomllib

import pytest

from tests.notebook_tools import ROOT, load, source_of

# each term of the glossary with what counts as its use; and the chapter from which on it counts,
# where an earlier one uses the word in another sense
TERMS = {
    "singular value": (r"singular values?", ""),
    "rank": (r"low[- ]rank|full rank|(?:of|its|the|in) ranks?", "07_compression"),
    "activation": (r"activations?", ""),
    "warm-up": (r"warm-?up|warmed up", ""),
    "clipping": (r"clip(?:ping|ped|s)?", ""),
    "AdamW": (r"AdamW?", ""),
    "softcap": (r"soft-?cap(?:ping|ped|s)?", ""),
    "DynamicTanh": (r"DyT|DynamicTanh", ""),
}

# first uses that still lack a link: the owner of a chapter links one and takes it off the list
KNOWN: set[tuple[str, str]] = set()


def spine() -> list[str]:
    """The chapters that exist, in the order of the course."""
    plan = tomllib.loads((ROOT / "book/course.toml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in plan["part"] for chapter in part["chapter"]]
    return [file for file in files if (ROOT / f"chapters/{file}.ipynb").is_file()]


def prose(text: str) -> str:
    """Running text: without fenced code, code spans, formulas and citations."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"{(?!term)[\w:]+}`[^`]*`|(?<!})`[^`]*`", "", text)
    return re.sub(r"\$[^$]*\$", "", text)


def introduced(text: str, start: int, end: int, term: str) -> bool:
    """Whether the words at this place stand in a link to the term, or in italics or bold."""
    anchor = re.escape(re.sub(r"\W+", "-", term))
    ways = (rf"\[[^][]*\]\([^()]*#term-{anchor}\)", r"{term}`[^`]*`",
            r"(?<!\*)\*(?![\s*])[^*\n]+\*(?!\*)", r"\*\*[^*\n]+\*\*")
    return any(found.start() <= start and end <= found.end()
               for way in ways for found in re.finditer(way, text))


def first_use(pages: list[tuple[str, str]], term: str) -> tuple[str, bool] | None:
    """In which page a term is used first, and whether it is introduced there."""
    pattern, since = TERMS[term]
    names = [name for name, _ in pages]
    later = pages[names.index(since):] if since in names else pages
    for name, text in later:
        if found := re.search(rf"(?<![\w-])(?:{pattern})(?![\w])", text):
            return name, introduced(text, found.start(), found.end(), term)
    return None


def test_first_uses_link_to_the_glossary_or_introduce():
    pages = []
    for file in spine():
        cells = load(ROOT / f"chapters/{file}.ipynb")["cells"]
        pages.append((file, prose("\n\n".join(source_of(c) for c in cells
                                              if c["cell_type"] == "markdown"))))
    firsts = {term: first_use(pages, term) for term in TERMS}
    bare = {(found[0], term) for term, found in firsts.items() if found and not found[1]}
    assert bare - KNOWN == set(), "link it: [word](../book/glossary.md#term-NAME)"
    assert KNOWN - bare == set(), "mended: take it off the list of KNOWN"


def test_every_term_is_in_the_glossary_under_its_anchor():
    from book.builder.stage import _terms

    assert set(TERMS) <= set(_terms().values())
    text = (ROOT / "book/glossary.md").read_text(encoding="utf-8")
    pages = [source_of(c) for file in spine()
             for c in load(ROOT / f"chapters/{file}.ipynb")["cells"]]
    anchors = set(re.findall(r"glossary\.md#term-([\w-]+)", "\n".join([text, *pages])))
    assert anchors <= set(_terms())


@pytest.mark.parametrize(("text", "known"), [
    ("with [AdamW](../book/glossary.md#term-AdamW) it", True),
    ("with {term}`AdamW` it", True),
    ("the optimizer *AdamW* moves", True),
    ("**AdamW** moves", True),
    ("with [AdamW](06_training.ipynb) it", False),
    ("2 * 3 AdamW * 4", False),
    ("AdamW, then [AdamW](../book/glossary.md#term-AdamW)", False),
    ("[AdamW](../book/glossary.md#term-ALiBi)", False),
])
def test_what_counts_as_an_introduction(text, known):
    assert first_use([("00", "nothing"), ("01", prose(text))], "AdamW") == ("01", known)


def test_code_formulas_and_other_senses_do_not_count():
    text = "`AdamW` and\n```python\nAdamW\n```\n$AdamW$"
    assert first_use([("01", prose(text))], "AdamW") is None
    pages = [("01", "a rank"), ("02_attention", "none"), ("03", "its rank")]
    assert first_use(pages, "rank") == ("03", False)
