"""Distillation: losses by hand and by numeric gradients, the training loop, smaller students."""

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from scratchbook.accounting import total_parameters
from scratchbook.attention import causal_mask
from scratchbook.compression.distillation import (
    Distillation,
    Teacher,
    add_projectors,
    agreement,
    attention_loss,
    distill,
    distilling,
    feature_loss,
    matching_layers,
    read,
    soft_label_loss,
)
from scratchbook.compression.shrinking import (
    block_influence,
    keep_layers,
    shrink,
    spread_layers,
    student_config,
)
from scratchbook.config import PRESETS, ModelConfig
from scratchbook.data.batches import IGNORED, Batch, Windows
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator
from scratchbook.training import TrainConfig, accumulate, open_run, train
from tests.random_models import random_model

LARGE = ModelConfig(vocab_size=23, max_seq_len=16, num_layers=4, d_model=24, num_heads=4, d_ff=32)
SMALL = ModelConfig(vocab_size=23, max_seq_len=16, num_layers=2, d_model=16, num_heads=2, d_ff=24,
                    dropout=0.1)
ALL = Distillation(hard=0.3, soft=0.5, temperature=3.0, features=0.2, attention=0.4)
TRAIN = TrainConfig(max_steps=6, batch_size=4, lr=0.01, eval_every=3, checkpoint_every=2)


def build(config: ModelConfig, seed: int = 0) -> DecoderLM:
    return random_model(config, seed, std=0.2)


def normal(*shape: int, name: str = "") -> torch.Tensor:
    return torch.randn(*shape, generator=named_generator(0, f"{name}{shape}"))


def windows() -> Windows:
    stream = torch.randint(23, (500,), generator=named_generator(0, "stream"))
    return Windows(stream[:400], stream[400:], seq_len=10)


