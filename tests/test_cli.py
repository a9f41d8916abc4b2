"""The command line: what it promises, and that no mistake ends in a traceback."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from scratchbook import cli
from scratchbook.cli import chapter_commands, tokenizer_commands
from scratchbook.publishing import receipts
from scratchbook.publishing.chapters import all_chapters
from scratchbook.publishing.execute import Receipt
from tests.test_execute import make_notebook, outputs_of


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A repository of two toy chapters that the commands take for the book."""
    folder = tmp_path / "chapters"
    make_notebook(folder / "90_toy.ipynb", "print(PROFILE, SEED, RATE)")
    make_notebook(folder / "91_broken.ipynb", "print('kept')", "raise ValueError('no such luck')")
    monkeypatch.setattr(chapter_commands, "all_chapters", lambda: all_chapters(folder))
    monkeypatch.setattr(chapter_commands, "chapters_dir", lambda: folder)
    return tmp_path


def run(capsys, *words):
    status = cli.main(list(words))
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    return status, printed.out, printed.err


def test_a_run_is_announced_made_and_receipted(book, capsys):
    status, out, _ = run(capsys, "run", "90", "-p", "SEED=3", "-p", "RATE=0.25")
    assert status == 0
    announced, receipt = out.split("passed after")
    assert "SEED = 3" in announced
    assert "about 30 s (its budget on two CPU cores" in announced
    assert "memory     100 MB" in announced
    assert "downloads  nothing" in announced
    notebook = book / "build" / "runs" / "90.quick.ipynb"
    assert str(notebook) in receipt
    assert outputs_of(notebook)[-1] == "quick 3 0.25\n"


def test_the_full_profile_reaches_the_notebook_and_the_next_prediction(book, capsys):
    status, _, _ = run(capsys, "run", "toy_", "--profile", "full", "--threads", "1")
    assert status == 2, "no chapter has this in its name"
    assert run(capsys, "run", "90_toy", "--profile", "full", "--threads", "1")[0] == 0
    assert outputs_of(book / "build" / "runs" / "90.full.ipynb")[-1] == "full 0 0.5\n"
    assert "its last run here" in run(capsys, "run", "90", "--profile", "full", "--dry-run")[1]
    assert "measured on 1 runs here" in run(capsys, "run", "90", "--dry-run")[1]


def test_a_failing_chapter_keeps_its_partial_notebook(book, capsys):
    status, out, _ = run(capsys, "run", "91")
    assert status == 1
    assert "code cell 4: ValueError: no such luck" in out
    assert "partial notebook" in out
    assert "kept\n" in outputs_of(book / "build" / "runs" / "91.quick.ipynb")


@pytest.mark.parametrize(("words", "complaint"), [
    (["77"], "Chapters: 90_toy, 91_broken"),
    (["90", "--profile", "huge"], "it has quick, full"),
    (["90", "-p", "SEEED=3"], "Did you mean SEED? This chapter takes:"),
    (["90", "-p", "seed=3"], "RATE (float, default 0.5)  a share"),
    (["90", "-p", "SEED=x"], "SEED=x: expected int, such as 0"),
    (["90", "-p", "SEED=1.5"], "expected int"),
    (["90", "-p", "SEED"], "-p takes name=value, not 'SEED'"),
    (["90", "-p", "SEED=1", "-p", "SEED=2"], "given twice"),
    (["90", "-p", "PROFILE=full"], "--profile full"),
])
def test_a_mistake_in_run_is_one_clear_message(book, capsys, words, complaint):
    status, _, err = run(capsys, "run", *words)
    assert status == 2
    assert err.startswith("scratchbook: ")
    assert complaint in err


def test_a_prediction_prefers_the_same_run_then_this_machine_then_the_budget(book):
    toy, broken = all_chapters(book / "chapters")

    def ran(chapter, seconds, status="passed", parameters=()):
        return {"chapter": chapter.stem, "profile": "quick", "status": status, "budget": 30,
                "seconds": seconds, "parameters": dict(parameters)}

    assert receipts.predict(toy, "quick", []).seconds == 30
    others = [ran(broken, 15), ran(broken, 60), ran(broken, 30 * 0.7)]
    assert receipts.predict(toy, "quick", others).seconds == pytest.approx(30 * 0.7)
    assert receipts.predict(toy, "full", others).seconds == pytest.approx(60 * 0.7)
    misleading = [ran(toy, 1, "failed"), ran(toy, 2, parameters={"SEED": 3}.items())]
    assert receipts.predict(toy, "quick", misleading).seconds == 30
    assert receipts.predict(toy, "quick", [*others, ran(toy, 41), ran(toy, 42)]).seconds == 42


