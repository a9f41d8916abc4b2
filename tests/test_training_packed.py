"""From a folder of files to a trained run, by the command line alone."""

import json

import pytest
import torch

from scratchbook.cli import main
from scratchbook.data.token_files import read_tokens, write_tokens
from scratchbook.tokenizers import BPETokenizer, CharTokenizer
from scratchbook.training import open_run, read_log
from scratchbook.training.packed import TRAIN, VALIDATION, load_tokenizer, packed_data
from scratchbook.training.recipes import DataConfig, read_text

SMALL = ["--quiet", "--model.num_layers", "1", "--model.d_model", "16", "--model.num_heads", "2",
         "--train.max_steps", "4", "--train.batch_size", "2", "--train.eval_every", "2",
         "--data.seq_len", "16"]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        page = tmp_path / "root" / f"project{number}" / "page.md"
        page.parent.mkdir(parents=True)
        page.write_text(f"# Page {number}\n" + f"words of page {number}, é. " * 9, "utf-8")
    assert main(["corpus", "collect", "--root", "root", "--include", "*.md"]) == 0
    return tmp_path


def test_documents_are_trained_on_and_not_their_json(corpus):
    text = read_text("corpus.jsonl")
    assert text.startswith("# Page 0\nwords of page 0, é.") and '"text"' not in text
    assert main(["train", "--out", "run", "--data.text", "corpus.jsonl", *SMALL]) == 0
    with pytest.raises(ValueError, match="line 1"):
        (corpus / "other.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
        read_text("other.jsonl")


@pytest.mark.parametrize("own", [False, True])
def test_a_packed_folder_brings_its_split_and_its_tokenizer(corpus, own):
    pack = ["corpus", "pack", "corpus.jsonl", "--held-out", "0.3"]
    if own:
        assert main(["tokenizer", "train", "corpus.jsonl", "--vocab", "300"]) == 0
        pack += ["--tokenizer", "tokenizer.json"]
    assert main(pack) == 0
    assert main(["train", "--out", "run", "--data.text", "tokens", *SMALL]) == 0
    run = open_run("run")
    assert run.model.config.vocab_size == run.tokenizer.vocab_size
    assert isinstance(run.tokenizer, BPETokenizer) == own
    held_out = list(read_tokens(corpus / "tokens" / VALIDATION).documents())
    texts = [run.tokenizer.decode(ids.tolist()) for ids in held_out]
    assert all(text.startswith("# Page") and text.endswith("é. ") for text in texts)
    last = [entry for entry in read_log("run") if "bits_per_byte" in entry][-1]
    per_token = sum(len(text.encode()) for text in texts) / sum(map(len, held_out))
    expected = last["validation_loss"] / torch.log(torch.tensor(2.0)).item() / per_token
    assert last["bits_per_byte"] == pytest.approx(expected, rel=1e-6)


def test_packing_again_without_a_tokenizer_leaves_no_old_one(corpus):
    main(["tokenizer", "train", "corpus.jsonl", "--vocab", "300"])
    main(["corpus", "pack", "corpus.jsonl", "--tokenizer", "tokenizer.json"])
    main(["corpus", "pack", "corpus.jsonl"])
    _, tokenizer = packed_data("tokens", 16)
    assert tokenizer.vocab_size == 256 and (corpus / "tokenizer.json").is_file()


def test_no_document_sees_its_neighbour(corpus):
    main(["corpus", "pack", "corpus.jsonl", "--held-out", "0.3"])
    data, _ = packed_data("tokens", 450)  # room for two pages
    batch = data.batch(0, 4)
    alone = batch.mask[:, 0].sum(dim=-1) == 1  # places that see themselves only: beginnings
    assert (alone & (batch.targets >= 0)).sum(dim=-1).max() == 2


def test_ids_of_another_tokenizer_are_refused(corpus, capsys):
    main(["corpus", "pack", "corpus.jsonl"])
    write_tokens(corpus / "tokens" / TRAIN, [[1, 2, 3]], 300)
    capsys.readouterr()
    assert main(["train", "--out", "run", "--data.text", "tokens", *SMALL]) == 2
    assert "ids of 300 kinds" in capsys.readouterr().err


def test_both_kinds_of_tokenizer_files_are_read(corpus):
    main(["tokenizer", "train", "corpus.jsonl", "--vocab", "300"])
    assert main(["train", "--out", "run", "--data.text", "root/project1/page.md",
                 "--data.tokenizer", "tokenizer.json", "--data.validation_share", "0.4",
                 *SMALL]) == 0
    CharTokenizer().train("abc").save("char.json")
    assert load_tokenizer("char.json").decode(load_tokenizer("char.json").encode("cab")) == "cab"
    for content in ("[]", "{", json.dumps({"model": {"type": "Other"}})):
        (corpus / "bad.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"bad\.json|damaged|kind|model"):
            load_tokenizer("bad.json")
    assert DataConfig(text="tokens").tokenizer == "bytes"
