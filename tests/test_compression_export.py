"""Export: other models than the Llama-like one, what cannot be written, and models left alone."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from scratchbook.compression.export_gguf import export_gguf, interleaved, q4_0_blocks, q8_0_blocks
from scratchbook.compression.export_onnx import OnnxWriter, export_onnx
from scratchbook.compression.pruning import magnitude_scores, prune_channels, prune_heads
from scratchbook.compression.sparse_files import save_sparse
from scratchbook.config import ModelConfig, RopeSettings
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.positions import RotaryEmbedding
from scratchbook.runtime import named_generator
from scratchbook.tokenizers import BPETokenizer, CharTokenizer
from tests.random_models import random_model

LLAMA = ModelConfig(vocab_size=300, max_seq_len=48, num_layers=2, d_model=32, num_heads=4,
                    num_kv_heads=2, d_ff=64)
TEXT = " ".join(str(number**3) for number in range(300))


def build(config: ModelConfig = LLAMA) -> DecoderLM:
    return random_model(config)


def test_blocks_by_hand() -> None:
    row = np.zeros((1, 32), dtype=np.float32)
    row[0, :4] = [127, -63.5, 2.5, 1.4]
    codes = q8_0_blocks(row)[0]
    assert codes[:2].view(np.float16) == 1.0
    assert codes[2:6].view(np.int8).tolist() == [127, -64, 3, 1]  # halves go away from zero
    row[0, :3], row[0, 16] = [-8, 7, 0.4], 3
    codes = q4_0_blocks(row)[0]
    assert codes[:2].view(np.float16) == 1.0 and len(codes) == 18
    assert [codes[2] & 15, codes[2] >> 4, codes[3] & 15, codes[4] & 15] == [0, 11, 15, 8]


@pytest.mark.parametrize("blocks", [q8_0_blocks, q4_0_blocks])
def test_zeros_stay_zeros_and_other_rows_are_refused(blocks) -> None:
    zeros = blocks(np.zeros((2, 64), dtype=np.float32))
    assert not np.ascontiguousarray(zeros[:, :2]).view(np.float16).any()
    with pytest.raises(ValueError, match="rows of 33 weights cannot be cut into blocks of 32"):
        blocks(np.ones((2, 33), dtype=np.float32))


def test_rows_in_the_other_order_give_the_same_scores() -> None:
    """llama.cpp turns pairs of neighbours: on permuted rows that is what we do on halves."""
    weight = torch.randn(16, 12, generator=named_generator(0, "w"))  # two heads of 8
    x = torch.randn(1, 5, 12, generator=named_generator(0, "x"))
    places = torch.arange(5)
    ours = RotaryEmbedding(8)((x @ weight.T).unflatten(-1, (2, 8)).transpose(1, 2), places)
    theirs = (x @ interleaved(weight, 8).T).unflatten(-1, (2, 8)).transpose(1, 2)
    pairs = torch.view_as_complex(theirs.unflatten(-1, (4, 2)).contiguous())
    angles = places[:, None] * 10_000.0 ** (-torch.arange(0, 8, 2) / 8)
    turned = torch.view_as_real(pairs * torch.polar(torch.ones(5, 4), angles)).flatten(-2)
    torch.testing.assert_close(ours @ ours.mT, turned @ turned.mT, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_another_model_in_onnx(tmp_path) -> None:
    changes = {"feedforward": "gelu", "norm": "layer", "positions": "learned", "bias": "all",
               "tie_embeddings": True, "num_kv_heads": 4, "dropout": 0.1, "window": 5,
               "qk_norm": True}
    model = build(LLAMA.with_(**changes)).train()
    path = export_onnx(model, tmp_path / "model.onnx")
    assert model.training and "forward" not in vars(model) | vars(model.positions or model)
    model.eval()
    writer = OnnxWriter(path)
    whole = torch.randint(300, (2, 20), generator=named_generator(0, "ids"))
    first, past = writer.run(whole[:, :13].numpy())
    second, _ = writer.run(whole[:, 13:].numpy(), past)
    expected = model(whole).numpy()
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), expected, atol=4e-5)
    assert writer([1, 2, 3], 30) == generate(model, [1, 2, 3], 30, temperature=0.0)


@torch.no_grad()
def test_a_pruned_model_is_exported_as_small_as_it_is(tmp_path) -> None:
    import gguf

    model = build()
    prune_heads(model, magnitude_scores(model), 1)
    prune_channels(model, magnitude_scores(model), 32)
    reader = gguf.GGUFReader(export_gguf(model, tmp_path / "small.gguf", "F32"))
    assert sum(t.n_elements for t in reader.tensors) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("changes", [
    {"layout": "post"}, {"positions": "learned"}, {"feedforward": "gelu"}, {"norm": "layer"},
    {"bias": "qkv"}, {"qk_norm": True}, {"window": 4},
    {"latent_dim": 8, "num_kv_heads": 4}, {"rope": RopeSettings(scaling="linear", factor=2.0)},
], ids=lambda changes: next(iter(changes)))
def test_what_a_llama_of_gguf_is_not_is_refused_by_name(changes: dict, tmp_path) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(changes))}[=.]"):
        export_gguf(build(LLAMA.with_(**changes)), tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_bad_input_is_refused_with_the_way_out(tmp_path) -> None:
    path = tmp_path / "model.gguf"
    with pytest.raises(ValueError, match="kind='Q5_0' is unknown; choose one of F32"):
        export_gguf(build(), path, "Q5_0")
    with pytest.raises(ValueError, match="d_ff=40 is no multiple of it; take F16"):
        export_gguf(build(LLAMA.with_(d_ff=40)), path, "Q4_0")
    with pytest.raises(ValueError, match="num_heads [*] head_dim=48"):
        export_gguf(build(LLAMA.with_(head_dim=12)), path, "Q8_0")
    with pytest.raises(ValueError, match="CharTokenizer cannot be written"):
        export_gguf(build(), path, tokenizer=CharTokenizer().train("abc"))
    with pytest.raises(ValueError, match="BPETokenizer cannot be written"):
        export_gguf(build(), path, tokenizer=BPETokenizer())  # llama.cpp wants merges
    with pytest.raises(ValueError, match="the tokenizer has 301 tokens, the model room for 300"):
        export_gguf(build(), path, tokenizer=BPETokenizer().train(TEXT, 301))
    broken = build()
    broken.blocks[0].feedforward.up_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        export_gguf(broken, path)
    with pytest.raises(ValueError, match="latent_dim=8"):
        export_onnx(build(LLAMA.with_(latent_dim=8, num_kv_heads=4)), tmp_path / "model.onnx")
    wrapped = copy.deepcopy(build())
    wrapped.blocks[0].attention.q_proj = nn.Sequential(wrapped.blocks[0].attention.q_proj)
    for write in (export_gguf, export_onnx, save_sparse):
        with pytest.raises(ValueError, match="q_proj.*merge adapters and dequantize layers first"):
            write(wrapped, tmp_path / "file")
        with pytest.raises(ValueError, match="Linear is no DecoderLM"):
            write(nn.Linear(2, 2), tmp_path / "file")
    assert not list(tmp_path.iterdir())  # nothing half-written is left


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_what_float16_cannot_hold_is_refused(kind: str, tmp_path) -> None:
    model = build()
    with torch.no_grad():
        model.blocks[0].feedforward.up_proj.weight[0, 0] = 1e8
    with pytest.raises(ValueError, match="does not fit into float16"):
        export_gguf(model, tmp_path / "model.gguf", kind)
    assert not (tmp_path / "model.gguf").exists()
    assert export_gguf(model, tmp_path / "model.gguf", "F32").is_file()


@pytest.mark.parametrize(("special", "end"), [(["<|user|>", "<|endoftext|>"], "<|endoftext|>"),
                                              (["<|user|>"], None)], ids=["named", "none"])
def test_a_text_ends_at_its_own_token_alone(special: list, end: str | None, tmp_path) -> None:
    gguf = pytest.importorskip("gguf")
    tokenizer = BPETokenizer(pattern="gpt2").train(TEXT, 290, special)
    path = export_gguf(build(), tmp_path / "model.gguf", "F32", tokenizer)
    field = gguf.GGUFReader(path).get_field("tokenizer.ggml.eos_token_id")
    assert (field and field.contents()) == tokenizer.special_tokens.get(end)


def test_a_graph_computes_in_float32_alone(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"take model\.float\(\)"):
        export_onnx(build().bfloat16(), tmp_path / "model.onnx")
