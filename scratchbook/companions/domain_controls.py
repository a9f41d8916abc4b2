"""Two controls of chapter 01b: which part of the hybrid costs tokens, and equal passes for models.

    python -m scratchbook.companions.domain_controls     # about five minutes on one core

The hybrid differs from its cut for code in two things: it switches by context, and it has whole
words. Each is taken alone. And at equal compute a model with fewer tokens reads its text more
often, so here plain BPE gets the operations for as many passes as the folded model makes, and the
folded model is stopped after as many passes as the plain one makes.

Chapter:  chapters/01b_domain_tokenizers.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from scratchbook.companions.domain_figures import FAIR, code_line, code_rows
from scratchbook.companions.domain_material import halves, library_halves
from scratchbook.companions.domain_models import (
    BATCH,
    BUDGET,
    HELD_OUT_LINES,
    SEQ_LEN,
    as_ids,
    bits,
    steps_for,
    trained,
)
from scratchbook.companions.domain_study import CUT_ALONE, VOCAB_SIZE, on_files
from scratchbook.teaching.figures import table
from scratchbook.teaching.results import record
from scratchbook.teaching.verdicts import Comparison, comparisons
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.tokenizers.domain import LogTokenizer
from scratchbook.tokenizers.folding import LINE
from scratchbook.tokenizers.hybrid import HybridTokenizer
from scratchbook.tokenizers.languages import LANGUAGES, Language

SEEDS = (0, 1, 2)
RATE = 3e-3  # the better of two for both, in domain_models
CUT = "the cut for code"
COMMAND = "python -m scratchbook.companions.domain_controls"


def parts() -> dict:
    """Tokens by held-out file of Python: the cut alone, with each addition, and with both."""
    learn, held_out = library_halves()
    python = LANGUAGES["python"]
    made = {"the cut for code": HybridTokenizer(CUT_ALONE),
            "and switching": HybridTokenizer(Language("switching", python.prose)),
            "and whole words": HybridTokenizer(Language("words", CUT_ALONE.prose, python.groups)),
            "and both: the hybrid": HybridTokenizer(python)}
    return on_files(held_out, {name: tokenizer.train(learn, VOCAB_SIZE)
                               for name, tokenizer in made.items()})


def passes() -> dict:
    """Bits per byte of held-out logs after few passes and after many, plain and folded."""
    first, second = ([*side.values()] for side in halves())
    second = ["".join(LINE.findall(text)[:HELD_OUT_LINES]) for text in second]
    num_bytes = sum(len(text.encode()) for text in second)
    made: dict[str, Tokenizer] = {"BPE, GPT-2's cut": BPETokenizer("gpt2"),
                                  "folded": LogTokenizer()}
    ids = {name: as_ids(made[name].train(first, VOCAB_SIZE), first) for name in made}
    read = steps_for(BUDGET, VOCAB_SIZE, SEQ_LEN) * BATCH
    often = {name: read / len(tokens) for name, tokens in ids.items()}  # at equal compute
    found: dict[str, dict] = {}
    for which, times in zip(("few passes", "many passes"), sorted(often.values()), strict=True):
        found[which] = {"passes": times, "operations": {}, "bits_per_byte": {}}
        for name, tokens in ids.items():
            share, held_out = times / often[name], as_ids(made[name], second)
            found[which]["operations"][name] = share * BUDGET
            found[which]["bits_per_byte"][name] = [
                bits(trained(tokens, VOCAB_SIZE, SEQ_LEN, RATE, seed, share * BUDGET), held_out,
                     num_bytes, SEQ_LEN) for seed in SEEDS]
            print(which, name, found[which]["bits_per_byte"][name], flush=True)
    return found


def parts_table(counts: Mapping) -> None:
    """Tokens with each addition alone and with both, beside those of the cut alone."""
    table(code_rows(counts, baseline=CUT), caption="Python, held out: the cut for code alone, and "
          "what is added to it, one at a time and together")


def passes_compared(found: Mapping) -> list[Comparison]:
    """The folded models beside the plain ones after as many passes, seed by seed."""
    return [each for which, run in found.items()
            for each in comparisons({f"{name}, {which}" if name != FAIR[0] else name: values
                                     for name, values in run["bits_per_byte"].items()},
                                    against=FAIR[0], unit="bits per byte", low="better",
                                    high="worse")]


def passes_table(found: Mapping) -> None:
    """Bits per byte at equal passes, and what they cost in operations."""
    words = {each.name: f"{each.word} ({each.gap})" for each in passes_compared(found)}
    least = min(size for run in found.values() for size in run["operations"].values())
    table([{"tokenizer": name, "passes over the text": f"{run['passes']:.1f}",
            "operations": f"{run['operations'][name] / least:.1f} times",
            "bits/byte": float(np.mean(values)),
            "beside GPT-2's cut": words.get(f"{name}, {which}", "")}
           for which, run in found.items() for name, values in run["bits_per_byte"].items()],
          caption=f"logs: {len(SEEDS)} seeds each, as many passes instead of as many operations")


def closing(found: Mapping | None) -> list[str]:
    """Both controls in sentences, in as many words as their verdicts have."""
    if not found:
        return []
    return [*(code_line("Python", found["parts"], name, CUT).replace(": ", f": {CUT} ", 1) + "."
              for name in found["parts"]["tokens"] if name != CUT),
            *(f"Small models, logs, as many passes: {each}."
              for each in passes_compared(found["passes"]))]


def main() -> None:
    """Run both, and record."""
    torch.set_num_threads(1)
    record("01b_domain_tokenizers.controls", {"parts": parts(), "passes": passes()}, seeds=SEEDS,
           command=COMMAND)


if __name__ == "__main__":
    main()
