"""What chapter 07b times: reading, decoding, guessing. The clock is the processor's, one thread.

    python -m scratchbook.companions.inference_bench

records what guessing ahead costs and brings.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from scratchbook.base_model import END, base_documents, load_base
from scratchbook.cache import KVCache
from scratchbook.companions.inference_schedules import held_out_ids
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator
from scratchbook.serving.speculation import Speculation, speculate_cached
from scratchbook.smalltalk_model import load_smalltalk
from scratchbook.teaching.results import record
from scratchbook.tokenizers import BPETokenizer

COMMAND = "python -m scratchbook.companions.inference_bench"
TEXTS, PROMPT, NEW, GUESSES = 16, 48, 32, (1, 2, 4)
ROUNDS = 4  # of which the fastest counts


def seconds(call: Callable[[], object], repeats: int = 5, vain: bool = True) -> list[float]:
    """Processor time of a call, `repeats` times, after one in vain."""
    if vain:
        call()
    found = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return found


@torch.no_grad()
def smalltalk_seconds(tokens: int, repeats: int = 9) -> list[float]:
    """Processor time in which chapter 09's model reads so many tokens at once."""
    small, _ = load_smalltalk()
    return seconds(lambda: small(torch.arange(tokens)[None] + 300), repeats)


@torch.no_grad()
def machine_speed(size_bytes: int = 24_000_000) -> tuple[float, float]:
    """(bytes read a second, operations a second): a matrix as large as the model, by one vector
    and by 256 of them."""
    width = 1024
    matrix = torch.ones(size_bytes // (4 * width), width)
    vector, many = torch.ones(width, 1), torch.ones(width, 256)
    return (matrix.nbytes / min(seconds(lambda: matrix @ vector)),
            2 * matrix.numel() * 256 / min(seconds(lambda: matrix @ many, 3)))


@torch.no_grad()
def overhead(model: DecoderLM) -> float:
    """Seconds for one token of a model with as many layers and next to no weights."""
    with torch.random.fork_rng(devices=[]):
        empty = DecoderLM(model.config.with_(d_model=16, num_heads=2, num_kv_heads=None,
                                             head_dim=None, d_ff=16, vocab_size=16)).eval()
    ids = torch.ones(1, 1, dtype=torch.long)
    return min(seconds(lambda: empty(ids), 30))


@torch.no_grad()
def reading_rows(model: DecoderLM, sizes: Sequence[int], predict: Callable[[int], float]
                 ) -> list[dict[str, float]]:
    """Milliseconds to read a prompt at once and one by one, and what `predict(tokens)` says."""
    rows = []
    for size in sizes:
        ids = torch.arange(size)[None] + 300

        def one_by_one(ids: Tensor = ids) -> None:
            cache = model.new_cache(ids.shape[1])
            for place in range(ids.shape[1]):
                model(ids[:, place : place + 1], cache=cache)

        rows.append({
            "tokens": size,
            "at once": 1000 * min(seconds(lambda ids=ids: model(ids), 3 if size > 16 else 20)),
            "at once, predicted": 1000 * predict(size),
            "one by one": 1000 * min(seconds(one_by_one, 1)),
            "one by one, predicted": 1000 * size * predict(1)})
    return rows


@torch.no_grad()
def cache_rows(model: DecoderLM, pasts: Sequence[int]) -> list[dict[str, float]]:
    """Tokens a second behind a past of so many tokens, with a cache and without."""
    rows = []
    for past in pasts:
        ids = torch.arange(past + 1)[None] + 300
        cache = model.new_cache(past + 1)
        model(ids[:, :-1], cache=cache)

        def cached(ids: Tensor = ids, cache: list = cache, past: int = past) -> None:
            for layer in cache:
                layer.truncate(past)
            model(ids[:, -1:], cache=cache)

        rows.append({"past": past, "with cache": 1 / min(seconds(cached)),
                     "without": 1 / min(seconds(lambda ids=ids: model(ids), 3))})
    return rows


def break_even(rows: Sequence[dict[str, float]]) -> int | None:
    """The past from which on the cache is faster at every measured length."""
    slower = [number for number, row in enumerate(rows) if row["with cache"] <= row["without"]]
    first = slower[-1] + 1 if slower else 0
    return rows[first]["past"] if first < len(rows) else None


class PairTable:
    """A guesser without weights: which token followed which in a text, as log-frequencies.

    It reads like a model with a cache, though all that it needs of the past is the last token.

    Shapes:   ids (batch, time) -> (batch, time, vocab)
    """

    def __init__(self, ids: Sequence[int], vocab_size: int, max_seq_len: int = 1024):
        counts = torch.full((vocab_size, vocab_size), 1e-3)
        pairs = torch.tensor(ids[:-1]) * vocab_size + torch.tensor(ids[1:])
        counts.view(-1).index_add_(0, pairs, torch.ones(len(pairs)))
        self.logits = (counts / counts.sum(1, keepdim=True)).log_()
        self.config = SimpleNamespace(vocab_size=vocab_size, max_seq_len=max_seq_len)
        self.token_embedding, self.blocks = SimpleNamespace(weight=self.logits), [None]

    def __call__(self, ids: Tensor, cache: list[KVCache]) -> Tensor:
        for layer in cache:
            layer.length += ids.shape[1]
        return self.logits[ids]

    def new_cache(self, max_seq_len: int) -> list[KVCache]:
        """Nothing is kept in it but how much was read."""
        return [KVCache(max_seq_len)]


def pair_table(tokenizer: BPETokenizer, characters: int = 3_000_000) -> PairTable:
    """Counted on the beginning of what the base model was trained on."""
    trained, _ = base_documents()
    ids: list[int] = []
    for document in trained:
        if characters <= 0:
            break
        characters -= len(document.text)
        ids += [*tokenizer.encode_ordinary(document.text), tokenizer.special_tokens[END]]
    return PairTable(ids, tokenizer.vocab_size)


def first_layers(model: DecoderLM, count: int) -> DecoderLM:
    """A model of the first blocks of another, with its embedding and its last norm."""
    with torch.random.fork_rng(devices=[]):
        small = DecoderLM(model.config.with_(num_layers=count))
    small.load_state_dict({k: v for k, v in model.state_dict().items() if k in small.state_dict()})
    return small.eval()


@torch.no_grad()
def step_cost(reader: Any, tokens: int, past: int = PROMPT) -> float:
    """Seconds to read `tokens` more behind a past, to choose from what it says included."""
    cache = reader.new_cache(past + tokens)
    ids = torch.arange(past + tokens)[None] + 300
    reader(ids[:, :past], cache=cache)

    def step() -> None:
        for layer in cache:
            layer.truncate(past)
        torch.multinomial(reader(ids[:, past:], cache=cache)[0].softmax(-1), 1)

    return min(seconds(step, 60))


def tokens_per_pass(kept: float, guesses: int) -> float:
    """Tokens that one pass of the target gives when each guess is kept with this probability.

    Paper:    Leviathan et al. (2023), arXiv:2211.17192, equation 1
    """
    return sum(kept**place for place in range(guesses + 1))


def predicted_speedup(kept: float, guesses: int, draft_cost: float, pass_cost: float) -> float:
    """How many times faster than the target alone, whose step costs 1.

    `draft_cost` is a guess, `pass_cost` a pass of the target over the guesses and one token more.

    Paper:    Leviathan et al. (2023), arXiv:2211.17192, theorem 3.8, whose pass costs 1
    """
    return tokens_per_pass(kept, guesses) / (guesses * draft_cost + pass_cost)


def speculation_rows(model: DecoderLM, drafts: dict[str, Any], prompts: Sequence[list[int]]
                     ) -> list[dict[str, Any]]:
    """For each draft and number of guesses the speed that its costs predict, and the measured one.

    What share of single guesses is kept is measured on the first third of the prompts, the speed
    on the others. "tokens a pass" and "a pass" (in plain steps) split the speed in two, so that
    one sees which half of a prediction was wrong.
    """
    known, rows = len(prompts) // 3, []
    for name, draft in drafts.items():
        single = [_guess(model, draft, ids, 1) for ids in prompts[:known]]
        kept = sum(each.kept for each in single) / sum(each.guessed for each in single)
        for guesses in GUESSES:
            timed = [_side_by_side(model, draft, ids, guesses) for ids in prompts[known:]]
            one = step_cost(model, 1)  # just before the others: a machine's speed drifts
            cost, check = step_cost(draft, 1) / one, step_cost(model, guesses + 1) / one
            speeds = [plain / spent for plain, spent, _ in timed]
            passes = sum(reads for _, _, reads in timed)
            step = sum(plain for plain, _, _ in timed) / (NEW * len(timed))
            rows.append({"draft": name, "guesses": guesses, "kept": kept, "draft cost": cost,
                         "pass cost": check, "tokens a pass, predicted":
                         tokens_per_pass(kept, guesses), "tokens a pass": NEW * len(timed) / passes,
                         "a pass, predicted": guesses * cost + check,
                         "a pass": sum(spent for _, spent, _ in timed) / passes / step,
                         "predicted": predicted_speedup(kept, guesses, cost, check),
                         "measured": sum(speeds) / len(speeds), "speeds": speeds})
    return rows


def _guess(model: DecoderLM, draft: Any, ids: list[int], guesses: int) -> Speculation:
    return speculate_cached(model, draft, ids, NEW, guesses,
                            generator=named_generator(0, f"guess {guesses} {ids}"))


def _side_by_side(model: DecoderLM, draft: Any, ids: list[int], guesses: int
                  ) -> tuple[float, float, int]:
    """Seconds to write without and with guesses, in turns, and how often the model read."""
    plain, spent = math.inf, math.inf
    for _ in range(ROUNDS):
        plain = min(plain, *seconds(lambda: generate(model, ids, NEW, seed=0), 1, vain=False))
        spent = min(spent, *seconds(lambda: _guess(model, draft, ids, guesses), 1, vain=False))
    return plain, spent, _guess(model, draft, ids, guesses).reads


def main() -> None:
    """Time three ways of guessing and record."""
    torch.set_num_threads(1)
    model, tokenizer = load_base()
    prompts = [ids[20 : 20 + PROMPT] for ids in held_out_ids(tokenizer)[:TEXTS]]
    drafts = {"table of pairs": pair_table(tokenizer),
              "first of six layers": first_layers(model, 1), "the model itself": model}
    numbers = {"rows": speculation_rows(model, drafts, prompts), "texts": TEXTS - TEXTS // 3,
               "new_tokens": NEW}
    record("07b_inference_engine.speculation", numbers, seeds=[0], command=COMMAND)


if __name__ == "__main__":
    main()
