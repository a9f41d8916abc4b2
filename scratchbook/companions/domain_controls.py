"""Two controls of chapter 01b: which part of the hybrid costs tokens, and equal passes for models.

    python -m scratchbook.companions.domain_controls     # about five minutes on one core

The hybrid differs from its cut for code in two things: it switches by context, and it has whole
words. Each is taken alone. And at equal compute a model with fewer tokens reads its text more
often, so here plain BPE gets the operations for as many passes as the folded model makes, and the
folded model is stopped after as many passes as the plain one makes.

Chapter:  chapters/01b_domain_tokenizers.ipynb
"""

from __future__ import annotations

import torch

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
from scratchbook.teaching.results import record
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.tokenizers.domain import LogTokenizer
from scratchbook.tokenizers.folding import LINE
from scratchbook.tokenizers.hybrid import HybridTokenizer
from scratchbook.tokenizers.languages import LANGUAGES, Language

SEEDS = (0, 1, 2)
RATE = 3e-3  # the better of two for both, in domain_models
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


def main() -> None:
    """Run both, and record."""
    torch.set_num_threads(1)
    record("01b_domain_tokenizers.controls", {"parts": parts(), "passes": passes()}, seeds=SEEDS,
           command=COMMAND)


if __name__ == "__main__":
    main()
