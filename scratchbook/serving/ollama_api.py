"""Ollama's way of asking: /api/generate, /api/chat, /api/tags.

A streamed answer, which is the usual here, is one JSON object a line; the last has `done`.

Paper:    github.com/ollama/ollama, docs/api.md
Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import Field

from scratchbook.accounting import total_parameters
from scratchbook.serving.answering import Answer, Answers, Prompts, Writing, as_json, pick
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

UNSUPPORTED = {"images": ([],), "suffix": ("",), "context": ([],), "template": ("",),
               "think": (False,), "tools": ([],)}
UNSUPPORTED_OPTIONS = {"repeat_penalty": (1,), "presence_penalty": (0,), "frequency_penalty": (0,),
                       "min_p": (0,), "typical_p": (1,), "mirostat": (0,)}
Said = Callable[[str], dict[str, Any]]


class Options(Strict):
    """How to write; what is not here says how Ollama computes, and is ignored."""

    temperature: Temperature | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: Probability | None = None
    seed: int | None = None
    num_predict: int | None = None
    stop: Stops = []


USUAL = Options(temperature=0.8, top_k=40, top_p=0.9)


class Asked(Strict):
    """What both bodies have."""

    model: str
    stream: bool | None = None
    options: Options | None = None
    format: Literal["", "json"] | None = None

    def wanted(self, stops: tuple[str, ...] = ()) -> Wanted:
        """The answer that is asked for, with some stop strings more.

        Raises:   ApiError for options that would be ignored in silence
        """
        self.refuse(UNSUPPORTED)
        given = {}
        if self.options:
            self.options.refuse(UNSUPPORTED_OPTIONS)
            given = self.options.model_dump(exclude_none=True)
        options = USUAL.model_copy(update=given)
        most = options.num_predict if (options.num_predict or 0) > 0 else None
        return Wanted(most, options.temperature, options.top_p, options.top_k or None,
                      options.seed, [*options.stop, *stops], json=self.format == "json",
                      clip=True)


class Generate(Asked):
    """The body of /api/generate."""

    prompt: str = ""
    system: str | None = None
    raw: bool | None = None

    def ids(self, served: ServedModel) -> list[int]:
        """The prompt; without `raw` it goes through the model's template, if it has one."""
        if self.raw or served.template is None:
            return served.encode((self.system or "") + self.prompt)
        system = [{"role": "system", "content": self.system}] if self.system else []
        return served.encode_chat([*system, {"role": "user", "content": self.prompt}])


class OllamaMessage(Strict):
    """One message of a conversation."""

    role: Roles
    content: str = ""

    def plain(self) -> dict[str, str]:
        """Role and text, as a template reads them.

        Raises:   ApiError for a message that is more than text
        """
        self.refuse({"images": ([],), "tool_calls": ([],)})
        return {"role": self.role, "content": self.content}


class OllamaChat(Asked):
    """The body of /api/chat."""

    messages: Annotated[list[OllamaMessage], Field(min_length=1)]


def ollama_error_shape(error: ApiError) -> dict[str, str]:
    """An error as Ollama's clients read it."""
    return {"error": str(error)}


def line(data: dict[str, Any]) -> bytes:
    """One JSON object and the end of its line."""
    return as_json(data) + b"\n"


def ollama_routes(models: Mapping[str, Answers]) -> APIRouter:
    """The paths of this dialect."""
    router = APIRouter(prefix="/api")

    @router.get("/tags")
    def tags():
        return {"models": [_card(each.served) for each in models.values()]}

    @router.post("/generate")
    async def generate(asked: Annotated[Generate, Body()]):
        answers = pick(models, asked.model.removesuffix(":latest"))
        return await _answer(asked, answers, lambda: [asked.ids(answers.served)], asked.wanted(),
                             lambda text: {"response": text})

    @router.post("/chat")
    async def chat(asked: Annotated[OllamaChat, Body()]):
        answers = pick(models, asked.model.removesuffix(":latest"))
        served, messages = answers.served, [message.plain() for message in asked.messages]
        return await _answer(asked, answers, lambda: [served.encode_chat(messages)],
                             asked.wanted(served.chat_stops),
                             lambda text: {"message": {"role": "assistant", "content": text}})

    return router


def _card(served: ServedModel) -> dict[str, Any]:
    name, size = f"{served.name}:latest", total_parameters(served.model.config)
    return {"name": name, "model": name, "modified_at": _now(), "size": 4 * size, "digest": "",
            "details": {"format": "safetensors", "family": "scratchbook",
                        "families": ["scratchbook"], "parameter_size": f"{size / 1e6:.1f}M",
                        "quantization_level": ""}}


async def _answer(asked: Asked, answers: Answers, prompts: Prompts, wanted: Wanted, said: Said
                  ) -> Answer:
    writing = await answers.start(prompts, wanted)
    kind = "application/json" if asked.stream is False else "application/x-ndjson"
    return Answer(writing.ticket, _lines(asked, writing, said), kind,
                  lambda error: line(ollama_error_shape(error)))


async def _lines(asked: Asked, writing: Writing, said: Said) -> AsyncIterator[bytes]:
    def told(text: str, **more: Any) -> bytes:
        return line({"model": asked.model, "created_at": _now(), **said(text), **more})

    text = ""
    if asked.stream is False:
        (piece,) = await writing.whole()
        text = piece.text
    else:
        async for piece in writing.pieces():
            if piece.text:
                yield told(piece.text, done=False)
    reading, total = writing.first - writing.begun, time.monotonic() - writing.begun
    yield told(text, done=True, done_reason=piece.reason, load_duration=0,
               total_duration=_nanoseconds(total), prompt_eval_count=writing.prompt_tokens,
               prompt_eval_duration=_nanoseconds(reading), eval_count=writing.new_tokens,
               eval_duration=_nanoseconds(total - reading))


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
