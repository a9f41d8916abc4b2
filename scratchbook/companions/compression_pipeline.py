"""Experiment E07.6: methods stacked; every file measured on the disk, in memory, by the clock.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import copy
import hashlib
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from scratchbook.accounting import total_parameters
from scratchbook.companions import numpy_reader
from scratchbook.companions.compression_material import (
    FULL,
    WAYS,
    Sizes,
    judged_on,
    kept,
    kept_file,
    mark,
    new_student,
    recipe,
    round_later,
    score,
    teach,
    windows,
)
from scratchbook.companions.numpy_reader import NumpyReader
from scratchbook.compression import (
    load_compressed,
    quantize,
    quantize_gptq,
    save_compressed,
    size_in_bytes,
)
from scratchbook.compression.measuring import (
    disk_bytes,
    first_token_seconds,
    peak_memory,
    writing_speed,
)
from scratchbook.compression.shrinking import keep_layers, spread_layers
from scratchbook.compression.sparse_files import load_sparse, save_sparse
from scratchbook.compression.squeezing import load_squeezed, save_squeezed
from scratchbook.data.batches import Windows
from scratchbook.evaluation.code_tests import run_tests, writer
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.training import TrainConfig
from scratchbook.weights import save_pretrained

LONGER = 4  # models of the pipeline train so many times as long as those that are compared
CALIBRATED = 4  # batches of text that GPTQ looks at
BITS = 4.8  # of a weight in int4, with its share of scales and of the file's head, at most
STUDENT = 1_000_000  # parameters, embeddings included
TESTED = ("passed", "total", "share", "low", "high", "outcomes")  # of each code test
READER_TARGET = 64_000_000  # bytes in which numpy alone should run the smallest model
FORMATS = {"sparse": (save_sparse, load_sparse), "compressed": (save_compressed, load_compressed),
           "squeezed": (save_squeezed, load_squeezed)}
IN_A_FRESH_PROCESS = """
from scratchbook.compression import load_compressed
from scratchbook.compression.sparse_files import load_sparse
from scratchbook.compression.squeezing import load_squeezed
from scratchbook.generation import generate
generate(load_{word}({path!r}), [1, 2, 3], 16, temperature=0.0)
"""
BY_NUMPY_ALONE = """
import runpy, sys
runpy.run_path({reader!r})["NumpyReader"]({path!r})([1, 2, 3], 16)
assert "torch" not in sys.modules
"""

Stage = tuple[str, int, Callable[[], nn.Module]]  # what it asks for, steps of training, the way


def pipeline(model: DecoderLM, tokenizer: Tokenizer, seeds: Sequence[int],
             rates: Mapping[str, float], runs: Path | None = None, sizes: Sizes | None = None
             ) -> dict[str, Any]:
    """The model in files that become smaller, the first of them in float32.

    `rates` are those that `distillation` and `qat` chose. What trains does so once, with the
    first seed: intervals are over windows of the text. Speeds are measured in turns, after all
    files are made.

    Shapes:   -> {"rows": [{"name", "needs", "tokens": of training, "parameters", "bytes", "bits",
              "windows", "tests", "peak_bytes", "reader_peak_bytes": by numpy alone, or None,
              "tokens_per_second", "speed_ratio": to the first row, "p50", "p95"}],
              "empty_peak_bytes": of importing torch, "reader_target_bytes", "rates", "seed",
              "judged", "seq_len"}
    Chapter:  chapters/07_compression.ipynb
    """
    sizes, seed = sizes or FULL, seeds[0]
    rates = {name: rates[name] for name in ("soft labels", "progressive", "QAT")}
    data = windows(tokenizer, sizes, seed)
    plan = {"seed": seed, "sizes": asdict(sizes), "teacher": mark(model), "rates": rates}
    rows, models = [], {}
    for name, (needs, steps, make) in _stages(model, data, sizes, seed, rates).items():
        save, load = FORMATS[format_of(name)]
        path = kept_file(lambda place, make=make, save=save: save(make(), place), runs,
                         what=f"pipeline {name}", steps=steps, **plan)
        models[name] = load(path)
        judged = kept(partial(_judged, models[name], format_of(name), path, tokenizer, data), runs,
                      what=f"pipeline row {name}", data=data.fingerprint(),
                      file=hashlib.sha256(path.read_bytes()).hexdigest())
        rows.append({"name": name, "needs": needs,
                     "tokens": steps * sizes.batch_size * sizes.seq_len} | judged)
    speeds = _in_turns(models, prompts_of(data))
    return {"rows": [row | speeds[row["name"]] for row in rows],
            "empty_peak_bytes": peak_memory("import torch"),
            "reader_target_bytes": READER_TARGET, "rates": rates, "seed": seed,
            **judged_on(sizes)}


def format_of(name: str) -> str:
    """In which of the formats a row's file is written."""
    return "sparse" if name == "float32" else (
        "squeezed" if name.endswith("squeezed") else "compressed")


