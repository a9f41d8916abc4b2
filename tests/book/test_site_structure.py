"""The book's sources hang together: contents, settings, addresses, notebooks' passports."""

import json
import re
from pathlib import Path

import pytest
import yaml

from book.builder import contents, plan, skeleton, stage
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


@pytest.mark.parametrize("path", contents.generated(ROOT), ids=lambda path: path.name)
def test_what_follows_from_the_plan_is_up_to_date(path: Path):
    assert path.read_text(encoding="utf-8") == contents.generated(ROOT)[path], (
        "run `make refresh`, or `python -m book.builder.contents`")


def test_every_test_of_the_readme_stands_with_one_chapter():
    listed = [test for tests in contents.tests_of(ROOT).values() for test in tests]
    assert len(listed) == len(set(listed)) and all(contents.tests_of(ROOT).values())


def test_a_written_chapter_has_a_sentence_for_the_landing_page():
    for chapter in plan.chapters(ROOT).values():
        assert bool(chapter.about) == chapter.exists, chapter.file


@pytest.fixture
def small_checkout(tmp_path):
    for name in ("book/course.toml", "chapters/00_start_here.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def test_a_new_chapter_appears_everywhere_once_its_files_are_written(small_checkout):
    written = skeleton.write("07_compression", small_checkout)
    assert {path.suffix for path in written} == {".py", ".ipynb"} and len(written) == 5
    assert "chapters/07_compression" in contents.contents(small_checkout)
    assert "07_compression" in contents.readme_table(small_checkout)
    assert "07 Compression" in GENERATORS["parts"](small_checkout).replace("coming", "")
    compile(written[2].read_text(encoding="utf-8"), "exercises", "exec")


def test_a_skeleton_writes_over_nothing(small_checkout):
    skeleton.write("07_compression", small_checkout)
    with pytest.raises(ValueError, match="there already: nothing was written"):
        skeleton.write("07_compression", small_checkout)
    with pytest.raises(ValueError, match="plans no chapter '77_unheard'.*09_smalltalk_model"):
        skeleton.write("77_unheard", small_checkout)


def test_a_skeleton_runs_and_its_exercise_can_be_solved(small_checkout, monkeypatch):
    from scratchbook.companions import check
    from scratchbook.teaching.checking import EXERCISES

    path = skeleton.write("07_compression", small_checkout)[2]
    monkeypatch.setattr("scratchbook.teaching.checking.EXERCISES", dict(EXERCISES))
    names: dict = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    found = list(names["compression_double"](lambda number: 2 * number))
    assert found and all(one.passed for one in found) and "compression_double" not in dir(check)


def test_the_course_has_nine_parts():
    titles = [part["title"] for part in plan.read_plan(ROOT)["part"]]
    assert titles[0] == "Start here"
    assert [title.split(" · ")[0] for title in titles[1:]] == [f"Part {n}" for n in range(1, 10)]


def test_prerequisites_come_first():
    chapters = all_chapters(ROOT / "chapters")
    order = [chapter.stem for chapter in chapters]
    for chapter in chapters:
        for need in chapter.needs:
            assert need in order, f"{chapter.stem} needs {need}, which does not exist"
            assert order.index(need) < order.index(chapter.stem), (chapter.stem, need)


# A rotary embedding is handed to heads as it is before chapter 03 opens it.
AHEAD = {("02b", "scratchbook.positions")}


def test_a_chapter_needs_those_that_teach_what_it_imports():
    known = plan.chapters(ROOT)
    for chapter in (c for c in known.values() if c.exists):
        cells = json.loads((ROOT / f"chapters/{chapter.file}.ipynb").read_text(encoding="utf-8"))
        source = "\n".join("".join(cell["source"]) for cell in cells["cells"]
                           if cell["cell_type"] == "code")
        within = plan.with_needs([chapter.number], known)
        for module in set(re.findall(r"^from (scratchbook[.\w]*) import", source, re.MULTILINE)):
            teachers = {c.number for c in known.values() for own in c.modules
                        if f"{module}.".startswith(f"{own}.") or f"{own}.".startswith(f"{module}.")}
            known_by_then = not teachers or teachers & set(within)
            assert known_by_then or (chapter.number, module) in AHEAD, (chapter.file, module)


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