def states_equal(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@settings(max_examples=25)
@given(st.floats(0.5, 8), st.integers(2, 9))
def test_soft_labels_are_the_divergence_times_the_square_of_the_temperature(temperature, vocab):
    student, teacher = normal(3, vocab, name="s"), normal(3, vocab, name="t")
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    expected = temperature**2 * (p * (p / q).log()).sum(-1)
    assert_close(soft_label_loss(student, teacher, temperature), expected, atol=1e-5, rtol=1e-4)
    assert soft_label_loss(teacher, teacher, temperature).abs().max() < 1e-5


@pytest.mark.parametrize("loss", [
    lambda x: soft_label_loss(x, normal(2, 3, 5, name="teacher"), 2.5),
    lambda x: feature_loss(x, normal(2, 3, 7, name="teacher"), PROJECTOR),
    lambda x: attention_loss(x.softmax(-1)[:, None], normal(2, 1, 3, 5).softmax(-1)),
], ids=["soft", "features", "attention"])
def test_gradients_equal_differences(loss) -> None:
    """Central differences of a float32 loss: 1e-3 wide, so true to about 1e-3."""
    x = normal(2, 3, 5, name="student").requires_grad_()
    loss(x).sum().backward()
    for place in [(0, 0, 0), (0, 2, 4), (1, 1, 3)]:
        step = torch.zeros_like(x)
        step[place] = 1e-2
        with torch.no_grad():
            slope = (loss(x + step).double().sum() - loss(x - step).double().sum()) / 2e-2
        assert x.grad[place].item() == pytest.approx(slope.item(), abs=2e-3, rel=1e-2)


PROJECTOR = nn.Linear(5, 7, bias=False)


def test_the_gradient_of_soft_labels_is_temperature_times_the_difference() -> None:
    student, teacher = normal(4, 6, name="s").requires_grad_(), normal(4, 6, name="t")
    soft_label_loss(student, teacher, 4.0).sum().backward()
    difference = (student / 4).softmax(-1) - (teacher / 4).softmax(-1)
    assert_close(student.grad, 4 * difference.detach(), atol=1e-6, rtol=0)


def test_attention_that_is_hidden_counts_nothing_and_gives_no_nan() -> None:
    hidden = normal(1, 2, 5, 5).masked_fill(~causal_mask(5), -torch.inf)
    ours, theirs = (2 * hidden).softmax(-1).requires_grad_(), hidden.softmax(-1)
    loss = attention_loss(ours, theirs)
    loss.sum().backward()
    assert loss.shape == (1, 5) and loss[0, 0] == 0 and ours.grad.isfinite().all()
    seen = theirs * (theirs / ours).nan_to_num(1.0).log()
    assert_close(loss, seen.nan_to_num().sum(-1).mean(1), atol=1e-6, rtol=0)


def test_heads_that_differ_in_number_are_averaged() -> None:
    one, four = normal(2, 1, 3, 3).softmax(-1), normal(2, 4, 3, 3).softmax(-1)
    assert_close(attention_loss(one, four), attention_loss(one, four.mean(1, keepdim=True)))


@pytest.mark.parametrize("how", [ALL, Distillation(0, 1), Distillation(1, 0),
                                 Distillation(0, 0, features=1.0)], ids=str)
@pytest.mark.parametrize("parts", [1, 3])
def test_the_loop_learns_by_the_loss_written_out(how: Distillation, parts: int) -> None:
    """Value and gradients, some targets ignored, whole and in micro-batches."""
    student, teacher = build(SMALL.with_(dropout=0.0)), build(LARGE, 1)
    batch = windows().batch(0, 4)
    batch.targets[0, 2:] = IGNORED
    with distilling(student, teacher, how):
        student.train()
        loss, counted = accumulate(student, batch, parts)
        grads = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
        student.zero_grad()
        expected = written_out(student, teacher, how, batch)
        expected.backward()
        for name, parameter in student.named_parameters():
            wanted = parameter.grad if parameter.grad is not None else torch.zeros(1)
            assert_close(grads.get(name, torch.zeros(1)).expand_as(wanted), wanted, atol=2e-6,
                         rtol=1e-4)
    assert counted == 32 and loss == pytest.approx(expected.item(), rel=1e-5)
    assert all(p.grad is None for p in teacher.parameters())


def written_out(student, teacher, how: Distillation, batch: Batch) -> torch.Tensor:
    logits, vectors, maps = read(student, batch.ids, True, True)
    with torch.no_grad():
        theirs, their_vectors, their_maps = read(teacher, batch.ids, True, True)
    counted = batch.targets != IGNORED
    text = F.cross_entropy(logits[counted], batch.targets[counted])
    total = how.hard * text
    p = (theirs / how.temperature).softmax(-1)
    q = (logits / how.temperature).log_softmax(-1)
    total = total + how.soft * how.temperature**2 * (p * (p.log() - q)).sum(-1)[counted].mean()
    for mine, other in ((0, 1), (1, 3)):
        if how.features:
            projected = student.projectors[mine](vectors[mine])
            total = total + how.features / 2 * (projected - their_vectors[other])[counted].square(
                ).mean()
        if how.attention:
            total = total + how.attention / 2 * attention_loss(
                maps[mine], their_maps[other])[counted].mean()
    return total


@pytest.mark.parametrize("how", [ALL, Distillation()], ids=["all", "soft"])
def test_a_run_that_was_broken_off_resumes_exactly(how: Distillation, tmp_path) -> None:
    teacher = build(LARGE, 1)
    whole, broken, again = build(SMALL), build(SMALL), build(SMALL)
    distill(whole, teacher, windows(), TRAIN, how, tmp_path / "whole")
    distill(broken, teacher, windows(), TRAIN, how, tmp_path / "run", stop_after=3)
    distill(again, Teacher(teacher), windows(), TRAIN, how, tmp_path / "run")
    assert states_equal(whole, again) and not states_equal(whole, broken)
    assert states_equal(teacher, build(LARGE, 1)) and not hasattr(again, "projectors")
    lines = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").open(encoding="utf-8")]
             for name in ("whole", "run")]
    assert [e.get("loss") for e in lines[0]] == [e.get("loss") for e in lines[1]]
    wrap = (lambda model: add_projectors(model, teacher)) if how.features else None
    opened = open_run(tmp_path / "run", "last", wrap=wrap).model
    ids = windows().batch(0, 2).ids
    assert torch.equal(opened(ids), whole(ids))


def test_validation_is_that_of_the_text_and_the_student_stays_what_it_was(tmp_path) -> None:
    student, teacher = build(SMALL), build(LARGE, 1)
    keys = list(student.state_dict())
    trained = distill(student, teacher, windows(), TRAIN, ALL)
    held_out = next(iter(windows().validation(100)))
    text = F.cross_entropy(student(held_out.ids).flatten(0, 1), held_out.targets.flatten())
    assert trained.evaluations[-1][1] == pytest.approx(text.item(), rel=1e-5)
    assert list(student.state_dict()) == keys and "forward" not in vars(student)
    assert not any(module._forward_hooks or module._forward_pre_hooks
                   for model in (student, teacher) for module in model.modules())


