"""Stage the book: copy its sources to build/site-src, dressed for the site.

A build never writes into the sources. Chapters come from the freshly executed copies when
there are some, else as committed; pages get their generated tables; the landing page moves
to the site's root, and links are rewritten to follow.
"""

import copy
import functools
import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from book.builder import colab, pages
from scratchbook.publishing import passport
from scratchbook.publishing.notebooks import normalise

STAGED = Path("build/site-src")   # what Sphinx reads
SITE = Path("_build/html")        # what a browser reads; `make serve` serves this folder
EXECUTED = Path("build/executed")  # chapters after papermill, see publishing/execute.py
MOVED = {"book/index.md": "index.md"}
STAMP = ".sources"
PUBLISHED = "gh-pages"            # the branch that the workflow puts the built site on

_FENCE = re.compile(r"\s*(?P<marks>`{3,}|~{3,})(?P<info>.*)")
_SPOKEN = re.compile(r"\{(?!raw|code|math)")   # directives whose content is Markdown again
_LINK = re.compile(r"`+[^`\n]+`+|(?P<open>\]\()(?P<target>[^()\s]+)"
                   r"(?P<close>(?:\s+\"[^\"]*\")?\))")

_TERM = re.compile(r"\[(?P<text>[^][\n]+)\]\([^()\s]*glossary\.md#term-(?P<anchor>[\w-]+)\)")


@dataclass(frozen=True)
class Address:
    """Where the repository lives: read from `_config.yml`, the one setting of it."""

    url: str
    branch: str

    @classmethod
    def read(cls, root: Path) -> "Address":
        """Read the address from the settings of the book at `root`."""
        text = (root / "_config.yml").read_text(encoding="utf-8")
        repository = yaml.safe_load(text)["repository"]
        return cls(repository["url"].rstrip("/"), repository.get("branch", "main"))

    def blob(self, path: str) -> str:
        """The web page of a file of the repository."""
        return f"{self.url}/blob/{self.branch}/{path}"

    def in_colab(self, chapter: str) -> str:
        """The address that opens a chapter's Colab copy."""
        slug = self.url.removeprefix("https://github.com/")
        return f"https://colab.research.google.com/github/{slug}/blob/{PUBLISHED}/{chapter}"


def stage(root: Path, executed: Path | None = None, target: Path | None = None) -> Path:
    """Write every source of the site into `target` (build/site-src) and return that folder.

    Raises:   FileNotFoundError when `_toc.yml` names a file that does not exist
    """
    target = target or root / STAGED
    toc = read_toc(root)
    listed = toc_files(toc)
    written = set()
    for name in listed:
        source = find_source(root, name)
        staged = MOVED.get(source, source)
        text = _dressed(root, source, staged, listed, executed)
        written.add(write_if_changed(target / staged, text))
    extra_pages = pages.api_pages(root)
    for name, text in extra_pages.items():
        written.add(write_if_changed(target / name, text))
    written |= _stage_settings(root, target, toc, sorted(extra_pages))
    written |= _stage_assets(root, target)
    _remove_strangers(target, written)
    return target


def read_toc(root: Path) -> dict:
    """The table of contents as a dictionary."""
    return yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))


def toc_files(toc: dict) -> list[str]:
    """The files that a table of contents names, in reading order, without suffixes."""
    names = [toc["root"]]
    for part in toc.get("parts", []):
        for chapter in part["chapters"]:
            names.append(chapter["file"])
            names += [section["file"] for section in chapter.get("sections", [])]
    return names


def find_source(root: Path, name: str) -> str:
    """The repository path of a page that the table of contents names without its suffix."""
    for suffix in (".md", ".ipynb"):
        if (root / f"{name}{suffix}").is_file():
            return f"{name}{suffix}"
    raise FileNotFoundError(
        f"_toc.yml names {name}, but neither {name}.md nor {name}.ipynb exists in {root}"
    )


