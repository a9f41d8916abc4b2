"""The book's sources hang together: contents, settings, addresses, notebooks' passports."""

import re
from pathlib import Path

import pytest
import yaml

from book.builder import stage
from book.builder.pages import GENERATORS
from scratchbook.publishing.chapters import all_chapters

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "book").glob("*.md"))


def listed() -> list[str]:
    return stage.toc_files(stage.read_toc(ROOT))


def test_every_file_of_the_contents_exists():
    missing = [name for name in listed() if not any(
        (ROOT / f"{name}{suffix}").is_file() for suffix in (".md", ".ipynb"))]
    assert not missing, f"_toc.yml names files that do not exist: {missing}"


def test_every_page_and_chapter_is_in_the_contents():
    there = {path.relative_to(ROOT).with_suffix("").as_posix()
             for path in [*PAGES, *(ROOT / "chapters").glob("*.ipynb")]}
    assert there - set(listed()) == set()


def test_contents_list_nothing_twice():
    names = listed()
    assert len(names) == len(set(names))


def test_chapters_stand_in_the_order_of_the_course():
    stems = [name.split("/")[1] for name in listed() if name.startswith("chapters/")]
    assert stems == sorted(stems)


def test_the_parts_of_the_contents_are_the_parts_of_the_course():
    """A part appears with its first chapter; none is a dead link."""
    from book.builder import routes

    known = routes.chapters(ROOT)
    wanted = list(dict.fromkeys(p.part for p in known.values() if p.exists))
    captions = [part["caption"] for part in stage.read_toc(ROOT)["parts"]]
    assert [c for c in captions if c in {p.part for p in known.values()}] == wanted


def test_the_course_has_nine_parts():
    from book.builder import routes

    titles = [part["title"] for part in routes.read_plan(ROOT)["part"]]
    assert titles[0] == "Start here"
    assert [title.split(" · ")[0] for title in titles[1:]] == [f"Part {n}" for n in range(1, 10)]


def test_prerequisites_come_first():
    chapters = all_chapters(ROOT / "chapters")
    order = [chapter.stem for chapter in chapters]
    for chapter in chapters:
        for need in chapter.needs:
            assert need in order, f"{chapter.stem} needs {need}, which does not exist"
            assert order.index(need) < order.index(chapter.stem), (chapter.stem, need)


def test_the_address_of_the_repository_is_one_setting():
    """Only _config.yml spells it, and notebooks.py, for when it is installed without the book."""
    url = stage.Address.read(ROOT).url
    spelled = [path.relative_to(ROOT).as_posix() for folder in ("book",)
               for path in (ROOT / folder).rglob("*")
               if path.suffix in (".md", ".py", ".toml", ".js", ".css")
               and path.name != "notebooks.py" and url in path.read_text(encoding="utf-8")]
    assert spelled == []


def test_settings_keep_the_book_offline():
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config = settings["sphinx"]["config"]
    assert settings["execute"]["execute_notebooks"] == "off"
    assert settings["only_build_toc_files"] is True
    assert config["nb_ipywidgets_js"] == {}
    assert "sphinx-mathjax-offline" in config["extensions"]
    assert not any("thebe" in name for name in config["extensions"])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_marks_of_a_page_name_something(page: Path):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"<!-- generated: (.*?) -->", text):
        assert name in GENERATORS, f"{page.name}: no generator {name!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_of_a_page_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s:]+)\)", page.read_text(encoding="utf-8")):
        path = (page.parent / target.split("#")[0]).resolve()
        assert path.exists() or "/api/" in str(path), f"{page.name} links to {target}"


def test_scripts_never_lie_in_a_static_folder():
    """Sphinx would load each of them on every page."""
    assert not list((ROOT / "book" / "_static").rglob("*.js"))


def test_the_stylesheet_asks_no_other_host():
    css = (ROOT / "book" / "_static" / "scratchbook.css").read_text(encoding="utf-8")
    assert "@import" not in css and "http" not in css and "url(" not in css
