"""An engine that also says which other tokens were likely, for the requests that ask.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scratchbook.serving.engine import Engine, Job
from scratchbook.serving.requests import Event, Request


@dataclass(frozen=True, eq=False)
class TopRequest(Request):
    """A request that wants to know the `top` likeliest tokens at each place of its answer.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    top: int = 0


@dataclass(frozen=True)
class TopEvent(Event):
    """A token, and the likeliest at its place with their log-probabilities, best first.

    As `logprob` they are the model's own, before temperature, filters and masks.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    top: tuple[tuple[int, float], ...] = ()


class TopEngine(Engine):
    """An engine whose events are `TopEvent`s where a `TopRequest` asks for it.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def _write(self, job: Job, logits: Tensor) -> None:
        super()._write(job, logits)
        event, count = self._events[-1], getattr(job.request, "top", 0)
        if count and event.token is not None:
            best = logits.float().log_softmax(-1).topk(min(count, len(logits)))
            top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            self._events[-1] = TopEvent(**vars(event), top=tuple(top))
