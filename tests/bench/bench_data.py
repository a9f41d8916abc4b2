"""How fast text becomes packed tokens: 20 MB of Python, step by step, in CPU seconds.

    python -m tests.bench.bench_data            about a minute; records the result
    python -m tests.bench.bench_data --quick    a tenth of the text; records nothing

Everything runs on one thread. The tokenizer is trained beforehand, on a part, and not timed:
it is made once. `again` reads the token file instead of encoding.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scratchbook.data.dedupe import deduplicate
from scratchbook.data.documents import Document
from scratchbook.data.held_out import find_leaks, split_documents
from scratchbook.data.packing import lay_out
from scratchbook.data.token_files import cached_tokens, read_tokens
from scratchbook.teaching.results import record
from scratchbook.tokenizers import BPETokenizer
from tests.bench.bench_tokenizers import code


def timed(steps: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    start = time.process_time()
    answer = work()
    steps[name] = time.process_time() - start
    return answer


def measure(max_bytes: int) -> dict[str, Any]:
    texts = code(max_bytes)
    documents = [Document(str(n), text, str(n // 10)) for n, text in enumerate(texts)]
    size = sum(len(text.encode()) for text in texts) / 1e6
    tokenizer = BPETokenizer().train(texts[::10], 4096)
    steps: dict[str, float] = {}
    kept, equal, similar = timed(steps, "deduplicate", lambda: deduplicate(documents))
    training, held = timed(steps, "split", lambda: split_documents(kept, 0.05))
    timed(steps, "audit", lambda: find_leaks(training, held))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.tokens")

        def encode() -> Any:
            return cached_tokens(path, [d.text for d in training], tokenizer.encode_ordinary,
                                 tokenizer.vocab_size, "bench")

        first = timed(steps, "encode and write", encode)
        again = timed(steps, "again, from the file", encode)
        assert (first.ids == again.ids).all()
        rows = timed(steps, "pack", lambda: lay_out(list(read_tokens(path).documents()), 512))
        del first, again
    total = sum(seconds for name, seconds in steps.items() if "again" not in name)
    return {"megabytes": size, "documents": len(texts), "equal": len(equal),
            "similar": len(similar), "rows": rows.shape[1], "seconds": steps, "total": total,
            "megabytes_per_second": size / total}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true")
    quick = options.parse_args().quick
    found = measure(2_000_000 if quick else 20_000_000)
    size = found["megabytes"]
    for name, seconds in found["seconds"].items():
        print(f"{name:24} {seconds:6.2f} s  {size / max(seconds, 1e-9):8.1f} MB/s")
    print(f"{size:.1f} MB of text to {found['rows']:,} packed rows in {found['total']:.1f} CPU "
          f"seconds: {found['megabytes_per_second']:.1f} MB/s")
    if not quick:
        record("data_speed", found, seeds=[], command="python -m tests.bench.bench_data")


if __name__ == "__main__":
    main()
