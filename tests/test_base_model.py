"""The shipped base model: it loads anywhere, reads what it did not train on, and is not damaged."""

import json
import re
import shutil

import pytest
import torch

from scratchbook import base_model
from scratchbook.base_model import all_documents, base_documents, base_folder, in_float, load_base
from scratchbook.companions import base_training
from scratchbook.compression import load_compressed, quantize
from scratchbook.config import ModelConfig
from scratchbook.data.held_out import find_leaks
from scratchbook.model import DecoderLM


@pytest.fixture(scope="module")
def base():
    return load_base()


def test_it_is_float32_and_as_the_recipe_says(base):
    model, tokenizer = base
    assert {p.dtype for p in model.parameters()} == {torch.float32} and not model.training
    assert model.config == base_training.RECIPE.model
    assert tokenizer.vocab_size == model.config.vocab_size
    assert model.lm_head.weight is model.token_embedding.weight
    assert 5e6 < sum(p.numel() for p in model.parameters()) < 12e6


def test_it_computes_what_the_shipped_file_computes(base):
    shipped = load_compressed(base_folder() / base_model.WEIGHTS)
    ids = torch.tensor([base[1].encode("def read(path):\n    with open(path")])
    with torch.no_grad():
        torch.testing.assert_close(base[0](ids), shipped(ids), rtol=0, atol=1e-3)


def test_it_reads_held_out_text_as_its_card_says(base):
    documents = base_documents()[1]
    found = base_training.held_out_bits(*base, documents)
    card = (base_folder() / "README.md").read_text(encoding="utf-8")
    said = {name: float(re.search(rf"held-out {name} \| [\d.]+ \| ([\d.]+)", card)[1])
            for name in found}
    same = f"Python {base_training.platform.python_version()} " in card
    for name, bits in found.items():  # another version of Python has other held-out text
        assert abs(bits - said[name]) < (0.002 if same else 0.1), name


def test_nothing_held_out_leaks_and_the_end_is_one_token(base):
    training, held_out = base_documents()
    assert held_out and len(training) + len(held_out) == len(all_documents())
    leaks = find_leaks(training, held_out)
    assert len(leaks) <= len(held_out) // 20, leaks  # none where the Python is that of the card
    assert len(base[1].encode(base_model.END, allowed_special="all")) == 1
    assert not [d.name for d in training if d.name.startswith(base_model.LEFT_OUT)]


def test_the_float_copy_has_every_weight_of_a_quantized_model():
    config = ModelConfig(vocab_size=64, num_layers=1, d_model=32, num_heads=2, d_ff=96,
                         tie_embeddings=True)
    model = DecoderLM(config).eval()
    ids = torch.arange(8)[None]
    packed = quantize(model, "int8", group_size=16)
    state = torch.random.get_rng_state()
    plain = in_float(packed)
    assert torch.equal(state, torch.random.get_rng_state())
    assert set(plain.state_dict()) == set(DecoderLM(config).state_dict())
    torch.testing.assert_close(plain(ids), packed(ids), rtol=1e-4, atol=1e-5)


def test_a_folder_without_it_and_a_damaged_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no model.safetensors"):
        load_base(tmp_path)
    for name in (base_model.WEIGHTS, base_model.TOKENIZER):
        shutil.copy(base_folder() / name, tmp_path)
    file = tmp_path / base_model.WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="has changed since it was written"):
        load_base(tmp_path)


def test_training_and_shipping_in_small(tmp_path, monkeypatch):
    small = base_training.replace_sizes(max_steps=2, vocab_size=300, num_layers=1, d_model=64,
                                        num_heads=2, d_ff=128, batch_size=2)
    monkeypatch.setattr(base_training, "RECIPE", small)
    documents = base_documents()
    monkeypatch.setattr(base_training, "split", lambda: (documents[0][:5], documents[1][-1:]))
    model = base_training.train_base(tmp_path / "run")
    base_training.ship(tmp_path / "run", tmp_path / "base", model)
    shipped, tokenizer = load_base(tmp_path / "base")
    assert shipped.config.vocab_size == tokenizer.vocab_size == 300
    assert json.loads((tmp_path / "base" / base_model.HELD_OUT).read_text())
    assert "2 steps" in (tmp_path / "base" / "README.md").read_text()
