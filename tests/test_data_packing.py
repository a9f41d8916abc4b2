"""Packed rows: nothing lost, nothing seen that another document says; and files of tokens."""

import json
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scratchbook.config import ModelConfig
from scratchbook.data.batches import IGNORED
from scratchbook.data.packing import (
    PADDING,
    PackedDocuments,
    document_mask,
    lay_out,
    pack_documents,
    restart_positions,
)
from scratchbook.data.token_files import cached_tokens, read_tokens, write_tokens
from scratchbook.evaluation.perplexity import score_batches
from scratchbook.model import DecoderLM
from scratchbook.training import TrainConfig, train
from scratchbook.training.loop import accumulate, evaluate


def some_documents(seed=0, count=12, longest=20):
    chosen = random.Random(seed)
    return [[chosen.randrange(50) for _ in range(chosen.randrange(0, longest))]
            for _ in range(count)]


# laying out


def test_by_hand():
    assert pack_documents([5, 3, 2, 0, 4], 4) == [
        [(0, 0, 4)], [(4, 0, 4)], [(1, 0, 3), (0, 4, 5)], [(2, 0, 2)]]
    ids, targets, segments = lay_out([[1, 2, 3], [4, 5], [6]], 4)
    assert ids.tolist() == [[1, 2, 4, 0]]
    assert targets.tolist() == [[2, 3, 5, IGNORED]]
    assert segments.tolist() == [[0, 0, 1, PADDING]]


def test_every_pair_of_neighbours_is_a_target_once():
    for seed in range(30):
        documents, seq_len = some_documents(seed), 3 + seed % 9
        ids, targets, _ = lay_out(documents, seq_len)
        counted = targets != IGNORED
        got = sorted(zip(ids[counted].tolist(), targets[counted].tolist(), strict=True))
        want = sorted((a, b) for d in documents for a, b in zip(d, d[1:], strict=False))
        assert got == want


def test_rows_are_full():
    chosen = random.Random(1)
    lengths = [chosen.randrange(1, 90) for _ in range(400)]
    rows = pack_documents(lengths, 64)
    assert len(rows) <= 1.03 * sum(lengths) / 64 + 1
    assert all(sum(stop - start for _, start, stop in row) <= 64 for row in rows)


def test_masks_and_positions_by_hand():
    segments = torch.tensor([[0, 0, 1, 1, 1, PADDING]])
    assert restart_positions(segments).tolist() == [[0, 1, 0, 1, 2, 0]]
    assert document_mask(segments)[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]]


@pytest.mark.parametrize("positions", ["rope", "learned", "alibi"])
def test_packed_logits_are_those_of_each_document_alone(positions):
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=50, max_seq_len=32, num_layers=2, d_model=32, num_heads=2,
                         positions=positions)
    model = DecoderLM(config).double().eval()
    documents = [d for d in some_documents(3) if len(d) > 1]
    ids, _, segments = (part.long() for part in lay_out(documents, 24))
    packed = model(ids, mask=document_mask(segments), positions=restart_positions(segments))
    seen = 0
    for number, row in enumerate(pack_documents([len(d) - 1 for d in documents], 24)):
        at = 0
        for document, start, stop in row:
            alone = model(torch.tensor([documents[document][start:stop]]))[0]
            assert torch.allclose(packed[number, at : at + stop - start], alone, atol=1e-12)
            at, seen = at + stop - start, seen + stop - start
    assert seen == sum(len(d) - 1 for d in documents)
    unmasked = model(ids, positions=restart_positions(segments))
    assert not torch.allclose(unmasked, packed, atol=1e-3)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope", "alibi"])
