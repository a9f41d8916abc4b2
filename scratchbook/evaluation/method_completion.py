"""Who completes a statement best, and who is least surprised by methods: the model or its rivals?

All of them see the same tokens: the class's definition, then the method up to the cut.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from scratchbook.evaluation.counting import KneserNey, Retrieval
from scratchbook.evaluation.method_bench import Bench
from scratchbook.evaluation.method_samples import Counts, continue_all
from scratchbook.generation import eval_mode
from scratchbook.model import DecoderLM
from scratchbook.smalltalk.completing import (
    CompletionCase,
    Scores,
    completion_cases,
    first_statement,
    score,
)
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer

MOST_TOKENS = 64  # of an answer
OWN_LENGTHS = (8, 4, 3, 2, 1)  # of matches within a text
CACHED = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6)  # shares that are tried


class CopyingCounts:
    """Kneser-Ney that also copies, from the training text and from what it has read so far.

    What followed the longest match is as likely as it was right, for each length of a match, on
    text that nothing was counted on; the tokens read so far get a share by how often they came, as
    in a cache. `tune` finds these shares; before, nothing is copied.

    Shapes:   probs(context) -> (vocab,), which sums to 1
    Paper:    Kuhn and De Mori (1990), https://doi.org/10.1109/34.56193, for the cache
    Chapter:  chapters/09_smalltalk_model.ipynb
    """

    def __init__(self, counts: KneserNey, retrieval: Retrieval) -> None:
        self.counts, self.retrieval, self.cached = counts, retrieval, 0.0
        self.trust = dict.fromkeys(retrieval.tables, 0.0)   # by length of the match
        self.own_trust = dict.fromkeys(OWN_LENGTHS, 0.0)

    def tune(self, documents: Sequence[Sequence[int]]) -> CopyingCounts:
        """Set the shares by the tokens of some documents; a length that never matched has none."""
        for trust, find in ((self.trust, self._told), (self.own_trust, _read_before)):
            right, matched = dict.fromkeys(trust, 0), dict.fromkeys(trust, 0)
            for ids in documents:
                for at in range(1, len(ids)):
                    token, length = find(ids[:at])
                    if length:
                        matched[length] += 1
                        right[length] += token == ids[at]
            trust.update({each: (right[each] + 1) / (count + 2) if count else 0.0
                          for each, count in matched.items()})  # Laplace: few matches prove little
        costs = {}
        for self.cached in CACHED:
            costs[self.cached] = -sum(np.log(self.probs(ids[:at])[ids[at]])
                                      for ids in documents for at in range(1, len(ids), 3))
        self.cached = min(costs, key=costs.__getitem__)
        return self

    def probs(self, context: Sequence[int]) -> np.ndarray:
        """The probability of every token behind a context."""
        found = self.counts.probs(context)
        if len(context):
            came = np.bincount(context, minlength=len(found)) / len(context)
            found = (1 - self.cached) * found + self.cached * came
        for trust, (token, length) in ((self.trust, self._told(context)),
                                       (self.own_trust, _read_before(context))):
            if length:
                found = found * (1 - trust[length])
                found[token] += trust[length]
        return found

    def _told(self, context: Sequence[int]) -> tuple[int, int]:
        """What followed the longest match in the training text, and the length of the match."""
        place, length = self.retrieval.find(context)
        return int(self.retrieval.ids[place]), length


def _read_before(context: Sequence[int]) -> tuple[int, int]:
    """What followed the last of the longest matches within the context itself; length 0: none."""
    ids = np.asarray(context)
    for length in OWN_LENGTHS:
        if length >= len(ids):
            continue
        places = len(ids) - length
        same = np.ones(places, bool)
        for at in range(length):
            same &= ids[at : at + places] == ids[places + at]
        if same.any():
            return int(ids[np.flatnonzero(same)[-1] + length]), length
    return 0, 0


class Cut(NamedTuple):
    """A case as every rival sees it: ids of what no continuation changes, and the rest as text.

    A cut inside of what the tokenizer keeps whole would show all rivals a beginning that the
    training text never has; so they write the rest again, and only tokens that agree with it.
    """

    case: CompletionCase
    ids: list[int]
    rest: str

    def answer(self, tokenizer: SmalltalkTokenizer, new: Sequence[int]) -> str:
        """What was written behind the cut."""
        return tokenizer.decode(list(new))[len(self.rest):]


def cut_methods(bench: Bench, count: int, settle: Callable[[str], tuple[str, str]]
                ) -> tuple[list[Cut], list[str], int]:
    """Cases of the test methods, the class of each, and how many did not fit into the window.

    `settle` cuts a beginning in two: what no continuation changes the tokens of, and the rest.

    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    cuts: list[Cut] = []
    classes, left_out = [], 0
    for number, each in enumerate(bench.methods):
        if len(cuts) == count:
            break
        for case in completion_cases([each.source], number):
            settled, rest = settle(case.prompt)
            ids = [*bench.head(each), *bench.tokenizer.encode_ordinary(settled)]
            if len(ids) + MOST_TOKENS > bench.window:
                left_out += 1
            else:
                cuts.append(Cut(case, ids, rest))
                classes.append(f"{each.project} {each.class_name}")
    return cuts, classes, left_out


