"""Documents of classes, their token files, and the command that trains on them."""

import json
import re
from dataclasses import asdict

import pytest

from scratchbook import cli
from scratchbook.data.smalltalk_corpus import row_of
from scratchbook.data.smalltalk_documents import (
    class_documents,
    estimated_tokens,
    pack_smalltalk,
)
from scratchbook.data.token_files import read_tokens
from scratchbook.smalltalk import parts
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer

CLASSES = [ClassRecord("Stack", "Object", ("items",), comment="I keep things.", project="p"),
           ClassRecord("Queue", "Object", ("items", "first"), comment="I wait. " * 60, project="p")]
SOURCE = "add{n}: each\n\t\"Add {n}.\"\n\titems add: each; add: {n}.\n\t^ each"
METHODS = [MethodRecord(SOURCE.format(n=n), name,
                        n % 3 == 0, project="p")
           for name in ("Stack", "Queue", "Unknown") for n in range(12)]
SEQ_LEN = 400


@pytest.fixture(scope="module")
def tokenizer():
    texts = [record.source for record in METHODS]
    return SmalltalkTokenizer().train(texts, 256 + len(parts.SPECIAL_TOKENS) + 40)


def documents(tokenizer, **options):
    return [tokenizer.decode(ids) for ids in class_documents(CLASSES, METHODS, tokenizer, SEQ_LEN,
                                                             **options)]


def test_every_method_is_told_once_behind_its_class(tokenizer):
    found = documents(tokenizer, fill_in_share=0)
    for record in METHODS:
        holders = [text for text in found if f"{record.source}<|end|>" in text]
        assert holders
        if record.class_name == "Stack":
            assert sum(text.startswith("<|class|>Object subclass: #Stack") for text in holders) == 1
    assert "".join(found).count("<|method|>") + "".join(found).count("<|classmethod|>") == 36
    assert all(text.endswith(parts.END_OF_TEXT) for text in found)


def test_documents_fit_into_the_window_and_long_comments_stay_out(tokenizer):
    ids = list(class_documents(CLASSES, METHODS, tokenizer, SEQ_LEN, 0))
    assert max(map(len, ids)) <= SEQ_LEN
    queues = [text for text in documents(tokenizer, fill_in_share=0) if "#Queue" in text]
    assert queues and not any("I wait" in text for text in queues)


def test_a_hole_and_its_surroundings_are_the_method(tokenizer):
    found = "".join(documents(tokenizer, fill_in_share=1))
    sources = {record.source for record in METHODS}
    pieces = found.split(parts.PREFIX)[1:]
    assert len(pieces) == len(METHODS)
    for piece in pieces:
        before, rest = piece.split(parts.SUFFIX)
        after, hole = rest.split(parts.MIDDLE)
        assert before + hole.split(parts.END)[0] + after in sources


def test_the_seed_decides(tokenizer):
    assert documents(tokenizer, seed=1) == documents(tokenizer, seed=1)
    assert documents(tokenizer, seed=1) != documents(tokenizer, seed=2)


def test_a_share_that_makes_no_sense_is_refused(tokenizer):
    with pytest.raises(ValueError, match="fill_in_share"):
        documents(tokenizer, fill_in_share=2)


@pytest.fixture
def corpus(tmp_path, tokenizer):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, some in (("train", METHODS), ("validation", METHODS[:6])):
        text = "\n".join(json.dumps(row_of(record)) for record in some)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    rows = [json.dumps(asdict(record) | {"split": split}) for record in CLASSES
            for split in ("train", "validation")]
    (folder / "classes.jsonl").write_text("\n".join(rows), encoding="utf-8")
    tokenizer.save(folder / "tokenizer.json")
    return folder


