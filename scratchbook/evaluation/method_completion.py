"""Who completes a statement best, and who is least surprised by methods: the model or its rivals?

All of them see the same tokens: the class's definition, then the method up to the cut.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch

from scratchbook.evaluation.counting import KneserNey, Retrieval
from scratchbook.evaluation.method_samples import LOOK_BACK, Counts, continue_all
from scratchbook.generation import eval_mode
from scratchbook.model import DecoderLM
from scratchbook.smalltalk.completing import CompletionCase, Scores, first_statement, score
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer

MOST_TOKENS = 64  # of an answer


class CopyingCounts:
    """Kneser-Ney that also copies: what followed the longest match is as likely as it was right.

    `trust` says, for each length of a match, how often the copied token was the right one on text
    that neither was counted on; `tune` finds it.

    Shapes:   probs(context) -> (vocab,), which sums to 1
    Chapter:  chapters/09_smalltalk_model.ipynb
    """

    def __init__(self, counts: KneserNey, retrieval: Retrieval) -> None:
        self.counts, self.retrieval = counts, retrieval
        self.trust = dict.fromkeys(retrieval.tables, 0.0)

    def tune(self, documents: Sequence[Sequence[int]]) -> CopyingCounts:
        """Set `trust` by the tokens of some documents; a length that never matched has none."""
        right, matched = (dict.fromkeys(self.trust, 0) for _ in range(2))
        for ids in documents:
            for at in range(1, len(ids)):
                place, length = self.retrieval.find(ids[max(0, at - LOOK_BACK) : at])
                if length:
                    matched[length] += 1
                    right[length] += int(self.retrieval.ids[place]) == int(ids[at])
        self.trust = {length: right[length] / max(1, matched[length]) for length in right}
        return self

    def probs(self, context: Sequence[int]) -> np.ndarray:
        """The probability of every token behind a context."""
        found = self.counts.probs(context)
        place, length = self.retrieval.find(context)
        if length:
            share = min(self.trust[length], 0.999)
            found = found * (1 - share)
            found[self.retrieval.ids[place]] += share
        return found


def answers(model: DecoderLM | Counts | Retrieval, tokenizer: SmalltalkTokenizer,
            prompts: Sequence[Sequence[int]], cases: Sequence[CompletionCase], stop_id: int,
            hidden: Collection[int] = (), max_new_tokens: int = MOST_TOKENS) -> list[str]:
    """What a rival writes behind each prompt, its likeliest token each time, or what it copies.

    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    if isinstance(model, Retrieval):
        copied = [model.copy_after(prompt[-LOOK_BACK:], max_new_tokens) for prompt in prompts]
        return [tokenizer.decode(ids[: ids.index(stop_id)] if stop_id in ids else ids)
                for ids in copied]

    def done(row: int, new: list[int]) -> bool:
        answer = tokenizer.decode(new)
        return first_statement(cases[row].begun, answer) != answer

    written = continue_all(model, prompts, max_new_tokens, [stop_id], 0, hidden, done=done, wave=12)
    return [tokenizer.decode(each.ids) for each in written]


def scores_of(cases: Sequence[CompletionCase], given: Sequence[str]) -> list[Scores]:
    """Every answer judged; only the first statement of each counts."""
    return [score(case, answer) for case, answer in zip(cases, given, strict=True)]


class Stretches(NamedTuple):
    """A document and what of it is scored: method bodies with the stop id behind each."""

    ids: list[int]
    methods: list[tuple[int, int]]  # start and stop of each


def stretches(ids: Sequence[int], starts: Collection[int], stop_id: int) -> Stretches:
    """Where the methods of a document stand, behind the ids that announce one."""
    ids, found, begun = list(map(int, ids)), [], 0
    for at, token in enumerate(ids, 1):
        if token in starts:
            begun = at
        elif token == stop_id and begun:
            found.append((begun, at))
            begun = 0
    return Stretches(ids, found)


@torch.no_grad()
def token_bits(model: DecoderLM | Counts, documents: Sequence[Sequence[int]],
               hidden: Collection[int] = (), batch_size: int = 16) -> list[np.ndarray]:
    """The bits that each token but the first costs behind those before it; hidden ones left out.

    Shapes:   -> (tokens,) of each document, 0 for the first
    Raises:   ValueError for a document without ids
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    if not all(map(len, documents)):
        raise ValueError("a document has no ids: nothing can be scored")
    if not isinstance(model, DecoderLM):
        return [_counted_bits(model, list(ids), sorted(hidden)) for ids in documents]
    found, hide = [], torch.tensor(sorted(hidden), dtype=torch.long)
    with eval_mode(model):
        for start in range(0, len(documents), batch_size):
            rows = [torch.as_tensor(list(ids)) for ids in documents[start : start + batch_size]]
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            scores = model(ids[:, :-1]).float().index_fill(2, hide, -torch.inf)
            bits = -scores.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0] / math.log(2)
            found += [np.r_[0.0, line[: len(row) - 1].numpy()]
                      for row, line in zip(rows, bits, strict=True)]
    return found


def _counted_bits(model: Counts, ids: list[int], hidden: list[int]) -> np.ndarray:
    found = [0.0]
    for at in range(1, len(ids)):
        probs = model.probs(ids[max(0, at - LOOK_BACK) : at])
        found.append(-math.log2(probs[ids[at]] / (1 - probs[hidden].sum())))
    return np.array(found)


def method_bits(model: DecoderLM | Counts, documents: Sequence[Stretches],
                hidden: Collection[int] = ()) -> list[list[float]]:
    """The bits of every method of every document."""
    costs = token_bits(model, [each.ids for each in documents], hidden)
    return [[float(bits[start:stop].sum()) for start, stop in each.methods]
            for each, bits in zip(documents, costs, strict=True)]
