"""Other ways to choose the next token: many texts at once, a price on repeating, a fast guesser.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

Model = Callable[[Tensor], Tensor]  # ids (batch, time) -> logits (batch, time, vocab)


def penalise_repeats(logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Make every token that the text already has less likely.

    Positive scores are divided by the penalty and negative ones multiplied with it.

    Shapes:   logits (batch, vocab), ids (batch, time) -> (batch, vocab)
    Raises:   ValueError when the penalty is not above 0
    Paper:    Keskar et al. (2019), arXiv:1909.05858, section 4.1
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if not penalty > 0:
        raise ValueError(f"penalty={penalty} must be above 0; 1 changes nothing")
    seen = logits.gather(-1, ids)  # (batch, time)
    return logits.scatter(-1, ids, torch.where(seen < 0, seen * penalty, seen / penalty))


@torch.no_grad()
def beam_search(model: Model, prompt_ids: Sequence[int], max_new_tokens: int, beams: int = 4,
                stop_ids: Collection[int] = (), length_penalty: float = 1.0
                ) -> list[tuple[float, list[int]]]:
    """Keep the `beams` likeliest texts at every step; returns (score, new ids), best first.

    The score is the sum of log-probabilities over length ** `length_penalty`: with 0, short
    texts win. One beam is greedy. Each step reads the whole text again, without a cache.

    Raises:   ValueError for an empty prompt, fewer than one beam, or a text too long for the model
    Paper:    Wu et al. (2016), arXiv:1609.08144, section 7
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if beams < 1 or not len(prompt_ids):
        raise ValueError(f"beams={beams} and a prompt of {len(prompt_ids)} ids: both must be at "
                         "least 1")
    _check_room(model, prompt_ids, max_new_tokens)
    start = len(prompt_ids)
    ids, sums = torch.tensor([list(prompt_ids)]), torch.zeros(1)
    done: list[tuple[float, list[int]]] = []
    for length in range(1, max_new_tokens + 1):
        logprobs = model(ids)[:, -1].float().log_softmax(-1)  # (alive, vocab)
        sums, flat = (sums[:, None] + logprobs).flatten().topk(
            min(2 * beams, logprobs.numel()))
        parents, tokens = flat // logprobs.shape[-1], flat % logprobs.shape[-1]
        ids = torch.cat([ids[parents], tokens[:, None]], dim=1)
        stopped = torch.tensor([int(token) in stop_ids for token in tokens])
        stopped[beams:] &= False
        done += [(total / length**length_penalty, row[start:])
                 for total, row in zip(sums[stopped].tolist(), ids[stopped].tolist(), strict=True)]
        alive = torch.tensor([int(token) not in stop_ids for token in tokens])
        ids, sums = ids[alive][:beams], sums[alive][:beams]
        if len(done) >= beams or not len(ids):
            break
    else:
        done += [(total / max(max_new_tokens, 1)**length_penalty, row[start:])
                 for total, row in zip(sums.tolist(), ids.tolist(), strict=True)]
    return sorted(done, key=lambda pair: -pair[0])[:beams]


@torch.no_grad()
def speculate(target: Model, draft: Model, prompt_ids: Sequence[int], max_new_tokens: int,
              guesses: int = 4, temperature: float = 1.0,
              generator: torch.Generator | None = None) -> tuple[list[int], int]:
    """Let a small model guess ahead and a large one check; returns new ids and how often it read.

    A guess is kept with probability min(1, p / q); at the first one that is not, the token is
    drawn from what is left, max(p - q, 0). The result has exactly the target's distribution.

    Raises:   ValueError for an empty prompt, no guesses, a temperature that is not above 0, or a
              text too long for one of the models
    Paper:    Leviathan et al. (2023), arXiv:2211.17192, section 2.3
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if not len(prompt_ids) or guesses < 1 or not temperature > 0:
        raise ValueError(f"a prompt of {len(prompt_ids)} ids, guesses={guesses}, temperature="
                         f"{temperature}: each must be above 0")
    for model in (target, draft):
        _check_room(model, prompt_ids, max_new_tokens)
    ids, end, reads = torch.tensor([list(prompt_ids)]), len(prompt_ids) + max_new_tokens, 0
    while ids.shape[1] < end:
        past, q = ids.shape[1], []
        for _ in range(min(guesses, end - past)):
            q.append((draft(ids)[0, -1].float() / temperature).softmax(-1))
            ids = torch.cat([ids, torch.multinomial(q[-1], 1, generator=generator)[None]], dim=1)
        p = (target(ids)[0, past - 1 :].float() / temperature).softmax(-1)  # (guesses + 1, vocab)
        reads += 1
        kept, token = _check(p, q, ids[0, past:], generator)
        ids = torch.cat([ids[:, : past + kept], token[None]], dim=1)[:, :end]
    return ids[0, len(prompt_ids):].tolist(), reads


def _check_room(model: Model, prompt_ids: Sequence[int], max_new_tokens: int) -> None:
    room = model.config.max_seq_len if hasattr(model, "config") else math.inf
    if max_new_tokens < 0 or len(prompt_ids) + max_new_tokens > room:
        raise ValueError(f"a prompt of {len(prompt_ids)} and max_new_tokens={max_new_tokens} do "
                         f"not fit into max_seq_len={room}")


def _check(p: Tensor, q: list[Tensor], guessed: Tensor, generator: torch.Generator | None
           ) -> tuple[int, Tensor]:
    """How many guesses are kept, and the token that follows them."""
    for place, token in enumerate(guessed.tolist()):
        if torch.rand((), generator=generator) * q[place][token] > p[place, token]:
            left = (p[place] - q[place]).clamp_min(0)
            left = left if left.any() else p[place]  # they differed by rounding alone
            return place, torch.multinomial(left, 1, generator=generator)
    return len(guessed), torch.multinomial(p[-1], 1, generator=generator)