def _stages(model: DecoderLM, data: Windows, sizes: Sizes, seed: int, rates: Mapping[str, float]
            ) -> dict[str, Stage]:
    """How each model of the pipeline is made, by its name."""
    def rounded(kind: str, group_size: int | str | None = "channel", **more: bool
                ) -> Callable[[], nn.Module]:
        return lambda: quantize(copy.deepcopy(model), kind, group_size, **more)

    smallest = int(size_in_bytes(model) / 100 * 8 / BITS)
    third = max(1, len(model.blocks) // 3)
    short, long = sizes.grown_steps, LONGER * sizes.grown_steps
    text = [data.batch(step, sizes.batch_size).ids for step in range(CALIBRATED)]
    grown = recipe(short, rates["QAT"], sizes, seed, "adamw")
    fewer = partial(_fewer, model, data, recipe(long, rates["progressive"], sizes, seed, "adamw"))
    lessons = LONGER * sizes.student_steps
    taught = f"text and training (here {lessons} steps)"
    learn = partial(_student, model, data, recipe(lessons, rates["soft labels"], sizes, seed))
    return {
        "float32": ("nothing", 0, lambda: model),
        "int8": ("nothing", 0, rounded("int8", None)),
        "nf4": ("nothing", 0, rounded("nf4", None, double=True)),
        "int4": ("nothing", 0, rounded("int4")),
        "int4, zero point": ("nothing", 0, rounded("int4", symmetric=False)),
        "int4, QAT": ("text and some training", short, lambda: round_later(
            model, data, grown, "int4", "channel", True)),
        "nf4, a matrix, squeezed": ("nothing", 0, rounded("nf4", "tensor")),
        "int4, a matrix, squeezed": ("nothing", 0, rounded("int4", "tensor")),
        "int4, a matrix, GPTQ, squeezed": ("a few windows of text", 0, lambda: quantize_gptq(
            copy.deepcopy(model), text, "int4", "tensor")),
        f"{2 * third} layers, int4": ("text and training", long, lambda: fewer(2 * third)),
        f"{third} layers, int4": ("text and training", long, lambda: fewer(third)),
        "student, int4": (taught, lessons, lambda: learn(STUDENT)),
        "smallest student, int4": (taught, lessons, lambda: learn(smallest))}


def _fewer(model: DecoderLM, data: Windows, config: TrainConfig, layers: int) -> nn.Module:
    """Layers at even distances, taught by the whole model, then rounded."""
    small = keep_layers(model, spread_layers(len(model.blocks), layers))
    teach(small, model, data, config, WAYS["soft labels"])
    return quantize(small, "int4", "channel")


def _student(model: DecoderLM, data: Windows, config: TrainConfig, budget: int) -> nn.Module:
    """A new model of at most `budget` parameters that learns from the large one, then rounded."""
    student = new_student(model, budget, config.seed)
    teach(student, model, data, config, WAYS["soft labels"])
    return quantize(student, "int4", "channel")


def _judged(model: DecoderLM, word: str, path: Path, tokenizer: Tokenizer, data: Windows
            ) -> dict[str, Any]:
    """What a file of the format `word`, and the model in it, measure, the clock left out."""
    tests, judged = run_tests(writer(model, tokenizer)), score(model, data)
    return {"parameters": total_parameters(model.config),
            "bytes": _plain_bytes(model) if word == "sparse" else disk_bytes(path),
            "bits": judged.bits_per_byte, "windows": [list(pair) for pair in judged.windows],
            "tests": {test: {key: entry[key] for key in TESTED} for test, entry in tests.items()},
            "peak_bytes": peak_memory(IN_A_FRESH_PROCESS.format(word=word, path=str(path))),
            "reader_peak_bytes": _by_numpy(path) if word != "sparse" else None}


def _plain_bytes(model: DecoderLM) -> int:
    """The file in float32 as other programs read it, from which the whole page counts."""
    with tempfile.TemporaryDirectory() as folder:
        return disk_bytes(save_pretrained(model, Path(folder) / "float32"))


def _by_numpy(path: Path) -> int | None:
    """The peak memory of a process that writes with numpy alone; None for codes it cannot read."""
    try:
        NumpyReader(path)
    except ValueError:
        return None
    return peak_memory(BY_NUMPY_ALONE.format(reader=numpy_reader.__file__, path=str(path)))


def prompts_of(data: Windows) -> list[list[int]]:
    """Twenty prompts of 32 tokens from held-out text."""
    return [data.validation_ids[at : at + 32].tolist() for at in range(0, 20 * 8, 8)]


def _in_turns(models: Mapping[str, nn.Module], prompts: Sequence[list[int]], rounds: int = 3
              ) -> dict[str, dict[str, float]]:
    """Speed and wait of each model, the middle of rounds in which every model has its turn.

    What else the machine does falls on all of them; a ratio is taken within its round.
    """
    writes = {name: partial(generate, model, temperature=0.0) for name, model in models.items()}
    first = next(iter(writes))
    found = []
    for _ in range(rounds):
        turn = {name: {"tokens_per_second": writing_speed(write, prompts[0], 32, 1)}
                | first_token_seconds(write, prompts) for name, write in writes.items()}
        for row in turn.values():
            row["speed_ratio"] = row["tokens_per_second"] / turn[first]["tokens_per_second"]
        found.append(turn)
    return {name: {key: statistics.median(turn[name][key] for turn in found)
                   for key in found[0][name]} for name in writes}
