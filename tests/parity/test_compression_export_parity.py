"""Exported files against what others make of them: onnxruntime, gguf, transformers, llama.cpp."""

import copy
from importlib.metadata import version

import numpy as np
import pytest
import torch

from scratchbook.compression.export_gguf import export_gguf, q4_0_blocks, q8_0_blocks
from scratchbook.compression.export_onnx import OnnxWriter, export_onnx
from scratchbook.config import ModelConfig, RopeSettings
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator
from scratchbook.smalltalk_model import RECIPES
from scratchbook.tokenizers import BPETokenizer

SIZES = {"vocab_size": 400, "max_seq_len": 64, "num_layers": 2, "d_model": 32, "num_heads": 4,
         "d_ff": 64}
LLAMAS = {
    "shared heads": ModelConfig(**SIZES, num_kv_heads=2, rope=RopeSettings(base=50_000.0)),
    "no gains, tied": ModelConfig(**SIZES, norm="rms_no_gain", tie_embeddings=True),
    "wide heads": ModelConfig(**SIZES, num_kv_heads=1, head_dim=16, norm_eps=1e-3),
}
TEXT = "def forward(self, x):\n    return 'é' + str(3) * 17  # twice\n" * 20


def build(config: ModelConfig) -> DecoderLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DecoderLM(config).eval()
        for weight in model.parameters():
            torch.nn.init.normal_(weight, mean=0.0 if weight.dim() > 1 else 1.0, std=0.2)
    return model


def ids(rows: int, length: int, name: str = "ids") -> torch.Tensor:
    return torch.randint(400, (rows, length), generator=named_generator(0, f"{name}{length}"))


def tokenizer() -> BPETokenizer:
    return BPETokenizer(pattern="gpt2").train(TEXT, 300, ["<|endoftext|>"])


@torch.no_grad()
def onnx_errors(run: OnnxWriter, model: DecoderLM, texts: list[list[torch.Tensor]],
                least: float = 0.1) -> list[float]:
    """Largest differences of logits for each text: piece by piece with a cache, and at once.

    `least` is what the largest logit must exceed: two models that answer nothing would be equal.
    """
    errors = []
    for pieces in texts:
        whole, past, found = torch.cat(pieces, dim=1), None, []
        for piece in pieces:
            logits, past = run(piece.numpy(), past)
            found.append(logits)
        expected = model(whole).numpy()
        assert np.abs(expected).max() > least
        errors.append(np.abs(np.concatenate(found, axis=1) - expected).max())
        errors.append(np.abs(run(whole.numpy())[0] - expected).max())
    return errors


