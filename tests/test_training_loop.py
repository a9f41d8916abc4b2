"""The loop: exact resume, equal parts, and an end to every mistake that names the way back."""

import json
import math
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from scratchbook.config import ModelConfig
from scratchbook.data.batches import IGNORED, Batch, Windows
from scratchbook.model import DecoderLM
from scratchbook.training import (
    Diverged,
    TrainConfig,
    accumulate,
    activation_checkpointing,
    evaluate,
    open_run,
    read_log,
    train,
)
from scratchbook.training import loop as loop_module
from scratchbook.training.checkpoint import checkpoints

TINY = ModelConfig(vocab_size=23, max_seq_len=16, num_layers=2, d_model=16, num_heads=2,
                   dropout=0.1, tie_embeddings=True)


def tiny_model(seed=0, config=TINY):
    torch.manual_seed(seed)
    return DecoderLM(config)


def tiny_data(seed=0, seq_len=8):
    ids = torch.randint(23, (400,), generator=torch.Generator().manual_seed(7))
    return Windows(ids[:300], ids[300:], seq_len, seed)


def settings(**changes):
    return TrainConfig(**{"max_steps": 12, "batch_size": 4, "lr": 1e-2, "eval_every": 6,
                          "checkpoint_every": 3, **changes})


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(),
                                                 other.state_dict().values(), strict=True))


@pytest.mark.parametrize("changes", [
    {"optimizer": "adamw"}, {"optimizer": "muon"}, {"optimizer": "galore", "schedule": "wsd"},
    {"optimizer": "lion", "lr": 1e-3}, {"optimizer": "adafactor"}, {"precision": "bf16"},
    {"grad_accum_steps": 3, "warmup_steps": 4, "max_grad_norm": None}],
    ids=lambda changes: "-".join(map(str, changes.values())))
def test_resuming_equals_never_having_stopped(tmp_path, changes):
    config = settings(**changes)
    whole = tiny_model()
    straight = train(whole, tiny_data(), config)
    first = tiny_model()
    train(first, tiny_data(), config, tmp_path / "run", stop_after=7)
    again = tiny_model(seed=5)  # what a new process has before it reads the checkpoint
    torch.manual_seed(1234)
    resumed = train(again, tiny_data(), config, tmp_path / "run")
    assert same_weights(whole, again)
    assert resumed.losses == straight.losses and resumed.evaluations == straight.evaluations
    assert [e["step"] for e in read_log(tmp_path / "run")] == [e["step"] for e in straight.log]


SCRIPT = """
    import sys, torch
    sys.path.insert(0, {tests!r})
    torch.set_num_threads(1)
    from test_training_loop import settings, tiny_data, tiny_model
    from scratchbook.training import train
    model = tiny_model(seed=int(sys.argv[2]))
    train(model, tiny_data(), settings(max_steps=60, checkpoint_every=7, optimizer="muon"),
          sys.argv[1])
"""


def _start(folder, seed):
    code = textwrap.dedent(SCRIPT.format(tests=str(Path(__file__).parent)))
    return subprocess.Popen([sys.executable, "-c", code, str(folder), str(seed)],
                            stderr=subprocess.PIPE)


def test_a_run_killed_at_any_moment_ends_with_the_same_weights(tmp_path):
    reference = tiny_model()
    train(reference, tiny_data(), settings(max_steps=60, checkpoint_every=7, optimizer="muon"))
    run = tmp_path / "run"
    for kills in range(2):  # twice, at whatever line the process happens to be
        process = _start(run, seed=0)
        log, since = run / "log.jsonl", time.monotonic()
        wanted = 15 * (kills + 1)
        while time.monotonic() - since < 60:
            if log.is_file() and log.read_text(encoding="utf-8").count("\n") > wanted:
                break
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert checkpoints(run)
    last = _start(run, seed=99)
    assert last.wait(timeout=120) == 0, last.stderr.read()
    assert same_weights(open_run(run, "last").model, reference)


