"""What lies on the disk survives a full one, damage, and its own clearing away."""

import json

import pytest
import torch

from scratchbook.data.batches import Windows
from scratchbook.runtime import RENAMED
from scratchbook.training import CheckpointError, open_run, train
from scratchbook.training import checkpoint as checkpoint_module
from scratchbook.training.checkpoint import checkpoints, join_state, split_state
from tests.test_training_loop import same_weights, settings, tiny_data, tiny_model


def test_a_full_disk_loses_nothing_that_was_saved(tmp_path, monkeypatch):
    config = settings()
    train(tiny_model(), tiny_data(), config, tmp_path, stop_after=3)
    kept = open_run(tmp_path, "last").model

    def full(tensors, path):
        path.write_bytes(b"x" * 100)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "save_file", full)
        with pytest.raises(CheckpointError, match="No space left.*goes on from step_000003"):
            train(tiny_model(), tiny_data(), config, tmp_path)
    assert [folder.name for folder in checkpoints(tmp_path)] == ["step_000003"]
    assert not list((tmp_path / "checkpoints").glob(".*partial"))
    assert same_weights(open_run(tmp_path, "last").model, kept)
    resumed, straight = tiny_model(), tiny_model()
    train(resumed, tiny_data(), config, tmp_path)  # space again: on it goes
    train(straight, tiny_data(), config)
    assert same_weights(resumed, straight)


@pytest.mark.parametrize("damage", ["cut", "flipped", "no state", "half a state"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    config = settings()
    train(tiny_model(), tiny_data(), config, tmp_path, stop_after=9)
    newest = checkpoints(tmp_path)[-1]
    file = newest / ("model.safetensors" if damage in ("cut", "flipped") else "state.json")
    content = file.read_bytes()
    if damage == "flipped":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "no state":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2])
    resumed, straight = tiny_model(), tiny_model()
    with pytest.warns(UserWarning, match="step_000009.*going on from step_000006"):
        train(resumed, tiny_data(), config, tmp_path)
    train(straight, tiny_data(), config)
    assert same_weights(resumed, straight)


def test_when_every_checkpoint_is_damaged_nothing_is_overwritten(tmp_path):
    train(tiny_model(), tiny_data(), settings(), tmp_path, stop_after=3)
    for folder in checkpoints(tmp_path):
        (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint .* can be read"):
        train(tiny_model(), tiny_data(), settings(), tmp_path)
    assert checkpoints(tmp_path)


def test_the_best_checkpoint_and_the_last_ones_stay(tmp_path):
    ids = torch.arange(300) % 23
    hidden = torch.randint(23, (100,), generator=torch.Generator().manual_seed(3))
    data = Windows(ids, hidden, 8)  # what is learned does not hold: validation gets worse
    done = train(tiny_model(), data, settings(max_steps=60, checkpoint_every=5, eval_every=5,
                                              keep_last=2, lr=3e-2), tmp_path)
    names = [folder.name for folder in checkpoints(tmp_path)]
    best = (tmp_path / "best").read_text(encoding="utf-8")
    assert best == f"step_{done.progress.best_step:06d}" and best in names
    assert names[-2:] == ["step_000055", "step_000060"] and len(names) <= 3
    assert open_run(tmp_path).step == done.progress.best_step
    assert open_run(tmp_path, "last").step == 60


def test_any_optimizer_state_survives_the_files():
    state = {"state": {0: {"exp_avg": torch.ones(2), "adam": {"step": 3}}, 7: {}},
             "param_groups": [{"betas": (0.9, 0.95), "params": [0, 7], "lr": 0.1, "name": None}]}
    tensors, rest = split_state(state)
    back = join_state(tensors, json.loads(json.dumps(rest)))
    assert str(back) == str(state) and list(back["state"]) == [0, 7]


def test_a_run_written_under_older_names_goes_on(tmp_path):
    config = settings(optimizer="muon", lr=0.01)
    train(tiny_model(), tiny_data(), config, tmp_path, stop_after=6)
    older = {new: old for old, new in RENAMED.items() if old != "sink"}
    for file in [tmp_path / "config.json", *tmp_path.glob("checkpoints/*/state.json")]:
        text = file.read_text(encoding="utf-8")
        for new, old in older.items():
            text = text.replace(f'"{new}"', f'"{old}"').replace(f'"str:{new}"', f'"str:{old}"')
        file.write_text(text, encoding="utf-8")
    assert '"str:square"' in text and '"parts"' in text
    resumed, straight = tiny_model(), tiny_model()
    train(resumed, tiny_data(), config, tmp_path)
    train(straight, tiny_data(), config)
    assert same_weights(resumed, straight)
