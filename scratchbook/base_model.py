"""The course's own base model: what the later chapters shrink, adapt and serve.

It was trained once on what every reader has, the standard library of Python and its manual, and
travels with the package in eight bits per weight. `data/base/README.md` is its card: recipe,
figures, limits. `scratchbook.companions.base_training` trains it again.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from scratchbook.compression import load_compressed
from scratchbook.compression.layers import QuantizedEmbedding, QuantizedLinear
from scratchbook.data import library_documents
from scratchbook.data.documents import Document
from scratchbook.model import DecoderLM
from scratchbook.runtime import data_dir
from scratchbook.tokenizers import BPETokenizer

WEIGHTS, TOKENIZER, HELD_OUT = "model.safetensors", "tokenizer.json", "held_out.json"
END = "<|endoftext|>"  # stands between the documents that it read
LEFT_OUT = ("encodings", "config-", "_sysconfigdata")  # tables of characters; one machine's build


def base_folder() -> Path:
    """The folder of the shipped base model, in a checkout or in the installed package."""
    return data_dir() / "base"


def load_base(folder: str | Path | None = None) -> tuple[DecoderLM, BPETokenizer]:
    """The base model in float32, in eval mode, and its tokenizer.

    Its weights are those of the shipped copy: multiples of a scale for every 64 of them. The
    model that is measured and shrunk in the chapters is this one.

    Raises:   FileNotFoundError when the folder holds no base model, ValueError for a damaged one
    Chapter:  chapters/07_compression.ipynb
    """
    folder = base_folder() if folder is None else Path(folder)
    missing = [name for name in (WEIGHTS, TOKENIZER) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} holds no {missing[0]}: install the package again, or "
                                "train the model with scratchbook.companions.base_training")
    tokenizer = BPETokenizer.load(folder / TOKENIZER)
    return in_float(load_compressed(folder / WEIGHTS)), tokenizer


@torch.no_grad()
def in_float(model: DecoderLM) -> DecoderLM:
    """A float32 model with the weights that a quantized one computes with.

    Chapter:  chapters/07_compression.ipynb
    """
    state = {name: tensor for name, tensor in model.state_dict().items() if ".packed." not in name}
    for name, layer in model.named_modules():
        if isinstance(layer, QuantizedLinear | QuantizedEmbedding):
            state[f"{name}.weight"] = layer.dequantize().float()
    with torch.random.fork_rng(devices=[]):  # the numbers drawn here are written over
        plain = DecoderLM(model.config)
    plain.load_state_dict(state)
    return plain.eval()


def base_documents() -> tuple[list[Document], list[Document]]:
    """(training, held out): this Python's library, without tables, and the topics of its manual.

    What was held out when the base model was trained is held out by name, so that another
    version of Python keeps the split; no held-out document shared thirteen words in a row with
    training then.

    Chapter:  chapters/07_compression.ipynb
    """
    held = set(json.loads((base_folder() / HELD_OUT).read_text(encoding="utf-8")))
    documents = all_documents()
    return ([d for d in documents if d.name not in held],
            [d for d in documents if d.name in held])


def all_documents() -> list[Document]:
    """What the base model may read: source files and topics of the manual, each a document."""
    from pydoc_data.topics import topics

    code = [d for d in library_documents() if not d.name.startswith(LEFT_OUT)]
    return code + [Document(f"manual/{name}", topics[name], "manual") for name in sorted(topics)]
