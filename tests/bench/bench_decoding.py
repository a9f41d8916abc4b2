"""How fast a model of GPT-2's size decodes: ours, ours in `fast_decoding`, and transformers.

    python -m tests.bench.bench_decoding            about four minutes; records the result
    python -m tests.bench.bench_decoding --quick    one round; records nothing

All have the same weights, run in one process on one thread, in turns, and are timed in CPU seconds.
A step is what 32 more tokens cost, divided by 32, so the prompt is not in it. Each round also
reads the weights and does nothing else: no decoder can be faster than that. Ratios are taken
within a round, and their median counts. Before a time counts, the tokens are compared.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from scratchbook.config import PRESETS
from scratchbook.evaluation.comparing import bound_verdict
from scratchbook.fast_decoding import compile_library, fast_decoding
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.teaching.results import record
from scratchbook.weights import load_pretrained

ROUNDS, PROMPT, FEW, MANY = 7, 16, 4, 36
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TARGETS = {("float32", 1): 1.5, ("bfloat16", 1): 1.8, ("float32", 8): 1.0, ("bfloat16", 8): 1.0}
Row = dict[str, Any]


def seconds_of(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def step_of(decode: Callable[[int], Any]) -> float:
    """CPU seconds for each of the tokens behind the first few."""
    few = seconds_of(lambda: decode(FEW))
    return (seconds_of(lambda: decode(MANY)) - few) / (MANY - FEW)


def readers() -> list[Callable[[Tensor], Any]]:
    """Ways of reading a tensor; which is fastest differs from processor to processor."""
    library = compile_library(Path(__file__).with_name("reading.cpp"))
    found = []
    for function in (library.sum_1, library.sum_4, library.sum_8):
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_long], ctypes.c_float
        found.append(lambda weight, function=function: function(
            weight.data_ptr(), weight.nbytes // 4))
    return found


def contestants(theirs: nn.Module, ours: DecoderLM, ids: Tensor) -> dict[str, Callable]:
    mask, prompts = torch.ones_like(ids), ids.tolist()
    untouched = copy.deepcopy(ours)  # fast_decoding moves the weights to large pages

    def transformers_generate(count: int) -> list[list[int]]:
        written = theirs.generate(ids, attention_mask=mask, max_new_tokens=count,
                                  do_sample=False, eos_token_id=None, pad_token_id=0)
        return written[:, ids.shape[1]:].tolist()

    def plain(count: int) -> list[list[int]]:
        return generate(untouched, prompts, count, temperature=0)

    def fast(count: int) -> list[list[int]]:
        with fast_decoding(ours) as reason:
            assert reason is None, reason
            return generate(ours, prompts, count, temperature=0)

    return {"transformers": transformers_generate, "plain": plain, "fast": fast}


def race(theirs: nn.Module, ours: DecoderLM, batch: int, rounds: int) -> dict[str, list[float]]:
    ids = torch.randint(ours.config.vocab_size, (batch, PROMPT))
    decoders = contestants(theirs, ours, ids)
    written = {who: decode(MANY) for who, decode in decoders.items()}
    if ours.lm_head.weight.dtype == torch.float32:  # bfloat16 rounds ties away
        assert written["transformers"] == written["plain"] == written["fast"]
    weights = [m.weight for m in ours.modules() if isinstance(m, nn.Linear)]
    seconds: dict[str, list[float]] = {who: [] for who in ["reading", *decoders]}
    for _ in range(rounds):
        seconds["reading"].append(min(seconds_of(lambda read=read: [read(w) for w in weights])
                                      for read in readers()))
        for who, decode in decoders.items():
            seconds[who].append(step_of(decode))
    return seconds


def row(kind: str, batch: int, who: str, seconds: dict[str, list[float]], size: int) -> Row:
    mine, limit = seconds[who], statistics.median(seconds["reading"])
    step = statistics.median(mine)
    return {
        "type": kind, "batch": batch, "who": who, "rounds": len(mine),
        "milliseconds": round(1e3 * step, 2), "fastest": round(1e3 * min(mine), 2),
        "slowest": round(1e3 * max(mine), 2), "tokens_per_second": round(batch / step, 2),
        "gigabytes_per_second": round(size / step / 1e9, 2),
        "share_of_limit": round(limit / step, 3),
    }


def ratio(kind: str, batch: int, who: str, seconds: dict[str, list[float]]) -> Row:
    def against(others: list[float]) -> list[float]:
        return [a / b for a, b in zip(seconds["transformers"], others, strict=True)]

    found, target = against(seconds[who]), TARGETS[kind, batch]
    median = statistics.median(found)
    return {
        "type": kind, "batch": batch, "who": who, "ratio": round(median, 3),
        "lowest": round(min(found), 3), "highest": round(max(found), 3), "target": target,
        "verdict": bound_verdict(found, at_least=target),
        "at_the_limit": round(statistics.median(against(seconds["reading"])), 3),
    }


def bench_decoding(rounds: int) -> tuple[list[Row], list[Row]]:
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_pretrained(folder).eval()
    rows, ratios = [], []
    for kind, dtype in TYPES.items():
        theirs, ours = theirs.to(dtype), ours.to(dtype)
        size = sum(m.weight.nbytes for m in ours.modules() if isinstance(m, nn.Linear))
        for batch in (1, 8):
            seconds = race(theirs, ours, batch, rounds)
            rows += [row(kind, batch, who, seconds, size) for who in seconds]
            ratios += [ratio(kind, batch, who, seconds) for who in ("plain", "fast")]
            for each in [*rows[-4:], *ratios[-2:]]:
                print("  ".join(f"{key}={value}" for key, value in each.items()), flush=True)
    return rows, ratios


@torch.no_grad()
def bench_forward(runs: int = 15) -> Row:
    model = DecoderLM(PRESETS["mini-27m"]).eval()
    ids = torch.randint(model.config.vocab_size, (1, 128))
    model(ids)
    seconds = [seconds_of(lambda: model(ids)) for _ in range(runs)]
    median = 1e3 * statistics.median(seconds)
    return {"model": "mini-27m", "tokens": 128, "milliseconds": round(median, 2),
            "slowest": round(1e3 * max(seconds), 2), "target": 100.0,
            "verdict": bound_verdict([1e3 * one for one in seconds], at_most=100.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round; records nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    forward = bench_forward()
    print(forward, flush=True)
    rows, ratios = bench_decoding(1 if quick else ROUNDS)
    if not quick:
        record(
            "decoding_speed",
            {"rows": rows, "ratios": ratios, "forward": forward,
             "versions": {"transformers": transformers.__version__}},
            seeds=[0],
            command="python -m tests.bench.bench_decoding",
        )


if __name__ == "__main__":
    main()
