"""The Chainlit app over a real server: a message there and its answer back, by websocket.

A package that Chainlit needs installs one named `tests`, which hides these here: give Chainlit an
environment of its own, and name its python in SCRATCHBOOK_CHAINLIT_PYTHON.
"""

import asyncio
import inspect
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")
httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

from scratchbook.serving import chainlit_app  # noqa: E402
from tests.serving_home import ScriptedEngine, serving, tiny_served, until  # noqa: E402

PYTHON = os.environ.get("SCRATCHBOOK_CHAINLIT_PYTHON", sys.executable)
NEEDS = "import asyncio, json, sys, aiohttp, chainlit, openai, socketio"
SERVED = tiny_served(window=200)
SAYS = "the cat sat 👋 on the mat, "


@pytest.fixture(scope="module")
def home():
    with serving(SERVED, ScriptedEngine(SERVED.tokenizer.encode(SAYS * 2), pause=0.002)) as found:
        yield found


@pytest.fixture(scope="module")
def app(home, tmp_path_factory):
    """The address of the app, at work on a free port of this machine."""
    if subprocess.run([PYTHON, "-c", NEEDS], capture_output=True, check=False).returncode:
        pytest.skip("chainlit is not installed: SCRATCHBOOK_CHAINLIT_PYTHON names the python of an "
                    "environment with 'scratchbook[chainlit]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("chainlit")  # it writes its settings where it runs
    process = subprocess.Popen(
        [PYTHON, "-m", "chainlit", "run", chainlit_app.__file__, "--headless", "--host",
         "127.0.0.1", "--port", str(port)], cwd=folder, stdout=subprocess.DEVNULL,
        env=os.environ | {"SCRATCHBOOK_URL": f"{home.url}/v1", "CHAINLIT_APP_ROOT": str(folder)})

    def answers() -> bool:
        assert process.poll() is None, "the app ended"
        try:
            return httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(answers, 120)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


async def talk(address, texts):
    """The last state of every message that the app shows, and the settings that it offers."""
    import socketio

    client, shown, offered = socketio.AsyncClient(), {}, {}
    answered, begun = asyncio.Event(), asyncio.Event()

    @client.on("*")
    async def heard(event, *data):
        if event in ("new_message", "update_message"):
            shown[data[0]["id"]] = data[0]
            if event == "update_message" and data[0]["type"] == "assistant_message":
                answered.set()
        elif event == "chat_settings":
            offered.update((each["id"], each["initial"]) for each in data[0])
            begun.set()

    await client.connect(address, socketio_path="/ws/socket.io", transports=["websocket"],
                         auth={"sessionId": "one", "clientType": "webapp"})
    await client.emit("connection_successful")
    await asyncio.wait_for(begun.wait(), 30)
    for number, text in enumerate(texts):
        answered.clear()
        await client.emit("client_message", {"message": {
            "id": f"00000000-0000-4000-8000-00000000000{number}", "name": "user",
            "type": "user_message", "output": text, "createdAt": "2026-01-01T00:00:00Z"}})
        await asyncio.wait_for(answered.wait(), 30)
    await client.disconnect()
    return list(shown.values()), offered


def test_a_message_is_answered_and_the_next_one_has_what_was_said(home, app):
    code = f"{NEEDS}\n{inspect.getsource(talk)}\nprint(json.dumps(asyncio.run(talk(sys.argv[1], "
    done = subprocess.run([PYTHON, "-c", code + "sys.argv[2:]))))", app, "hello", "and then"],
                          capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    shown, offered = json.loads(done.stdout.splitlines()[-1])
    assert offered == {"model": "tiny", "temperature": 0.8, "max_tokens": 100}  # half of the window
    answers = [each["output"] for each in shown if each["type"] == "assistant_message"]
    assert answers == [SAYS * 2] * 2, shown
    first, second = home.engine.seen
    assert list(first.prompt_ids) == SERVED.encode_chat([{"role": "user", "content": "hello"}])
    assert list(second.prompt_ids)[: len(first.prompt_ids)] == list(first.prompt_ids)
    assert second.temperature == 0.8 and "and then" in SERVED.tokenizer.decode(second.prompt_ids)
    assert home.worker.open == 0


def test_importing_the_app_does_nothing():
    assert Path(chainlit_app.__file__).read_text(encoding="utf-8").count("\n") < 60
    code = "import sys, scratchbook.serving.chainlit_app; sys.exit('chainlit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
