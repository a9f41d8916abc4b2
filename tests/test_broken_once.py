"""Lines that were broken once without any test noticing: each has one here that fails then."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from scratchbook.attention import attend
from scratchbook.cache import KVCache, WindowCache
from scratchbook.config import ModelConfig, RopeSettings
from scratchbook.data.token_files import write_tokens
from scratchbook.evaluation import score_text
from scratchbook.feedforward import MixtureOfExperts
from scratchbook.generation import choose
from scratchbook.model import DecoderLM
from scratchbook.positions import RotaryEmbedding
from scratchbook.sampling import beam_search
from scratchbook.training import train
from scratchbook.training.optim import Optimizer, build_optimizer
from scratchbook.training.packed import TRAIN, VALIDATION, packed_data
from scratchbook.training.recipes import DataConfig, Recipe
from scratchbook.training.runs import ByteTokenizer
from scratchbook.training.settings import TrainConfig
from tests.test_training_loop import TINY, settings, tiny_data, tiny_model


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# the loop


@pytest.mark.parametrize("limit", [None, 0.1])
def test_fp16_measures_and_clips_gradients_of_the_true_size(limit):
    """Clipped before unscaling, every step would be tens of thousands of times too small."""
    runs = {kind: train(tiny_model(), tiny_data(), settings(precision=kind, max_grad_norm=limit,
                                                            optimizer="lion", lr=1e-3)).log
            for kind in ("fp32", "fp16")}
    norms = {kind: [e["grad_norm"] for e in log if "loss" in e][0] for kind, log in runs.items()}
    assert norms["fp16"] == pytest.approx(norms["fp32"], rel=0.02)


def test_fp16_clips_to_the_limit_and_no_further(monkeypatch):
    seen, step = [], Optimizer.step

    def spied(self, closure=None):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        seen.append(nn.utils.get_total_norm(gradients).item())
        step(self)

    monkeypatch.setattr(Optimizer, "step", spied)
    train(tiny_model(), tiny_data(), settings(precision="fp16", max_grad_norm=0.1, max_steps=4))
    assert seen and all(norm == pytest.approx(0.1, rel=1e-3) for norm in seen)


def test_dropout_is_another_at_every_step_and_the_same_when_repeated():
    def dropped() -> list[torch.Tensor]:
        model, found = tiny_model(config=TINY.with_(dropout=0.5)), []
        model.dropout.register_forward_hook(
            lambda module, x, out: found.append(out == 0) if module.training else None)
        train(model, tiny_data(), settings(max_steps=5))
        return found

    first, second = dropped(), dropped()
    assert len(first) == 5 and all(0.4 < hidden.float().mean() < 0.6 for hidden in first)
    assert all(map(torch.equal, first, second))
    assert not any(torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])


def test_a_model_that_comes_for_reading_is_trained_in_training_mode():
    model, modes = tiny_model().eval(), []
    model.register_forward_hook(
        lambda module, x, out: modes.append((module.training, torch.is_grad_enabled())))
    train(model, tiny_data(), settings(max_steps=4, eval_every=2))
    assert set(modes) == {(True, True), (False, False)} and not model.training


# attention, positions and caches


@pytest.mark.parametrize("moved", [False, True])
def test_angles_far_away_are_exact_for_half_precision_too(moved):
    rotary, places = RotaryEmbedding(8, RopeSettings(base=100.0)), torch.arange(3000, 3016)
    x = normal(1, 1, 16, 8).to(torch.bfloat16)
    rotary = rotary.to(torch.bfloat16) if moved else rotary
    speeds = 100.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    turned = torch.polar(torch.ones(16, 4).double(), places[:, None] * speeds)
    want = torch.complex(*x.double().chunk(2, dim=-1)) * turned
    want = torch.cat([want.real, want.imag], dim=-1)
    got = rotary(x, places)
    assert got.dtype == torch.bfloat16
    assert_close(got.double(), want, atol=0.03, rtol=0)  # three roundings of numbers up to 4


@pytest.mark.parametrize("impl", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_rows_that_may_look_at_nothing_are_zero_in_every_kernel(impl, kind, learns, biased):
    q, k, v = (normal(2, 2, 4, 8, seed=seed).to(kind).requires_grad_(learns) for seed in range(3))
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    mask[0] = mask[2] = False
    out = attend(q, k, v, mask, impl, bias=normal(2, 4, 4, seed=9) if biased else None)
    assert not out[:, :, [0, 2]].any() and (out[:, :, [1, 3]] != 0).all()
    if learns:
        out.float().square().sum().backward()
        assert all(t.grad.isfinite().all() for t in (q, k, v))


@pytest.mark.parametrize("cache", [lambda: KVCache(200), lambda: WindowCache(3, sinks=1)])
@pytest.mark.parametrize("which", ["keys", "values"])
def test_no_graph_stays_in_a_cache(cache, which):
    cache = cache()
    for length in (2, 70, 1, 90):  # the window's buffer overflows in between
        learns, plain = normal(1, 1, length, 4).requires_grad_(), normal(1, 1, length, 4)
        k, v = (learns, plain) if which == "keys" else (plain, learns)
        found = cache.append(k * 1, v * 1)
        assert not any(kept.requires_grad for kept in (*found, cache._k, cache._v))


# optimizers


def stepped(rule: str, weight: torch.Tensor, gradient: torch.Tensor, **options) -> torch.Tensor:
    parameter = nn.Parameter(weight.clone())
    parameter.grad = gradient.clone()
    Optimizer([{"params": [parameter], "rule": rule, "lr": 0.1, **options}]).step()
    return parameter.detach()


def test_galores_step_is_scaled_by_a_quarter():
    weight, gradient = normal(6, 8), normal(6, 8, seed=1)
    whole = stepped("galore", weight, gradient, scale=1.0) - weight
    assert whole.abs().max() > 0.05
    assert_close(stepped("galore", weight, gradient) - weight, whole / 4)


@pytest.mark.parametrize("shape", [(5, 3), (4,)])
def test_adafactor_moves_weights_of_zero_by_its_floor(shape):
    # the first direction has size one; the rate is lr times the weights' size, at least 1e-3
    moved = stepped("adafactor", torch.zeros(shape), torch.ones(shape))
    assert_close(moved, torch.full(shape, -0.1 * 1e-3))
    moved = stepped("adafactor", torch.full(shape, 2.0), torch.ones(shape))
    assert_close(moved, torch.full(shape, 2.0 - 0.1 * 2))


@pytest.mark.parametrize("rule", ["adamw", "lion", "muon", "galore", "adafactor"])
@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_decay_alone_shrinks_by_rate_times_decay(rule, shape):
    weight = normal(*shape)
    moved = stepped(rule, weight, torch.zeros(shape), weight_decay=0.3)
    assert_close(moved, weight * (1 - 0.1 * 0.3), atol=1e-6, rtol=0)


# bits per byte


TEXT = "größer als möglich, süß und früh — ja. " * 60


def test_bits_per_byte_count_bytes_and_not_characters(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    sizes = ModelConfig(50, max_seq_len=16, num_layers=1, d_model=16, num_heads=2)
    data, tokenizer = Recipe(sizes, DataConfig(str(file), "char", seq_len=8),
                             TrainConfig()).build_data()
    held_out = tokenizer.decode(data.validation_ids.tolist())
    assert data.bytes_per_token == pytest.approx(len(held_out.encode()) / len(held_out))
    assert data.bytes_per_token > 1.1
    model = DecoderLM(sizes.with_(vocab_size=tokenizer.vocab_size))
    entry = next(e for e in train(model, data, settings(max_steps=2)).log
                 if "bits_per_byte" in e)
    assert entry["bits_per_byte"] == pytest.approx(
        entry["validation_loss"] / math.log(2) / data.bytes_per_token)
    score = score_text(model, tokenizer, TEXT, 8)
    assert score.num_bytes == len(TEXT[1:].encode())  # the first token is not scored


def test_bits_per_byte_of_packed_documents_count_bytes_too(tmp_path):
    from scratchbook.tokenizers import CharTokenizer

    tokenizer = CharTokenizer().train(TEXT)
    for name in (TRAIN, VALIDATION):
        write_tokens(tmp_path / name, [tokenizer.encode(TEXT)], tokenizer.vocab_size)
    tokenizer.save(tmp_path / "train.tokenizer.json")
    data, _ = packed_data(tmp_path, 8)
    assert data.bytes_per_token == pytest.approx(len(TEXT.encode()) / len(TEXT))
    for name in (TRAIN, VALIDATION):
        write_tokens(tmp_path / name, [ByteTokenizer().encode(TEXT)], 256)
    (tmp_path / "train.tokenizer.json").unlink()
    assert packed_data(tmp_path, 8)[0].bytes_per_token == pytest.approx(1)


# choosing


@pytest.mark.parametrize(("cold", "warm", "keep"), [
    (0.5, 4.0, {"top_p": 0.8}), (0.5, 4.0, {"min_p": 0.2})])
def test_temperature_comes_before_the_filters(cold, warm, keep):
    # at 1 the probabilities are .67 .24 .09; cold .87 .12 .02, warm .40 .32 .25 (rounded)
    logits = torch.tensor([2.0, 1.0, 0.0]).repeat(2000, 1)
    generator = torch.Generator().manual_seed(0)
    seen = {name: set(choose(logits, temperature, generator=generator, **keep).tolist())
            for name, temperature in (("cold", cold), ("one", 1.0), ("warm", warm))}
    assert seen == {"cold": {0}, "one": {0, 1}, "warm": {0, 1, 2}}


def plain_beams(table: torch.Tensor, start: int, steps: int, beams: int, stop: int) -> list:
    """Beam search in lists: what stops among the first `beams` is done, and leaves its place."""
    alive, done = [(0.0, [start])], []
    for _ in range(steps):
        grown = sorted(((total + score, [*ids, token]) for total, ids in alive
                        for token, score in enumerate(table[ids[-1]].log_softmax(0).tolist())),
                       key=lambda pair: -pair[0])[: 2 * beams]
        done += [pair for pair in grown[:beams] if pair[1][-1] == stop]
        alive = [pair for pair in grown if pair[1][-1] != stop][:beams]
        if len(done) >= beams or not alive:
            break
    else:
        done += alive
    return sorted(done, key=lambda pair: -pair[0])[:beams]


@pytest.mark.parametrize("beams", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_beams_that_stop_are_done_and_leave_their_place_to_others(beams, seed):
    table = 1.5 * normal(5, 5, seed=seed)
    found = beam_search(lambda ids: table[ids], [0], 6, beams, stop_ids=[2], length_penalty=0)
    want = plain_beams(table, 0, 6, beams, stop=2)
    assert [ids for _, ids in found] == [ids[1:] for _, ids in want]
    assert [score for score, _ in found] == pytest.approx([score for score, _ in want], abs=1e-5)


# dtypes


def test_a_router_decides_in_float32():
    torch.manual_seed(0)
    experts = MixtureOfExperts(8, 16, num_experts=3, num_active=2).to(torch.bfloat16)
    seen = []
    watch = experts._watch
    experts._watch = lambda probs, chosen: (seen.append(probs), watch(probs, chosen))
    out = experts(normal(64, 8).to(torch.bfloat16))
    assert out.dtype == torch.bfloat16 and seen[0].dtype == torch.float32
    assert_close(seen[0].sum(-1), torch.ones(64), atol=1e-6, rtol=0)  # bfloat16 misses by 1e-3


def test_the_stream_is_bfloat16_under_autocast_and_float32_without():
    model, seen = tiny_model(), []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].dtype))
    model.final_norm.register_forward_pre_hook(lambda module, x: seen.append(x[0].dtype))
    ids = torch.randint(23, (1, 5))
    for kind, wanted in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        seen.clear()
        with torch.autocast("cpu", dtype=kind):
            model(ids)
        assert seen[0] == wanted and len(set(seen)) == 1
    seen.clear()
    model(ids)
    assert set(seen) == {torch.float32}


def test_build_optimizer_gives_galore_its_scale():
    groups = build_optimizer(tiny_model(), "galore").param_groups
    assert groups[0]["rule"] == "galore" and groups[0]["scale"] == 0.25
