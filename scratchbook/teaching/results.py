"""Numbers that outlive the run that made them: `record` writes them, `load_result` reads them back.

A recorded result carries the command, the commit, the versions, the seeds and a fingerprint of the
code that made it (see `dependence`). When that code has changed since, the result says that it is
stale.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from scratchbook.runtime import environment, repository_root, write_atomically
from scratchbook.teaching.dependence import fingerprint

_NAME = re.compile(r"[a-z0-9_.\-]+")


@dataclass(frozen=True)
class Result:
    """A recorded result: its numbers, and where they come from."""

    name: str
    numbers: dict
    seeds: list[int]
    command: str
    commit: str
    date: str
    environment: dict
    fingerprint: str

    @property
    def stale(self) -> bool:
        """True when the code behind the numbers is no longer the code that made them."""
        return is_stale(self.name, self.command, self.fingerprint)

    def provenance(self) -> str:
        """One line for the page: when, on what, with which seeds, and whether it is out of date."""
        machine = self.environment
        seeds = f", seeds {', '.join(map(str, self.seeds))}" if self.seeds else ""
        line = (f"recorded {self.date[:10]} at commit {self.commit[:10]} on {machine['system']} "
                f"({machine['device']}, {machine['threads']} threads), torch "
                f"{machine['versions'].get('torch', '?')}{seeds}, by `{self.command}`")
        return line + (" (STALE: the code has changed since)" if self.stale else "")


def results_dir() -> Path:
    """The folder of recorded results: the checkout's own, or the copy inside the wheel."""
    root = repository_root()
    package = Path(__file__).resolve().parent.parent
    return root / "book" / "results" if root else package / "_results"


def own_results_dir() -> Path:
    """Where `record` writes: into the checkout, or into `results` here when there is none."""
    return results_dir() if repository_root() else Path.cwd() / "results"


def is_stale(name: str, command: str, recorded: str) -> bool:
    """Whether the code behind a result is gone or differs from a recorded fingerprint.

    Without a checkout, or for a result made by hand, there is nothing to compare: then it is not.
    """
    root = repository_root()
    if root is None or not recorded:
        return False
    try:
        return fingerprint(name, command, root) != recorded
    except ValueError:
        return True


def _fingerprint(name: str, command: str) -> str:
    root = repository_root()
    try:
        return fingerprint(name, command, root) if root else ""
    except ValueError:
        return ""  # made by hand: a long run is not lost for that


def _commit() -> str:
    root = repository_root()
    if root is None:
        return "not from a checkout"
    answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True,
                            check=False)
    return answer.stdout.strip() or "not committed yet"


def _file(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a result's name has letters a-z, digits and _ . - only, not {name!r}")
    return f"{name}.json"


def record(name: str, numbers: Mapping, *, seeds: Sequence[int], command: str) -> Path:
    """Write `numbers` with everything needed to make them again to NAME.json among the results.

    `command` is what makes them again: `scratchbook run CHAPTER …` or `python -m MODULE …`.
    From it follows which code they depend on; when that changes, they are stale.

    Raises:   ValueError for a name that is no file name, or numbers that JSON cannot hold
    """
    content = {
        "name": name, "numbers": dict(numbers), "seeds": list(seeds), "command": command,
        "commit": _commit(), "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(), "fingerprint": _fingerprint(name, command),
    }
    try:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"result {name!r} holds something JSON cannot: {error}") from None
    return write_atomically(own_results_dir() / _file(name), text + "\n")


def load_result(name: str) -> Result:
    """Read a recorded result: one's own, else the one that came with the package.

    Raises:   FileNotFoundError naming the recorded ones, ValueError for a damaged file
    """
    own, path = (folder / _file(name) for folder in (own_results_dir(), results_dir()))
    path = own if own.is_file() else path
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "none yet"
        raise FileNotFoundError(f"no result called {name!r} is recorded (recorded: {known}); a full"
                                " run makes it: scratchbook run CHAPTER --profile full")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Result(**{key: content[key] for key in content if key != "depends"})
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): record it again, or restore it with "
                         f"`git checkout -- {path.name}`") from None
