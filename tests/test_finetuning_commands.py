"""`scratchbook finetune`: what it says, what it writes, how it goes on, and what it refuses."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from scratchbook import cli
from scratchbook.compression import quantize
from scratchbook.config import ModelConfig
from scratchbook.finetuning.bases import Base, LibraryTokenizer, open_base
from scratchbook.finetuning.opening import open_tuned
from scratchbook.finetuning.streaming import UNPACKED
from scratchbook.finetuning.tuning import ALL_METHODS, Adapting
from scratchbook.model import DecoderLM
from scratchbook.tokenizers import BPETokenizer
from scratchbook.weights import load_pretrained, save_pretrained
from tests.local_hub import ask_there, serve
from tests.random_models import random_model

IDS = torch.arange(40).view(2, 20)
STEPS = ["--max-steps", "6", "--batch-size", "4", "--eval-every", "2", "--quiet"]


@pytest.fixture
def base(tmp_path):
    """A tiny base that reads bytes, as a folder."""
    config = ModelConfig(256, 64, 2, 64, 4, num_kv_heads=2, d_ff=128)
    return save_pretrained(random_model(config, std=0.1), tmp_path / "base")


@pytest.fixture
def pairs(tmp_path):
    return written(tmp_path / "pairs.jsonl", 24)


def written(path, count, start=0):
    lines = [{"prompt": f"{i}: ", "completion": "abab" * (1 + i % 3)}
             for i in range(start, start + count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def tune(base, data, out, *more):
    return cli.main(["finetune", "--base", str(base), "--data", str(data), "--out", str(out),
                     *STEPS, *more])


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_cost_first_then_the_adapter_alone(base, pairs, tmp_path, capsys):
    keep = tmp_path / "keep.txt"
    keep.write_text("what the base could say. " * 20, encoding="utf-8")
    out = tmp_path / "out"
    assert tune(base, pairs, out, "--lr", "0.01", "--keep", str(keep)) == 0
    said = capsys.readouterr().out
    order = [said.index(word) for word in ("learns ", "memory ", "time ", "finished at step 6",
                                           "answers ", "kept ", "learned ")]
    assert order == sorted(order)
    # two blocks: 8 (64 + 64) for queries and 8 (64 + 32) for values
    assert "learns      3,584 numbers" in said
    result = json.loads((out / "finetuned.json").read_text(encoding="utf-8"))
    assert result["after"]["answers"] < result["before"]["answers"]
    assert result["before"]["kept"] != result["after"]["kept"] and result["trainable"] == 3584
    config = json.loads((out / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["r"] == 8 and config["lora_alpha"] == 16
    assert config["target_modules"] == ["q_proj", "v_proj"]
    for checkpoint in (out / "checkpoints").iterdir():
        with safe_open(checkpoint / "model.safetensors", "pt") as file:
            assert sum(file.get_tensor(name).numel() for name in file.keys()) == 3584  # noqa: SIM118


def test_peft_reads_the_adapter(tmp_path, pairs):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    sizes = transformers.LlamaConfig(vocab_size=256, hidden_size=32, intermediate_size=64,
                                     num_hidden_layers=2, num_attention_heads=4)
    theirs = transformers.LlamaForCausalLM(sizes).eval()
    theirs.save_pretrained(tmp_path / "llama")
    assert tune(tmp_path / "llama", pairs, tmp_path / "out", "--lr", "0.02") == 0
    ours = open_tuned(tmp_path / "out").model
    names = {"blocks": "model.layers", "attention": "self_attn"}
    config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text("utf-8"))
    lora = peft.LoraConfig(r=config["r"], lora_alpha=config["lora_alpha"],
                           target_modules=config["target_modules"])
    wrapped = peft.get_peft_model(theirs, lora).eval()
    state = {}
    with safe_open(tmp_path / "out" / "adapter" / "adapter_model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118
            renamed = name
            for one, other in names.items():
                renamed = renamed.replace(f".{one}.", f".{other}.")
            state[renamed] = file.get_tensor(name)
    loaded = peft.set_peft_model_state_dict(wrapped, state)
    assert not loaded.unexpected_keys
    with torch.no_grad():
        assert torch.allclose(wrapped(IDS).logits, ours(IDS), atol=1e-5)
        assert not torch.allclose(load_pretrained(tmp_path / "llama")(IDS), ours(IDS), atol=1e-3)


KILLED = """
import os, signal, sys
from scratchbook import cli
from scratchbook.training import loop
steps, whole = [], loop.accumulate
def dying(*arguments, **options):
    steps.append(0)
    if len(steps) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments, **options)
