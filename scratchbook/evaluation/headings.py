"""Does a model of documentation write headings where a heading has begun?

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from scratchbook.evaluation.code_tests import Writer
from scratchbook.evaluation.comparing import wilson
from scratchbook.evaluation.text_signals import WORD, words_of

HEADING = re.compile(r"(?:\A|(?<=\n\n))(#{1,4} )[^\n#]+\n(?=\n)")  # a comment of code has no room
FEWEST = 4
CONTEXT, LENGTH, LONGEST = 120, 100, 60  # characters read before, written, and of a heading


def looks_like_heading(written: str, vocabulary: set[str]) -> bool:
    """Whether a text goes on from "## " as a heading does: a short line of known words, ended.

    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    line, newline, rest = written.partition("\n")
    words = [word.lower() for word in WORD.findall(line)]
    short = bool(newline) and 0 < len(line) <= LONGEST and line == line.strip()
    return (short and bool(words) and line[0].isalnum() and rest.strip() != ""
            and all(word in vocabulary for word in words))


def heading_rates(text: str, writers: Mapping[str, Writer], count: int = 40
                  ) -> dict[str, dict[str, Any]]:
    """For each writer, and for the authors, the share of headings of `text` that are continued.

    A prompt is what stands before a heading, and its signs. "their authors" went on with the
    heading itself, so what they miss is the rule's fault. Known are the words of the whole text.

    Raises:   ValueError when the text holds fewer than four Markdown headings
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    found = list(HEADING.finditer(text))
    if len(found) < FEWEST:
        raise ValueError(f"the text holds {len(found)} Markdown headings, which is too few")
    chosen = found[:: max(1, len(found) // count)][:count]
    starts = [match.end(1) for match in chosen]
    prompts = [text[max(0, start - CONTEXT) : start] for start in starts]
    known = words_of([text], fewest=1)
    written = {name: write(prompts, LENGTH) for name, write in writers.items()}
    written["their authors"] = [text[start : start + LENGTH] for start in starts]
    rates = {}
    for name, texts in written.items():
        outcomes = [int(looks_like_heading(each, known)) for each in texts]
        share = wilson(sum(outcomes), len(outcomes))
        rates[name] = {"passed": sum(outcomes), "total": len(outcomes), "share": share.value,
                       "low": share.low, "high": share.high, "first": texts[0].split("\n")[0]}
    return rates
