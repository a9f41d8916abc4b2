"""A small character model as data for the living figure `tiny_model`: half-precision weights.

The figure computes exactly the architecture that chapter 00 writes out. What it cannot know from
the weights alone (alphabet, context, number of heads) travels in the same dictionary.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from scratchbook.runtime import write_atomically
from scratchbook.teaching.live_figures import LIVE

PAGE_WEIGHTS = LIVE / "tiny_model_weights.js"
VARIABLE = "Scratchbook.tinyModelWeights"


def page_weights(model: nn.Module, letters: Sequence[str], context: int,
                 card: Mapping[str, object] | None = None) -> dict:
    """The model as a dictionary that JSON can hold and `live/tiny_model.js` can load.

    Half precision keeps three decimal digits, enough to sample from, at two bytes a weight.

    Raises:   ValueError when a weight does not fit into half precision, or the alphabet the model
    Chapter:  chapters/00_start_here.ipynb
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    halves = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    for name, half in halves.items():
        if not half.isfinite().all():
            raise ValueError(f"{name} holds {tensors[name].abs().max():.3g}, but half precision "
                             "ends at 65504: the training has diverged")
    vocab_size, d_model = tensors["token_embedding.weight"].shape
    if len(letters) != vocab_size:
        raise ValueError(f"{len(letters)} letters for a model with vocab_size={vocab_size}")
    config = {"d_model": d_model, "num_layers": len(model.blocks), "context": context,
              "num_heads": model.blocks[0].attention.num_heads}
    raw = b"".join(half.numpy().astype("<f2").tobytes() for half in halves.values())
    return {"config": config, "letters": "".join(letters), "card": dict(card or {}),
            "shapes": [[name, list(half.shape)] for name, half in halves.items()],
            "weights": base64.b64encode(raw).decode("ascii")}


def write_page_weights(path: str | Path, weights: Mapping[str, object]) -> Path:
    """Write the dictionary as a script: a page opened from a file may run one, but not fetch data.

    Chapter:  chapters/00_start_here.ipynb
    """
    text = json.dumps(weights, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    lines = ["// Written by the full profile of chapters/00_start_here.ipynb; do not edit.",
             "globalThis.Scratchbook = globalThis.Scratchbook || {};", f"{VARIABLE} = {text};"]
    return write_atomically(path, "\n".join(lines) + "\n")


def read_page_weights(path: str | Path) -> dict:
    """The dictionary that `write_page_weights` wrote.

    Raises:   ValueError when the file is not such a script
    """
    text = Path(path).read_text(encoding="utf-8")
    start, end = text.find(f"{VARIABLE} = "), text.rfind(";")
    if start < 0 or end < start:
        raise ValueError(f"{path} does not set {VARIABLE}: write it with write_page_weights")
    return json.loads(text[start + len(VARIABLE) + 3 : end])


def load_page_weights(model: nn.Module, weights: Mapping) -> None:
    """Put the rounded weights into a model of the same shapes, in the model's own precision.

    Raises:   RuntimeError (from torch) when names or shapes differ
    """
    flat = torch.frombuffer(bytearray(base64.b64decode(weights["weights"])), dtype=torch.float16)
    sizes = [torch.Size(shape).numel() for _, shape in weights["shapes"]]
    parts = zip(weights["shapes"], flat.split(sizes), strict=True)
    model.load_state_dict({name: part.view(shape) for (name, shape), part in parts})
