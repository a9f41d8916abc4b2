"""Squeezed files come back the same, and numpy alone reads them as torch does."""

import copy
import runpy
import subprocess
import sys

import numpy as np
import pytest
import torch

from scratchbook.companions import numpy_reader
from scratchbook.companions.numpy_reader import NumpyReader
from scratchbook.compression import load_compressed, quantize, quantize_awq, save_compressed
from scratchbook.compression.measuring import peak_memory
from scratchbook.compression.squeezing import load_squeezed, save_squeezed
from scratchbook.config import ModelConfig
from scratchbook.generation import generate
from scratchbook.model import DecoderLM


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = DecoderLM(ModelConfig(vocab_size=200, max_seq_len=64, num_layers=2, d_model=64,
                                  num_heads=4, num_kv_heads=2, d_ff=128, tie_embeddings=True))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.2)
    return model.eval()


def test_a_squeezed_file_is_smaller_and_comes_back_the_same(model, tmp_path):
    small = quantize(model, "int4", "tensor")
    plain, squeezed = save_compressed(small, tmp_path / "a"), save_squeezed(small, tmp_path / "b")
    assert squeezed.stat().st_size < 0.9 * plain.stat().st_size
    ids = torch.arange(20)[None]
    assert torch.equal(load_squeezed(squeezed)(ids), load_compressed(plain)(ids))


def test_what_is_no_squeezed_file_is_refused(model, tmp_path):
    small = quantize(model, "int4", "tensor")
    plain, squeezed = save_compressed(small, tmp_path / "a"), save_squeezed(small, tmp_path / "b")
    with pytest.raises(ValueError, match="load_compressed"):
        load_squeezed(plain)
    (tmp_path / "c").write_bytes(squeezed.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cut short"):
        load_squeezed(tmp_path / "c")
    with pytest.raises(FileNotFoundError):
        load_squeezed(tmp_path / "d")


@pytest.mark.parametrize(("kind", "group"), [("int4", "tensor"), ("int4", "channel"),
                                             ("int4", 32), ("int8", "channel"), ("int8", 32)])
def test_numpy_reads_as_torch_does(model, tmp_path, kind, group):
    small = quantize(model, kind, group)
    for path in (save_compressed(small, tmp_path / "a"), save_squeezed(small, tmp_path / "b")):
        reader, ids = NumpyReader(path), [5, 9, 120, 7, 7, 33]
        logits, _ = reader.run(ids)
        expected = small(torch.tensor([ids]))[0].detach().numpy()
        np.testing.assert_allclose(logits, expected, atol=2e-4, rtol=1e-4)
        first, past = reader.run(ids[:4])
        second, _ = reader.run(ids[4:], past)
        np.testing.assert_allclose(np.concatenate([first, second]), logits, atol=1e-4)
        assert reader(ids, 12) == generate(small, ids, 12, temperature=0.0)


def test_numpy_reads_columns_that_awq_scaled(model, tmp_path):
    batches = [torch.randint(200, (2, 32), generator=torch.Generator().manual_seed(1))]
    small = quantize_awq(copy.deepcopy(model), batches, "int4", 32)
    logits, _ = NumpyReader(save_compressed(small, tmp_path / "a")).run([3, 1, 4])
    expected = small(torch.tensor([[3, 1, 4]]))[0].detach().numpy()
    np.testing.assert_allclose(logits, expected, atol=2e-4, rtol=1e-4)


def test_what_numpy_does_not_know_is_refused(model, tmp_path):
    for number, change in enumerate(({"kind": "nf4"}, {"kind": "int4", "double": True},
                                     {"kind": "int8", "symmetric": False})):
        path = save_compressed(quantize(copy.deepcopy(model), **change), tmp_path / str(number))
        with pytest.raises(ValueError, match="load_compressed"):
            NumpyReader(path)
    other = DecoderLM(model.config.with_(norm="layer"))
    with pytest.raises(ValueError, match="norm='layer'"):
        NumpyReader(save_compressed(quantize(other, "int8"), tmp_path / "x"))


def test_the_reader_runs_by_itself_in_little_memory(model, tmp_path):
    path = save_squeezed(quantize(model, "int4", "channel"), tmp_path / "a")
    done = subprocess.run([sys.executable, "-I", numpy_reader.__file__, str(path), "5", "9"],
                          capture_output=True, text=True, check=True)
    assert [int(word) for word in done.stdout.split()] == NumpyReader(path)([5, 9], 32)
    code = (f"import runpy, sys\nreader = runpy.run_path({numpy_reader.__file__!r})\n"
            f"reader['NumpyReader']({str(path)!r})([5, 9], 4)\nassert 'torch' not in sys.modules")
    assert peak_memory(code) < 64e6
    assert "torch" not in runpy.run_path(numpy_reader.__file__)
