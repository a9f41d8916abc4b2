"""Writes what follows from the plan and the passports: `_toc.yml` and the README's table.

    python -m book.builder.contents            # write both
    python -m book.builder.contents --check    # say which is not as it would be written
"""

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from book.builder.plan import chapters
from book.builder.routes import markdown_table

ROOT = Path(__file__).resolve().parents[2]
_TABLE = re.compile(r"(?<=<!-- chapters -->\n).*?(?=<!-- end of chapters -->)", re.DOTALL)
_CHAPTER = re.compile(r"Chapter: +chapters/(\w+)\.ipynb")
_HEAD = """\
# The order of the book, written by `make refresh` from book/course.toml and the chapters' files.
# A part appears with its first chapter.
"""
# pages around the chapters, in the order of the book
BEFORE = {"How to use this book": ["how_to_read", "routes", "why_numbers_differ"]}
AFTER = {"Evidence": ["parity", "claims", "data_and_licences"],
         "Reference": ["notation", "glossary", "api", "bibliography"]}


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with --check list those that are out of date."""
    parser = argparse.ArgumentParser(prog="python -m book.builder.contents",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    options = parser.parse_args(arguments)
    old = [path for path, text in generated(ROOT).items()
           if path.read_text(encoding="utf-8") != text]
    for path in old:
        print(f"{path.relative_to(ROOT)}: {'out of date' if options.check else 'written'}")
        if not options.check:
            path.write_text(generated(ROOT)[path], encoding="utf-8")
    return int(options.check and bool(old))


def generated(root: Path) -> dict[Path, str]:
    """The generated files of a checkout with the text that each should have."""
    readme = root / "README.md"
    table = readme_table(root) + "\n"
    return {root / "_toc.yml": contents(root),
            readme: _TABLE.sub(lambda _: table, readme.read_text(encoding="utf-8"))}


def contents(root: Path) -> str:
    """The table of contents as jupyter-book reads it."""
    parts: dict[str, list[str]] = {}
    for planned in chapters(root).values():
        if planned.exists:
            parts.setdefault(planned.part, []).append(f"chapters/{planned.file}")
    before, after = ({caption: [f"book/{page}" for page in pages] for caption, pages in given}
                     for given in (BEFORE.items(), AFTER.items()))
    listed = [{"caption": caption, "chapters": [{"file": file} for file in files]}
              for caption, files in (before | parts | after).items()]
    toc = {"format": "jb-book", "root": "book/index", "options": {"numbered": False},
           "parts": listed}
    return _HEAD + yaml.safe_dump(toc, allow_unicode=True, sort_keys=False)


def readme_table(root: Path) -> str:
    """Every chapter with its modules and its tests."""
    tests = tests_of(root)
    rows = []
    for chapter in (c for c in chapters(root).values() if c.exists):
        places = [_place(root, module) for module in chapter.modules]
        rows.append([f"`chapters/{chapter.file}.ipynb`", ", ".join(f"`{p}`" for p in places),
                     ", ".join(f"`{test}`" for test in tests[chapter.file])])
    return markdown_table(["Chapter", "Module", "Tests"], rows)


def tests_of(root: Path) -> dict[str, list[str]]:
    """The test files of each written chapter: those that import most of its names.

    Which chapter a module belongs to stands in its docstrings. An import counts the more, the more
    words its module shares with the test's name; a module of that very name decides alone. A test
    that imports nothing of the package belongs to no chapter.
    """
    found: dict[str, list[str]] = {each.file: [] for each in chapters(root).values() if each.exists}
    for folder in ("tests", "tests/parity"):
        for path in sorted((root / folder).glob("test_*.py")):
            name = path.stem.removeprefix("test_").removesuffix("_parity")
            own, votes = set(map(_singular, name.split("_"))), Counter[str]()
            for module in _imported(root, path.read_text(encoding="utf-8")):
                if chapter := _CHAPTER.search(module.read_text(encoding="utf-8")):
                    words = set(map(_singular, re.split(r"\W|_", str(module.relative_to(root)))))
                    votes[chapter[1]] += 1000 if module.stem == name else 1 + 3 * len(own & words)
            best = [file for file, _ in votes.most_common() if file in found]
            if best:
                found[best[0]].append(f"{folder}/{path.name}")
    return found


def _imported(root: Path, code: str, wanted: str | None = None) -> Iterator[Path]:
    """The file that defines each name which this code imports from the package, or the wanted."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scratchbook"):
            place = root / node.module.replace(".", "/")
            for name in (each.name for each in node.names if wanted in (None, each.name)):
                files = (place / f"{name}.py", place / name / "__init__.py",
                         place.with_suffix(".py"), place / "__init__.py")
                for path in [path for path in files if path.is_file()][:1]:
                    inner = path.read_text(encoding="utf-8") if path == files[-1] else ""
                    yield next(_imported(root, inner, name), path)


def _singular(word: str) -> str:
    """`models` and `model` are one word."""
    return word.removesuffix("s")


def _place(root: Path, module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/" if (root / path).is_dir() else f"{path}.py"


if __name__ == "__main__":
    sys.exit(main())
