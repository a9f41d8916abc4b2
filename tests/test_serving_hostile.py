"""Slow, broken and hostile clients: each is told off or cut off, and the next one is served."""

import asyncio
import json
import socket
import time
from contextlib import suppress

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")
httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

from scratchbook.serving import Engine  # noqa: E402
from scratchbook.serving.answering import Limits  # noqa: E402
from scratchbook.serving.app import Settings  # noqa: E402
from tests.serving_home import ScriptedEngine, run_alone, serving, tiny_served, until  # noqa: E402

SERVED = tiny_served()
TOKENS = SERVED.tokenizer.encode("the cat sat on the mat, " * 30)
ASK = {"model": "tiny", "prompt": "the", "max_tokens": 5}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def home():
    with serving(SERVED, Engine(SERVED.model, max_batch=4), patience=1.0) as found:
        yield found
        assert httpx.post(f"{found.url}/v1/completions", json=ASK).status_code == 200
        assert found.worker.open == 0 and found.engine.idle


def address(home) -> tuple[str, int]:
    host, port = home.url.removeprefix("http://").split(":")
    return host, int(port)


def spoken(home, data: bytes, seconds: float = 10.0) -> bytes:
    """What the server says to raw bytes until it closes the connection, or says nothing more."""
    with socket.create_connection(address(home)) as connection:
        connection.settimeout(seconds)
        connection.sendall(data)
        found = b""
        with suppress(ConnectionResetError):  # it need not read what it does not want
            while chunk := connection.recv(65536):
                found += chunk
        return found


@pytest.mark.parametrize(("body", "status"), [
    (b"", 400), (b"{", 400), (b"null", 400), (b"[1, 2]", 400), (b'"text"', 400),
    (b'{"model": "tiny", "prompt": "\xff\xfe"}', 400),            # bad UTF-8
    (b'{"model": "tiny", "prompt": "\\ud83d"}', 400),             # half a surrogate pair
    (b"[" * 100_000, 400), (b'{"a":' * 50_000, 400),              # deep
    (b'{"model": "tiny", "prompt": "a\\u0000b", "max_tokens": 2}', 200),
    (b'{"model": "tiny", "prompt": "' + b"a" * 2_100_000 + b'"}', 413),
    (b"x" * 10_000_000, 413),
], ids=lambda value: str(value[:40]) if isinstance(value, bytes) else None)
def test_bodies_that_are_no_request(home, body, status):
    for path in ("/v1/completions", "/api/generate"):
        answer = httpx.post(home.url + path, content=body, headers=JSON)
        assert answer.status_code == status, answer.text[:200]
        if status != 200:
            error = answer.json()["error"]
            assert error if path.startswith("/api") else error["message"]


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e400", b"-1", b'"1"', b"[]", b"true",
                                    b"9" * 6000, b"0.5.5"])
def test_numbers_that_are_none(home, number):
    for path, name in (("/v1/completions", b'"temperature": %s'), ("/v1/completions", b'"n": %s'),
                       ("/v1/chat/completions", b'"max_tokens": %s'),
                       ("/api/chat", b'"options": {"temperature": %s}')):
        body = (b'{"model": "tiny", "prompt": "a", '
                b'"messages": [{"role": "user", "content": "a"}], ')
        answer = httpx.post(home.url + path, content=body + name % number + b"}", headers=JSON)
        assert answer.status_code == 400, answer.text[:200]


def test_a_chunked_body_has_no_size_to_lie_about(home):
    answer = httpx.post(f"{home.url}/v1/completions", headers=JSON,
                        content=(b"x" * 100_000 for _ in range(30)))
    assert answer.status_code == 413 and "error" in answer.json()


def test_a_page_of_another_site_cannot_ask(home):
    body = json.dumps(ASK)
    # what a form or a script of another page may send without asking first
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = httpx.post(f"{home.url}/v1/completions", content=body,
                            headers={"Content-Type": kind, "Origin": "https://evil.example"})
        assert answer.status_code == 400
        assert "Content-Type: application/json" in answer.json()["error"]["message"]
    asked = httpx.options(f"{home.url}/v1/completions", headers={
        "Origin": "https://evil.example", "Access-Control-Request-Method": "POST"})
    assert asked.status_code >= 400 and "access-control-allow-origin" not in asked.headers
    # a name of theirs that was bent to this machine
    answer = httpx.get(f"{home.url}/v1/models", headers={"Host": "evil.example:80"})
    assert answer.status_code == 403 and "localhost only" in answer.json()["error"]["message"]
    for name in ("localhost.evil.example", "evillocalhost", "127.0.0.1.evil.example", "",
                 "evil.example@127.0.0.1"):
        assert httpx.get(f"{home.url}/v1/models", headers={"Host": name}).status_code == 403
    for name in ("localhost", "localhost:80", "127.0.0.2:80", "[::1]:80"):
        assert httpx.get(f"{home.url}/v1/models", headers={"Host": name}).status_code == 200


