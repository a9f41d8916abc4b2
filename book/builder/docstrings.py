"""A Sphinx extension that lets the API pages show our docstrings as they are written.

A docstring here is plain text with `code` in single backticks, and ends in labelled lines
(`Shapes:`, `Raises:`, `Paper:`, `Chapter:`). Each label becomes a field of the page; chapters
and papers become links.
"""

import importlib
import re
from pathlib import Path

CONTENTS = Path(__file__).resolve().parent.parent.parent / "_toc.yml"
# a label starts a line: one of the known words, or any short words set off by two spaces
_LABEL = re.compile(r"^((?:Shapes|Raises|Paper|Chapter|Returns)(?=: )"
                    r"|[A-Z][a-z]+(?: [a-z]+)?(?=:  )):\s+(.*)$")
_CHAPTER = re.compile(r"\bchapters/(\w+)\.ipynb")
_ARXIV = re.compile(r"\barXiv:(\d{4}\.\d{4,5})")
_MARKUP = re.compile(r"([*|]|(?<=\w)_(?=\W|$))")


def to_rst(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText that means what the plain text says.

    Labelled lines become fields, indented blocks are shown as they stand.
    """
    out: list[str] = []
    state = "text"   # or "fields", or "block": an indented stretch
    for line in lines:
        label = _LABEL.match(line)
        if not line.strip():
            state = "text" if state == "fields" else state
            out.append("")
        elif label:
            _break(out, state == "fields")
            out.append(f":{label[1]}: {_linked(_escaped(label[2]))}")
            state = "fields"
        elif line.startswith(" ") and state == "fields":
            out.append(f"    {_linked(_escaped(line.strip()))}")
        elif line.startswith("  "):
            if state == "text":
                _break(out)
                out += ["::", ""]
            out.append("    " + line)
            state = "block"
        else:
            _break(out, state == "text")
            out.append(_linked(_escaped(line)))
            state = "text"
    return out


def _break(out: list[str], unneeded: bool = False) -> None:
    if not unneeded and out and out[-1].strip():
        out.append("")


def _escaped(line: str) -> str:
    # odd pieces lie between backticks: code, where nothing is markup
    pieces = line.split("`")
    if len(pieces) % 2 == 0:
        return line.replace("`", "\\`")
    return "`".join(p if i % 2 else _MARKUP.sub(r"\\\1", p) for i, p in enumerate(pieces))


def _linked(line: str) -> str:
    line = _CHAPTER.sub(_chapter, line)
    return _ARXIV.sub(r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", line)


def _chapter(name: re.Match) -> str:
    """A link to the chapter, or its bare name while the book does not have it yet."""
    written = f"chapters/{name[1]}\n" in CONTENTS.read_text(encoding="utf-8")
    return f":doc:`{name[1]} </chapters/{name[1]}>`" if written else f"``{name[1]}``"


def _process(app, what, name, obj, options, lines: list[str]) -> None:
    lines[:] = to_rst(lines)


def _follow_import(app, env, node, contnode):
    """Link `scratchbook.tokenizers.BPETokenizer` to the module that defines the class."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("scratchbook."):
        return None
    home, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(home), name)
    except (ImportError, AttributeError):
        return None
    real = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    if real == target:
        return None
    python = env.get_domain("py")
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", real, node, contnode)


def setup(app) -> dict:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("missing-reference", _follow_import)
    return {"parallel_read_safe": True, "version": "1"}
