"""Ask GitHub which Smalltalk repositories there are: pages, limits, and answers that are kept.

Every answer is kept on the disk with its ETag. Asked again, the server says 304, which costs
nothing of the limit, and a search that was cut off goes on with the pages that it has.

Adds:       a client of two questions: search for repositories, and the commit of a branch
Leaves out: fetching code: collecting, which reads the table that is written here
Chapter:    chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from scratchbook.runtime import write_atomically

API = "https://api.github.com"
MOST = 1_000  # results that a search gives, however many there are
FIRST_DAY = date(2008, 1, 1)


class GitHubError(RuntimeError):
    """The server refuses, or asks to wait longer than the client's patience."""


@dataclass
class Client:
    """Asks GitHub's REST interface, keeping each answer in `folder`.

    `patience` is the longest wait in seconds that it accepts; `sleep` and `now` are the clock.

    Source:   docs.github.com/rest: "Rate limits for the REST API", "Using pagination"
    """

    folder: Path
    token: str | None = None
    api: str = API
    patience: float = 3_700.0
    attempts: int = 5
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time
    say: Callable[[str], None] = lambda line: None

    def ask(self, url: str) -> tuple[Any, str | None]:
        """The JSON at an address, and the address of the next page.

        Raises:   GitHubError when the server refuses, or stays silent after all attempts
        """
        kept = self._kept(url)
        for attempt in range(self.attempts):
            try:
                return self._get(url, kept)
            except urllib.error.HTTPError as error:
                if error.code == 304 and kept:
                    return kept["body"], kept["next"]
                said = error.read(10_000).decode("utf-8", "replace")
                wait = self._wait(error, said, attempt)
                reason = f"{error.code} {_message(said) or error.reason}"
            except (OSError, http.client.HTTPException, ValueError) as error:  # cut off
                wait, reason = 2.0**attempt, f"{type(error).__name__}: {error}"
            if wait is None or wait > self.patience:
                later = "" if wait is None else f"; it answers again in {wait:,.0f} seconds"
                raise GitHubError(f"{url}: {reason}{later}; what was answered is kept: ask again "
                                  "later, or set GITHUB_TOKEN for a higher limit")
            if attempt + 1 < self.attempts:
                self.say(f"  {reason}: waiting {wait:,.0f} seconds")
                self.sleep(wait)
        raise GitHubError(f"{url}: {reason}, {self.attempts} times; what was answered is kept")

    def _get(self, url: str, kept: dict | None) -> tuple[Any, str | None]:
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28",
                   "User-Agent": "scratchbook"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if kept and kept["etag"]:
            headers["If-None-Match"] = kept["etag"]
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            body = json.loads(answer.read())
            following = next_page(answer.headers.get("Link") or "")
            etag = answer.headers.get("ETag")
        entry = {"url": url, "etag": etag, "next": following, "body": body}
        write_atomically(self._place(url), json.dumps(entry))
        return body, following

    def _place(self, url: str) -> Path:
        return Path(self.folder) / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"

    def _kept(self, url: str) -> dict | None:
        try:
            entry = json.loads(self._place(url).read_text(encoding="utf-8"))
            return entry if entry["url"] == url and {"etag", "next", "body"} <= set(entry) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _wait(self, error: urllib.error.HTTPError, said: str, attempt: int) -> float | None:
        """How long to wait before the next attempt, or None when waiting will not help."""
        if error.code >= 500:
            return 2.0**attempt
        if error.code not in (403, 429):
            return None
        limited = error.code == 429 or "rate limit" in said.lower()
        return limit_wait(error.headers, limited, attempt, self.now())


def _message(said: str) -> str:
    try:
        return str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def limit_wait(headers: Message, limited: bool, attempt: int, now: float) -> float | None:
    """The wait that the headers of a 403 or 429 ask for; None for a plain refusal.

    The time of a reset is compared with the server's own clock where it tells it. A limit without
    a time is the secondary one: a minute, then twice as long each time.
    """
    after = headers.get("Retry-After") or ""
    if after.strip().isdecimal():
        return float(after)
    if headers.get("X-RateLimit-Remaining") == "0" and headers.get("X-RateLimit-Reset"):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            now = parsedate_to_datetime(headers["Date"]).timestamp()
        return max(0.0, float(headers["X-RateLimit-Reset"]) - now) + 1
    return 60.0 * 2**attempt if limited else None


def next_page(link: str) -> str | None:
    """The address of the next page in a `Link` header."""
    found = re.search(r'<([^>]+)>\s*;[^,]*\brel="?next\b', link)
    return found[1] if found else None


def search(client: Client, query: str, first: date = FIRST_DAY, last: date | None = None
           ) -> Iterator[dict[str, Any]]:
    """Yield every repository that a search finds, as GitHub describes it, each once.

    A search with more than 1,000 results is halved by the day of creation until each part has
    fewer.
    """
    seen: set[str] = set()
    last = last or date.today()
    for item in _between(client, query, first, last):
        if item["full_name"] not in seen:
            seen.add(item["full_name"])
            yield item


def _between(client: Client, query: str, first: date, last: date) -> Iterator[dict[str, Any]]:
    asked = urllib.parse.urlencode({"q": f"{query} created:{first}..{last}", "sort": "stars",
                                    "order": "desc", "per_page": 100})
    url: str | None = f"{client.api}/search/repositories?{asked}"
    page, following = client.ask(url)
    if page["total_count"] > MOST and first < last:
        middle = first + (last - first) // 2
        yield from _between(client, query, first, middle)
        yield from _between(client, query, middle + timedelta(days=1), last)
        return
    while True:
        yield from page["items"]
        if not following:
            return
        page, following = client.ask(following)


def write_table(client: Client, query: str, path: str | Path) -> int:
    """Search, pin each repository to its newest commit, and write a table for `--sources`.

    Forks and repositories that were moved away are left out; one whose commit cannot be had is
    said and left out. All are "on request" until somebody has read their licences.
    """
    tables = []
    for item in search(client, query):
        if item.get("fork") or item.get("disabled"):
            continue
        branch = urllib.parse.quote(item["default_branch"], safe="")
        try:
            commit, _ = client.ask(f"{client.api}/repos/{item['full_name']}/commits/{branch}")
        except GitHubError as error:
            if "409" not in str(error) and "404" not in str(error):  # empty, or gone by now
                raise
            client.say(f"{item['full_name']}: left out: {error}")
            continue
        licence = (item.get("license") or {}).get("spdx_id") or "none stated"
        day = commit["commit"]["committer"]["date"][:10]
        name, sha, licence = map(json.dumps, (item["full_name"], commit["sha"], licence))
        tables.append(f'[{name}]\ncommit = {sha}\ndate = {day}\nformat = "unknown"\n'
                      f'licence = {licence}\nuse = "on request"\n')
    write_atomically(path, "\n".join(tables))
    return len(tables)
