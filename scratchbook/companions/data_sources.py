"""Texts from elsewhere: the issues of a repository, and data sets too large to download.

Both give documents or strings one at a time, so that a corpus may stop when it has enough.

Chapter:  chapters/06b_data_and_curriculum.ipynb
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

from scratchbook.data.documents import Document

GITHUB = "https://api.github.com"


def issues(repository: str, token: str | None = None, api: str = GITHUB, patience: float = 60.0
           ) -> Iterator[Document]:
    """Yield the title and description of every issue and pull request of `owner/name`.

    Pages are followed by the server's own `Link` header. When the server says that the limit of
    questions is reached, this waits until the time it names, if that is within `patience`.

    Raises:   ValueError for a name that is none, RuntimeError when the server refuses
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository):
        raise ValueError(f"repository={repository!r} must be owner/name")
    url = f"{api}/repos/{repository}/issues?state=all&per_page=100"
    while url:
        page, url = _ask(url, token, patience)
        for item in page:
            text = f"# {item['title']}\n\n{item.get('body') or ''}".rstrip() + "\n"
            kind = "pull" if "pull_request" in item else "issue"
            yield Document(f"{repository}/{kind}/{item['number']}", text, repository)


def _ask(url: str, token: str | None, patience: float) -> tuple[list[dict], str | None]:
    """One page, and the address of the next."""
    headers = {"Accept": "application/vnd.github+json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            following = re.search(r'<([^>]+)>;\s*rel="next"', answer.headers.get("Link") or "")
            return json.loads(answer.read()), following and following[1]
    except urllib.error.HTTPError as error:
        wait = _seconds_to_wait(error)
        if wait is None or wait > patience:
            advice = "give a token: without one GitHub answers 60 questions an hour"
            again = "" if wait is None else f"; it answers again in {wait:.0f} seconds"
            raise RuntimeError(f"{url}: {error.code} {error.reason}{again}; {advice}") from None
    time.sleep(wait)
    return _ask(url, token, patience)


def _seconds_to_wait(error: urllib.error.HTTPError) -> float | None:
    """How long the server asks to wait, or None when waiting will not help."""
    if error.code not in (403, 429):
        return None
    if after := error.headers.get("Retry-After"):
        return float(after)
    if error.headers.get("X-RateLimit-Remaining") == "0":
        return max(0.0, float(error.headers.get("X-RateLimit-Reset", 0)) - time.time())
    return None


def stream_texts(source: str | Sequence[str], column: str = "text", split: str = "train"
                 ) -> Iterator[str]:
    """Yield one column of a data set of the hub, `owner/name`, or of Parquet files, by paths.

    Nothing is loaded whole: the library `datasets` asks for the next part when it is needed.

    Raises:   ModuleNotFoundError without `datasets`, ValueError for a column that is not there
    Chapter:  chapters/06b_data_and_curriculum.ipynb
    """
    from datasets import load_dataset

    if isinstance(source, str):
        rows = load_dataset(source, split=split, streaming=True)
    else:
        rows = load_dataset("parquet", data_files={split: list(source)}, split=split,
                            streaming=True)
    for row in rows:
        if column not in row:
            raise ValueError(f"no column {column!r}; there are {', '.join(row)}")
        yield row[column]
