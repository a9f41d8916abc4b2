"""The commands eval, sample and compare on a run that was trained for a moment."""

import io
import json

import pytest
import torch

from scratchbook.cli import main
from scratchbook.config import ModelConfig
from scratchbook.data import standard_library
from scratchbook.data.batches import Windows
from scratchbook.evaluation.report import evaluate
from scratchbook.model import DecoderLM
from scratchbook.tokenizers import BPETokenizer, CharTokenizer
from scratchbook.training import TrainConfig, train
from scratchbook.training.judging import unreadable

TEXT = "".join(standard_library(60_000))


def make_run(folder, steps=40, tokenizer=None, seed=0):
    ids = torch.tensor(list(TEXT.encode()) if tokenizer is None else tokenizer.encode(TEXT[:9000]))
    torch.manual_seed(seed)
    model = DecoderLM(ModelConfig(256 if tokenizer is None else tokenizer.vocab_size,
                                  max_seq_len=128, num_layers=1, d_model=48, num_heads=2))
    train(model, Windows(ids, ids[:2000], 64, seed), TrainConfig(
        max_steps=steps, batch_size=8, lr=3e-3, checkpoint_every=steps // 2, eval_every=steps // 2,
        keep_last=5, seed=seed), folder)
    if tokenizer is not None:
        tokenizer.save(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "small.py"
    path.write_text(TEXT[:3000], encoding="utf-8")
    return str(path)


def test_eval_prints_two_texts_and_writes_one_json(run, capsys):
    assert main(["eval", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "first, step 40" in printed
    result = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert set(result["texts"]) == {"prose", "code"} and "tests" not in result
    for found in result["texts"].values():
        assert 0 < found["bits_per_byte"] < 8
        assert found["low"] < found["perplexity"] < found["high"]
        assert f"{found['bits_per_byte']:.3f} bits per byte" in printed


def test_eval_all_writes_one_json_and_one_figure(run, texts, tmp_path, capsys):
    output = tmp_path / "result.json"
    assert main(["eval", str(run), "--all", "--json", "--text", texts, "--output", str(output),
                 "--checkpoint", "20"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(output.read_text(encoding="utf-8"))
    assert result["step"] == 20
    assert {"run", "step", "parameters", "vocab_size", "texts", "tests", "controls", "samples",
            "signals", "cpu_seconds"} <= set(result)
    assert {"brackets", "keywords", "indentation", "functions", "repeats", "sequences",
            "words"} == set(result["tests"]) == set(result["controls"]["n-gram"])
    assert result["controls"]["only )"]["brackets"]["share"] == pytest.approx(1 / 3)
    assert result["cpu_seconds"] < 20
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result.json", "result.png"]
    assert (tmp_path / "result.png").read_bytes()[:4] == b"\x89PNG"


def test_compare_two_results(run, texts, tmp_path, capsys):
    paths = []
    for step in ("20", "40"):
        paths.append(str(tmp_path / f"{step}.json"))
        main(["eval", str(run), "--all", "--text", texts, "--output", paths[-1],
              "--checkpoint", step])
    capsys.readouterr()
    picture = tmp_path / "both.png"
    assert main(["compare", *paths, "--output", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "brackets" in printed and "points" in printed
    assert main(["compare", "baseline", paths[1], "--output", str(picture)]) == 0
    assert "indentation" in capsys.readouterr().out  # against the recorded v0
    pytest.importorskip("PIL")
    from PIL import Image

    with Image.open(picture) as image:
        assert image.info["dpi"] == pytest.approx((200, 200), abs=1)
    changed = json.loads((tmp_path / "20.json").read_text(encoding="utf-8"))
    changed["tests"]["brackets"]["prompts"] = "others"
    (tmp_path / "20.json").write_text(json.dumps(changed), encoding="utf-8")
    assert main(["compare", *paths, "--output", str(picture)]) == 2
    assert "not the same test" in capsys.readouterr().err


def test_compare_checkpoints_finds_the_planted_best(run, tmp_path, capsys):
    import shutil

    planted = tmp_path / "planted"
    shutil.copytree(run, planted)
    folder = planted / "checkpoints"
    # the weights of the trained step 40 under the name of step 10, those of step 20 elsewhere
    shutil.copytree(folder / "step_000040", folder / "step_000010")
    shutil.rmtree(folder / "step_000040")
    (folder / "step_notes").mkdir()
    (folder / "step_000099").write_text("no folder", encoding="utf-8")
    assert main(["compare", "checkpoints", str(planted)]) == 0
    printed = capsys.readouterr().out
    assert "best: step 10" in printed and "step     20" in printed


def test_sample(run, capsys, monkeypatch):
    assert main(["sample", str(run), "--prompt", "def f(", "--max-new-tokens", "9",
                 "--temperature", "0"]) == 0
    greedy = capsys.readouterr().out
    assert greedy.startswith("def f(")
    main(["sample", str(run), "--prompt", "def f(", "--max-new-tokens", "9", "--beams", "1"])
    assert capsys.readouterr().out == greedy
    drawn = []
    for seed in ("1", "1", "2"):
        main(["sample", str(run), "--prompt", "import ", "--seed", seed, "--top-k", "40",
              "--top-p", "0.95", "--min-p", "0.01", "--temperature", "1.2"])
        drawn.append(capsys.readouterr().out)
    assert drawn[0] == drawn[1] != drawn[2]
    monkeypatch.setattr("sys.stdin", io.StringIO("class \n\nimport \n"))  # an empty line waits
    assert main(["sample", str(run), "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.count("class ") == 1
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["sample", str(run)]) == 0
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def verses(tmp_path_factory):
    """A run of characters, trained by the command on a text of its own."""
    folder = tmp_path_factory.mktemp("verses")
    (folder / "verses.txt").write_text("to be or not to be, that is: zw\xf6lf\n" * 80, "utf-8")
    assert main(["train", "--data.text", str(folder / "verses.txt"), "--data.tokenizer", "char",
                 "--model.num_layers", "1", "--model.d_model", "32", "--model.num_heads", "2",
                 "--model.max_seq_len", "64", "--data.seq_len", "32", "--train.max_steps", "40",
                 "--train.lr", "0.01", "--train.checkpoint_every", "20", "--train.eval_every", "20",
                 "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


def test_a_run_is_measured_on_what_its_own_training_left_out(verses, capsys):
    assert main(["eval", str(verses)]) == 0
    captured = capsys.readouterr()
    result = json.loads((verses / "evaluation.json").read_text(encoding="utf-8"))
    assert set(result["texts"]) == {"held out"}  # the others have characters that it never saw
    assert 250 < result["texts"]["held out"]["tokens"] < 300
    assert "left out prose: " in captured.err and "left out code: " in captured.err
    assert main(["compare", "checkpoints", str(verses)]) == 0
    assert "best: step 40" in capsys.readouterr().out


def test_a_text_that_is_gone_is_said(verses, tmp_path, capsys):
    import shutil

    moved = shutil.copytree(verses, tmp_path / "moved")
    config = json.loads((moved / "config.json").read_text(encoding="utf-8"))
    config["data"]["text"] = "nowhere.txt"
    (moved / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert main(["eval", str(moved)]) == 0  # on texts that it does not quite spell
    assert "'nowhere.txt' is no file" in capsys.readouterr().err
    assert main(["compare", "checkpoints", str(moved)]) == 0
    printed = capsys.readouterr().out
    assert "inf" not in printed and "perplexity" in printed
    (moved / "config.json").write_text("[]", encoding="utf-8")
    assert main(["eval", str(moved)]) == 2
    assert "config.json" in capsys.readouterr().err


def test_without_a_number_a_sample_fits_into_the_window(verses, capsys):
    assert main(["sample", str(verses), "--prompt", "to be"]) == 0
    assert len(capsys.readouterr().out) == 65  # 64 and the end of the line
    assert main(["sample", str(verses), "--prompt", "to be", "--beams", "2"]) == 0
    assert main(["sample", str(verses), "--prompt", "to be " * 20]) == 2
    assert "do not fit" in capsys.readouterr().err


def test_texts_of_one_name_are_two(run, tmp_path):
    for folder, text in (("a", "first text"), ("b", "zw\xf6lf")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.md").write_text(text, encoding="utf-8")
    paths = [str(tmp_path / folder / "x.md") for folder in ("a", "b")]
    output = tmp_path / "new folder" / "result.json"
    assert main(["eval", str(run), "--text", paths[0], "--text", paths[1], "--output",
                 str(output)]) == 0
    texts = json.loads(output.read_text(encoding="utf-8"))["texts"]
    assert {name: found["num_bytes"] for name, found in texts.items()} == {
        paths[0]: 9, paths[1]: 5}  # the first byte has nothing before it


def test_a_model_that_gives_nan_is_said(run, texts):
    model = DecoderLM(ModelConfig(256, max_seq_len=128, num_layers=1, d_model=16, num_heads=2))
    torch.nn.init.constant_(model.token_embedding.weight, torch.nan)
    with pytest.raises(ValueError, match="the loss is nan"):
        evaluate(model, BytesOnly(), {"a": "some text"}, tests=False)


class BytesOnly:
    """Letters as their numbers."""

    vocab_size = 256

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode()


def test_mistakes_end_in_one_line(run, tmp_path, capsys):
    for name, content in {"binary": b"\xff\x00", "list.json": b"[]",
                          "plain.json": b'{"texts": {}}'}.items():
        (tmp_path / name).write_bytes(content)
    for arguments, message in (
            (["eval", str(tmp_path)], "not the folder of a run"),
            (["eval", str(run), "--checkpoint", "33"], "no checkpoint step_000033"),
            (["sample", str(run), "--prompt", ""], "a prompt is empty"),
            (["sample", str(run), "--prompt", "a", "--max-new-tokens", "999"], "do not fit"),
            (["sample", str(run), "--prompt", "a", "--temperature", "-1"], "negative"),
            (["sample", str(run), "--prompt", "a", "--beams", "2", "--max-new-tokens", "999"],
             "do not fit"),
            (["sample", str(run), "--prompt", "a", "--beams", "0"], "beams=0"),
            (["sample", str(run), "--prompt", "a", "--beams", "2", "--max-new-tokens", "-1"],
             "max_new_tokens=-1"),
            (["eval", str(run), "--text", str(tmp_path / "none")], "no such file"),
            (["eval", str(run), "--text", str(tmp_path / "binary")], "binary: binary"),
            (["compare", str(tmp_path / "plain.json"), str(run)], "plain.json holds no code tests"),
            (["compare", str(tmp_path / "list.json"), str(run)], "list.json holds no code tests"),
            (["compare", str(tmp_path / "binary"), str(run)], "binary is no result"),
            (["compare", str(tmp_path / "none.json"), str(run)], "no such file"),
            (["compare", "checkpoints", str(tmp_path)], "no checkpoints")):
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error, error


def test_a_special_token_s_text_is_text(run):
    tokenizer = BPETokenizer().train(TEXT[:3000], 270, special_tokens=["<|end|>"])
    with pytest.raises(ValueError, match="end"):
        tokenizer.encode("a<|end|>b")
    assert not unreadable(tokenizer, {"strange": "a<|end|>b"})


def test_a_tokenizer_that_cannot_read_a_text_leaves_it_out(tmp_path, capsys):
    tokenizer = CharTokenizer(unknown="error").train("".join(sorted(set(TEXT[:9000]))))
    folder = make_run(tmp_path / "chars", 2, tokenizer)
    strange = tmp_path / "strange.txt"
    strange.write_text("日本語 " * 40, encoding="utf-8")
    plain = tmp_path / "plain.txt"
    plain.write_text(TEXT[:500], encoding="utf-8")
    assert main(["eval", str(folder), "--text", str(strange), "--text", str(plain)]) == 0
    captured = capsys.readouterr()
    assert "left out strange.txt" in captured.err and "plain.txt" in captured.out
    assert main(["eval", str(folder), "--text", str(strange)]) == 2
    assert "--text FILE" in capsys.readouterr().err
