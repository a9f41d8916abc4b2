"""What both dialects share: limits, the texts of a ticket, an answer that one may hang up on.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.responses import Response

from scratchbook.serving.bodies import ApiError, Asked, Wanted
from scratchbook.serving.metrics import Metrics
from scratchbook.serving.requests import Allowed
from scratchbook.serving.served import ServedModel, TooLong
from scratchbook.serving.text_streams import Shown
from scratchbook.serving.top_tokens import TopEngine, TopRequest
from scratchbook.serving.worker import Busy, Closed, Ticket, Worker

# Clients that cut a stream into lines by `splitlines`, as ollama's does, cut at these as well.
LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}


@dataclass(frozen=True)
class Limits:
    """What one request may ask for at the most."""

    max_new_tokens: int = 4096
    max_choices: int = 16


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

    def __init__(self, ticket: Ticket, served: ServedModel, wanted: Wanted, metrics: Metrics):
        self.ticket, self.served, self.metrics = ticket, served, metrics
        self.begun = self.first = time.monotonic()  # first: when the first token came
        self.streams = [served.stream(wanted.stops) for _ in ticket.requests]
        prompts = ticket.requests[:: wanted.n]  # n answers to each have the same
        self.prompt_tokens, self.new_tokens = sum(len(each.prompt_ids) for each in prompts), 0

    async def pieces(self) -> AsyncIterator[Piece]:
        """Every piece of text of every answer, in the order in which they come.

        Raises:   ApiError when the model fails, or the engine refuses a prompt
        """
        async for place, event in self.ticket:
            stream = self.streams[place]
            if event.reason == "failed":
                raise ApiError(f"the model failed: {event.error}", 500, code="model_failed")
            if event.reason == "refused":
                raise ApiError(event.error, param="prompt")
            if stream.stopped or event.token is None:
                continue  # behind a stop string; and the word that it was cancelled
            if not self.new_tokens:
                self.first = time.monotonic()
            self.new_tokens += 1
            text, shown = stream.add(event.token, event.logprob, getattr(event, "top", ()))
            if event.done and not stream.stopped:
                more, others = stream.end()
                text, shown = text + more, shown + others
            elif stream.stopped:
                self.ticket.cancel(place)
            reason = "stop" if stream.stopped else event.reason
            if text or shown or reason:
                yield Piece(place, text, shown, reason)
        self.metrics.answered(self.served.name, self.first - self.begun,
                              time.monotonic() - self.begun)

    async def whole(self) -> list[Piece]:
        """Every answer as one piece."""
        answers = [Piece(place, "", [], None) for place in range(len(self.streams))]
        async for place, text, shown, reason in self.pieces():
            old = answers[place]
            answers[place] = Piece(place, old.text + text, old.shown + shown, reason)
        return answers


class Answers:
    """Starts what clients ask of one model, within the limits.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, served: ServedModel, worker: Worker, limits: Limits, metrics: Metrics):
        self.served, self.worker, self.limits, self.metrics = served, worker, limits, metrics

    async def answer(self, asked: Asked) -> Answer:
        """The response to a request, which is put into the line.

        Raises:   ApiError for what is too much or cannot be done
        """
        wanted, most = asked.wanted(self.served), self.limits.max_new_tokens
        if (wanted.max_new_tokens or 0) > most and not wanted.clip:
            raise ApiError(f"{wanted.max_new_tokens} new tokens are more than the {most} that this "
                           "server writes", param="max_tokens")
        if wanted.logprobs and not isinstance(self.worker.engine, TopEngine):
            raise ApiError("this server's engine tells the chosen tokens' log-probabilities only: "
                           "it must be a TopEngine", param="logprobs")
        try:  # beside the event loop, which must not wait for it
            requests = await asyncio.to_thread(self._requests, asked, wanted)
            ticket = await self.worker.submit(requests)
        except TooLong as error:
            raise ApiError(str(error), param=asked.where, code="context_length_exceeded") from None
        except ValueError as error:
            raise ApiError(str(error), param=asked.where) from None
        except Busy as error:
            raise ApiError(str(error), 429, code="rate_limit_exceeded",
                           headers={"Retry-After": str(error.retry_after)}) from None
        except Closed as error:
            raise ApiError(f"no request is accepted: {error}", 503) from None
        return Answer(asked, Writing(ticket, self.served, wanted, self.metrics))

    def _requests(self, asked: Asked, wanted: Wanted) -> list[TopRequest]:
        """`n` answers to each prompt."""
        try:
            allowed = self.served.json_masks if wanted.json else None
        except ValueError as error:
            raise ApiError(str(error), param="response_format") from None
        prompts, most = asked.ids(self.served, self.limits.max_choices), self.limits.max_choices
        if len(prompts) * wanted.n > most:
            raise ApiError(f"{len(prompts)} prompts with n={wanted.n} answers each are more than "
                           f"{most} answers: ask for fewer", param="n")
        return [self._request(prompt, wanted, number, allowed)
                for number, prompt in enumerate(p for p in prompts for _ in range(wanted.n))]

    def _request(self, prompt: Sequence[int], wanted: Wanted, number: int,
                 allowed: Allowed | None) -> TopRequest:
        room, count = self.served.window - len(prompt), wanted.max_new_tokens
        if count is None or wanted.clip:
            count = min(room, self.limits.max_new_tokens, count or room)
        if room < 1 or count > room:
            raise TooLong(
                f"the window of this model is {self.served.window} tokens; the prompt has "
                f"{len(prompt)}" + f", and {count} new ones were asked for" * (room >= 1)
                + ": shorten it")
        seed = None if wanted.seed is None else (wanted.seed + number) % 2**63
        return TopRequest(prompt, count, wanted.temperature, wanted.top_k, wanted.top_p,
                          self.served.stop_ids, seed, allowed, wanted.logprobs is not None,
                          wanted.logprobs or 0)


def pick(models: Mapping[str, Answers], name: str) -> Answers:
    """The model of this name.

    Raises:   ApiError that names those that are served
    """
    if name not in models:
        there = ", ".join(map(repr, models))
        raise ApiError(f"model {name!r} not found: {there} {'are' if len(models) > 1 else 'is'} "
                       "served here", 404, "model", "model_not_found")
    return models[name]


def as_json(data: Any) -> bytes:
    """JSON in one line, letters as they are, but for what some readers take for a line's end."""
    return json.dumps(data, ensure_ascii=False).translate(LINE_ENDS).encode()


class Answer(Response):
    """Sends chunks as they come; when the client hangs up, or all is sent, its slots are free.

    An error before the first chunk is an answer of its own, a later one ends the stream.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, asked: Asked, writing: Writing):
        super().__init__(headers={"cache-control": "no-store"}, media_type=asked.media_type)
        del self.headers["content-length"]
        self.asked, self.writing = asked, writing

    async def __call__(self, scope, receive, send) -> None:
        """Send, and listen at the same time whether the client is still there."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            self.writing.ticket.cancel()
            sending.cancel()
            leaving.cancel()

    async def _send(self, send) -> None:
        started = False
        try:
            async for chunk in self.asked.chunks(self.writing):
                if not started:
                    await send({"type": "http.response.start", "status": 200,
                                "headers": self.raw_headers})
                    started = True
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ApiError as error:
            if not started:
                raise
            await send({"type": "http.response.body", "body": self.asked.last_words(error),
                        "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
