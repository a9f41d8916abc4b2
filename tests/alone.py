"""The package as pip brings it: built as a wheel, unpacked in a folder of its own, no checkout."""

import atexit
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The first thing in each chapter: were it run from the checkout, nothing would be shown.
CHECK = """\
import pathlib, scratchbook.runtime
assert scratchbook.runtime.repository_root() is None, scratchbook.__file__
assert not any(pathlib.Path.cwd().iterdir()), "a chapter starts in an empty folder"
"""


@functools.cache
def _places() -> tuple[Path, Path]:
    """The folder with the unpacked wheel, and one for empty folders."""
    made = Path(tempfile.mkdtemp(prefix="scratchbook-alone-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    has_builder = importlib.util.find_spec("hatchling") is not None
    isolation = ["--no-build-isolation"] if has_builder else []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check",
               "--no-deps", *isolation, "--wheel-dir", str(made), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not built.returncode, f"the wheel cannot be built: {built.stderr[-1000:]}"
    [wheel] = made.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(made / "site")
    return made / "site", made


def alone() -> dict:
    """`cwd` and `env` of a process that has the wheel instead of the checkout."""
    site, made = _places()
    return {"cwd": tempfile.mkdtemp(prefix="empty-", dir=made),
            "env": os.environ | {"PYTHONPATH": str(site)}}
