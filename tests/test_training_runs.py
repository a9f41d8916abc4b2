"""A run's folder: one process, one data set, one tokenizer; checkpoints that stay what they are."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_training_loop import same_weights, settings, tiny_data, tiny_model
from torch import nn

from scratchbook.data.batches import Windows
from scratchbook.tokenizers import CharTokenizer
from scratchbook.training import (
    ByteTokenizer,
    evaluate,
    open_run,
    read_log,
    train,
)
from scratchbook.training import checkpoint as checkpoint_module
from scratchbook.training import runs as runs_module
from scratchbook.training.checkpoint import (
    checkpoints,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)
from scratchbook.training.optim import build_optimizer


def other_data():
    ids = torch.randint(23, (400,), generator=torch.Generator().manual_seed(8))
    return Windows(ids[:300], ids[300:], 8)


def saved(run, *steps, keep_last=9):
    """Checkpoints of these steps, written in this order."""
    model = tiny_model()
    optimizer = build_optimizer(model)
    for step in steps:
        save_checkpoint(run, step, model, optimizer, {"progress": {}, "scaler": None}, keep_last)
    return model, optimizer


def test_a_run_goes_on_with_its_own_data_alone(tmp_path):
    train(tiny_model(), tiny_data(), settings(), tmp_path, stop_after=3)
    with pytest.raises(ValueError, match="the text, its tokenizer or the length"):
        train(tiny_model(), other_data(), settings(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del config["data"]  # as older runs have it: nothing to compare with
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="holds another run"):
        train(tiny_model(), tiny_data(), settings(), tmp_path)


def test_a_refused_run_keeps_its_tokenizer(tmp_path):
    first, second = (CharTokenizer().train(text) for text in ("abc", "xyz"))
    train(tiny_model(), tiny_data(), settings(), tmp_path, stop_after=3, tokenizer=first)
    before = (tmp_path / "tokenizer.json").read_bytes()
    with pytest.raises(ValueError, match="holds another run"):
        train(tiny_model(), other_data(), settings(), tmp_path, tokenizer=second)
    assert (tmp_path / "tokenizer.json").read_bytes() == before
    assert open_run(tmp_path).tokenizer.decode(first.encode("cab")) == "cab"


def test_bytes_leave_no_tokenizer_of_an_earlier_try(tmp_path):
    train(tiny_model(), tiny_data(), settings(), tmp_path, stop_after=0)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    train(tiny_model(), tiny_data(), settings(), tmp_path, stop_after=3, tokenizer=ByteTokenizer())
    assert not (tmp_path / "tokenizer.json").exists()
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["tokenizer"] == "bytes"


HOLDER = """
import sys, time
from pathlib import Path
from scratchbook.training.runs import taken
with taken(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)],
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_has_one_process_and_a_dead_one_holds_nobody_up(tmp_path, holder):
    with pytest.raises(ValueError, match=f"in use: process {holder.pid} on .* trains there"):
        train(tiny_model(), tiny_data(), settings(), tmp_path)
    assert runs_module.is_training(tmp_path)
    holder.kill()
    holder.wait()
    assert not runs_module.is_training(tmp_path)
    assert train(tiny_model(), tiny_data(), settings(), tmp_path).stop_reason == "finished"


@pytest.mark.parametrize("content", ["", "5", "{}", '{"pid": "x"}', "\0\0", None])
def test_a_lock_that_nobody_holds_is_no_lock(tmp_path, content):
    # None: the number of a process that lives, but does not train (numbers are given out again)
    content = json.dumps({"pid": os.getppid(), "host": "here"}) if content is None else content
    (tmp_path / "lock").write_text(content, encoding="utf-8")
    assert not runs_module.is_training(tmp_path)
    assert train(tiny_model(), tiny_data(), settings(), tmp_path).stop_reason == "finished"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}', '{"train": 1, "model": 2}'])
def test_a_config_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="config.json is not that of a run"):
        train(tiny_model(), tiny_data(), settings(), tmp_path)
    with pytest.raises(ValueError, match="config.json is not that of a run"):
        open_run(tmp_path)


def test_steps_are_ordered_as_numbers(tmp_path):
    model, optimizer = saved(tmp_path, 999_999, 1_000_000, keep_last=1)
    (tmp_path / "checkpoints" / "step_000001 (copy)").mkdir()
    assert [folder.name for folder in checkpoints(tmp_path)] == ["step_1000000"]
    assert load_newest(tmp_path, model, optimizer)["step"] == 1_000_000


def test_damaged_checkpoints_never_push_out_what_was_just_saved(tmp_path):
    config = settings(keep_last=2)
    train(tiny_model(), tiny_data(), config, tmp_path, stop_after=6)
    model, optimizer = saved(tmp_path, 9, 12, keep_last=3)
    for folder in checkpoints(tmp_path)[-2:]:
        (folder / "model.safetensors").write_bytes(b"")
    save_checkpoint(tmp_path, 8, model, optimizer, {"progress": {}, "scaler": None}, 1)
    assert "step_000008" in [folder.name for folder in checkpoints(tmp_path)]
    with pytest.warns(UserWarning, match="going on from step_000008"):
        assert load_newest(tmp_path, model, optimizer)["step"] == 8


