"""GitHub's search and Monticello's index, from servers on this machine: pages, limits, resuming."""

import hashlib
import http.server
import io
import json
import threading
import urllib.parse
import zipfile
from contextlib import contextmanager
from datetime import date, timedelta
from email.message import Message
from email.utils import formatdate

import pytest

from scratchbook.smalltalk.github import (
    Client,
    GitHubError,
    limit_wait,
    next_page,
    search,
    write_table,
)
from scratchbook.smalltalk.monticello_index import download, newest, parse_index
from scratchbook.smalltalk.source_table import load_sources

TODAY = date(2026, 11, 1)
CLOCK = 1_800_000_000


@contextmanager
def serving(answer):
    """A server that hands each request to `answer(handler) -> status, headers, body`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *words):
            pass

        def do_GET(self):
            status, headers, body = answer(self)
            self.send_response_only(status)
            for name, value in {**headers, "Content-Length": len(body)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def described(number: int) -> dict:
    """A repository as the search describes it, in the fields that the client reads and more."""
    day = date(2008, 1, 1) + timedelta(days=number % 6000)
    return {"id": number, "name": f"r{number}", "full_name": f"own/r{number}", "private": False,
            "owner": {"login": "own", "type": "User"}, "fork": number % 10 == 9, "size": 100,
            "created_at": f"{day}T00:00:00Z", "pushed_at": f"{day}T00:00:00Z",
            "default_branch": "main" if number % 2 else "feature/x", "archived": False,
            "disabled": False, "stargazers_count": number,
            "license": {"key": "mit", "spdx_id": "MIT"} if number % 3 else None}


class GitHub:
    """As much of GitHub as the client asks: search pages, ETags, commits, and trouble on order."""

    def __init__(self, count: int):
        self.items = [described(number) for number in range(count)]
        self.asked, self.bodies, self.trouble = [], 0, {}

    def __call__(self, handler):
        self.asked.append(handler.path)
        if trouble := self.trouble.pop(len(self.asked), None):
            return trouble
        parts = urllib.parse.urlsplit(handler.path)
        words = parts.path.strip("/").split("/")
        if words[0] == "repos":
            return self.commit(words, handler)
        asked = dict(urllib.parse.parse_qsl(parts.query))
        first, last = asked["q"].partition("created:")[2].split("..")
        found = [i for i in self.items if first <= i["created_at"][:10] <= last]
        page, size = int(asked.get("page", 1)), int(asked["per_page"])
        if page * size > 1000:
            return 422, {}, b'{"message": "Only the first 1000 search results are available"}'
        headers = {}
        if page * size < min(len(found), 1000):
            here = f"http://{handler.headers['Host']}{parts.path}"
            after, end = (urllib.parse.urlencode({**asked, "page": p}) for p in (page + 1, 10))
            headers["Link"] = f'<{here}?{after}>; rel="next", <{here}?{end}>; rel="last"'
        body = {"total_count": len(found), "incomplete_results": False,
                "items": found[(page - 1) * size : page * size]}
        return self.with_etag(handler, headers, body)

    def commit(self, words, handler):
        number = int(words[2][1:])
        branch = urllib.parse.unquote(words[4])
        if len(words) != 5 or branch != self.items[number]["default_branch"]:
            return 404, {}, b'{"message": "Not Found"}'
        if number == 4:
            return 409, {}, b'{"message": "Git Repository is empty."}'
        body = {"sha": hashlib.sha1(str(number).encode()).hexdigest(),
                "commit": {"committer": {"name": "A", "date": "2025-02-03T04:05:06Z"}}}
        return self.with_etag(handler, {}, body)

    def with_etag(self, handler, headers, body):
        content = json.dumps(body).encode()
        etag = f'W/"{hashlib.sha256(content).hexdigest()}"'
        if handler.headers.get("If-None-Match") == etag:
            return 304, {"ETag": etag}, b""
        self.bodies += 1
        return 200, {"ETag": etag, **headers}, content


@contextmanager
def client(github, folder, **more):
    """A client whose clock goes on only when it sleeps."""
    slept = []
    with serving(github) as address:
        made = Client(folder, api=address, sleep=slept.append,
                      now=lambda: CLOCK + sum(slept), **more)
        made.slept = slept
        yield made


def names(found):
    return [item["full_name"] for item in found]


def test_pages_are_followed_to_the_last(tmp_path):
    with client(github := GitHub(250), tmp_path) as asking:
        found = names(search(asking, "language:smalltalk", last=TODAY))
    assert sorted(found) == sorted(names(github.items)) and len(github.asked) == 3
    assert "q=language%3Asmalltalk+created%3A2008-01-01..2026-11-01" in github.asked[0]


def test_more_than_a_thousand_are_found_by_halving_the_days(tmp_path):
    with client(github := GitHub(2600), tmp_path) as asking:
        found = names(search(asking, "language:smalltalk", last=TODAY))
    assert sorted(found) == sorted(names(github.items))


LIMITS = [
    (403, {"Retry-After": 7}, {}, 7), (429, {"Retry-After": 9}, {}, 9),
    (403, {"X-RateLimit-Remaining": 0, "X-RateLimit-Reset": CLOCK + 40}, {}, 41),
    (429, {"X-RateLimit-Remaining": 0, "X-RateLimit-Reset": CLOCK + 50}, {}, 51),
    # a client whose clock is an hour late waits no hour
    (403, {"X-RateLimit-Remaining": 0, "X-RateLimit-Reset": CLOCK + 3600 + 20,
           "Date": formatdate(CLOCK + 3600, usegmt=True)}, {}, 21),
    (403, {}, {"message": "You have exceeded a secondary rate limit."}, 60), (429, {}, {}, 60),
    (502, {}, {}, 1),
]


@pytest.mark.parametrize(("status", "headers", "body", "wait"), LIMITS)
def test_a_limit_is_waited_for_as_long_as_the_server_says(tmp_path, status, headers, body, wait):
    github = GitHub(150)
    github.trouble[2] = (status, headers, json.dumps(body).encode())
    with client(github, tmp_path) as asking:
        assert len(names(search(asking, "x", last=TODAY))) == 150
    assert asking.slept == [wait] and len(github.asked) == 3


def test_a_limit_without_a_time_is_waited_for_twice_as_long_each_time(tmp_path):
    github = GitHub(10)
    github.trouble = {n: (429, {}, b"{}") for n in (1, 2, 3)}
    with client(github, tmp_path) as asking:
        assert len(names(search(asking, "x", last=TODAY))) == 10
    assert asking.slept == [60, 120, 240]


def test_headers_that_lie_do_not_break_the_client():
    headers = Message()
    headers["X-RateLimit-Remaining"], headers["X-RateLimit-Reset"] = "0", "5"
    headers["Date"] = "no date"
    assert limit_wait(headers, True, 0, now=100.0) == 1.0  # the reset has been
    odd = Message()
    odd["Retry-After"] = "Wed, 21 Oct 2026 07:28:00 GMT"
    assert limit_wait(odd, True, 1, now=0.0) == 120.0
    assert limit_wait(Message(), False, 0, now=0.0) is None
    assert next_page('<http://a/?page=1>; rel="prev", <http://a/?page=3>; rel="next"') \
        == "http://a/?page=3"
    assert next_page('<http://a/?page=9>; rel="last"') is None and next_page("") is None


@pytest.mark.parametrize(("trouble", "message"), [
    ((401, {}, b'{"message": "Bad credentials"}'), "401 Bad credentials"),
    ((403, {}, b'{"message": "Repository access blocked"}'), "403 Repository access blocked"),
    ((403, {"Retry-After": 9999}, b"{}"), "answers again in 9,999 seconds.*GITHUB_TOKEN"),
    ((422, {}, b'{"message": "Validation Failed"}'), "422 Validation Failed"),
])
def test_a_refusal_is_an_error_that_says_what_to_do(tmp_path, trouble, message):
    github = GitHub(10)
    github.trouble[1] = trouble
    with client(github, tmp_path) as asking, pytest.raises(GitHubError, match=message):
        list(search(asking, "x", last=TODAY))
    assert asking.slept == []


def test_a_server_that_stays_broken_is_given_up(tmp_path):
    github = GitHub(10)
    github.trouble = {n: (500, {}, b"") for n in range(1, 9)}
    with client(github, tmp_path) as asking, pytest.raises(GitHubError, match="500.*5 times"):
        list(search(asking, "x", last=TODAY))
    assert asking.slept == [1, 2, 4, 8]  # and no wait after the last attempt


def test_an_answer_that_is_no_json_is_asked_for_again(tmp_path):
    github = GitHub(10)
    github.trouble[1] = (200, {}, b'{"total_count": 1')
    with client(github, tmp_path) as asking:
        assert len(names(search(asking, "x", last=TODAY))) == 10


def test_what_was_answered_is_not_sent_again(tmp_path):
    with client(github := GitHub(250), tmp_path, token="secret") as asking:
        first = names(search(asking, "x", last=TODAY))
        assert github.bodies == 3
        assert names(search(asking, "x", last=TODAY)) == first
        assert github.bodies == 3 and len(github.asked) == 6  # three times 304
        github.items[0]["size"] = 101
        list(search(asking, "x", last=TODAY))
        assert github.bodies == 4  # one page has changed
    assert not any("secret" in path.read_text(encoding="utf-8") for path in tmp_path.iterdir())


def test_an_answer_without_an_etag_is_asked_for_without_one(tmp_path):
    heard = []

    def answer(handler):
        heard.append(handler.headers.get("If-None-Match"))
        return 200, {"ETag": ""}, b'{"total_count": 0, "items": []}'

    with client(answer, tmp_path) as asking:
        for _ in range(2):
            assert names(search(asking, "x", last=TODAY)) == []
    assert heard == [None, None]  # an empty condition would be a wrong one


def test_a_search_that_was_cut_off_goes_on(tmp_path):
    github = GitHub(250)
    github.trouble[3] = (403, {"Retry-After": 99_999}, b"{}")
    with client(github, tmp_path) as asking:
        with pytest.raises(GitHubError):
            list(search(asking, "x", last=TODAY))
        assert github.bodies == 2
        assert len(names(search(asking, "x", last=TODAY))) == 250
    assert github.bodies == 3


def test_a_kept_answer_that_is_damaged_is_asked_for_anew(tmp_path):
    with client(github := GitHub(10), tmp_path) as asking:
        list(search(asking, "x", last=TODAY))
        for path in tmp_path.iterdir():
            path.write_text(path.read_text(encoding="utf-8")[:-9], encoding="utf-8")
        assert len(names(search(asking, "x", last=TODAY))) == 10
    assert github.bodies == 2


def test_the_table_that_is_written_can_be_collected_from(tmp_path):
    lines = []
    with client(GitHub(12), tmp_path / "kept", say=lines.append) as asking:
        assert write_table(asking, "x", tmp_path / "found.toml") == 10
    sources = load_sources(tmp_path / "found.toml")
    assert [s.name for s in sources] == [f"own/r{n}" for n in range(12) if n not in (4, 9)]
    assert {s.use for s in sources} == {"on request"}
    assert {s.name: s.licence for s in sources}["own/r3"] == "none stated"
    assert sources[1].commit == hashlib.sha1(b"1").hexdigest()
    assert str(sources[1].date) == "2025-02-03"
    assert len(lines) == 1 and "own/r4: left out" in lines[0] and "409" in lines[0]


PAGE = """<html><body><h1>Index</h1><A HREF='?C=M;O=D'>sorted</A>
<a href="Bank-ann.9.mcz">Bank-ann.9.mcz</a> <a class="x" href="Bank-ann.10.mcz">10</a>
<a href=/shop/Bank-Tests-bob.2.mcz>tests</a> <a href="Caf%C3%A9&amp;Co-eve.1.mcz">c</a>
<a href="Bank-ann.10.mcz?download">again</a> <a href="Bank.mcz">no version</a>
<a href="Bank-ann(10).mcd">a difference</a> <a href="..%2F..%2Fetc-eve.1.mcz">up</a></html>"""


def test_versions_are_read_from_the_links_and_the_newest_of_each_is_chosen():
    versions = parse_index(PAGE)
    assert [(v.package, v.author, v.number) for v in versions] == [
        ("Bank", "ann", 9), ("Bank", "ann", 10), ("Bank-Tests", "bob", 2), ("Café&Co", "eve", 1)]
    assert [v.file for v in newest(versions)] == [
        "Bank-ann.10.mcz", "Bank-Tests-bob.2.mcz", "Café&Co-eve.1.mcz"]  # and none leads upwards
    assert parse_index("<p>nothing</p>") == []


def archive(text: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as zipped:
        zipped.writestr("snapshot/source.st", text)
    return made.getvalue()


def test_a_monticello_repository_is_fetched_once_and_a_broken_archive_skipped(tmp_path):
    asked = []

    def answer(handler):
        asked.append(file := urllib.parse.unquote(handler.path.rpartition("/")[2]))
        if handler.path == "/shop/":
            return 200, {}, PAGE.encode()
        if file.startswith("Bank-Tests"):
            return 200, {}, archive("x")[:-30]
        return (404, {}, b"") if file.startswith("Caf") else (200, {}, archive(file))

    with serving(answer) as address:
        lines = list(download(f"{address}/shop", tmp_path))
        assert list(download(f"{address}/shop/", tmp_path))[0] == "Bank-ann.10.mcz: is here already"
        with pytest.raises(ValueError, match="links to no .mcz file"):
            list(download(f"{address}/other/Bank-ann.1", tmp_path))
    assert lines[1].startswith("Bank-Tests-bob.2.mcz: skipped: ")
    assert "404" in lines[2] and [p.name for p in tmp_path.iterdir()] == ["Bank-ann.10.mcz"]
    assert asked.count("Bank-ann.10.mcz") == 1
    with pytest.raises(ValueError, match="is no http address"):
        list(download("file:///etc", tmp_path))
