"""Keeps the committed notebooks tidy: executed top to bottom, and the same bytes for everyone.

`refresh` runs a chapter in place in its quick profile and normalises it; `check` says what in
a committed notebook is not as the normaliser would write it. What it leaves out: the rules of
good teaching (length, figures, prose), which the tests measure.
"""

import argparse
import copy
import hashlib
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from scratchbook import __version__
from scratchbook.publishing.chapters import all_chapters, find_chapter
from scratchbook.publishing.execute import run_notebook
from scratchbook.runtime import repository_root

DEFAULT_ADDRESS = "https://github.com/the-scratchbook/scratchbook"
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python"}
KEPT_CELL_METADATA = ("tags", "mystnb")
KEPT_NOTEBOOK_METADATA = ("scratchbook",)
SETUP_TAGS = ["setup", "remove-cell"]
SETUP_CELL = """\
# Installs what the chapter needs and lacks (in Colab, all of it); elsewhere does nothing.
from importlib import import_module, metadata
found = any(metadata.distributions(name="scratchbook"))  # a clone beside the notebook is none
if lacking := import_module("scratchbook.runtime").lacks("{version}") if found else "scratchbook":
    print(f"Installing {{lacking}} and what it needs, which takes a minute or two.")
    %pip install -q "scratchbook[notebooks] @ git+{address}"
"""
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
MEMORY_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")


def repository_address(root: Path | None = None) -> str:
    """Return the repository's address: the one setting `repository.url` of _config.yml."""
    root = root or repository_root()
    config = root / "_config.yml" if root else None
    if config is None or not config.is_file():
        return DEFAULT_ADDRESS
    import yaml

    settings = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    url = (settings.get("repository") or {}).get("url") or DEFAULT_ADDRESS
    return url.rstrip("/").removesuffix(".git")


def normalise(notebook: dict, address: str | None = None) -> dict:
    """Return a copy of a notebook (a plain or nbformat dict) in its one committed form.

    Raises:   ValueError when no cell is tagged "setup" and no `# setup` placeholder stands first
    """
    result = copy.deepcopy(notebook)
    result["nbformat"], result["nbformat_minor"] = 4, 5
    kept = {k: v for k, v in result["metadata"].items() if k in KEPT_NOTEBOOK_METADATA}
    result["metadata"] = {"kernelspec": KERNELSPEC, "language_info": LANGUAGE} | kept
    result["cells"] = [c for c in result["cells"] if _text(c["source"]).strip()]
    write_setup_cell(result, address or repository_address())
    seen: Counter[str] = Counter()
    count = 0
    for cell in result["cells"]:
        cell["source"] = _text(cell["source"]).rstrip("\n").replace("\r\n", "\n")
        cell["metadata"] = {k: cell["metadata"][k] for k in KEPT_CELL_METADATA
                            if cell["metadata"].get(k)}
        cell["id"] = _cell_id(cell, seen)
        if cell["cell_type"] != "code":
            continue
        executed = cell.get("execution_count") is not None
        count += executed
        cell["execution_count"] = count if executed else None
        cell["outputs"] = _clean_outputs(cell, count)
    return result


def write_setup_cell(notebook: dict, address: str) -> None:
    """Write the first code cell, which installs the package on Colab, into `notebook`."""
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    first = code[0] if code else None
    tags = first["metadata"].get("tags", []) if first else []
    placeholder = first is not None and _text(first["source"]).lstrip().startswith("# setup")
    if first is None or not (placeholder or "setup" in tags):
        raise ValueError('the first code cell must be tagged "setup" (or say `# setup`): '
                         "the Colab cell is written there")
    first["source"] = SETUP_CELL.format(address=address, version=__version__)
    first["metadata"]["tags"] = list(SETUP_TAGS)


def _cell_id(cell: dict, seen: Counter) -> str:
    """Return an id that depends on the cell's own text, so that edits elsewhere leave it be."""
    digest = hashlib.sha256(f"{cell['cell_type']}\n{cell['source']}".encode()).hexdigest()[:12]
    seen[digest] += 1
    return digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def _clean_outputs(cell: dict, count: int) -> list[dict]:
    keep_stderr = "keep-stderr" in cell["metadata"].get("tags", [])
    cleaned: list[dict] = []
    for output in cell.get("outputs", []):
        kind = output["output_type"]
        if kind == "stream":
            if output["name"] == "stderr" and not keep_stderr:
                continue
            output["text"] = ANSI.sub("", _after_returns(_text(output["text"])))
            last = cleaned[-1] if cleaned else {}
            if last.get("output_type") == "stream" and last["name"] == output["name"]:
                last["text"] += output["text"]
                continue
        elif kind in ("display_data", "execute_result"):
            plain = {m: value for m, value in output["data"].items() if "widget" not in m}
            if len(plain) < len(output["data"]) and set(plain) <= {"text/plain"}:
                continue  # a widget without its live kernel shows nothing
            output["data"], output["metadata"] = plain, {}
            if kind == "execute_result":
                output["execution_count"] = count
        cleaned.append(output)
    return cleaned