def test_training_reads_packed_documents_as_if_each_stood_alone(positions):
    torch.manual_seed(0)
    model = DecoderLM(ModelConfig(vocab_size=50, max_seq_len=32, num_layers=2, d_model=32,
                                  num_heads=2, positions=positions))
    documents = [d for d in some_documents(3) if 1 < len(d) <= 24]
    together = PackedDocuments(documents, documents, 24)
    sums = [evaluate(model, PackedDocuments([d], [d], 24), 8) * (len(d) - 1) for d in documents]
    expected = sum(sums) / sum(len(d) - 1 for d in documents)
    assert evaluate(model, together, 8) == pytest.approx(expected, rel=1e-6)
    assert score_batches(model, together.validation(8)).loss == pytest.approx(expected, rel=1e-6)
    batch = next(together.validation(8))
    wanted = accumulate(model, batch)[0]
    assert accumulate(model, batch, micro_batches=3)[0] == pytest.approx(wanted, rel=1e-6)


def test_rotary_places_need_no_restart():
    # the scores depend on distances, so that a batch may leave the positions out
    torch.manual_seed(0)
    model = DecoderLM(ModelConfig(vocab_size=50, num_layers=2, d_model=32, num_heads=2)).double()
    ids, _, segments = (part.long() for part in lay_out(some_documents(5), 24))
    mask = document_mask(segments)
    restarted = model(ids, mask=mask, positions=restart_positions(segments))
    assert torch.allclose(model(ids, mask=mask), restarted, atol=1e-12)


def test_batches_depend_on_seed_and_step_alone():
    documents = some_documents(1, 40)
    data = PackedDocuments(documents, documents[:9], 16, seed=3)
    first = data.batch(7, 5)
    data.batch(8, 2)
    again = PackedDocuments(documents, documents[:9], 16, seed=3).batch(7, 5)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.ids, data.batch(9, 5).ids)
    assert first.mask.shape == (5, 1, 16, 16)
    assert PackedDocuments(documents, documents[:9], 16, masked=False).batch(0, 2).mask is None


def test_validation_is_everything_once():
    documents = some_documents(1, 40)
    data = PackedDocuments(documents, documents[:9], 16)
    for size in (1, 2, 100):
        counted = sum(int((batch.targets != IGNORED).sum()) for batch in data.validation(size))
        assert counted == sum(max(0, len(d) - 1) for d in documents[:9])


def test_it_trains_in_the_loop():
    documents = [[1, 2, 3, 4, 5, 6]] * 8
    model = DecoderLM(ModelConfig(vocab_size=8, num_layers=1, d_model=16, num_heads=2))
    run = train(model, PackedDocuments(documents, documents, 16),
                TrainConfig(max_steps=60, batch_size=4, lr=1e-2))
    assert run.evaluations[-1][1] < 0.1 < run.losses[0]
    loss = F.cross_entropy(model(torch.tensor([[1, 2, 3, 4, 5]]))[0], torch.tensor([2, 3, 4, 5, 6]))
    assert loss < 0.1


@pytest.mark.parametrize("documents", [[], [[]], [[1], [2]]])
def test_nothing_to_learn_is_said(documents):
    with pytest.raises(ValueError, match="must have two ids or more"):
        PackedDocuments(documents, [[1, 2]], 8)
    with pytest.raises(ValueError, match="seq_len=0 must be 1 or more"):
        PackedDocuments([[1, 2]], [[1, 2]], 0)


# token files


@pytest.mark.parametrize(("vocab_size", "kind"), [(256, "<u2"), (65536, "<u2"), (65537, "<u4")])
def test_ids_come_back_as_they_went(tmp_path, vocab_size, kind):
    documents = [[0, vocab_size - 1], [], list(range(200)), [7]]
    write_tokens(tmp_path / "x.tokens", documents, vocab_size, "by hand")
    found = read_tokens(tmp_path / "x.tokens")
    assert found.ids.dtype == kind and isinstance(found.ids.base, np.memmap)
    assert [ids.tolist() for ids in found.documents()] == documents
    assert found.header["vocab_size"] == vocab_size and found.header["made_by"] == "by hand"
    assert (tmp_path / "x.tokens").stat().st_size < 500 + 4 * 4 + len(found.ids) * int(kind[-1])


def test_an_empty_corpus_is_a_file_too(tmp_path):
    write_tokens(tmp_path / "x.tokens", [], 256)
    assert list(read_tokens(tmp_path / "x.tokens").documents()) == []


