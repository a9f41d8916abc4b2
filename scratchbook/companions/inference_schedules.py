"""Chapter 07b's schedules: throughput and waiting times from 1 to 32 requests at once.

    python -m scratchbook.companions.inference_schedules

The clock is the time of the processor, one thread: it runs on only while the engine computes, so
that other programs of the machine count little.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from scratchbook.base_model import base_documents, load_base
from scratchbook.model import DecoderLM
from scratchbook.serving.engine import SCHEDULES, Engine
from scratchbook.serving.requests import Request
from scratchbook.teaching.results import record
from scratchbook.tokenizers import BPETokenizer

COMMAND = "python -m scratchbook.companions.inference_schedules"
AT_ONCE, SEEDS, PLACES = (1, 4, 8, 16, 32), tuple(range(8)), 8
SHORT, LONG, EQUAL = (4, 12), 96, 20  # new tokens; one request in eight is long


def held_out_ids(tokenizer: BPETokenizer, most: int = 60) -> list[list[int]]:
    """The beginnings of held-out documents, from which prompts are cut."""
    _, held = base_documents()
    found = (tokenizer.encode_ordinary(document.text[:4000]) for document in held[:most])
    return [ids for ids in found if len(ids) > 200]


def load(texts: Sequence[list[int]], count: int, seed: int, equal: bool = False) -> list[Request]:
    """Requests as they might come: prompts of 8 to 64 tokens, and how much each writes.

    Mixed, one in eight writes `LONG` tokens and the others a few; equal, all write `EQUAL` behind
    prompts of 36 tokens, which is about as many in all.
    """
    drawn, requests = random.Random(seed), []
    for number in range(count):
        ids, size = drawn.choice(texts), 36 if equal else drawn.randint(8, 64)
        start = drawn.randrange(len(ids) - size)
        new = EQUAL if equal else LONG if number % 8 == 3 else drawn.randint(*SHORT)
        requests.append(Request(ids[start : start + size], new))
    return requests


def timed(model: DecoderLM, requests: Sequence[Request], schedule: str, **options: Any
          ) -> dict[str, float]:
    """All requests come at once; how long each waits for its first token and for its last.

    Returns:  tokens a second, medians and 95 % points of both waits in seconds, steps, columns
    """
    engine = Engine(model, max_batch=PLACES, schedule=schedule, **options)
    for request in requests:
        engine.submit(request)
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    began = time.process_time()
    while not engine.idle:
        for event in engine.step():
            now = time.process_time() - began
            first.setdefault(event.request, now)
            last[event.request] = now
    stats, spent = engine.stats, time.process_time() - began
    return {"tokens_per_second": stats.new_tokens / spent, "seconds": spent,
            "steps": stats.steps, "columns": stats.columns, "new_tokens": stats.new_tokens,
            **_cuts("first", list(first.values())), **_cuts("last", list(last.values()))}


def _cuts(name: str, waits: list[float]) -> dict[str, float]:
    if len(waits) == 1:
        return {f"{name}_p50": waits[0], f"{name}_p95": waits[0]}
    cuts = statistics.quantiles(waits, n=20, method="inclusive")
    return {f"{name}_p50": cuts[9], f"{name}_p95": cuts[18]}


def main() -> None:
    """Time every schedule on both loads and record."""
    torch.set_num_threads(1)
    model, tokenizer = load_base()
    texts = held_out_ids(tokenizer)
    timed(model, load(texts, 2, 0), "continuous")  # in vain: the first run is slower
    numbers: dict[str, Any] = {kind: {schedule: {str(count): [] for count in AT_ONCE}
                                      for schedule in SCHEDULES} for kind in ("mixed", "equal")}
    for kind in numbers:
        for count in AT_ONCE:
            for seed in SEEDS:
                for schedule in SCHEDULES:  # side by side: a machine's speed drifts
                    asked = load(texts, count, seed, kind == "equal")
                    numbers[kind][schedule][str(count)].append(timed(model, asked, schedule))
    record("07b_inference_engine.schedules", numbers, seeds=SEEDS, command=COMMAND)


if __name__ == "__main__":
    main()
