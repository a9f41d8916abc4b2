"""How the shipped Smalltalk model is made, tried on a tiny one, and what its card says."""

import json
import math
import re

import pytest
import torch
from test_smalltalk_tasks import CLASSES, METHODS

from scratchbook import cli
from scratchbook.companions import (
    smalltalk_card,
    smalltalk_rounded,
    smalltalk_shipping,
    smalltalk_training,
)
from scratchbook.compression import load_compressed
from scratchbook.compression.layers import QuantizedEmbedding, QuantizedLinear
from scratchbook.data.smalltalk_corpus import save_corpus
from scratchbook.runtime import environment
from scratchbook.smalltalk.preparing import Funnel
from scratchbook.smalltalk_model import load_smalltalk
from scratchbook.teaching.results import Result
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer
from tests.tiny_smalltalk import by_heart, small_tokenizer, tiny

SEQ_LEN, ROOM = 96, 115_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    projects = sorted({method.project for method in METHODS})
    split_of = {name: ("test", "validation")[at] if at < 2 else "train"
                for at, name in enumerate(projects)}
    parts = {split: [each for each in METHODS if split_of[each.project] == split]
             for split in ("train", "validation", "test")}
    save_corpus(folder, parts, [(split_of[each.project], each) for each in CLASSES], Funnel())
    splits = {split: {"methods": len(some), "bytes": sum(len(m.source) for m in some),
                      "bytes_by_project": dict.fromkeys({m.project for m in some}, 1),
                      "methods_by_licence": {"MIT": len(some)}} for split, some in parts.items()}
    account = {"splits": splits} | json.loads((folder / "funnel.json").read_text(encoding="utf-8"))
    account |= {"sources": [
        {"name": name, "commit": "0123456789abcdef", "licence": "MIT", "split": split_of[name]}
        for name in projects] + [{"name": "not/used", "commit": "1", "licence": "X", "split": ""}],
        "audit": {"test": {"exact": 1, "methods": 9}, "validation": {"exact": 0, "methods": 5}}}
    (folder / "funnel.json").write_text(json.dumps(account), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    small_tokenizer().save(folder.parent / "tokenizer.json")
    words = {"model.num_layers": 1, "model.d_model": 128, "model.num_heads": 2, "model.d_ff": 128,
             "data.seq_len": SEQ_LEN, "train.batch_size": 2, "train.max_steps": 3,
             "train.warmup_steps": 0, "train.eval_every": 3}
    assert cli.main(["smalltalk", "train", str(corpus), "--out", str(folder), "--quiet",
                     "--tokenizer", str(folder.parent / "tokenizer.json"),
                     *(word for key, value in words.items()
                       for word in (f"--{key}", str(value)))]) == 0
    return folder


@pytest.fixture(scope="module")
def shipped(run, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shipped")
    size = (run / "tokenizer.json").stat().st_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smalltalk_shipping, "JUDGED", 60)
        patch.setattr(smalltalk_shipping, "LONG", 4)
        patch.setattr(smalltalk_shipping, "LIMIT", smalltalk_shipping.CARD + size + ROOM)
        return folder, json.loads(json.dumps(smalltalk_shipping.ship(run, corpus, folder)))


def test_the_best_that_fits_is_written(shipped, run):
    folder, numbers = shipped
    found = numbers["roundings"]
    assert set(found) == {"float32", *smalltalk_shipping.ROUNDINGS}
    fitting = {name: row for name, row in found.items() if row["bytes"] <= ROOM}
    assert 0 < len(fitting) < len(found)
    best = min(row["bits_per_character"] for row in fitting.values())
    assert found[numbers["chosen"]]["bits_per_character"] == best
    assert (folder / "model.safetensors").stat().st_size == found[numbers["chosen"]]["bytes"]
    model, tokenizer = load_smalltalk(folder)
    assert model.config.max_seq_len == SEQ_LEN and tokenizer.vocab_size == model.config.vocab_size
    assert numbers["shipped_bits_per_character"] == pytest.approx(best, abs=1e-4)
    assert (folder / "tokenizer.json").read_bytes() == (run / "tokenizer.json").read_bytes()


def test_every_rounding_packs_all_and_more_bits_lose_less(shipped):
    batches = [torch.arange(40)[None]]
    for rounding in smalltalk_shipping.ROUNDINGS.values():
        copy = tiny(309, d_model=128, d_ff=128)
        layers = [each for each in rounding(copy, batches).modules()
                  if type(each) in (torch.nn.Linear, torch.nn.Embedding)]
        assert layers == []
    assert any(isinstance(each, QuantizedEmbedding) for each in copy.modules())
    assert any(isinstance(each, QuantizedLinear) for each in copy.modules())
    found = shipped[1]["roundings"]
    gap = {name: abs(row["change"]["value"]) for name, row in found.items() if "change" in row}
    assert gap["int8, groups of 64"] < gap["int4, groups of 64"]
    assert found["int8, groups of 64"]["bytes"] > found["int4, groups of 64"]["bytes"]


def test_the_reading_is_nats_over_characters():
    model, tokenizer = by_heart(), small_tokenizer()
    rows = [tokenizer.encode_ordinary("foo: bar"), [*tokenizer.encode_ordinary("^ é"), 5, 1]]
    rows[1][-2:] = [tokenizer.special_tokens["<|end|>"]] * 2
    reading = smalltalk_shipping.read(model, tokenizer, rows)
    assert reading.characters == [8, 3]
    for ids, bits in zip(rows, reading.bits, strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([ids]))[0].log_softmax(-1)
        own = -sum(logprobs[at, token].item() for at, token in enumerate(ids[1:]))
        assert bits == pytest.approx(own / math.log(2), rel=1e-5)
    assert reading.bits_per_character == pytest.approx(sum(reading.bits) / 11)


def test_a_context_as_long_as_the_text_changes_nothing_and_a_short_one_does():
    model, ids = by_heart(), torch.arange(90).tolist()
    whole = smalltalk_shipping.nats_at(model, ids, None)
    assert whole.shape == (89,)
    torch.testing.assert_close(smalltalk_shipping.nats_at(model, ids, 90), whole,
                               rtol=1e-4, atol=1e-4)
    short = smalltalk_shipping.nats_at(model, ids, 40)
    torch.testing.assert_close(short[:32], whole[:32], rtol=1e-4, atol=1e-4)
    assert (short[40:] - whole[40:]).abs().max() > 0.01
    with torch.no_grad():  # the last token sees the 40 before it
        own = model(torch.tensor([ids[-41:-1]]))[0, -1].log_softmax(-1)[ids[-1]]
    assert short[-1].item() == pytest.approx(-own.item(), abs=1e-4)


def test_nothing_that_fits_is_an_error():
    with pytest.raises(ValueError, match="fits into 10 bytes; the smallest has 20"):
        smalltalk_shipping.choose_rounding(
            {"float32": {"bytes": 1}, "a": {"bytes": 20, "file": "x"}}, 10)


def test_the_account_is_of_the_run_and_the_corpus(shipped, run):
    numbers = shipped[1]
    assert numbers["run"]["steps"] == 3 and numbers["run"]["seq_len"] == SEQ_LEN
    assert numbers["run"]["validation"][-1]["step"] == 3 and numbers["run"]["train_tokens"] > 0
    assert {row["name"] for row in numbers["corpus"]["sources"]} == {m.project for m in METHODS}
    assert str(run) not in json.dumps(numbers)  # no folder of this machine
    assert len(smalltalk_shipping.lines(numbers)) > len(numbers["roundings"])


def result(numbers, name="x"):
    return Result(name, numbers, [0], "c", "c", "2026", environment(), "")


def test_the_card_tells_what_was_recorded(shipped):
    numbers = shipped[1]
    card = smalltalk_card.card(result(numbers))
    row = numbers["roundings"][numbers["chosen"]]
    for told in (f"{numbers['parameters']:,} parameters", f"rounded ({numbers['chosen']})",
                 f"{row['bits_per_character']:.3f} bits", "3 steps of 2 windows of 96 tokens",
                 "1 of 9 test methods", "has not been recorded yet", "`0123456789ab` | MIT"):
        assert told in card
    assert len(re.findall(r"^\| \S+ \| `", card, re.M)) == len(numbers["corpus"]["sources"])
    assert len(card.encode()) < smalltalk_shipping.CARD
    assert all(len(line) <= 1_000 for line in card.split("\n"))


def test_what_was_copied_is_told_beside_people():
    share = {"value": 0.25, "low": 0.1, "high": 0.4}
    row = {"methods": 8, "word_for_word": share, "share": share, "p90": 12.0}
    assert smalltalk_card.copied({"model": row, "people": row})[0] == (
        "copied, model: 25.0 % of 8 methods stand in the training text word for word (95 % 10.0 to "
        "40.0); the longest stretch of a method that stands there is 25 % of it on average, at "
        "least 12 tokens in one of ten")


def test_rounding_is_read_on_documents_that_chose_nothing(shipped, run, corpus, tmp_path):
    folder, numbers = shipped
    found = smalltalk_rounded.on_test(run, corpus, folder)
    (model, words), (small, _) = load_smalltalk(run), load_smalltalk(folder)
    own = smalltalk_shipping.documents_of(corpus, "test", words, SEQ_LEN, 4_000)
    assert found["documents"] == len(own) > 0
    assert found["characters"] != numbers["characters"]
    before, after = (smalltalk_shipping.read(each, words, own) for each in (model, small))
    assert found["trained"] == before.bits_per_character
    assert found["rounded"] == after.bits_per_character != found["trained"]
    assert found["change"]["value"] == pytest.approx(found["rounded"] - found["trained"])
    card = smalltalk_card.card(result(numbers), tested=result(found))
    assert f"it needs {found['rounded']:.3f}, the trained weights {found['trained']:.3f}" in card
    assert "chosen among 12 ways on these same documents" in " ".join(card.split())
    other = tmp_path / "other"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    unlike = SmalltalkTokenizer().train([each.source for each in METHODS], words.vocab_size)
    unlike.save(other / "tokenizer.json")
    with pytest.raises(ValueError, match="name the run that the shipped model was made of"):
        smalltalk_rounded.on_test(run, corpus, other)


def test_rows_are_counted_as_the_run_drew_them(run):
    recipe, _ = smalltalk_training.read_run(run)
    data, _ = recipe.build_data()
    times = smalltalk_training.times_drawn(data, 40, 2)
    assert times.sum() == 80 and len(times) == data.train_rows.shape[1]
    drawn = [tuple(row) for step in range(40) for row in data.batch(step, 2).ids.tolist()]
    rows = [tuple(row) for row in data.train_rows[0].tolist()]
    assert len(set(rows)) == len(rows)
    assert times.tolist() == [drawn.count(row) for row in rows]
    assert data.masked and data.train_rows.shape[2] == SEQ_LEN  # the data itself is as it was


def test_what_was_read_often_is_read_better_and_rows_are_told_apart(run):
    account = smalltalk_training.account(run)
    found = account["by_times_read"]
    assert sum(found["shares"].values()) == pytest.approx(1)
    recipe, _ = smalltalk_training.read_run(run)
    (model, _), (data, _) = load_smalltalk(run), recipe.build_data()
    all_held = smalltalk_training.nats_of(model, data, data.validation_rows, most=10**6)
    nats, tokens = 0.0, 0
    for ids, targets, mask in data.validation(1):
        with torch.no_grad():
            losses = torch.nn.functional.cross_entropy(
                model(ids, mask=mask)[0], targets[0], reduction="none", ignore_index=-100)
        nats, tokens = nats + losses.sum().item(), tokens + (targets != -100).sum().item()
    assert all_held["value"] == pytest.approx(nats / tokens, rel=1e-5)
    assert all_held["rows"] == data.validation_rows.shape[1]
    assert found["nats"]["held-out projects"]["low"] < all_held["value"] \
        < found["nats"]["held-out projects"]["high"]
    assert found["rows"] == data.train_rows.shape[1]
    never = int((smalltalk_training.times_drawn(data, 3, 2) == 0).sum())
    assert found["shares"]["never"] == pytest.approx(never / found["rows"])
    assert account["predicted_cpu_seconds"] > 0


def test_the_file_is_one_of_save_compressed(shipped):
    loaded = load_compressed(shipped[0] / "model.safetensors")
    assert isinstance(loaded.lm_head, QuantizedLinear)
    assert loaded.lm_head.packed is loaded.token_embedding.packed
