"""Runs the JavaScript tests of a living figure over what the package computed."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent / "js"


def run_figure(name: str, tmp_path: Path, cases: object = None) -> str:
    """Run tests/js/NAME.test.mjs with node, which reads `cases` where SCRATCHBOOK_CASES says.

    Fails the test when one of the script's fails or is skipped; returns what the script printed.
    """
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed (https://nodejs.org): the JavaScript is not compared")
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(cases), encoding="utf-8")
    done = subprocess.run([node, "--test", str(HERE / f"{name}.test.mjs")], capture_output=True,
                          text=True, timeout=120, encoding="utf-8", check=False,
                          env={**os.environ, "SCRATCHBOOK_CASES": str(path)})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "skipped 0" in done.stdout, done.stdout[-1000:]
    return done.stdout


def passed(printed: str) -> int:
    """How many of a script's tests passed, by what node printed at its end."""
    return int(re.search(r"^\S* ?pass (\d+)$", printed, re.MULTILINE)[1])
