"""Ollama's way of asking: /api/generate, /api/chat, /api/tags.

A streamed answer, which is the usual here, is one JSON object a line; the last has `done`.

Paper:    github.com/ollama/ollama, docs/api.md
Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field

from scratchbook.accounting import total_parameters
from scratchbook.serving.answering import Answer, Answers, ApiError, Sampling, Writing
from scratchbook.serving.openai_api import Probability, Roles

UNSUPPORTED = ("images", "suffix", "format", "context", "template", "tools", "think")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class Options(_Strict):
    """How to write; what is not here is ignored, as Ollama ignores it."""

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: Probability | None = None
    seed: int | None = None
    num_predict: int | None = None
    stop: str | list[str] | None = None

    @property
    def sampling(self) -> Sampling:
        """Ollama's usual: temperature 0.8 among the 40 likeliest that make up nine tenths."""
        def usual(value, other):
            return other if value is None else value
        return Sampling(usual(self.temperature, 0.8), usual(self.top_p, 0.9),
                        usual(self.top_k, 40) or None, self.seed)

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class _Asked(_Strict):
    model: str
    stream: bool | None = None
    options: Options | None = None

    def check(self, name: str) -> None:
        """Refuse another model's name, and what would be ignored in silence."""
        if self.model.removesuffix(":latest") != name:
            raise ApiError(f"model {self.model!r} not found; {name!r} is here", 404)
        for field in UNSUPPORTED:
            if (self.model_extra or {}).get(field):
                raise ApiError(f"{field} is not supported: leave it out")


class Generate(_Asked):
    """The body of /api/generate."""

    prompt: str = ""
    system: str | None = None
    raw: bool | None = None


class OllamaMessage(_Strict):
    """One message of a conversation."""

    role: Roles
    content: str = ""


class OllamaChat(_Asked):
    """The body of /api/chat."""

    messages: Annotated[list[OllamaMessage], Field(min_length=1)]


def ollama_error_shape(error: ApiError) -> dict[str, str]:
    """An error as Ollama's clients read it."""
    return {"error": str(error)}


def line(data: dict[str, Any]) -> bytes:
    """One JSON object and the end of its line."""
    return (json.dumps(data, ensure_ascii=False) + "\n").encode()


def ollama_routes(answers: Answers) -> APIRouter:
    """The paths of this dialect."""
    router, served = APIRouter(prefix="/api"), answers.served
    size = total_parameters(served.model.config)
    card = {"name": f"{served.name}:latest", "model": f"{served.name}:latest",
            "modified_at": _now(), "size": 4 * size, "digest": "",
            "details": {"format": "safetensors", "family": "scratchbook",
                        "families": ["scratchbook"], "parameter_size": f"{size / 1e6:.1f}M",
                        "quantization_level": ""}}

    async def write(asked: _Asked, encode: Callable[[], list[int]], stops: list[str],
                    said: Callable[[str], dict[str, Any]]) -> Answer:
        options = asked.options or Options()
        ids = await answers.encode(encode, "prompt")
        wanted = options.num_predict if (options.num_predict or 0) > 0 else None
        writing = await answers.start([ids], wanted, options.sampling, [*options.stops, *stops],
                                      clip=True)
        lines = _lines(asked, writing, said)
        kind = "application/json" if asked.stream is False else "application/x-ndjson"
        return Answer(writing.ticket, lines, kind, ollama_error_shape,
                      lambda error: line(ollama_error_shape(error)))

    @router.get("/tags")
    def tags():
        return {"models": [card]}

    @router.post("/generate")
    async def generate(asked: Annotated[Generate, Body()]):
        asked.check(served.name)
        system = [{"role": "system", "content": asked.system}] if asked.system else []
        user = {"role": "user", "content": asked.prompt}
        plain = asked.raw or served.template is None
        encode = (lambda: served.encode((asked.system or "") + asked.prompt)) if plain else (
            lambda: served.encode_chat([*system, user]))
        return await write(asked, encode, [], lambda text: {"response": text})

    @router.post("/chat")
    async def chat(asked: Annotated[OllamaChat, Body()]):
        asked.check(served.name)
        messages = [{"role": m.role, "content": m.content} for m in asked.messages]
        return await write(asked, lambda: served.encode_chat(messages), list(served.chat_stops),
                           lambda text: {"message": {"role": "assistant", "content": text}})

    return router


async def _lines(asked: _Asked, writing: Writing, said: Callable[[str], dict[str, Any]]
                 ) -> AsyncIterator[bytes]:
    def head() -> dict[str, Any]:
        return {"model": asked.model, "created_at": _now()}

    if asked.stream is False:
        piece = (await writing.whole())[0]
        text, reason = piece.text, piece.reason
    else:
        text = reason = ""
        async for piece in writing.pieces():
            reason = piece.reason
            if piece.text:
                yield line(head() | said(piece.text) | {"done": False})
    reading, total = writing.first - writing.begun, time.monotonic() - writing.begun
    yield line(head() | said(text) | {
        "done": True, "done_reason": reason, "load_duration": 0,
        "total_duration": _nanoseconds(total), "prompt_eval_count": writing.prompt_tokens,
        "prompt_eval_duration": _nanoseconds(reading), "eval_count": writing.new_tokens,
        "eval_duration": _nanoseconds(total - reading)})


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
