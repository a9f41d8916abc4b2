"""How fast the engine is: with and without a cache, by schedule and load, and beside transformers.

    python -m tests.bench.bench_serving            four minutes; records the result
    python -m tests.bench.bench_serving --quick    a smaller model, one round; records nothing

One Llama of the base model's size with random weights, float32, one thread, greedy; all requests of
a load are there at the start. Seconds are CPU seconds of the process, so that other programs do not
count; where two threads are beside one, seconds of the clock. Everything is run in turns, in rounds
with requests of their own, and ratios are taken within a round. Before a time counts, the tokens
are compared.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

from scratchbook.evaluation.comparing import bound_verdict
from scratchbook.model import DecoderLM
from scratchbook.serving import Engine, Request
from scratchbook.teaching.results import record
from scratchbook.weights import load_pretrained

ROUNDS, SLOTS, TARGET = 3, 16, 3.0
SIZES = {"vocab_size": 8192, "hidden_size": 320, "num_hidden_layers": 6, "num_attention_heads": 5,
         "intermediate_size": 856, "max_position_embeddings": 1024, "tie_word_embeddings": True}
SMALL = SIZES | {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
                 "num_attention_heads": 4, "num_hidden_layers": 2}
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
COUNTS = (1, 2, 4, 8, 16, 32)
# how many tokens an answer has; every prompt has 4 to 24
LOADS = {
    "all of 14": lambda rng: 14,
    "1 to 27": lambda rng: rng.randint(1, 27),
    "exponential, mean 14": lambda rng: min(96, 1 + int(rng.expovariate(1 / 13))),
    "7 of 8 short (2 to 8), 1 of 8 long (64 to 96)":
        lambda rng: rng.randint(64, 96) if rng.random() < 1 / 8 else rng.randint(2, 8),
}
MIXED = list(LOADS)[-1]
Row = dict[str, Any]


def requests_of(load: str, count: int, seed: int, vocab_size: int) -> list[Request]:
    rng = random.Random(seed)
    return [Request([rng.randrange(vocab_size) for _ in range(rng.randint(4, 24))],
                    LOADS[load](rng)) for _ in range(count)]


def serve(model: DecoderLM, requests: list[Request], schedule: str,
          clock: Callable[[], float] = time.process_time) -> tuple[Row, list[list[int]]]:
    """Seconds until the first and the last token of each request, all submitted at once."""
    engine = Engine(model, schedule=schedule, max_batch=SLOTS)
    start = clock()
    tokens: dict[int, list[int]] = {engine.submit(request): [] for request in requests}
    first, last = {}, {}
    while not engine.idle:
        events = engine.step()
        now = clock() - start
        for event in events:
            tokens[event.request].append(event.token)
            first.setdefault(event.request, now)
            last[event.request] = now
    return {"seconds": now, "first": list(first.values()), "last": list(last.values()),
            "tokens": sum(map(len, tokens.values())), "columns": engine.stats.columns,
            "steps": engine.stats.steps}, list(tokens.values())


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[round(share * (len(values) - 1))]


def bench_schedules(model: DecoderLM, rounds: int, counts: tuple[int, ...]) -> list[Row]:
    """Throughput and waiting times of each schedule on the mixed load."""
    found: dict[tuple[int, str], list[Row]] = {}
    for seed in range(rounds):
        for count in counts:
            requests = requests_of(MIXED, count, seed, model.config.vocab_size)
            answers = []
            for schedule in ("one", "static", "continuous"):
                row, answer = serve(model, requests, schedule)
                found.setdefault((count, schedule), []).append(row)
                answers.append(answer)
            assert answers[0] == answers[1] == answers[2]
    rows = []
    for (count, schedule), runs in found.items():
        speeds = [run["tokens"] / run["seconds"] for run in runs]
        row = {"requests": count, "schedule": schedule, "rounds": len(runs),
               "tokens_per_second": statistics.median(speeds),
               "slowest": min(speeds), "fastest": max(speeds)}
        for name in ("first", "last"):  # over the requests of all rounds
            everyone = [seconds for run in runs for seconds in run[name]]
            row |= {f"{name}_p50": percentile(everyone, 0.5),
                    f"{name}_p95": percentile(everyone, 0.95)}
        rows.append(row)
    return rows


def bench_loads(model: DecoderLM, rounds: int, count: int) -> list[Row]:
    """What continuous batching gains over static batches, load by load."""
    rows = []
    for load in LOADS:
        ratios, columns, speeds = [], [], []
        for seed in range(rounds):
            requests = requests_of(load, count, 100 + seed, model.config.vocab_size)
            static, plain = serve(model, requests, "static")
            continuous, answers = serve(model, requests, "continuous")
            assert plain == answers
            ratios.append(static["seconds"] / continuous["seconds"])
            columns.append(static["columns"] / continuous["columns"])
            speeds.append((static["tokens"] / static["seconds"],
                           continuous["tokens"] / continuous["seconds"]))
        row = {"load": load, "requests": count, "slots": SLOTS, "rounds": rounds,
               "static_tokens_per_second": statistics.median(s for s, _ in speeds),
               "continuous_tokens_per_second": statistics.median(c for _, c in speeds),
               "ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios),
               "columns_ratio": statistics.median(columns)}
        if load == MIXED:
            row |= {"target": TARGET, "verdict": bound_verdict(ratios, at_least=TARGET)}
        rows.append(row)
    return rows


def bench_threads(model: DecoderLM, rounds: int, counts: tuple[int, ...]) -> list[Row]:
    """How many times the throughput of one thread two have, on the mixed load, by the clock."""
    ratios: dict[tuple[int, str], list[float]] = {}
    for seed in range(rounds):
        for count in counts:
            requests = requests_of(MIXED, count, seed, model.config.vocab_size)
            for schedule in ("one", "static", "continuous"):
                seconds, answers = [], []
                for threads in (1, 2):
                    torch.set_num_threads(threads)
                    row, answer = serve(model, requests, schedule, time.perf_counter)
                    seconds.append(row["seconds"])
                    answers.append(answer)
                torch.set_num_threads(1)
                assert answers[0] == answers[1]
                ratios.setdefault((count, schedule), []).append(seconds[0] / seconds[1])
    return [{"requests": count, "schedule": schedule, "rounds": rounds,
             "two_threads": statistics.median(found), "lowest": min(found),
             "highest": max(found), "verdict": bound_verdict(found, at_least=1.0)}
            for (count, schedule), found in ratios.items()]


@torch.no_grad()
def bench_cache(model: DecoderLM, rounds: int) -> tuple[list[Row], int | None]:
    """Tokens per second behind a text of each length, and from where on the cache is faster."""
    spent: dict[tuple[int, bool], list[float]] = {}
    for seed in range(rounds + 2):
        generator = torch.Generator().manual_seed(seed)
        for length in LENGTHS:
            ids = torch.randint(model.config.vocab_size, (1, length + 1), generator=generator)
            caches = model.new_cache()
            model(ids[:, :-1], cache=caches)
            for cached in (True, False):
                times = []
                for _ in range(5):
                    start = time.process_time()
                    model(ids[:, -1:] if cached else ids, cache=caches if cached else None)
                    times.append(time.process_time() - start)
                    for cache in caches:
                        cache.truncate(length)
                spent.setdefault((length, cached), []).append(statistics.median(times))
    rows = [{"length": length,
             "cached": 1 / statistics.median(spent[length, True]),
             "uncached": 1 / statistics.median(spent[length, False]),
             "ratios": [b / a for a, b in zip(spent[length, True], spent[length, False],
                                              strict=True)]} for length in LENGTHS]
    faster = [min(row["ratios"]) > 1 for row in rows]
    always = [row["length"] for place, row in enumerate(rows) if all(faster[place:])]
    return rows, always[0] if always else None


def theirs_continuous(manager: Any, requests: list[Request]) -> list[list[int]]:
    names = [manager.add_request(list(request.prompt_ids), max_new_tokens=request.max_new_tokens)
             for request in requests]
    found: dict[str, list[int]] = {}
    while len(found) < len(requests):
        answer = manager.get_result(timeout=120)
        if answer is None or answer.error:
            raise RuntimeError(f"transformers gave {answer}")
        if answer.is_finished():
            found[answer.request_id] = answer.generated_tokens
    return [found[name] for name in names]


def theirs_static(theirs: nn.Module, requests: list[Request]) -> list[list[int]]:
    answers = []
    for start in range(0, len(requests), SLOTS):
        batch = requests[start : start + SLOTS]
        width = max(len(request.prompt_ids) for request in batch)
        padding = [width - len(request.prompt_ids) for request in batch]
        ids = torch.tensor([[0] * n + list(request.prompt_ids)
                            for n, request in zip(padding, batch, strict=True)])
        mask = torch.arange(width) >= torch.tensor(padding)[:, None]
        written = theirs.generate(
            ids, attention_mask=mask.long(), do_sample=False, eos_token_id=None, pad_token_id=0,
            max_new_tokens=max(request.max_new_tokens for request in batch))[:, width:].tolist()
        answers += [row[: request.max_new_tokens]
                    for row, request in zip(written, batch, strict=True)]
    return answers


def bench_transformers(theirs: nn.Module, model: DecoderLM, rounds: int, count: int) -> list[Row]:
    """The same weights and the same mixed load, ours and transformers' own."""
    speeds: dict[str, list[float]] = {}
    answers: dict[int, list] = {}

    def race(who: str, way: Callable[[list[Request]], list[list[int]]]) -> None:
        for seed in range(rounds):
            requests = requests_of(MIXED, count, 200 + seed, model.config.vocab_size)
            start = time.process_time()
            answer = way(requests)
            seconds = time.process_time() - start
            assert answer == answers.setdefault(seed, answer), f"{who} writes other tokens"
            speeds.setdefault(who, []).append(sum(map(len, answer)) / seconds)

    race("ours, continuous", lambda requests: serve(model, requests, "continuous")[1])
    race("ours, static", lambda requests: serve(model, requests, "static")[1])
    race("transformers, static", lambda requests: theirs_static(theirs, requests))
    settings = transformers.GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    limits = transformers.ContinuousBatchingConfig(num_blocks=64, max_batch_tokens=64 + SLOTS,
                                                   max_requests_per_batch=SLOTS)
    with theirs.continuous_batching_context_manager(
            generation_config=settings, continuous_batching_config=limits) as manager:
        theirs_continuous(manager, [Request([1, 2, 3], 2)])  # what it sets up is not counted
        race("transformers, continuous", lambda requests: theirs_continuous(manager, requests))
    ours = speeds["ours, continuous"]
    return [{"who": who, "requests": count, "rounds": rounds,
             "tokens_per_second": statistics.median(found),
             "ours_over_this": statistics.median(
                 a / b for a, b in zip(ours, found, strict=True)),
             "lowest": min(a / b for a, b in zip(ours, found, strict=True)),
             "highest": max(a / b for a, b in zip(ours, found, strict=True))}
            for who, found in speeds.items()]


