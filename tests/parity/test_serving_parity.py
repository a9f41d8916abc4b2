"""The server's streams, read by parsers that nobody here wrote."""

import json
import random
from importlib.metadata import version

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")
openai = pytest.importorskip("openai", reason="openai is not installed: pip install openai")
ollama = pytest.importorskip("ollama", reason="ollama is not installed: pip install ollama")
httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

from openai._streaming import SSEDecoder  # noqa: E402

from scratchbook.serving.openai_api import sse  # noqa: E402
from tests.serving_home import ScriptedEngine, serving, tiny_served  # noqa: E402

TEXTS = ["", "plain", "two\nlines\r\nand three", "data: data: x\n\n", "é👋\u2028\u2029\x85\x0b",
         '"\\', "[DONE]", ":comment", "\x00\x1f"]


def test_events_cut_anywhere_are_what_openais_reader_reads(parity):
    stream = b"".join(sse({"text": text}) for text in TEXTS)
    draw, wrong, cases = random.Random(0), 0, 0
    cuts = [[place] for place in range(len(stream))]
    cuts += [sorted(draw.sample(range(len(stream)), 9)) for _ in range(100)]
    for places in cuts:
        ends = [0, *places, len(stream)]
        chunks = [stream[a:b] for a, b in zip(ends, ends[1:], strict=False)]
        found = [json.loads(event.data)["text"] for event in SSEDecoder().iter_bytes(iter(chunks))]
        wrong, cases = wrong + (found != TEXTS), cases + 1
    assert parity("server-sent events, cut anywhere", against=f"openai {version('openai')}",
                  error=wrong, cases=cases)


@pytest.mark.parametrize("dialect", ["openai", "ollama"])
def test_streams_join_to_the_script(parity, dialect):
    served = tiny_served()
    texts = ["the cat sat on the mat", "a👋b", "two\n\nlines\r\n", 'quote " and \\ slash',
             "\u2028é\x85\u2029"]
    wrong = 0
    for text in texts:
        ids = served.tokenizer.encode_ordinary(text)
        with serving(served, ScriptedEngine(ids)) as home:
            ask = {"model": "tiny", "prompt": "x", "stream": True}
            if dialect == "openai":
                with openai.OpenAI(base_url=f"{home.url}/v1", api_key="none") as client:
                    found = "".join(chunk.choices[0].text for chunk in client.completions.create(
                        **ask, max_tokens=len(ids)))
            else:
                found = "".join(piece.response for piece in ollama.Client(home.url).generate(
                    **ask, raw=True, options={"num_predict": len(ids)}))
        wrong += found != text
    assert parity(f"streamed text, {dialect}'s dialect", against=f"{dialect} {version(dialect)}",
                  error=wrong, cases=len(texts))
