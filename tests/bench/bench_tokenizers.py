"""How fast BPE is: ours, a naive one, the Rust library `tokenizers` and tiktoken, side by side.

    python -m tests.bench.bench_tokenizers            about four minutes; records the result
    python -m tests.bench.bench_tokenizers --quick    a tenth of the text, once; records nothing

Everything runs in one process on one thread, in turns, and is timed in CPU seconds: the median of
five runs, with the fastest and the slowest. Before a time counts, the answers are compared: the
trainers must have learned the same merges, the encoders must give the same ids.

The naive trainer would run for most of an hour. It is timed for two merges at each of nine
stages of the training, and the time of all merges is interpolated between the stages; such
rows say `extrapolated`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# before the library is imported: it reads them once
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import tiktoken
import tokenizers
from tiktoken_ext.openai_public import r50k_pat_str
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from scratchbook.data import fetch
from scratchbook.teaching.results import record
from scratchbook.tokenizers import BPETokenizer, bpe_files
from tests.bench import naive

RUNS = 5
STAGES = 8
Row = dict[str, Any]


def code(max_bytes: int) -> list[str]:
    """Source files of the running Python, its own tests included: 20 MB need them."""
    texts, size = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or size >= max_bytes:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a few files of its tests are broken on purpose
            continue
        texts.append(text)
        size += len(text.encode())
    return texts


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    answer = work()
    return time.process_time() - start, answer


def race(contestants: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[float]]:
    """Time everyone in turn, so that a slow minute of the machine is everyone's."""
    seconds: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(runs):
        for who, work in contestants.items():
            seconds[who].append(seconds_of(work)[0])
    return seconds


def row(task: str, who: str, seconds: list[float], text_bytes: int, **more: Any) -> Row:
    median = statistics.median(seconds)
    found = {
        "task": task,
        "who": who,
        "seconds": round(median, 4),
        "fastest": round(min(seconds), 4),
        "slowest": round(max(seconds), 4),
        "runs": len(seconds),
        "megabytes": round(text_bytes / 1e6, 3),
        "megabytes_per_second": round(text_bytes / 1e6 / median, 4),
        "extrapolated": False,
        **more,
    }
    print("  ".join(f"{key}={value}" for key, value in found.items()), flush=True)
    return found


# training


def rust_trained(lines: list[str], vocab_size: int) -> Tokenizer:
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator(lines, trainer)
    return library