def test_a_student_of_hard_labels_alone_is_a_model_that_was_trained_as_always() -> None:
    plain, student = build(SMALL), build(SMALL)
    train(plain, windows(), TRAIN)
    distill(student, build(LARGE, 1), windows(), TRAIN, Distillation(hard=1.0, soft=0.0))
    assert states_equal(plain, student)


def test_soft_labels_bring_the_student_to_its_teacher() -> None:
    teacher, student = build(SMALL.with_(dropout=0.0), 1), build(SMALL.with_(dropout=0.0))
    before = agreement(student, teacher, windows())
    config = TrainConfig(max_steps=60, batch_size=8, lr=0.02, eval_every=60)
    distill(student, teacher, windows(), config, Distillation(hard=0.0, soft=1.0, temperature=1.0))
    after = agreement(student, teacher, windows())
    assert after["kl"] < 0.5 * before["kl"] and after["agreement"] > before["agreement"]
    same = agreement(teacher, teacher, windows())
    assert same["agreement"] == 1.0 and abs(same["kl"]) < 1e-6


def test_bf16_and_micro_batches_and_activation_checkpointing_work() -> None:
    for changes in ({"precision": "bf16"}, {"grad_accum_steps": 2},
                    {"activation_checkpointing": True}):
        student = build(SMALL)
        config = TrainConfig(max_steps=3, batch_size=4, eval_every=3, **changes)
        losses = distill(student, build(LARGE, 1), windows(), config, ALL).losses
        assert all(math.isfinite(loss) for loss in losses), changes
    plain = distill(build(SMALL), build(LARGE, 1), windows(),
                    TrainConfig(max_steps=3, batch_size=4, eval_every=3), ALL).losses
    assert losses == pytest.approx(plain, rel=1e-5)  # of the checkpointed one


class Repeated:
    """Two rows of ids, again and again, in changing company."""

    def __init__(self) -> None:
        self.rows = windows().batch(0, 3)

    def batch(self, step: int, size: int) -> Batch:
        order = torch.randperm(3, generator=named_generator(0, f"{step}"))[:size]
        return Batch(self.rows.ids[order], self.rows.targets[order])

    def validation(self, size: int):
        yield self.rows


def test_the_teacher_answers_once_and_keeps_no_more_than_it_may() -> None:
    row = 10 * 23 * 4
    calls = []
    model = build(LARGE, 1)
    model.blocks[0].register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    kept, small = Teacher(model, cache_bytes=3 * row), Teacher(model, cache_bytes=2 * row + 1)
    ids = Repeated().rows.ids
    assert torch.equal(kept(ids), torch.cat([kept(r) for r in ids.split(1)]))
    assert kept.hits == 3 and kept.kept_bytes == 3 * row and calls == [1, 1, 1]
    assert torch.equal(kept(ids.int()), kept(ids)) and len(calls) == 3  # ids of any type
    small(ids)
    small(ids)
    assert small.hits == 2 and small.kept_bytes == 2 * row  # what came first stays
    assert not kept(ids).requires_grad
    assert_close(kept(ids), model(ids), atol=1e-6, rtol=0)
    students = [build(SMALL), build(SMALL)]
    for student, size in zip(students, (10**6, 1), strict=True):
        distill(student, Teacher(model, cache_bytes=size), Repeated(), TRAIN)
    assert states_equal(*students)  # kept or asked again: the same run


def test_a_teacher_with_dropout_is_asked_without_and_gets_its_mode_back() -> None:
    model = build(LARGE.with_(dropout=0.5), 1).train()
    ids = windows().batch(0, 2).ids
    assert torch.equal(Teacher(model)(ids), Teacher(model)(ids)) and model.training


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_model_of_transformers_teaches(name: str) -> None:
    from tests import tiny_models

    theirs = tiny_models.build(name)
    student = build(SMALL.with_(vocab_size=99))
    trained = distill(student, theirs, windows(), TRAIN, ALL)
    assert len(trained.losses) == 6
    ids = windows().batch(0, 2).ids
    hooks = sum(len(module._forward_hooks) for module in theirs.modules())
    logits, vectors, maps = Teacher(theirs).read(ids, True, True)
    assert sum(len(module._forward_hooks) for module in theirs.modules()) == hooks
    assert_close(logits, theirs(ids).logits)
    assert len(vectors) == len(maps) == theirs.config.num_hidden_layers
    inner = theirs.transformer if name == "gpt2" else theirs.model
    norm = inner.ln_f if name == "gpt2" else inner.norm
    assert_close(theirs.lm_head(norm(vectors[-1])), logits)  # behind the block, before the norm
    assert maps[0].sum(-1).allclose(torch.ones(1))


