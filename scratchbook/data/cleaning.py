"""What nobody wrote for a reader, cut off: front matter, Gutenberg's frame, code around comments.

A string such as "https://..." holds no comment, so every pattern finds strings as well and
throws them away.

Adds:       Python by its own tokenizer; Go, JavaScript, Vue and Smalltalk by one pattern each
Leaves out: whole grammars: a regular expression of JavaScript that holds a quote misleads
Chapter:    chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator

_BLOCK = r"/\*([\s\S]*?)(?:\*/|\Z)"
_QUOTED = r""""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
_JAVASCRIPT = re.compile(rf"{_QUOTED}|`(?:\\[\s\S]|[^`\\])*`|//(.*)|{_BLOCK}")
_GO = re.compile(rf"{_QUOTED}|`[^`]*`|//(.*)|{_BLOCK}")  # `raw`: no escapes
_STYLE = re.compile(rf"{_QUOTED}|{_BLOCK}")
_TEMPLATE = re.compile(r"<!--([\s\S]*?)(?:-->|\Z)")
_SMALLTALK = re.compile(r"""\$[\s\S]|'(?:[^']|'')*'|"((?:[^"]|"")*)(?:"|\Z)""")
_VUE_PART = re.compile(r"<(script|style)\b[^>]*>([\s\S]*?)(?:</\1>|\Z)")
_START = re.compile(r"^(?:\*{3} ?START OF TH(?:E|IS) PROJECT GUTENBERG [^*]{0,300}\*{3}"
                    r"|\*END[* ]+THE SMALL PRINT!.*\*END\*).*$", re.M | re.I)
_END = re.compile(r"^(?:\*{3} ?END OF TH(?:E|IS) PROJECT GUTENBERG"
                  r"|End of (?:the |this )?Project Gutenberg)", re.M | re.I)
_CREDITS = re.compile(r"\s*(?:Produced|Prepared|Transcribed|E-?text prepared) (?:by|from)"
                      r"[\s\S]{0,1000}?\n\s*\n", re.I)


def comments(text: str, suffix: str) -> str:
    """Return the comments of one source file, in their order, a blank line between two.

    A comment of one line that stands right below another stays with it, as it was written.

    Raises:   ValueError for a language that is not known here
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    if suffix not in LANGUAGES:
        raise ValueError(f"comments of {suffix!r} files are not known; known: "
                         f"{', '.join(LANGUAGES)}")
    blocks: list[str] = []
    last = -2  # the line of the comment before, if it was of one line
    for first, end, found in LANGUAGES[suffix](text):
        if words := found.strip():
            follows = first == end == last + 1
            blocks.append(("\n" if follows else "\n\n") + words)
            last = end if first == end else -2
    return "".join(blocks).lstrip("\n")


def _matches(pattern: re.Pattern[str], text: str, offset: int = 0) -> Iterator[tuple]:
    """(first line, last line, comment) of each match that has a group."""
    line, at = offset, 0
    for match in pattern.finditer(text):
        if found := next((group for group in match.groups() if group is not None), None):
            line, at = line + text.count("\n", at, match.start()), match.start()
            lines = (part.strip().lstrip("*/!").strip() for part in found.split("\n"))
            yield line, line + found.count("\n"), "\n".join(lines)


def _vue(text: str) -> Iterator[tuple]:
    """The template around script and style, then what stands inside of each."""
    found = list(_matches(_TEMPLATE, _VUE_PART.sub(lambda m: "\n" * m[0].count("\n"), text)))
    for part in _VUE_PART.finditer(text):
        pattern = _JAVASCRIPT if part[1] == "script" else _STYLE
        found += _matches(pattern, part[2], text.count("\n", 0, part.start(2)))
    return iter(sorted(found))


def _smalltalk(text: str) -> Iterator[tuple]:
    return ((first, last, found.replace('""', '"'))
            for first, last, found in _matches(_SMALLTALK, text))


def _python(text: str) -> Iterator[tuple]:
    """Docstrings by the syntax tree, comments by the tokenizer; broken code gives what it can."""
    found = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in other people's strings
            tree = ast.parse(text)
        for node in ast.walk(tree):
            holds = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef
                               | ast.AsyncFunctionDef)
            if holds and (words := ast.get_docstring(node)):
                found.append((node.body[0].lineno - 1, node.body[0].end_lineno - 1, words))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                found.append((token.start[0] - 1, token.start[0] - 1,
                              token.string.lstrip("#!: ")))
    except (tokenize.TokenError, SyntaxError):
        pass
    return iter(sorted(found))


LANGUAGES = {
    ".py": _python, ".vue": _vue, ".go": lambda text: _matches(_GO, text),
    ".js": lambda text: _matches(_JAVASCRIPT, text), ".st": _smalltalk,
}


def clean(text: str, suffix: str, only_comments: bool = False) -> str:
    """A file's text without its frame: by its kind, which the suffix tells."""
    if suffix == ".md":
        return strip_front_matter(text)
    if suffix == ".txt":
        return strip_gutenberg(text)
    return comments(text, suffix) if only_comments and suffix in LANGUAGES else text


def strip_front_matter(text: str) -> str:
    """Cut the table of fields that a wiki or a site generator keeps above a Markdown page.

    Three dashes alone are a ruler: what follows must look like fields, and end.

    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    lines = text.split("\n")
    mark = lines[0].rstrip()
    if mark not in ("---", "+++"):
        return text
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() == mark:
            return "\n".join(lines[number + 1 :]).lstrip("\n")
        if not re.match(r"\s|#|-|[\w.\"' -]+\s*[:=]|\[|$", line):
            break
    return text


def strip_gutenberg(text: str) -> str:
    """Cut Project Gutenberg's header, credits and licence from a book; other texts stay as is.

    The frame has changed with the decades: `*** START OF THIS PROJECT GUTENBERG EBOOK X ***`,
    THE for THIS, no spaces, a title over two lines, the "small print" of the nineties.

    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    starts = list(_START.finditer(text))
    if not starts:
        return text
    body = text[starts[-1].end() :]
    if end := _END.search(body):
        body = body[: end.start()]
    if credits := _CREDITS.match(body):
        body = body[credits.end() :]
    return body.strip() + "\n"