def test_ids_that_do_not_fit_are_refused(tmp_path):
    for wrong in ([256], [-1]):
        with pytest.raises(ValueError, match="do not fit vocab_size=256"):
            write_tokens(tmp_path / "x.tokens", [[1], wrong], 256)
    assert not (tmp_path / "x.tokens").exists()


def test_foreign_and_damaged_files(tmp_path):
    path = tmp_path / "x.tokens"
    write_tokens(path, [[1, 2, 3], [4, 5]], 256)
    good = path.read_bytes()
    for content, message in {
        b"": "is no token file", b"PK\x03\x04" * 50: "is no token file", good[:8]: "damaged header",
        good[:30]: "damaged header", good[:-1]: "cut short", good + b"\0": "added to",
        good[:8] + b"\xff\xff\xff\x7f" + good[12:]: "damaged header",
        good.replace(b"tokens", b"tokans"): "damaged header",
        good.replace(b"<u2", b"<q9"): "damaged header",
        good.replace(b"<u2", b"<f2"): "damaged header",
        good.replace(b'": 5,', b'":5.,'): "damaged header",
        good.replace(b'": 5, "documents": 2', b'":-5, "documents": 7'): "damaged header",
        good.replace(b"made_by", b"made_bi"): "damaged header",
        good.replace(b"sha256", b"sha255"): "damaged header",
        good[:8] + (99_999).to_bytes(4, "little") + b"[" * 99_999: "damaged header",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            read_tokens(path)
        assert str(path) in str(caught.value)
    path.write_bytes(good[:-9] + b"\x09" + good[-8:])
    read_tokens(path, verify=False)  # the size is right: only its hash can tell
    with pytest.raises(ValueError, match="was altered"):
        read_tokens(path)
    with pytest.raises(FileNotFoundError):
        read_tokens(tmp_path / "nothing")


def test_the_cache_is_what_would_be_encoded(tmp_path):
    calls = []

    def encode(text):
        calls.append(text)
        return text.encode()

    texts = ["one", "two", ""]
    first = cached_tokens(tmp_path / "c", texts, encode, 256, "bytes")
    assert [bytes(ids.tolist()).decode() for ids in first.documents()] == texts
    again = cached_tokens(tmp_path / "c", texts, encode, 256, "bytes")
    assert len(calls) == 3 and np.array_equal(first.ids, again.ids)
    for other in (["one", "two"], ["onet", "wo", ""], ["one", "two", "x"]):
        found = cached_tokens(tmp_path / "c", other, encode, 256, "bytes")
        assert [bytes(ids.tolist()).decode() for ids in found.documents()] == other
    before = len(calls)
    cached_tokens(tmp_path / "c", other, encode, 256, "another tokenizer")
    assert len(calls) == before + 3
    kept = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(kept[:-20] + bytes([kept[-20] ^ 1]) + kept[-19:])  # one bit
    found = cached_tokens(tmp_path / "c", other, encode, 256, "another tokenizer")
    assert [bytes(ids.tolist()).decode() for ids in found.documents()] == other
    (tmp_path / "c").write_bytes(b"rubbish")
    assert len(cached_tokens(tmp_path / "c", texts, encode, 256, "bytes").ids) == 6


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.tokens"
    write_tokens(path, [[1, 2]], 256)
    code = ("import os, signal, sys; from scratchbook.data import token_files\n"
            "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
            "token_files.write_tokens(sys.argv[1], [[3] * 10**6], 256)")
    run = subprocess.run([sys.executable, "-c", code, str(path)], check=False, env=os.environ)
    assert run.returncode == -signal.SIGKILL
    assert read_tokens(path).ids.tolist() == [1, 2]


def test_a_header_is_json_that_anyone_can_read(tmp_path):
    write_tokens(tmp_path / "x", [[1, 2]], 256)
    content = (tmp_path / "x").read_bytes()
    header = json.loads(content[12 : 12 + int.from_bytes(content[8:12], "little")])
    assert set(header) == {"dtype", "tokens", "documents", "vocab_size", "made_by", "sha256"}
