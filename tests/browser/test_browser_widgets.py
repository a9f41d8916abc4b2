"""The widgets explorer in a running JupyterLab: a choice in the browser, a picture from the kernel.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CELL = """import torch
from scratchbook.config import ModelConfig
from scratchbook.interpret import AttentionView
from scratchbook.interpret.widgets import attention_widget
from scratchbook.model import DecoderLM
torch.manual_seed(0)
model = DecoderLM(ModelConfig(vocab_size=256, num_layers=4, d_model=64, num_heads=4,
                              max_seq_len=64))
method = "at: i put: v ^ self foo: [ :x | x + v ] bar: (t at: i); baz" + " " * 5
attention_widget(AttentionView(model, method), "smalltalk")"""
# from a choice in the list of heads to the frame behind the new picture, in milliseconds
REDRAW = """name => new Promise(done => {
  const list = document.querySelectorAll('.widget-dropdown select')[1], begun = performance.now();
  list.value = [...list.options].find(each => each.textContent.trim() === name).value;
  list.dispatchEvent(new Event('change', { bubbles: true }));
  const look = () => requestAnimationFrame(() =>
    document.querySelector(`svg[aria-label^="Layer 3, head ${name}:"]`)
      ? done(performance.now() - begun) : look());
  look();
})"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab of its own, with one notebook."""
    pytest.importorskip("jupyterlab")
    pytest.importorskip("ipywidgets")
    folder = tmp_path_factory.mktemp("lab")
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": CELL, "outputs": [],
            "execution_count": None}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (folder / "widget.ipynb").write_text(json.dumps(
        {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(tmp_path_factory.mktemp(name)) for name in
           ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
         f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
         f"--ServerApp.root_dir={folder}",
         "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"],
        env={**os.environ, **own, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api", server)
        yield f"http://127.0.0.1:{port}/lab/tree/widget.ipynb"
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(address: str, server: subprocess.Popen, seconds: int = 120) -> None:
    for _ in range(seconds):
        assert server.poll() is None, "JupyterLab ended at once"
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    pytest.fail(f"JupyterLab did not answer within {seconds} seconds")


def test_a_choice_in_jupyterlab_draws_the_chosen_head(browser, lab, record_property):
    page = browser.new_page(viewport={"width": 1300, "height": 1600})
    page.set_default_timeout(120_000)
    page.goto(lab)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    head = page.locator('svg[aria-label^="Layer"]')
    assert head.get_attribute("aria-label").startswith("Layer 0, head 0: 64 by 64")
    weights = "() => [...document.querySelectorAll('svg line')].map(each => each.dataset.weight)"
    before = page.evaluate(weights)
    assert len(before) == 12

    page.get_by_label("Layer", exact=True).select_option("3")
    page.locator('svg[aria-label^="Layer 3, head 0:"]').wait_for()
    times = [page.evaluate(REDRAW, str((step + 1) % 4)) for step in range(20)]
    assert head.get_attribute("aria-label").startswith("Layer 3, head 0:")
    assert page.evaluate(weights) != before
    record_property("redraw_ms", [statistics.median(times), min(times), max(times)])

    page.get_by_label("Token", exact=True).select_option(label="56 b")
    page.get_by_text("foo:bar:; baz, all to self").wait_for()
    page.get_by_label("Token", exact=True).select_option(label="1 t")
    page.locator('svg[aria-label="2 edges between tokens"]').wait_for()
    shown = page.locator('svg[aria-label$="edges between tokens"] text').all_text_contents()
    assert shown == ["looks", "is looked at", "1 t", "0 a", "1 t"]
    page.close()
