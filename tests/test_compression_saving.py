"""A compressed model's file: whole and ours, or refused by name; back without the old weights."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from scratchbook.compression import load_compressed, quantize, save_compressed, size_in_bytes
from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM
from tests.tiny_models import build

IDS = torch.arange(9)[None]


def tiny(**changes) -> DecoderLM:
    torch.manual_seed(0)
    return DecoderLM(ModelConfig(**{"vocab_size": 61, "max_seq_len": 64, "num_layers": 2,
                                    "d_model": 64, "num_heads": 2, "d_ff": 128} | changes)).eval()


@pytest.fixture
def file(tmp_path):
    return save_compressed(quantize(tiny(), "nf4"), tmp_path / "model.safetensors")


@pytest.mark.parametrize("changes", [
    {}, {"tie_embeddings": True}, {"bias": "all", "norm": "layer", "positions": "learned"}])
@pytest.mark.parametrize(("kind", "options"), [
    ("int8", {}), ("int4", {"symmetric": False, "skip": ("blocks.0",)}), ("nf4", {"double": True})])
@torch.no_grad()
def test_what_was_saved_comes_back(changes, kind, options, tmp_path):
    model = quantize(tiny(**changes), kind, **options)
    path = save_compressed(model, tmp_path / "model.safetensors")
    back = load_compressed(path)
    assert torch.equal(back(IDS), model(IDS)) and not back.training
    assert size_in_bytes(back) == size_in_bytes(model)
    assert path.stat().st_size < size_in_bytes(model) + 20_000
    if "tie_embeddings" in changes:
        assert back.lm_head.packed is back.token_embedding.packed


def test_it_comes_back_in_a_fresh_process_and_never_holds_the_old_weights(tmp_path):
    model = quantize(tiny(vocab_size=64_000), "int4")
    path = save_compressed(model, tmp_path / "model.safetensors")
    code = f"""
import resource, torch
from scratchbook.compression import load_compressed
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = load_compressed({str(path)!r})
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
with torch.no_grad():
    print(grown * 1024, model(torch.arange(9)[None]).double().sum().item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, total = map(float, done.stdout.split())
    with torch.no_grad():
        assert total == model(IDS).double().sum().item()
    assert grown < 4 * 64_000 * 64 * 2 * 0.9  # bytes of the two float32 tables


@pytest.mark.parametrize("family", ["gpt2", "llama 3.1"])
@torch.no_grad()
def test_models_of_transformers_come_back_into_their_skeleton(family, tmp_path):
    model = quantize(build(family), "nf4", 16)
    path = save_compressed(model, tmp_path / "model.safetensors")
    assert torch.equal(load_compressed(path, build(family))(IDS).logits, model(IDS).logits)
    with pytest.raises(ValueError, match="build one from its config and give it as `model`"):
        load_compressed(path)
    with pytest.raises(ValueError, match="model.safetensors cannot be loaded.*the given one is"):
        load_compressed(path, tiny())


@pytest.mark.parametrize("place", [3, 40, 900, -1, -5000, "half", "empty"])
def test_a_damaged_file_is_refused_by_name(file, place):
    data = bytearray(file.read_bytes())
    if place == "half":
        data = data[: len(data) // 2]
    elif place == "empty":
        data = bytearray()
    else:
        data[place] ^= 0x55
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_compressed(file)


def test_a_foreign_file_is_refused_by_name(file, tmp_path):
    for metadata in (None, {"format": "pt"}, {"plan": "no json"}, {"plan": "[]"}, {"plan": "{}"}):
        save_file({"weight": torch.ones(2)}, other := tmp_path / "other.safetensors", metadata)
        with pytest.raises(ValueError, match="other.safetensors was not written by save_compress"):
            load_compressed(other)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_compressed(tmp_path / "nowhere")
    plan = json.dumps({"format": "scratchbook compressed model", "version": 9})
    save_file(load_file(file), file, {"plan": plan})
    with pytest.raises(ValueError, match="is of version 9"):
        load_compressed(file)


def test_another_model_is_refused(file):
    with pytest.raises(ValueError, match=r"token_embedding is of shape \(61, 32\) in the given"):
        load_compressed(file, tiny(d_model=32))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_compressed(file, tiny(num_layers=1))
    with pytest.raises(ValueError, match="tensors are not those of this model"):
        load_compressed(file, tiny(num_layers=3))


def test_a_model_that_is_not_quantized_is_not_saved_here(tmp_path):
    with pytest.raises(ValueError, match="call `quantize` first, or save it by save_pretrained"):
        save_compressed(tiny(), tmp_path / "model.safetensors")
