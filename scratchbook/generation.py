"""Writing with a model: one token at a time, each chosen from what the model thinks likely.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from operator import index

import torch
from torch import Tensor, nn

from scratchbook.attention import padding_mask
from scratchbook.model import DecoderLM


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Leave the `top_k` largest of each row, and whatever ties with the last of them.

    Shapes:   logits (..., vocab) -> (..., vocab), the others -inf
    Raises:   ValueError for a number below 1
    Paper:    Fan et al. (2018), arXiv:1805.04833, section 5.1
    Chapter:  chapters/05b_models_and_weights.ipynb
    """
    if top_k < 1:
        raise ValueError(f"top_k={top_k} must keep at least one token")
    last = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < last, -torch.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Leave the likeliest tokens of each row that together reach the probability `top_p`.

    Shapes:   logits (..., vocab) -> (..., vocab), the others -inf
    Raises:   ValueError when top_p is not within 0..1, zero excluded
    Paper:    Holtzman et al. (2019), arXiv:1904.09751, section 3.1
    Chapter:  chapters/05b_models_and_weights.ipynb
    """
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} is not within 0..1, zero excluded")
    ordered, order = logits.sort(dim=-1)  # rising: the tail comes first
    tail = ordered.softmax(dim=-1).cumsum(dim=-1)  # of each token and all below it
    drop = tail <= 1 - top_p
    drop[..., -1] = False  # the likeliest always stays
    return logits.masked_fill(drop.scatter(-1, order, drop), -torch.inf)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Leave the tokens of each row at least `min_p` times as likely as the likeliest.

    Shapes:   logits (..., vocab) -> (..., vocab), the others -inf
    Raises:   ValueError when min_p is not within 0..1
    Paper:    Nguyen et al. (2024), arXiv:2407.01082, section 3
    Chapter:  chapters/05b_models_and_weights.ipynb
    """
    if not 0 <= min_p <= 1:
        raise ValueError(f"min_p={min_p} is not within 0..1")
    probs = logits.softmax(dim=-1)
    return logits.masked_fill(probs < min_p * probs.amax(-1, keepdim=True), -torch.inf)


def choose(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None, min_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pick a token for each row; temperature 0 takes the likeliest.

    Shapes:   logits (batch, vocab) -> (batch,)
    Raises:   ValueError for a temperature that is negative or endless, a filter out of its
              range, or scores with nothing to choose: NaN, infinite, or all hidden
    Chapter:  chapters/05b_models_and_weights.ipynb
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature={temperature} must be a number from 0 up, not negative")
    if not logits.amax(dim=-1).isfinite().all():  # the largest of a row with NaN is NaN
        raise ValueError("a row of scores is NaN, infinite or all -inf: nothing can be chosen; "
                         "look where the model first gives NaN")
    if temperature < 1e-30:  # dividing by less than this overflows
        return logits.argmax(dim=-1)
    logits = logits.float() / temperature
    for keep, value in ((keep_top_k, top_k), (keep_top_p, top_p), (keep_min_p, min_p)):
        logits = logits if value is None else keep(logits, value)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]


@torch.no_grad()
def stream(
    model: DecoderLM, prompt_ids: Sequence[int] | Sequence[Sequence[int]] | Tensor,
    max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None, min_p: float | None = None, stop_ids: Collection[int] = (),
    seed: int | None = None, cache: bool = True,
) -> Iterator[Tensor]:
    """Yield the next token of every sequence, step by step, as soon as it is chosen.

    `prompt_ids` is one list of ids or several of different lengths; short ones are padded on
    the left, so that all continue at the same column. A sequence that has met one of
    `stop_ids` repeats it; the stream ends when all have. Without `cache` each step computes
    the whole text again.

    Shapes:   yields (batch,)
    Raises:   ValueError for an empty prompt, an id outside the vocabulary, a text that would
              not fit into the model's max_seq_len, or an option out of its range
    Chapter:  chapters/05b_models_and_weights.ipynb
    """
    prompts, _ = as_lists(prompt_ids)
    _check(model, prompts, max_new_tokens)
    device = model.token_embedding.weight.device
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    ids, lengths = _pad_left(prompts, device)
    caches = model.new_cache(ids.shape[1] + max_new_tokens) if cache else None
    stops = torch.tensor(sorted(stop_ids), dtype=torch.long, device=device)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    with eval_mode(model):
        for _ in range(max_new_tokens):
            logits = _next_logits(model, ids, lengths, caches)
            chosen = choose(logits, temperature, top_k, top_p, min_p, generator)
            chosen = torch.where(done, ids[:, -1], chosen)
            yield chosen
            ids, lengths = torch.cat([ids, chosen[:, None]], dim=1), lengths + 1
            done = done | torch.isin(chosen, stops)
            if done.all():
                return


