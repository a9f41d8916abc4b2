"""The stacked pipeline of chapter 07 at tiny sizes: files that reload, rows that add up."""

import pytest
import torch

from scratchbook.base_model import load_base
from scratchbook.companions import compression_material as material
from scratchbook.companions import compression_pipeline as stacked
from scratchbook.companions import compression_tables as tables
from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM

TINY = material.Sizes(student_steps=1, grown_steps=1, batch_size=2, seq_len=16, judged=320,
                      training=3)


@pytest.fixture(scope="module")
def tokenizer():
    return load_base()[1]


@pytest.fixture(scope="module")
def model(tokenizer):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DecoderLM(ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=128,
                                     num_layers=3, d_model=64, num_heads=2, d_ff=128,
                                     tie_embeddings=True)).eval()


def test_each_file_is_measured_and_a_second_run_takes_the_kept_rows(
        model, tokenizer, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(stacked, "peak_memory", lambda code: asked.append(code) or 1)
    monkeypatch.setattr(stacked, "run_tests", lambda write: {})
    monkeypatch.setattr(stacked, "BITS", 0.3)  # so that a student of a hundredth exists at all
    found = stacked.pipeline(model, tokenizer, [0], tmp_path, TINY)
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows)[0] == "float32" and "load_sparse(" in asked[0]
    assert all("load_compressed(" in code for code in asked[1:])
    assert 4 * rows["float32"]["parameters"] <= rows["float32"]["bytes"]
    assert rows["float32"]["bytes"] > 3 * rows["int8"]["bytes"] > 4 * rows["nf4"]["bytes"]
    assert rows["student, int4"]["parameters"] <= stacked.STUDENT
    assert len({len(row["windows"]) for row in found["rows"]}) == 1
    assert tables.loss_of(rows["float32"], rows["int8"]).high < 0.05
    assert stacked.pipeline(model, tokenizer, [0], tmp_path, TINY) == found
    assert len(asked) == len(rows)


def test_what_is_written_writes_in_a_fresh_process(model, tokenizer, tmp_path):
    data = material.windows(tokenizer, TINY, 0)
    make = stacked._stages(model, tokenizer, TINY, 0)["int8"]
    row = stacked._row("int8", make, tokenizer, data)
    assert row["peak_bytes"] > 30e6 and row["p50"] <= row["p95"]
    assert {"passed", "total", "share", "low", "high"} == set(row["tests"]["brackets"])