@pytest.mark.parametrize(("text", "default", "value"), [
    ("3", 0, 3), ("1_000", 0, 1000), ("3", 0.5, 3.0), ("1e-3", 0.5, 0.001), ("no", True, False),
    ("TRUE", False, True), ("3", "cpu", "3"), ("[1, 2]", [0], [1, 2]), ("(1,)", (), (1,)),
    ("x", None, "x"), ("3", None, 3)])
def test_a_value_gets_the_type_of_its_default(text, default, value):
    parsed = receipts.parse_value(text, receipts.Parameter("NAME", default))
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(("text", "default"), [
    ("maybe", True), ("", 0), ("(1,)", [0]), ("[1", [0]), ("__import__('os')", [0])])
def test_a_value_of_another_type_is_refused(text, default):
    with pytest.raises(ValueError, match="NAME=.*: expected .*, such as"):
        receipts.parse_value(text, receipts.Parameter("NAME", default))


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to a child alone on Windows")
def test_ctrl_c_keeps_the_partial_notebook(tmp_path):
    path = make_notebook(tmp_path / "chapters" / "90_toy.ipynb", "print('kept')",
                         "from pathlib import Path\nPath('started').touch()",
                         "import time\ntime.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-c", f"""
import signal, sys
from pathlib import Path
from scratchbook import cli
from scratchbook.cli import chapter_commands
from scratchbook.publishing.chapters import all_chapters
signal.signal(signal.SIGINT, signal.default_int_handler)
chapter_commands.all_chapters = lambda: all_chapters(Path({str(path.parent)!r}))
chapter_commands.chapters_dir = lambda: Path({str(path.parent)!r})
sys.exit(cli.main(["run", "90"]))"""], stdout=subprocess.PIPE, text=True, start_new_session=True)
    for _ in range(600):
        if (path.parent / "started").exists():
            break
        time.sleep(0.1)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped by Ctrl-C" in out
    notebook = tmp_path / "build" / "runs" / "90.quick.ipynb"
    assert f"partial notebook  {notebook}" in out
    assert "kept\n" in outputs_of(notebook)


def test_list_shows_every_chapter_and_its_last_run(book, capsys):
    folder = book / "build" / "runs"
    chapter = all_chapters(book / "chapters")[0]
    receipt = Receipt(chapter.stem, folder / "x.ipynb", 12.4, None, "", interrupted=True)
    receipts.remember(folder, receipt, chapter, "quick", {})
    (folder / receipts.HISTORY).open("a", encoding="utf-8").write("damaged\n")
    status, out, _ = run(capsys, "list")
    assert status == 0
    header, first, second = out.splitlines()
    assert header.split() == ["number", "title", "quick", "full", "status", "last", "run"]
    assert "quick interrupted in 12 s" in first
    assert "not run here" in second
    assert [row["number"] for row in json.loads(run(capsys, "list", "--json")[1])] == ["90", "91"]


def test_doctor_judges_every_profile_of_every_chapter(book, capsys):
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    assert out.count("90_toy") == 2
    data = json.loads(run(capsys, "doctor", "--json")[1])
    assert [(v["chapter"], v["profile"]) for v in data["verdicts"]][1] == ("90_toy", "full")


def test_results_are_listed_and_unknown_ones_refused(capsys):
    status, out, _ = run(capsys, "results")
    assert status == 0
    assert "result" in out or "nothing yet" in out
    status, _, err = run(capsys, "results", "no-such-result")
    assert status == 2
    assert "no result called 'no-such-result'" in err


