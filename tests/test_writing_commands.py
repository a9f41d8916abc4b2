"""The commands chat and compile on a run that was trained for a moment."""

import io
import sys

import pytest
import torch

from scratchbook.cli import main
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.model import DecoderLM
from scratchbook.training import TrainConfig, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    ids = torch.tensor(list(("def f():\n    return 1\n" * 200).encode()))
    torch.manual_seed(0)
    model = DecoderLM(ModelConfig(256, max_seq_len=96, num_layers=1, d_model=32, num_heads=2))
    folder = tmp_path_factory.mktemp("runs") / "first"
    train(model, Windows(ids, ids[:500], 32), TrainConfig(
        max_steps=60, batch_size=8, lr=1e-2, checkpoint_every=60, eval_every=60), folder)
    return str(folder)


def said(run, monkeypatch, capsys, *lines):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
    assert main(["chat", run]) == 0
    return capsys.readouterr()


def test_each_line_is_continued_and_settings_hold(run, monkeypatch, capsys):
    captured = said(run, monkeypatch, capsys, "/temperature 0", "/length 12", "def f", "", "def f")
    assert captured.out == "def f():\n    retu\n" * 2
    assert "temperature = 0.0" in captured.err and "> " not in captured.err
    drawn = said(run, monkeypatch, capsys, "/temperature 3", "def f", "def f").out
    assert drawn != said(run, monkeypatch, capsys, "/temperature 3", "/seed 9", "def f").out * 2


def test_mistakes_do_not_end_the_talk(run, monkeypatch, capsys):
    captured = said(run, monkeypatch, capsys, "/spell x", "/top_k many", "/top_k 0", "def",
                    "x" * 96, "/top_k 5", "/length 3", "def", "/quit", "never read")
    assert "/spell is unknown" in captured.err and "a number is needed" in captured.err
    assert "top_k=0" in captured.err and "96 tokens are more than" in captured.err
    assert captured.out.startswith("def") and "never" not in captured.out
    assert main(["chat", "nowhere"]) == 2


def test_characters_come_whole(run, monkeypatch, capsys):
    from scratchbook.cli import writing_commands
    from scratchbook.training import ByteTokenizer

    model = DecoderLM(ModelConfig(256, max_seq_len=96, num_layers=1, d_model=32, num_heads=2))
    settings = {"temperature": 0.0, "top_k": 40, "length": 6, "seed": 0}
    answer = iter("éé!".encode() + b"\xc3")
    monkeypatch.setattr("scratchbook.generation.stream",
                        lambda *given, **more: (torch.tensor([byte]) for byte in answer))
    pieces = list(writing_commands._pieces(model, ByteTokenizer(), "a", settings))
    assert pieces == ["aé", "é", "!", "\ufffd"]


def test_in_a_terminal(run):
    pexpect = pytest.importorskip("pexpect")
    child = pexpect.spawn(sys.executable, ["-m", "scratchbook", "chat", run], encoding="utf-8",
                          timeout=30)
    child.expect("> ")
    child.sendline("/temperature 0")
    child.expect(r"temperature = 0\.0")
    child.expect("> ")
    child.sendline("def f")
    child.expect(r"def f\(\):\s+return 1")
    child.expect("> ")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_run_stands_beside_its_controls(run, capsys):
    assert main(["compile", run, "--count", "6"]) == 0  # bodies of 48 characters: half its window
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["first", "6-gram", "their"]
    assert "100 %" in lines[2]
    assert all("of 6 compile, says Python's compiler" in line for line in lines)


def test_files_are_judged_by_language_or_left(tmp_path, monkeypatch, capsys):
    for name, text in {"a.py": "x = 1\n", "b.py": "x = \n", "m.st": "foo ^ 1\n"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr("scratchbook.evaluation.compiling.shutil.which", lambda name: None)
    assert main(["compile", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "python          50 % (9 to 91) of 2 compile" in printed
    assert "smalltalk      1 not judged: it needs node" in printed
    assert main(["compile", str(tmp_path / "m.st")]) == 1
    assert main(["compile", str(tmp_path / "none")]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["compile", str(tmp_path / "empty")]) == 2
    assert "no code in" in capsys.readouterr().err
