"""How fast packed models decode, beside torchao's and onnxruntime's: batch one, one thread.

    python -m tests.bench.bench_compression            some six minutes; records the result
    python -m tests.bench.bench_compression --quick    two rounds, few tokens; records nothing

Two models: the course's own base, and one of 85 million random weights, more than the caches of
most processors hold. In each round all take their turn; a step is what more tokens cost, divided
by their number, in CPU seconds, so that the prompt is not in it. Ratios are taken within a round,
their means have 95 % intervals. Each round also reads the float weights and does nothing else:
that is the bandwidth from which the limit of every other format is predicted. Whatever cannot run
here is left out, with the reason printed and recorded.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scratchbook.base_model import load_base
from scratchbook.compression import quantize, size_in_bytes
from scratchbook.compression.export_onnx import OnnxWriter, export_onnx
from scratchbook.compression.pruning import linears
from scratchbook.config import ModelConfig
from scratchbook.evaluation.comparing import bound_verdict, paired
from scratchbook.fast_decoding import fast_decoding
from scratchbook.finetuning.quantized_base import dequantized
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.teaching.results import record
from tests.bench.bench_decoding import readers, seconds_of

ROUNDS, PROMPT, FEW, MANY = 5, 8, 4, 20
LARGE = ModelConfig(vocab_size=512, max_seq_len=64, num_layers=12, d_model=768, num_heads=12,
                    d_ff=3072, feedforward="gelu")  # 85 million weights in its blocks
KINDS = ("int8", "int4", "nf4")
TARGETS = (("int8", "fp32", 2.0), ("int4", "int8", 1.0))  # at least so many times as fast
Decode = Callable[[int], Any]


def of_this_package(model: DecoderLM, prompt: list[int]) -> dict[str, tuple[Decode, int]]:
    """Ways to decode, each with the bytes of the matrices that every step reads."""
    found = {"fp32": (partial(_write, model, prompt), bytes_read(model))}
    for kind in KINDS:
        packed = quantize(copy.deepcopy(model), kind)
        check_product(packed, prompt)
        found[kind] = partial(_write, packed, prompt), bytes_read(packed)
    return found


def bytes_read(model: nn.Module) -> int:
    """Of all linear layers, packed or not, with their scales; a table of tokens is looked up."""
    return size_in_bytes(nn.ModuleList(linears(model, ()).values()))


@torch.no_grad()
def check_product(packed: nn.Module, prompt: list[int]) -> None:
    """What is timed is right: a step gives the logits of the matrices that the codes stand for."""
    ids = torch.tensor([prompt[:2]])
    ours, plain = packed(ids), dequantized(packed)(ids)
    torch.testing.assert_close(ours, plain, atol=1e-3 * plain.abs().max().item(), rtol=0)


def _write(model: nn.Module, prompt: list[int], count: int) -> list[int]:
    return generate(model, [prompt], count, temperature=0)[0]


def by_fast_decoding(model: DecoderLM, prompt: list[int]) -> tuple[Decode, int]:
    """The same floats in the loops of chapter 05b: the strongest rival without fewer bits."""
    faster = copy.deepcopy(model)  # its weights are moved to large pages

    def decode(count: int) -> list[int]:
        with fast_decoding(faster) as reason:
            if reason:
                raise RuntimeError(reason)
            return _write(faster, prompt, count)

    decode(1)
    return decode, bytes_read(model)


def by_torchao(model: DecoderLM, prompt: list[int], kind: str) -> tuple[Decode, int]:
    """torchao's weights of few bits in the linear layers of the same model, not compiled."""
    from torchao import quantization

    how = {"torchao int8": quantization.Int8WeightOnlyConfig,
           "torchao int8, inputs too": quantization.Int8DynamicActivationInt8WeightConfig,
           "torchao int4": partial(quantization.Int4WeightOnlyConfig, group_size=32)}[kind]
    theirs = copy.deepcopy(model)
    quantization.quantize_(theirs, how())
    decode = partial(_write, theirs, prompt)
    decode(1)
    return decode, 0