def models(sizes: dict) -> tuple[nn.Module, DecoderLM]:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**sizes, attn_implementation="sdpa")
    theirs = transformers.LlamaForCausalLM(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return theirs, load_pretrained(folder)


def main() -> None:
    """Measure, print, and record unless it was the quick one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller model; records nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    theirs, ours = models(SMALL if quick else SIZES)
    rounds, count = (1, 12) if quick else (ROUNDS, 64)

    cache, break_even = bench_cache(ours, rounds)
    schedules = bench_schedules(ours, rounds, COUNTS[:3] if quick else COUNTS)
    loads = bench_loads(ours, rounds, count)
    beside = bench_transformers(theirs, ours, rounds, count // 2)
    threads = bench_threads(ours, rounds, COUNTS[:2] if quick else COUNTS[::2])
    for row in [*cache, {"break_even": break_even}, *schedules, *loads, *beside, *threads]:
        print("  ".join(f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
                        for key, value in row.items() if key != "ratios"), flush=True)
    if not quick:
        record("serving_speed",
               {"cache": cache, "break_even": break_even, "schedules": schedules, "loads": loads,
                "threads": threads, "beside": beside, "slots": SLOTS, "parameters": sum(
                    weight.numel() for weight in ours.parameters()),
                "versions": {"transformers": transformers.__version__}},
               seeds=list(range(rounds)), command="python -m tests.bench.bench_serving")


if __name__ == "__main__":
    main()
