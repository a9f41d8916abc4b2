"""The conversation in the page sends what the server sends, byte for byte."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")
httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

from scratchbook.serving.chat_templates import PLAIN_STOPS, plain_chat  # noqa: E402
from scratchbook.serving.openai_api import sse  # noqa: E402
from scratchbook.serving.text_streams import TextStream  # noqa: E402
from scratchbook.training.runs import ByteTokenizer  # noqa: E402
from tests.node import passed, run_figure  # noqa: E402
from tests.serving_home import ScriptedEngine, serving, tiny_served  # noqa: E402

TALKS = (
    [{"role": "user", "content": "What is a loop?"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b\n"},
     {"role": "user", "content": 'say "</pre>"'}],
)
SCRIPTS = (
    ("A loop.\n\n### User:\nmore", 60),          # a stop string of the plain prompt
    ('{"quoted": "\\n"}\n\t<b>\x01\x7f</b>', 60),  # what JSON escapes, and what it does not
    ("cut off #", 9), ("held \n### Us", 60), ("x", 1),
)
LETTERS = [*map(chr, range(0xA1)), "\u2028", "\u2029", "\ufeff", "\ue000"]


def streamed(script: str, messages: list[dict], most: int) -> str:
    """What the server sends when the model writes this script, a letter a token."""
    served = replace(tiny_served(template=None, window=400), tokenizer=ByteTokenizer(), control={},
                     stop_ids=[])
    asked = {"model": served.name, "messages": messages, "stream": True, "max_tokens": most,
             "stream_options": {"include_usage": True}}
    with serving(served, ScriptedEngine(list(script.encode()))) as home:
        return httpx.post(f"{home.url}/v1/chat/completions", json=asked).text


def stream_cases() -> list[dict]:
    return [{"script": script, "messages": talk, "stops": list(PLAIN_STOPS),
             "most": min(most, len(script)), "sent": streamed(script, talk, most)}
            for (script, most), talk in itertools.product(SCRIPTS, TALKS)]


def stopping_cases(count: int = 200) -> list[dict]:
    """Letters and stop strings by chance, from an alphabet of two, so that much collides."""
    draw, found = random.Random(0), []
    for _ in range(count):
        stops = ["".join(draw.choices("ab", k=draw.randint(1, 5)))
                 for _ in range(draw.randint(1, 3))]
        pieces = draw.choices("abc", k=draw.randint(1, 12))
        stream = TextStream(lambda ids: "".join(map(chr, ids)), stops)
        shown = []
        for piece in pieces:
            if stream.stopped:
                break
            shown.append(stream.add(ord(piece))[0])
        found.append({"pieces": pieces, "stops": stops, "shown": shown, "stopped": stream.stopped})
    assert 20 < sum(case["stopped"] for case in found) < count - 20
    return found


def test_the_javascript_sends_what_the_server_sends(tmp_path):
    prompts = [{"messages": talk, "prompt": bytes(plain_chat(talk, ByteTokenizer())).decode()}
               for talk in TALKS]
    streams = stream_cases()
    values = [{"a": [1, True, None, {}, [], "é😀"], f"k{letter}": f"a{letter}b"}
              for letter in LETTERS]
    assert {case["sent"].count('"stop"') for case in streams} == {0, 1}
    said = run_figure("chat_stream", tmp_path, {
        "streams": streams, "prompts": prompts, "stopping": stopping_cases(),
        "values": [{"value": value, "json": sse(value).decode()} for value in values]})
    assert passed(said) == 10
