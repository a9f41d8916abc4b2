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
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Body
from pydantic import Field

from scratchbook.serving import bodies
from scratchbook.serving.answering import Answers, Piece, Writing, as_json, pick
from scratchbook.serving.bodies import ApiError, Strict, Wanted
from scratchbook.serving.served import ServedModel
from scratchbook.serving.text_streams import Shown

# What would change an answer and is not done here: refused unless it says what is done anyway.
UNSUPPORTED = {
    "echo": (False,), "suffix": ("",), "best_of": (1,), "presence_penalty": (0,),
    "frequency_penalty": (0,), "logit_bias": ({},), "modalities": (["text"],), "audio": (),
    "tools": ([],), "functions": ([],), "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    # other servers of this dialect know them
    "top_k": (-1, 0), "min_p": (0,), "repetition_penalty": (1,), "stop_token_ids": ([],),
    "ignore_eos": (False,), "guided_json": (), "guided_regex": (), "guided_choice": (),
}
Count = Annotated[int, Field(ge=1)]


class Format(Strict):
    """What an answer must be; a schema that it must follow is not known here."""

    type: Literal["text", "json_object"]


class Asked(bodies.Asked):
    """What both bodies have, and the response around their choices."""

    max_tokens: Count | None = None
    temperature: Annotated[bodies.Temperature, Field(le=2)] | None = None
    top_p: bodies.Probability | None = None
    n: Count | None = None
    seed: int | None = None
    stop: bodies.Stops = []
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    response_format: Format | None = None
    prefix: ClassVar[str]
    whole: ClassVar[str]
    chunk: ClassVar[str]
    opening: ClassVar[dict[str, str] | None] = None  # what a stream begins with

    @property
    def media_type(self) -> str:
        """Of the response."""
        return "text/event-stream" if self.stream else "application/json"

    @property
    def others(self) -> int | None:
        """How many tokens besides the chosen one are told with their log-probabilities."""
        return self.logprobs

    def wanted(self, served: ServedModel) -> Wanted:
        """The answer that is asked for; temperature 1 unless it is said otherwise.

        Raises:   ApiError for options that would be ignored in silence
        """
        self.refuse(UNSUPPORTED)
        return Wanted(self.max_tokens, 1.0 if self.temperature is None else self.temperature,
                      self.top_p, self.seed, self.stop, n=self.n or 1, logprobs=self.others,
                      json=self.response_format is not None
                      and self.response_format.type == "json_object")

    async def chunks(self, writing: Writing) -> AsyncIterator[bytes]:
        """One JSON object, or an event for each piece."""
        head = {"id": self.prefix + uuid.uuid4().hex, "created": int(time.time()),
                "model": self.model, "object": self.chunk if self.stream else self.whole}
        if not self.stream:
            choices = [self.choice(piece, writing.served) for piece in await writing.whole()]
            yield as_json(head | {"choices": choices, "usage": _usage(writing)})
            return
        with_usage = bool((self.stream_options or {}).get("include_usage"))
        head |= {"usage": None} if with_usage else {}
        openings = range(len(writing.streams)) if self.opening else ()
        async for piece in writing.pieces():
            for place in openings:
                yield sse(head | {"choices": [{"index": place, "delta": self.opening,
                                               "finish_reason": None, "logprobs": None}]})
            openings = ()
            yield sse(head | {"choices": [self.choice(piece, writing.served)]})
        if with_usage:
            yield sse(head | {"choices": [], "usage": _usage(writing)})
        yield b"data: [DONE]\n\n"

    def choice(self, piece: Piece, served: ServedModel) -> dict[str, Any]:
        """One entry of `choices`."""
        probs = None if self.others is None else self.probs(piece.shown, served)
        return {"index": piece.place, **self.said(piece.text),
                "finish_reason": piece.reason, "logprobs": probs}

    @staticmethod
    def last_words(error: ApiError) -> bytes:
        """What ends a stream that breaks."""
        return sse(error_shape(error))