@contextmanager
def eval_mode(*models: object) -> Iterator[None]:
    """Within the block the models are in eval mode; then every module has its own mode back."""
    modules = [m for model in models if isinstance(model, nn.Module) for m in model.modules()]
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def generate(
    model: DecoderLM, prompt_ids: Sequence[int] | Sequence[Sequence[int]] | Tensor,
    max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None, min_p: float | None = None, stop_ids: Collection[int] = (),
    seed: int | None = None, cache: bool = True,
) -> list[int] | list[list[int]]:
    """Continue a prompt, or several, and return the new ids of each, up to its stop id.

    The options are those of `stream`. A stop id that was met is part of the result.

    Raises:   ValueError as `stream` does
    Chapter:  chapters/05b_models_and_weights.ipynb
    """
    prompts, single = as_lists(prompt_ids)
    steps = list(stream(model, prompts, max_new_tokens, temperature, top_k, top_p, min_p,
                        stop_ids, seed, cache))
    rows = torch.stack(steps, dim=1).tolist() if steps else [[] for _ in prompts]
    texts = [_up_to_stop(row, stop_ids) for row in rows]
    return texts[0] if single else texts


def _next_logits(model: DecoderLM, ids: Tensor, lengths: Tensor, caches: list | None) -> Tensor:
    """The scores of the next token of each row; with caches only the new columns are read."""
    past = caches[0].length if caches else 0
    ragged = bool((lengths != ids.shape[1]).any())
    mask = padding_mask(lengths, ids.shape[1], side="left") if ragged else None
    # a row's first real token stands at position 0, however much padding is before it
    start = (ids.shape[1] - lengths)[:, None] if ragged else 0
    positions = torch.arange(past, ids.shape[1], device=ids.device) - start
    positions = positions.clamp_min(0) if ragged else positions
    return model(ids[:, past:], cache=caches, mask=mask, positions=positions)[:, -1]


def as_lists(prompt_ids: Sequence | Tensor) -> tuple[list[list[int]], bool]:
    """Every prompt as a list of ids, and whether it was one prompt and no list of them."""
    given = prompt_ids.tolist() if hasattr(prompt_ids, "tolist") else prompt_ids
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise ValueError(f"a prompt is a list of token ids, not {given!r:.40}: encode the text")
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in given]
    single = not any(isinstance(row, Sequence) for row in rows)
    rows = [rows] if single else rows
    try:
        return [list(map(index, row)) for row in rows], single
    except TypeError:
        raise ValueError(f"ids must be whole numbers, one list for each prompt, not {given!r:.80}"
                         ) from None


def _check(model: DecoderLM, prompts: list[list[int]], max_new_tokens: int) -> None:
    if not prompts or not all(prompts):
        raise ValueError("a prompt is empty: give at least one id, such as the end-of-text token")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} must not be negative")
    for prompt in prompts:
        check_ids(prompt, model.config.vocab_size)
    longest, room = max(map(len, prompts)), model.config.max_seq_len
    if longest + max_new_tokens > room:
        raise ValueError(f"a prompt of {longest} and {max_new_tokens} new tokens do not fit into "
                         f"max_seq_len={room}; ask for fewer, or keep the end of the prompt")


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Refuse ids that a model with this vocabulary does not know.

    Raises:   ValueError naming the first of them and the size
    """
    for token_id in ids:
        if not 0 <= token_id < vocab_size:
            raise ValueError(f"id {token_id} is outside the vocabulary, 0 to {vocab_size - 1}: is "
                             "this another model's tokenizer?")


def _pad_left(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(map(len, prompts))
    rows = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
    lengths = [len(prompt) for prompt in prompts]
    return torch.tensor(rows, device=device), torch.tensor(lengths, device=device)


def _up_to_stop(row: list[int], stop_ids: Collection[int]) -> list[int]:
    for place, token_id in enumerate(row):
        if token_id in stop_ids:
            return row[: place + 1]
    return row