@pytest.mark.slow
@torch.no_grad()
def test_an_onnx_file_answers_as_the_model_does(parity, tmp_path) -> None:
    """Whole, in pieces with a cache, one token at a time, in batches of other sizes."""
    model = build(LLAMAS["shared heads"])
    run = OnnxWriter(export_onnx(model, tmp_path / "model.onnx")).run
    wholes = [[ids(rows, length), ids(rows, 4, "more"), ids(rows, 1, "one")]
              for rows, length in ((1, 1), (1, 9), (3, 17), (2, 2))]
    errors = onnx_errors(run, model, wholes)
    assert parity("ONNX file, with and without its cache",
                  against=f"onnxruntime {version('onnxruntime')}", error=max(errors), bound=4e-5,
                  cases=len(errors))
    writer = OnnxWriter(tmp_path / "model.onnx")
    for seed in range(5):
        prompt = ids(1, 3 + seed)[0].tolist()
        assert writer(prompt, 24) == generate(model, prompt, 24, temperature=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
@torch.no_grad()
def test_smalltalk_models_answer_in_onnx_as_here(name: str, parity, tmp_path) -> None:
    """The recipes' widths, two layers of each; one file for all lengths, with a past or without."""
    config = RECIPES[name].model.with_(num_layers=2, vocab_size=400)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DecoderLM(config).eval()
    run = OnnxWriter(export_onnx(model, tmp_path / "model.onnx")).run
    wholes = [[ids(1, length), ids(1, 3, "more"), ids(1, 1, "one")] for length in (1, 100, 256)]
    errors = onnx_errors(run, model, wholes, least=1)
    assert parity(f"ONNX file of the Smalltalk model {name}, with and without its cache",
                  against=f"onnxruntime {version('onnxruntime')}", error=max(errors), bound=2e-5,
                  cases=len(errors))


@pytest.mark.parametrize(("kind", "blocks"), [("Q8_0", q8_0_blocks), ("Q4_0", q4_0_blocks)])
def test_blocks_equal_those_of_the_gguf_package(kind: str, blocks, parity) -> None:
    import gguf

    wrong, draw = [], np.random.default_rng(0)
    for size in (1e-7, 1e-3, 1.0, 40.0, 1e4):
        for shape in ((32,), (7, 32), (3, 64), (2, 5, 96), (40, 256)):
            weight = (draw.standard_normal(shape) * size).astype(np.float32)
            weight[..., :32] *= draw.integers(0, 2)  # a block of zeros now and then
            weight[..., 3] = np.abs(weight).max()  # and ties for the largest
            theirs = gguf.quants.quantize(weight, gguf.GGMLQuantizationType[kind])
            ours = blocks(weight)
            assert ours.dtype == np.uint8 and ours.shape == theirs.shape
            wrong.append(int((ours != theirs).sum()))
    assert parity(f"GGUF {kind} blocks, bytes that differ", against=f"gguf {version('gguf')}",
                  error=max(wrong), cases=len(wrong))


def as_stored(model: DecoderLM, kind: str) -> DecoderLM:
    """A copy whose matrices went into blocks and out again, by the package's own hand."""
    import gguf

    stored = copy.deepcopy(model)
    form = gguf.GGMLQuantizationType[kind]
    for weight in stored.parameters():
        if weight.dim() == 2:
            data = gguf.quants.quantize(weight.detach().numpy(), form)
            weight.data = torch.from_numpy(gguf.quants.dequantize(data, form).reshape(weight.shape))
    return stored


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0"])
@torch.no_grad()
def test_transformers_reads_a_gguf_file_and_answers_alike(kind: str, parity, tmp_path) -> None:
    import transformers

    errors = []
    for name, config in LLAMAS.items():
        model = build(config)
        export_gguf(model, tmp_path / f"{name}.gguf", kind, tokenizer())
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path, gguf_file=f"{name}.gguf", dtype=torch.float32).eval()
        expected = as_stored(model, kind)(ids(2, 19))
        errors.append((theirs(ids(2, 19)).logits - expected).abs().max().item())
    assert parity(f"GGUF file, {kind}", against=f"transformers {transformers.__version__} "
                  "gguf_file", error=max(errors), bound=1e-6, cases=len(errors))


def test_the_tokenizer_of_a_gguf_file_is_ours(parity, tmp_path) -> None:
    import transformers

    ours = tokenizer()
    export_gguf(build(LLAMAS["shared heads"]), tmp_path / "model.gguf", "F16", ours)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    texts = [TEXT, "", " ", "a  b\t\n\n c", "naïve 🙂 日本", "x<|endoftext|>y", "1234567890"]
    wrong = [theirs(text)["input_ids"] != ours.encode(text, allowed_special="all")
             for text in texts]
    assert parity("Tokenizer in a GGUF file", against=f"transformers {transformers.__version__} "
                  "gguf_file", error=sum(wrong), cases=len(texts))


def test_the_gguf_reader_finds_every_tensor_and_size(tmp_path) -> None:
    import gguf

    model, ours = build(LLAMAS["wide heads"]), tokenizer()
    path = export_gguf(model, tmp_path / "model.gguf", "Q8_0", ours, name="a name")
    reader = gguf.GGUFReader(path)
    values = {name: field.contents() for name, field in reader.fields.items()}
    assert values["general.architecture"] == "llama" and values["general.name"] == "a name"
    assert values["llama.attention.key_length"] == 16 and values["llama.block_count"] == 2
    assert values["llama.attention.head_count_kv"] == 1
    assert values["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-3)
    tokens = values["tokenizer.ggml.tokens"]
    assert len(tokens) == 400 and tokens[ours.special_tokens["<|endoftext|>"]] == "<|endoftext|>"
    assert len(values["tokenizer.ggml.merges"]) == len(ours.merges)
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert found["blk.0.attn_norm.weight"].tensor_type.name == "F32"
    assert found["blk.0.ffn_down.weight"].tensor_type.name == "Q8_0"
    assert sum(t.n_elements for t in reader.tensors) == sum(p.numel() for p in model.parameters())


def test_llama_cpp_writes_the_same_tokens(tmp_path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: it "
                                    "has no wheel here and takes long to compile")
    model = build(LLAMAS["shared heads"])
    path = export_gguf(model, tmp_path / "model.gguf", "F32", tokenizer())
    theirs = llama_cpp.Llama(str(path), n_ctx=64, n_threads=1, verbose=False)
    prompt = ids(1, 5)[0].tolist()
    written = [token for token, _ in zip(theirs.generate(prompt, temp=0.0), range(16),
                                         strict=False)]
    assert written == generate(model, prompt, 16, temperature=0.0)
