"""An engine that continues many prompts at once with one model.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence

from scratchbook.model import DecoderLM
from scratchbook.serving.requests import Event, Request, Stats


class Engine:
    """Continue many prompts at once, a token for each of them a step.

    Chapter:  chapters/07b_inference_engine.ipynb
    """

    def __init__(self, model: DecoderLM, blocks: int | None = None, block_size: int = 16,
                 max_batch: int = 8, chunk: int = 64, schedule: str = "continuous",
                 prefix_cache: bool = True):
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do or to tell."""
        raise NotImplementedError

    @property
    def stats(self) -> Stats:
        """What was done since the engine was made, and how full it is now."""
        raise NotImplementedError

    def submit(self, request: Request) -> int:
        """Put a request at the end of the line and return its number."""
        raise NotImplementedError

    def cancel(self, number: int) -> bool:
        """End a request and give its blocks back; False where it had ended before."""
        raise NotImplementedError

    def step(self) -> list[Event]:
        """Give every running request its next token."""
        raise NotImplementedError

    def run(self, requests: Sequence[Request]) -> list[list[int]]:
        """Submit these requests, work until all are done, and return their new tokens."""
        raise NotImplementedError
