"""Running and tidying notebooks: nothing is lost, and the committed form is always the same."""

import json
import os

import nbformat
import pytest

from scratchbook.publishing import notebooks
from scratchbook.publishing.chapters import all_chapters, find_chapter, read_chapter
from scratchbook.publishing.execute import execute_chapters, run_notebook

PASSPORT = {"title": "Toy", "budget_seconds": {"quick": 30, "full": 60}, "memory_mb": 100,
            "downloads_mb": {"quick": 0, "full": 0}}
PARAMETERS = 'PROFILE = "quick"  # or "full"\nSEED = 0  # of every draw\nRATE = 0.5  # a share'


def make_notebook(path, *sources):
    """Write a chapter whose cells are the setup, the parameters and `sources`."""
    notebook = nbformat.v4.new_notebook()
    code = [nbformat.v4.new_code_cell(text) for text in ("# setup", PARAMETERS, *sources)]
    code[1].metadata["tags"] = ["parameters"]
    notebook.cells = [nbformat.v4.new_markdown_cell("# 90 · Toy"), *code]
    notebook.metadata["scratchbook"] = PASSPORT
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    return path


def outputs_of(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join("".join(o.get("text", o.get("evalue", ""))) for o in c.get("outputs", []))
            for c in cells if c["cell_type"] == "code"]


def test_refresh_executes_in_place_and_leaves_one_committed_form(tmp_path):
    path = make_notebook(tmp_path / "90_toy.ipynb", "print(SEED, PROFILE)",
                         "import sys\nprint('noise', file=sys.stderr)\nprint('50%\\r100%')\n6 * 7")
    line = notebooks.refresh(path)
    assert line.startswith("90_toy.ipynb: ")
    assert notebooks.problems(path) == []
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert [c.get("execution_count") for c in notebook["cells"]] == [None, 1, 2, 3, 4]
    assert outputs_of(path)[2:] == ["0 quick\n", "100%\n"]
    assert notebook["cells"][-1]["outputs"][-1]["data"]["text/plain"] == ["42"]
    assert notebook["metadata"] == {"kernelspec": notebooks.KERNELSPEC,
                                    "language_info": {"name": "python"}, "scratchbook": PASSPORT}
    assert notebook["cells"][1]["source"][0].startswith("# Installs what")
    once = path.read_bytes()
    notebooks.refresh(path)
    assert path.read_bytes() == once, "a second refresh changes nothing"


def test_refresh_leaves_a_failing_chapter_as_it_was(tmp_path):
    path = make_notebook(tmp_path / "90_toy.ipynb", "print('before')", "raise KeyError('gone')")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"code cell 4: KeyError: 'gone'; partial notebook: "):
        notebooks.refresh(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("damage", "complaint"), [
    (lambda nb: nb["metadata"].update(widgets={}), "notebook metadata"),
    (lambda nb: nb["cells"][3].update(execution_count=7), "execution_count"),
    (lambda nb: nb["cells"][3]["metadata"].update(papermill={"status": "completed"}), "metadata"),
    (lambda nb: nb["cells"][3].update(id="hello"), "id"),
    (lambda nb: nb["cells"][1].update(source="import os"), "source"),
    (lambda nb: nb["cells"][3].update(outputs=[{"output_type": "stream", "name": "stderr",
                                                "text": "warning"}]), "outputs"),
    (lambda nb: nb["cells"][3].update(outputs=[{"output_type": "stream", "name": "stdout",
                                                "text": "<x at 0x7f00aa11bb22>"}]), "address"),
])
def test_check_finds_what_the_normaliser_would_change(tmp_path, damage, complaint):
    path = make_notebook(tmp_path / "90_toy.ipynb", "print(1)")
    notebooks.refresh(path)
    notebook = nbformat.read(path, as_version=4)
    damage(notebook)
    path.write_text(notebooks.as_text(notebook), encoding="utf-8")
    assert complaint in " ".join(notebooks.problems(path))


def test_a_cell_keeps_its_id_when_another_changes(tmp_path):
    one = make_notebook(tmp_path / "90_toy.ipynb", "a = 1", "b = 2", "b = 2")
    two = make_notebook(tmp_path / "91_toy.ipynb", "a = 3", "b = 2", "b = 2")
    ids = [[c["id"] for c in notebooks.normalise(nbformat.read(p, as_version=4))["cells"]]
           for p in (one, two)]
    assert len(set(ids[0])) == len(ids[0])
    assert [a == b for a, b in zip(*ids, strict=True)] == [True, True, True, False, True, True]


