"""The commands around training, their files, the loggers, sweeps and the memory table."""

import json
import math
import re
import time

import pytest
import torch

from scratchbook import cli
from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.training import TensorBoardLogger, TrainConfig, WandbLogger, open_run, read_log
from scratchbook.training.memory import activation_numbers, training_bytes
from scratchbook.training.recipes import RECIPES, DataConfig, Recipe, load_recipe, read_text
from scratchbook.training.sweeps import recipe_objective, sweep

SMALL = ["--model.num_layers", "1", "--model.d_model", "16", "--model.num_heads", "2",
         "--train.max_steps", "6", "--train.batch_size", "2", "--train.eval_every", "3",
         "--data.seq_len", "8"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat. " * 60, encoding="utf-8")
    return path


def start(text, out, *more):
    return cli.main(["train", "--quiet", "--out", str(out), "--data.text", str(text), *SMALL,
                     *more])


def test_train_from_the_command_line_and_open_the_run(text, tmp_path, capsys):
    assert start(text, tmp_path / "run", "--data.tokenizer", "char") == 0
    assert "finished at step 6: best validation loss" in capsys.readouterr().out
    run = open_run(tmp_path / "run")
    assert run.tokenizer.decode(run.tokenizer.encode("the cat")) == "the cat"
    assert run.model.config.vocab_size == run.tokenizer.vocab_size
    assert run.config["train"]["max_steps"] == 6 and run.step in (3, 6)
    assert start(text, tmp_path / "run", "--data.tokenizer", "char") == 0  # done already


def test_a_yaml_file_and_options_that_win_over_it(text, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("train:\n  lr: 3e-4\n  betas: [0.9, 0.99]\nmodel:\n  d_model: 64\n"
                    "  num_heads: 2\n  rope:\n    base: 500\n", encoding="utf-8")
    recipe = load_recipe(["--config", str(file), "--train.max_steps", "7"])
    assert recipe.train.lr == 3e-4 and recipe.train.betas == (0.9, 0.99)
    assert recipe.train.max_steps == 7 and recipe.model.rope.base == 500
    assert recipe.model.num_kv_heads == 2 and recipe.model.head_dim == 32  # they followed


@pytest.mark.parametrize(("arguments", "said"), [
    (["--train.lr", "fast"], "train.lr"), (["--train.rate", "1"], "train.rate"),
    (["--config", "nowhere.yaml"], "nowhere.yaml"), (["--preset", "gpt9"], "known are nanogpt"),
    (["--data.text", "no such text"], "is no file and no known name"),
    (["--model.num_heads", "3"], "num_heads=3"), (["--train.schedule", "x"], "schedule='x'"),
])
def test_mistakes_end_in_one_clear_line(arguments, said, tmp_path, capsys):
    assert cli.main(["train", "--quiet", "--out", str(tmp_path / "run"), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_options_of_recipes_belong_to_train_alone(capsys):
    with pytest.raises(SystemExit):
        cli.main(["status", "--train.lr", "1"])
    assert "unrecognized arguments: --train.lr" in capsys.readouterr().err


def test_monitor_status_and_plot(text, tmp_path, capsys):
    start(text, tmp_path / "run")
    capsys.readouterr()
    assert cli.main(["monitor", str(tmp_path / "run"), "--once"]) == 0
    assert capsys.readouterr().out.count("Step ") == 8  # six steps, two evaluations
    assert cli.main(["monitor", str(tmp_path / "run"), "--summary"]) == 0
    assert "finished, step 6 of 6" in capsys.readouterr().out
    assert cli.main(["status", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "finished"
    assert cli.main(["plot", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "losses.png").stat().st_size > 5_000
    assert cli.main(["monitor", str(tmp_path)]) == 2
    assert cli.main(["status", str(tmp_path / "nothing")]) == 0


def test_a_sweep_from_a_file(text, tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    file.write_text("space: {train.lr: [0.0001, 0.03]}\nsampler: grid\n", encoding="utf-8")
    assert cli.main(["sweep", str(file), "--data.text", str(text), *SMALL]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "train.lr = 0.03" in first and "train.lr = 0.0001" in second
    file.write_text("spaces: {}\n", encoding="utf-8")
    assert cli.main(["sweep", str(file)]) == 2
    assert "has no `space`" in capsys.readouterr().err


def swept(plan, tmp_path, text):
    (tmp_path / "sweep.yaml").write_text(plan, encoding="utf-8")
    return cli.main(["sweep", str(tmp_path / "sweep.yaml"), "--data.text", str(text), *SMALL])


def test_the_range_of_the_help_is_read_as_numbers(text, tmp_path, capsys):
    plan = "space: {train.lr: {low: 1e-4, high: 1e-1, log: true}}\ntrials: 2\n"
    assert swept(plan, tmp_path, text) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_sweep_outlives_trials_that_diverge(text, tmp_path, capfd):
    plan = "space: {train.lr: [1.0e+30, 0.003], train.max_grad_norm: [null]}\nsampler: grid\n"
    assert swept(plan, tmp_path, text) == 0
    out, error = capfd.readouterr()
    assert out.count("train.lr") == 1 and "train.lr = 0.003" in out and "Traceback" not in error
    assert swept("space: {train.lr: [1.0e+30]}\nsampler: grid\n", tmp_path, text) == 1
    assert "no trial came to its end" in capfd.readouterr().out


@pytest.mark.parametrize(("plan", "said"), [
    ("space: {}", "is empty"), ("space: {train.lr: 0.1}", "train.lr: 0.1 is neither a list"),
    ("space: {train.lr: {low: 0.1}}", "is neither a list"), ("space: {train.lr: []}", "neither"),
    ("space: {train.lr: {low: 1, high: 2, step: x}}", "neither"),
    ("space: {train.lr: [1]}\ntrials: ten", "trials='ten' must be"),
    ("space: {train.rate: [1]}", "train.rate"), ("space: {train.lr: [fast]}", "train.lr"),
])
def test_mistakes_in_a_sweep_end_in_one_clear_line(plan, said, text, tmp_path, capfd):
    assert swept(plan, tmp_path, text) == 2
    error = capfd.readouterr().err
    assert said in error and "Traceback" not in error


def test_the_trials_of_a_sweep_read_their_text_once(text, monkeypatch):
    reads = []
    monkeypatch.setattr("scratchbook.training.recipes.read_text",
                        lambda name: reads.append(name) or text.read_text(encoding="utf-8"))
    base = load_recipe([*SMALL, "--data.text", str(text)])
    sweep(recipe_objective(base), {"train.lr": [0.01, 0.02, 0.03]}, sampler="grid")
    assert len(reads) == 1


def test_status_lists_what_it_can_and_names_what_it_cannot(text, tmp_path, capsys):
    start(text, tmp_path / "good")
    for name, content in (("cut", '{"model": '), ("foreign", '{"x": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content, encoding="utf-8")
        (tmp_path / name / "log.jsonl").write_text("5\n", encoding="utf-8")
    capsys.readouterr()
    assert cli.main(["status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "good: finished, step 6 of 6" in out and out.count("unreadable: ") == 2
    assert cli.main(["status", str(tmp_path), "--json"]) == 0
    states = [run["state"] for run in json.loads(capsys.readouterr().out)]
    assert sorted(states) == ["finished", "unreadable", "unreadable"]
    for action in (["monitor", "--once"], ["monitor", "--summary"], ["plot"]):
        assert cli.main([*action[:1], str(tmp_path / "foreign"), *action[1:]]) in (0, 2)
    assert cli.main(["plot", str(tmp_path / "foreign")]) == 2
    assert "no training step yet" in capsys.readouterr().err


def test_a_run_that_diverged_is_shown_as_such(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert start(text, out, "--train.lr", "1e30", "--logger", "tensorboard") == 2
    said = re.search(r"step (\d): the loss or its gradient is nan", capsys.readouterr().err)
    assert cli.main(["monitor", str(out), "--summary"]) == 0
    shown = capsys.readouterr().out
    assert "diverged: " in shown and "nothing is wrong" not in shown
    assert cli.main(["monitor", str(out)]) == 0
    assert f"Step {said[1]}: the loss or its gradient is NaN or inf" in capsys.readouterr().out


def test_a_second_text_leaves_the_first_run_as_it_was(text, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("THE DOG LAY BY THE LOG; " * 60, encoding="utf-8")
    assert start(text, tmp_path / "run", "--data.tokenizer", "char") == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert start(other, tmp_path / "run", "--data.tokenizer", "char") == 2
    assert "holds another run" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_sweeps_find_a_planted_optimum():
    def objective(trial, values):
        return (math.log10(values["lr"]) + 2.5) ** 2 + (values["width"] - 64) ** 2 / 1e4

    space = {"lr": {"low": 1e-5, "high": 1.0, "log": True}, "width": [32, 64, 128]}
    found = sweep(objective, space, trials=60, sampler="tpe")
    values, best = found[0]
    # 60 draws of a line 5 wide: the chance that none falls within 0.4 of it is under 1 in 20,000
    assert values["width"] == 64 and abs(math.log10(values["lr"]) + 2.5) < 0.4
    assert best == min(value for _, value in found)
    with pytest.raises(ValueError, match="a grid needs lists; lr is a range"):
        sweep(objective, space, sampler="grid")


def test_halving_ends_hopeless_trials_early():
    import optuna

    steps = []

    def objective(trial, values):
        for step in range(1, 33):
            trial.report(values["level"] + 1 / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        steps.append(values["level"])
        return values["level"]

    found = sweep(objective, {"level": {"low": 0.0, "high": 1.0}}, trials=30, halving=True)
    assert 0 < len(steps) < 20 and found[0][1] == min(steps)


def logged(loggers):
    ids = torch.arange(400) % 23
    from scratchbook.data.batches import Windows
    from scratchbook.training import train

    torch.manual_seed(0)
    model = DecoderLM(ModelConfig(vocab_size=23, num_layers=1, d_model=16, num_heads=2))
    return train(model, Windows(ids[:300], ids[300:], 8), TrainConfig(max_steps=4, eval_every=2),
                 loggers=loggers).log


def test_tensorboard_holds_the_same_numbers(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path)
    log = logged((logger,))
    logger.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    for name in ("loss", "lr", "grad_norm", "validation_loss", "bits_per_byte"):
        ours = [(e["step"], e[name]) for e in log if name in e]
        theirs = [(e.step, e.value) for e in events.Scalars(name)]
        assert [step for step, _ in theirs] == [step for step, _ in ours]
        assert [v for _, v in theirs] == pytest.approx([v for _, v in ours], rel=1e-6)


def records_of(file):
    """The records of an offline run: blocks of 32 KiB, each record with 7 bytes before it.

    A record that does not fit into its block goes on in the next: type 1 is a whole one, 2, 3
    and 4 are a first, middle and last part. The file itself begins with 7 bytes of its own.
    """
    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if place % 32768 > 32768 - 7:  # too little is left of this block for a record
            place += 32768 - place % 32768
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            yield parts
            parts = b""


def test_wandb_offline_holds_the_same_numbers(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    logger = WandbLogger("scratchbook-test", tmp_path)
    log = logged((logger,))
    logger.close()
    (file,) = tmp_path.rglob("run-*.wandb")
    rows, kinds, since = [], [], time.monotonic()
    while "exit" not in kinds:  # the client's own process writes the file, in its own time
        assert time.monotonic() - since < 60, kinds
        try:
            records = [wandb_internal_pb2.Record.FromString(one) for one in records_of(file)]
        except DecodeError:  # it is writing the last one at this moment
            continue
        kinds = [record.WhichOneof("record_type") for record in records]
    for record in records:
        if record.WhichOneof("record_type") == "history":
            rows.append({(i.key or ".".join(i.nested_key)): json.loads(i.value_json)
                         for i in record.history.item})
    theirs = [row["loss"] for row in rows if "loss" in row]
    assert theirs == pytest.approx([e["loss"] for e in log if "loss" in e], rel=1e-9)
    assert sum("validation_loss" in row for row in rows) == 2


def test_recipes_are_sound():
    for name, recipe in RECIPES.items():
        assert isinstance(recipe, Recipe), name
        if name.endswith("-char-cpu"):
            assert sum(p.numel() for p in recipe.build_model().parameters()) <= 810_000
    with pytest.raises(ValueError, match="validation_share=1.5"):
        DataConfig(validation_share=1.5)
    with pytest.raises(FileNotFoundError, match="no known name"):
        read_text("nowhere")


def test_a_text_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8 text .its byte 3 "):
        read_text(str(tmp_path / "latin.txt"))


def test_byte_pairs_are_learned_from_the_training_part_alone(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 90 + "zyzzyva " * 30, encoding="utf-8")
    sizes = ModelConfig(vocab_size=300, num_layers=1, d_model=16, num_heads=2)
    recipe = Recipe(sizes, DataConfig(str(text), "bpe", seq_len=8), TrainConfig())
    data, tokenizer = recipe.build_data()
    assert 256 < tokenizer.vocab_size <= 300
    assert len(tokenizer.encode(" the")) == 1 and len(tokenizer.encode("zyzzyva")) == 7
    assert data.bytes_per_token == pytest.approx(1, abs=0.2)  # held out: words it never saw


def test_outputs_that_start_at_zero_make_every_layer_a_pass_through():
    sizes = ModelConfig(vocab_size=23, num_layers=2, d_model=16, num_heads=2)
    model = Recipe(sizes, DataConfig(), TrainConfig(), zero_init_residual=True).build_model()
    x = torch.randn(1, 4, 16)
    assert torch.equal(model.blocks[0](x), x)


@pytest.mark.parametrize("sizes", [
    ModelConfig(vocab_size=200, num_layers=4, d_model=64, num_heads=4, feedforward="gelu"),
    ModelConfig(vocab_size=500, num_layers=2, d_model=96, num_heads=4, feedforward="swiglu"),
    ModelConfig(vocab_size=65, num_layers=6, d_model=64, num_heads=2, feedforward="relu2",
                norm="rms_no_gain", qk_norm=True)], ids=["gelu", "swiglu", "relu2"])
def test_the_memory_table_is_near_what_autograd_keeps(sizes):
    from scratchbook.data.batches import Batch
    from scratchbook.training import accumulate

    model, kept = DecoderLM(sizes), {}
    for module in model.modules():
        if hasattr(module, "impl"):
            module.impl = "eager"
    parameters = {p.data_ptr() for p in model.parameters()}
    ids = torch.randint(sizes.vocab_size, (8, 64))

    def pack(tensor):
        if tensor.is_floating_point() and tensor.data_ptr() not in parameters:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = (storage.nbytes() // tensor.element_size(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        accumulate(model, Batch(ids, ids))
    measured = sum(count for count, _ in kept.values())
    assert activation_numbers(sizes, 8, 64) == pytest.approx(measured, rel=0.10)


def test_every_remedy_lowers_the_memory_it_should():
    sizes = RECIPES["nanogpt-char-cpu"].model

    def activations(batch=16, seq_len=64, **options):
        return training_bytes(sizes, batch, seq_len, **options)["activations"]

    assert activations(8) == activations() // 2 == activations(grad_accum_steps=2)
    assert activations(seq_len=32) < activations() / 2  # half the tokens, a quarter of the scores
    assert activations(precision="bf16") == activations() // 2
    assert activations(activation_checkpointing=True) < activations() / 2
    lion, adamw = (training_bytes(sizes, 16, 64, optimizer=name) for name in ("lion", "adamw"))
    assert 2 * lion["optimizer"] == adamw["optimizer"] == 2 * adamw["weights"]
    with pytest.raises(ValueError, match="optimizer='sgdx'"):
        training_bytes(sizes, 16, 64, optimizer="sgdx")


def test_the_log_says_what_the_readme_promises(text, tmp_path):
    start(text, tmp_path / "run")
    entry = read_log(tmp_path / "run")[0]
    assert set(entry) == {"step", "loss", "lr", "grad_norm", "clipped", "tokens", "cpu_seconds"}