class Completion(Asked):
    """The body of /v1/completions; a prompt is text, ids, or a list of either."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    where: ClassVar = "prompt"
    prefix: ClassVar = "cmpl-"
    whole: ClassVar = "text_completion"
    chunk: ClassVar = "text_completion"

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

    def wanted(self, served: ServedModel) -> Wanted:
        """The answer that is asked for; of 16 tokens unless it is said otherwise."""
        clip = self.max_tokens is None
        return super().wanted(served)._replace(max_new_tokens=self.max_tokens or 16, clip=clip)

    def said(self, text: str) -> dict[str, Any]:
        """Where the text stands."""
        return {"text": text}

    def probs(self, shown: list[Shown], served: ServedModel) -> dict[str, Any]:
        """Tokens as text, their log-probabilities, and those of the likeliest by their text."""
        return {"tokens": [served.text_of(each.token) for each in shown],
                "token_logprobs": [each.logprob for each in shown],
                "top_logprobs": [_likely(each, served) for each in shown] if self.logprobs else
                None, "text_offset": [each.place for each in shown]}


def _likely(each: Shown, served: ServedModel) -> dict[str, float]:
    """The likeliest and the chosen one; of tokens with the same text the likeliest counts."""
    rising = sorted([*each.top, (each.token, each.logprob)], key=lambda pair: pair[1])
    by_text = {served.text_of(token): logprob for token, logprob in rising}
    return dict(sorted(by_text.items(), key=lambda pair: -pair[1]))


class TextPart(Strict):
    """A part of a message's content; only text can be read."""

    type: Literal["text"]
    text: str


class Message(Strict):
    """One message of a conversation."""

    role: bodies.Roles
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
    where: ClassVar = "messages"
    prefix: ClassVar = "chatcmpl-"
    whole: ClassVar = "chat.completion"
    chunk: ClassVar = "chat.completion.chunk"
    opening: ClassVar = {"role": "assistant", "content": ""}

    def ids(self, served: ServedModel, most: int) -> list[list[int]]:
        """The ids of the conversation.

        Raises:   ApiError or ValueError for messages that cannot be read
        """
        return [served.encode_chat([message.plain() for message in self.messages])]

    def wanted(self, served: ServedModel) -> Wanted:
        """The answer that is asked for, which ends where the model would play the user."""
        if self.top_logprobs and not self.logprobs:
            raise ApiError("top_logprobs needs logprobs: true", param="top_logprobs")
        return super().wanted(served)._replace(
            max_new_tokens=self.max_completion_tokens or self.max_tokens,
            stops=[*self.stop, *served.chat_stops])

    @property
    def others(self) -> int | None:
        """How many tokens besides the chosen one are told with their log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def said(self, text: str) -> dict[str, Any]:
        """Where the text stands."""
        return {"delta": {"content": text}} if self.stream else {
            "message": {"role": "assistant", "content": text, "refusal": None}}

    def probs(self, shown: list[Shown], served: ServedModel) -> dict[str, Any]:
        """For each token its text, bytes and log-probability, and the likeliest likewise."""
        def told(token: int, logprob: float) -> dict[str, Any]:
            known = (served.slices or {}).get(token)
            return {"token": served.text_of(token), "logprob": logprob,
                    "bytes": None if known is None else list(known)}

        return {"content": [told(each.token, each.logprob) | {
            "top_logprobs": [told(*other) for other in each.top]} for each in shown]}


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
        return await pick(models, asked.model).answer(asked)

    @router.post("/chat/completions")
    async def chat(asked: Annotated[Chat, Body()]):
        return await pick(models, asked.model).answer(asked)

    return router


def _card(served: ServedModel) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": 0, "owned_by": "scratchbook",
            "max_model_len": served.window}


def _usage(writing: Writing) -> dict[str, int]:
    read, written = writing.prompt_tokens, writing.new_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