def test_the_log_of_a_kill_is_cut_to_the_checkpoint(tmp_path):
    config = settings()
    train(tiny_model(), tiny_data(), config, tmp_path, stop_after=6)
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 7, "loss": 1.0}\n{"step": 8, "lo')  # lost steps, half a line
    done = train(tiny_model(), tiny_data(), config, tmp_path)
    steps = [entry["step"] for entry in read_log(tmp_path) if "loss" in entry]
    assert steps == list(range(1, 13)) and len(done.losses) == 12


def ragged_batch():
    targets = torch.randint(23, (6, 8), generator=torch.Generator().manual_seed(1))
    for row, kept in enumerate([8, 1, 3, 8, 2, 5]):
        targets[row, kept:] = IGNORED
    return Batch(torch.randint(23, (6, 8), generator=torch.Generator().manual_seed(2)), targets)


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("micro_batches", [2, 3, 4, 6])
def test_micro_batches_give_the_whole_gradient(micro_batches):
    model = tiny_model(config=TINY.with_(dropout=0.0))
    accumulate(model, ragged_batch(), 1)
    whole = gradients(model)
    model.zero_grad()
    loss, counted = accumulate(model, ragged_batch(), micro_batches)
    assert counted == 27
    torch.testing.assert_close(gradients(model), whole, atol=1e-6, rtol=0)
    # and the usual mistake, the mean of the micro-batches' means, is another gradient
    model.zero_grad()
    rows = math.ceil(6 / micro_batches)
    for start in range(0, 6, rows):
        part = ragged_batch().part(start, start + rows)
        mean = nn.functional.cross_entropy(model(part.ids).flatten(0, 1), part.targets.flatten())
        (mean / math.ceil(6 / rows)).backward()
    assert (gradients(model) - whole).abs().max() > 1e-3


def test_a_batch_without_targets_is_refused():
    batch = ragged_batch()._replace(targets=torch.full((6, 8), IGNORED))
    with pytest.raises(ValueError, match="no target that counts"):
        accumulate(tiny_model(), batch)


def test_evaluation_weighs_tokens_not_batches():
    model, data = tiny_model(config=TINY.with_(dropout=0.0)), tiny_data()
    reference = evaluate(model, data, 1)
    for size in (5, 7, 100):  # ragged last batches
        assert evaluate(model, data, size) == pytest.approx(reference, abs=1e-6)


def test_evaluation_without_anything_held_out_is_refused():
    data = tiny_data()
    data.validation = lambda size: iter(())
    with pytest.raises(ValueError, match="validation data hold no target"):
        evaluate(tiny_model(), data, 4)


class MemoryThatEnds:
    """Fails whenever more than `rows` rows are read at once: as a full GPU, or really."""

    def __init__(self, model, rows, gpu=True):
        self.model, self.rows, self.failures, self.gpu = model, rows, 0, gpu

    def __call__(self, ids, mask=None):
        if len(ids) > self.rows:
            self.failures += 1
            if not self.gpu:
                torch.empty(2**55, dtype=torch.uint8)
            raise torch.OutOfMemoryError("injected")
        return self.model(ids)


@pytest.mark.parametrize("gpu", [True, False])
def test_out_of_memory_halves_the_part_and_goes_on(monkeypatch, tmp_path, gpu):
    config = settings(batch_size=8, max_steps=4, checkpoint_every=2)
    plain, starved = (tiny_model(config=TINY.with_(dropout=0.0)) for _ in range(2))
    train(plain, tiny_data(), config)
    made = []

    def compiled(model, options):
        made.append(MemoryThatEnds(model, 2, gpu))
        return made[-1]

    monkeypatch.setattr(torch, "compile", compiled)
    done = train(starved, tiny_data(), TrainConfig(**vars(config) | {"compile": True}), tmp_path)
    assert done.progress.micro_batches == 4 and made[0].failures == 2  # 8 rows, 4 rows, then 2 fit
    for one, other in zip(plain.parameters(), starved.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    state = json.loads((checkpoints(tmp_path)[-1] / "state.json").read_text(encoding="utf-8"))
    assert state["progress"]["micro_batches"] == 4  # a resumed run does not stumble again


def test_out_of_memory_with_one_row_is_an_error(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, options: MemoryThatEnds(model, 0))
    with pytest.raises(torch.OutOfMemoryError):
        train(tiny_model(), tiny_data(), settings(compile=True))



def test_a_loss_that_is_no_number_names_step_batch_and_checkpoint(tmp_path):
    model = tiny_model()

    def poison(step, model):
        if step == 8:
            model.token_embedding.weight.data[0, 0] = math.nan

    with pytest.raises(Diverged) as error:
        train(model, tiny_data(), settings(), tmp_path, on_step=poison)
    said = str(error.value)
    assert "step 9" in said and "data.batch(8, 4)" in said and "step_000006" in said
    assert "lr=0.01" in said
    rows = tiny_data().batch(8, 4).ids[0, :8].tolist()
    assert str(rows) in said
    assert all(torch.isfinite(p).all() for p in open_run(tmp_path, "last").model.parameters())
    assert read_log(tmp_path)[-1] == {"step": 9, "diverged": True}


def test_early_stopping_brings_back_the_best_weights(tmp_path):
    ids = torch.arange(300) % 23
    hidden = torch.randint(23, (100,), generator=torch.Generator().manual_seed(3))
    model, data = tiny_model(), Windows(ids, hidden, 8)
    done = train(model, data, settings(max_steps=400, eval_every=5, patience=3, lr=3e-2), tmp_path)
    assert done.stop_reason == "out of patience"
    assert done.progress.step == done.progress.best_step + 3 * 5 < 400
    assert evaluate(model, data, 4) == pytest.approx(done.progress.best_loss, abs=1e-6)


def test_a_folder_belongs_to_one_run(tmp_path):
    train(tiny_model(), tiny_data(), settings(), tmp_path, stop_after=3)
    with pytest.raises(ValueError, match="holds another run.*train.lr: 0.01 there, 0.5 here"):
        train(tiny_model(), tiny_data(), settings(lr=0.5), tmp_path)


def test_activation_checkpointing_changes_memory_and_nothing_else():
    config, batch = TINY.with_(dropout=0.0, num_layers=4), ragged_batch()
    model = tiny_model(config=config)

    def run():
        saved = 0

        def pack(tensor):
            nonlocal saved
            saved += tensor.numel()
            return tensor

        model.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss, _ = accumulate(model, batch)
        return loss, gradients(model), saved

    names = set(model.state_dict())
    loss, whole, kept = run()
    with activation_checkpointing(model):
        again, repeated, fewer = run()
        assert set(model.state_dict()) == names
    assert again == loss
    torch.testing.assert_close(repeated, whole, atol=1e-6, rtol=0)
    assert run()[2] == kept  # and it is over when the block is


def test_activation_checkpointing_keeps_fewer_activations():
    """What is still referenced between forward and backward, by the blocks' own outputs."""
    model = tiny_model(config=TINY.with_(dropout=0.0, num_layers=4))
    ids = ragged_batch().ids

    def kept():
        seen = {}
        with torch.autograd.graph.saved_tensors_hooks(
                lambda t: seen.setdefault(t.data_ptr(), t.numel()) and t, lambda t: t):
            model(ids)
        return sum(seen.values())

    plain = kept()
    with activation_checkpointing(model):
        assert kept() < plain / 3


def test_bf16_follows_fp32():
    config = TINY.with_(dropout=0.0, d_model=32)
    ids = torch.arange(300) ** 2 % 23  # something that can be learned
    data = Windows(ids[:250], ids[200:], 8)
    runs = {}
    for precision in ("fp32", "bf16"):
        model = tiny_model(config=config)
        runs[precision] = train(model, data, settings(max_steps=300, lr=3e-3,
                                                      precision=precision)).losses
        assert all(p.dtype == torch.float32 for p in model.parameters())
    ends = {name: sum(losses[-20:]) / 20 for name, losses in runs.items()}
    assert runs["fp32"] != runs["bf16"]
    assert sum(runs["bf16"]) == pytest.approx(sum(runs["fp32"]), rel=0.02)
    assert ends["fp32"] < 1.0


def test_fp16_scales_the_loss_and_skips_steps_that_overflow():
    done = train(tiny_model(), tiny_data(), settings(precision="fp16", max_steps=20))
    steps = [entry for entry in done.log if "loss_scale" in entry]
    assert len(steps) == 20 and math.isfinite(done.losses[-1])
    assert all(entry["skipped"] == (not math.isfinite(entry["grad_norm"])) for entry in steps)


def test_the_schedule_reaches_the_optimizer(monkeypatch):
    seen = []
    step = loop_module.build_optimizer

    def spied(*args, **options):
        optimizer = step(*args, **options)
        inner = optimizer.step
        optimizer.step = lambda: (seen.append([g["lr"] for g in optimizer.param_groups]), inner())
        return optimizer

    monkeypatch.setattr(loop_module, "build_optimizer", spied)
    train(tiny_model(), tiny_data(), settings(optimizer="muon", lr=0.02, adamw_lr=0.004,
                                              warmup_steps=3, schedule="linear"))
    assert seen[0][:2] == pytest.approx([0.005, 0.001])
    assert seen[3][:2] == pytest.approx([0.02, 0.004])
    assert seen[11][0] == pytest.approx(0.02 / 9)


def test_torch_compile_gives_the_same_losses():
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2))
    except Exception as error:
        pytest.skip(f"torch.compile does not work here: {str(error)[:80]}")
    config = TINY.with_(dropout=0.0)
    plain = train(tiny_model(config=config), tiny_data(), settings(max_steps=4)).losses
    fast = train(tiny_model(config=config), tiny_data(), settings(max_steps=4, compile=True)).losses
    assert fast == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize(("changes", "said"), [
    ({"max_steps": 0}, "max_steps=0 must be at least 1"),
    ({"lr": -1.0}, "lr=-1.0 must be a number above 0"),
    ({"lr": math.nan}, "lr=nan"),
    ({"grad_accum_steps": 99}, "cannot be cut into grad_accum_steps=99"),
    ({"schedule": "cosin"}, "schedule='cosin' is unknown; choose one of constant, cosine"),
    ({"precision": "fp8"}, "precision='fp8' is unknown"),
    ({"warmup_steps": 12}, "warmup_steps=12 is not within"),
    ({"patience": 0}, "patience=0 must be at least 1"),
    ({"max_grad_norm": 0.0}, "max_grad_norm=0.0 must be a number above 0"),
    ({"max_grad_norm": math.nan}, "max_grad_norm=nan"),
    ({"betas": (2.0, 3.0)}, "betas=(2.0, 3.0) must be two numbers"),
    ({"weight_decay": -0.1}, "weight_decay=-0.1 must be a number from 0"),
    ({"min_lr_ratio": 2.0}, "min_lr_ratio=2.0 is not within 0..1"),
    ({"cooldown_frac": -1.0}, "cooldown_frac=-1.0 is not within 0..1"),
    ({"seed": 10**13}, "seed=10000000000000 is too large"),
])
def test_settings_that_make_no_sense_are_named(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        settings(**changes)


def test_windows_are_a_function_of_seed_and_step():
    one, other = tiny_data(), tiny_data()
    other.batch(3, 4)
    assert torch.equal(one.batch(9, 4).ids, other.batch(9, 4).ids)
    assert not torch.equal(one.batch(9, 4).ids, one.batch(8, 4).ids)
    assert not torch.equal(one.batch(9, 4).ids, tiny_data(seed=1).batch(9, 4).ids)
    batch = one.batch(0, 4)
    assert torch.equal(batch.ids[:, 1:], batch.targets[:, :-1])
    only = Windows(torch.arange(9), torch.arange(9), 8).batch(0, 3)  # nine ids hold one window
    assert torch.equal(only.targets, torch.arange(1, 9).expand(3, 8))
    with pytest.raises(ValueError, match="validation_ids holds 5 ids"):
        Windows(torch.arange(50), torch.arange(5), 8)
    with pytest.raises(ValueError, match="seq_len=0: a window has at least 1 id"):
        Windows(torch.arange(50), torch.arange(5), 0)


def test_validation_reads_every_window_once():
    data = tiny_data()
    rows = torch.cat([batch.ids for batch in data.validation(5)])
    assert torch.equal(rows.flatten(), data.validation_ids[: rows.numel()])
    assert len(rows) == (100 - 1) // 8
