"""Many clients at once, and the end of a server: nothing is lost, nothing comes twice."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")
httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

from scratchbook.generation import generate  # noqa: E402
from scratchbook.serving import Engine  # noqa: E402
from tests.serving_home import ScriptedEngine, run_alone, serving, tiny_served, until  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
CLIENTS, REQUESTS, KINDS = 32, 20, 5
SERVED = tiny_served()


def body(kind: int) -> dict:
    return {"model": "tiny", "prompt": f"the {kind} cat", "max_tokens": 3 + kind, "temperature": 0}


async def one_client(url: str, number: int) -> list[tuple[int, str, int]]:
    """Twenty requests one after the other; every other one is streamed."""
    found = []
    async with httpx.AsyncClient(timeout=120) as client:
        for turn in range(REQUESTS):
            kind = (number + turn) % KINDS
            asked = body(kind) | {"stream": bool(turn % 2)}
            answer = await client.post(f"{url}/v1/completions", json=asked)
            assert answer.status_code == 200, answer.text
            if turn % 2:
                texts = re.findall(r'"text": "((?:[^"\\]|\\.)*)"', answer.text)
                assert answer.text.count("[DONE]") == 1
                found.append((kind, "".join(texts), answer.text.count('"finish_reason": "')))
            else:
                choice = answer.json()["choices"][0]
                found.append((kind, json.dumps(choice["text"], ensure_ascii=False)[1:-1], 1))
    return found


def test_32_clients_of_20_requests_lose_and_double_nothing():
    tokenizer, control = SERVED.tokenizer, set(SERVED.control.values())
    expected, tokens = {}, {}
    for kind in range(KINDS):
        ids = generate(SERVED.model, SERVED.encode(body(kind)["prompt"]), 3 + kind, 0,
                       stop_ids=SERVED.stop_ids)
        text = tokenizer.decode([i for i in ids if i not in control])
        expected[kind], tokens[kind] = json.dumps(text, ensure_ascii=False)[1:-1], len(ids)

    async def everyone(url: str):
        return await asyncio.gather(*(one_client(url, n) for n in range(CLIENTS)))

    engine = Engine(SERVED.model, max_batch=16)
    with serving(SERVED, engine, max_open=CLIENTS) as home:
        answers = [each for found in run_alone(everyone(home.url)) for each in found]
        assert len(answers) == CLIENTS * REQUESTS
        assert {(kind, text) for kind, text, _ in answers} == set(expected.items())
        assert all(ends == 1 for _, _, ends in answers)
        assert engine.stats.new_tokens == sum(tokens[kind] for kind, _, _ in answers)
        assert home.worker.open == 0 and engine.idle


def test_idle_connections_are_the_clients_to_close():
    with serving(SERVED, ScriptedEngine([1])) as home:
        assert home.server.config.timeout_keep_alive > 2 * httpx.Limits().keepalive_expiry


def test_a_server_that_stops_writes_its_answers_to_the_end():
    engine = ScriptedEngine(SERVED.tokenizer.encode("the cat sat on the mat, " * 30), pause=0.02)
    found = {}
    with serving(SERVED, engine) as home:
        def ask(name: str, stream: bool) -> None:
            found[name] = httpx.post(f"{home.url}/v1/completions", timeout=30, json={
                "model": "tiny", "prompt": "a", "max_tokens": 40, "stream": stream})

        threads = [threading.Thread(target=ask, args=(str(s), s)) for s in (True, False)]
        for thread in threads:
            thread.start()
        until(lambda: engine.stats.running == 2 and engine.stats.steps > 3)
        home.server.should_exit = True
        until(lambda: not home.server.servers or not home.server.servers[0].is_serving())
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{home.url}/health")
        assert engine.stats.running == 2  # still at work
        for thread in threads:
            thread.join(20)
    assert found["False"].json()["usage"]["completion_tokens"] == 40
    assert found["True"].text.endswith("data: [DONE]\n\n")


def test_answers_that_take_too_long_are_cut_when_a_server_stops():
    engine = ScriptedEngine(SERVED.tokenizer.encode("the cat sat on the mat, " * 30), pause=0.05)
    with serving(SERVED, engine, drain_seconds=1) as home:
        with httpx.stream("POST", f"{home.url}/v1/completions", json={
                "model": "tiny", "prompt": "a", "max_tokens": 120, "stream": True}) as answer:
            next(answer.iter_bytes())
            home.server.should_exit = True
            home.thread.join(10)
        assert not home.thread.is_alive() and engine.idle
        assert engine.stats.steps < 100


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_the_readmes_server_answers_the_readmes_clients_and_ends_at_a_signal():
    for name in ("openai", "ollama"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"^scratchbook (serve base[^#\n]*)", text, re.MULTILINE)[1].split()
    examples = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
                if "http://127.0.0.1:8000" in code]
    curl = json.loads(re.search(r"^curl .* -d '(\{.*?\})'", text, re.DOTALL | re.MULTILINE)[1])
    server = subprocess.Popen([sys.executable, "-m", "scratchbook", *command, "--port", "0"],
                              stdout=subprocess.PIPE, text=True, cwd=ROOT,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        said = server.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+", said)[0]
        assert "base" in said and len(examples) == 2
        for example in examples:
            done = subprocess.run([sys.executable, "-c", example.replace(
                "http://127.0.0.1:8000", url)], capture_output=True, text=True, timeout=120,
                check=False)
            assert done.returncode == 0, done.stderr
            assert len(done.stdout.strip()) > 20
        made = httpx.post(f"{url}/v1/chat/completions", json=curl, timeout=120).json()
        assert made["choices"][0]["message"]["content"].startswith("{")
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) in (0, -signal.SIGTERM)
    finally:
        server.kill()
        server.wait()
