"""The figure that adds in different orders, run by node where there is one."""

import shutil
import subprocess
from pathlib import Path

import pytest


def test_orders_of_addition():
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = Path(__file__).with_name("addition.test.mjs")
    done = subprocess.run([node, "--test", str(script)], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
