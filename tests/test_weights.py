"""Loading: every way in which a folder can be wrong, shards, the hub's protocol, saving."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from scratchbook.config import PRESETS, ModelConfig, RopeSettings
from scratchbook.model import DecoderLM, EncoderModel
from scratchbook.weights import activations, first_divergence, load_pretrained, save_pretrained
from tests import tiny_models
from tests.local_hub import serve

pytest.importorskip("transformers")
IDS = torch.randint(99, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    def make(name: str = "gpt2", **options):
        tiny_models.build(name).save_pretrained(tmp_path, **options)
        return tmp_path
    return make


def rewrite(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def reconfigure(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes),
                    encoding="utf-8")


def test_shards_give_the_same_model(folder):
    whole = load_pretrained(folder("llama"))
    (folder("llama") / "model.safetensors").unlink()
    parts = folder("llama", max_shard_size="20KB")
    assert len(list(parts.glob("*.safetensors"))) > 2
    with torch.no_grad():
        assert torch.equal(load_pretrained(parts)(IDS), whole(IDS))
    sorted(parts.glob("*.safetensors"))[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"index\.json names model-00002"):
        load_pretrained(parts)


def test_a_sharded_folder_that_is_saved_over_holds_the_new_model(folder):
    parts = folder("llama", max_shard_size="20KB")
    model = load_pretrained(parts)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    again = load_pretrained(save_pretrained(model, parts))
    with torch.no_grad():
        assert torch.equal(again(IDS), model(IDS))
    assert sorted(p.name for p in parts.glob("model*")) == ["model.safetensors"]


@pytest.mark.parametrize("index", [
    {}, {"weight_map": {}}, {"weight_map": ["a"]}, {"weight_map": {"a": 3, "b": "x"}},
    {"weight_map": {"a": "../model.safetensors"}}, {"weight_map": {"a": "/model.safetensors"}},
    {"weight_map": {"a": "."}}, {"weight_map": {"a": ".."}},
])
def test_an_index_names_files_beside_it_and_no_others(folder, index):
    path = folder()
    inner = path / "inner"  # the file that "../" names is there and good
    inner.mkdir()
    (inner / "config.json").write_bytes((path / "config.json").read_bytes())
    (inner / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match="weight_map must name"):
        load_pretrained(inner)


@pytest.mark.parametrize(("name", "change", "fragments"), [
    ("gpt2", lambda t: t.pop("transformer.h.1.attn.c_attn.weight"),
     ["model.safetensors", "'transformer.h.1.attn.c_attn.weight' is missing", "(32, 32)"]),
    ("gpt2", lambda t: t.update({"transformer.h.1.mlp.c_fc.weight": torch.zeros(128, 32)}),
     ["model.safetensors", "'transformer.h.1.mlp.c_fc.weight' has shape (128, 32)",
      "expected (32, 128)"]),
    ("gpt2", lambda t: t.update({"transformer.ln_f.weight": torch.zeros(31)}),
     ["has shape (31,), expected (32,)"]),
    ("llama", lambda t: t.update({"model.layers.3.mlp.up_proj.weight": torch.zeros(48, 32)}),
     ["'model.layers.3.mlp.up_proj.weight' has no place", "another one"]),
    ("qwen3", lambda t: t.pop("model.layers.0.self_attn.q_norm.weight"),
     ["q_norm.weight' is missing", "(16,)"]),
    ("gpt2", lambda t: t.update({"transformer.ln_f.bias": torch.zeros(32, dtype=torch.int8)}),
     ["'transformer.ln_f.bias' holds torch.int8", "quantised"]),
])
def test_tensors_that_do_not_fit_are_named(folder, name, change, fragments):
    path = folder(name)
    rewrite(path, change)
    with pytest.raises(ValueError) as caught:
        load_pretrained(path)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("gpt2", {"model_type": "mamba"}, "model_type='mamba'.*bert, gpt2, llama, mistral"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ("gpt2", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
    ("gpt2", {"activation_function": "swish2"}, "activation 'swish2'"),
    ("llama", {"attention_bias": True}, "attention_bias=True"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type='dynamic'"),
    ("qwen3", {"layer_types": ["sliding_attention"] * 3}, "sliding_window is None"),
    ("llama", {"layer_types": ["full_attention", "sliding_attention"]}, "mixes"),
    ("llama", {"num_key_value_heads": 3}, "num_kv_heads=3"),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1,
               "layer_types": None}, "max_window_layers=1"),
    ("llama", {"num_hidden_layers": 10**9}, "asks for 1000000000 layers"),
    ("llama", {"hidden_size": "32"}, "d_model='32' is no int"),
    ("llama", {"rope_parameters": [1]}, "llama model is malformed"),
    ("llama", {"layer_types": 3}, "llama model is malformed"),
    ("llama", {"model_type": ["llama"]}, r"model_type=\['llama'\]"),
])
def test_what_would_load_and_answer_wrongly_is_refused(folder, name, changes, message):
    path = folder(name)
    reconfigure(path, **changes)
    with pytest.raises(ValueError, match=message):
        load_pretrained(path)


def test_qwen_has_no_window_unless_it_asks_for_one(folder):
    path = folder("qwen2")
    reconfigure(path, sliding_window=8, use_sliding_window=None, layer_types=None)
    entries = json.loads((path / "config.json").read_text(encoding="utf-8"))
    del entries["use_sliding_window"]
    (path / "config.json").write_text(json.dumps(entries), encoding="utf-8")
    assert load_pretrained(path).config.window is None


def test_a_missing_entry_of_the_config_is_named(folder):
    path = folder("llama") / "config.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    del entries["hidden_size"]
    path.write_text(json.dumps(entries), encoding="utf-8")
    with pytest.raises(ValueError, match="lacks 'hidden_size'"):
        load_pretrained(path.parent)


@pytest.mark.parametrize("length", [0, 5, 2000, -100])
def test_a_truncated_file_is_named(folder, length):
    path = folder() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"model\.safetensors \([\d,]+ bytes\) is cut short"):
        load_pretrained(path.parent)


def test_a_pickle_is_never_read(folder):
    path = folder()
    (path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load_pretrained(path)
    torch.save({}, path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"only pytorch_model\.bin: a pickle can run any code"):
        load_pretrained(path)


@pytest.mark.parametrize(("content", "message"), [
    ("{", "not readable as JSON"), ("[]", "JSON list"), (None, r"config\.json is not there"),
])
def test_a_damaged_config_is_named(folder, content, message):
    path = folder() / "config.json"
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_pretrained(path.parent)


def test_a_path_that_is_no_folder_is_not_looked_up_anywhere():
    with pytest.raises(FileNotFoundError, match=r"\./nowhere is no folder"):
        load_pretrained("./nowhere")


HUB_CODE = """
import sys, torch
from scratchbook.weights import load_pretrained
for name in sys.argv[1:]:
    try:
        print(sum(p.numel() for p in load_pretrained(name).parameters()))
    except Exception as error:
        print(type(error).__name__, str(error).splitlines()[0])
