"""What an engine is asked for, and what it says while it works.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import index

from torch import Tensor

# the ids written so far -> which tokens may come next, (vocab) bool, or None for all of them
Allowed = Callable[[list[int]], Tensor | None]


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt to continue, and how.

    The options are those of `generation.generate`, except that temperature 0, the likeliest
    token, is the usual; a stop id that was met is part of the result. `allowed` is asked before
    each token. With `logprobs` every token comes with its log-probability under the model
    itself, before temperature, filters and `allowed` change it.

    Raises:   ValueError for what no model can do: an empty prompt, no new tokens, an option out
              of its range
    Chapter:  chapters/07b_inference_engine.ipynb
    """

    prompt_ids: Sequence[int]
    max_new_tokens: int
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    stop_ids: Sequence[int] = ()
    seed: int | None = None
    allowed: Allowed | None = None
    logprobs: bool = False

    def __post_init__(self) -> None:
        for name in ("prompt_ids", "stop_ids"):  # copies: nobody can change them afterwards
            object.__setattr__(self, name, _whole_numbers(name, getattr(self, name)))
        if not self.prompt_ids:
            raise ValueError("the prompt is empty: give at least one id, such as the end-of-text "
                             "token")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens} must be at least 1")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be a number from 0 up")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must keep at least one token")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is not within 0..1, zero excluded")


@dataclass(frozen=True)
class Event:
    """One token of one request, or its end.

    `request` is the number that `submit` gave. The last event of a request has `done` and a
    `reason`: "stop" or "length" with its last token, "cancelled" or "failed" (then `error` says
    why) without one.

    Chapter:  chapters/07b_inference_engine.ipynb
    """

    request: int
    token: int | None = None
    logprob: float | None = None
    done: bool = False
    reason: str | None = None
    error: str | None = None


@dataclass
class Stats:
    """Counts of an engine since it was made, and how full it is now.

    `columns` are token places that the model computed, padding included; a prompt that had to
    give way and is read again counts again in `prompt_tokens_read`.

    Chapter:  chapters/07b_inference_engine.ipynb
    """

    steps: int = 0
    columns: int = 0
    prompt_tokens_read: int = 0
    prompt_tokens_found: int = 0
    new_tokens: int = 0
    preempted: int = 0
    blocks_in_use: int = 0
    waiting: int = 0
    running: int = 0


def _whole_numbers(name: str, given: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(map(index, given.tolist() if hasattr(given, "tolist") else given))
    except TypeError:
        raise ValueError(f"{name} must be a list of whole numbers, not {given!r:.80}") from None
