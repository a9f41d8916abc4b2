"""The recipes of the Smalltalk models: sizes as asked for, what they cost, how they train."""

from dataclasses import replace

import pytest
import torch

from scratchbook.accounting import total_parameters
from scratchbook.cli.smalltalk_model_commands import gpu_lines, print_cost
from scratchbook.data.batches import Batch
from scratchbook.model import DecoderLM
from scratchbook.smalltalk_model import RECIPES, load_tokenizer, predicted_hours
from scratchbook.training import planning
from scratchbook.training.loop import accumulate, activation_checkpointing
from scratchbook.training.memory import training_bytes
from scratchbook.training.planning import plan

LARGE = ("23m", "89m")
EPOCH = 19_100_000  # about the tokens of the prepared corpus
SPEED = 0.4 * 2 * 12.7e12  # of an RTX 3060


def recipe(name):
    return RECIPES[name].with_vocabulary(load_tokenizer().vocab_size)


@pytest.mark.parametrize("name", LARGE)
def test_the_asked_for_sizes(name):
    config = recipe(name).model
    assert 6 <= config.num_layers <= 12 and 512 <= config.d_model <= 768
    assert 8 <= config.num_heads <= 12 and config.head_dim * config.num_heads == config.d_model
    assert config.d_ff == 2.5 * config.d_model and total_parameters(config) < 100e6
    assert config.positions == "rope" and config.tie_embeddings
    assert recipe(name).train.precision == "bf16" and recipe(name).train.activation_checkpointing


def test_the_small_one_is_small_in_the_same_proportions():
    small, large = recipe("small").model, recipe("89m").model
    assert small.d_ff / small.d_model == large.d_ff / large.d_model
    assert total_parameters(small) < 8e6 and small.feedforward == large.feedforward
    assert {r.model.vocab_size for r in map(recipe, RECIPES)} == {10_240}


@pytest.mark.parametrize("name", LARGE)
def test_a_gpu_of_8_gigabytes_trains_it_in_a_day_and_an_epoch_in_two_hours(name):
    [line] = gpu_lines(recipe(name), EPOCH)
    size = sum(plan(recipe(name)).memory.values())
    assert f"RTX 3060: {size / 1e9:.1f} GB for a step (fits in 8 GB, fits in 12 GB), " in line
    whole, epoch = (predicted_hours(recipe(name), SPEED, tokens) for tokens in (None, EPOCH))
    assert whole < 24 and epoch < 2
    assert epoch == pytest.approx(whole * EPOCH / plan(recipe(name)).tokens)
    unit = f"{whole:.1f} hours" if whole >= 1 else f"{60 * whole:.0f} minutes"
    assert f"), {unit}, {60 * epoch:.0f} minutes an epoch, computed for 10 TFLOP/s" in line


def test_running_a_block_again_costs_a_third_more():
    plain = recipe("23m")
    plain = replace(plain, train=replace(plain.train, activation_checkpointing=False))
    assert predicted_hours(recipe("23m"), 1e12) == pytest.approx(
        4 / 3 * predicted_hours(plain, 1e12))


def test_what_is_too_large_is_said():
    config = recipe("89m")
    for rows, said in ((8, "fits in 8 GB, fits in 12 GB"),
                       (128, "does not fit in 8 GB, fits in 12 GB"),
                       (256, "does not fit in 8 GB, does not fit in 12 GB")):
        train = replace(config.train, batch_size=rows, grad_accum_steps=1)
        size = sum(training_bytes(config.model, rows, 512, "muon", "bf16",
                                  activation_checkpointing=True).values())
        assert f"{size / 1e9:.1f} GB for a step ({said})" in gpu_lines(
            replace(config, train=train), EPOCH)[0]


@pytest.mark.parametrize(("name", "rows"), [("small", 16), ("23m", 8), ("89m", 8)])
def test_few_rows_are_timed_here_and_their_speed_is_told(monkeypatch, capsys, name, rows):
    timed = []
    monkeypatch.setattr(planning, "measured_speed", lambda found: timed.append(found) or 1_000.0)
    print_cost(recipe(name), EPOCH)
    assert [(each.train.batch_size, each.train.grad_accum_steps) for each in timed] == [(rows, 1)]
    said, found = capsys.readouterr().out, plan(recipe(name))
    assert f"here: {found.tokens / 3.6e6:,.1f} hours of a processor, 5.3 hours an epoch, " in said
    assert f"measured in three steps of {rows} rows\nRTX 3060: " in said
    assert f"about 19.1 million tokens: it is read {found.tokens / EPOCH:.1f} times" in said


@pytest.mark.parametrize("name", RECIPES)
def test_activation_checkpointing_changes_no_gradient(name):
    """The recipe's block, narrower: both ways to run it agree within rounding."""
    config = RECIPES[name].model.with_(num_layers=3, d_model=64, num_heads=4, num_kv_heads=None,
                                       head_dim=None, d_ff=160, vocab_size=50)
    torch.manual_seed(0)
    model = DecoderLM(config)
    ids = torch.randint(50, (2, 33))
    batch = Batch(ids[:, :-1], ids[:, 1:], None)

    def gradients():
        model.zero_grad()
        loss, _ = accumulate(model, batch)
        return [loss, *(parameter.grad.clone() for parameter in model.parameters())]

    whole = gradients()
    with activation_checkpointing(model):
        again = gradients()
    assert again[0] == whole[0]
    torch.testing.assert_close(again[1:], whole[1:], atol=1e-6, rtol=0)
    assert all(each.abs().max() > 0 for each in whole[1:])
