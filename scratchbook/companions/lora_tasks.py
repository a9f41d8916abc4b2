"""The tasks that chapter 08 fine-tunes the base on: small, of code, and new to it.

"calls" is to write a call from the head of a function, "tests" the head of a class that tests it.
The functions are those of this Python's standard library; those that are held out have other names.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from scratchbook.data import library_documents
from scratchbook.finetuning.data import (
    FineTuningData,
    bytes_of_answers,
    encode_example,
    parts_of,
)
from scratchbook.runtime import named_generator
from scratchbook.tokenizers import Tokenizer

TASKS = ("calls", "tests")
HELD_OUT = 64  # examples, the same for every seed
HEAD = re.compile(r"^ *def ([a-z][a-z0-9]*(?:_[a-z0-9]+)+)\(([\w, =]*)\):", re.MULTILINE)


@functools.cache
def functions(max_bytes: int | None = None) -> list[tuple[str, str, str]]:
    """(name, parameters, a call's arguments) of the library's functions, one for each name."""
    found: dict[str, tuple[str, str, str]] = {}
    for document in library_documents(max_bytes):
        for name, inside in HEAD.findall(document.text):
            parameters = [p.strip() for p in inside.split(",") if p.strip() not in ("", "self",
                                                                                     "cls")]
            if 1 <= len(parameters) <= 4 and name not in found:
                plain = [p.split("=")[0].strip() for p in parameters]
                call = ", ".join(f"{word}={word}" if "=" in p else word
                                 for word, p in zip(plain, parameters, strict=True))
                found[name] = name, ", ".join(parameters), call
    return [found[name] for name in sorted(found)]


def example(name: str, function: tuple[str, str, str]) -> dict[str, str]:
    """The line of JSON that one function makes for a task.

    Raises:   ValueError naming the tasks that there are
    """
    if name not in TASKS:
        raise ValueError(f"no task is called {name!r}; there are: {', '.join(TASKS)}")
    word, parameters, call = function
    head = f"def {word}({parameters}):\n"
    if name == "calls":
        return {"prompt": f"{head}# a call:\n", "completion": f"{word}({call})\n"}
    camel = "".join(part.capitalize() for part in word.split("_"))
    return {"prompt": f"{head}# a test:\n", "completion": f"class Test{camel}(TestCase):\n"}


def examples(name: str, count: int, seed: int) -> tuple[list[dict], list[dict]]:
    """(training, held out): the seed draws who is learned from; held out are always the same.

    Raises:   ValueError when the library has fewer functions
    """
    known = functions()
    order = torch.randperm(len(known), generator=named_generator(0, "held out")).tolist()
    rest = order[HELD_OUT:]
    if not 1 <= count <= len(rest):
        raise ValueError(f"count={count} is not within 1..{len(rest)}, the functions at hand")
    drawn = torch.randperm(len(rest), generator=named_generator(seed, f"draw {name}")).tolist()
    return ([example(name, known[rest[place]]) for place in drawn[:count]],
            [example(name, known[place]) for place in order[:HELD_OUT]])


def task(name: str, tokenizer: Tokenizer, count: int = 200, seed: int = 0) -> FineTuningData:
    """A task's examples as data for `scratchbook.training.train`."""
    train, held_out = ([encode_example(parts_of(fields), tokenizer) for fields in some]
                       for some in examples(name, count, seed))
    return FineTuningData(train, held_out, seed, bytes_of_answers(held_out, tokenizer))


def write_jsonl(name: str, path: Path, count: int = 200, seed: int = 0) -> Path:
    """Write the training examples of a task as a file for `scratchbook finetune`."""
    lines: list[Mapping] = examples(name, count, seed)[0]
    path.write_text("".join(json.dumps(fields) + "\n" for fields in lines), encoding="utf-8")
    return path


def shown(name: str, number: int = 0) -> str:
    """One held-out example to look at."""
    fields = examples(name, 1, 0)[1][number]
    return fields["prompt"] + fields["completion"].rstrip()
