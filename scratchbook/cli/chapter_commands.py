"""`scratchbook run`, `list`, `doctor` and `results`."""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from scratchbook.publishing import doctor as machine_doctor
from scratchbook.publishing import receipts
from scratchbook.publishing.chapters import Chapter, all_chapters, chapters_dir, find_chapter
from scratchbook.publishing.execute import Receipt, run_notebook
from scratchbook.publishing.passport import duration
from scratchbook.runtime import pick_device


def run(options: argparse.Namespace) -> int:
    """Run one chapter: what it will cost, then the run, then the receipt."""
    chapter = find_chapter(options.chapter, all_chapters())
    profile = receipts.profile_or_error(options.profile, chapter)
    known = receipts.known_parameters(chapter.path)
    values = receipts.parse_parameters(options.parameter, known)
    if "DEVICE" in values:
        values["DEVICE"] = pick_device(str(values["DEVICE"]))
    folder = runs_folder()
    output = Path(options.output or receipts.output_path(folder, chapter, profile))
    expected = receipts.predict(chapter, profile, receipts.read_history(folder))
    announce(chapter, profile, values, expected)
    if options.dry_run:
        return 0
    import ipykernel  # noqa: F401  the kernel that papermill starts; missing is said up front

    threads = options.threads or (1 if profile == "quick" else None)
    if profile != "quick":
        values = {"PROFILE": profile} | values
    start = time.time()
    receipt = run_notebook(chapter.path, output, values, threads)
    receipts.remember(folder, receipt, chapter, profile,
                  {k: v for k, v in values.items() if k != "PROFILE"})
    print_receipt(receipt, new_results(chapter, start))
    return 0 if receipt.passed else 130 if receipt.interrupted else 1


def runs_folder() -> Path:
    """The folder of this reader's runs, in the book's repository."""
    return chapters_dir().parent / receipts.RUNS


def announce(chapter: Chapter, profile: str, values: dict, expected: receipts.Prediction) -> None:
    """Print what a run will cost, before it costs anything."""
    print(f"{chapter.stem}: {chapter.title}, {profile} profile")
    for name, value in values.items():
        print(f"  {name} = {value!r}")
    seconds = "unknown" if expected.seconds is None else f"about {duration(expected.seconds)}"
    print(f"  time       {seconds} ({expected.why})")
    print(f"  memory     {f'{expected.memory_mb:.0f} MB' if expected.memory_mb else 'unknown'}")
    downloads = f"up to {expected.downloads_mb:g} MB" if expected.downloads_mb else "nothing"
    print(f"  downloads  {downloads}", flush=True)


def new_results(chapter: Chapter, since: float) -> list[Path]:
    """The recorded results that were written after `since`."""
    folder = chapter.path.parent.parent / "book" / "results"
    return sorted(p for p in folder.rglob("*.json") if p.stat().st_mtime >= since)


def print_receipt(receipt: Receipt, results: list[Path]) -> None:
    """Print what a run did cost and where everything is."""
    ending = ("passed" if receipt.passed else "stopped by Ctrl-C" if receipt.interrupted
              else "failed")
    peak = f", {receipt.peak_mb:.0f} MB at its peak" if receipt.peak_mb else ""
    print(f"{ending} after {receipt.seconds:.1f} s{peak}")
    if receipt.error:
        print(f"  {receipt.error}")
    print(f"  {'notebook' if receipt.passed else 'partial notebook'}  {receipt.output}")
    for path in results:
        print(f"  result    {path}")


def list_chapters(options: argparse.Namespace) -> int:
    """Print every chapter with its times, its status and its last run here."""
    history = receipts.read_history(runs_folder())
    rows = []
    for chapter in all_chapters():
        quick, full = (chapter.budget_seconds.get(p) for p in ("quick", "full"))
        rows.append({"number": chapter.number, "title": chapter.title,
                     "quick": duration(quick) if quick else "-",
                     "full": duration(full) if full else "-",
                     "status": "executed" if receipts.is_executed(chapter.path) else "draft",
                     "last run": receipts.last_run(history, chapter)})
    print(json.dumps(rows, indent=1, ensure_ascii=False) if options.json else as_table(rows))
    return 0


def as_table(rows: list[dict[str, str]]) -> str:
    """Rows as aligned columns with a header."""
    if not rows:
        return "nothing yet"
    columns = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    head = {name: name for name in columns}
    return "\n".join("  ".join(row[name].ljust(width) for name, width in columns.items()).rstrip()
                     for row in (head, *rows))


def doctor(options: argparse.Namespace) -> int:
    """Print what this machine can run; the status is 0 even where something is missing.

    Raises:   ValueError when a run is named, which `diagnose` examines
    """
    if options.run:
        raise ValueError(f"`doctor RUN` is now called `scratchbook diagnose {options.run}`")
    machine = machine_doctor.examine()
    try:
        chapters = all_chapters()
    except ValueError:
        chapters = []
    verdicts = [machine_doctor.verdict(machine, c.stem, asdict(c), profile)
                for c in chapters for profile in c.budget_seconds]
    if options.json:
        print(json.dumps(machine_doctor.as_data(machine, verdicts), indent=1))
    else:
        print("\n".join(machine_doctor.as_lines(machine, verdicts)))
    return 0


def results(options: argparse.Namespace) -> int:
    """List the recorded results, or print the numbers of one."""
    from scratchbook.teaching.results import load_result, results_dir

    if options.name:
        try:
            result = load_result(options.name)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from None
        print(result.provenance())
        print(json.dumps(result.numbers, indent=1, ensure_ascii=False))
        return 0
    rows = []
    for path in sorted(results_dir().glob("*.json")):
        result = load_result(path.stem)
        rows.append({"result": result.name, "recorded": result.date[:10],
                     "state": "stale" if result.stale else "current", "made by": result.command})
    print(as_table(rows))
    return 0
