"""Chapter 07b's controls: what a pass costs, how long writers wait, what fits into a memory.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from scratchbook.companions.inference_bench import seconds
from scratchbook.companions.inference_schedules import load
from scratchbook.model import DecoderLM
from scratchbook.serving.engine import Engine
from scratchbook.serving.requests import Request
from scratchbook.tokenizers import BPETokenizer

WRITERS, COMES = 4, 200  # who writes, and how long the prompt is that comes while they do


@torch.no_grad()
def matrices_alone(model: DecoderLM, tokens: int = 1) -> float:
    """Seconds for the model's own matrices in their order, and nothing between them."""
    weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)]
    inputs = [torch.ones(tokens, weight.shape[1]) for weight in weights]

    def work() -> None:
        for x, weight in zip(inputs, weights, strict=True):
            nn.functional.linear(x, weight)

    return min(seconds(work, 30))


@torch.no_grad()
def pass_rows(model: DecoderLM, texts: Sequence[int], past: int = 48) -> list[dict[str, float]]:
    """A pass that writes one token for each of so many texts: its time, and beside the first."""
    steps = {count: _step(model, count, past) for count in texts}
    spent = {count: min(seconds(step, 3)) for count, step in steps.items()}
    for _ in range(12):  # in turns: a machine's speed drifts
        spent = {count: min(spent[count], *seconds(step, 3)) for count, step in steps.items()}
    return [{"texts": count, "ms a pass": 1000 * each, "times the first": each / spent[texts[0]]}
            for count, each in spent.items()]


def _step(model: DecoderLM, count: int, past: int) -> Callable[[], None]:
    ids = torch.arange(past + 1).expand(count, -1) + 300  # (batch, time)
    cache = model.new_cache(past + 1)
    model(ids[:, :past], cache=cache)

    def step() -> None:
        for layer in cache:
            layer.truncate(past)
        model(ids[:, past:], cache=cache)

    return step


def finished_rows(model: DecoderLM, texts: Sequence[list[int]], seeds: Sequence[int]
                  ) -> dict[str, list[float]]:
    """Tokens a second on eight mixed requests: one by one, static, and a static batch that no
    longer computes the rows of finished texts."""
    ways = {"one": ("one", False), "static": ("static", False),
            "static, finished dropped": ("static", True)}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for seed in seeds:
        for name, (schedule, drop) in ways.items():
            engine = Engine(model, schedule=schedule, prefix_cache=False)
            for request in load(texts, 8, seed):
                engine.submit(request)

            def work(engine: Engine = engine, drop: bool = drop) -> None:
                while not engine.idle:
                    engine._padding = 0 if drop else engine._padding
                    engine.step()

            spent = min(seconds(work, 1, vain=False))
            speeds[name].append(engine.stats.new_tokens / spent)
    return speeds


def longest_wait(model: DecoderLM, texts: Sequence[list[int]], seed: int, chunk: int,
                 comes: bool = True) -> tuple[float, float]:
    """Milliseconds: the longest that writers wait for a token while a long prompt is read, and
    that the long prompt waits for its first token (0 where none `comes`)."""
    engine = Engine(model, chunk=chunk, prefix_cache=False)
    for number in range(WRITERS):
        engine.submit(Request(texts[seed + number][:8], 24))
    for _ in range(5):  # all prompts are read, everyone writes
        engine.step()
    newest = engine.submit(Request(texts[seed + WRITERS][:COMES], 1)) if comes else -1
    longest = waited = spent = 0.0
    while not engine.idle:
        began = time.process_time()
        told = {event.request for event in engine.step()}
        step = 1000 * (time.process_time() - began)
        spent += step
        longest = max(longest, step if told - {newest} else 0.0)
        waited = spent if newest in told else waited
    return longest, waited


def line_ends(tokenizer: BPETokenizer) -> list[int]:
    """The tokens that end a line, or contain its end."""
    special = set(tokenizer.special_tokens.values())
    return [token for token in range(tokenizer.vocab_size)
            if token not in special and b"\n" in tokenizer.token_bytes(token)]


def fitting(model: DecoderLM, requests: Sequence[Request], memory: int, reserve: bool,
            block_size: int = 8) -> tuple[dict[str, float], list[list[int]]]:
    """How many requests run at once in a memory of so many tokens, and what they write.

    With `reserve` a request gets room for all that it may write, and so many run as have that
    room; else blocks as it grows.
    """
    if reserve:
        most = max(len(each.prompt_ids) + each.max_new_tokens for each in requests)
        engine = Engine(model, max_batch=max(memory // most, 1), prefix_cache=False)
    else:
        engine = Engine(model, blocks=memory // block_size, block_size=block_size,
                        max_batch=len(requests), prefix_cache=False)
    numbers = [engine.submit(request) for request in requests]
    written: dict[int, list[int]] = {number: [] for number in numbers}
    running: list[int] = []
    while not engine.idle:
        for event in engine.step():
            if event.token is not None:
                written[event.request].append(event.token)
        if engine.stats.waiting:
            running.append(engine.stats.running)
    stats = engine.stats
    return ({"at once, while others wait": sum(running) / len(running), "steps": stats.steps,
             "gave way": stats.preempted}, list(written.values()))


def prefix_times(model: DecoderLM, texts: Sequence[list[int]], seed: int, shared: bool,
                 prefix_cache: bool) -> tuple[float, int]:
    """Seconds for six prompts of 128 tokens, one for all or one for each, and 8 of their own; and
    how many prompt tokens were read."""
    starts = [texts[seed if shared else seed + number] for number in range(6)]
    asked = [Request(starts[number][:128] + texts[20 + number][:8], 2) for number in range(6)]
    engine = Engine(model, prefix_cache=prefix_cache)
    spent = min(seconds(lambda: engine.run(asked), 1, vain=False))
    return spent, engine.stats.prompt_tokens_read
