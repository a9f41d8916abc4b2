"""The Smalltalk model in the page computes what the package computes, from the same file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from scratchbook.companions.smalltalk_page import BEGINNINGS, page_scripts
from scratchbook.compression import quantize, save_compressed
from scratchbook.config import RopeSettings
from scratchbook.model import DecoderLM
from scratchbook.runtime import data_dir
from scratchbook.smalltalk.records import ClassRecord
from scratchbook.smalltalk_model import (
    RECIPES,
    load_smalltalk,
    prompt_ids,
    settle,
    write_method,
)
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer
from tests.js.test_smalltalk_tokens_js import record_of
from tests.js.test_tokens_js import fuzz
from tests.node import passed, run_figure

SHIPPED = data_dir() / "smalltalk_model"
SCHEMES = {
    "nf4": ("nf4", 16), "nf4, double": ("nf4", 16, True, True), "int4, zeros": ("int4", 8, False),
    "int8 by rows": ("int8", "channel"), "int8, one scale, zero": ("int8", "tensor", False),
    "fp4 by rows": ("fp4", "channel"), "int4": ("int4", 32),
}
BEGUN = ("deposit: anAmount", "deposit: anAmo", "foo ^ sel", "at: i put: v\n\t| x |\n\tx := ", "")
NAMES = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj",
         "feedforward.gate_proj", "feedforward.up_proj", "feedforward.down_proj")


def tokenizer_of() -> SmalltalkTokenizer:
    texts = ["deposit: anAmount\n\tbalance := balance + anAmount", "foo ^ self size", *fuzz(50)]
    return SmalltalkTokenizer().train(texts, vocab_size=341)  # no multiple of four


def tiny(vocab_size: int, tied: bool = True, seed: int = 0) -> DecoderLM:
    torch.manual_seed(seed)
    config = RECIPES["small"].model.with_(
        vocab_size=vocab_size, num_layers=2, d_model=32, num_heads=4, num_kv_heads=4, head_dim=8,
        d_ff=64, max_seq_len=420, tie_embeddings=tied, rope=RopeSettings(base=500.0))
    model = DecoderLM(config).eval()
    for parameter in model.parameters():
        parameter.data *= 6  # a trained model's logits are larger than a fresh one's
    return model


def saved(model: torch.nn.Module, tokenizer: SmalltalkTokenizer, folder: Path) -> Path:
    folder.mkdir()
    save_compressed(model, folder / "model.safetensors")
    tokenizer.save(folder / "tokenizer.json")
    return folder


def folders(root: Path) -> Iterator[tuple[str, Path]]:
    """Files of every kind of code, one with an own head, one with parts left as they were."""
    tokenizer = tokenizer_of()
    size = tokenizer.vocab_size
    for number, (name, scheme) in enumerate(SCHEMES.items()):
        model = quantize(tiny(size, tied=number != 1, seed=number), *scheme)
        yield name, saved(model, tokenizer, root / f"model{number}")
    model = quantize(tiny(size, seed=20), "int8", 8, skip=["token_embedding", "blocks.1"])
    yield "part in float32", saved(model, tokenizer, root / "skipped")
    model = quantize(tiny(size, seed=21).bfloat16(), "int8", skip=["blocks.0"])
    yield "part in bfloat16", saved(model, tokenizer, root / "bfloat16")


@torch.no_grad()
def case(name: str, folder: Path, root: Path) -> dict:
    """A model's scripts, and all that torch says of it; long lists of numbers go to files."""
    model, tokenizer = load_smalltalk(folder)
    key = f"{folder.name}-"

    def keep(what: str, values: torch.Tensor) -> str:
        file = root / f"{key}{what}.f32"
        file.write_bytes(values.float().contiguous().numpy().tobytes())
        return file.name

    prompts = prompts_of(model, tokenizer)
    logits = [keep(f"logits{i}", model(torch.tensor([ids]))[0]) for i, ids in enumerate(prompts)]
    return {
        "name": name, "scripts": list(page_scripts(folder).values()),
        "prompts": prompts, "logits": logits,
        "attention": keep("attention", attention_of(model, prompts[0])),
        "weights": weights_of(model, keep),
        "greedy": greedy_of(model, tokenizer), "prompted": prompted_of(model, tokenizer)}


def prompts_of(model: DecoderLM, tokenizer: SmalltalkTokenizer) -> list[list[int]]:
    room, draw = model.config.max_seq_len, torch.Generator().manual_seed(5)
    full = torch.randint(tokenizer.vocab_size, (room,), generator=draw).tolist()
    first = BEGINNINGS[0]
    usual = prompt_ids(tokenizer, first.record, first.begun, seq_len=room)[:room]
    short = [prompt_ids(tokenizer, None, begun)[:room] for begun in BEGUN[1:3]]
    return [usual, full, full[:1], *short]