def _after_returns(text: str) -> str:
    """Return what a terminal shows after carriage returns: only the end of each line."""
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


def as_text(notebook: dict) -> str:
    """Return the file's exact text for a notebook: nbformat's JSON with a last newline."""
    import nbformat

    return nbformat.writes(nbformat.from_dict(notebook)).rstrip("\n") + "\n"


def refresh(path: Path) -> str:
    """Execute a chapter in place (quick profile, one thread), normalise it, return a line.

    The file is left untouched when a cell fails.

    Raises:   ValueError with the failing cell and where the partial notebook lies
    """
    import nbformat

    notebook = nbformat.from_dict(normalise(nbformat.read(path, as_version=4)))
    partial = Path(tempfile.mkdtemp(prefix="scratchbook-")) / path.name
    receipt = run_notebook(path, partial, notebook=notebook)
    if not receipt.passed:
        reason = receipt.error or "interrupted"
        raise ValueError(f"{path.name}: {reason}; partial notebook: {partial}")
    executed = normalise(nbformat.read(partial, as_version=4))
    path.write_text(as_text(executed), encoding="utf-8", newline="\n")
    for leftover in (partial, partial.parent):
        leftover.unlink() if leftover.is_file() else leftover.rmdir()
    memory = f", {receipt.peak_mb:.0f} MB" if receipt.peak_mb else ""
    size = path.stat().st_size / 1000
    return f"{path.name}: {receipt.seconds:.1f} s{memory}, {size:.0f} kB"


def problems(path: Path) -> list[str]:
    """Return what in a committed notebook is not as `refresh` would have written it."""
    import nbformat

    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    try:
        tidy = normalise(notebook)
    except ValueError as error:
        return [str(error)]
    found = []
    if as_text(tidy) != text:
        found.append(f"not normalised ({_first_difference(notebook, tidy)}): run `refresh`")
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    counts = [c["execution_count"] for c in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"execution counts are {counts}, not 1 to {len(code)}: run `refresh`")
    for number, cell in enumerate(code, start=1):
        found += [f"code cell {number}: {fault}" for fault in _output_faults(cell)]
    return found


def _output_faults(cell: dict) -> list[str]:
    faults = []
    for output in cell["outputs"]:
        if output["output_type"] == "error":
            faults.append(f"committed with an error: {output.get('ename')}")
        shown = output.get("text", "") or output.get("data", {}).get("text/plain", "")
        if MEMORY_ADDRESS.search(_text(shown)):
            faults.append("prints a memory address, which differs on every run")
    return faults


def _first_difference(notebook: dict, tidy: dict) -> str:
    if notebook["metadata"] != tidy["metadata"]:
        return "notebook metadata"
    if len(notebook["cells"]) != len(tidy["cells"]):
        return "an empty cell"
    for number, (old, new) in enumerate(zip(notebook["cells"], tidy["cells"], strict=True)):
        for key in new:
            if old.get(key) != new[key]:
                return f"cell {number}: {key}"
    return "spacing of the file"


def main(arguments: list[str] | None = None) -> int:
    """Run `python -m scratchbook.publishing.notebooks refresh|tidy|check [NOTEBOOK ...]`."""
    parser = argparse.ArgumentParser(prog="python -m scratchbook.publishing.notebooks")
    parser.add_argument("action", choices=("refresh", "tidy", "check"),
                        help="run and normalise; only normalise; only look")
    parser.add_argument("notebooks", nargs="*", help="files, numbers or stems; all if none")
    options = parser.parse_args(arguments)
    failed = 0
    for path in _chosen(options.notebooks):
        try:
            failed += _act(options.action, path)
        except ValueError as error:
            print(error)
            failed += 1
    return 1 if failed else 0


def _chosen(names: list[str]) -> list[Path]:
    if not names:
        return [c.path for c in all_chapters()]
    return [Path(n) if Path(n).is_file() else find_chapter(n, all_chapters()).path for n in names]


def _act(action: str, path: Path) -> bool:
    import nbformat

    if action == "refresh":
        print(refresh(path), flush=True)
    elif action == "tidy":
        tidy = normalise(nbformat.read(path, as_version=4))
        path.write_text(as_text(tidy), encoding="utf-8", newline="\n")
    else:
        found = problems(path)
        print(f"{path.name}: " + ("; ".join(found) or "tidy"))
        return bool(found)
    return False


if __name__ == "__main__":
    sys.exit(main())
