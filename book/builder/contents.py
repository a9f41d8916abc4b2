"""Writes what follows from the plan and the passports: `_toc.yml` and the README's table.

    python -m book.builder.contents            # write both
    python -m book.builder.contents --check    # say which is not as it would be written
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

import yaml

from book.builder.plan import chapters
from book.builder.routes import markdown_table

ROOT = Path(__file__).resolve().parents[2]
_TABLE = re.compile(r"(?<=<!-- chapters -->\n).*?(?=<!-- end of chapters -->)", re.DOTALL)
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
    """The test files of each written chapter: those that share the most words with it by name.

    A chapter's words are those of its file, which count twice, and the names of its modules. Of
    equals, the chapter with a module of that very name is taken.
    """
    written = [chapter for chapter in chapters(root).values() if chapter.exists]
    places = {chapter.file: [path for module in chapter.modules for place in
                             [root / module.replace(".", "/")]
                             for path in (place.with_suffix(".py"), *place.glob("*.py"))]
              for chapter in written}
    files = {file: {path.stem for path in paths if path.is_file()}
             for file, paths in places.items()}
    words = {file: _words(file, [path.stem for path in paths]) for file, paths in places.items()}
    found: dict[str, list[str]] = {file: [] for file in words}
    for folder in ("tests", "tests/parity"):
        for path in sorted((root / folder).glob("test_*.py")):
            name = path.stem.removeprefix("test_").removesuffix("_parity")
            own = set(map(_singular, name.split("_")))

            def likeness(file: str, name: str = name, own: set[str] = own) -> tuple[int, ...]:
                shared = [words[file][word] for word in own]
                return sum(shared), name in files[file], max(shared)

            best = max(words, key=likeness)
            if any(likeness(best)):
                found[best].append(f"{folder}/{path.name}")
    return found


def _words(file: str, stems: list[str]) -> Counter[str]:
    return (Counter({_singular(word): 1 for stem in stems for word in stem.split("_")})
            | Counter(dict.fromkeys(map(_singular, file.split("_")), 2)))


def _singular(word: str) -> str:
    """`models` and `model` are one word."""
    return word.removesuffix("s")


def _place(root: Path, module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/" if (root / path).is_dir() else f"{path}.py"


if __name__ == "__main__":
    sys.exit(main())