def test_saving_a_step_again_never_leaves_it_without_one(tmp_path, monkeypatch):
    model, optimizer = saved(tmp_path, 3)

    def killed(path, *args, **options):
        if path.name == "step_000003" or ".partial" in path.name:
            raise SystemError("killed here")  # nothing catches it, as nothing catches kill -9

    (tmp_path / "checkpoints" / "step_000003" / "model.safetensors").touch()
    monkeypatch.setattr(checkpoint_module.shutil, "rmtree", killed)
    monkeypatch.setattr(checkpoint_module.Path, "rename", killed)
    with pytest.raises(SystemError):
        save_checkpoint(tmp_path, 3, model, optimizer, {"progress": {}, "scaler": None})
    monkeypatch.undo()
    assert load_newest(tmp_path, model, optimizer)["step"] == 3


def test_stopping_where_a_checkpoint_stands_does_not_write_it_again(tmp_path):
    train(tiny_model(), tiny_data(), settings(), tmp_path, stop_after=3)
    before = (checkpoints(tmp_path)[-1] / "state.json").stat().st_mtime_ns
    train(tiny_model(), tiny_data(), settings(), tmp_path, stop_after=2)
    assert [folder.name for folder in checkpoints(tmp_path)] == ["step_000003"]
    assert (checkpoints(tmp_path)[-1] / "state.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"sha256": 5}', "7"])
def test_a_state_that_is_json_but_no_state_is_passed_over(tmp_path, content):
    model, optimizer = saved(tmp_path, 3, 6)
    (checkpoints(tmp_path)[-1] / "state.json").write_text(content, encoding="utf-8")
    with pytest.warns(UserWarning, match="step_000006.*going on from step_000003"):
        assert load_newest(tmp_path, model, optimizer)["step"] == 3


def test_a_kill_between_checkpoint_and_its_mark_forgets_no_best(tmp_path, monkeypatch):
    config = settings(eval_every=3, checkpoint_every=100)

    def killed(*args):
        raise SystemError("killed here")

    with monkeypatch.context() as patch, pytest.raises(SystemError):
        patch.setattr("scratchbook.training.loop.mark_best", killed)
        train(tiny_model(), tiny_data(), config, tmp_path)
    assert not (tmp_path / "best").exists()
    train(tiny_model(), tiny_data(), config, tmp_path, stop_after=4)
    assert (tmp_path / "best").read_text(encoding="utf-8") == "step_000003"


def overfitting():
    ids = torch.arange(300) % 23
    hidden = torch.randint(23, (100,), generator=torch.Generator().manual_seed(3))
    return Windows(ids, hidden, 8)


def test_patience_brings_back_the_best_weights_after_a_break_too(tmp_path):
    config = settings(max_steps=400, eval_every=5, patience=3, lr=3e-2)
    straight, model = tiny_model(), tiny_model()
    done = train(straight, overfitting(), config, tmp_path / "straight")
    stop = done.progress.best_step + 7  # the best lies behind
    train(tiny_model(), overfitting(), config, tmp_path / "broken", stop_after=stop)
    again = train(model, overfitting(), config, tmp_path / "broken")
    assert again.stop_reason == done.stop_reason == "out of patience"
    assert same_weights(model, straight)
    assert evaluate(model, overfitting(), 4) == pytest.approx(done.progress.best_loss, abs=1e-6)


def test_a_run_of_a_model_without_config_cannot_be_opened_by_itself(tmp_path):
    model = nn.Sequential(nn.Embedding(23, 8), nn.Linear(8, 23))
    train(model, tiny_data(), settings(), tmp_path)
    with pytest.raises(ValueError, match="a model without a config"):
        open_run(tmp_path)
    load_checkpoint(checkpoints(tmp_path)[-1], model)


def test_stopping_before_the_first_step(tmp_path):
    assert train(tiny_model(), tiny_data(), settings(), stop_after=0).progress.step == 0


def test_a_broken_line_costs_that_line_alone(tmp_path):
    lines = ['{"step": 1, "loss": 3.0}', '{"step": 2, "lo', "5", "null", '{"no": 1}', "\0\0\0",
             '{"step": 3, "loss": 2.0}']
    (tmp_path / "log.jsonl").write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n")
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 3]


def test_evaluation_reads_no_more_rows_at_once_than_a_training_part():
    sizes = []

    class Watched(Windows):
        def validation(self, size):
            sizes.append(size)
            return super().validation(size)

    data = Watched(tiny_data().train_ids, tiny_data().validation_ids, 8)
    train(tiny_model(), data, settings(batch_size=7, grad_accum_steps=3))
    assert set(sizes) == {3}


SLOW = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.path.insert(0, "{tests}")
from test_training_loop import settings, tiny_data, tiny_model
from scratchbook.training import train
train(tiny_model(), tiny_data(), settings(max_steps=10**6, eval_every=10**6,
      checkpoint_every=10**6), sys.argv[1])
"""


def test_ctrl_c_saves_the_step_it_stands_at(tmp_path):
    code = SLOW.format(tests=Path(__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)],
                               stderr=subprocess.PIPE)
    log, since = tmp_path / "log.jsonl", time.monotonic()
    while not (log.is_file() and log.read_text(encoding="utf-8").count("\n") > 20):
        assert process.poll() is None and time.monotonic() - since < 60
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    finally:
        process.kill()
    assert b"KeyboardInterrupt" in process.stderr.read()
    (folder,) = checkpoints(tmp_path)
    assert json.loads((folder / "state.json").read_text(encoding="utf-8"))["step"] > 20
    assert not list((tmp_path / "checkpoints").glob(".*"))