def answers(model: DecoderLM | Counts | Retrieval, tokenizer: SmalltalkTokenizer,
            cuts: Sequence[Cut], stop_id: int, max_new_tokens: int = MOST_TOKENS) -> list[str]:
    """What a rival writes behind each cut: its likeliest token each time, or what it copies.

    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    if isinstance(model, Retrieval):
        return [_copied(model, tokenizer, cut, stop_id, max_new_tokens) for cut in cuts]

    def done(row: int, new: list[int]) -> bool:
        answer = cuts[row].answer(tokenizer, new)
        return first_statement(cuts[row].case.begun, answer) != answer

    special = tokenizer.special_tokens.values()
    known = {i: tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size) if i not in special}

    @lru_cache(512)
    def agreeing(left: bytes) -> torch.Tensor:
        return torch.tensor([i for i, token in known.items()
                             if token.startswith(left) or left.startswith(token)])

    def choices(row: int, new: list[int]) -> torch.Tensor | None:
        left = cuts[row].rest.encode()[sum(len(known[i]) for i in new):]
        return agreeing(left) if left else None

    written = continue_all(model, [cut.ids for cut in cuts], max_new_tokens, [stop_id], 0, special,
                           choices=choices, done=done, wave=12)
    return [cut.answer(tokenizer, each.ids) for cut, each in zip(cuts, written, strict=True)]


def _copied(retrieval: Retrieval, tokenizer: SmalltalkTokenizer, cut: Cut, stop_id: int,
            max_new_tokens: int) -> str:
    """What follows the longest match whose continuation agrees with the rest."""
    def text(ids: list[int]) -> str:
        return tokenizer.decode(ids[: ids.index(stop_id)] if stop_id in ids else ids)

    found = retrieval.copy_after(cut.ids, max_new_tokens,
                                 lambda ids: text(ids).startswith(cut.rest))
    return text(found)[len(cut.rest):]


def scores_of(cases: Sequence[CompletionCase], given: Sequence[str]) -> list[Scores]:
    """Every answer judged; only the first statement of each counts."""
    return [score(case, answer) for case, answer in zip(cases, given, strict=True)]


@torch.no_grad()
def method_bits(model: DecoderLM | Counts, heads: Sequence[Sequence[int]],
                bodies: Sequence[Sequence[int]], hidden: Collection[int] = (),
                batch_size: int = 16) -> list[float]:
    """The bits of each body behind its head, which costs nothing; hidden tokens are left out.

    Shapes:   -> one number for each body
    Raises:   ValueError for a head without ids
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    if not all(map(len, heads)):
        raise ValueError("a head has no ids: the first token of its body cannot be scored")
    if not isinstance(model, DecoderLM):
        return [_counted_bits(model, *each, sorted(hidden))
                for each in zip(heads, bodies, strict=True)]
    found, hide = [], torch.tensor(sorted(hidden), dtype=torch.long)
    with eval_mode(model):
        for start in range(0, len(heads), batch_size):
            some = slice(start, start + batch_size)
            rows = [torch.tensor([*head, *body])
                    for head, body in zip(heads[some], bodies[some], strict=True)]
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            scores = model(ids[:, :-1]).float().index_fill(2, hide, -torch.inf)
            nats = -scores.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]  # (rows, time)
            found += [float(line[len(head) - 1 : len(row) - 1].double().sum()) / math.log(2)
                      for head, row, line in zip(heads[some], rows, nats, strict=True)]
    return found


def _counted_bits(model: Counts, head: Sequence[int], body: Sequence[int], hidden: list[int]
                  ) -> float:
    total, ids = 0.0, [*head, *body]
    for at in range(len(head), len(ids)):
        probs = model.probs(ids[:at])
        total -= math.log2(probs[ids[at]] / (1 - probs[hidden].sum()))
    return total
