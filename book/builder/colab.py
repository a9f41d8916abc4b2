"""Copies of the chapters for Colab, which shows MyST's directives and roles as raw text.

Admonitions become quotations, dropdowns become folded HTML, roles become plain words,
citations become names with years and a link. Outputs are dropped, for the reader is about to
make them, except the living figures, which stand there before anything has run.
"""

import copy
import functools
import json
import re
from pathlib import Path

from scratchbook.publishing import passport

COPIES = "colab"  # a folder of the site, published with it
_OPEN = re.compile(r"^(?P<fence>:{3,}|`{3,})\{(?P<name>[\w:.-]+)\}[^\S\n]*(?P<title>.*)$")
_PLAIN_FENCE = re.compile(r"^(`{3,}|~{3,})(?!\{)")
_ROLE = re.compile(r"(?P<code>`[^`\n]+`)|\{(?P<role>[\w:+.-]+)\}`(?P<text>[^`]+)`")
_TITLED = re.compile(r"^(?P<text>.*?)\s*<(?P<target>[^<>]+)>$", re.DOTALL)
_LINK = re.compile(r"(\]\()([^()\s:#]+)((?:#[^()\s]*)?\))")
_WRAPPERS = {"div", "grid", "grid-item", "card", "margin", "figure-md"}


def copy_of(chapter: str) -> str:
    """The path of a chapter's Colab copy within the site."""
    return f"{COPIES}/{Path(chapter).name}"


