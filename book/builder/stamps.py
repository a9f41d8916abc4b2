"""Stamp recorded results anew whose code has not changed since the commit that made them.

    python -m book.builder.stamps

A fingerprint says what the code was; when the way of taking it changes, all of them do. Here the
code of each result is read at the commit that brought its numbers into the repository and now, and
both are fingerprinted in today's way. Equal: the result gets today's fingerprint. Unequal: it
stays stale, until its command has run again. No number is touched.
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path

# where files stood at earlier commits, and where they stand now
MOVED = {"chapters/companions": "scratchbook/companions",
         "book/publishing": "scratchbook/publishing"}


def main() -> int:
    """Compare, stamp, and print a line for each result."""
    from scratchbook.runtime import repository_root, write_atomically
    from scratchbook.teaching.dependence import fingerprint

    root = repository_root()
    with tempfile.TemporaryDirectory() as folder:
        tree = cache(lambda commit: tree_of(root, commit, Path(folder)))
        for path in sorted((root / "book" / "results").glob("*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            origin, brought = (content["name"], content["command"]), arrival(root, path, content)
            try:
                then, now = (fingerprint(*origin, each) for each in (tree(brought), root))
            except ValueError as error:
                print(f"{path.stem:30} {error}")
                continue
            if then == now and content["fingerprint"] != now:
                content = content | {"fingerprint": now}
                text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
                write_atomically(path, text)
            print(f"{path.stem:30} {'same code' if then == now else 'other code'} as at "
                  f"{brought[:10]}{'' if then == now else '; renew by ' + origin[1]}")
    return 0


def arrival(root: Path, path: Path, content: dict) -> str:
    """The oldest commit in which the file holds the numbers of this run."""
    place = path.relative_to(root).as_posix()
    commits = git(root, "log", "--format=%H", "--", place).decode().split()
    same = [commit for commit in commits
            if json.loads(git(root, "show", f"{commit}:{place}") or b"{}").get("date")
            == content["date"]]
    return same[-1] if same else "not committed yet"


def git(root: Path, *words: str) -> bytes:
    """What a git command prints; nothing where it fails."""
    answer = subprocess.run(["git", *words], cwd=root, capture_output=True, check=False)
    return b"" if answer.returncode else answer.stdout


def tree_of(root: Path, commit: str, folder: Path) -> Path:
    """The files of a commit, each where it stands today.

    Raises:   ValueError when the repository does not hold the commit
    """
    packed = git(root, "archive", commit, "scratchbook", "book", "chapters", "tests")
    if not packed:
        raise ValueError(f"the repository does not hold the commit {commit!r}")
    tree = folder / commit
    with tarfile.open(fileobj=io.BytesIO(packed)) as files:
        files.extractall(tree, filter="data")
    for old, new in MOVED.items():
        for file in (tree / old).glob("*.py"):
            if not (tree / new / file.name).is_file():
                (tree / new).mkdir(exist_ok=True)
                file.rename(tree / new / file.name)
    return tree


if __name__ == "__main__":
    sys.exit(main())