def test_maps_and_vectors_are_those_of_the_forward_pass() -> None:
    model = build(LARGE)
    ids = windows().batch(0, 2).ids
    logits, vectors, maps = read(model, ids, True, True)
    assert torch.equal(logits, model(ids)) and len(vectors) == len(maps) == 4
    assert_close(model.lm_head(model.final_norm(vectors[-1])), logits)
    assert maps[0].shape == (2, 4, 10, 10) and not maps[0][0, 0].triu(1).any()


@pytest.mark.parametrize("layers", [(2, 4, [1, 3]), (3, 6, [1, 3, 5]), (4, 4, [0, 1, 2, 3]),
                                    (1, 5, [4]), (6, 3, [0, 0, 1, 1, 2, 2])], ids=str)
def test_which_layers_are_compared(layers: tuple) -> None:
    student, teacher, expected = layers
    assert matching_layers(student, teacher) == expected


def test_another_teacher_or_other_weights_do_not_go_on_with_a_run(tmp_path) -> None:
    distill(build(SMALL), build(LARGE, 1), windows(), TRAIN, None, tmp_path / "run", stop_after=2)
    with pytest.raises(ValueError, match="teacher of its distillation differ"):
        distill(build(SMALL), build(LARGE, 2), windows(), TRAIN, None, tmp_path / "run")
    with pytest.raises(ValueError, match="temperature of its distillation differ"):
        distill(build(SMALL), build(LARGE, 1), windows(), TRAIN, Distillation(temperature=9.0),
                tmp_path / "run")
    train(build(SMALL), windows(), TRAIN, tmp_path / "plain", stop_after=2)
    with pytest.raises(ValueError, match="holds another run"):
        distill(build(SMALL), build(LARGE, 1), windows(), TRAIN, None, tmp_path / "plain")


def test_bad_input_is_refused_with_the_way_out() -> None:
    student, teacher = build(SMALL), build(LARGE, 1)
    for wrong in ({"hard": -1.0}, {"hard": 0.0, "soft": 0.0}, {"soft": float("nan")},
                  {"features": float("inf")}):
        with pytest.raises(ValueError, match="weights are numbers from 0 up"):
            Distillation(**wrong)
    with pytest.raises(ValueError, match="temperature=0"):
        Distillation(temperature=0)
    with pytest.raises(ValueError, match="its own teacher"):
        distill(student, student, windows(), TRAIN)
    with pytest.raises(ValueError, match="teacher has vocab_size=23, the student 24"):
        distill(build(SMALL.with_(vocab_size=24)), teacher, windows(), TRAIN)
    with pytest.raises(ValueError, match="compile=True"):
        distill(student, teacher, windows(), TrainConfig(compile=True))
    assert "forward" not in vars(student)


def test_layers_at_even_distances() -> None:
    assert spread_layers(6, 4) == [0, 2, 3, 5] and spread_layers(12, 6) == [0, 2, 4, 7, 9, 11]
    assert spread_layers(5, 5) == [0, 1, 2, 3, 4] and spread_layers(4, 1) == [0]
    with pytest.raises(ValueError, match="keep=7 is not within 1..num_layers=6"):
        spread_layers(6, 7)


def test_a_copy_with_fewer_layers_is_the_model_that_skips_the_others() -> None:
    model = build(LARGE)
    small = keep_layers(model, [0, 3])
    skipping = copy.deepcopy(model)
    for layer in (1, 2):
        skipping.blocks[layer].forward = lambda x, *_: x
    ids = windows().batch(0, 2).ids
    assert torch.equal(small(ids), skipping(ids)) and small.config.num_layers == 2
    assert len(model.blocks) == 4
    for wrong in ([], [4], [1, 1]):
        with pytest.raises(ValueError, match="name some of 0..3"):
            keep_layers(model, wrong)