def test_importing_the_command_line_is_light():
    code = ("import sys, scratchbook.cli; "
            "sys.exit(bool({'torch', 'nbclient', 'numpy'} & sys.modules.keys()))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_command_has_help(capsys):
    for words in ([], ["run"], ["list"], ["doctor"], ["results"], ["tokenizer"],
                  ["tokenizer", "train"], ["tokenizer", "verify"], ["tokenizer", "quality"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*words, "--help"])
        assert stopped.value.code == 0
        assert "usage: scratchbook" in capsys.readouterr().out


def test_a_missing_package_is_named_with_the_way_out():
    error = ModuleNotFoundError("No module named 'papermill'", name="papermill")
    assert "pip install 'scratchbook[notebooks]'" in cli.explain(error)


# --- tokenizer


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    words = "the cat sat on the mat and looked at the other cat\n"
    (folder / "a.txt").write_text(words * 40 + "Grüße, 世界", encoding="utf-8")
    (folder / "b.bin").write_bytes(b"\xff\xfe\x00")
    return folder


@pytest.fixture(scope="module")
def trained(texts):
    path = texts / "tokenizer.json"
    assert cli.main(["tokenizer", "train", str(texts / "a.txt"), "--vocab", "300",
                     "--special", "<|end|>", "--output", str(path)]) == 0
    return path


def test_a_trained_file_loads_in_the_library_and_gives_its_ids(trained, texts, capsys):
    tokenizers = pytest.importorskip("tokenizers")
    library = tokenizers.Tokenizer.from_file(str(trained))
    assert library.get_vocab_size() <= 300
    text = (texts / "a.txt").read_text(encoding="utf-8")
    assert library.encode(text).ids == tokenizer_commands.load(str(trained)).encode(text)
    status, out, _ = run(capsys, "tokenizer", "verify", str(trained), str(texts / "a.txt"))
    assert status == 0
    assert ": 0 differ from tokenizers" in out
    assert "0 do not decode to themselves" in out


def test_verify_fails_when_the_ids_differ(trained, texts, capsys, monkeypatch):
    class Shifted(type(tokenizer_commands.load(str(trained)))):
        def _encode_ordinary(self, text):
            return [*super()._encode_ordinary(text), 0]

    monkeypatch.setattr(tokenizer_commands, "BPETokenizer", Shifted)
    assert run(capsys, "tokenizer", "verify", str(trained), str(texts / "a.txt"))[0] == 1


def test_verify_compares_texts_that_spell_a_special_token_too(trained, tmp_path, capsys,
                                                              monkeypatch):
    class Shifted(type(tokenizer_commands.load(str(trained)))):
        def _encode_ordinary(self, text):
            return [*super()._encode_ordinary(text), *[0] * ("only here" in text)]

    (tmp_path / "c.txt").write_text("only here<|end|>", encoding="utf-8")
    words = ["tokenizer", "verify", str(trained), str(tmp_path / "c.txt")]
    assert run(capsys, *words)[0] == 0
    monkeypatch.setattr(tokenizer_commands, "BPETokenizer", Shifted)
    status, out, _ = run(capsys, *words)
    assert status == 1 and ": 1 differ from tokenizers" in out


def test_quality_prints_its_measures_and_holds_a_bound(trained, texts, capsys):
    words = ["tokenizer", "quality", str(trained), str(texts / "a.txt")]
    status, out, _ = run(capsys, *words, "--json")
    numbers = json.loads(out)
    assert status == 0
    assert numbers["chars_per_token"] > 1
    assert run(capsys, *words, "--at-least", "1.0")[0] == 0
    status, out, _ = run(capsys, *words, "--at-least", "99")
    assert status == 1
    assert "larger --vocab" in out


def test_no_text_is_trained_on_and_judged():
    mine, held = tokenizer_commands.own_texts(False), tokenizer_commands.own_texts(True)
    sizes = sum(map(len, mine)), sum(map(len, held))
    assert 0.1 < sizes[1] / sum(sizes) < 0.35
    assert not set(mine) & set(held)


@pytest.mark.parametrize(("words", "complaint"), [
    (["train", "no-such.txt"], "no-such.txt"),
    (["train", "{texts}/b.bin"], "not UTF-8 text"),
    (["verify", "no-such.json"], "scratchbook tokenizer train --output"),
    (["quality", "{texts}/a.txt"], "a.txt"),
    (["train", "{texts}/a.txt", "--vocab", "100"], "100"),
])
def test_a_mistake_with_a_tokenizer_is_one_clear_line(texts, capsys, words, complaint):
    status, _, err = run(capsys, "tokenizer", *[w.format(texts=texts) for w in words])
    assert status == 2
    assert err.startswith("scratchbook: ")
    assert complaint in err


@pytest.mark.parametrize("words", [["tokenizer", "train", "--vocab", "-3"], ["frobnicate"], []])
def test_a_command_line_that_argparse_refuses(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    assert "usage: scratchbook" in capsys.readouterr().err


def test_three_characters_per_token_on_english_and_code(tmp_path, capsys):
    path = tmp_path / "tokenizer.json"
    assert run(capsys, "tokenizer", "train", "--vocab", "8192", "--output", str(path))[0] == 0
    status, out, _ = run(capsys, "tokenizer", "quality", str(path), "--at-least", "3.0")
    assert status == 0, out
