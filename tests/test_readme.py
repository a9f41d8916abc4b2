"""The README tells the truth: its paths exist, its commands work, its example runs."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scratchbook import cli
from tests.notebook_tools import CHAPTERS, load

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SECTIONS = dict(part.split("\n", 1) for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:])
GENERATED = {"book/_static/page.png"}


def tree() -> dict[str, str]:
    """The annotated tree as {path: what it is}."""
    block = re.search(r"```text\n(.*?)```", SECTIONS["What is where"], re.DOTALL)[1]
    entries, folder = {}, ""
    for line in block.splitlines():
        name, meaning = line.strip().split(maxsplit=1)
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
        entries[name if not line.startswith(" ") else folder + name] = meaning
    return entries


def tracked(*arguments: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", *arguments], cwd=ROOT, capture_output=True,
                            text=True, check=False).stdout.split("\n")
    if not any(listed):
        pytest.skip("not a git checkout")
    return {line.strip('"') for line in listed if line}


def test_every_path_of_the_tree_exists():
    for name in tree():
        path = ROOT / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), name


def test_every_room_stands_in_the_tree():
    rooms = {path.split("/")[0] + ("/" if "/" in path else "") for path in tracked()}
    rooms = {room for room in rooms if not room.startswith((".", "README", "LICENSE", "Makefile"))}
    package = {"/".join(path.split("/")[:2]) + ("/" if path.count("/") > 1 else "")
               for path in tracked("scratchbook") if "__" not in path.split("/")[1]}
    assert rooms | package <= tree().keys()


def test_the_table_has_every_chapter_with_its_modules():
    rows = {re.search(r"chapters/(\w+)\.ipynb", line)[1]: line
            for line in SECTIONS["Chapter, module, test"].splitlines() if "chapters/" in line}
    assert list(rows) == [path.stem for path in CHAPTERS]
    for path in CHAPTERS:
        paths = re.findall(r"`([^`]+)`", rows[path.stem])
        assert any(name.startswith("tests/") for name in paths)
        for module in load(path)["metadata"]["scratchbook"]["modules"]:
            name = module.replace(".", "/")
            said = {f"{name}/", f"{name}.py"} & set(paths) or "all of it" in rows[path.stem]
            assert said or any(name.startswith(p) for p in paths), f"{path.stem}: {module}"


def test_every_path_in_backticks_exists():
    for name in re.findall(r"`((?:chapters|scratchbook|book|data|tests)/[^` ]*)`", TEXT):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert name in GENERATED or (ROOT / name).exists(), name


def test_every_command_is_known():
    blocks = "\n".join(re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL))
    script = subprocess.run([sys.executable, str(ROOT / "make.py"), "--help"],
                            capture_output=True, text=True, check=True).stdout
    for command in re.findall(r"^make (\w+)", blocks, re.MULTILINE):
        assert re.search(rf"^    {command} ", script, re.MULTILINE), command
    commands = re.findall(r"^scratchbook ([^#\n]+)", blocks, re.MULTILINE)
    assert len(commands) >= 6
    for words in commands:
        cli._parse(cli.parser(), words.split())


def test_the_example_runs():
    example = "\n".join(re.findall(r"```pycon\n(.*?)```", TEXT, re.DOTALL))
    test = doctest.DocTestParser().get_doctest(example, {}, "README", "README.md", 0)
    assert len(test.examples) > 5
    assert doctest.DocTestRunner().run(test).failed == 0
