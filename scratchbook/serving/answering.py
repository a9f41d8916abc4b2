"""What both dialects share: limits, the texts of a ticket, an answer that one may hang up on.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.responses import JSONResponse, Response

from scratchbook.serving.metrics import Metrics
from scratchbook.serving.requests import Request
from scratchbook.serving.served import ServedModel, TooLong
from scratchbook.serving.text_streams import Shown
from scratchbook.serving.worker import Busy, Ticket, Worker


class ApiError(Exception):
    """What a client is told; each dialect has its own shape for it."""

    def __init__(self, message: str, status: int = 400, param: str | None = None,
                 code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers


@dataclass(frozen=True)
class Limits:
    """What one request may ask for at the most."""

    max_new_tokens: int = 4096
    max_choices: int = 16
    max_stops: int = 8
    max_stop_chars: int = 200


class Sampling(NamedTuple):
    """How the tokens of an answer are chosen."""

    temperature: float
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None


class Piece(NamedTuple):
    """What is new of one answer; the last piece has a reason, "stop" or "length"."""

    place: int
    text: str
    shown: list[Shown]
    reason: str | None


class Writing:
    """The answers to one request of a client, as they are written.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, ticket: Ticket, served: ServedModel, stops: Sequence[str], metrics: Metrics,
                 prompt_tokens: int):
        self.ticket, self.metrics, self.begun = ticket, metrics, time.monotonic()
        self.first = self.begun  # when the first token came
        self.streams = [served.stream(stops) for _ in ticket.requests]
        self.prompt_tokens, self.new_tokens = prompt_tokens, 0

    async def pieces(self) -> AsyncIterator[Piece]:
        """Every piece of text of every answer, in the order in which they come.

        Raises:   ApiError when the model fails
        """
        async for place, event in self.ticket:
            stream = self.streams[place]
            if event.reason == "failed":
                raise ApiError(f"the model failed: {event.error}", 500, code="model_failed")
            if stream.stopped or event.token is None:
                continue  # behind a stop string; and the word that it was cancelled
            if not self.new_tokens:
                self.first = time.monotonic()
            self.new_tokens += 1
            text, shown = stream.add(event.token, event.logprob)
            if event.done and not stream.stopped:
                more, others = stream.end()
                text, shown = text + more, shown + others
            elif stream.stopped:
                self.ticket.cancel(place)
            reason = "stop" if stream.stopped else event.reason
            if text or shown or reason:
                yield Piece(place, text, shown, reason)
        self.metrics.answered(self.first - self.begun, time.monotonic() - self.begun)

    async def whole(self) -> list[Piece]:
        """Every answer as one piece."""
        answers = [Piece(place, "", [], None) for place in range(len(self.streams))]
        async for place, text, shown, reason in self.pieces():
            old = answers[place]
            answers[place] = Piece(place, old.text + text, old.shown + shown, reason)
        return answers


class Answers:
    """Starts what clients ask for, within the limits.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, served: ServedModel, worker: Worker, limits: Limits, metrics: Metrics):
        self.served, self.worker, self.limits, self.metrics = served, worker, limits, metrics

    async def encode(self, encode: Callable[[], list], param: str) -> list:
        """What `encode` gives, worked out beside the event loop.

        Raises:   ApiError for what cannot be encoded
        """
        try:
            return await asyncio.to_thread(encode)
        except TooLong as error:
            raise ApiError(str(error), param=param, code="context_length_exceeded") from None
        except ValueError as error:
            raise ApiError(str(error), param=param) from None

    async def start(self, prompts: Sequence[Sequence[int]], max_new_tokens: int | None,
                    sampling: Sampling, stops: Sequence[str] = (), n: int = 1,
                    logprobs: bool = False, clip: bool = False) -> Writing:
        """Put `n` answers to each prompt into the line.

        Without `max_new_tokens`, or with `clip`, an answer is as long as window and limits allow.
        Answer number i has the seed `seed + i`.

        Raises:   ApiError for what is too much or cannot be done
        """
        limits, stops = self.limits, list(stops)
        if len(prompts) * n > limits.max_choices:
            raise ApiError(f"{len(prompts)} prompts with n={n} answers each are more than "
                           f"{limits.max_choices} answers: ask for fewer", param="n")
        if len(stops) > limits.max_stops or len(max(stops, key=len, default="")
                                                ) > limits.max_stop_chars:
            raise ApiError(f"at most {limits.max_stops} stop strings of {limits.max_stop_chars} "
                           "characters go", param="stop")
        try:
            requests = [self._request(prompt, max_new_tokens, sampling, i, logprobs, clip)
                        for i, prompt in enumerate(p for p in prompts for _ in range(n))]
            ticket = await self.worker.submit(requests)
        except Busy as error:
            raise ApiError(str(error), 429, code="rate_limit_exceeded",
                           headers={"Retry-After": str(error.retry_after)}) from None
        except ValueError as error:
            raise ApiError(str(error)) from None
        except RuntimeError as error:
            raise ApiError(f"no request is accepted: {error}", 503) from None
        return Writing(ticket, self.served, stops, self.metrics, sum(map(len, prompts)))

    def _request(self, prompt: Sequence[int], max_new_tokens: int | None, sampling: Sampling,
                 number: int, logprobs: bool, clip: bool) -> Request:
        room, most = self.served.window - len(prompt), self.limits.max_new_tokens
        wanted = min(room, most) if max_new_tokens is None else max_new_tokens
        wanted = min(room, most, wanted) if clip else wanted
        if wanted > most:
            raise ApiError(f"{wanted} new tokens are more than the {most} that this server writes",
                           param="max_tokens")
        if room < 1 or wanted > room:
            raise ApiError(
                f"the window of this model is {self.served.window} tokens; the prompt has "
                f"{len(prompt)}" + f", and {wanted} new ones were asked for" * (room >= 1)
                + ": shorten it", param="prompt", code="context_length_exceeded")
        seed = None if sampling.seed is None else (sampling.seed + number) % 2**63
        return Request(prompt, wanted, sampling.temperature, sampling.top_k, sampling.top_p,
                       self.served.stop_ids, seed, None, logprobs)


class Answer(Response):
    """Sends chunks as they come; when the client hangs up, or all is sent, its slots are free.

    An error before the first chunk is an answer of its own, a later one ends the stream.
    `shape(error)` gives an error's JSON, `last_words(error)` the chunk that tells it.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, ticket: Ticket, chunks: AsyncIterator[bytes], media_type: str,
                 shape: Callable[[ApiError], Any], last_words: Callable[[ApiError], bytes]):
        super().__init__()
        self.ticket, self.chunks, self.kind = ticket, chunks, media_type
        self.shape, self.last_words = shape, last_words

    async def __call__(self, scope, receive, send) -> None:
        """Send, and listen at the same time whether the client is still there."""
        sending = asyncio.ensure_future(self._send(scope, receive, send))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            self.ticket.cancel()
            sending.cancel()
            leaving.cancel()

    async def _send(self, scope, receive, send) -> None:
        started = False
        headers = [(b"content-type", self.kind.encode()), (b"cache-control", b"no-store")]
        try:
            async for chunk in self.chunks:
                if not started:
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                    started = True
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ApiError as error:
            if not started:
                await JSONResponse(self.shape(error), error.status)(scope, receive, send)
                return
            await send({"type": "http.response.body", "body": self.last_words(error),
                        "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
