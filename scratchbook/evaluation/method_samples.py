"""Many methods written at once, by a model or by counting, free or under the parser's rule.

The loop is the same for all writers, so that a difference between them is theirs: what they think
of the next token is asked, special tokens are hidden, a token is drawn. Rows that have ended leave
the batch at the end of each wave; the others are read again.

Adds:       waves of a batch, hidden tokens, the rule that only methods may be written
Leaves out: one prompt under a rule, which is easier to read: constrained
Chapter:    chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from scratchbook.attention import padding_mask
from scratchbook.generation import choose, eval_mode
from scratchbook.model import DecoderLM
from scratchbook.smalltalk.viable import is_method, is_viable
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer


class Counts(Protocol):
    """A writer that says how likely every token is behind a context: `KneserNey` is one."""

    def probs(self, context: Sequence[int]) -> np.ndarray:
        """The probability of every token."""


Rule = Callable[[int, list[int], int], bool]  # row, its new ids, the token -> may it be written?
Choices = Callable[[int, list[int]], Tensor | None]  # row, its new ids -> the ids to choose among
Done = Callable[[int, list[int]], bool]       # row, its new ids -> is that enough?
TRIES = 200  # tokens refused in a row: then a row is given up


@dataclass
class Written:
    """What was written behind one prompt: the ids without the last, the stop id.

    `bits` are what the text costs under the writer itself, at temperature 1, hidden tokens left
    out; `refused` counts the draws that the rule refused.
    """

    ids: list[int] = field(default_factory=list)
    finished: bool = False
    given_up: bool = False
    refused: int = 0
    bits: float = 0.0
    room: int = 0

    @property
    def left(self) -> int:
        """How many more tokens may be written; 0 when it has ended or was given up."""
        return 0 if self.finished or self.given_up else self.room - len(self.ids)

    def keep(self, token: int, costs: Tensor, stops: Collection[int]) -> None:
        """Take a token over, unless the row was given up for it."""
        if not self.given_up:
            self.bits += float(costs[token])
            self.finished = token in stops
            self.ids += [] if self.finished else [token]


class _ModelRows:
    """A batch that a transformer reads, padded on the left, with its cache."""

    def __init__(self, model: DecoderLM, rows: Sequence[Sequence[int]], room: int) -> None:
        longest = max(map(len, rows))
        self.model, self.cache = model, model.new_cache(longest + room)
        self.new = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows])
        self.lengths = torch.tensor([len(row) for row in rows])
        self.total = longest

    def scores(self) -> Tensor:
        """Logits of the next token of each row, (rows, vocab)."""
        pads = (self.total - self.lengths)[:, None]  # (rows, 1)
        first = self.total - self.new.shape[1]
        positions = (torch.arange(first, self.total) - pads).clamp_min(0)
        mask = padding_mask(self.lengths, self.total, side="left")
        return self.model(self.new, cache=self.cache, mask=mask, positions=positions)[:, -1]

    def append(self, tokens: Tensor) -> None:
        self.new, self.lengths, self.total = tokens[:, None], self.lengths + 1, self.total + 1


class _CountingRows:
    """A batch that a table of counts reads, one row after the other."""

    def __init__(self, model: Counts, rows: Sequence[Sequence[int]]) -> None:
        self.model, self.rows = model, [list(row) for row in rows]

    def scores(self) -> Tensor:
        """Log-probabilities of the next token of each row, (rows, vocab)."""
        found = [self.model.probs(row) for row in self.rows]
        return torch.stack([torch.from_numpy(each) for each in found]).log().float()

    def append(self, tokens: Tensor) -> None:
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.append(token)


@torch.no_grad()
def continue_all(
    model: DecoderLM | Counts, prompts: Sequence[Sequence[int]], max_new_tokens: int,
    stop_ids: Collection[int], temperature: float = 1.0, hidden: Collection[int] = (),
    top_p: float | None = None, allowed: Rule | None = None, choices: Choices | None = None,
    done: Done | None = None,
    seed: int = 0, batch_size: int = 64, wave: int = 64,
) -> list[Written]:
    """Continue every prompt until a stop id, `done`, `max_new_tokens`, or the window's end.

    Tokens of `hidden` are never written, and where `choices` names some, only those. A token that
    the rule `allowed` refuses is hidden and another one drawn, as `generate_within` does. `done`
    is asked behind each wave of tokens alone.

    Raises:   ValueError for a prompt without ids or that fills the model's window, or an option
              out of its range
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    window = getattr(getattr(model, "config", None), "max_seq_len", math.inf)
    longest = max(map(len, prompts), default=0)
    if not all(prompts) or max_new_tokens < 1 or min(batch_size, wave) < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}, batch_size={batch_size} and "
                         f"wave={wave} must be at least 1, and no prompt empty")
    if longest >= window:
        raise ValueError(f"a prompt of {longest} ids leaves no room in a window of {window}")
    written = [Written(room=int(min(max_new_tokens, window - len(prompt)))) for prompt in prompts]
    hide = torch.tensor(sorted(set(hidden) - set(stop_ids)), dtype=torch.long)
    draw = _Draw(temperature, top_p, hide, set(stop_ids), allowed, choices,
                 torch.Generator().manual_seed(seed))
    alive = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    while alive:
        for start in range(0, len(alive), batch_size):
            rows = alive[start : start + batch_size]
            contexts = [[*prompts[row], *written[row].ids] for row in rows]
            steps = min(wave, max(written[row].left for row in rows))
            reading = (_ModelRows(model, contexts, steps) if isinstance(model, DecoderLM)
                       else _CountingRows(model, contexts))
            with eval_mode(model):
                _wave(reading, steps, [(row, written[row]) for row in rows], draw)
        alive = [row for row in alive
                 if written[row].left and not (done and done(row, written[row].ids))]
    return written


