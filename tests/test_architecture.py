"""The shape of the package: imports point one way, files stay small, public names have docs."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "scratchbook"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOT = PACKAGE.parent
BESIDE = sorted((ROOT / "book").rglob("*.py"))

# A step may import the steps before it, never its own neighbours and never a later one.
STEPS = [
    ["runtime", "config"], ["smalltalk"], ["tokenizers"],
    ["norms", "positions", "feedforward", "cache", "attention"],
    ["blocks", "accounting"], ["model"],
    ["weights", "generation"], ["sampling", "fast_decoding", "constrained"],
    ["data"], ["evaluation", "interpret"], ["training"],
    ["distributed"], ["compression"], ["base_model"], ["smalltalk_model"], ["finetuning"],
    ["preference"], ["retrieval"], ["serving"], ["teaching"], ["companions"], ["publishing"],
    ["cli"], ["__main__"],
]
STEP_OF = {name: number for number, names in enumerate(STEPS) for name in names}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def parts_imported(path: Path) -> set[str]:
    dotted = (name.split(".") for name in imports_of(path) if name.startswith("scratchbook."))
    return {words[1] for words in dotted if words[1] in STEP_OF} - {part_of(path)}


def test_every_part_has_its_step():
    assert {part_of(path) for path in FILES} - {"__init__"} <= set(STEP_OF)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = part_of(path)
    for other in parts_imported(path):
        allowed = STEP_OF[other] < STEP_OF.get(own, 0)
        assert allowed, f"{own} imports {other}: pass what is needed as an argument instead"


# "interpret", "teaching" and "companions" draw; everything else must import without matplotlib
def top_level_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    heads = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    return {(n.module or "").split(".")[0] if isinstance(n, ast.ImportFrom)
            else n.names[0].name.split(".")[0] for n in heads}


@pytest.mark.parametrize(("library", "rooms"), [
    ("matplotlib", {"interpret", "teaching", "companions"}), ("transformers", set()),
    ("tokenizers", set()), ("tiktoken", set()), ("sentencepiece", set()),
])
def test_heavy_libraries_stay_in_their_rooms(library, rooms):
    for path in FILES:
        if part_of(path) not in rooms:
            assert library not in top_level_imports(path), f"{path} imports {library}"


def test_tokenizers_never_import_torch():
    for path in (PACKAGE / "tokenizers").rglob("*.py"):
        assert not any(name.split(".")[0] == "torch" for name in imports_of(path)), path
    # and neither does what they import
    import subprocess
    import sys

    code = "import sys, scratchbook.tokenizers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_file_stems_are_unique():
    stems = [path.stem for path in FILES if not path.stem.startswith("__")]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    assert not twice


def test_files_stay_short():
    lines = {path: path.read_text(encoding="utf-8").count("\n") + 1 for path in [*FILES, *BESIDE]}
    assert not [str(path) for path, count in lines.items() if count > 400]


def public_definitions(path: Path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("path", [*FILES, *BESIDE], ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_are_short_and_public_ones_described(path):
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{path}:{node.lineno} {node.name} is long"
    undescribed = [n.name for n in public_definitions(path) if not ast.get_docstring(n)]
    assert not undescribed, undescribed
    assert ast.get_docstring(ast.parse(source)), f"{path} does not say what it is for"
