"""The experiments of chapter 07 at tiny sizes: shapes, controls, and runs that are kept."""

import copy
import math

import pytest
import torch

from scratchbook.base_model import load_base
from scratchbook.companions import compression_material as material
from scratchbook.companions import compression_runs as runs
from scratchbook.companions import sparsity_runs
from scratchbook.compression import QuantizedLinear
from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.training import train

TINY = material.Sizes(student_steps=3, grown_steps=2, batch_size=2, seq_len=16, judged=64,
                      training=3)


@pytest.fixture(scope="module")
def tokenizer():
    return load_base()[1]


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    return DecoderLM(ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=64, num_layers=3,
                                 d_model=32, num_heads=2, d_ff=32, tie_embeddings=True)).eval()


@pytest.fixture
def data(tokenizer):
    return material.windows(tokenizer, TINY, 0)


def test_the_windows_are_the_base_models_text(tokenizer, data):
    assert tokenizer.decode(data.train_ids[:20].tolist())
    assert len(data.validation_ids) == TINY.judged + 1
    assert 2 < data.bytes_per_token < 6
    other = material.windows(tokenizer, TINY, 1)
    assert not torch.equal(data.batch(0, 4).ids, other.batch(0, 4).ids)
    for one, two in zip(data.validation(2), other.validation(2), strict=True):
        assert torch.equal(one.ids, two.ids)


def test_bits_are_those_of_a_uniform_guess_for_an_untaught_head(model, data):
    torch.nn.init.zeros_(model.token_embedding.weight)
    expected = math.log2(model.config.vocab_size) / data.bytes_per_token
    assert material.bits(model, data) == pytest.approx(expected, rel=1e-5)


def test_a_student_keeps_its_budget_and_its_seed(model, tokenizer):
    base = ModelConfig(vocab_size=4096, d_model=256, num_heads=8, num_layers=6, d_ff=704,
                       tie_embeddings=True)
    with torch.device("meta"):
        wide = DecoderLM(base)
    one, same, other = (material.new_student(wide, material.BUDGET, seed) for seed in (0, 0, 1))
    assert sum(p.numel() for p in one.parameters()) <= 1_000_000
    assert torch.equal(one.token_embedding.weight, same.token_embedding.weight)
    assert not torch.equal(one.token_embedding.weight, other.token_embedding.weight)
    with pytest.raises(ValueError, match="budget"):
        material.new_student(wide, 1000, 0)


def test_distillation_pairs_every_way_with_its_control(model, tokenizer, tmp_path):
    before = copy.deepcopy(model.state_dict())
    found = runs.distillation(model, tokenizer, [0, 1], False, tmp_path, TINY)
    assert {name for pair in found["pairs"] for name in pair} == set(found["bits"])
    assert all(len(row) == 2 for key in ("bits", "kl", "agreement") for row in found[key].values())
    assert found["parameters"] <= material.BUDGET and found["layers"] == [2, 1]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2 * len(found["bits"])
    again = runs.distillation(model, tokenizer, [0, 1], False, tmp_path, TINY)
    assert again["bits"] == found["bits"] and sorted(tmp_path.iterdir()) == files


def test_in_full_rates_are_chosen_and_the_longer_control_is_longer(model, tokenizer, tmp_path):
    found = runs.distillation(model, tokenizer, [0], True, tmp_path, TINY)
    assert ["soft labels", runs.LONGER] in found["pairs"]
    assert found["rates"]["+ features"] == found["rates"]["soft labels"]
    assert found["seconds"][runs.LONGER][0] > 0
    assert found["rates"]["hard labels"] in material.RATES["student"]
    assert set(found["bits"]) == {*material.WAYS, "progressive", "progressive, hard labels",
                                  runs.LONGER}


def test_another_teacher_is_another_run(model, tokenizer, tmp_path):
    one = runs.distillation(model, tokenizer, [0], False, tmp_path, TINY)
    torch.nn.init.normal_(model.final_norm.weight, 1.0)
    other = runs.distillation(model, tokenizer, [0], False, tmp_path, TINY)
    assert one["bits"]["soft labels"] != other["bits"]["soft labels"]
    assert one["bits"]["hard labels"] == other["bits"]["hard labels"]  # it never hears it


def test_qat_and_its_control_train_equally_long(model, tokenizer, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(material, "train", lambda m, d, config, *rest, **more: (
        steps.append((config.max_steps, config.seed)), train(m, d, config, *rest, **more))[1])
    found = runs.qat(model, tokenizer, [0, 1], False, tmp_path, TINY)
    assert steps == [(2, 0), (2, 1)] * 2
    assert {len(row) for row in found["bits"].values()} == {2}
    assert found["bits"]["rounded"][0] == found["bits"]["rounded"][1] != found["whole"]
    assert found["kind"] == "int4, a scale for a row"


def test_rounding_later_gives_packed_layers_both_ways(model, data):
    config = material.recipe(2, 0.001, TINY, 0, "adamw")
    plain, inside = (material.round_later(model, data, config, "int4", 32, inside=inside)
                     for inside in (False, True))
    for small in (plain, inside):
        assert all(isinstance(block.attention.q_proj, QuantizedLinear) for block in small.blocks)
    assert material.bits(plain, data) != material.bits(inside, data)


def test_sparsity_gives_a_curve_for_each_score(model, tokenizer, tmp_path):
    found = sparsity_runs.sparsity(model, tokenizer, [0, 1], False, tmp_path, TINY)
    assert set(found["curves"]) == {"magnitude", "movement", "wanda", "2:4 wanda", "heads",
                                    "channels"} == set(found["bytes"])
    assert set(found["curves"]["wanda"]) == {"0.25", "0.5", "0.75"}
    assert found["seeds"] == [0] and all(len(v) == 1 for v in found["curves"]["wanda"].values())
    sizes = found["bytes"]["magnitude"]
    assert sizes["0.25"] > sizes["0.5"] > sizes["0.75"]
    dense = sum(p.numel() for p in model.parameters()) * 4
    assert found["bytes"]["channels"]["0.5"] < dense


def test_retraining_is_for_the_full_profile(model, tokenizer, tmp_path):
    found = sparsity_runs.sparsity(model, tokenizer, [0], True, tmp_path, TINY)
    assert set(found["curves"]["wanda, retrained"]) == {"0.75"}
    assert set(found["curves"]["2:4 wanda, retrained"]) == {"0.5"}
    assert found["bytes"]["wanda, retrained"]["0.75"] == pytest.approx(
        found["bytes"]["wanda"]["0.75"], rel=0.02)


def test_what_is_kept_belongs_to_its_plan(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"value": len(calls)}

    assert material.kept(make, tmp_path, what="a, b", rate=0.1) == {"value": 1}
    assert material.kept(make, tmp_path, what="a, b", rate=0.1) == {"value": 1}
    assert material.kept(make, tmp_path, what="a, b", rate=0.2) == {"value": 2}
