"""The built pages, read as text: nothing from another host, nothing that leads nowhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from book.builder import stage

pytestmark = pytest.mark.book
ROOT = Path(__file__).resolve().parents[2]
LOADS = {"script": ("src",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src",),
         "video": ("src",), "audio": ("src",), "embed": ("src",), "object": ("data",)}
LOADING_LINKS = {"stylesheet", "preload", "icon", "preconnect", "dns-prefetch", "prefetch",
                 "modulepreload", "manifest"}


class Reader(HTMLParser):
    """Collects what a page loads, links to and names."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.scripts: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag, attrs):
        found = {name: value or "" for name, value in attrs}
        self._in_script = tag == "script"
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        self.loads += [found[name] for name in LOADS.get(tag, ()) if found.get(name)]
        if tag == "link" and set(found.get("rel", "").split()) & LOADING_LINKS:
            self.loads.append(found.get("href", ""))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])

    def handle_data(self, data):
        if self._in_script:
            self.scripts.append(data)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Reader]:
    """Every page of the site, read."""
    found = {}
    for path in sorted(site.rglob("*.html")):
        reader = Reader()
        reader.feed(path.read_text(encoding="utf-8"))
        found[path.relative_to(site).as_posix()] = reader
    return found


def outside(address: str) -> bool:
    return bool(re.match(r"(https?:)?//", address))


def test_no_page_loads_anything_from_another_host(pages):
    found = [f"{page}: {address}" for page, reader in pages.items()
             for address in reader.loads if outside(address)]
    assert not found, "\n".join(found)


def test_no_script_in_a_page_names_another_host(pages):
    """Namespaces of SVG and XLink are names, not addresses."""
    address = re.compile(r"https?://(?!www\.w3\.org/)[^\s\"'`)]+")
    own = stage.Address.read(ROOT).url
    found = {f"{page}: {match}" for page, reader in pages.items() for script in reader.scripts
             for match in address.findall(script) if not match.startswith(own)}
    assert not found, "\n".join(sorted(found)[:20])


def test_no_stylesheet_asks_another_host(site: Path):
    found = [f"{path.name}: {match}" for path in site.rglob("*.css")
             for match in re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']+",
                                     path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_links_and_files_inside_of_the_site_exist(site: Path, pages):
    broken = []
    for page, reader in pages.items():
        for address in {*reader.links, *reader.loads}:
            if re.match(r"[a-z]+:|//", address):
                continue
            path, _, fragment = address.partition("#")
            goal = (site / page).parent / unquote(path.split("?")[0]) if path else site / page
            if not goal.exists():
                broken.append(f"{page} -> {address}")
            elif fragment and goal.suffix == ".html":
                name = goal.resolve().relative_to(site.resolve()).as_posix()
                if unquote(fragment) not in pages[name].ids:
                    broken.append(f"{page} -> {address} (no such place on the page)")
    assert not broken, "\n".join(broken[:40])


def test_no_mark_and_no_raw_directive_is_left(site: Path):
    for path in [site / "index.html", *(site / "book").glob("*.html"),
                 *(site / "chapters").glob("*.html")]:
        text = path.read_text(encoding="utf-8")
        article = text[text.index("<article"):text.index("</article")]
        assert not re.search(r"<!-- (generated|living|number): ", article), path.name
        prose = re.sub(r"(?s)<(pre|script|code)\b.*?</\1>", "", article)
        assert not re.search(r":::|\{(cite|term|doc|py:\w+)\}", prose), path.name


def test_no_path_of_the_machine_that_built_it(site: Path):
    named = [path.name for path in site.rglob("*.html")
             if str(ROOT) in path.read_text(encoding="utf-8")]
    assert not named, f"{ROOT} stands on {named}"


def test_every_chapter_has_badge_card_and_figure(site: Path):
    address = stage.Address.read(ROOT)
    for path in (ROOT / "chapters").glob("*.ipynb"):
        text = (site / "chapters" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert address.in_colab(f"colab/{path.name}") in text, path.name
        assert 'alt="Open this chapter in Colab"' in text, path.name
        assert "sb-passport" in text and "data-live=" in text, path.name


def test_what_no_page_needs_was_removed(site: Path):
    mathjax = site / "_static" / "mathjax"
    assert (mathjax / "tex-chtml.js").is_file()
    size = sum(path.stat().st_size for path in mathjax.rglob("*") if path.is_file())
    assert size < 3_000_000, f"MathJax takes {size:,} bytes"
    assert not list((site / "_static").rglob("*.map"))


def test_the_site_stays_small(site: Path):
    heavy = [f"{path.relative_to(site)}: {path.stat().st_size:,} bytes"
             for path in site.rglob("*.html") if path.stat().st_size > 2_000_000]
    assert not heavy, "\n".join(heavy)


def test_search_has_an_index_that_needs_no_server(site: Path, pages):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert index.startswith("Search.setIndex(")
    assert "chapters/01_tokenization" in index
    assert any("searchindex.js" in address for address in pages["search.html"].loads)
