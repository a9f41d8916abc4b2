"""One chapter run by a reader: its parameters, what it will cost, what it did cost.

Every run leaves a line in build/runs/history.jsonl; the next prediction is made from it.
"""

import ast
import difflib
import io
import json
import statistics
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from scratchbook.publishing.chapters import PROFILES, Chapter
from scratchbook.publishing.execute import Receipt

RUNS = Path("build") / "runs"
HISTORY = "history.jsonl"
_WORDS = {"true": True, "yes": True, "on": True, "1": True,
          "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Parameter:
    """One line of a chapter's parameters cell."""

    name: str
    default: object
    comment: str = ""

    @property
    def kind(self) -> str:
        return "any" if self.default is None else type(self.default).__name__

    def __str__(self) -> str:
        comment = f"  {self.comment}" if self.comment else ""
        return f"{self.name} ({self.kind}, default {self.default!r}){comment}"


def known_parameters(path: Path) -> dict[str, Parameter]:
    """Read a notebook's parameters cell: assignments of literals, with their comments.

    Raises:   ValueError when the notebook has no cell tagged "parameters"
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    if not tagged:
        raise ValueError(f"{path.name} has no cell tagged `parameters`: it takes none")
    source = "".join(tagged[0]["source"])
    comments = _comments(source)
    found = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and node.value is not None:
            default = ast.literal_eval(node.value)
            found[target.id] = Parameter(target.id, default, comments.get(node.lineno, ""))
    return found


def parse_parameters(words: Iterable[str], known: dict[str, Parameter]) -> dict[str, object]:
    """Turn `name=value` words into typed values.

    Raises:   ValueError for an unknown name (with the nearest and all the known ones), for a
              value that is not of its parameter's type, and for a name given twice
    """
    values: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"-p takes name=value, not {word!r}")
        if name not in known:
            raise ValueError(_unknown(name, known))
        if name in values:
            raise ValueError(f"parameter {name} is given twice")
        if name == "PROFILE":
            raise ValueError(f"choose the profile with --profile {text or 'quick'}")
        values[name] = parse_value(text, known[name])
    return values


def parse_value(text: str, parameter: Parameter) -> object:
    """Read `text` as the type of the parameter's default.

    Raises:   ValueError that names the type and shows an example
    """
    default = parameter.default
    try:
        if isinstance(default, bool):
            return _WORDS[text.lower()]
        if isinstance(default, str):
            return text
        if isinstance(default, int | float):
            return type(default)(text)
        value = ast.literal_eval(text)
        if default is None or isinstance(value, type(default)):
            return value
    except (ValueError, KeyError, SyntaxError):
        if default is None:
            return text
    raise ValueError(f"{parameter.name}={text}: expected {parameter.kind}, such as {default!r}")


def _unknown(name: str, known: dict[str, Parameter]) -> str:
    folded = {k.casefold(): k for k in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    hint = f" Did you mean {folded[near[0]]}?" if near else ""
    lines = "".join(f"\n  {parameter}" for parameter in known.values())
    return f"unknown parameter {name!r}.{hint} This chapter takes:{lines}"


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


@dataclass(frozen=True)
class Prediction:
    """What a run will probably cost, and how that is known."""

    seconds: float | None
    why: str
    memory_mb: float
    downloads_mb: float


def predict(chapter: Chapter, profile: str, history: list[dict]) -> Prediction:
    """Predict a run from earlier runs on this machine, else from the chapter's budget.

    A run of the same chapter and profile says it best; runs of others say how much of its budget
    this machine usually needs.
    """
    passed = [run for run in history if run["status"] == "passed" and not run["parameters"]]
    same = [r for r in passed if (r["chapter"], r["profile"]) == (chapter.stem, profile)]
    budget = chapter.budget_seconds.get(profile)
    shares = [r["seconds"] / r["budget"] for r in passed if r.get("budget")]
    if same:
        seconds, why = same[-1]["seconds"], "as long as its last run here"
    elif budget and shares:
        share = statistics.median(shares)
        seconds = budget * share
        why = f"its budget of {budget:g} s times {share:.2f}, measured on {len(shares)} runs here"
    else:
        seconds, why = budget, "its budget on two CPU cores; this machine is not measured yet"
    return Prediction(seconds, why, chapter.memory_mb, chapter.downloads_mb.get(profile, 0))


def output_path(folder: Path, chapter: Chapter, profile: str) -> Path:
    """Where a run's notebook goes: build/runs/01.quick.ipynb."""
    return folder / f"{chapter.number}.{profile}.ipynb"


def read_history(folder: Path) -> list[dict]:
    """The runs made here, oldest first; a damaged line is passed over."""
    file = folder / HISTORY
    runs = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            run = json.loads(line)
        except ValueError:
            continue
        if isinstance(run, dict) and {"chapter", "profile", "status", "seconds"} <= run.keys():
            runs.append({"parameters": {}} | run)
    return runs


def remember(folder: Path, receipt: Receipt, chapter: Chapter, profile: str,
             parameters: dict) -> dict:
    """Append one run to the history and return its line."""
    status = "passed" if receipt.passed else "interrupted" if receipt.interrupted else "failed"
    run = {"chapter": chapter.stem, "profile": profile, "status": status,
           "seconds": round(receipt.seconds, 1), "budget": chapter.budget_seconds.get(profile),
           "peak_mb": receipt.peak_mb and round(receipt.peak_mb),
           "parameters": parameters, "error": receipt.error,
           "date": datetime.now(UTC).isoformat(timespec="seconds")}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(run, default=str) + "\n")
    return run


def last_run(history: list[dict], chapter: Chapter) -> str:
    """One phrase for `scratchbook list`: how the chapter's last run here ended."""
    runs = [run for run in history if run["chapter"] == chapter.stem]
    if not runs:
        return "not run here"
    run = runs[-1]
    return f"{run['profile']} {run['status']} in {run['seconds']:.0f} s, {run['date'][:10]}"


def is_executed(path: Path) -> bool:
    """True when the notebook is stored with every code cell run, and none of them failed."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    failed = any(o["output_type"] == "error" for c in code for o in c["outputs"])
    return bool(code) and all(c["execution_count"] for c in code) and not failed


def profile_or_error(profile: str, chapter: Chapter) -> str:
    """Return the profile if the chapter has it.

    Raises:   ValueError that lists the chapter's profiles
    """
    profiles = tuple(chapter.budget_seconds) or PROFILES
    if profile not in profiles:
        raise ValueError(f"{chapter.stem} has no profile {profile!r}: it has {', '.join(profiles)}")
    return profile
