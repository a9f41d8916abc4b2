"""`scratchbook diagnose RUN`: what makes a run write gibberish is named, and health is not."""

import json

import pytest
import torch

from scratchbook.cli import main
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.model import DecoderLM
from scratchbook.tokenizers import CharTokenizer
from scratchbook.training import ByteTokenizer, TrainConfig, open_run, read_log, train
from scratchbook.training.gibberish import plain_words, why_gibberish

TEXT = plain_words(3000)


def make_run(folder, tokenizer, steps=60, lr=1e-2):
    ids = torch.tensor(tokenizer.encode(TEXT))
    torch.manual_seed(0)
    model = DecoderLM(ModelConfig(tokenizer.vocab_size, max_seq_len=64, num_layers=1, d_model=32,
                                  num_heads=2))
    train(model, Windows(ids[3000:], ids[:3000], 32), TrainConfig(
        max_steps=steps, batch_size=8, lr=lr, eval_every=max(1, steps // 3), keep_last=5,
        checkpoint_every=max(1, steps // 3), schedule="constant"), folder)
    if hasattr(tokenizer, "save"):
        tokenizer.save(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "chars", CharTokenizer().train(TEXT))


def examined(folder, capsys, status):
    assert main(["diagnose", str(folder), "--json"]) == status
    return [finding["name"] for finding in json.loads(capsys.readouterr().out)]


def test_a_healthy_run(healthy, capsys):
    assert examined(healthy, capsys, 0) == []
    assert main(["diagnose", str(healthy)]) == 0
    assert "nothing is wrong with" in capsys.readouterr().out


def test_an_untrained_run(tmp_path, capsys):
    folder = make_run(tmp_path / "new", ByteTokenizer(), steps=1, lr=1e-6)
    assert "untrained" in examined(folder, capsys, 1)


def test_a_tokenizer_of_another_run(healthy):
    opened = open_run(healthy)
    weights = opened.model.token_embedding.weight
    weights.data = weights.data.roll(7, 0)  # as if each letter were another's
    found = why_gibberish(opened.model, opened.tokenizer, read_log(healthy), opened.step)
    assert [finding.name for finding in found] == ["files of different runs"]
    assert "log says" in found[0].evidence


def test_a_decoder_that_loses_spaces(healthy):
    class Lossy(ByteTokenizer):
        def decode(self, ids):
            return " ".join(chr(byte) for byte in ids)

    model = DecoderLM(ModelConfig(256, max_seq_len=64, num_layers=1, d_model=32, num_heads=2))
    (found,) = why_gibberish(model, Lossy(), [], 100)
    assert found.name == "broken decoder" and "a s k" not in found.remedy
    assert TEXT[:8] in found.evidence


def test_an_early_checkpoint():
    log = [{"step": 10, "validation_loss": 3.0}, {"step": 50, "validation_loss": 1.5}]
    model = DecoderLM(ModelConfig(26, max_seq_len=64, num_layers=1, d_model=32, num_heads=2))
    digits = CharTokenizer(unknown="error").train("0123456789 .,-+*/=()<>[]{}")
    assert [f.name for f in why_gibberish(model, digits, log, 10)] == ["wrong checkpoint"]
    assert why_gibberish(model, digits, log, 50) == []
    assert why_gibberish(model, digits, [], 50) == []


def test_what_is_no_run(tmp_path, capsys):
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "not the folder of a run" in capsys.readouterr().err