loop.accumulate = dying
import torch
torch.set_num_threads(1)
cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize("more", [["--dropout", "0.1"], ["--quantize", "nf4"]])
def test_killed_and_started_again_it_ends_the_same(base, pairs, tmp_path, more, capsys):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert tune(base, pairs, tmp_path / "whole", *more) == 0
        out = tmp_path / "broken"
        command = ["finetune", "--base", str(base), "--data", str(pairs), "--out", str(out),
                   *STEPS, *more]
        died = subprocess.run([sys.executable, "-c", KILLED, *command], capture_output=True,
                              text=True, check=False)
        assert died.returncode == -9, died.stderr
        assert (out / "last").read_text("utf-8") == "step_000004" and not (out / "adapter").exists()
        capsys.readouterr()
        assert tune(base, pairs, out, *more) == 0
    finally:
        torch.set_num_threads(threads)
    found = sorted(p.relative_to(out) for p in out.rglob("*.safetensors"))
    assert len(found) >= 5
    for name in found:  # of each checkpoint that was kept the model and its optimizer; the adapter
        one, other = (load_file(folder / name) for folder in (tmp_path / "whole", out))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[tensor], other[tensor]) for tensor in one), name
    assert "finished at step 6" in capsys.readouterr().out


def test_a_packed_base_is_in_no_checkpoint(base, pairs, tmp_path, capsys):
    assert tune(base, pairs, tmp_path / "out", "--quantize", "nf4", "--targets", "all-linear") == 0
    for file in (tmp_path / "out").rglob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            assert not [n for n in opened.keys() if "packed" in n or "embedding" in n]  # noqa: SIM118
    opened = open_tuned(tmp_path / "out").model
    plain = open_base(base, "nf4").model
    adapting = Adapting(targets=("all-linear",), quantized="nf4")
    assert sum("packed" in name for name in opened.state_dict()) == sum(
        "packed" in name for name in adapting.apply(plain).state_dict())


def test_the_adapter_is_the_best_one_not_the_last(base, pairs, tmp_path, capsys, monkeypatch):
    losses = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr("scratchbook.training.loop.evaluate", lambda *_: next(losses))
    out = tmp_path / "out"
    assert tune(base, pairs, out, "--lr", "0.01") == 0
    assert json.loads((out / "finetuned.json").read_text(encoding="utf-8"))["step"] == 4
    adapter, best, last = (load_file(out / name / file) for name, file in (
        ("adapter", "adapter_model.safetensors"), ("checkpoints/step_000004", "model.safetensors"),
        ("checkpoints/step_000006", "model.safetensors")))
    name = "blocks.0.attention.q_proj.adapters.default.lora_B"
    found = adapter["base_model.model.blocks.0.attention.q_proj.lora_B.weight"]
    assert torch.equal(found, best[name]) and not torch.equal(found, last[name])


@pytest.mark.parametrize("method", ALL_METHODS)
def test_every_method_is_written_and_opened_again(base, pairs, tmp_path, method, capsys):
    more = ["--method", method, "--lr", "0.01"] + ["--rank", "4"] * (method != "full")
    assert tune(base, pairs, tmp_path / "out", *more) == 0
    result = json.loads((tmp_path / "out" / "finetuned.json").read_text(encoding="utf-8"))
    assert result["after"]["answers"] < result["before"]["answers"]
    with torch.no_grad():
        again = open_tuned(tmp_path / "out").model(IDS)
        assert not torch.allclose(load_pretrained(base)(IDS), again, atol=1e-4)
    assert tune(base, pairs, tmp_path / "out", *more) == 0  # done already: nothing moves
    with torch.no_grad():
        assert torch.equal(open_tuned(tmp_path / "out").model(IDS), again)


@pytest.mark.parametrize("more", [["--method", "lora"], ["--method", "dora"], ["--method", "ia3"],
                                  ["--method", "full"], ["--quantize", "nf4"]])
def test_a_merged_model_is_a_plain_base(base, pairs, tmp_path, more, capsys):
    out = tmp_path / "out"
    assert tune(base, pairs, out, *more, "--lr", "0.01", "--merge") == 0
    with torch.no_grad():
        merged = load_pretrained(out / "merged")(IDS)
        assert torch.allclose(merged, open_tuned(out).model(IDS), atol=1e-5)
    assert tune(out / "merged", pairs, tmp_path / "second") == 0
    assert open_base(out / "merged").model.config == load_pretrained(base).config


