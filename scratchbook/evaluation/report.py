"""Everything about one model in one dictionary: surprise, tests, signals, each with intervals.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from torch import nn

from scratchbook.data import python_manual, standard_library
from scratchbook.evaluation.code_tests import Writer, run_tests, writer
from scratchbook.evaluation.comparing import bootstrap
from scratchbook.evaluation.perplexity import score_text
from scratchbook.evaluation.text_signals import signals, words_of
from scratchbook.generation import generate

OPENINGS = ("def ", "class ", "import ", "    def __init__(self", "    for ", "    if ", "# The ",
            "    \"\"\"Return ")


def evaluate(model: nn.Module, tokenizer: object, texts: Mapping[str, str], tests: bool = True,
             controls: Mapping[str, Writer] | None = None, seed: int = 0) -> dict[str, Any]:
    """Measure a model on texts by name and, with `tests`, on the code tests and its own samples.

    Numbers that are infinite become None, so that the result is JSON.

    Raises:   ValueError where the tokenizer cannot encode a text, or the model gives NaN
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    start = time.process_time()
    result: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocab_size": tokenizer.vocab_size,
        "texts": {name: surprise(model, tokenizer, text) for name, text in texts.items()}}
    if tests:
        result["tests"] = run_tests(writer(model, tokenizer))
        result["controls"] = {name: run_tests(write) for name, write in (controls or {}).items()}
        result["samples"] = samples(model, tokenizer, seed=seed)
        known = words_of(texts.values()) | _common_words()
        result["known_vocabulary"] = len(known)
        rows = [signals([sample], known) for sample in result["samples"]]
        result["signals"] = {name: bootstrap([row[name] for row in rows])._asdict()
                             for name in rows[0]}
    return result | {"cpu_seconds": round(time.process_time() - start, 2)}


@cache
def _common_words() -> set[str]:
    """Words that Python's manual and a megabyte of its library use: no model is judged by 500."""
    return words_of([python_manual(), *standard_library(1_000_000)])


def surprise(model: nn.Module, tokenizer: object, text: str) -> dict[str, Any]:
    """Loss, perplexity and bits per byte of one text, the perplexity with its interval.

    Raises:   ValueError when the model gives no numbers
    """
    score = score_text(model, tokenizer, text, min(model.config.max_seq_len, 128))
    if math.isnan(score.loss):
        raise ValueError("the loss is nan: the model diverged or its weights are damaged; take an "
                         "earlier checkpoint")
    loss = bootstrap([n / c for n, c in score.windows], [c for _, c in score.windows])
    bits = score.bits_per_byte
    return {"loss": score.loss, "perplexity": score.perplexity, "low": math.exp(loss.low),
            "high": math.exp(loss.high), "bits_per_byte": bits if bits < math.inf else None,
            "tokens": score.tokens, "num_bytes": score.num_bytes}


def samples(model: nn.Module, tokenizer: object, length: int = 160, temperature: float = 0.8,
            seed: int = 0, openings: Sequence[str] = OPENINGS) -> list[str]:
    """One continuation of each opening, at temperature 0.8 and top-k 40."""
    prompts = [tokenizer.encode(text) for text in openings]
    length = min(length, model.config.max_seq_len - max(map(len, prompts)))
    written = generate(model, prompts, length, temperature, top_k=40, seed=seed)
    return [tokenizer.decode([*prompt, *new]) for prompt, new in zip(prompts, written, strict=True)]
