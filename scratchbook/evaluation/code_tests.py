"""Small tests that a model of code passes or fails: seven groups of forty prompts and more.

A model is anything that continues texts: `write(prompts, length)` returns the next `length`
characters of each. So an n-gram table or a program that writes only `)` can be tested, too, and
should be: a share of 60 % means little until it is known what a trick reaches. The prompts are
in `data/code_tests.json`; what is a right continuation is decided here.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from scratchbook.evaluation.comparing import wilson
from scratchbook.evaluation.sandbox import run_program
from scratchbook.evaluation.text_signals import parses
from scratchbook.generation import generate
from scratchbook.runtime import data_dir

Writer = Callable[[Sequence[str], int], list[str]]
CLOSING = {"(": ")", "[": "]", "{": "}"}


def read_tests() -> dict[str, dict[str, Any]]:
    """Every test by name: what it asks, the length of an answer, its judge and its prompts."""
    return json.loads((data_dir() / "code_tests.json").read_text(encoding="utf-8"))


def run_tests(write: Writer, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """Give each test's prompts to a model; returns shares with intervals and every outcome.

    `prompts` is a fingerprint: results with different ones must not be compared.

    Raises:   ValueError for a test that does not exist, or a writer that loses a prompt
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    tests, results = read_tests(), {}
    for name in tests if names is None else names:
        if name not in tests:
            raise ValueError(f"no test is called {name!r}; there are: {', '.join(tests)}")
        prompts, judge = tests[name]["prompts"], JUDGES[tests[name]["judge"]]
        written = write([prompt["text"] for prompt in prompts], tests[name]["length"])
        outcomes = [int(judge(p, text)) for p, text in zip(prompts, written, strict=True)]
        share = wilson(sum(outcomes), len(outcomes))
        mark = hashlib.sha256(json.dumps(tests[name], sort_keys=True).encode()).hexdigest()
        results[name] = {"passed": sum(outcomes), "total": len(outcomes), "share": share.value,
                         "low": share.low, "high": share.high, "outcomes": outcomes,
                         "prompts": mark[:12]}
    return results


def writer(model: nn.Module, tokenizer: object) -> Writer:
    """A model as a writer of its likeliest tokens.

    Where tokens are pieces of words, white space at a prompt's end would be cut where the model
    never saw a cut: it is left out, and taken off the answer again.

    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    def write(prompts: Sequence[str], length: int) -> list[str]:
        bodies = [text.rstrip() if hasattr(tokenizer, "merges") else text for text in prompts]
        tails = [text[len(body):] for text, body in zip(prompts, bodies, strict=True)]
        count = length + max(map(len, tails))
        room = model.config.max_seq_len - count
        if room < 1:
            raise ValueError(f"answers of {count} tokens do not fit into max_seq_len="
                             f"{model.config.max_seq_len}")
        found = generate(model, [tokenizer.encode(body)[-room:] for body in bodies], count,
                         temperature=0)
        return [tokenizer.decode(new).removeprefix(tail)[:length]
                for new, tail in zip(found, tails, strict=True)]

    return write


class NGram:
    """A control: continues with what most often followed the longest known ending of the text.

    Raises:   ValueError when order is below 1 or there is no text
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """

    def __init__(self, text: str, order: int = 6):
        if order < 1 or not text:
            raise ValueError(f"order={order} and {len(text)} characters of text are not enough")
        self.order = order
        counts: dict[str, Counter] = defaultdict(Counter)
        for size in range(order):
            for end in range(size, len(text)):
                counts[text[end - size : end]][text[end]] += 1
        self.next = {context: max(found, key=found.get) for context, found in counts.items()}

    def __call__(self, prompts: Sequence[str], length: int) -> list[str]:
        return [self._continue(text, length) for text in prompts]

    def _continue(self, text: str, length: int) -> str:
        start = len(text)
        for _ in range(length):
            endings = (text[len(text) - size :] for size in range(self.order - 1, -1, -1))
            text += next(self.next[ending] for ending in endings if ending in self.next)
        return text[start:]


def only_closing(prompts: Sequence[str], length: int) -> list[str]:
    """A control: writes `)` and nothing else."""
    return [")" * length for _ in prompts]


def same_indentation(prompts: Sequence[str], length: int) -> list[str]:
    """A control: begins the next line as far in as the last one."""
    last = [text.rstrip("\n").rpartition("\n")[2] for text in prompts]
    return [line[: len(line) - len(line.lstrip())] + "pass" for line in last]


def _closes(prompt: dict, text: str) -> bool:
    depth = 0
    for character in text:
        depth += character in CLOSING
        if character in CLOSING.values():
            if not depth:
                return character == prompt["right"]
            depth -= 1
    return False


def _next_word(prompt: dict, text: str) -> bool:
    found = re.match(r"\s*(\w+)(?=\W)", text)
    return bool(found) and found[1] in prompt["right"]


def _indented(prompt: dict, text: str) -> bool:
    found = re.match(r"(?:[ \t]*\n)*( *)[^\s)\]}]", text)
    return bool(found) and len(found[1]) in prompt["right"]


def _starts(prompt: dict, text: str) -> bool:
    return text.startswith(prompt["right"])


def _behaves(prompt: dict, text: str) -> bool:
    program = prompt["text"] + text.split("\n")[0]
    if not parses(program + "\n"):
        return False  # no process for what cannot run
    name = re.search(r"^(?:def|class) (\w+)", program, re.MULTILINE)[1]
    tests = f"{name} = program.{name}\n{prompt['right']}\n"
    return run_program(f"{program}\n", seconds=1.0, tests=tests).passed


JUDGES = {"closes": _closes, "next_word": _next_word, "indented": _indented, "starts": _starts,
          "behaves": _behaves}