def naive_seconds(tokenizer: BPETokenizer, lines: list[str], distinct: bool) -> float:
    """The time of a naive training that ends in `tokenizer`, from two merges at every stage.

    With `distinct`, each chunk is taken once and not as often as it occurs. It then learns other
    merges than it should: counting right would only make it slower.
    """
    chunks = [chunk for line in lines for chunk in tokenizer.split(line)]
    if distinct:
        chunks = list(Counter(chunks))
    num_merges = len(tokenizer.merges)
    per_merge = []
    for stage in range(STAGES + 1):
        done = min(stage * num_merges // STAGES, num_merges - 2)
        ranks = dict(list(tokenizer.ranks.items())[: 256 + done])
        cache = BPETokenizer.from_ranks(ranks)._cache
        ids = [cache[chunk] for chunk in chunks]
        seconds, learned = seconds_of(lambda ids=ids, done=done: naive.train(ids, 2, 256 + done))
        per_merge.append(seconds / 2)
        tokens = list(tokenizer.ranks)
        expected = tokenizer.merges[done : done + 2]
        assert distinct or [(tokens[a], tokens[b]) for a, b in learned] == expected
    return num_merges * (sum(per_merge) - (per_merge[0] + per_merge[-1]) / 2) / STAGES


def bench_training(task: str, lines: list[str], vocab_size: int, runs: int) -> list[Row]:
    """Both are fed line by line, which is how the Rust library is fastest."""
    ours = BPETokenizer("gpt2").train(lines, vocab_size)
    theirs = rust_trained(lines, vocab_size).get_vocab()
    same = {bpe_files.from_visible(token): rank for token, rank in theirs.items()} == ours.ranks
    assert same, f"{task}: the merges differ"
    seconds = race(
        {
            "ours": lambda: BPETokenizer("gpt2").train(lines, vocab_size),
            "tokenizers": lambda: rust_trained(lines, vocab_size),
        },
        runs,
    )
    size = sum(len(line.encode()) for line in lines)
    return [row(task, who, found, size, vocab_size=vocab_size) for who, found in seconds.items()]


def bench_naive_training(task: str, lines: list[str], vocab_size: int) -> list[Row]:
    ours = BPETokenizer("gpt2").train(lines, vocab_size)
    size = sum(len(line.encode()) for line in lines)
    more = {"vocab_size": vocab_size, "extrapolated": True}
    return [
        row(task, "naive", [naive_seconds(ours, lines, False)], size, **more),
        row(task, "naive, each chunk once", [naive_seconds(ours, lines, True)], size, **more),
    ]


# encoding


def two_fastest(library: Tokenizer, texts: list[str]) -> dict[str, Callable[[], Any]]:
    """The two ways of calling `tokenizers` that were fastest on an eighth of the text.

    Two, because the order may change on all of it: a batch keeps every answer in memory at once.
    """

    def lines(texts: list[str]) -> list[str]:
        return [line for text in texts for line in text.splitlines(keepends=True)]

    options = {
        "encode_batch, by lines": lambda texts: library.encode_batch(lines(texts)),
        "encode_batch_fast, by lines": lambda texts: library.encode_batch_fast(lines(texts)),
        "encode_batch_fast, by files": library.encode_batch_fast,
        "encode, by files": lambda texts: [library.encode(text).ids for text in texts],
        "encode, whole": lambda texts: library.encode("".join(texts)).ids,
    }
    few = texts[: max(1, len(texts) // 8)]
    trial = race({name: lambda work=work: work(few) for name, work in options.items()}, 2)
    trial = {name: min(seconds) for name, seconds in trial.items()}
    print({name: round(seconds, 2) for name, seconds in trial.items()}, flush=True)
    fastest = sorted(trial, key=trial.get)[:2]
    return {f"tokenizers, {name}": lambda name=name: options[name](texts) for name in fastest}


def bench_encoding(texts: list[str], runs: int) -> list[Row]:
    task = "encode code, GPT-2's vocabulary"
    ranks_file = fetch("r50k_base")
    fresh = BPETokenizer.from_tiktoken(ranks_file, "gpt2")
    with tempfile.TemporaryDirectory() as folder:
        fresh.save_tokenizers(Path(folder) / "tokenizer.json")
        library = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    openai = tiktoken_encoding(fresh)
    text = "".join(texts)
    ids = fresh.encode_ordinary(text)
    assert ids == openai.encode_ordinary(text)
    assert library.encode(texts[0]).ids == fresh.encode_ordinary(texts[0])

    contestants = {
        # nothing cached: what a first call costs
        "ours": lambda: BPETokenizer.from_ranks(fresh.ranks).encode_ordinary(text),
        "ours, again": lambda: fresh.encode_ordinary(text),
        "tiktoken": lambda: openai.encode_ordinary(text),
        **two_fastest(library, texts),
    }
    seconds = race(contestants, runs)
    library_names = [who for who in seconds if who.startswith("tokenizers")]
    best = min(library_names, key=lambda who: statistics.median(seconds[who]))
    rows = [
        row(task, "tokenizers" if who == best else who, found, len(text.encode()), option=who,
            tokens_per_second=round(len(ids) / statistics.median(found)))
        for who, found in seconds.items()
    ]  # fmt: skip
    return [*rows, bench_naive_encoding(task, fresh, text[: 1 << 18])]


def tiktoken_encoding(tokenizer: BPETokenizer) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "gpt2",
        pat_str=r50k_pat_str,
        mergeable_ranks=tokenizer.ranks,
        special_tokens=tokenizer.special_tokens,
    )


def bench_naive_encoding(task: str, tokenizer: BPETokenizer, text: str) -> Row:
    ranks = tokenizer.ranks
    merges = {(ranks[a], ranks[b]): ranks[a + b] for a, b in tokenizer.merges}

    def work() -> list[int]:
        chunks = tokenizer.split(text)
        return naive.encode([[ranks[bytes([b])] for b in c.encode()] for c in chunks], merges)

    seconds, ids = seconds_of(work)
    assert ids == tokenizer.encode_ordinary(text)
    return row(task, "naive", [seconds], len(text.encode()),
               tokens_per_second=round(len(ids) / seconds))  # fmt: skip


# all of it


def ratios(rows: list[Row]) -> dict[str, float]:
    """What the chapter says in words: who is how many times as fast as whom."""
    of = {(row["task"], row["who"]): row["megabytes_per_second"] for row in rows}
    found = {}
    for (task, who), speed in of.items():
        if who != "ours":
            found[f"{task}: ours / {who}"] = round(of[task, "ours"] / speed, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the text, once")
    quick = parser.parse_args().quick
    runs, part = (1, 10) if quick else (RUNS, 1)

    plays = fetch("tinyshakespeare").read_text(encoding="utf-8")
    play_lines = plays[: len(plays) // part].splitlines(keepends=True)
    texts = code(20_000_000 // part)
    code_lines = [line for text in texts for line in text.splitlines(keepends=True)]

    rows = bench_training("train, Tiny Shakespeare", play_lines, 4_096 // part, runs)
    rows += bench_naive_training("train, Tiny Shakespeare", play_lines, 4_096 // part)
    rows += bench_training("train, code", code_lines, 8_192 // part, runs)
    rows += bench_encoding(texts, runs)
    for name, ratio in ratios(rows).items():
        print(f"{ratio:10.2f}  {name}")
    if not quick:
        versions = {"tokenizers": tokenizers.__version__, "tiktoken": tiktoken.__version__}
        record(
            "tokenizer_speed",
            {"rows": rows, "ratios": ratios(rows), "versions": versions},
            seeds=[],
            command="python -m tests.bench.bench_tokenizers",
        )


if __name__ == "__main__":
    main()
