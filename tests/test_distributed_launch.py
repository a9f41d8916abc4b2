"""`scratchbook launch`: a run on several processes, one of which is killed, and the rest of it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from scratchbook.cli import main
from scratchbook.distributed.launching import is_launched, torchrun_options

STEPS, ROOT = 60, Path(__file__).resolve().parent.parent
SETTINGS = ["--model.num_layers", "1", "--model.d_model", "32", "--model.num_heads", "2",
            "--data.seq_len", "16", "--train.max_steps", str(STEPS), "--train.batch_size", "12",
            "--train.eval_every", "1000", "--train.checkpoint_every", "5", "--quiet"]


def command(folder: Path, text: Path) -> list[str]:
    return ["train", *SETTINGS, "--data.text", str(text), "--out", str(folder)]


def start(nproc: int, folder: Path, text: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "scratchbook", "launch", "--nproc", str(nproc),
         *command(folder, text)], env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE)


def test_a_killed_rank_ends_the_run_and_another_number_of_ranks_finishes_it(tmp_path, capsys):
    text, folder = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("".join(f"{n} and {n * n % 97} make {n + n * n % 97}\n" for n in range(600)))
    process = start(2, folder, text)
    until = time.monotonic() + 120
    while not (folder / "checkpoints" / "step_000010").exists() and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    first_rank = int(re.search(r"process (\d+)", (folder / "lock").read_text())[1])
    os.kill(first_rank, signal.SIGKILL)
    killed = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - killed < 20  # seconds; a busy machine included
    assert process.returncode == 2
    assert "rank 0 of 2 was ended by SIGKILL, and the others were stopped" in said
    assert "Traceback" not in said

    reached = max(int(path.name[5:]) for path in (folder / "checkpoints").glob("step_*"))
    assert 10 <= reached < STEPS
    again = start(3, folder, text)  # two ranks began, three go on
    out, said = again.communicate(timeout=180)
    assert again.returncode == 0, said
    assert out.count(f"finished at step {STEPS}") == 1  # one rank speaks for all
    steps = [entry["step"] for entry in map(json.loads, (folder / "log.jsonl").open())
             if "loss" in entry]
    assert steps == list(range(1, STEPS + 1))  # each once: the log was cut where it goes on

    whole = tmp_path / "whole"
    assert main(command(whole, text)) == 0  # one process, never stopped
    assert f"finished at step {STEPS}" in capsys.readouterr().out
    name = f"checkpoints/step_{STEPS:06d}/model.safetensors"
    found, expected = load_file(folder / name), load_file(whole / name)
    assert found.keys() == expected.keys()
    # float32, sums in another order, 60 steps of AdamW at 1e-3
    assert max(float((found[n] - expected[n]).abs().max()) for n in found) < 1e-3
    losses = [[entry["loss"] for entry in map(json.loads, (run / "log.jsonl").open())
               if "loss" in entry] for run in (folder, whole)]
    assert max(abs(a - b) for a, b in zip(*losses, strict=True)) < 1e-4
    assert losses[0][-1] < losses[0][0] - 0.5


def test_what_torchrun_is_told():
    assert torchrun_options(2) == ["--standalone", "--nproc-per-node", "2", "--max-restarts", "0"]
    told = " ".join(torchrun_options(8, 2, "first:29400", 3))
    assert "--nnodes 2" in told and "--rdzv-endpoint first:29400" in told
    assert "--max-restarts 3" in told and "--standalone" not in told
    with pytest.raises(ValueError, match="--rendezvous first-machine:29400"):
        torchrun_options(8, 2)
    with pytest.raises(ValueError, match="nproc=0"):
        torchrun_options(0)


def test_only_what_can_run_on_ranks_is_launched(capsys, monkeypatch):
    assert main(["launch", "--nproc", "2", "sample", "runs/first"]) == 2
    assert "launch runs train, not 'sample'" in capsys.readouterr().err
    assert main(["launch", "--nproc", "2"]) == 2
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert not is_launched()
