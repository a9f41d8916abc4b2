"""How fast the attention explorer draws in Chromium, and how large it is: the median of twenty.

    python -m tests.bench.bench_explorer [--quick]

64 tokens, four layers of four heads; the reader's own text through a random model of a million
parameters. A time runs from the event to the frame that shows what it changed.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import psutil
import torch

from scratchbook.compression import quantize, save_compressed
from scratchbook.evaluation.comparing import bound_verdict
from scratchbook.interpret import AttentionView
from scratchbook.model import DecoderLM
from scratchbook.smalltalk import parts
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import MethodRecord
from scratchbook.smalltalk_model import RECIPES
from scratchbook.teaching.explorer import explorer_html, explorer_page
from scratchbook.teaching.results import record
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer
from tests.browser import visits
from tests.js.test_explorer_model_js import LIBRARY, file_of

TIMES, TOKENS, LAYERS, HEADS = 20, 64, 4, 4
BOUNDS = {"another head": 100.0, "another token, its tree and scopes": 150.0,
          "another text": 100.0, "an edit at the end, read by the model": 300.0,
          "an edit at the beginning, read by the model": 300.0}
MEASURE = """async ([act, times]) => {
  const acts = {
    head: (at) => document.querySelectorAll('.sb-ex-grid button')[(5 * at + 1) % 16].click(),
    token: (at) => document.querySelectorAll('.sb-ex-text [role=option]')[
      (7 * at + 3) % 64].click(),
    view: (at) => { const node = document.querySelector("[id$='-text']");
      node.value = String((at + 1) % 2); node.dispatchEvent(new Event('change')); } };
  const shown = () => new Promise(done => requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => done(performance.now());
    port2.postMessage(0); }));
  const found = [];
  for (let at = 0; at < times + 2; at++) {
    await shown();
    const begun = performance.now();
    acts[act](at);
    found.push(await shown() - begun);
  }
  return found.slice(2); }"""
EDIT = """async ([where, times]) => {
  const area = document.querySelector("[id$='-own']"), status = area.closest('div').nextSibling;
  const text = area.value, found = [];
  for (let at = 0; at < times + 2; at++) {
    delete status.dataset.took;
    const letter = 'abcdefghij'[at % 10];
    area.value = where === 'end' ? text.slice(0, -1) + letter : letter + text.slice(1);
    const begun = performance.now();
    area.dispatchEvent(new Event('input'));
    while (!status.dataset.took) await new Promise(done => setTimeout(done, 1));
    found.push(performance.now() - begun);
  }
  return found.slice(2); }"""


def million(folder: Path) -> tuple[DecoderLM, SmalltalkTokenizer]:
    """A random model of about a million parameters, in eight bits in this folder."""
    texts = [each.source for each in read_folder(LIBRARY, "course")
             if isinstance(each, MethodRecord)]
    tokenizer = SmalltalkTokenizer().train(texts, 2048)
    torch.manual_seed(0)
    model = DecoderLM(RECIPES["small"].model.with_(
        num_layers=LAYERS, d_model=128, num_heads=HEADS, num_kv_heads=None, head_dim=None, d_ff=320,
        max_seq_len=256, vocab_size=tokenizer.vocab_size)).eval()
    tokenizer.save(folder / "tokenizer.json")
    small = quantize(copy.deepcopy(model), "int8", group_size=32)
    save_compressed(small, folder / "model.safetensors")
    return model, tokenizer


def texts_of(tokenizer: SmalltalkTokenizer) -> list[str]:
    """Two methods of the library, of exactly as many tokens as are asked for with their mark."""
    found = []
    for each in read_folder(LIBRARY, "course"):
        if isinstance(each, MethodRecord) and len(
                tokenizer.encode_ordinary(each.source)) == TOKENS - 1:
            found.append(each.source)
    return found[:2]


def measure(times: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        model, tokenizer = million(folder)
        before = [tokenizer.special_tokens[parts.METHOD]]
        views = [AttentionView(model, text, tokenizer, before=before)
                 for text in texts_of(tokenizer)]
        told = {"file": file_of(folder), "megabytes": 2, "before": [parts.METHOD], "name": "1M"}
        page_file = folder / "page.html"
        page_file.write_text(explorer_page(views, language="smalltalk", model=told),
                             encoding="utf-8")
        others = {each.pid for each in psutil.Process().children(recursive=True)}
        browser = playwright.chromium.launch(executable_path=visits.find_chromium(),
                                             args=visits.FLAGS)
        process = next(each for each in psutil.Process().children(recursive=True)
                       if each.pid not in others)
        page = visits.open_page(browser.new_context(viewport={"width": 1100, "height": 1600}),
                                page_file)
        page.set_default_timeout(300_000)
        found = {}

        def timed(what: str, script: str, act: str) -> None:
            used = processor_seconds(process)
            took = page.evaluate(script, [act, times])
            used = (processor_seconds(process) - used) / (times + 2)
            found[what] = {"took": took, "processor_ms": round(1000 * used, 1)}

        timed("another head", MEASURE, "head")
        page.get_by_label("tree", exact=True).check()
        timed("another token, its tree and scopes", MEASURE, "token")
        timed("another text", MEASURE, "view")
        page.get_by_role("button", name="Load the model").click()
        page.locator("[data-took]").wait_for()
        timed("an edit at the end, read by the model", EDIT, "end")
        timed("an edit at the beginning, read by the model", EDIT, "beginning")
        browser.close()
    one = explorer_html(views[0], language="smalltalk")
    return {"times": found, "tokens": [len(view.ids) for view in views],
            "parameters": sum(p.numel() for p in model.parameters()),
            "bytes": {"figure": len(one.encode()), "view": len(views[0].to_json().encode()),
                      "page": len(explorer_page(views[0], language="smalltalk").encode())}}


def processor_seconds(browser: psutil.Process) -> float:
    """Of a browser and all of its processes."""
    found = [each.cpu_times() for each in [browser, *browser.children(recursive=True)]]
    return sum(times.user + times.system for times in found)


def row(what: str, took: list[float], processor_ms: float) -> dict[str, Any]:
    """Times of the clock, which a busy machine stretches, and of the processor."""
    return {"what": what, "times": len(took), "median_ms": round(statistics.median(took), 1),
            "fastest_ms": round(min(took), 1), "slowest_ms": round(max(took), 1),
            "processor_ms": processor_ms,
            "bound_ms": BOUNDS[what], "verdict": bound_verdict(took, at_most=BOUNDS[what])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three times; records nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    found = measure(3 if quick else TIMES)
    rows = [row(what, **took) for what, took in found.pop("times").items()]
    for each in rows:
        print("  ".join(f"{key}={value}" for key, value in each.items()))
    print(found)
    if not quick:
        record("attention_explorer_speed",
               {"rows": rows, **found, "layers": LAYERS, "heads": HEADS,
                "waiting_processes": round(os.getloadavg()[0], 1)},
               seeds=[0], command="python -m tests.bench.bench_explorer")


if __name__ == "__main__":
    main()
