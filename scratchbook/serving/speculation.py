"""Guessing ahead with caches: each model reads a token once, and forgets what was refused.

`sampling.speculate` has the same rule and reads everything again at each step, which shows what is
computed but not what it costs.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scratchbook.generation import check_ids, eval_mode
from scratchbook.model import DecoderLM

Guesser = DecoderLM | Callable[[Tensor], Tensor]  # or ids (batch, time) -> (batch, time, vocab)


@dataclass
class Speculated:
    """What was written, and how: passes of the target, guesses offered and guesses kept.

    A guess counts as offered when all before it were kept, so that `kept / offered` is the chance
    of one guess alone.

    Chapter:  chapters/07b_inference_engine.ipynb
    """

    new_ids: list[int]
    passes: int = 0
    offered: int = 0
    kept: int = 0


class _Reader:
    """A model with what it has read so far."""

    def __init__(self, model: Guesser, room: int):
        self.model = model
        self.caches = model.new_cache(room) if isinstance(model, DecoderLM) else None

    def scores(self, ids: list[int], start: int) -> Tensor:
        """What follows each position from `start` on; what is unread before them is read too.

        Shapes:   -> (len(ids) - start, vocab), float32
        """
        past = self.caches[0].length if self.caches else 0
        given = torch.tensor([ids[past:]])
        logits = self.model(given, cache=self.caches) if self.caches else self.model(given)
        return logits[0, start - past :].float()

    def forget(self, length: int) -> None:
        """Forget everything from position `length` on."""
        for cache in self.caches or ():
            if cache.length > length:
                cache.truncate(length)


@torch.no_grad()
def speculate_cached(target: DecoderLM, draft: Guesser, prompt_ids: Sequence[int],
                     max_new_tokens: int, guesses: int = 4, temperature: float = 1.0,
                     generator: torch.Generator | None = None) -> Speculated:
    """Let `draft` guess ahead and `target` check all guesses in one pass; one text on the CPU.

    A guess is kept with probability min(1, p / q), and at the first that is not, the token is
    drawn from max(p - q, 0): the text has exactly the target's distribution. At temperature 0 a
    guess is kept when it is the target's likeliest.

    Raises:   ValueError for an empty prompt, no guesses, a negative temperature, an id outside
              the vocabulary, two vocabularies, or a text that does not fit
    Paper:    Leviathan et al. (2023), arXiv:2211.17192, section 2.3
    Chapter:  chapters/07b_inference_engine.ipynb
    """
    _check_request(target, draft, prompt_ids, max_new_tokens, guesses, temperature)
    ids, end, done = list(prompt_ids), len(prompt_ids) + max_new_tokens, Speculated([])
    readers = [_Reader(model, end + guesses) for model in (draft, target)]
    models = [model for model in (draft, target) if isinstance(model, DecoderLM)]
    with eval_mode(*models):
        while len(ids) < end:
            past, q = len(ids), []
            for _ in range(min(guesses, end - past)):
                q.append(_probs(readers[0].scores(ids, len(ids) - 1)[0], temperature))
                ids.append(int(torch.multinomial(q[-1], 1, generator=generator)))
            p = _probs(readers[1].scores(ids, past - 1), temperature)  # (guesses + 1, vocab)
            kept, token = judge(p, q, ids[past:], generator)
            done.passes, done.kept = done.passes + 1, done.kept + kept
            done.offered += min(kept + 1, len(q))
            ids = [*ids[: past + kept], token]
            for reader in readers:
                reader.forget(past + kept)
    done.new_ids = ids[len(prompt_ids) : end]
    return done


def judge(p: Tensor, q: Sequence[Tensor], guessed: Sequence[int],
          generator: torch.Generator | None = None) -> tuple[int, int]:
    """How many guesses are kept, and the token that comes behind them.

    Shapes:   p (guesses + 1, vocab), each of q (vocab,)
    Paper:    Leviathan et al. (2023), arXiv:2211.17192, algorithm 1
    Chapter:  chapters/07b_inference_engine.ipynb
    """
    for place, token in enumerate(guessed):
        if torch.rand((), generator=generator) * q[place][token] > p[place, token]:
            left = (p[place] - q[place]).clamp_min(0)
            left = left if left.any() else p[place]  # they differed by rounding alone
            return place, int(torch.multinomial(left, 1, generator=generator))
    return len(guessed), int(torch.multinomial(p[-1], 1, generator=generator))


def tokens_per_pass(kept: float, guesses: int) -> float:
    """Tokens that one pass of the target gives when each guess is kept with this probability.

    Raises:   ValueError for a probability outside 0..1
    Paper:    Leviathan et al. (2023), arXiv:2211.17192, equation 1
    Chapter:  chapters/07b_inference_engine.ipynb
    """
    if not 0 <= kept <= 1:
        raise ValueError(f"kept={kept} is no probability")
    return sum(kept**place for place in range(guesses + 1))


def predicted_speedup(kept: float, guesses: int, draft_cost: float, pass_cost: float) -> float:
    """How many times faster than the target alone, whose step costs 1.

    `draft_cost` is a guess, `pass_cost` a pass of the target over the guesses and one token more.

    Paper:    Leviathan et al. (2023), arXiv:2211.17192, theorem 3.8, whose pass costs 1
    Chapter:  chapters/07b_inference_engine.ipynb
    """
    return tokens_per_pass(kept, guesses) / (guesses * draft_cost + pass_cost)


def _probs(logits: Tensor, temperature: float) -> Tensor:
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    return (logits / temperature).softmax(-1)


def _check_request(target: DecoderLM, draft: Guesser, prompt_ids: Sequence[int],
                   max_new_tokens: int, guesses: int, temperature: float) -> None:
    configs = [model.config for model in (target, draft) if isinstance(model, DecoderLM)]
    if not prompt_ids or max_new_tokens < 0 or guesses < 1 or not temperature >= 0:
        raise ValueError(f"a prompt of {len(prompt_ids)} ids, max_new_tokens={max_new_tokens}, "
                         f"guesses={guesses}, temperature={temperature}: one id and one guess at "
                         "least, and nothing negative")
    if len(sizes := {config.vocab_size for config in configs}) > 1:
        raise ValueError(f"vocabularies of {sorted(sizes)} ids: target and draft need the same")
    for config in configs:
        check_ids(prompt_ids, config.vocab_size)
    needed = len(prompt_ids) + max_new_tokens
    if needed > (room := min(config.max_seq_len for config in configs)):
        raise ValueError(f"a prompt of {len(prompt_ids)} and {max_new_tokens} new tokens do not "
                         f"fit into max_seq_len={room}: ask for fewer")