def write_copies(root: Path, site: Path) -> list[Path]:
    """Write colab/NAME.ipynb into the site for each committed chapter."""
    from book.builder.stage import Address, write_if_changed

    folder, written = site / COPIES, []
    address = Address.read(root)
    names = citation_names(root / "book" / "references.bib")
    for path in sorted((root / "chapters").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        converted = convert_notebook(notebook, names, functools.partial(_web, address))
        text = json.dumps(converted, ensure_ascii=False, indent=1) + "\n"
        written.append(write_if_changed(folder / path.name, text))
    return written


def convert_notebook(notebook: dict, names: dict[str, str], web) -> dict:
    """A chapter as Colab can show it. `web` turns a path beside the chapter into an address."""
    converted = copy.deepcopy(notebook)
    for cell in converted["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = _absolute(convert_markdown(source, names), web)
        elif cell["cell_type"] == "code":
            _convert_code(cell, source)
    lines = passport.facts(notebook["metadata"].get("scratchbook", {}))
    if lines and converted["cells"]:
        first = converted["cells"][0]
        title, _, rest = first["source"].partition("\n")
        facts = "\n".join(f"* **{name}**: {convert_markdown(text, names)}" for name, text in lines)
        first["source"] = f"{title}\n\n{_absolute(facts, web)}\n{rest}".rstrip()
    return converted


def convert_markdown(text: str, names: dict[str, str]) -> str:
    """MyST Markdown as the Markdown that Colab and plain Jupyter understand."""
    return "\n".join(_blocks(text.splitlines(), names)).strip()


def citation_names(bibliography: Path) -> dict[str, str]:
    """For each key of a BibTeX file: `[Sennrich et al. (2016)](address)`."""
    from pybtex.database import parse_file

    return {key: _cited(entry) for key, entry in parse_file(str(bibliography)).entries.items()}


def _cited(entry) -> str:
    people = [" ".join(p.prelast_names + p.last_names) for p in entry.persons.get("author", [])]
    people = [name.strip("{}") for name in people] or [entry.fields.get("title", "?")]
    who = people[0] if len(people) == 1 else " and ".join(people)
    who = f"{people[0]} et al." if len(people) > 2 else who
    named = f"{who} ({entry.fields.get('year', 'n.d.')})"
    url = entry.fields.get("url")
    if "doi" in entry.fields and not url:
        url = f"https://doi.org/{entry.fields['doi']}"
    return f"[{named}]({url})" if url else named


def _blocks(lines: list[str], names: dict[str, str]) -> list[str]:
    out: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        opening, plain = _OPEN.match(line), _PLAIN_FENCE.match(line)
        if opening or plain:
            fence = opening["fence"] if opening else plain[1]
            end = _closing(lines, at, fence)
            body = lines[at + 1:end]
            out += _directive(opening, body, names) if opening else lines[at:end + 1]
            at = end + 1
            continue
        at += 1
        if re.match(r"^\([\w-]+\)=\s*$|^\+\+\+|^% ", line):
            continue  # a label, a cell break or a comment: nothing to show
        out.append(_roles(re.sub(r"^(.*\$\$)\s*\([\w:-]+\)\s*$", r"\1", line), names))
    return out


def _closing(lines: list[str], start: int, fence: str) -> int:
    pattern = re.compile(rf"^{re.escape(fence[0])}{{{len(fence)},}}\s*$")
    for at in range(start + 1, len(lines)):
        if pattern.match(lines[at]):
            return at
    return len(lines)


def _directive(opening: re.Match, body: list[str], names: dict[str, str]) -> list[str]:
    name, title = opening["name"], _roles(opening["title"].strip(), names)
    options, body = _options(body)
    if name == "math":
        return ["$$", *body, "$$"]
    if name in ("code", "code-block", "code-cell"):
        return [f"```{title}", *body, "```"]
    if name in ("image", "figure"):
        return [f"![{options.get('alt', '')}]({title})", *_blocks(body, names)]
    inner = _blocks(body, names)
    if name in _WRAPPERS:
        return inner
    if name == "dropdown" or "dropdown" in options.get("class", ""):
        return ["<details>", f"<summary><b>{title or 'More'}</b></summary>", "", *inner, "",
                "</details>"]
    heading = title or name.capitalize()
    return [f"> **{heading}**", ">", *(f"> {line}".rstrip() for line in inner)]


def _options(body: list[str]) -> tuple[dict[str, str], list[str]]:
    options: dict[str, str] = {}
    at = 0
    while at < len(body) and (found := re.match(r"^:([\w-]+):\s*(.*)$", body[at])):
        options[found[1]] = found[2]
        at += 1
    while at < len(body) and not body[at].strip():
        at += 1
    end = len(body)
    while end > at and not body[end - 1].strip():
        end -= 1
    return options, body[at:end]


def _roles(line: str, names: dict[str, str]) -> str:
    def plain(match: re.Match) -> str:
        if match["code"]:
            return match["code"]
        role, text = match["role"], match["text"]
        if role.startswith("cite"):
            return ", ".join(names.get(key.strip(), key.strip()) for key in text.split(","))
        titled = _TITLED.match(text)
        shown = titled["text"] if titled else text
        if role.startswith("py:") or role == "code":
            return f"`{shown.lstrip('~')}`"
        if role == "math":
            return f"${text}$"
        if role in ("sub", "sup", "kbd"):
            return f"<{role}>{text}</{role}>"
        if role == "doc":
            return shown if titled else _chapter_link(text)
        return f"*{shown}*"
    return _ROLE.sub(plain, line)


def _chapter_link(target: str) -> str:
    name = Path(target).name
    return f"[{name}]({name}.ipynb)" if "/chapters/" in target else name


def _absolute(text: str, web) -> str:
    return _LINK.sub(lambda match: match[1] + web(match[2]) + match[3], text)


def _web(address, target: str) -> str:
    """The web address of a path as written in a chapter: chapters open in Colab themselves."""
    path = (Path("chapters") / target).as_posix()
    while "/../" in path:
        path = re.sub(r"[^/]+/\.\./", "", path, count=1)
    if path.startswith("chapters/") and path.endswith(".ipynb"):
        return address.in_colab(copy_of(path))
    return address.blob(path)


def _convert_code(cell: dict, source: str) -> None:
    tags = cell.get("metadata", {}).get("tags", [])
    live = [out for out in cell.get("outputs", [])
            if "data-live=" in "".join(out.get("data", {}).get("text/html", ""))]
    cell["outputs"], cell["execution_count"] = live, None
    for out in live:
        out.pop("execution_count", None)
        if out["output_type"] == "execute_result":
            out["output_type"] = "display_data"
    cell["source"] = source
    if "solution" in tags:
        title = "# @title Solution (open the code to read it)"
    elif "hide-input" in tags or "hide-cell" in tags:
        title = "# @title Folded code (run it; open it to read it)"
    else:
        return
    if not source.startswith("%%"):
        cell["source"] = f"{title}\n{source}"
        cell["metadata"]["cellView"] = "form"