def by_onnxruntime(model: DecoderLM, prompt: list[int], folder: Path) -> tuple[Decode, int]:
    """onnxruntime on the exported graph with its matrices rounded to int8 by its own tool."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole, small = folder / "whole.onnx", folder / "int8.onnx"
    export_onnx(model, whole)
    quantize_dynamic(whole, small, weight_type=QuantType.QInt8)
    writer = OnnxWriter(small)
    return partial(writer, prompt), small.stat().st_size


def contestants(model: DecoderLM, prompt: list[int], folder: Path
                ) -> tuple[dict[str, tuple[Decode, int]], dict[str, str]]:
    """Who runs here, and who does not with the reason."""
    found, missing = of_this_package(model, prompt), {}
    others: dict[str, Callable[[], tuple[Decode, int]]] = {
        name: partial(by_torchao, model, prompt, name)
        for name in ("torchao int8", "torchao int8, inputs too", "torchao int4")}
    others["fp32, fast_decoding"] = partial(by_fast_decoding, model, prompt)
    others["onnxruntime int8"] = partial(by_onnxruntime, model, prompt, folder)
    for name, make in others.items():
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                found[name] = make()
        except Exception as error:  # whatever another library raises, the others still run
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
            print(f"left out: {name}, {missing[name]}", flush=True)
    return found, missing


def race(model: DecoderLM, decoders: dict[str, tuple[Decode, int]], rounds: int, many: int
         ) -> dict[str, list[float]]:
    """CPU seconds a token of each, in turns; "reading" is one pass over the float weights."""
    weights = [linear.weight.detach() for linear in linears(model, ()).values()]
    ways = readers()
    seconds: dict[str, list[float]] = {name: [] for name in ["reading", *decoders]}
    for decode, _ in decoders.values():
        decode(FEW)
    for _ in range(rounds):
        seconds["reading"].append(min(
            seconds_of(lambda read=read: [read(weight) for weight in weights]) for read in ways))
        for name, (decode, _) in decoders.items():
            few = seconds_of(partial(decode, FEW))
            seconds[name].append((seconds_of(partial(decode, many)) - few) / (many - FEW))
    return seconds


def rows_of(whose: str, model: DecoderLM, decoders: dict[str, tuple[Decode, int]],
            seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """A line for each; the limit is the time in which memory hands over the bytes that it reads."""
    floats = sum(linear.weight.nbytes for linear in linears(model, ()).values())
    bandwidth = floats / statistics.median(seconds["reading"])
    rows = []
    for name, (_, size) in decoders.items():
        step = statistics.median(seconds[name])
        times = paired(ratios(seconds, "fp32", name), [0.0] * len(seconds[name]))
        limit = size / bandwidth
        rows.append({
            "model": whose, "engine": name, "MB": round(size / 1e6, 1) if size else "",
            "ms a token": round(1e3 * step, 2), "tokens/s": round(1 / step, 1),
            "times as fast as fp32": f"{times.value:.2f} [{times.low:.2f}, {times.high:.2f}]",
            "memory alone, ms": round(1e3 * limit, 2) if size else "",
            "share of that limit": f"{100 * limit / step:.0f} %" if size else ""})
    return rows


def ratios(seconds: dict[str, list[float]], slow: str, fast: str) -> list[float]:
    """How many times as fast the second is, round by round."""
    return [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]


def verdicts(whose: str, seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """The targets, met or missed by the interval over the rounds."""
    found = []
    for fast, slow, least in TARGETS:
        times = ratios(seconds, slow, fast)
        value, low, high = paired(times, [0.0] * len(times))
        found.append({"model": whose, "target": f"{fast} at least {least:g} times {slow}",
                      "times": round(value, 3), "low": round(low, 3), "high": round(high, 3),
                      "verdict": bound_verdict(times, at_least=least)})
    return found


def measure(whose: str, model: DecoderLM, rounds: int, many: int) -> dict[str, Any]:
    """Everything about one model."""
    prompt = torch.randint(model.config.vocab_size, (PROMPT,),
                           generator=torch.Generator().manual_seed(0)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        decoders, missing = contestants(model.eval(), prompt, Path(folder))
        seconds = race(model, decoders, rounds, many)
    floats = sum(linear.weight.nbytes for linear in linears(model, ()).values())
    found = {"rows": rows_of(whose, model, decoders, seconds), "missing": missing,
             "targets": verdicts(whose, seconds), "seconds": seconds,
             "gigabytes per second": round(floats / statistics.median(seconds["reading"]) / 1e9,
                                           2)}
    for line in [*found["rows"], *found["targets"]]:
        print("  ".join(f"{key}={value}" for key, value in line.items()), flush=True)
    return found


def versions() -> dict[str, str]:
    """Of the libraries that are no requirement of the package."""
    found = {}
    for name in ("torchao", "onnxruntime"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def main() -> None:
    """Measure both models, and record unless it is a quick look."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two rounds; records nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    torch.manual_seed(0)
    began, load = time.process_time(), [os.getloadavg()[0]]
    rounds, many = (2, FEW + 2) if quick else (ROUNDS, MANY)
    both = {"base": measure("base", load_base()[0], rounds, many),
            "85M": measure("85M, random", DecoderLM(LARGE).float(), rounds, many)}
    load.append(os.getloadavg()[0])
    print(f"{time.process_time() - began:.0f} CPU seconds; load {load[0]:.1f} to {load[1]:.1f}")
    if not quick:
        numbers = {part: [line for one in both.values() for line in one[part]]
                   for part in ("rows", "targets")}
        details = {name: {key: one[key] for key in ("missing", "seconds", "gigabytes per second")}
                   for name, one in both.items()}
        record("compression_speed", numbers | {"models": details, "rounds": rounds,
                                               "load": load, "versions": versions()},
               seeds=[0], command="python -m tests.bench.bench_compression")


if __name__ == "__main__":
    main()
