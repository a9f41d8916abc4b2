"""The chapters keep the shape that makes them readable: lengths, figures, parameters, passports."""

import ast
import importlib
import json
import re
import statistics

import pytest

from scratchbook.publishing.notebooks import problems
from tests.notebook_tools import CHAPTERS, ROOT, code_cells, exercises, load, source_of, tags_of

KNOWN_TAGS = {"setup", "parameters", "hide-input", "hide-output", "hide-cell", "remove-cell",
              "remove-input", "check", "exercise", "solution", "nbval-check-output",
              "nbval-ignore-output", "raises-exception", "scroll-output", "keep-stderr"}
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
PICTURE = re.compile(r"<svg\b[^>]*>")
REMOTE = re.compile(r"<(script|img|link|iframe)[^>]+(src|href)=\\?[\"'](https?:)?//")
LIVE = re.compile(r"data-live\b")
SCRIPT = re.compile(r"<script\b[^>]*>.*?</script>", re.DOTALL)  # its templates are not drawn yet


def prose_of(notebook: dict) -> str:
    """The running text: no fences, no directive options, no link targets, no exercises."""
    text = "\n\n".join(source_of(c) for c in notebook["cells"] if c["cell_type"] == "markdown")
    text = re.sub(r"^## Exercises$.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(:::.*|:[a-z]+:.*)$", "", text, flags=re.MULTILINE)
    return re.sub(r"\]\([^)]*\)", "]", text)


def shown_html(cell: dict) -> str:
    data = [output.get("data", {}) for output in cell["outputs"]]
    return "\n".join("".join(d.get(kind, "")) for d in data
                     for kind in ("text/html", "image/svg+xml", "text/markdown"))


@each_chapter
def test_committed_as_the_normaliser_writes_it(path):
    assert problems(path) == []


@each_chapter
def test_size_of_the_file(path):
    assert path.stat().st_size < 600_000


@each_chapter
def test_number_and_length_of_code_cells(path):
    cells = code_cells(load(path))
    lengths = sorted(len(source_of(c).splitlines()) for c in cells)
    # what is read in passing: the stubs and folded solutions of the exercises come on top
    read = [c for c in cells if not {"exercise", "solution"} & set(tags_of(c))]
    assert 15 <= len(read) <= 40
    assert statistics.median(lengths) <= 6
    assert lengths[int(0.9 * len(lengths)) - 1] < 20
    assert lengths[-1] <= 40


@each_chapter
def test_no_line_of_code_is_wider_than_the_page(path):
    wide = [line for cell in code_cells(load(path)) if "setup" not in tags_of(cell)
            for line in source_of(cell).splitlines() if len(line) > 100]
    assert wide == []


@each_chapter
def test_amount_of_prose(path):
    words = [w for w in prose_of(load(path)).split() if re.search(r"\w", w)]
    assert 1300 <= len(words) <= 2600, f"{len(words)} words"


@each_chapter
def test_figures_have_a_text_alternative(path):
    figures = 0
    for number, cell in enumerate(code_cells(load(path)), start=1):
        html = shown_html(cell)
        for opening in PICTURE.findall(html):
            if 'aria-hidden="true"' in opening:
                continue
            described = 'role="img"' in opening and re.search('aria-label="[^"]{20,}', opening)
            assert described, f"code cell {number}: {opening[:120]}"
            figures += opening in SCRIPT.sub("", html)
        figures += len(LIVE.findall(html))
        for output in cell["outputs"]:
            raster = any(kind in output.get("data", {}) for kind in ("image/png", "image/jpeg"))
            alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
            assert not raster or len(alt) >= 20, f"code cell {number} draws without alt text"
            figures += raster
    assert 3 <= figures <= 9, f"{figures} figures"


@each_chapter
def test_printed_output_is_short(path):
    for number, cell in enumerate(code_cells(load(path)), start=1):
        for output in cell["outputs"]:
            lines = "".join(output.get("text", "")).splitlines()
            assert len(lines) <= 15, f"code cell {number} prints {len(lines)} lines"


