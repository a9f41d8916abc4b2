"""What every other module may rely on: seeds, devices, atomic files, and facts about this machine.

Torch is imported inside the functions that need it, so that the tokenizers stay usable without it.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "numpy", "regex", "tokenizers", "tiktoken", "sentencepiece")
RENAMED = {  # names of this package that gave way to the field's own
    "floor": "min_lr_ratio",
    "decay_share": "cooldown_frac",
    "other_lr": "adamw_lr",
    "recompute": "activation_checkpointing",
    "watch": "on_step",
    "sinks": "loggers",
    "sink": "logger",
    "zero_outputs": "zero_init_residual",
    "mean": "exp_avg",
    "square": "exp_avg_sq",
    "parts": "micro_batches",
    "time": "seq_len",
}


def with_new_names(value: Any) -> Any:
    """What an older version wrote, nested as it may be, with today's names for its keys."""
    if isinstance(value, dict):
        return {RENAMED.get(key, key): with_new_names(entry) for key, entry in value.items()}
    return value


def saying_new_names(message: str) -> str:
    """An error about an unknown option; where it has another name now, the error says so."""
    old = [name for name in re.findall(r"(?:--(?:\w+\.)?|[Oo]ption ')(\w+)", message)
           if name in RENAMED]
    return message + "".join(f" ({name} is now called {RENAMED[name]})" for name in old)


def refuses_old_names(function: Callable) -> Callable:
    """A function whose keywords were renamed: an old one is refused, and the new one said."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        for name in options:
            if name in RENAMED and name not in known:
                raise TypeError(f"{name} is now called {RENAMED[name]}")
        return function(*arguments, **options)

    return checked


def named_generator(seed: int, name: str = "") -> torch.Generator:
    """A CPU generator that depends on `seed` and `name` alone, never on what ran before.

    Two cells that draw under different names cannot disturb each other, however often either runs.
    """
    import torch

    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (on every device)."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def pick_device(wanted: str = "auto") -> str:
    """The device to compute on: `wanted`, or for "auto" the first of cuda, mps, cpu that is there.

    Raises:   ValueError when `wanted` is unknown or not available on this machine
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(),
             "cpu": True}
    if wanted == "auto":
        return next(name for name, available in there.items() if available)
    kind = wanted.split(":")[0]
    if not there.get(kind, False):
        names = ", ".join(name for name, available in there.items() if available)
        raise ValueError(f"device {wanted!r} is not available here: use one of {names}, or 'auto'")
    return wanted


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: str | os.PathLike, content: str | bytes) -> Path:
    """Write a whole file or nothing: a reader never sees half of it, a crash keeps the old one.

    The content goes to a temporary file in the same folder, is flushed to the disk, and then
    takes the name of the old one in a single step.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a result is meant to be read by others
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def keep_freed_memory() -> bool:
    """Tell glibc not to hand freed memory back to the system; True where that was possible.

    A training step allocates the same tensors again and again. Returned and fetched anew, their
    pages cost thousands of page faults a step, a tenth of the time of a small model.
    """
    import ctypes

    try:
        options = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    return all((options(trim_threshold, 2**30), options(top_pad, 2**28),
                options(mmap_threshold, 2**25)))


def repository_root() -> Path | None:
    """The checkout this package runs from, or None when it was installed from a wheel."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "_toc.yml").is_file() or (root / "chapters").is_dir() else None


def data_dir() -> Path:
    """The folder `data/`: the checkout's own, or the copy that travels inside the wheel."""
    root = repository_root()
    return root / "data" if root else Path(__file__).resolve().parent / "_data"


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Installed versions by package name; packages that are missing are left out."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def lacks(version: str, extra: str = "notebooks") -> str:
    """What of this package at `version` and of its extra is not installed, or too old.

    The package's modules are forgotten then, so that what pip installs next is what is imported.
    """
    from packaging.requirements import Requirement  # comes with every kernel of Jupyter's

    missing = []
    for need in map(Requirement, [f"scratchbook>={version}", *metadata.requires("scratchbook")]):
        if need.marker is None or need.marker.evaluate({"extra": extra}):
            there = versions((need.name,)).get(need.name)
            if there is None or not need.specifier.contains(there, prereleases=True):
                missing.append(need.name)
    for name in [name for name in sys.modules if name.split(".")[0] == "scratchbook"]:
        if missing:
            del sys.modules[name]
    return ", ".join(missing)


def total_memory_bytes() -> int | None:
    """Physical memory in bytes, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        pass
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().total)


def environment() -> dict[str, object]:
    """What a recorded number depends on: versions, processor, device, threads, memory in bytes."""
    import torch

    device = pick_device()
    return {
        "versions": versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": total_memory_bytes(),
    }