def attention_of(model: DecoderLM, ids: list[int]) -> torch.Tensor:
    """What every head looks at; (layers, heads, time, time)."""
    found: list[torch.Tensor] = []

    def look(module, inputs, kwargs):
        found.append(module.forward(inputs[0], return_weights=True)[1][0])

    hooks = [block.attention.register_forward_pre_hook(look, with_kwargs=True)
             for block in model.blocks]
    model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


def weights_of(model: DecoderLM, keep) -> dict[str, str]:
    found = {"embedding": keep("embedding", model.token_embedding.weight),
             "head": keep("head", model.lm_head.weight)}
    for layer, block in enumerate(model.blocks):
        for place, name in enumerate(NAMES):
            weight = block.get_submodule(name).weight
            found[f"{layer}/{place}"] = keep(f"weight{layer}.{place}", weight)
    return found


def greedy_of(model: DecoderLM, tokenizer: SmalltalkTokenizer) -> list[dict]:
    """What `write_method` writes at temperature 0, to its end or for a few tokens."""
    record, most = BEGINNINGS[0].record, 12
    return [{"record": record_of(record), "begun": begun, "most": most, "valid": False,
             "source": write_method(model, tokenizer, record, begun, max_new_tokens=most,
                                    temperature=0)} for begun in BEGUN[:3]]


def prompted_of(model: DecoderLM, tokenizer: SmalltalkTokenizer) -> list[dict]:
    long = ClassRecord("Long", "Object", ("a",), comment="many words " * 60, category="Tests")
    between = ClassRecord("Between", "Object", tuple(f"v{i}" for i in range(24)), category="X")
    endless = ClassRecord("Endless", "Object", tuple(f"v{i}" for i in range(300)))
    quoted = ClassRecord("Quoted", "", comment=' "it" is\n quoted ', category="X")
    cases = []
    for record in (None, *(each.record for each in BEGINNINGS), long, between, endless, quoted):
        for begun in BEGUN:
            settled, _ = settle(begun)
            ids = prompt_ids(tokenizer, record, settled, seq_len=model.config.max_seq_len)
            cases.append({"record": record and record_of(record), "begun": begun,
                          "settled": settled, "ids": ids})
    lengths = {len(each["ids"]) for each in cases if not each["begun"]}
    assert len(lengths) >= 4, lengths  # whole, without their comments, and left out
    return cases


def choices() -> list[dict]:
    draw, found = torch.Generator().manual_seed(3), []
    for temperature, top_k in ((1.0, 0), (0.5, 5), (2.0, 3), (0.1, 1), (1.3, 30), (0, 0)):
        logits = (torch.randn(12, generator=draw) * 4).float()
        cut = logits.double() / (temperature or 1e-9)
        if 0 < top_k < 12:
            cut = cut.masked_fill(cut < cut.topk(top_k).values[-1], -torch.inf)
        found.append({"logits": logits.tolist(), "temperature": temperature, "top_k": top_k,
                      "probs": cut.softmax(dim=0).tolist()})
    return found


def run(cases: list[dict], tmp_path: Path) -> str:
    return run_figure("smalltalk_model", tmp_path, {"models": cases, "choices": choices()})


def test_smalltalk_model(tmp_path):
    cases = [case(name, folder, tmp_path) for name, folder in folders(tmp_path)]
    assert len(cases) == len(SCHEMES) + 2
    assert passed(run(cases, tmp_path)) == 14


def test_the_shipped_model(tmp_path):
    said = run([case("shipped", SHIPPED, tmp_path)], tmp_path)
    assert "tokens a second" in said


def test_scripts_of_another_model_have_another_digest(tmp_path):
    first, second = (saved(quantize(tiny(341, seed=seed)), tokenizer_of(), tmp_path / str(seed))
                     for seed in (1, 2))
    one, other = page_scripts(first), page_scripts(second)
    assert one.keys() == other.keys() and len(one) >= 2
    digests = {json.loads(script.partition(" = ")[2].rstrip(";\n")).get("of")
               for script in (one["smalltalk_weights_1.js"], other["smalltalk_weights_1.js"])}
    assert len(digests) == 2 and None not in digests
    assert page_scripts(first) == one


def test_a_folder_without_weights_is_refused(tmp_path):
    shutil.copy(SHIPPED / "tokenizer.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        page_scripts(tmp_path)