def test_a_widget_goes_and_a_plain_display_stays():
    view = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "IntSlider()"}
    displays = [nbformat.v4.new_output("display_data", data)
                for data in (view, {"text/plain": "kept"})]
    cells = [nbformat.v4.new_code_cell("# setup"),
             nbformat.v4.new_code_cell("x", outputs=displays, execution_count=2)]
    tidy = notebooks.normalise(nbformat.v4.new_notebook(cells=cells))
    assert [o["data"] for o in tidy["cells"][1]["outputs"]] == [{"text/plain": "kept"}]


def test_without_a_place_for_the_setup_cell():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")])
    with pytest.raises(ValueError, match="tagged \"setup\""):
        notebooks.normalise(notebook)


def test_the_address_is_one_setting(tmp_path):
    assert notebooks.repository_address(tmp_path) == notebooks.DEFAULT_ADDRESS
    settings = tmp_path / "_config.yml"
    settings.write_text("repository:\n  url: https://example.org/me/mine.git\n", encoding="utf-8")
    assert notebooks.repository_address(tmp_path) == "https://example.org/me/mine"


def test_side_by_side_with_a_line_each_and_failures_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    folder = tmp_path / "chapters"
    make_notebook(folder / "90_good.ipynb", "import os\nprint(os.environ['OMP_NUM_THREADS'])")
    make_notebook(folder / "91_bad.ipynb", "print('kept')", "1 / 0", "print('never')")
    make_notebook(folder / "92_dead.ipynb", "print('kept')", "import os\nos._exit(1)")
    receipts = execute_chapters(all_chapters(folder), tmp_path / "out")
    good, bad, dead = receipts
    assert (good.passed, bad.passed, dead.passed) == (True, False, False)
    assert outputs_of(good.output)[2] == "1\n", "one thread each"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "kept\n" in outputs_of(bad.output)
    assert "kept\n" in outputs_of(dead.output)
    printed = capsys.readouterr().out
    assert "[3/3]" in printed
    assert "s of 30 s" in printed
    assert "code cell 4: ZeroDivisionError: division by zero" in printed
    assert "the kernel died" in printed


def test_parameters_reach_the_notebook_and_the_folder_is_the_chapters(tmp_path):
    path = make_notebook(tmp_path / "chapters" / "90_toy.ipynb",
                         "from pathlib import Path\nprint(RATE, Path.cwd().name)")
    receipt = run_notebook(path, tmp_path / "out {odd}" / "toy.ipynb", {"RATE": 0.25})
    assert receipt.passed, receipt.error
    assert "0.25 chapters\n" in outputs_of(receipt.output)
    assert receipt.peak_mb is None or receipt.peak_mb > 10


@pytest.fixture
def book(tmp_path):
    for stem in ("00_start_here", "01_tokenization", "01b_domain_tokenizers", "02_attention"):
        make_notebook(tmp_path / f"{stem}.ipynb")
    return all_chapters(tmp_path)


@pytest.mark.parametrize(("name", "stem"), [
    ("01", "01_tokenization"), ("1", "01_tokenization"), ("01b", "01b_domain_tokenizers"),
    ("1b", "01b_domain_tokenizers"), ("02_attention", "02_attention"), ("atten", "02_attention"),
    ("chapters/02_attention.ipynb", "02_attention"), ("Start", "00_start_here")])
def test_a_chapter_by_any_name(book, name, stem):
    assert find_chapter(name, book).stem == stem


@pytest.mark.parametrize(("name", "complaint"), [
    ("tokeni", "fits several chapters: 01_tokenization, 01b_domain_tokenizers"),
    ("02_atention", "Did you mean 02_attention"), ("77", "Chapters: 00_start_here, 01_"),
    ("", "no chapter ''")])
def test_an_unknown_chapter_lists_the_known(book, name, complaint):
    with pytest.raises(ValueError, match=complaint):
        find_chapter(name, book)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"metadata": 3}', "\x00"])
def test_a_file_that_is_no_notebook(tmp_path, content):
    path = tmp_path / "90_toy.ipynb"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="not a readable notebook"):
        read_chapter(path)
