"""OpenAI's way of asking: /v1/completions, /v1/chat/completions, /v1/models.

A streamed answer is a row of server-sent events: `data: `, a JSON object, an empty line; the last
one is `data: [DONE]`.

Paper:    platform.openai.com/docs/api-reference; the event stream is section 9.2 of HTML
Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field

from scratchbook.serving.answering import Answer, Answers, ApiError, Piece, Sampling, Writing
from scratchbook.serving.served import ServedModel
from scratchbook.serving.text_streams import Shown

# What would change an answer and is not done here: refused unless it says what is done anyway.
UNSUPPORTED = {
    "echo": (False,), "suffix": ("",), "best_of": (1,), "presence_penalty": (0,),
    "frequency_penalty": (0,), "logit_bias": ({},), "tools": ([],), "functions": ([],),
    "response_format": ({"type": "text"},), "modalities": (["text"],), "audio": (), "top_logprobs":
    (0,),
}
Probability = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Roles = Literal["system", "developer", "user", "assistant"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Asked(_Strict):
    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Probability | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None

    @property
    def sampling(self) -> Sampling:
        """Temperature 1 unless it is said otherwise, as OpenAI has it."""
        temperature = 1.0 if self.temperature is None else self.temperature
        return Sampling(temperature, self.top_p, None, self.seed)

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def check(self, name: str) -> None:
        """Refuse another model's name, and options that would be ignored in silence."""
        if self.model != name:
            raise ApiError(f"the model {self.model!r} is not here; {name!r} is", 404, "model",
                           "model_not_found")
        for field, neutral in UNSUPPORTED.items():
            value = (self.model_extra or {}).get(field)
            if value is not None and value not in neutral:
                raise ApiError(f"{field} is not supported: leave it out", param=field,
                               code="unsupported_parameter")


class Completion(_Asked):
    """The body of /v1/completions; a prompt is text, ids, or a list of either."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = None


class TextPart(_Strict):
    """A part of a message's content; only text can be read."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    """One message of a conversation."""

    role: Roles
    content: str | list[TextPart] | None = None

    def plain(self) -> dict[str, str]:
        """Role and text, as a template reads them."""
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class Chat(_Asked):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None


def error_shape(error: ApiError) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return {"error": {"message": str(error), "type": kind, "param": error.param,
                      "code": error.code}}


