"""Issues of a repository from a server on this machine, and Parquet shards, read as a stream."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from scratchbook.companions.data_sources import issues, stream_texts

ITEMS = [{"number": n, "title": f"Title {n}", "body": None if n % 3 == 0 else f"Body {n}\n",
          **({"pull_request": {}} if n % 2 else {})} for n in range(1, 251)]


@contextmanager
def serving(answer):
    """A server that hands each request to `answer(handler)`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *words):
            pass

        def do_GET(self):
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": len(body)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def github(limited=0, reset=0, tokens=()):
    """As much of GitHub as the client asks: pages of 100, a limit, and who asked."""
    asked = []

    def answer(handler):
        asked.append(handler.path)
        if tokens and handler.headers.get("Authorization") not in [f"Bearer {t}" for t in tokens]:
            return 401, {}, b"{}"
        if len(asked) == 2 and limited:
            named = {"Retry-After": limited} if not reset else {
                "X-RateLimit-Remaining": 0, "X-RateLimit-Reset": int(time.time() + reset)}
            return 403, named, b'{"message": "API rate limit exceeded"}'
        if not handler.path.startswith("/repos/own/repo/issues?"):
            return 404, {}, b"{}"
        page = int(handler.path.split("&page=")[1]) if "&page=" in handler.path else 1
        where = f"http://{handler.headers['Host']}/repos/own/repo/issues?state=all&per_page=100"
        links = {"Link": f'<{where}&page=1>; rel="first", <{where}&page={page + 1}>; rel="next"'}
        part = ITEMS[100 * (page - 1) : 100 * page]
        return 200, links if page < 3 else {}, json.dumps(part).encode()

    with serving(answer) as url:
        yield url, asked


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def test_every_page_is_followed():
    with github() as (url, asked):
        found = list(issues("own/repo", api=url))
    assert len(found) == 250 and len(asked) == 3
    assert found[0] == ("own/repo/pull/1", "# Title 1\n\nBody 1\n", "own/repo")
    assert found[5] == ("own/repo/issue/6", "# Title 6\n", "own/repo")


def test_pages_are_asked_for_only_when_they_are_needed():
    with github() as (url, asked):
        stream = issues("own/repo", api=url)
        for _ in range(100):
            next(stream)
        assert len(asked) == 1


@pytest.mark.parametrize("how", [{"limited": 1}, {"limited": 1, "reset": 2}])
def test_a_limit_is_waited_for(how):
    with github(**how) as (url, asked):
        assert len(list(issues("own/repo", api=url))) == 250
        assert len(asked) == 4


def test_a_long_limit_is_said_and_nothing_before_it_is_lost():
    got = []
    with github(limited=3600) as (url, _), pytest.raises(RuntimeError, match="in 3600 seconds; gi"):
        got.extend(document.name for document in issues("own/repo", api=url))
    with github(limited=3600) as (url, _):
        stream = issues("own/repo", api=url)
        assert len([next(stream) for _ in range(100)]) == 100


def test_refusals_are_said():
    with github(tokens=["good"]) as (url, _):
        assert len(list(issues("own/repo", "good", api=url))) == 250
        with pytest.raises(RuntimeError, match="401 Unauthorized; give a token"):
            next(issues("own/repo", "bad", api=url))
    with github() as (url, _), pytest.raises(RuntimeError, match="404"):
        next(issues("own/other", api=url))
    with pytest.raises(ValueError, match="must be owner/name"):
        next(issues("../etc", api="http://127.0.0.1:1"))


# shards


@pytest.fixture
def shards(tmp_path):
    """Three Parquet files of ten texts each, written by pyarrow."""
    pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    for shard in range(3):
        column = pyarrow.table({"text": [f"text {10 * shard + n} ü" for n in range(10)],
                                "id": list(range(10))})
        parquet.write_table(column, tmp_path / f"train-{shard}.parquet")
    return sorted(str(path) for path in tmp_path.glob("*.parquet"))


def test_local_shards_come_in_order(shards):
    assert list(stream_texts(shards)) == [f"text {n} ü" for n in range(30)]
    with pytest.raises(ValueError, match="no column 'body'; there are text, id"):
        next(stream_texts(shards, column="body"))


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub(files, ranges):
    """As much of the hub as its client asks about `own/texts`: what is in it, and parts of it."""

    def answer(handler):
        path = handler.path.split("?")[0].removeprefix("/api").removeprefix("/datasets/own/texts")
        body = files.get(path.rsplit("/", 1)[-1])
        if "/resolve/" in path and body is not None:
            headers = {"ETag": '"x"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if not (asked := handler.headers.get("Range")):
                return 200, headers, body
            ranges.append(path.rsplit("/", 1)[-1])
            first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
            headers["Content-Range"] = f"bytes {first}-{min(last, len(body) - 1)}/{len(body)}"
            return 206, headers, body[first : last + 1]
        if path == f"/tree/{COMMIT}":
            return 200, {}, json.dumps([
                {"type": "file", "path": name, "size": len(content),
                 "oid": hashlib.sha1(content).hexdigest()} for name, content in files.items()]
                ).encode()
        if path in ("", f"/revision/{COMMIT}"):
            return 200, {}, json.dumps({
                "id": "own/texts", "sha": COMMIT, "private": False, "tags": [], "downloads": 0,
                "likes": 0, "siblings": [{"rfilename": name} for name in files]}).encode()
        return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"

    return answer


def test_a_data_set_of_the_hub_is_read_in_parts(shards, tmp_path):
    """The library itself against a hub on this machine: ten texts need the first shard alone."""
    files = {Path(path).name: Path(path).read_bytes() for path in shards}
    code = ("import itertools; from scratchbook.companions.data_sources import stream_texts\n"
            "print(list(itertools.islice(stream_texts('own/texts'), 4)), end='')")
    ranges = []
    with serving(hub(files, ranges)) as url:
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
            env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*",
                 "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
                 "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONIOENCODING": "utf-8"}, encoding="utf-8")
    assert run.stdout == str([f"text {n} ü" for n in range(4)]), run.stderr[-2000:]
    assert set(ranges) <= {"train-0.parquet", "train-1.parquet"} and ranges
