"""Experiment E07.6: methods stacked; every file measured on the disk, in memory, by the clock.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from scratchbook.accounting import total_parameters
from scratchbook.companions.compression_material import (
    FULL,
    WAYS,
    Sizes,
    bits,
    kept,
    mark,
    new_student,
    recipe,
    round_later,
    score,
    teach,
    windows,
)
from scratchbook.compression import quantize, save_compressed, size_in_bytes
from scratchbook.compression.measuring import (
    disk_bytes,
    first_token_seconds,
    peak_memory,
    writing_speed,
)
from scratchbook.compression.shrinking import keep_layers, spread_layers
from scratchbook.compression.sparse_files import save_sparse
from scratchbook.data.batches import Windows
from scratchbook.evaluation.code_tests import run_tests, writer
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.tokenizers.base import Tokenizer

RATES = {"grown": 0.0006, "student": 0.01}  # the middle ones of the experiments before
LONGER = 4  # a student of the pipeline trains so many times as long as those that are compared
BITS = 4.8  # of a weight in int4, with its share of scales and of the file's head, at most
STUDENT = 1_000_000  # parameters, embeddings included
IN_A_FRESH_PROCESS = """
from scratchbook.compression import load_compressed
from scratchbook.compression.sparse_files import load_sparse
from scratchbook.generation import generate
generate({load}({path!r}), [1, 2, 3], 16, temperature=0.0)
"""

Made = tuple[nn.Module, int, str]  # the model, its parameters, what it asked for


def pipeline(model: DecoderLM, tokenizer: Tokenizer, seeds: Sequence[int],
             runs: Path | None = None, sizes: Sizes | None = None) -> dict[str, Any]:
    """The model in files that become smaller, the first of them in float32.

    What trains does so once, with the first seed: intervals are over windows of the text.

    Shapes:   -> {"rows": [{"name", "needs", "parameters", "bytes", "bits", "windows",
              "tokens_per_second", "p50", "p95", "peak_bytes", "tests"}]}
    Chapter:  chapters/07_compression.ipynb
    """
    sizes, seed = sizes or FULL, seeds[0]
    data = windows(tokenizer, sizes, seed)
    plan = {"seed": seed, "sizes": asdict(sizes), "teacher": mark(model)}
    return {"rows": [kept(partial(_row, name, make, tokenizer, data), runs,
                          what=f"pipeline {name}", **plan)
                     for name, make in _stages(model, tokenizer, sizes, seed).items()]}


def _stages(model: DecoderLM, tokenizer: Tokenizer, sizes: Sizes, seed: int
            ) -> dict[str, Callable[[], Made]]:
    """How each model of the pipeline is made, by its name."""
    data, count = windows(tokenizer, sizes, seed), total_parameters(model.config)
    smallest = int(size_in_bytes(model) / 100 * 8 / BITS)
    third = max(1, len(model.blocks) // 3)
    grown = recipe(sizes.grown_steps, RATES["grown"], sizes, seed, "adamw")
    learn = partial(_student, model, data, sizes, seed)
    return {
        "float32": lambda: (model, count, "nothing"),
        "int8": lambda: (quantize(copy.deepcopy(model), "int8"), count, "nothing"),
        "nf4": lambda: (quantize(copy.deepcopy(model), "nf4", double=True), count, "nothing"),
        "int4, QAT": lambda: (round_later(model, data, grown, "int4", "channel", True,
                                          teacher=model), count, "text and some training"),
        f"{third} layers, int4": lambda: _fewer(model, data, sizes, seed, third),
        "student, int4": lambda: learn(STUDENT),
        "smallest student, int4": lambda: learn(smallest)}


def _fewer(model: DecoderLM, data: Windows, sizes: Sizes, seed: int, layers: int) -> Made:
    """Layers at even distances, trained by the whole model, then with the rounding in place."""
    longer = recipe(LONGER * sizes.grown_steps, RATES["grown"], sizes, seed, "adamw")
    small = keep_layers(model, spread_layers(len(model.blocks), layers))
    teach(small, model, data, longer, WAYS["soft labels"])
    return (round_later(small, data, replace(longer, max_steps=sizes.grown_steps,
                                             warmup_steps=0), "int4", "channel", True,
                        teacher=model), total_parameters(small.config), "text and training")


def _student(model: DecoderLM, data: Windows, sizes: Sizes, seed: int, budget: int) -> Made:
    """A new model of at most `budget` parameters that learns from the large one, then rounding."""
    student = new_student(model, budget, seed)
    teach(student, model, data, recipe(LONGER * sizes.student_steps, RATES["student"], sizes, seed),
          WAYS["soft labels"])
    grown = recipe(sizes.grown_steps, RATES["grown"], sizes, seed, "adamw")
    return (round_later(student, data, grown, "int4", "channel", True, teacher=model),
            total_parameters(student.config), "text and long training")


def _row(name: str, make: Callable[[], Made], tokenizer: Tokenizer, data: Windows
         ) -> dict[str, Any]:
    """Make one model, write its file, and measure both."""
    model, parameters, needs = make()
    plain = name == "float32"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        (save_sparse if plain else save_compressed)(model, path)
        code = IN_A_FRESH_PROCESS.format(load="load_sparse" if plain else "load_compressed",
                                         path=str(path))
        size, peak = disk_bytes(path), peak_memory(code)
    write = partial(generate, model, temperature=0.0)
    prompts = [data.validation_ids[at : at + 32].tolist() for at in range(0, 20 * 8, 8)]
    found = score(model, data)
    tests = run_tests(writer(model, tokenizer))
    return {"name": name, "needs": needs, "parameters": parameters, "bytes": size,
            "bits": bits(model, data), "windows": [list(pair) for pair in found.windows],
            "tokens_per_second": writing_speed(write, prompts[0]),
            **first_token_seconds(write, prompts), "peak_bytes": peak,
            "tests": {test: {key: entry[key] for key in ("passed", "total", "share", "low", "high")}
                      for test, entry in tests.items()}}