def sse(data: dict[str, Any]) -> bytes:
    """One server-sent event. JSON has no line ends of its own, so one `data:` line is enough."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def routes(answers: Answers) -> APIRouter:
    """The paths of this dialect."""
    router, served = APIRouter(prefix="/v1"), answers.served
    card = {"id": served.name, "object": "model", "created": 0, "owned_by": "scratchbook",
            "max_model_len": served.window}

    @router.get("/models")
    def models():
        return {"object": "list", "data": [card]}

    @router.get("/models/{name:path}")
    def model(name: str):
        if name != served.name:
            raise ApiError(f"the model {name!r} is not here", 404, "model", "model_not_found")
        return card

    @router.post("/completions")
    async def completions(asked: Annotated[Completion, Body()]):
        asked.check(served.name)
        if asked.logprobs:
            raise ApiError(f"logprobs={asked.logprobs} asks for other tokens than the chosen ones: "
                           "0 gives the chosen ones'", param="logprobs")
        prompts = await answers.encode(
            lambda: _prompts(asked.prompt, served, answers.limits.max_choices), "prompt")
        clip = asked.max_tokens is None
        writing = await answers.start(prompts, asked.max_tokens or 16, asked.sampling, asked.stops,
                                      asked.n or 1, asked.logprobs is not None, clip)
        return _answer(asked, writing, _Completions(answers, asked.logprobs is not None))

    @router.post("/chat/completions")
    async def chat(asked: Annotated[Chat, Body()]):
        asked.check(served.name)
        messages = [message.plain() for message in asked.messages]
        ids = await answers.encode(lambda: served.encode_chat(messages), "messages")
        writing = await answers.start(
            [ids], asked.max_completion_tokens or asked.max_tokens, asked.sampling,
            [*asked.stops, *served.chat_stops], asked.n or 1, bool(asked.logprobs))
        return _answer(asked, writing, _Chats(answers, bool(asked.logprobs)))

    return router


def _prompts(prompt: str | list, served: ServedModel, most: int) -> list[list[int]]:
    given = prompt if isinstance(prompt, list) and not _are_ids(prompt) else [prompt]
    if len(given) > most:
        raise ValueError(f"{len(given):,} prompts are more than {most}: send them one by one")
    found = [served.encode(each) if isinstance(each, str) else each for each in given]
    if not found or not all(found):
        raise ValueError("a prompt is empty: give a text or at least one id")
    return found


def _are_ids(prompt: list) -> bool:
    return bool(prompt) and isinstance(prompt[0], int)


class _Completions:
    """How an answer of /v1/completions looks, whole and in chunks (they look the same)."""

    prefix, whole, chunk = "cmpl-", "text_completion", "text_completion"

    def __init__(self, answers: Answers, logprobs: bool):
        self.answers, self.logprobs = answers, logprobs

    def choice(self, piece: Piece, streamed: bool) -> dict[str, Any]:
        return {"index": piece.place, "text": piece.text, "finish_reason": piece.reason,
                "logprobs": self._probs(piece.shown) if self.logprobs else None}

    def opening(self, count: int) -> Sequence[dict[str, Any]]:
        return ()

    def text_of(self, shown: Shown) -> str:
        return self.answers.served.tokenizer.decode([shown.token])

    def _probs(self, shown: list[Shown]) -> dict[str, Any]:
        return {"tokens": [self.text_of(each) for each in shown], "top_logprobs": None,
                "token_logprobs": [each.logprob for each in shown],
                "text_offset": [each.place for each in shown]}


class _Chats(_Completions):
    """How an answer of /v1/chat/completions looks: the role comes first, then the text."""

    prefix, whole, chunk = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def choice(self, piece: Piece, streamed: bool) -> dict[str, Any]:
        said = {"content": piece.text} if streamed else {
            "role": "assistant", "content": piece.text, "refusal": None}
        return {"index": piece.place, "delta" if streamed else "message": said,
                "finish_reason": piece.reason,
                "logprobs": {"content": self._probs(piece.shown)} if self.logprobs else None}

    def opening(self, count: int) -> Sequence[dict[str, Any]]:
        return [{"index": place, "delta": {"role": "assistant", "content": ""}, "logprobs": None,
                 "finish_reason": None} for place in range(count)]

    def _probs(self, shown: list[Shown]) -> list[dict[str, Any]]:
        token_bytes = getattr(self.answers.served.tokenizer, "token_bytes", None)
        return [{"token": self.text_of(each), "logprob": each.logprob, "top_logprobs": [],
                 "bytes": list(token_bytes(each.token)) if token_bytes else None}
                for each in shown]


def _answer(asked: _Asked, writing: Writing, looks: _Completions) -> Answer:
    head = {"id": looks.prefix + uuid.uuid4().hex, "created": int(time.time()),
            "model": asked.model}
    if asked.stream:
        with_usage = bool((asked.stream_options or {}).get("include_usage"))
        chunks, kind = _streamed(writing, looks, head, with_usage), "text/event-stream"
    else:
        chunks, kind = _whole(writing, looks, head), "application/json"
    return Answer(writing.ticket, chunks, kind, error_shape, lambda error: sse(error_shape(error)))


async def _whole(writing: Writing, looks: _Completions, head: dict) -> AsyncIterator[bytes]:
    choices = [looks.choice(piece, False) for piece in await writing.whole()]
    yield json.dumps(head | {"object": looks.whole, "choices": choices, "usage": _usage(writing)},
                     ensure_ascii=False).encode()


async def _streamed(writing: Writing, looks: _Completions, head: dict, with_usage: bool
                    ) -> AsyncIterator[bytes]:
    head = head | {"object": looks.chunk} | ({"usage": None} if with_usage else {})
    for choice in looks.opening(len(writing.streams)):
        yield sse(head | {"choices": [choice]})
    async for piece in writing.pieces():
        yield sse(head | {"choices": [looks.choice(piece, True)]})
    if with_usage:
        yield sse(head | {"choices": [], "usage": _usage(writing)})
    yield b"data: [DONE]\n\n"


def _usage(writing: Writing) -> dict[str, int]:
    return {"prompt_tokens": writing.prompt_tokens, "completion_tokens": writing.new_tokens,
            "total_tokens": writing.prompt_tokens + writing.new_tokens}
