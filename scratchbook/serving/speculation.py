"""Speculative decoding with caches: a small model guesses ahead, the large one checks in one pass.

A pass of the large model over five tokens costs little more than one over a single token where
reading its weights is the limit. `sampling.speculate` teaches the rule and reads the whole text
at every step; here both models keep what they have read, and forget what was refused.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scratchbook.cache import KVCache
from scratchbook.generation import check_ids, eval_mode, keep_top_k, keep_top_p
from scratchbook.model import DecoderLM


@dataclass(frozen=True)
class Speculation:
    """What was written, how many guesses were made and kept, and how often the target read."""

    new_ids: list[int]
    guessed: int
    kept: int
    reads: int


class _Reader:
    """A model, what it has read so far, and the probabilities that it gives."""

    def __init__(self, model: DecoderLM, room: int, temperature: float, top_k: int | None,
                 top_p: float | None):
        self.model, self.temperature = model, temperature
        self.top_k, self.top_p = top_k, top_p
        # not model.new_cache: what a window's cache let go of cannot be taken back
        self.caches = [KVCache(room) for _ in model.blocks]

    def read(self, ids: list[int]) -> Tensor:
        """Read on to the end of `ids`; the probabilities after each new token, (new, vocab)."""
        device = self.model.token_embedding.weight.device
        unread = torch.tensor([ids[self.caches[0].length :]], device=device)
        logits = self.model(unread, cache=self.caches)[0].float().cpu()
        if self.temperature == 0:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        logits = logits / self.temperature
        logits = logits if self.top_k is None else keep_top_k(logits, self.top_k)
        logits = logits if self.top_p is None else keep_top_p(logits, self.top_p)
        return logits.softmax(-1)

    def forget(self, length: int) -> None:
        """Keep at most the first `length` tokens."""
        for cache in self.caches:
            cache.truncate(min(length, cache.length))


@torch.no_grad()
def speculate_cached(
    target: DecoderLM, draft: DecoderLM, prompt_ids: Sequence[int], max_new_tokens: int,
    guesses: int = 4, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None, stop_ids: Collection[int] = (),
    generator: torch.Generator | None = None,
) -> Speculation:
    """Continue one prompt with tokens that have exactly the target's distribution.

    The draft proposes up to `guesses` tokens, each drawn from its own q. The target reads them in
    one pass, which gives its p after each. A guess is kept with probability min(1, p / q); the
    first that is not is replaced by a draw from what is left, max(p - q, 0), and when all are
    kept a further token comes free. At temperature 0 that is the target's greedy text. A stop
    id that was met is part of the result.

    Raises:   ValueError for an empty prompt, no guesses, an id outside the vocabulary, two
              vocabularies, a text too long for one of the models, or an option out of its range
    Paper:    Leviathan et al. (2023), arXiv:2211.17192, section 2.3
    Chapter:  chapters/07b_inference_engine.ipynb
    """
    ids, start = list(prompt_ids), len(prompt_ids)
    end = start + max_new_tokens
    _check([target, draft], ids, max_new_tokens, guesses, temperature)
    large, small = (_Reader(model, max(end, 1), temperature, top_k, top_p)
                    for model in (target, draft))
    guessed = kept = reads = 0
    with eval_mode(target, draft):
        while len(ids) < end and not (len(ids) > start and ids[-1] in stop_ids):
            past, q = len(ids), []
            for _ in range(min(guesses, end - past - 1)):  # the target adds one token of its own
                q.append(small.read(ids)[-1])
                ids.append(int(torch.multinomial(q[-1], 1, generator=generator)))
            p = large.read(ids)[-len(q) - 1 :]  # (guesses + 1, vocab)
            good, token = _checked(p, q, ids[past:], generator)
            ids = [*ids[: past + good], token]
            guessed, kept, reads = guessed + len(q), kept + good, reads + 1
            for reader in (large, small):
                reader.forget(past + good)  # keys of refused guesses must not be looked at
            ids = _up_to_stop(ids, past, stop_ids)
    return Speculation(ids[start:], guessed, kept, reads)


def _checked(p: Tensor, q: list[Tensor], guesses: list[int], generator: torch.Generator | None
             ) -> tuple[int, int]:
    """How many guesses are kept, and the token that follows them."""
    for place, token in enumerate(guesses):
        # strictly less: what the target gives no chance is never kept
        if torch.rand((), generator=generator) * q[place][token] < p[place, token]:
            continue
        left = (p[place] - q[place]).clamp_min(0)
        left = left if left.any() else p[place]  # they differed by rounding alone
        return place, int(torch.multinomial(left, 1, generator=generator))
    return len(guesses), int(torch.multinomial(p[-1], 1, generator=generator))


def _up_to_stop(ids: list[int], start: int, stop_ids: Collection[int]) -> list[int]:
    for place in range(start, len(ids)):
        if ids[place] in stop_ids:
            return ids[: place + 1]
    return ids


def _check(models: list[DecoderLM], ids: list[int], max_new_tokens: int, guesses: int,
           temperature: float) -> None:
    if not ids:
        raise ValueError("the prompt is empty: give at least one id, such as the end-of-text token")
    if guesses < 1 or not 0 <= temperature < float("inf") or max_new_tokens < 0:
        raise ValueError(f"guesses={guesses} must be at least 1, temperature={temperature} and "
                         f"max_new_tokens={max_new_tokens} not negative")
    sizes = [model.config.vocab_size for model in models]
    if len(set(sizes)) > 1:
        raise ValueError(f"target and draft need one vocabulary, not {sizes[0]} and {sizes[1]} ids")
    check_ids(ids, sizes[0])
    room = min(model.config.max_seq_len for model in models)
    if len(ids) + max_new_tokens > room:
        raise ValueError(f"a prompt of {len(ids)} and {max_new_tokens} new tokens do not fit into "
                         f"max_seq_len={room} of both models; ask for fewer")