def test_a_block_that_does_nothing_has_no_influence() -> None:
    model = build(LARGE)
    with torch.no_grad():
        for part in (model.blocks[2].attention.o_proj, model.blocks[2].feedforward.down_proj):
            part.weight.zero_()
    influence = block_influence(model, [windows().batch(0, 2).ids])
    assert influence.argmin() == 2 and influence[2].abs() < 1e-6 and (influence[:2] > 1e-3).all()
    with pytest.raises(ValueError, match="no batch"):
        block_influence(model, [])


def test_shrinking_goes_down_the_ladder_and_resumes(tmp_path) -> None:
    model = build(LARGE)
    student, stages = shrink(model, (3, 2), windows(), TRAIN, None, tmp_path)
    assert len(student.blocks) == 2 and len(stages) == 2
    again, _ = shrink(model, (3, 2), windows(), TRAIN, None, tmp_path)  # all is there already
    assert states_equal(student, again) and states_equal(model, build(LARGE))
    assert open_run(tmp_path / "layers_2", "last").model.config.num_layers == 2
    shrink(model, (1,), windows(), TRAIN, by_influence=[windows().batch(0, 2).ids])
    for wrong in ((), (4,), (2, 3), (2, 2)):
        with pytest.raises(ValueError, match="must fall"):
            shrink(model, wrong, windows(), TRAIN)


@settings(max_examples=25)
@given(st.sampled_from(["tiny-1m", "tiny-2m", "base-10m", "llama-3-8b", "gpt2"]),
       st.integers(60_000, 30_000_000))
def test_a_student_has_at_most_the_budget(name: str, budget: int) -> None:
    base = PRESETS[name]
    try:
        config = student_config(budget, base)
    except ValueError as error:
        assert str(budget).replace("_", "")[:2] in str(error).replace(",", "")
        return
    assert total_parameters(config) <= budget
    assert config.vocab_size == base.vocab_size and config.feedforward == base.feedforward
    if budget < 3_000_000:
        assert sum(p.numel() for p in DecoderLM(config).parameters()) == total_parameters(config)


def test_a_student_of_a_million_parameters() -> None:
    config = student_config(1_000_000, PRESETS["base-10m"].with_(vocab_size=2048))
    assert 800_000 < total_parameters(config) <= 1_000_000
    assert config.d_model % 32 == config.d_ff % 32 == 0  # blocks of 32 hold it
    assert student_config(10**12, PRESETS["base-10m"]) == PRESETS["base-10m"]
    with pytest.raises(ValueError, match="take a smaller vocabulary"):
        student_config(50_000, PRESETS["base-10m"])
    with pytest.raises(ValueError, match="latent"):
        student_config(1_000_000, ModelConfig(100, latent_dim=8))


@pytest.mark.parametrize("layout", ["pre", "post", "parallel", "sandwich"])
def test_maps_are_those_that_the_block_used_in_every_layout(layout: str) -> None:
    model = build(LARGE.with_(layout=layout, num_layers=1))
    ids = windows().batch(0, 2).ids
    _, _, maps = read(model, ids, False, True)
    attention = model.blocks[0].attention
    seen = []
    hook = attention.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(ids)
    hook.remove()
    _, expected = attention(seen[0], return_weights=True)
    assert torch.equal(maps[0], expected)


def test_what_a_teacher_forbids_costs_nothing_and_half_precision_hides_without_nan() -> None:
    student = torch.zeros(3, requires_grad=True)
    loss = soft_label_loss(student, torch.tensor([0.0, 0.0, -torch.inf]))
    assert loss.item() == pytest.approx(math.log(3 / 2))
    loss.backward()
    assert student.grad.isfinite().all()
    hidden = causal_mask(4).half()[None, None] / torch.arange(1, 5).half()[:, None]
    assert attention_loss(hidden, hidden).abs().max() < 1e-3


def test_a_stage_that_was_stopped_ends_the_shrinking(tmp_path) -> None:
    student, stages = shrink(build(LARGE), (2, 1), windows(), TRAIN, None, tmp_path, stop_after=2)
    assert len(stages) == 1 and student.config.num_layers == 2
    assert not (tmp_path / "layers_1").exists()
    with pytest.raises(ValueError, match="to 1 or more"):
        shrink(build(LARGE), (2, 0), windows(), TRAIN)