def test_chat_sample_and_eval_take_the_result(base, pairs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert tune(base, pairs, out) == 0
    capsys.readouterr()
    assert cli.main(["sample", str(out), "--prompt", "7: ", "--max-new-tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("7: ")
    text = tmp_path / "text.txt"
    text.write_text("7: ababab " * 20, encoding="utf-8")
    assert cli.main(["eval", str(out), "--text", str(text), "--checkpoint", "4"]) == 0
    assert "step 4" in capsys.readouterr().out
    lines = iter(["9: \n", "/quit\n"])
    monkeypatch.setattr(sys.stdin, "readline", lambda: next(lines), raising=False)
    assert cli.main(["chat", str(out)]) == 0
    assert capsys.readouterr().out.startswith("9: ")


def test_a_run_is_a_base_too(tmp_path, pairs, capsys):
    text = tmp_path / "text.txt"
    text.write_text("abab 7: abab. " * 60, encoding="utf-8")
    sizes = ["--model.num_layers", "1", "--model.d_model", "16", "--model.num_heads", "2",
             "--data.seq_len", "16", "--train.max_steps", "4", "--train.batch_size", "2"]
    assert cli.main(["train", "--quiet", "--out", str(tmp_path / "run"), "--data.text", str(text),
                     *sizes]) == 0
    assert tune(tmp_path / "run", pairs, tmp_path / "out") == 0
    assert cli.main(["finetune", "--base", str(tmp_path / "run"), "--data", str(pairs), "--out",
                     str(tmp_path / "run"), *STEPS]) == 2
    assert "holds a run that is no fine-tuning" in capsys.readouterr().err
    assert tune(tmp_path / "out", pairs, tmp_path / "second") == 2
    assert "adapted already: give its `merged` folder" in capsys.readouterr().err


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A tiny model of Llama 3's architecture in several files, served as someone/llama."""
    pytest.importorskip("huggingface_hub")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "there"
    tokenizer = BPETokenizer(pattern="gpt2").train("abab 12: 7 " * 50, 270, ["<|end_of_text|>"])
    sizes = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, intermediate_size=128,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    transformers.LlamaForCausalLM(sizes).to(torch.bfloat16).save_pretrained(
        folder, max_shard_size="60KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    tokenizer.save_tokenizers(folder / "tokenizer.json")
    with serve({"someone/llama": folder}) as (address, asked):
        ask_there(address, tmp_path / "cache", monkeypatch)
        yield folder, tokenizer, asked


def test_qlora_on_a_llama_from_the_hub(hub, pairs, tmp_path, capsys):
    folder, tokenizer, asked = hub
    assert tune("someone/llama", pairs, tmp_path / "out", "--quantize", "nf4", "--lr", "0.01",
                "--targets", "all-linear") == 0
    assert "learns      16,384 numbers" in capsys.readouterr().out
    assert sum(".safetensors" in path for path in asked) > 2
    result = json.loads((tmp_path / "out" / "finetuned.json").read_text(encoding="utf-8"))
    assert result["after"]["answers"] < result["before"]["answers"]
    found = open_base("someone/llama", "nf4")
    assert found.tokenizer.encode("abab 7") == tokenizer.encode("abab 7")
    whole = quantize(load_pretrained(folder), "nf4", double=True, skip=UNPACKED)
    assert found.sha256() == Base(whole, tokenizer, "whole").sha256()
    with torch.no_grad():
        assert not torch.allclose(open_tuned(tmp_path / "out").model(IDS), whole(IDS), atol=1e-3)


def test_a_tokenizer_that_only_the_library_reads(tmp_path, pairs, base, capsys):
    library = pytest.importorskip("tokenizers")
    ours = BPETokenizer(pattern="gpt2").train("abab 12: 7 " * 50, 270, ["<|end_of_text|>"])
    ours.save_tokenizers(base / "tokenizer.json")
    theirs = library.Tokenizer.from_file(str(base / "tokenizer.json"))
    end = theirs.token_to_id("<|end_of_text|>")
    theirs.post_processor = library.processors.TemplateProcessing(
        single="<|end_of_text|> $A", special_tokens=[("<|end_of_text|>", end)])
    theirs.save(str(base / "tokenizer.json"))
    save_pretrained(random_model(load_pretrained(base).config.with_(vocab_size=270)), base)
    found = open_base(base).tokenizer
    assert isinstance(found, LibraryTokenizer) and found.special_tokens == {"<|end_of_text|>": end}
    for text in ("abab 7: é", "x <|end_of_text|> y"):  # spelled out it is plain text
        assert found.encode(text) == ours.encode_ordinary(text)
        assert found.decode(found.encode(text)) == text
    assert tune(base, pairs, tmp_path / "out", "--merge") == 0
    assert open_tuned(tmp_path / "out").tokenizer.encode("12") == ours.encode("12")
    assert open_base(tmp_path / "out" / "merged").tokenizer.encode("12") == ours.encode("12")


def bad(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(("content", "said"), [
    ("", "holds no example"), ('{"prompt": "a"}\n', "line 1: its completion is missing"),
    ('{"prompt": "a", "completion": ""}\n', "line 1: its completion is empty"),
    ('{"text": "a"}\nnonsense\n', "line 2: "),
    ('{"prompt": "a", "completion": "b"}\n', "one prompt alone")])
def test_bad_data_is_named(base, tmp_path, content, said, capsys):
    path = bad(tmp_path, "bad.jsonl", content)
    assert tune(base, path, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error and "bad.jsonl" in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("more", "said"), [
    (["--targets", "query"], "target 'query' names no linear layer"),
    (["--method", "magic"], "choose one of lora, dora, full"),
    (["--rank", "0"], "lora_rank=0"), (["--rank", "65"], "lora_rank=65"),
    (["--quantize", "int3"], "quantized='int3'"), (["--max-seq-len", "65"], "max_seq_len=65"),
    (["--method", "full", "--quantize", "nf4"], "packed ones (nf4) cannot move"),
    (["--method", "full", "--targets", "q_proj"], "full has no targets"),
    (["--keep", "nowhere.txt"], "no such file"), (["--lr", "-1"], "lr=-1"),
    (["--epochs", "0"], "epochs=0"), (["--batch-size", "0"], "batch_size=0"),
    (["--max-steps", "0"], "max_steps=0"), (["--eval-every", "0"], "eval_every=0"),
    (["--validation", "nowhere.jsonl"], "no such file"), (["--alpha", "0"], "lora_alpha=0"),
    (["--device", "abacus"], "device 'abacus' is not available"),
    (["--method", "prefix", "--merge"], "prefix cannot be merged"),
    (["--method", "full", "--dropout", "0.1"], "full has no dropout=0.1"),
    (["--method", "ia3", "--alpha", "32"], "ia3 has no alpha=32"),
    (["--method", "ia3", "--quantize", "nf4", "--merge"], "ia3 cannot be merged")])
def test_bad_options_are_named_before_anything_is_written(base, pairs, tmp_path, more, said,
                                                          capsys):
    assert tune(base, pairs, tmp_path / "out", *more) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "said"), [
    ("nowhere/at/all", "is no folder, and no name on the hub"), ("./nothing", "is no folder")])
def test_a_base_that_is_not_there(name, said, pairs, tmp_path, capsys):
    assert tune(name, pairs, tmp_path / "out") == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_base_without_its_tokenizer(pairs, tmp_path, capsys):
    save_pretrained(DecoderLM(ModelConfig(300, 32, 1, 16, 2)), tmp_path / "base")
    assert tune(tmp_path / "base", pairs, tmp_path / "out") == 2
    assert "tokenizer.json is missing" in capsys.readouterr().err


def test_folders_of_others_are_left_as_they_are(base, pairs, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert tune(base, pairs, out) == 2
    assert "holds thesis.txt and is not the folder of a run" in capsys.readouterr().err
    (out / "thesis.txt").unlink()
    assert tune(base, pairs, out) == 0
    before = files(out)
    other = save_pretrained(random_model(load_pretrained(base).config, seed=1), tmp_path / "other")
    changes = {"begun on another base": (other, pairs), "lora_rank: 8 there, 4 here":
               (base, pairs, "--rank", "4"), "quantized: None there, nf4 here":
               (base, pairs, "--quantize", "nf4"), "train.lr: 0.001 there":
               (base, pairs, "--lr", "0.5"), "the text, its tokenizer": (
                   base, written(tmp_path / "more.jsonl", 24, 5))}
    for said, (its_base, data, *more) in changes.items():
        capsys.readouterr()
        assert tune(its_base, data, out, *more) == 2, said
        assert said in capsys.readouterr().err
        assert {k: v for k, v in files(out).items() if k != "lock"} == {
            k: v for k, v in before.items() if k != "lock"}, said


def test_losses_before_are_never_those_of_another_text(base, pairs, tmp_path, capsys):
    keep, other = tmp_path / "keep.txt", tmp_path / "other.txt"
    keep.write_text("what the base could say. " * 20, encoding="utf-8")
    other.write_text("another text altogether! " * 20, encoding="utf-8")
    out = tmp_path / "out"
    assert tune(base, pairs, out, "--keep", str(keep)) == 0
    first = json.loads((out / "finetuned.json").read_text("utf-8"))["before"]
    for more in (["--keep", str(other)], []):
        assert tune(base, pairs, out, *more) == 2
        assert "begun with another text to keep" in capsys.readouterr().err
    shutil.rmtree(out / "checkpoints")  # killed before the first one; then other examples
    more = written(tmp_path / "more.jsonl", 24, 5)
    assert tune(base, more, out, "--keep", str(keep)) == 0
    again = json.loads((out / "finetuned.json").read_text("utf-8"))["before"]
    assert again["kept"] == first["kept"] and again["answers"] != first["answers"]


def test_a_base_that_has_changed_is_refused_when_the_result_is_opened(base, pairs, tmp_path,
                                                                     capsys):
    assert tune(base, pairs, tmp_path / "out") == 0
    save_pretrained(random_model(load_pretrained(base).config, seed=1), base)
    assert cli.main(["chat", str(tmp_path / "out")]) == 2
    assert "is not the base that" in capsys.readouterr().err
