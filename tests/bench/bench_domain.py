"""How fast the tokenizers for domains are, beside the plain BPE of the same size.

    python -m tests.bench.bench_domain            about a minute; records the result
    python -m tests.bench.bench_domain --quick    once, records nothing

In turns, in CPU seconds on one thread: the median of seven runs with the fastest and the slowest.
Each encodes with what it has remembered from the run before, as in use. The texts are held-out
files of the standard library, and the second halves of the nine logs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scratchbook.companions.domain_material import halves, library_halves
from scratchbook.teaching.results import record
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.tokenizers.domain import LogTokenizer
from scratchbook.tokenizers.hybrid import HybridTokenizer
from tests.bench.bench_tokenizers import race

VOCAB_SIZE = 4096
RUNS = 7
RESIDENT = """
import os, sys
import psutil
before = psutil.Process(os.getpid()).memory_info().rss
from scratchbook.tokenizers import Tokenizer
import scratchbook.tokenizers.domain, scratchbook.tokenizers.hybrid
Tokenizer.load(sys.argv[1]).encode_ordinary("x = 1\\n")
print(psutil.Process(os.getpid()).memory_info().rss - before)
"""


def megabytes_of(tokenizer: Tokenizer) -> float:
    """What loading it, its code included, adds to a fresh Python process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        tokenizer.save(path)
        out = subprocess.run([sys.executable, "-c", RESIDENT, str(path)], check=True,
                             capture_output=True, text=True).stdout
    return int(out) / 1e6


def rows(task: str, texts: list[str], contestants: dict[str, Tokenizer], runs: int
         ) -> list[dict[str, Any]]:
    """Time all of them on these texts, after comparing what they give back with the texts."""
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    work: dict[str, Callable[[], Any]] = {}
    for name, tokenizer in contestants.items():
        assert all(tokenizer.decode(tokenizer.encode_ordinary(text)) == text for text in texts)
        work[name] = lambda t=tokenizer: [t.encode_ordinary(text) for text in texts]
        ids = work[name]()
        work[f"{name}, decode"] = lambda t=tokenizer, ids=ids: [t.decode(part) for part in ids]
    found = []
    for name, seconds in race(work, runs).items():
        middle = statistics.median(seconds)
        found.append({"task": task, "who": name, "seconds": round(middle, 4),
                      "fastest": round(min(seconds), 4), "slowest": round(max(seconds), 4),
                      "runs": runs, "megabytes": round(megabytes, 3),
                      "megabytes_per_second": round(megabytes / middle, 3)})
        print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    runs = 1 if quick else RUNS
    learn, held_out = library_halves(600_000 if quick else 4_000_000)
    python = {"plain BPE": BPETokenizer("gpt2").train(learn, VOCAB_SIZE),
              "hybrid": HybridTokenizer("python").train(learn, VOCAB_SIZE)}
    first, second = halves()
    logs = {"plain BPE": BPETokenizer("gpt2").train(first.values(), VOCAB_SIZE),
            "logs": LogTokenizer().train(first.values(), VOCAB_SIZE)}
    found = rows("Python", held_out, python, runs) + rows("logs", list(second.values()), logs, runs)
    memory = {"hybrid": megabytes_of(python["hybrid"]), "logs": megabytes_of(logs["logs"])}
    print(memory, "MB")
    if not quick:
        record("domain_speed", {"rows": found, "megabytes": memory}, seeds=[0],
               command="python -m tests.bench.bench_domain")


if __name__ == "__main__":
    main()
