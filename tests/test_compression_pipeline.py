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


RATES = {"soft labels": 0.02, "progressive": 0.0002, "QAT": 0.0001, "hard labels": 0.5}


def test_each_file_is_measured_and_a_second_run_takes_the_kept_rows(
        model, tokenizer, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(stacked, "peak_memory", lambda code: asked.append(code) or 1)
    monkeypatch.setattr(stacked, "run_tests", lambda write: {})
    monkeypatch.setattr(stacked, "writing_speed", lambda *_: 9.0)
    monkeypatch.setattr(stacked, "first_token_seconds", lambda *_: {"p50": 0.1, "p95": 0.2})
    monkeypatch.setattr(stacked, "BITS", 0.3)  # so that a student of a hundredth exists at all
    found = stacked.pipeline(model, tokenizer, [0], RATES, tmp_path, TINY)
    rows = {row["name"]: row for row in found["rows"]}
    loaded = [code.split("generate(load_")[1].split("(")[0] for code in asked if "gen" in code]
    assert loaded == ["sparse"] + 5 * ["compressed"] + 3 * ["squeezed"] + 4 * ["compressed"]
    assert list(rows)[0] == "float32"
    assert 4 * rows["float32"]["parameters"] <= rows["float32"]["bytes"]
    assert rows["float32"]["bytes"] > 3 * rows["int8"]["bytes"] > 4 * rows["nf4"]["bytes"]
    assert rows["student, int4"]["parameters"] <= stacked.STUDENT
    assert rows["2 layers, int4"]["parameters"] > rows["1 layers, int4"]["parameters"]
    for kind in ("int4", "nf4"):
        assert rows[f"{kind}, a matrix, squeezed"]["bytes"] < 0.9 * rows[kind]["bytes"]
    assert {name for name, row in rows.items() if not row["tokens"]} == {
        name for name, row in rows.items() if row["needs"] in ("nothing", "a few windows of text")}
    assert rows["student, int4"]["tokens"] == 4 * 1 * 2 * 16
    assert {name for name, row in rows.items() if row["reader_peak_bytes"] is None} == {
        "float32", "nf4", "int4, zero point", "nf4, a matrix, squeezed"}
    assert len({len(row["windows"]) for row in found["rows"]}) == 1
    assert tables.loss_of(rows["float32"], rows["int8"]).high < 0.05
    assert rows["float32"]["speed_ratio"] == 1 and "hard labels" not in found["rates"]
    count = len(asked)
    assert stacked.pipeline(model, tokenizer, [0], RATES, tmp_path, TINY) == found
    assert asked[count:] == ["import torch"]


def test_other_rates_make_other_files(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(stacked, "_judged", lambda *_: {})
    monkeypatch.setattr(stacked, "peak_memory", lambda code: 1)
    monkeypatch.setattr(stacked, "_in_turns", lambda models, _: dict.fromkeys(models, {}))
    stages = stacked._stages
    monkeypatch.setattr(stacked, "_stages", lambda *given: {
        name: stage for name, stage in stages(*given).items() if "QAT" in name})
    for rate in (0.0001, 0.01, 0.01):
        stacked.pipeline(model, tokenizer, [0], RATES | {"QAT": rate}, tmp_path, TINY)
    assert len({path.read_bytes() for path in tmp_path.glob("*.safetensors")}) == 2


def test_every_model_has_its_turn_in_every_round(monkeypatch):
    turns, speeds = [], iter([100, 50, 10, 8, 1000, 300])
    monkeypatch.setattr(stacked, "writing_speed", lambda *_: next(speeds))
    monkeypatch.setattr(stacked, "partial", lambda _, model, **more: model)
    monkeypatch.setattr(stacked, "first_token_seconds",
                        lambda write, _: turns.append(write) or {"p50": 1.0, "p95": 2.0})
    found = stacked._in_turns({"a": "A", "b": "B"}, [[1, 2]])
    assert turns == ["A", "B"] * 3
    assert found["b"] == {"tokens_per_second": 50, "p50": 1.0, "p95": 2.0, "speed_ratio": 0.5}


def test_what_is_written_writes_in_a_fresh_process(model, tokenizer, tmp_path):
    data = material.windows(tokenizer, TINY, 0)
    _, _, make = stacked._stages(model, data, TINY, 0, RATES)["int4, a matrix, squeezed"]
    path = stacked.save_squeezed(make(), tmp_path / "model.safetensors")
    row = stacked._judged(stacked.load_squeezed(path), "squeezed", path, tokenizer, data)
    assert row["peak_bytes"] > 2 * row["reader_peak_bytes"] > 30e6
    assert row["reader_peak_bytes"] < stacked.READER_TARGET
    assert set(stacked.TESTED) == set(row["tests"]["brackets"])
    speeds = stacked._in_turns({"one": model}, stacked.prompts_of(data)[:2], rounds=1)["one"]
    assert speeds["tokens_per_second"] > 0 and speeds["p50"] <= speeds["p95"]
