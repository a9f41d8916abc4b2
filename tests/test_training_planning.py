"""What a run costs, before it starts: by hand, by the loop's log, by the memory table."""

import pytest
import torch

from scratchbook.cli import main
from scratchbook.config import PRESETS, ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.training.memory import state_numbers, training_bytes
from scratchbook.training.optim import RULES, build_optimizer, state_bytes
from scratchbook.training.planning import (
    largest_batch,
    measured_speed,
    plan,
    training_flops_per_token,
)
from scratchbook.training.recipes import RECIPES, DataConfig, Recipe
from scratchbook.training.settings import TrainConfig

SMALL = Recipe(ModelConfig(256, max_seq_len=64, num_layers=1, d_model=16, num_heads=2),
               DataConfig(seq_len=8), TrainConfig(max_steps=10, batch_size=4))


def test_a_matrix_costs_six_operations_for_each_number():
    config = ModelConfig(vocab_size=1000, max_seq_len=64, num_layers=3, d_model=64, num_heads=4,
                         feedforward="gelu")
    matrices = 3 * (4 * 64 * 64 + 2 * 64 * config.d_ff) + 1000 * 64  # the last is the head
    scores = 3 * 3 * 4 * 32 * 64  # 3 layers, 3 passes, queries by keys and weights by values, x 2
    assert training_flops_per_token(config, 32) == 6 * matrices + scores


def test_a_plan_counts_what_the_run_will_read():
    found = plan(RECIPES["code-27m"])
    assert found.parameters == 27_262_976 and found.tokens == 20_000 * 8 * 128
    assert 5 < found.flops / found.tokens / found.parameters < 7  # the table is only looked up
    assert found.hours(found.flops / 7200) == pytest.approx(2)


@pytest.mark.parametrize(("name", "size", "options"), [
    ("mini-27m", 4e9, {}), ("mini-27m", 4e9, {"activation_checkpointing": True}),
    ("gpt2", 12e9, {}),
    ("char-513k", 5e8, {"precision": "bf16", "optimizer": "muon"})])
def test_the_largest_batch_fills_the_memory_and_no_more(name, size, options):
    config, seq_len = PRESETS[name], 128
    rows = largest_batch(config, seq_len, int(size), **options)
    used = [sum(training_bytes(config, n, seq_len, **options).values()) for n in (rows, rows + 1)]
    assert 0.9 * size <= used[0] <= size < used[1]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("sizes", [
    {"feedforward": "gelu"}, {"norm": "layer", "bias": "all", "positions": "learned"},
    {"latent_dim": 5, "tie_embeddings": True}])
def test_the_memory_of_every_optimizer_is_what_it_takes(name, sizes, capsys):
    config = ModelConfig(40, max_seq_len=16, num_layers=2, d_model=36, num_heads=3, **sizes)
    torch.manual_seed(0)
    model = DecoderLM(config)
    optimizer = build_optimizer(model, name)
    model(torch.zeros(1, 16, dtype=torch.long)).square().sum().backward()
    optimizer.step()
    assert 4 * state_numbers(config, name) == state_bytes(optimizer)
    assert main(["cost", "--train.optimizer", name, "--no-measure"]) == 0
    assert "optimizer " in capsys.readouterr().out


def test_nothing_fits_into_nothing():
    assert largest_batch(PRESETS["gpt2"], 1024, 10**9) == 0


def test_speed_is_that_of_the_loop():
    speed = measured_speed(SMALL)
    assert 100 < speed < 1e7


def test_the_command_counts_measures_and_computes(capsys):
    assert main(["cost", "--preset", "code-27m", "--no-measure", "--speed", "1", "--speed", "10",
                 "--rate", "0.5", "--memory", "4"]) == 0
    printed = capsys.readouterr().out
    assert "27,262,976 parameters, 20,000 steps of 8 x 128 tokens: 20,480,000 tokens" in printed
    assert "here  " not in printed and "rows would fit into 4 GB" in printed
    hours = plan(RECIPES["code-27m"]).hours(1e12)
    assert f"{60 * hours:.1f} minutes, ${hours / 2:.2f} at 1 TFLOP/s" in printed
    assert f"{6 * hours:.1f} minutes, ${hours / 20:.2f} at 10 TFLOP/s" in printed
    assert main(["cost", "--model.num_layers", "1", "--model.d_model", "16", "--model.num_heads",
                 "2", "--data.seq_len", "8", "--train.max_steps", "9"]) == 0
    assert "seconds of a processor, measured in three" in capsys.readouterr().out


def test_twice_the_steps_cost_twice(capsys):
    found = []
    for steps in ("20000", "40000"):
        main(["cost", "--preset", "code-27m", "--no-measure", "--train.max_steps", steps])
        found.append(float(capsys.readouterr().out.split("operations")[1].split(",")[0]))
    assert found[1] == pytest.approx(2 * found[0], rel=0.01)


@pytest.mark.parametrize(("words", "said"), [
    (["--preset", "gpt9"], "known are nanogpt"), (["--speed", "0"], "above 0"),
    (["--train.optimizer", "adam"], "choose one of adamw")])
def test_mistakes(words, said, capsys):
    assert main(["cost", "--no-measure", *words]) == 2
    assert said in capsys.readouterr().err
