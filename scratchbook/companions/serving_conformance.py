"""What of two dialects a running server speaks: each row is asked by its makers' own client.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from scratchbook.generation import generate
from scratchbook.serving.json_rule import read
from scratchbook.serving.served import ServedModel

TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a list?"}]
PROMPT, NEW = "import os\n\n\ndef walk(", 8
Check = Callable[[], bool]


def conformance(served: ServedModel, url: str) -> list[dict[str, str]]:
    """Ask everything, and say of each row what came.

    "right" is an answer that is what it must be; "wrong" one that is not; "refused" a client
    error that says why; "not there" a path that the server does not have.
    """
    import ollama
    import openai

    texts, client = _texts(served), ollama.Client(url)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as first:
        rows = _rows("OpenAI", _openai_asks(first, served, *texts), openai.APIStatusError)
    return rows + _rows("Ollama", _ollama_asks(client, served, *texts), ollama.ResponseError)


def counts(rows: Sequence[Mapping[str, str]]) -> str:
    """How many rows ended how, by dialect."""
    found = []
    for dialect in dict.fromkeys(row["dialect"] for row in rows):
        own = [row["answer"].split(":")[0] for row in rows if row["dialect"] == dialect]
        words = ", ".join(f"{own.count(word)} {word}" for word in dict.fromkeys(own))
        found.append(f"{dialect}'s client: {words} of {len(own)}")
    return "; ".join(found) + "."


def _rows(dialect: str, asks: Mapping[str, Check], refusal: type[Exception]
          ) -> list[dict[str, str]]:
    rows = []
    for name, ask in asks.items():
        try:
            answer = "right" if ask() else "wrong"
        except refusal as error:
            status, text = error.status_code, _message(error)
            answer = "not there" if status == 404 and "Not Found" in text else (
                f"refused: {text} ({status})")
        rows.append({"dialect": dialect, "asked": name, "answer": answer})
    return rows


def _message(error: Any) -> str:
    body = getattr(error, "body", None)
    return str(body["message"] if isinstance(body, dict) and "message" in body
               else getattr(error, "error", error))


def _raises(kind: type[Exception], ask: Callable[[], object]) -> bool:
    try:
        ask()
    except kind:
        return True
    return False


def _is_object(text: str, reason: str | None) -> bool:
    """Whether it is a JSON object, or the beginning of one where the text was cut off."""
    found = read(text.encode())
    whole = found is not None and found.complete
    return text.startswith("{") and found is not None and (whole or reason == "length")


def _texts(served: ServedModel) -> tuple[str, str]:
    """What `generate` writes behind the prompt and behind the conversation, one by one."""
    found, control = [], set(served.control.values())
    for ids, stops in ((served.encode(PROMPT), ()), (served.encode_chat(TALK), served.chat_stops)):
        new = generate(served.model, ids, NEW, 0, stop_ids=served.stop_ids)
        text = served.tokenizer.decode([token for token in new if token not in control])
        found.append(text[: min((text.find(stop) for stop in stops if stop in text),
                                default=len(text))])
    return found[0], found[1]


@torch.no_grad()
def _known(served: ServedModel, ids: list[int]) -> tuple[list[int], list[float]]:
    """What the model writes behind these ids, and the log-probability of each token."""
    new = generate(served.model, ids, NEW, 0, stop_ids=served.stop_ids)
    scores = served.model(torch.tensor([ids + new]))[0, len(ids) - 1 : -1].log_softmax(-1)
    return new, scores[torch.arange(len(new)), torch.tensor(new)].tolist()


def _seeded(write: Callable[[int], str]) -> bool:
    """Whether a seed gives one text, and another seed another."""
    return write(7) == write(7) != write(8)


def _openai_asks(client: Any, served: ServedModel, text: str, said: str) -> dict[str, Check]:
    name, refused = served.name, client.chat.completions.create
    asked = {"model": name, "messages": TALK, "max_tokens": NEW}
    tool = {"type": "function", "function": {"name": "f"}}
    return {
        "models.list": lambda: [m.id for m in client.models.list()] == [name],
        **_completions(client, served, text), **_chats(client, name, said),
        "tools": lambda: bool(refused(**asked, tools=[tool]).choices[0].message.tool_calls),
        "logit_bias": lambda: bool(refused(**asked, logit_bias={"5": 1})),
        "embeddings.create": lambda: bool(client.embeddings.create(model=name, input="a")),
        "responses.create": lambda: bool(client.responses.create(model=name, input="a")),
    }


def _completions(client: Any, served: ServedModel, text: str) -> dict[str, Check]:
    import openai

    name, write = served.name, client.completions.create
    drawn = {"model": name, "max_tokens": NEW, "temperature": 1, "seed": 7, "prompt": PROMPT}

    def written(**more: Any) -> Any:
        return write(**{"model": name, "max_tokens": NEW, "temperature": 0, "prompt": PROMPT}
                     | more)

    ids = list(served.encode(PROMPT))
    new, known = _known(served, ids)

    def streamed_usage() -> bool:
        chunks = list(written(stream=True, stream_options={"include_usage": True}))
        usage = chunks[-1].usage
        return ((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
                == (len(ids), len(new), len(ids) + len(new)) and usage == written().usage
                and "".join(c.choices[0].text for c in chunks[:-1]) == text)

    def stopped(**more: Any) -> bool:
        made = written(**more).choices[0]
        return (made.text, made.finish_reason) == (text[:text.index(text[3:5])], "stop")

    def logprobs() -> bool:
        told = written(logprobs=0).choices[0].logprobs.token_logprobs
        return len(told) == len(new) and all(
            abs(a - b) < 1e-3 for a, b in zip(told, known, strict=True))

    def choices() -> bool:
        made = write(**drawn, n=3).choices
        return len({c.text for c in made}) > 1 and made[1].text == write(
            **drawn | {"seed": 8}).choices[0].text

    return {
        "completions.create": lambda: ((made := written().choices[0]).text,
                                       made.finish_reason) == (text, "length"),
        "completions.create, stream": lambda: "".join(
            c.choices[0].text for c in written(stream=True)) == text,
        "usage at the end of a stream": streamed_usage,
        "prompt as token ids": lambda: written(prompt=ids).choices[0].text == text,
        "stop": lambda: stopped(stop=text[3:5]),
        "top_p": lambda: write(**drawn, top_p=1e-6).choices[0].text == text,
        "seed: one twice, another once": lambda: _seeded(
            lambda seed: write(**drawn | {"seed": seed}).choices[0].text),
        "n answers, each with a seed": choices,
        "logprobs of the chosen tokens": logprobs,
        "another model: NotFoundError": lambda: _raises(
            openai.NotFoundError, lambda: written(model="gpt-4")),
        "too long: BadRequestError": lambda: _raises(
            openai.BadRequestError, lambda: written(prompt="a b " * 2000)),
    }


def _chats(client: Any, name: str, said: str) -> dict[str, Check]:
    parts = [TALK[0], {"role": "user", "content": [
        {"type": "text", "text": "What is "}, {"type": "text", "text": "a list?"}]}]

    def talked(**more: Any) -> Any:
        return client.chat.completions.create(**{
            "model": name, "max_tokens": NEW, "temperature": 0, "messages": TALK} | more)

    def json_mode() -> bool:
        made = talked(max_tokens=30, response_format={"type": "json_object"}).choices[0]
        return _is_object(made.message.content, made.finish_reason)

    def others() -> bool:
        first = talked(logprobs=True, top_logprobs=2).choices[0].logprobs.content[0]
        best, second = first.top_logprobs
        return (best.token == first.token != second.token  # the greedy token is the likeliest
                and best.logprob == first.logprob > second.logprob)

    return {
        "chat.completions.create": lambda: talked().choices[0].message.content == said,
        "chat.completions.create, stream": lambda: "".join(
            c.choices[0].delta.content or "" for c in talked(stream=True)) == said,
        "content in parts": lambda: talked(messages=parts).choices[0].message.content == said,
        "JSON mode": json_mode,
        "the likeliest other tokens": others,
    }


def _ollama_asks(client: Any, served: ServedModel, text: str, said: str) -> dict[str, Check]:
    import ollama

    name = served.name
    greedy = {"temperature": 0, "num_predict": NEW}

    def written(**more: Any) -> Any:
        return client.generate(**{"model": name, "prompt": PROMPT, "raw": True, "options": greedy}
                               | more)

    def talked(**more: Any) -> Any:
        return client.chat(**{"model": name, "messages": TALK, "options": greedy} | more)

    drawn = {"temperature": 1, "num_predict": NEW, "seed": 7, "top_k": 0, "top_p": 1.0}

    def json_format() -> bool:
        made = talked(format="json", options=greedy | {"num_predict": 30})
        return _is_object(made.message.content, made.done_reason)

    return {
        "list": lambda: [m.model for m in client.list().models] == [f"{name}:latest"],
        "generate": lambda: written().response == text,
        "generate, stream": lambda: "".join(
            piece.response for piece in written(stream=True)) == text,
        "counts and times": lambda: (
            (made := written()).prompt_eval_count == len(served.encode(PROMPT))
            and made.eval_count == NEW and 0 < made.eval_duration <= made.total_duration),
        "chat": lambda: talked().message.content == said,
        "chat, stream": lambda: "".join(p.message.content for p in talked(stream=True)) == said,
        "stop": lambda: written(
            options=greedy | {"stop": [text[3:5]]}).response == text[:text.index(text[3:5])],
        "top_k": lambda: written(options=drawn | {"top_k": 1}).response == text,
        "seed: one twice, another once": lambda: _seeded(
            lambda seed: written(options=drawn | {"seed": seed}).response),
        "another model: ResponseError": lambda: _raises(
            ollama.ResponseError, lambda: written(model="llama3")),
        "format='json'": json_format,
        "show": lambda: bool(client.show(name)),
        "embed": lambda: bool(client.embed(name, "a")),
        "pull": lambda: bool(client.pull(name)),
    }
