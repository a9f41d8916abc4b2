"""How fast the Smalltalk model writes in a page: headless Chromium, node, and torch on one thread.

    python -m tests.bench.bench_page_model            about three minutes; records the result
    python -m tests.bench.bench_page_model --quick    one round; records nothing

Chromium and node run the same scripts on the shipped file, torch its float32 weights with a cache.
All write behind the same class and head at the same temperature, in turns. Chromium's rate is the
one that the page itself prints: by the clock, in its worker, the prompt not counted. The rate by
processor time counts all of Chromium's processes, drawing too; it moves less on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from scratchbook.companions.smalltalk_page import BEGINNINGS, page_scripts
from scratchbook.evaluation.comparing import bound_verdict
from scratchbook.generation import stream
from scratchbook.smalltalk_model import WEIGHTS, load_smalltalk, model_folder, prompt_ids
from scratchbook.teaching.results import record
from tests.browser import visits
from tests.browser.test_browser_smalltalk import button, status, wait_for, write_page

ROUNDS, FEWEST, TEMPERATURE, TARGET = 9, 30, 1.0, 20.0
ROOT = Path(__file__).resolve().parents[2]
LIVE = ROOT / "scratchbook" / "teaching" / "live"
START = BEGINNINGS[0]
NODE = """
const { readFileSync } = require("node:fs");
const [live, site, request] = [process.argv[1], process.argv[2], JSON.parse(process.argv[3])];
for (const name of ["smalltalk_tokens", "safetensors", "smalltalk_model", "smalltalk_syntax"])
  require(`${live}/${name}.js`);
const worker = require(`${live}/smalltalk_worker.js`);
const run = (name) => (0, eval)(readFileSync(`${site}/${name}.js`, "utf-8"));
run("smalltalk_weights");
const file = globalThis.Scratchbook.smalltalkWeights;
for (let part = 1; part <= file.count; part++) run(`smalltalk_weights_${part}`);
file.weights = file.parts.slice(1).map((part) => part.text).join("");
const writer = worker.makeWriter(file);
let [tokens, clock, used] = [0, 0, null];
for (const step of worker.write(writer, request)) {
  if (step.kind === "read") [clock, used] = [performance.now(), process.cpuUsage()];
  tokens += Number(step.kind === "token");
}
const { user, system } = process.cpuUsage(used);
console.log(JSON.stringify({ tokens, seconds: (performance.now() - clock) / 1e3,
  processor: (user + system) / 1e6 }));
"""
Run = dict[str, float]


def in_node(site: Path, seed: int) -> Run:
    record = START.record
    request = {"record": {"name": record.name, "superclass": record.superclass,
                          "variables": list(record.instance_variables),
                          "comment": record.comment, "package": record.category},
               "begun": START.begun, "temperature": TEMPERATURE, "topK": 0, "valid": False,
               "seed": seed, "most": 200}
    done = subprocess.run(["node", "-e", NODE, str(LIVE), str(site / "live"), json.dumps(request)],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def in_torch(model: Any, tokenizer: Any, seed: int) -> Run:
    ids = prompt_ids(tokenizer, START.record, START.begun, seq_len=model.config.max_seq_len)
    steps = stream(model, ids, model.config.max_seq_len - len(ids), TEMPERATURE, seed=seed)
    next(steps)  # the prompt
    clock, used = time.perf_counter(), time.process_time()
    tokens = sum(1 for _ in steps)
    return {"tokens": tokens, "seconds": time.perf_counter() - clock,
            "processor": time.process_time() - used}


def processor_seconds(browser: psutil.Process) -> float:
    """Of a browser and all of its processes."""
    found = [each.cpu_times() for each in [browser, *browser.children(recursive=True)]]
    return sum(times.user + times.system for times in found)


def in_chromium(page: Any, browser: psutil.Process) -> Run:
    used = processor_seconds(browser)
    button(page, "Again, otherwise").click()
    wait_for(page, "ready")
    tokens, rate = re.search(r"after (\d+) tokens, (\d+) tokens a second", status(page)).groups()
    return {"tokens": int(tokens), "seconds": int(tokens) / int(rate),
            "processor": processor_seconds(browser) - used}


def until_long(run: Callable[[int], Run], seed: int) -> Run:
    """The first run, from a seed on, that is long enough to be timed."""
    for each in range(seed, seed + 50):
        found = run(each)
        if found["tokens"] >= FEWEST:
            return found
    raise RuntimeError(f"50 methods in a row had fewer than {FEWEST} tokens")


def race(rounds: int) -> dict[str, list[Run]]:
    from playwright.sync_api import sync_playwright

    model, tokenizer = load_smalltalk()
    runs: dict[str, list[Run]] = {"Chromium": [], "node": [], "torch": []}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = write_page(Path(folder), page_scripts())
        before = {each.pid for each in psutil.Process().children(recursive=True)}
        started = playwright.chromium.launch(executable_path=visits.find_chromium(),
                                             args=visits.FLAGS)
        browser = next(each for each in psutil.Process().children(recursive=True)
                       if each.pid not in before)
        page = visits.open_page(started.new_context(), page_file)
        page.set_default_timeout(600_000)
        button(page, "Load the model").click()
        wait_for(page, "ready")
        page.get_by_label("Temperature").fill(str(TEMPERATURE))
        button(page, "Complete").click()
        wait_for(page, "ready")
        for seed in range(1, rounds + 1):
            runs["Chromium"].append(until_long(lambda _: in_chromium(page, browser), seed))
            runs["node"].append(until_long(lambda each: in_node(Path(folder), each), 100 * seed))
            runs["torch"].append(until_long(lambda each: in_torch(model, tokenizer, each), seed))
            print({who: round(found[-1]["tokens"] / found[-1]["seconds"], 1)
                   for who, found in runs.items()}, flush=True)
        started.close()
    return runs


def row(who: str, runs: list[Run]) -> dict[str, Any]:
    rates = [one["tokens"] / one["seconds"] for one in runs]
    busy = [one["tokens"] / one["processor"] for one in runs]
    return {"who": who, "rounds": len(runs), "tokens": int(sum(one["tokens"] for one in runs)),
            "tokens_per_second": round(statistics.median(rates), 1),
            "slowest": round(min(rates), 1), "fastest": round(max(rates), 1),
            "tokens_per_processor_second": round(statistics.median(busy), 1),
            "target": TARGET, "verdict": bound_verdict(rates, at_least=TARGET)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round; records nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rows = [row(who, runs) for who, runs in race(1 if quick else ROUNDS).items()]
    for each in rows:
        print("  ".join(f"{key}={value}" for key, value in each.items()))
    if not quick:
        file = model_folder() / WEIGHTS
        record("page_model_speed",
               {"rows": rows, "model_bytes": file.stat().st_size,
                "script_bytes": sum(map(len, page_scripts().values())),
                "waiting_processes": round(os.getloadavg()[0], 1),
                "versions": {"node": version_of("node"),
                             "chromium": version_of(visits.find_chromium())}},
               seeds=list(range(1, ROUNDS + 1)), command="python -m tests.bench.bench_page_model")


def version_of(program: str) -> str:
    return subprocess.check_output([program, "--version"], text=True).strip()


if __name__ == "__main__":
    main()