@each_chapter
def test_parameters_are_commented_literals(path):
    cells = code_cells(load(path))
    assert "setup" in tags_of(cells[0])
    assert "parameters" in tags_of(cells[1])
    assert sum("parameters" in tags_of(cell) for cell in cells) == 1
    source = source_of(cells[1])
    names = {}
    for node in ast.parse(source).body:
        assert isinstance(node, ast.Assign | ast.AnnAssign), ast.unparse(node)
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        names[target.id] = ast.literal_eval(node.value)
        assert "#" in source.splitlines()[node.end_lineno - 1], f"{target.id} has no comment"
    assert names | {"PROFILE": "quick", "SEED": 0, "DEVICE": "cpu"} == names


@each_chapter
def test_tags_are_known_and_checks_are_shown(path):
    cells = code_cells(load(path))
    for cell in cells:
        assert set(tags_of(cell)) <= KNOWN_TAGS
    checks = [cell for cell in cells if "check" in tags_of(cell)]
    assert checks
    for cell in checks:
        assert "assert" in source_of(cell)
        assert not {"hide-input", "hide-cell", "remove-cell"} & set(tags_of(cell))
    assert any("nbval-check-output" in tags_of(cell) for cell in cells)


@each_chapter
def test_no_cell_reads_the_history(path):
    # how often a cell ran must not matter, and nbval runs cells without keeping a history
    for number, cell in enumerate(code_cells(load(path))[1:], start=2):
        names = {n.id for n in ast.walk(ast.parse(source_of(cell))) if isinstance(n, ast.Name)
                 and isinstance(n.ctx, ast.Load)}
        assert not names & {"In", "Out", "_", "__", "get_ipython"}, f"code cell {number}"


@each_chapter
def test_three_to_five_exercises(path):
    assert 3 <= len(list(exercises(path))) <= 5


@each_chapter
def test_title_and_ending(path):
    cells = load(path)["cells"]
    assert cells[0]["cell_type"] == "markdown"
    number, title = re.match(r"# (\w+) · (.+)", source_of(cells[0])).groups()
    assert number == path.stem.split("_")[0]
    assert title.strip() == load(path)["metadata"]["scratchbook"]["title"]
    text = "\n".join([source_of(c) for c in cells] + list(map(shown_html, code_cells(load(path)))))
    for part in ("## Summary", "## Exercises", "## Further reading", "Insights"):
        assert part in text, f"{part} is missing"


@each_chapter
def test_the_passport_is_true(path):
    passport = load(path)["metadata"]["scratchbook"]
    assert len(passport["goals"]) >= 3
    assert 0 < passport["budget_seconds"]["quick"] <= 90
    assert passport["budget_seconds"]["full"] > 0
    assert passport["memory_mb"] > 0
    assert passport["downloads_mb"]["quick"] == 0, "the quick profile needs no network"
    for stem in passport["needs"]:
        assert (path.parent / f"{stem}.ipynb").is_file()
        assert stem < path.stem, "a chapter builds on earlier ones"
    for module in passport["modules"]:
        assert importlib.import_module(module)
    known = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    for key in passport["papers"]:
        assert re.search(rf"@\w+\{{{re.escape(key)},", known), f"{key} is not in references.bib"


@each_chapter
def test_no_machine_or_remote_script_in_the_outputs(path):
    for cell in code_cells(load(path)):
        shown = json.dumps(cell["outputs"])
        assert not re.search(r"(/home/|/Users/|/root/|/tmp/|[A-Z]:\\\\Users)", shown)
        assert not REMOTE.search(shown)


def test_there_are_chapters():
    first = [path.stem for path in CHAPTERS][:3]
    assert first == ["00_start_here", "01_tokenization", "01b_domain_tokenizers"]


@each_chapter
def test_source_on_the_page_is_the_source_of_today(path, monkeypatch):
    shown = []
    monkeypatch.setattr("scratchbook.teaching.sources.display",
                        lambda item: shown.append(item.data))
    names = {}
    for cell in code_cells(load(path)):
        code = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source_of(cell), flags=re.MULTILINE))
        heads = [n for n in code.body if isinstance(n, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(heads, []), path.name, "exec"), names)
        for call in (n for n in ast.walk(code) if isinstance(n, ast.Call)):
            if getattr(call.func, "id", "") == "show_source":
                exec(ast.unparse(call), names)
                assert shown[-1] in shown_html(cell), f"refresh {path.name}: {ast.unparse(call)}"
    calls = sum(source_of(cell).count("show_source(") for cell in code_cells(load(path)))
    assert len(shown) == calls
