"""Ollama's way of asking: /api/generate, /api/chat, /api/tags.

A streamed answer, which is the usual here, is one JSON object a line; the last has `done`.

Paper:    github.com/ollama/ollama, docs/api.md
Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Body
from pydantic import Field

from scratchbook.accounting import total_parameters
from scratchbook.serving import bodies
from scratchbook.serving.answering import Answers, Writing, as_json, pick
from scratchbook.serving.bodies import ApiError, Strict, Wanted
from scratchbook.serving.served import ServedModel

UNSUPPORTED = {"images": ([],), "suffix": ("",), "context": ([],), "template": ("",),
               "think": (False,), "tools": ([],)}
UNSUPPORTED_OPTIONS = {"repeat_penalty": (1,), "presence_penalty": (0,), "frequency_penalty": (0,),
                       "min_p": (0,), "typical_p": (1,), "mirostat": (0,)}


class Options(Strict):
    """How to write; what is not here says how Ollama computes, and is ignored."""

    temperature: bodies.Temperature | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: bodies.Probability | None = None
    seed: int | None = None
    num_predict: int | None = None
    stop: bodies.Stops = []


USUAL = Options(temperature=0.8, top_k=40, top_p=0.9)


class Asked(bodies.Asked):
    """What both bodies have, and the lines of the response."""

    stream: bool | None = None
    options: Options | None = None
    format: Literal["", "json"] | None = None

    @property
    def media_type(self) -> str:
        """Of the response."""
        return "application/json" if self.stream is False else "application/x-ndjson"

    def wanted(self, served: ServedModel) -> Wanted:
        """The answer that is asked for.

        Raises:   ApiError for options that would be ignored in silence
        """
        self.refuse(UNSUPPORTED)
        given = {}
        if self.options:
            self.options.refuse(UNSUPPORTED_OPTIONS)
            given = self.options.model_dump(exclude_none=True)
        options = USUAL.model_copy(update=given)
        most = options.num_predict if (options.num_predict or 0) > 0 else None
        return Wanted(most, options.temperature, options.top_p, options.seed, options.stop,
                      options.top_k or None, json=self.format == "json", clip=True)

    async def chunks(self, writing: Writing) -> AsyncIterator[bytes]:
        """A line for each piece, and one with the counts."""
        def told(text: str, **more: Any) -> bytes:
            return line({"model": self.model, "created_at": _now(), **self.said(text), **more})

        text = ""
        if self.stream is False:
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

    @staticmethod
    def last_words(error: ApiError) -> bytes:
        """What ends a stream that breaks."""
        return line(ollama_error_shape(error))


class Generate(Asked):
    """The body of /api/generate."""

    prompt: str = ""
    system: str | None = None
    raw: bool | None = None
    where: ClassVar[str] = "prompt"

    def ids(self, served: ServedModel, most: int) -> list[list[int]]:
        """The prompt; without `raw` it goes through the model's template, if it has one."""
        if self.raw or served.template is None:
            return [served.encode((self.system or "") + self.prompt)]
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [served.encode_chat([*system, {"role": "user", "content": self.prompt}])]

    def said(self, text: str) -> dict[str, Any]:
        """Where the text stands."""
        return {"response": text}


class OllamaMessage(Strict):
    """One message of a conversation."""

    role: bodies.Roles
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
    where: ClassVar[str] = "messages"

    def ids(self, served: ServedModel, most: int) -> list[list[int]]:
        """The conversation."""
        return [served.encode_chat([message.plain() for message in self.messages])]

    def wanted(self, served: ServedModel) -> Wanted:
        """The answer that is asked for, which ends where the model would play the user."""
        found = super().wanted(served)
        return found._replace(stops=[*found.stops, *served.chat_stops])

    def said(self, text: str) -> dict[str, Any]:
        """Where the text stands."""
        return {"message": {"role": "assistant", "content": text}}


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
        return await pick(models, asked.model.removesuffix(":latest")).answer(asked)

    @router.post("/chat")
    async def chat(asked: Annotated[OllamaChat, Body()]):
        return await pick(models, asked.model.removesuffix(":latest")).answer(asked)

    return router


def _card(served: ServedModel) -> dict[str, Any]:
    name, size = f"{served.name}:latest", total_parameters(served.model.config)
    return {"name": name, "model": name, "modified_at": _now(), "size": 4 * size, "digest": "",
            "details": {"format": "safetensors", "family": "scratchbook",
                        "families": ["scratchbook"], "parameter_size": f"{size / 1e6:.1f}M",
                        "quantization_level": ""}}


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