class _Draw(NamedTuple):
    """How a token is drawn, the same for all rows."""

    temperature: float
    top_p: float | None
    hide: Tensor
    stops: Collection[int]
    allowed: Rule | None
    choices: Choices | None
    generator: torch.Generator

    def of(self, scores: Tensor) -> Tensor:
        """A token for each row."""
        return choose(scores, self.temperature, top_p=self.top_p, generator=self.generator)


def _wave(reading: _ModelRows | _CountingRows, steps: int,
          rows: Sequence[tuple[int, Written]], draw: _Draw) -> None:
    """Some tokens for each row of one batch."""
    for step in range(steps):
        scores = reading.scores().float().index_fill(1, draw.hide, -torch.inf)
        costs = scores.log_softmax(-1) / -math.log(2)  # (rows, vocab), bits
        for place, (row, text) in enumerate(rows):
            if draw.choices and (wanted := draw.choices(row, text.ids)) is not None:
                scores[place] = torch.full_like(scores[place], -torch.inf).index_copy(
                    0, wanted, scores[place][wanted])
        chosen = draw.of(scores)
        for place, (row, text) in enumerate(rows):
            if text.left:
                if draw.allowed:
                    chosen[place] = _permitted(scores[place], int(chosen[place]), row, text, draw)
                text.keep(int(chosen[place]), costs[place], draw.stops)
        if step == steps - 1 or not any(text.left for _, text in rows):
            return
        reading.append(chosen)


def _permitted(scores: Tensor, token: int, row: int, text: Written, draw: _Draw) -> int:
    """The token, or another one drawn among those that the rule has not refused."""
    for _ in range(TRIES):
        if draw.allowed(row, text.ids, token):
            return token
        scores[token] = -torch.inf
        text.refused += 1
        if not scores.isfinite().any():
            break
        token = int(draw.of(scores[None]))
    text.given_up = True
    return token


def only_methods(tokenizer: SmalltalkTokenizer, stop_ids: Collection[int]) -> Rule:
    """The rule of `continue_all` under which only methods of Smalltalk can be written.

    A stop id is allowed where the parser accepts the method, any other token where the source can
    still become one.

    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    def allowed(row: int, new: list[int], token: int) -> bool:
        if token in stop_ids:
            return is_method(tokenizer.decode(new))
        return is_viable(tokenizer.decode([*new, token]))

    return allowed
