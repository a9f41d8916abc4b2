"""OpenAI's way of asking: /v1/completions, /v1/chat/completions, /v1/models.

A streamed answer is a row of server-sent events: `data: `, a JSON object, an empty line; the last
one is `data: [DONE]`.

Paper:    platform.openai.com/docs/api-reference; the event stream is section 9.2 of HTML
Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import Field

from scratchbook.serving.answering import Answer, Answers, Piece, Writing, as_json, pick
from scratchbook.serving.bodies import (
    ApiError,
    Probability,
    Roles,
    Stops,
    Strict,
    Temperature,
    Wanted,
)
from scratchbook.serving.served import ServedModel
from scratchbook.serving.text_streams import Shown

# What would change an answer and is not done here: refused unless it says what is done anyway.
UNSUPPORTED = {
    "echo": (False,), "suffix": ("",), "best_of": (1,), "presence_penalty": (0,),
    "frequency_penalty": (0,), "logit_bias": ({},), "modalities": (["text"],), "audio": (),
    "tools": ([],), "functions": ([],), "tool_choice": ("none", "auto"), "function_call": ("none",
    "auto"),
}
Count = Annotated[int, Field(ge=1)]


class Format(Strict):
    """What an answer must be; a schema that it must follow is not known here."""

    type: Literal["text", "json_object"]


class Asked(Strict):
    """What both bodies have."""

    model: str
    max_tokens: Count | None = None
    temperature: Annotated[Temperature, Field(le=2)] | None = None
    top_p: Probability | None = None
    n: Count | None = None
    seed: int | None = None
    stop: Stops = []
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    response_format: Format | None = None

    def wanted(self, max_new_tokens: int | None, logprobs: int | None, **more: Any) -> Wanted:
        """The answer that is asked for; temperature 1 unless it is said otherwise.

        Raises:   ApiError for options that would be ignored in silence
        """
        self.refuse(UNSUPPORTED)
        temperature = 1.0 if self.temperature is None else self.temperature
        as_object = self.response_format is not None and self.response_format.type != "text"
        more = {"stops": self.stop} | more
        return Wanted(max_new_tokens, temperature, self.top_p, None, self.seed, n=self.n or 1,
                      logprobs=logprobs, json=as_object, **more)


class Completion(Asked):
    """The body of /v1/completions; a prompt is text, ids, or a list of either."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    def ids(self, served: ServedModel, most: int) -> list[list[int]]:
        """The ids of each prompt.

        Raises:   ValueError for none, too many, or one that is empty
        """
        alone = isinstance(self.prompt, str) or isinstance((self.prompt or [""])[0], int)
        given = [self.prompt] if alone else self.prompt
        if len(given) > most:
            raise ValueError(f"{len(given):,} prompts are more than {most}: send them one by one")
        found = [served.encode(each) if isinstance(each, str) else each for each in given]
        if not found or not all(found):
            raise ValueError("a prompt is empty: give a text or at least one id")
        return found


class TextPart(Strict):
    """A part of a message's content; only text can be read."""

    type: Literal["text"]
    text: str


class Message(Strict):
    """One message of a conversation."""

    role: Roles
    content: str | list[TextPart] | None = None

    def plain(self) -> dict[str, str]:
        """Role and text, as a template reads them.

        Raises:   ApiError for a message that is more than text
        """
        self.refuse({"tool_calls": ([],), "function_call": (), "audio": ()})
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class Chat(Asked):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


def error_shape(error: ApiError) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return {"error": {"message": str(error), "type": kind, "param": error.param,
                      "code": error.code}}


def sse(data: dict[str, Any]) -> bytes:
    """One server-sent event. JSON has no line ends of its own, so one `data:` line is enough."""
    return b"data: " + as_json(data) + b"\n\n"


def routes(models: Mapping[str, Answers]) -> APIRouter:
    """The paths of this dialect."""
    router = APIRouter(prefix="/v1")

    @router.get("/models")
    def cards():
        return {"object": "list", "data": [_card(each.served) for each in models.values()]}

    @router.get("/models/{name:path}")
    def card(name: str):
        return _card(pick(models, name).served)

    @router.post("/completions")
    async def completions(asked: Annotated[Completion, Body()]):
        answers = pick(models, asked.model)
        wanted = asked.wanted(asked.max_tokens or 16, asked.logprobs,
                              clip=asked.max_tokens is None)
        most = answers.limits.max_choices
        writing = await answers.start(lambda: asked.ids(answers.served, most), wanted)
        return _answer(asked, writing, Completions(answers.served, wanted.logprobs))

    @router.post("/chat/completions")
    async def chat(asked: Annotated[Chat, Body()]):
        answers = pick(models, asked.model)
        served, messages = answers.served, [message.plain() for message in asked.messages]
        if asked.top_logprobs and not asked.logprobs:
            raise ApiError("top_logprobs needs logprobs: true", param="top_logprobs")
        wanted = asked.wanted(asked.max_completion_tokens or asked.max_tokens,
                              (asked.top_logprobs or 0) if asked.logprobs else None,
                              stops=[*asked.stop, *served.chat_stops])
        writing = await answers.start(lambda: [served.encode_chat(messages)], wanted, "messages")
        return _answer(asked, writing, Chats(served, wanted.logprobs))

    return router


