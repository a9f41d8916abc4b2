"""Why a run writes gibberish: a decoder, weights or a tokenizer that are not what they should be.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from scratchbook.data import python_manual
from scratchbook.evaluation.perplexity import score_text
from scratchbook.model import DecoderLM
from scratchbook.training.diagnosis import Finding

GUESSING = 0.9  # of ln(vocab_size): a loss as high has learned next to nothing
TOGETHER = "Weights, tokenizer and log must come from one run: see what was copied, or never saved"


def plain_words(count: int = 400) -> str:
    """Small letters and single spaces: what every tokenizer of English must give back."""
    return " ".join(re.findall(r"[a-z]{2,}", python_manual())[:count])


def why_gibberish(model: DecoderLM, tokenizer: object, log: Sequence[dict[str, Any]], step: int
                  ) -> list[Finding]:
    """Name what would make a model write nonsense; an empty list when nothing shows.

    `step` is that of the checkpoint, `log` what its run wrote. The weights are judged by English;
    those of a tokenizer without small letters are not.

    Chapter:  chapters/06_training.ipynb
    """
    sizes = tokenizer.vocab_size, model.config.vocab_size
    if sizes[0] != sizes[1]:
        return [Finding("files of different runs", f"the tokenizer has {sizes[0]:,} ids and the "
                        f"model {sizes[1]:,}", TOGETHER)]
    text = plain_words()
    try:
        came_back = tokenizer.decode(tokenizer.encode(text))
    except ValueError:
        return _early(log, step)  # characters that it never saw: another script, or a small one
    if came_back != text:
        at = next((n for n, pair in enumerate(zip(came_back, text, strict=False))
                   if pair[0] != pair[1]), min(len(came_back), len(text)))
        return [Finding("broken decoder", f"encoding and decoding {text[max(0, at - 12):at + 12]!r}"
                        f" gives {came_back[max(0, at - 12):at + 12]!r}",
                        "No training helps: take a tokenizer that gives its texts back, and train "
                        "again with it")]
    return _weights(model, tokenizer, _natural(tokenizer) or text, log, step) or _early(log, step)


def _natural(tokenizer: object, size: int = 2000) -> str:
    """A passage of Python's manual, where the tokenizer knows all its characters."""
    text = python_manual()[:size]
    try:
        return text if tokenizer.decode(tokenizer.encode(text)) == text else ""
    except ValueError:
        return ""


def _weights(model: DecoderLM, tokenizer: object, text: str, log: Sequence[dict[str, Any]],
             step: int) -> list[Finding]:
    loss = score_text(model, tokenizer, text, min(model.config.max_seq_len, 128)).loss
    guess = math.log(model.config.vocab_size)
    said = [entry["validation_loss"] for entry in log if entry.get("step", 0) <= step
            and "validation_loss" in entry]
    if (said[-1] if said else loss) >= GUESSING * guess:
        return [Finding("untrained", f"after {step} steps English costs {loss:.2f} nats per token, "
                        f"and guessing {guess:.2f}", "Train longer, or see whether the loss falls "
                        "at all: scratchbook monitor RUN --summary")]
    if loss < guess:
        return []
    return [Finding("files of different runs", f"English costs this checkpoint {loss:.2f} nats per "
                    f"token, guessing {guess:.2f}, and its log says {said[-1]:.2f} at step {step}",
                    TOGETHER)]


def _early(log: Sequence[dict[str, Any]], step: int) -> list[Finding]:
    seen = {entry["step"]: entry["validation_loss"] for entry in log if "validation_loss" in entry}
    best = min(seen, key=seen.__getitem__, default=step)
    if step not in seen or seen[step] < 1.3 * seen[best]:
        return []
    return [Finding("wrong checkpoint", f"step {step} had a validation loss of {seen[step]:.2f}, "
                    f"step {best} has {seen[best]:.2f}", "Take the best one: --checkpoint best")]
