"""Chapter 07b's window policies, measured over texts of ten window lengths.

    python -m scratchbook.companions.inference_windows

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scratchbook.base_model import base_documents, load_base
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator
from scratchbook.serving.windows import (
    Policy,
    cached_losses,
    reread_losses,
    restart,
    summarise,
    truncate,
)
from scratchbook.teaching.results import record
from scratchbook.tokenizers import BPETokenizer

COMMAND = "python -m scratchbook.companions.inference_windows"
SIZE, WINDOWS, STEP = 256, 10, 64


def long_texts(tokenizer: BPETokenizer, time: int) -> Tensor:
    """The beginning of every held-out document that is long enough, one from each.

    Shapes:   -> (texts, time)
    """
    _, held = base_documents()
    rows = (tokenizer.encode_ordinary(document.text)[:time] for document in held)
    return torch.tensor([row for row in rows if len(row) == time])


def by_chance(ids: Sequence[int], segment: range, recent: int) -> float:
    """The worth of a segment that a control draws, the same whenever it is asked."""
    return torch.rand((), generator=named_generator(segment.start, f"extract {len(ids)}")).item()


def policies(size: int) -> dict[str, Policy]:
    """Those that read anew: how they are called on the page, and what they keep."""
    head, half = size // 16, size // 2
    extract = 3 * head  # head + extract + recent are half of the window, as with truncate
    return {
        "restart": restart,
        "truncate to half": truncate(half),
        "head and recent": summarise(head, 0, half - head),
        "summary": summarise(head, extract, half - head - extract),
        "summary by chance": summarise(head, extract, half - head - extract, worth=by_chance),
        f"slide by {STEP}": truncate(size - STEP + 1),
    }


def measure(model: DecoderLM, ids: Tensor, size: int) -> dict[str, Any]:
    """For each policy its loss in each window of each text, and tokens read for one written."""
    found: dict[str, tuple[Tensor, float]] = {
        name: reread_losses(model, ids, policy, size) for name, policy in policies(size).items()}
    for sinks in (0, 4):
        found[f"cache, {sinks} sinks"] = cached_losses(model, ids, size, sinks), 1.0
    found["no limit"] = reread_losses(model, ids, restart, ids.shape[1])[0], 1.0
    return {name: {"losses": losses.unflatten(1, (WINDOWS, size)).mean(-1).tolist(), "read": read}
            for name, (losses, read) in found.items()}


def main() -> None:
    """Measure with the model's own window and record."""
    torch.set_num_threads(1)
    model, tokenizer = load_base()
    ids = long_texts(tokenizer, WINDOWS * SIZE + 1)
    numbers = {"texts": len(ids), "size": SIZE, "policies": measure(model, ids, SIZE)}
    record("07b_inference_engine.windows", numbers, seeds=[0], command=COMMAND)


if __name__ == "__main__":
    main()
