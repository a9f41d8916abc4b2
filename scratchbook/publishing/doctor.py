"""What this machine can run: versions, device, memory, threads, browser, and which chapters fit.

`examine` looks at the machine, `verdict` judges one chapter's passport against it. The two are
apart so that every case can be tested on any machine.
"""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from scratchbook import runtime
from scratchbook.data import cache_folder

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
            "msedge", "microsoft-edge")
BROWSER_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
    "~/.cache/ms-playwright/chromium-*/chrome-linux*/chrome",
    "~/Library/Caches/ms-playwright/chromium-*/chrome-mac*/Chromium.app/Contents/MacOS/Chromium",
    "~/AppData/Local/ms-playwright/chromium-*/chrome-win*/chrome.exe",
)
OLDEST_PYTHON = (3, 11)
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_OLDEST = re.compile(r">=([0-9.]+)")
_EXTRA = re.compile(r"extra\s*==\s*['\"](\w+)")


@dataclass(frozen=True)
class Package:
    """One package that the course wants: the oldest version that serves, and what is here."""

    name: str
    oldest: str
    found: str
    extra: str = ""

    @property
    def serves(self) -> bool:
        return bool(self.found) and _as_numbers(self.found) >= _as_numbers(self.oldest)


@dataclass(frozen=True)
class Machine:
    """The facts that decide what can run; sizes in bytes, None where the system does not say."""

    python: str
    system: str
    packages: list[Package]
    device: str
    device_memory: int | None
    cores: int
    threads: int | None
    memory: int | None
    memory_free: int | None
    disk_free: int | None
    data_folder: str
    browser: str
    node: str
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """Whether one profile of one chapter fits this machine, and why or why not."""

    chapter: str
    profile: str
    fits: bool
    reason: str


def examine() -> Machine:
    """Look at this machine. Torch is imported, nothing is computed, nothing is downloaded."""
    packages = wanted_packages()
    device, device_memory, threads = _compute()
    machine = Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        packages=packages,
        device=device, device_memory=device_memory,
        cores=os.cpu_count() or 1, threads=threads,
        memory=runtime.total_memory_bytes(), memory_free=_free_memory(),
        disk_free=_free_disk(cache_folder()), data_folder=str(cache_folder()),
        browser=find_browser(), node=shutil.which("node") or "",
    )
    machine.problems.extend(problems(machine))
    return machine


def problems(machine: Machine) -> list[str]:
    """What keeps parts of the course from working here, each with its way out."""
    found = []
    if _as_numbers(machine.python) < OLDEST_PYTHON:
        found.append(f"Python {machine.python} is too old: install 3.11 or newer")
    for extra in sorted({p.extra for p in machine.packages if not p.serves}):
        lacking = ", ".join(f"{p.name}>={p.oldest}" if p.oldest else p.name
                            for p in machine.packages if p.extra == extra and not p.serves)
        source = f"scratchbook[{extra}]" if extra else "scratchbook"
        found.append(f"missing or too old: {lacking}. Way out: pip install -U '{source}'")
    if not machine.browser:
        found.append("no Chromium or Chrome: the browser tests are skipped. Way out: install one, "
                     "or `playwright install chromium`")
    if not machine.node:
        found.append("no node: the tests of the living figures' JavaScript are skipped")
    return found


def verdict(machine: Machine, stem: str, passport: Mapping, profile: str) -> Verdict:
    """Judge one profile of a chapter by its passport (`scratchbook` metadata of the notebook)."""
    obstacle = _obstacle(machine, passport, profile)
    if obstacle:
        return Verdict(stem, profile, False, obstacle)
    seconds = passport["budget_seconds"][profile]
    needed, download = _needs(passport, profile)
    fetched = f", downloads up to {_size(download)}" if download else ""
    return Verdict(stem, profile, True, f"within {seconds:g} s on two cores, "
                                        f"{_size(needed)} of memory{fetched}")


