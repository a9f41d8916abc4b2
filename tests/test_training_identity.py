"""A run that is started again: what must be the same, what may change, what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from scratchbook import cli
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.data.packing import PackedDocuments
from scratchbook.model import DecoderLM
from scratchbook.tokenizers import CharTokenizer
from scratchbook.training import TrainConfig, open_run, read_log, train
from scratchbook.training.recipes import DataConfig, Recipe
from tests.test_training_commands import start

SIZES = ModelConfig(23, max_seq_len=8, num_layers=1, d_model=16, num_heads=2)
WORDS = "the cat sat on the mat. " * 60


def model(seed=0):
    torch.manual_seed(seed)
    return DecoderLM(SIZES)


def windows(change=None, seed=0):
    ids = torch.randint(23, (900,), generator=torch.Generator().manual_seed(1))
    if change is not None:
        ids[change] = (ids[change] + 1) % 23
    return Windows(ids[:700], ids[700:], 8, seed)


def config(**changes):
    return TrainConfig(**{"max_steps": 6, "batch_size": 2, "eval_every": 3, "lr": 0.01} | changes)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(WORDS, encoding="utf-8")
    return path


@pytest.mark.parametrize("change", [0, 350, 699, 700, 899])
def test_one_id_anywhere_makes_other_data(change):
    assert windows().fingerprint() == windows().fingerprint() != windows(change).fingerprint()


def test_the_cut_and_the_seed_belong_to_the_data():
    ids = torch.arange(100) % 23
    prints = {Windows(ids[:cut], ids[cut:], size, seed).fingerprint()
              for cut, size, seed in ((60, 8, 0), (61, 8, 0), (60, 9, 0), (60, 8, 1))}
    assert len(prints) == 4
    documents = [[1, 2, 3], [4, 5]]
    packed = {PackedDocuments(documents, held, 4).fingerprint() for held in ([[6, 7]], [[6, 8]])}
    assert len(packed) == 2


def test_a_text_edited_behind_its_first_batch_is_another_text(text, tmp_path, capsys):
    assert start(text, tmp_path / "run") == 0
    text.write_text(WORDS[:-20] + "A new last sentence.", encoding="utf-8")
    assert start(text, tmp_path / "run", "--train.max_steps", "9") == 2
    said = capsys.readouterr().err
    assert "the text" in said and "--init-from" in said


def test_eval_does_not_call_an_edited_text_held_out(text, tmp_path, capsys):
    assert start(text, tmp_path / "run") == 0
    text.write_text("A sentence put in front. " + WORDS, encoding="utf-8")
    assert cli.main(["eval", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert "was edited after the training" in captured.err and "held out" not in captured.out


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "wsd"])
def test_a_stopped_run_may_be_lengthened_and_says_what_its_schedule_does(schedule, tmp_path):
    train(model(), windows(), config(schedule=schedule), tmp_path, stop_after=3)
    longer = config(schedule=schedule, max_steps=12, eval_every=4, checkpoint_every=5)
    if schedule == "constant":
        done = train(model(), windows(), longer, tmp_path)
    else:
        with pytest.warns(UserWarning, match=f"from step 3 on .* {schedule} schedule over 12"):
            done = train(model(), windows(), longer, tmp_path)
    assert done.progress.step == 12 and len(done.losses) == 12


def test_a_constant_rate_lengthened_equals_never_having_stopped(tmp_path):
    train(model(), windows(), config(schedule="constant"), tmp_path / "a")
    train(model(), windows(), config(schedule="constant", max_steps=10), tmp_path / "a")
    whole = train(model(), windows(), config(schedule="constant", max_steps=10), tmp_path / "b")
    again = read_log(tmp_path / "a")
    assert [e["loss"] for e in again if "loss" in e] == whole.losses


def test_a_schedule_that_ended_offers_a_warm_restart(tmp_path):
    train(model(), windows(), config(schedule="cosine"), tmp_path)
    longer = config(schedule="cosine", max_steps=10)
    with pytest.raises(ValueError, match="--warm-restart.*4 new steps.*--init-from"):
        train(model(), windows(), longer, tmp_path)
    done = train(model(), windows(), longer, tmp_path, warm_restart=True, stop_after=8)
    done = train(model(), windows(), longer, tmp_path)  # and goes on without being told again
    rates = [entry["lr"] for entry in done.log if "lr" in entry]
    fresh = train(model(), windows(), config(schedule="cosine", max_steps=4)).log
    assert rates[6:] == [entry["lr"] for entry in fresh if "lr" in entry]


def test_a_warm_restart_that_died_before_its_first_checkpoint_goes_on_as_one(tmp_path):
    train(model(), windows(), config(schedule="cosine"), tmp_path)
    longer = config(schedule="cosine", max_steps=10)
    train(model(), windows(), longer, tmp_path, warm_restart=True, stop_after=6)  # the config alone
    done = train(model(), windows(), longer, tmp_path)
    fresh = train(model(), windows(), config(schedule="cosine", max_steps=4)).log
    rates = [entry["lr"] for entry in done.log if "lr" in entry]
    assert rates[6:] == [entry["lr"] for entry in fresh if "lr" in entry]


def test_fewer_steps_than_are_done_are_refused(tmp_path):
    train(model(), windows(), config(), tmp_path)
    with pytest.raises(ValueError, match="max_steps=4, but the run has 6 steps"):
        train(model(), windows(), config(max_steps=4), tmp_path)


def test_start_from_the_weights_of_another_run(text, tmp_path, capsys):
    assert start(text, tmp_path / "first", "--data.tokenizer", "char") == 0
    other = tmp_path / "other.txt"
    other.write_text(WORDS[::-1], encoding="utf-8")
    words = ["--init-from", str(tmp_path / "first"), "--train.lr", "1e-9", "--train.weight_decay",
             "0", "--data.tokenizer", str(tmp_path / "first" / "tokenizer.json")]
    assert start(other, tmp_path / "second", *words) == 0
    first, second = (open_run(tmp_path / name) for name in ("first", "second"))
    assert "first, step" in second.config["data"]["init_from"]
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    capsys.readouterr()
    assert start(other, tmp_path / "third", "--init-from", str(tmp_path / "first")) == 2
    assert "another tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize("wrap", [lambda m: nn.ModuleDict({"module": m}),
                                  lambda m: nn.ModuleDict({"_orig_mod": m}),
                                  lambda m: nn.ModuleDict({"module": nn.ModuleDict(
                                      {"_orig_mod": m})})])
def test_weights_of_a_compiled_or_distributed_model_load(wrap, tmp_path):
    done = train(model(), windows(), config(), tmp_path)
    folder = next((tmp_path / "checkpoints").glob("step_000006"))
    plain = load_file(folder / "model.safetensors")
    renamed = {name: plain[[*plain][number]] for number, name in enumerate(plain)}
    prefix = next(iter(wrap(nn.Linear(1, 1)).state_dict())).removesuffix("weight")
    save_file({prefix + name: tensor for name, tensor in renamed.items()},
              folder / "model.safetensors")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    from scratchbook.runtime import sha256_of

    state["sha256"]["model.safetensors"] = sha256_of(folder / "model.safetensors")
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    opened = open_run(tmp_path, 6)
    assert done.progress.step == 6
    for name, tensor in opened.model.state_dict().items():
        assert torch.equal(tensor, plain.get(name, tensor)), name


def test_a_folder_of_somebody_else_is_left_alone(text, tmp_path, capsys):
    tokenizer = CharTokenizer().train(WORDS)
    folder = tmp_path / "mine"
    folder.mkdir()
    tokenizer.save(folder / "tokenizer.json")
    before = (folder / "tokenizer.json").read_bytes()
    more = ["--data.tokenizer", str(folder / "tokenizer.json")]
    assert start(text, folder, *more) == 2
    assert "holds tokenizer.json and is not the folder of a run" in capsys.readouterr().err
    assert [p.name for p in folder.iterdir()] == ["tokenizer.json"]
    assert (folder / "tokenizer.json").read_bytes() == before
    assert start(text, folder / "run", *more) == 0
    assert start(text, text, *more) == 2
    assert "is a file" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_may_be_started_with_another_text(text, tmp_path):
    run = tmp_path / "run"
    assert start(text, run) == 0
    for path in sorted((run / "checkpoints").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    other = tmp_path / "other.txt"
    other.write_text(WORDS[::-1], encoding="utf-8")
    assert start(other, run) == 0
    assert open_run(run).config["data"]["text"] == str(other)


def test_a_run_without_its_tokenizer_is_refused(text, tmp_path, capsys):
    run = tmp_path / "run"
    assert start(text, run, "--data.tokenizer", "char") == 0
    CharTokenizer().train("another alphabet").save(run / "tokenizer.json")
    with pytest.raises(ValueError, match="is not the tokenizer that this run was trained with"):
        open_run(run)
    (run / "tokenizer.json").unlink()
    assert cli.main(["eval", str(run)]) == 2
    assert "tokenizer.json is missing" in capsys.readouterr().err


def test_a_run_that_was_told_no_tokenizer_opens_and_reads_no_text(tmp_path):
    train(model(), windows(), config(), tmp_path)
    opened = open_run(tmp_path)
    assert opened.tokenizer.vocab_size == 23
    with pytest.raises(ValueError, match="was given no tokenizer"):
        opened.tokenizer.encode("text")
    with pytest.raises(ValueError, match="was given no tokenizer"):
        opened.tokenizer.decode([1])


def test_a_tokenizer_that_loses_text_has_no_bits_per_byte_in_the_log(text, tmp_path):
    text.write_text(WORDS[:600] + WORDS[:800].upper(), encoding="utf-8")
    recipe = Recipe(SIZES, DataConfig(str(text), "char"), config())
    data, _ = recipe.build_data()  # the held-out part has letters that training has not
    lossy = Recipe(SIZES, DataConfig(str(text), "char", validation_share=0.6), config())
    lossless = data.bytes_per_token
    assert lossless == 1.0 and lossy.build_data()[0].bytes_per_token is None
    log = train(model(), Windows(torch.arange(90) % 23, torch.arange(90) % 23, 8, 0, None),
                config()).log
    assert not any("bits_per_byte" in entry for entry in log)