def _card(served: ServedModel) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": 0, "owned_by": "scratchbook",
            "max_model_len": served.window}


class Completions:
    """How an answer of /v1/completions looks, whole and in chunks (they look the same)."""

    prefix, whole, chunk, opening = "cmpl-", "text_completion", "text_completion", None

    def __init__(self, served: ServedModel, logprobs: int | None):
        self.served, self.logprobs = served, logprobs

    def choice(self, piece: Piece, streamed: bool) -> dict[str, Any]:
        """One entry of `choices`."""
        return {"index": piece.place, **self.said(piece.text, streamed),
                "finish_reason": piece.reason,
                "logprobs": None if self.logprobs is None else self.probs(piece.shown)}

    def said(self, text: str, streamed: bool) -> dict[str, Any]:
        """Where the text stands."""
        return {"text": text}

    def probs(self, shown: list[Shown]) -> dict[str, Any]:
        """Tokens as text, their log-probabilities, and those of the likeliest by their text."""
        text = self.served.text_of
        return {"tokens": [text(each.token) for each in shown],
                "token_logprobs": [each.logprob for each in shown],
                "top_logprobs": [self._likely(each) for each in shown] if self.logprobs else None,
                "text_offset": [each.place for each in shown]}

    def _likely(self, each: Shown) -> dict[str, float]:
        """The likeliest and the chosen one; of tokens with the same text the likeliest counts."""
        rising = sorted([*each.top, (each.token, each.logprob)], key=lambda pair: pair[1])
        by_text = {self.served.text_of(token): logprob for token, logprob in rising}
        return dict(sorted(by_text.items(), key=lambda pair: -pair[1]))


class Chats(Completions):
    """How an answer of /v1/chat/completions looks; its stream opens with the role."""

    prefix, whole, chunk = "chatcmpl-", "chat.completion", "chat.completion.chunk"
    opening = {"role": "assistant", "content": ""}

    def said(self, text: str, streamed: bool) -> dict[str, Any]:
        """Where the text stands."""
        return {"delta": {"content": text}} if streamed else {
            "message": {"role": "assistant", "content": text, "refusal": None}}

    def probs(self, shown: list[Shown]) -> dict[str, Any]:
        """For each token its text, bytes and log-probability, and the likeliest likewise."""
        return {"content": [self._prob(each.token, each.logprob) | {
            "top_logprobs": [self._prob(*other) for other in each.top]} for each in shown]}

    def _prob(self, token: int, logprob: float) -> dict[str, Any]:
        known = (self.served.slices or {}).get(token)
        return {"token": self.served.text_of(token), "logprob": logprob,
                "bytes": None if known is None else list(known)}


def _answer(asked: Asked, writing: Writing, looks: Completions) -> Answer:
    head = {"id": looks.prefix + uuid.uuid4().hex, "created": int(time.time()),
            "model": asked.model}
    if asked.stream:
        with_usage = bool((asked.stream_options or {}).get("include_usage"))
        chunks, kind = _streamed(writing, looks, head, with_usage), "text/event-stream"
    else:
        chunks, kind = _whole(writing, looks, head), "application/json"
    return Answer(writing.ticket, chunks, kind, lambda error: sse(error_shape(error)))


async def _whole(writing: Writing, looks: Completions, head: dict) -> AsyncIterator[bytes]:
    choices = [looks.choice(piece, False) for piece in await writing.whole()]
    yield as_json(head | {"object": looks.whole, "choices": choices, "usage": _usage(writing)})


async def _streamed(writing: Writing, looks: Completions, head: dict, with_usage: bool
                    ) -> AsyncIterator[bytes]:
    head = head | {"object": looks.chunk} | ({"usage": None} if with_usage else {})
    openings = range(len(writing.streams)) if looks.opening else ()
    async for piece in writing.pieces():
        for place in openings:
            yield sse(head | {"choices": [{"index": place, "delta": looks.opening,
                                           "finish_reason": None, "logprobs": None}]})
        openings = ()
        yield sse(head | {"choices": [looks.choice(piece, True)]})
    if with_usage:
        yield sse(head | {"choices": [], "usage": _usage(writing)})
    yield b"data: [DONE]\n\n"


def _usage(writing: Writing) -> dict[str, int]:
    read, written = writing.prompt_tokens, writing.new_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
