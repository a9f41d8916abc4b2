"""What the bodies of both dialects have in common.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Roles = Literal["system", "developer", "user", "assistant"]
Probability = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Stops = Annotated[  # one, several or none
    list[Annotated[str, Field(max_length=200)]], Field(max_length=8),
    BeforeValidator(lambda one: [one] if isinstance(one, str) else [] if one is None else one)]
# also where a template knows tools: nobody here reads calls out of what a model writes
WHY = {"tools": "the models here were not trained to call any, and no calls are read out of their "
                "answers; describe them in a message"}


class ApiError(Exception):
    """What a client is told; each dialect has its own shape for it."""

    def __init__(self, message: str, status: int = 400, param: str | None = None,
                 code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers


class Wanted(NamedTuple):
    """The answer that a client wants.

    Without `max_new_tokens`, or with `clip`, it is as long as window and limits allow. Answer
    number i of `n` has the seed `seed + i`. `logprobs` tells how many tokens besides the chosen
    one are wanted with their log-probabilities; None: not even that one's.
    """

    max_new_tokens: int | None
    temperature: float
    top_p: float | None
    seed: int | None
    stops: Sequence[str]
    top_k: int | None = None
    n: int = 1
    logprobs: int | None = None
    json: bool = False
    clip: bool = False


class Strict(BaseModel):
    """A part of a body: a number is no text and no truth value, unknown fields are let through."""

    model_config = ConfigDict(extra="allow", strict=True)

    def refuse(self, unsupported: Mapping[str, tuple[Any, ...]]) -> None:
        """Tell off who asks for what would be ignored in silence.

        `unsupported` gives the values of a field that ask for nothing.

        Raises:   ApiError
        """
        for field, neutral in unsupported.items():
            value = (self.model_extra or {}).get(field)
            if value is not None and value not in neutral:
                raise ApiError(f"{field} is not supported: {WHY.get(field, 'leave it out')}",
                               param=field, code="unsupported_parameter")


class Asked(Strict):
    """A body that asks for an answer; each kind of them knows its prompts and how it is answered.

    `ids(served, most)` are the prompts, at most so many, and `where` they stand in the body;
    `wanted(served)` is the answer; `chunks(writing)` are the bytes of the response, of the type
    `media_type`, and `last_words(error)` those that end it when something breaks on the way.
    """

    model: str