def test_unknown_paths_and_methods_have_the_apis_shape(home):
    for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405),
                                 ("POST", "/health", 405), ("GET", "/page/../app.py", 404),
                                 ("GET", "/page/%2e%2e/app.py", 404), ("GET", "/docs", 404)):
        answer = httpx.request(method, home.url + path)
        assert answer.status_code == status, path
        assert answer.json()["error"]["message"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_paths_that_nobody_has_are_counted_as_one(home):
    for number in range(3):
        httpx.get(f"{home.url}/nobody/{number}")
    text = httpx.get(f"{home.url}/metrics").text
    assert "nobody" not in text and 'path="other",status="404"' in text


def test_half_a_request_is_cut_off(home):
    begun = time.monotonic()
    assert spoken(home, b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConte") == b""
    late = spoken(home, b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                        b"Content-Type: application/json\r\n"
                        b"Content-Length: 50\r\n\r\n{\"model\":")
    assert b" 408 " in late.split(b"\r\n")[0] and b"did not come within" in late
    assert time.monotonic() - begun < 8
    for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", b"GET\r\n\r\n"):
        assert b" 400 " in spoken(home, nonsense).split(b"\r\n")[0]
    flood = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n"
    assert b" 200 " not in spoken(home, flood)


def test_a_client_that_hangs_up_frees_its_slots():
    engine = ScriptedEngine(TOKENS, pause=0.01)
    with serving(SERVED, engine) as home:
        for stream in (True, False):
            for path, more in (("/v1/completions", {}), ("/v1/chat/completions", {"n": 3}),
                               ("/api/chat", {})):
                body = json.dumps({"model": "tiny", "prompt": "a", "stream": stream,
                                   "messages": [{"role": "user", "content": "a"}]} | more
                                  | ({} if path.startswith("/api") else {"max_tokens": 100}))
                connection = socket.create_connection(address(home))
                connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                                   f"application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                                   .encode())
                until(lambda: engine.stats.running > 0)
                connection.close()
                until(lambda: engine.idle and home.worker.open == 0, 5)
        assert engine.stats.steps < 6 * 50  # none of them was written to its end


def test_a_real_engine_gives_the_blocks_back_when_a_client_hangs_up():
    served = tiny_served(window=2048)
    engine = Engine(served.model, max_batch=2, prefix_cache=False)
    with serving(served, engine) as home:
        ask = {"model": "tiny", "prompt": "the", "max_tokens": 2000, "stream": True}
        with httpx.stream("POST", f"{home.url}/v1/completions", json=ask) as answer:
            next(answer.iter_bytes())
            assert engine.stats.blocks_in_use > 0 and home.worker.open == 1
        until(lambda: engine.idle and home.worker.open == 0, 5)
        assert engine.stats.blocks_in_use == 0 == sum(engine.pool.holders)
        assert 0 < engine.stats.new_tokens < 2000  # the answer was not written to its end


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_may_take_longer_than_a_body_may(stream):
    with serving(SERVED, ScriptedEngine(TOKENS, pause=0.03), patience=0.4) as home:
        answer = httpx.post(f"{home.url}/v1/completions", json=ASK | {
            "max_tokens": 40, "stream": stream, "stream_options": {"include_usage": True}})
        assert answer.status_code == 200 and '"completion_tokens": 40' in answer.text


def test_a_body_of_just_the_most_bytes_is_read():
    body = json.dumps(ASK)
    for most, status in ((len(body), 200), (len(body) - 1, 413)):
        with serving(SERVED, ScriptedEngine(TOKENS), max_body_bytes=most) as home:
            answer = httpx.post(f"{home.url}/v1/completions", content=body, headers=JSON)
            assert answer.status_code == status


def test_a_slow_reader_holds_no_slot():
    engine = ScriptedEngine(TOKENS)
    with serving(SERVED, engine) as home, httpx.stream(
            "POST", f"{home.url}/v1/completions",
            json=ASK | {"max_tokens": 100, "stream": True}) as answer:
        until(lambda: engine.idle and home.worker.open == 0, 5)  # before anything was read
        events = [line for line in answer.iter_lines() if line]
        assert events[-1] == "data: [DONE]" and len(events) == 101


def test_a_full_line_sends_away_with_a_time_to_come_again():
    engine = ScriptedEngine(TOKENS, max_batch=1, pause=0.02)

    async def ask(home):
        async with httpx.AsyncClient(timeout=30) as client:
            return await asyncio.gather(*(client.post(
                f"{home.url}/v1/completions", json=ASK) for _ in range(8)))

    with serving(SERVED, engine, max_open=3) as home:
        answers = run_alone(ask(home))
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses.count(200) >= 3 and 429 in statuses and set(statuses) == {200, 429}
        away = next(answer for answer in answers if answer.status_code == 429)
        assert 1 <= int(away.headers["retry-after"]) <= 60
        assert away.json()["error"]["code"] == "rate_limit_exceeded"
        for seconds, wait in ((0.2, "1"), (7.2, "8"), (1000.0, "60")):  # as long as one took
            home.worker.seconds = seconds
            away = httpx.post(f"{home.url}/v1/completions", json=ASK | {"n": 4})
            assert away.headers["retry-after"] == wait
        # more at once than the line is long: all or none
        assert httpx.post(f"{home.url}/v1/completions", json=ASK | {"n": 4}).status_code == 429
        assert httpx.post(f"{home.url}/v1/completions", json=ASK).status_code == 200


def test_the_servers_own_limits():
    with serving(SERVED, ScriptedEngine(TOKENS), limits=Limits(max_new_tokens=7)) as home:
        answer = httpx.post(f"{home.url}/v1/completions", json=ASK | {"max_tokens": 8})
        assert answer.status_code == 400 and "more than the 7" in answer.json()["error"]["message"]
        chat = httpx.post(f"{home.url}/v1/chat/completions", json={
            "model": "tiny", "messages": [{"role": "user", "content": "a"}]}).json()
        assert chat["usage"]["completion_tokens"] == 7
        told = httpx.post(f"{home.url}/api/generate", json={
            "model": "tiny", "prompt": "a", "stream": False, "options": {"num_predict": 50}}).json()
        assert told["eval_count"] == 7
        # a plain engine tells the chosen tokens' log-probabilities, no others
        for count, status in ((0, 200), (1, 400)):
            assert httpx.post(f"{home.url}/v1/completions", json=ASK | {"logprobs": count}
                              ).status_code == status


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_a_model_that_fails_is_told_and_nothing_more_is_accepted(path, stream):
    engine = ScriptedEngine(TOKENS, fails_at=4)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "stream": stream}
    with serving(SERVED, engine) as home:
        answer = httpx.post(home.url + path, json=body)
        assert "no memory" in answer.text
        assert answer.status_code == (200 if stream else 500)
        assert "[DONE]" not in answer.text and '"done": true' not in answer.text
        assert httpx.post(home.url + path, json=body).status_code == 503
        assert httpx.get(f"{home.url}/health").status_code == 503
        assert home.worker.open == 0


def test_a_key_opens_everything_but_the_page_and_health():
    with serving(SERVED, ScriptedEngine(TOKENS), key="sesame", origins=["https://a.example"]
                 ) as home:
        for path in ("/v1/models", "/api/tags", "/metrics", "/openapi.json"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "sesame"},
                            {"Authorization": "Basic sesame"},
                            {"Authorization": "Bearer sesame\xff".encode("latin-1")}):
                answer = httpx.get(home.url + path, headers=headers)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert httpx.get(home.url + path, headers={"Authorization": "bearer sesame",
                                                       "Host": "any.name"}).status_code == 200
        for path in ("/", "/health", "/page/app.js"):
            assert httpx.get(home.url + path).status_code == 200
        asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization,content-type"}
        allowed = httpx.options(f"{home.url}/v1/completions", headers=asked)
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        other = httpx.options(f"{home.url}/v1/completions",
                              headers=asked | {"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org", ""])
def test_others_reach_the_server_with_a_key_only(host):
    with pytest.raises(ValueError, match="give a key"):
        Settings(host=host)
    assert Settings(host=host, key="k").host == host


@pytest.mark.parametrize("key", ["", "a b", "\n", "é"])
def test_keys_that_no_header_can_carry_are_refused(key):
    with pytest.raises(ValueError, match="printable"):
        Settings(key=key)