def write_if_changed(path: Path, content: str | bytes) -> Path:
    """Write a file unless it already holds this: Sphinx re-reads only what is newer."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    if not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path


def rewrite_links(text: str, resolve) -> str:
    """Pass the target of each relative Markdown link through `resolve`, code left alone."""
    def one(match: re.Match) -> str:
        target = match["target"]
        if target is None or re.match(r"[a-z]+:|#|/", target):
            return match[0]
        return match["open"] + resolve(target) + match["close"]

    out: list[str] = []
    fences: list[tuple[str, bool]] = []   # what closes each open block, and whether it is code
    for line in text.splitlines(keepends=True):
        fence = _FENCE.match(line)
        if fence and fences and fence["marks"] == fences[-1][0] and not fence["info"].strip():
            fences.pop()
        elif fence and not (fences and fences[-1][1]):
            fences.append((fence["marks"], not _SPOKEN.match(fence["info"])))
        out.append(line if fence or (fences and fences[-1][1])
                   else _TERM.sub(_term_role, _LINK.sub(one, line)))
    return "".join(out)


@functools.cache
def _terms() -> dict[str, str]:
    """The glossary's terms by the anchors that they have on its page: `warm-up`, `final-norm`."""
    text = (Path(__file__).parents[1] / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^(?!```)(\S.*)$", text.split("```{glossary}\n")[1], re.MULTILINE)
    return {re.sub(r"\W+", "-", term): term for term in terms}


def _term_role(match: re.Match) -> str:
    """A link to a term as the role that Sphinx follows: it knows anchors of headings only."""
    name = _terms().get(match["anchor"])
    return f"{{term}}`{match['text']} <{name}>`" if name else match[0]


def link_resolver(root: Path, source: str, staged: str, listed: list[str]):
    """A function that says where a relative link of `source` leads once it is staged.

    Pages of the book are linked from the staged place; other files of the repository at
    their web address; what does not exist is left as it is, for Sphinx to complain about.
    """
    address = Address.read(root)

    def resolve(target: str) -> str:
        path, _, fragment = target.partition("#")
        goal = _normal(PurePosixPath(source).parent / path)
        tail = f"#{fragment}" if fragment else ""
        if goal.rsplit(".", 1)[0] in listed or goal.startswith("book/_static/"):
            return _relative(MOVED.get(goal, goal), staged) + tail
        return address.blob(goal) + tail if (root / goal).exists() else target

    return resolve


def fingerprint(root: Path) -> str:
    """A digest of everything the site is built from: equal digests, equal sites."""
    digest = hashlib.sha256()
    for pattern in ("_*.yml", "book/**/*", "chapters/**/*", "data/registry.toml",
                    "data/smalltalk_model/*", "scratchbook/**/*.py", "scratchbook/teaching/live/*"):
        for path in sorted(root.glob(pattern)):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.relative_to(root).as_posix().encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _dressed(root: Path, source: str, staged: str, listed: list[str],
             executed: Path | None) -> str:
    resolve = link_resolver(root, source, staged, listed)
    if source.endswith(".md"):
        text = (root / source).read_text(encoding="utf-8")
        up = "../" * staged.count("/")
        return rewrite_links(pages.fill(text, root, up), resolve)
    fresh = executed / Path(source).name if executed else None
    path = fresh if fresh and fresh.is_file() else root / source
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if path == fresh:  # in the form of the committed ones: what libraries log is not the page's
        notebook = normalise(notebook)
    return json.dumps(dress_chapter(notebook, source, Address.read(root), resolve),
                      ensure_ascii=False, indent=1)


def dress_chapter(notebook: dict, source: str, address: Address, resolve) -> dict:
    """A chapter as the site shows it: badge and passport below the title, links followed."""
    dressed = copy.deepcopy(notebook)
    for cell in dressed["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = rewrite_links("".join(cell["source"]), resolve)
        elif "solution" in cell["metadata"].get("tags", []):
            cell["metadata"]["mystnb"] = {"code_prompt_show": "Solution",
                                          "code_prompt_hide": "Solution (fold)"}
    first = dressed["cells"][0]
    title, _, rest = first["source"].partition("\n")
    badge = (f"[![Open this chapter in Colab](../book/_static/colab.svg)]"
             f"({address.in_colab(colab.copy_of(source))})")
    card = passport.card(notebook["metadata"].get("scratchbook", {}))
    first["source"] = "\n\n".join(part for part in (title, badge, card, rest.strip()) if part)
    return dressed


def _stage_settings(root: Path, target: Path, toc: dict, extra: list[str]) -> set[Path]:
    staged = copy.deepcopy(toc)
    staged["root"] = MOVED.get(f"{toc['root']}.md", f"{toc['root']}.md").removesuffix(".md")
    for part in staged["parts"]:
        for chapter in part["chapters"]:
            if chapter["file"] == "book/api" and extra:
                chapter["sections"] = [{"file": name.removesuffix(".md"), "title": Path(name).stem}
                                       for name in extra]
    text = yaml.safe_dump(staged, allow_unicode=True, sort_keys=False)
    config = (root / "_config.yml").read_text(encoding="utf-8")
    return {write_if_changed(target / "_toc.yml", text),
            write_if_changed(target / "_config.yml", config)}


def _stage_assets(root: Path, target: Path) -> set[Path]:
    written = set()
    sources = {"book/_static": "book/_static", "scratchbook/teaching/live": "extra/live"}
    for source, place in sources.items():
        for path in sorted((root / source).rglob("*")):
            if path.is_file():
                inner = path.relative_to(root / source)
                written.add(write_if_changed(target / place / inner, path.read_bytes()))
    for name, text in _page_model(root).items():
        written.add(write_if_changed(target / "extra/live" / name, text))
    bibliography = root / "book/references.bib"
    written.add(write_if_changed(target / "book/references.bib", bibliography.read_bytes()))
    (target / "extra").mkdir(parents=True, exist_ok=True)
    return written


def _page_model(root: Path) -> dict[str, str]:
    """The scripts of the Smalltalk model that the page of chapter 09 computes with."""
    from scratchbook.companions.smalltalk_page import WEIGHTS, page_scripts

    folder = root / "data" / "smalltalk_model"
    return page_scripts(folder) if (folder / WEIGHTS).is_file() else {}


def _remove_strangers(target: Path, written: set[Path]) -> None:
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_file() and path not in written:
            path.unlink()
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()) and path.name != "extra":
            shutil.rmtree(path)


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _relative(goal: str, staged: str) -> str:
    up = "../" * staged.count("/")
    return up + goal