"""


def test_the_real_client_fetches_from_a_hub(folder, tmp_path):
    path = folder("llama")
    (path / "pytorch_model.bin").write_bytes(b"never fetched")
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0",
                                "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", HUB_CODE, "someone/tiny"]
    with serve({"someone/tiny": path}) as (address, asked):
        environment["HF_ENDPOINT"] = address
        answer = subprocess.run([*command, "someone/none"], env=environment, capture_output=True,
                                text=True, check=False)
        count, missing = answer.stdout.splitlines()
        assert int(count) == sum(p.numel() for p in load_pretrained(path).parameters())
        assert missing.startswith("FileNotFoundError the hub has no 'someone/none'")
        assert not any(".bin" in request for request in asked)
    # the server is gone: what was fetched stays, what was not is asked for with a way out
    environment["HF_HUB_OFFLINE"] = "1"
    answer = subprocess.run([*command, "someone/other"], env=environment, capture_output=True,
                            text=True, check=False)
    again, missing = answer.stdout.splitlines()
    assert again == count and "the hub cannot be reached" in missing


@pytest.mark.parametrize("changes", [
    {}, {"tie_embeddings": True, "bias": "all", "norm": "layer", "positions": "learned"},
    {"rope": RopeSettings(scaling="yarn", factor=2.0, original_max_seq_len=32)}, {"latent_dim": 8},
])
def test_saving_and_loading_gives_the_same_model(tmp_path, changes):
    config = ModelConfig(99, max_seq_len=64, num_layers=2, d_model=32, num_heads=4, **changes)
    model = DecoderLM(config).eval()
    again = load_pretrained(save_pretrained(model, tmp_path / "model"))
    assert again.config == config and not again.training
    with torch.no_grad():
        assert torch.equal(again(IDS), model(IDS))
    assert (again.lm_head.weight is again.token_embedding.weight) == config.tie_embeddings
    encoder = EncoderModel(config.with_(tie_embeddings=False)).eval()
    again = load_pretrained(save_pretrained(encoder, tmp_path / "encoder"))
    with torch.no_grad():
        assert torch.equal(again(IDS), encoder(IDS))


def test_the_type_of_the_weights_can_be_chosen(folder):
    model = load_pretrained(folder("llama"), dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    exact = load_pretrained(folder("llama"))
    with torch.no_grad():
        # three layers of bfloat16, whose steps are 2^-8, on logits of size 4
        assert (model(IDS).float() - exact(IDS)).abs().max() < 0.2


MEMORY_CODE = """
import re, sys, torch
from pathlib import Path
from scratchbook.weights import load_pretrained