def test_packed_files_hold_the_documents(corpus, tokenizer, tmp_path):
    counts = pack_smalltalk(corpus, tmp_path / "packed", tokenizer, SEQ_LEN)
    kept = read_tokens(tmp_path / "packed" / "train.tokens")
    assert [ids.tolist() for ids in kept.documents()] == list(
        class_documents(CLASSES, METHODS, tokenizer, SEQ_LEN))
    assert counts["train"] == len(kept.ids) > counts["validation"] > 0
    before = (tmp_path / "packed" / "train.tokens").stat().st_mtime_ns
    assert pack_smalltalk(corpus, tmp_path / "packed", tokenizer, SEQ_LEN) == counts
    assert (tmp_path / "packed" / "train.tokens").stat().st_mtime_ns == before
    assert pack_smalltalk(corpus, tmp_path / "packed", tokenizer, SEQ_LEN, 0.9) != counts
    with pytest.raises(FileNotFoundError, match="prepare"):
        pack_smalltalk(tmp_path, tmp_path / "packed", tokenizer, SEQ_LEN)


def test_the_tokens_of_a_corpus_are_counted_on_some_classes(corpus, tokenizer, tmp_path):
    whole = pack_smalltalk(corpus, tmp_path / "packed", tokenizer, SEQ_LEN)["train"]
    assert estimated_tokens(corpus, tokenizer, SEQ_LEN) == whole
    assert estimated_tokens(corpus, tokenizer, SEQ_LEN, most=2) == pytest.approx(whole, rel=0.2)
    with pytest.raises(FileNotFoundError, match="prepare"):
        estimated_tokens(tmp_path, tokenizer, SEQ_LEN)


def test_train_says_the_cost_packs_trains_and_goes_on(corpus, tokenizer, tmp_path, capsys):
    words = ["smalltalk", "train", str(corpus), "--out", str(tmp_path / "run"), "--quiet",
             "--tokenizer", str(corpus / "tokenizer.json"), "--model.num_layers", "1",
             "--model.d_model", "16", "--model.num_heads", "2", "--model.d_ff", "32",
             "--data.seq_len", str(SEQ_LEN), "--train.batch_size", "2",
             "--train.eval_every", "2", "--train.warmup_steps", "0"]
    assert cli.main([*words, "--train.max_steps", "2", "--cost-only"]) == 0
    said = capsys.readouterr().out
    assert "1,600 tokens" in said and not (tmp_path / "run").exists()
    assert re.search(r"RTX 3060: 0.0 GB for a step \(fits in 8 GB, fits in 12 GB\), 0 minutes, "
                     r"0 minutes an epoch, computed for 10 TFLOP/s sustained", said)
    tokens = float(re.search(r"about ([\d.]+) million tokens", said)[1])
    assert tokens == pytest.approx(1e-6 * estimated_tokens(corpus, tokenizer, SEQ_LEN), abs=0.05)
    assert cli.main([*words, "--train.max_steps", "2"]) == 0
    assert "at step 2" in capsys.readouterr().out
    other = [*words, "--fill-in", "0.9", "--train.max_steps", "2"]
    assert cli.main(other) == 2  # the text of a run is not exchanged behind its back
    assert "text" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "said"), [
    (["train", "nowhere", "--out", "run"], "nowhere/train.jsonl is missing"),
    (["train", "CORPUS", "--out", "run", "--fill-in", "3"], "fill_in_share=3.0"),
    (["pack", "CORPUS", "--seq-len", "0"], "seq_len=0"),
])
def test_bad_input_is_refused_before_anything_is_measured(corpus, tmp_path, monkeypatch, capsys,
                                                          words, said):
    monkeypatch.chdir(tmp_path)
    words = [str(corpus) if word == "CORPUS" else word for word in words]
    assert cli.main(["smalltalk", *words]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and "parameters" not in printed.out
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_an_unknown_recipe_is_refused(corpus, tmp_path, capsys):
    assert cli.main(["smalltalk", "train", str(corpus), "--out", str(tmp_path / "run"),
                     "--preset", "huge"]) == 2
    assert "small, 23m, 89m" in capsys.readouterr().err