def _obstacle(machine: Machine, passport: Mapping, profile: str) -> str:
    if profile not in passport.get("budget_seconds", {}):
        return "has no such profile"
    lacking = [p.name for p in machine.packages if not p.serves]
    if lacking:
        return f"needs {', '.join(lacking)}"
    device = passport.get("device", {}).get(profile, "cpu")
    if device != "cpu" and not machine.device.startswith(device):
        return f"needs a {device} device, this machine has {machine.device}"
    needed, download = _needs(passport, profile)
    if machine.memory is not None and needed > 0.9 * machine.memory:
        return f"needs {_size(needed)} of memory, this machine has {_size(machine.memory)}"
    if machine.memory_free is not None and needed > machine.memory_free:
        return (f"needs {_size(needed)} of memory, {_size(machine.memory_free)} are free now: "
                "close other programs")
    if machine.disk_free is not None and download > machine.disk_free:
        return (f"downloads {_size(download)}, {_size(machine.disk_free)} are free in "
                f"{machine.data_folder}: SCRATCHBOOK_DATA moves it")
    return ""


def _needs(passport: Mapping, profile: str) -> tuple[float, float]:
    """Memory and downloads of a profile in bytes."""
    return (passport.get("memory_mb", 0) * 1e6,
            passport.get("downloads_mb", {}).get(profile, 0) * 1e6)


def wanted_packages() -> list[Package]:
    """What the installed package asks for, without the extras that only build and test need."""
    try:
        lines = metadata.requires("scratchbook") or []
    except metadata.PackageNotFoundError:
        return []
    packages = []
    for line in lines:
        wanted, _, condition = line.partition(";")
        name, oldest = _NAME.match(wanted)[0], _OLDEST.search(wanted)
        extra = _EXTRA.search(condition)
        if extra is None or extra[1] == "notebooks":
            packages.append(Package(name, oldest[1] if oldest else "", _version(name),
                                    extra[1] if extra else ""))
    return packages


def find_browser() -> str:
    """The path of a Chromium, Chrome or Edge, or an empty string.

    SCRATCHBOOK_CHROMIUM, when set, is taken as it is.
    """
    chosen = os.environ.get("SCRATCHBOOK_CHROMIUM")
    if chosen:
        return chosen if Path(chosen).is_file() else ""
    on_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if on_path:
        return on_path
    for place in BROWSER_PLACES:
        for found in sorted(glob.glob(str(Path(place).expanduser())), reverse=True):  # noqa: PTH207
            return found
    return ""


def as_lines(machine: Machine, verdicts: list[Verdict]) -> list[str]:
    """The report as text."""
    lines = [f"python     {machine.python} on {machine.system} ({sys.executable})"]
    for package in machine.packages:
        mark = "" if package.serves else "   <- missing or too old"
        oldest = f"(needs {package.oldest})" if package.oldest else ""
        lines.append(f"  {package.name:<14}{package.found or '-':<16}{oldest}{mark}")
    threads = f"{machine.threads} torch threads" if machine.threads else "torch missing"
    memory = f" with {_size(machine.device_memory)}" if machine.device_memory else ""
    lines += [
        f"device     {machine.device}{memory}; {machine.cores} cores, {threads}",
        f"memory     {_size(machine.memory)}, {_size(machine.memory_free)} of it free now",
        f"data       {machine.data_folder}, {_size(machine.disk_free)} free",
        f"browser    {_with_version(machine.browser)}",
        f"node       {_with_version(machine.node)}", "", "chapters and profiles"]
    lines += [f"  {'fits ' if v.fits else 'no   '} {v.chapter:<28} {v.profile:<6} {v.reason}"
              for v in verdicts] or ["  no chapters here: run inside the book's repository"]
    if machine.problems:
        lines += ["", "to mend"] + [f"  {problem}" for problem in machine.problems]
    return lines


def as_data(machine: Machine, verdicts: list[Verdict]) -> dict:
    """The report as plain data, for JSON."""
    return asdict(machine) | {"verdicts": [asdict(v) for v in verdicts]}


def _compute() -> tuple[str, int | None, int | None]:
    try:
        import torch
    except ImportError:
        return "cpu", None, None
    device, memory = runtime.pick_device("auto"), None
    if device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory
        device = f"cuda ({torch.cuda.get_device_name(0)})"
    return device, memory, torch.get_num_threads()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _free_memory() -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _free_disk(folder: Path) -> int | None:
    existing = next((p for p in (folder, *folder.parents) if p.is_dir()), None)
    try:
        return shutil.disk_usage(existing).free if existing else None
    except OSError:
        return None


def _with_version(program: str) -> str:
    if not program:
        return "none found"
    if os.name == "nt":  # there, asking a browser for its version opens a window
        return program
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10,
                                check=False).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        answer = ""
    return f"{answer.splitlines()[0]} ({program})" if answer else program


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3])


def _size(number: float | None) -> str:
    if number is None:
        return "unknown"
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