def kilobytes(what):
    return int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

load_pretrained(sys.argv[1])  # torch imports half of itself on the way
before = kilobytes("VmRSS")
model = load_pretrained(sys.argv[2])
total = sum(p.sum().item() for p in model.parameters())  # every page is read
print(kilobytes("VmHWM") - before, total)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says how much memory was used")
def test_nothing_is_allocated_twice(tmp_path):
    config = ModelConfig(20_000, num_layers=4, d_model=512, num_heads=8)  # 33 million numbers
    small = save_pretrained(DecoderLM(config.with_(vocab_size=9, num_layers=1)), tmp_path / "small")
    large = save_pretrained(DecoderLM(config), tmp_path / "large")
    size = (large / "model.safetensors").stat().st_size / 1024
    answer = subprocess.run([sys.executable, "-c", MEMORY_CODE, small, large], check=True,
                            capture_output=True, text=True)
    assert 0.9 * size < float(answer.stdout.split()[0]) < 1.2 * size


PAIRS = {"token_embedding": "transformer.wte", "blocks.0": "transformer.h.0",
         "blocks.1.attention": "transformer.h.1.attn", "blocks.1": "transformer.h.1",
         "blocks.2": "transformer.h.2", "lm_head": "lm_head"}


def test_a_planted_bug_is_found_where_it_is(folder):
    theirs = tiny_models.build("gpt2")
    theirs.save_pretrained(path := folder())
    ours = load_pretrained(path)

    def compare():
        return first_divergence(ours, lambda: ours(IDS), theirs, lambda: theirs(IDS), PAIRS)

    assert compare().first is None
    with torch.no_grad():  # two heads change places
        weight = ours.blocks[1].attention.v_proj.weight
        weight.copy_(torch.cat([weight[8:16], weight[:8], weight[16:]]))
    found = compare()
    assert found.first == "blocks.1.attention"
    assert found.gaps["blocks.0"] < 1e-5 < found.gaps["lm_head"]


def test_modules_that_are_not_there_or_silent_are_named():
    model = DecoderLM(PRESETS["tiny-1m"])
    with pytest.raises(ValueError, match="no module nothing"):
        activations(model, lambda: model(IDS), ["nothing"])
    with pytest.raises(ValueError, match="lm_head was not called"):
        activations(model, lambda: None, ["lm_head"])
