"""The experiments of chapter 07 at tiny sizes: shapes, controls, and runs that are kept."""

import copy
import math
from dataclasses import replace

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
    count = TINY.judged // TINY.seq_len
    assert data.validation_ids.shape == (count * (TINY.seq_len + 1),)
    (whole,) = data.validation(100)
    assert whole.ids.shape == whole.targets.shape == (count, TINY.seq_len)
    assert torch.equal(whole.ids[:, 1:], whole.targets[:, :-1])
    spelled = "".join(tokenizer.decode(row.tolist()) for row in whole.targets).encode()
    assert data.bytes_per_token == pytest.approx(len(spelled) / TINY.judged, rel=0.02)
    other = material.windows(tokenizer, TINY, 1)
    assert not torch.equal(data.batch(0, 4).ids, other.batch(0, 4).ids)
    for one, two in zip(data.validation(2), other.validation(2), strict=True):
        assert torch.equal(one.ids, two.ids)


def test_what_is_judged_comes_from_all_over_the_held_out_text(tokenizer):
    held = material._ids(tokenizer, TINY.training)[1]
    rows = next(material.windows(tokenizer, TINY).validation(100)).ids
    for number, row in enumerate(rows):
        start = number * (len(held) // len(rows))
        assert torch.equal(held[start : start + TINY.seq_len], row)
    with pytest.raises(ValueError, match="judge by fewer"):
        material.windows(tokenizer, replace(TINY, judged=len(held)))


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


def test_no_rate_is_chosen_on_text_that_is_judged(tokenizer):
    for sizes in (material.QUICK, material.FULL):
        judged, other = (material.windows(tokenizer, sizes, seed).validation_ids
                         for seed in (0, material.TUNING_SEED))
        assert len(judged) == len(other) == sizes.judged // sizes.seq_len * (sizes.seq_len + 1)
        rows = {tuple(row) for row in judged.unfold(0, 32, 1).tolist()}
        shared = sum(tuple(row) in rows for row in other.unfold(0, 32, 32).tolist())
        assert shared < 0.05 * len(other) / 32  # what a manual says in many places
        assert torch.equal(material.windows(tokenizer, sizes, 7).validation_ids, judged)


def test_a_best_rate_at_the_edge_is_said():
    def loss(best):
        return {rate: {"bits": 2 + abs(rate - best)} for rate in (0.1, 0.2, 0.4)}

    found = runs._chosen({"low": loss(0), "middle": loss(0.2), "high": loss(9)})
    assert found["rates"] == {"low": 0.1, "middle": 0.2, "high": 0.4}
    assert found["edge"] == {"low": "smallest", "high": "largest"}
    assert found["tried"]["middle"] == {"0.1": 2.1, "0.2": 2.0, "0.4": 2.2}


def test_seconds_are_compared_rate_by_rate():
    def took(*seconds):
        return {rate: {"seconds": each} for rate, each in zip("abc", seconds, strict=True)}

    assert runs._times({"soft labels": took(4, 60, 8), "hard labels": took(2, 10, 4)}) == 2


def test_distillation_pairs_every_way_with_its_control(model, tokenizer, tmp_path):
    before = copy.deepcopy(model.state_dict())
    found = runs.distillation(model, tokenizer, [0, 1], False, tmp_path, TINY)
    assert {name for pair in found["pairs"] for name in pair} == set(found["bits"])
    assert all(len(row) == 2 for key in ("bits", "kl", "agreement") for row in found[key].values())
    assert found["parameters"] <= material.BUDGET and found["layers"] == [2, 1]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2 * len(found["bits"])
    assert found["tried"] == found["edge"] == {} and set(found["rates"]) == set(found["bits"])
    assert found["tokens"]["soft labels"] == 3 * 2 * 16 == found["tokens"]["hard labels"]
    assert found["tokens"]["progressive"] == 2 * 2 * 2 * 16
    again = runs.distillation(model, tokenizer, [0, 1], False, tmp_path, TINY)
    assert again["bits"] == found["bits"] and sorted(tmp_path.iterdir()) == files


def test_in_full_every_way_has_a_rate_of_its_own(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_times", lambda trials: 2.0)
    found = runs.distillation(model, tokenizer, [0], True, tmp_path, TINY)
    assert found["longer steps"] == 6 and found["tokens"][runs.LONGER] == 6 * 2 * 16
    assert set(found["tried"]) == {"hard labels", "soft labels", runs.LONGER, *runs.PROGRESSIVE}
    for name, tried in found["tried"].items():
        assert found["rates"][name] == float(min(tried, key=tried.get))
        kind = "grown" if name in runs.PROGRESSIVE else "student"
        assert set(tried) == {str(rate) for rate in runs.RATES[kind]}
        at = runs.RATES[kind].index(found["rates"][name])
        assert (name in found["edge"]) == (at in (0, len(runs.RATES[kind]) - 1))
    assert ["soft labels", runs.LONGER] in found["pairs"]
    assert found["rates"]["+ features"] == found["rates"]["soft labels"]
    assert found["seconds"][runs.LONGER][0] > 0
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
    assert steps == [(2, 0), (2, 1)] * 2 and found["tried"] == {}
    assert {len(row) for row in found["bits"].values()} == {2}
    assert found["bits"]["rounded"][0] == found["bits"]["rounded"][1] != found["whole"]
    assert found["kind"] == "int4, a scale for a row"
    assert (found["judged"], found["seq_len"]) == (64, 16)


def test_in_full_both_ways_of_rounding_are_tuned(model, tokenizer, tmp_path):
    found = runs.qat(model, tokenizer, [0], True, tmp_path, TINY)
    assert set(found["tried"]) == set(found["rates"]) == {"trained on, then rounded", "QAT"}
    assert all(len(tried) == len(material.RATES["rounded"]) for tried in found["tried"].values())


def test_rounding_later_gives_packed_layers_both_ways(model, data):
    config = material.recipe(2, 0.001, TINY, 0, "adamw")
    plain, inside = (material.round_later(model, data, config, "int4", 32, inside=inside)
                     for inside in (False, True))
    for small in (plain, inside):
        assert all(isinstance(block.attention.q_proj, QuantizedLinear) for block in small.blocks)
    assert material.bits(plain, data) != material.bits(inside, data)


def test_sparsity_gives_a_curve_for_each_score(model, tokenizer, tmp_path):
    found = sparsity_runs.sparsity(model, tokenizer, [0, 1], False, tmp_path, TINY)
    assert set(found["curves"]) == {"magnitude", "magnitude, per row", "movement", "wanda",
                                    "wanda, per layer", "2:4 magnitude", "2:4 wanda", "heads",
                                    "channels"} == set(found["bytes"])
    assert found["curves"]["magnitude"]["0.5"] != found["curves"]["magnitude, per row"]["0.5"]
    assert found["curves"]["wanda"]["0.5"] != found["curves"]["wanda, per layer"]["0.5"]
    assert set(found["curves"]["wanda"]) == {"0.5"}
    assert found["seeds"] == [0] and all(len(v) == 1 for v in found["curves"]["wanda"].values())
    assert sparsity_runs.SCOPES["magnitude, per row"] == sparsity_runs.SCOPES["wanda"] == "row"


def test_cut_parts_stand_where_as_many_weights_are_gone(model, tokenizer, tmp_path):
    """Of a block's 7,168 weights 4,096 are attention's, 3,072 of the feed-forward part."""
    found = sparsity_runs.sparsity(model, tokenizer, [0], True, tmp_path, TINY)
    assert list(found["curves"]["channels"]) == ["0.11", "0.21", "0.32"]
    scores = sparsity_runs.magnitude_scores(model)
    for name in ("heads", "channels"):
        small = sparsity_runs.without_parts(model, scores, name)
        gone = sum(p.numel() for p in model.parameters()) - sum(
            p.numel() for p in small.parameters())
        assert sparsity_runs.share_gone(model, small) == f"{gone / (3 * 7168):.2f}"
        assert sparsity_runs.share_gone(model, small) in found["curves"][name]


def test_retraining_is_for_the_full_profile(model, tokenizer, tmp_path):
    found = sparsity_runs.sparsity(model, tokenizer, [0], True, tmp_path, TINY)
    assert set(found["curves"]["wanda"]) == {"0.25", "0.5", "0.75"}
    sizes = found["bytes"]["magnitude"]
    assert sizes["0.25"] > sizes["0.5"] > sizes["0.75"]
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


def test_a_file_is_written_once_for_its_plan(tmp_path):
    calls = []

    def write(path):
        calls.append(path)
        path.write_text("x")

    one = material.kept_file(write, tmp_path / "new", what="a", rate=0.1)
    assert material.kept_file(write, tmp_path / "new", what="a", rate=0.1) == one == calls[0]
    assert material.kept_file(write, tmp_path / "new", what="a", rate=0.2) != one
    assert len(calls) == 2
