"""Files read matrix by matrix into four bits: the same model, in less memory, from the hub too."""

import os
import subprocess
import sys

import pytest
import torch

from scratchbook.compression import quantize, size_in_bytes
from scratchbook.compression.files import digest
from scratchbook.compression.measuring import peak_memory
from scratchbook.config import PRESETS, ModelConfig
from scratchbook.finetuning import streaming
from scratchbook.finetuning.streaming import load_quantized, loading_bytes
from scratchbook.weights import load_pretrained, save_pretrained
from tests.local_hub import serve
from tests.random_models import random_model

IDS = torch.arange(40).view(2, 20) % 99


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A tiny model of Llama 3's architecture in several files, as transformers writes it."""
    transformers = pytest.importorskip("transformers")
    sizes = transformers.LlamaConfig(
        vocab_size=99, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(sizes).to(torch.bfloat16)
    folder = tmp_path_factory.mktemp("llama")
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    return folder


def same(one, other):
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert tensor.dtype == states[1][name].dtype and torch.equal(tensor, states[1][name]), name
    with torch.no_grad():
        assert torch.equal(one(IDS), other(IDS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [
    {}, {"double": False}, {"kind": "int4"}, {"kind": "int8", "double": False, "skip": ()},
    {"kind": "int4", "group_size": "tensor"}, {"skip": ("token_embedding", "blocks.1")}])
def test_it_is_what_loading_and_then_quantizing_gives(llama, options, dtype, monkeypatch):
    monkeypatch.setattr(streaming, "AT_ONCE", 1000)  # many pieces, the last one smaller
    options = {"kind": "nf4", "double": True, "skip": streaming.UNPACKED} | options
    read = load_quantized(llama, dtype=dtype, **options)
    whole = quantize(load_pretrained(llama, dtype), **options)
    same(read, whole)
    assert not any(p.requires_grad for p in read.parameters())
    found = loading_bytes(read.config, dtype=dtype, **options)
    assert found["model"] == size_in_bytes(whole)


@pytest.mark.parametrize("skip", [(), ("lm_head",)])
def test_tied_embeddings_stay_tied(tmp_path, skip):
    model = random_model(ModelConfig(99, 32, 2, 64, 4, tie_embeddings=True, d_ff=128))
    save_pretrained(model, tmp_path)
    read = load_quantized(tmp_path, skip=skip)
    same(read, quantize(load_pretrained(tmp_path), "nf4", double=True, skip=skip))
    if skip:
        assert read.lm_head.weight is read.token_embedding.weight
    else:
        assert read.lm_head.packed is read.token_embedding.packed


HUB_CODE = """
import sys
from scratchbook.compression.files import digest
from scratchbook.finetuning.streaming import load_quantized
print(digest(load_quantized(sys.argv[1]).state_dict()))
"""


def test_a_name_on_the_hub_is_fetched_and_read(llama, tmp_path):
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0",
                                "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
    with serve({"someone/llama": llama}) as (address, asked):
        environment["HF_ENDPOINT"] = address
        answer = subprocess.run([sys.executable, "-c", HUB_CODE, "someone/llama"],
                                env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert answer.stdout.strip() == digest(load_quantized(llama).state_dict())
    assert sum(".safetensors" in path for path in asked) > 2


PEAK_CODE = """
import torch
from scratchbook.config import ModelConfig
from scratchbook.finetuning.streaming import load_quantized
from scratchbook.model import DecoderLM
torch.set_num_threads(1)
with torch.device("meta"):  # what torch imports for that is no part of the model
    DecoderLM(ModelConfig(9, 8, 1, 8, 1))
"""


def test_the_peak_is_the_one_that_was_said_beforehand(tmp_path, monkeypatch):
    # glibc keeps up to 64 MB of what was freed; how much depends on the order of sizes, machine by
    # machine. With a fixed threshold each tensor is given back, and only what is held counts.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = ModelConfig(8192, 64, 6, 768, 12, num_kv_heads=4, d_ff=2048)
    model = random_model(config).bfloat16()
    save_pretrained(model, tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    del model
    alone = peak_memory(PEAK_CODE)
    load = f"load_quantized({str(tmp_path)!r}, dtype=torch.bfloat16)"
    peak = peak_memory(f"{PEAK_CODE}\nmodel = {load}") - alone
    found = loading_bytes(config, dtype=torch.bfloat16)
    assert peak == pytest.approx(found["peak"], rel=0.15)
    assert peak < 0.9 * size  # and that is in bf16: the float model takes twice as much


def test_eight_billion_fit_where_their_floats_do_not():
    found = loading_bytes(PRESETS["llama-3-8b"], dtype=torch.bfloat16)
    # 7.0 billion numbers of the blocks at 4.127 bits, 1.05 billion at 16
    assert found["model"] == pytest.approx(6_979_321_856 * 4.127 / 8 + 1_050_939_392 * 2, rel=2e-3)
    assert found["peak"] < 7.0e9 < 16e9


def test_what_cannot_be_read_is_named(llama, tmp_path):
    with pytest.raises(ValueError, match="skip='head' names no layer"):
        load_quantized(llama, skip=("head",))
    with pytest.raises(ValueError, match="group_size=48 does not divide"):
        load_quantized(llama, group_size=48)
    with pytest.raises(FileNotFoundError, match="no config.json|is not there"):
        load_quantized(tmp_path)
    model = random_model(ModelConfig(99, 32, 1, 64, 4, d_ff=128))
    model.blocks[0].attention.q_proj.weight.data[0, 0] = float("nan")
    save_pretrained(model, tmp_path)
    with pytest.raises(ValueError, match="q_proj: the largest weight is nan"):
        load_quantized(tmp_path)
