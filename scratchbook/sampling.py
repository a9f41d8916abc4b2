"""Other ways to choose the next token: many texts at once, a price on repeating, a fast guesser.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from scratchbook.generation import as_lists, check_ids, eval_mode

Model = Callable[[Tensor], Tensor]  # ids (batch, time) -> logits (batch, time, vocab)


def penalise_repeats(logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Make every token that the text already has less likely.

    Positive scores are divided by the penalty and negative ones multiplied with it.

    Shapes:   logits (batch, vocab), ids (batch, time) -> (batch, vocab)
    Raises:   ValueError when the penalty is not above 0, or an id has no score
    Paper:    Keskar et al. (2019), arXiv:1909.05858, section 4.1
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    if not penalty > 0:
        raise ValueError(f"penalty={penalty} must be above 0; 1 changes nothing")
    check_ids(ids.unique().tolist(), logits.shape[-1])
    seen = logits.gather(-1, ids)  # (batch, time)
    return logits.scatter(-1, ids, torch.where(seen < 0, seen * penalty, seen / penalty))


@torch.no_grad()
def beam_search(model: Model, prompt_ids: Sequence[int], max_new_tokens: int, beams: int = 4,
                stop_ids: Collection[int] = (), length_penalty: float = 1.0
                ) -> list[tuple[float, list[int]]]:
    """Keep the `beams` likeliest texts at every step; returns (score, new ids), best first.

    The score is the sum of log-probabilities over length ** `length_penalty`: with 0, short
    texts win. One beam is greedy. Each step reads the whole text again, without a cache.

    Raises:   ValueError for an empty prompt, fewer than one beam, an id outside the vocabulary,
              or a text too long for the model
    Paper:    Wu et al. (2016), arXiv:1609.08144, section 7
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    prompt = _one_prompt(prompt_ids, max_new_tokens, model)
    if beams < 1:
        raise ValueError(f"beams={beams} for this prompt: it must be at least 1")
    start = len(prompt)
    ids, sums = torch.tensor([prompt]), torch.zeros(1)
    done: list[tuple[float, list[int]]] = []
    for length in range(1, max_new_tokens + 1):
        logprobs = _scores(model, ids, -1)[:, 0].log_softmax(-1)  # (alive, vocab)
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

    Raises:   ValueError for an empty prompt, no guesses, a temperature that is not above 0, an id
              outside a vocabulary, two vocabularies, or a text too long for one of the models
    Paper:    Leviathan et al. (2023), arXiv:2211.17192, section 2.3
    Chapter:  chapters/06c_evaluation_and_sampling.ipynb
    """
    prompt = _one_prompt(prompt_ids, max_new_tokens, target, draft)
    if guesses < 1 or not temperature > 0:
        raise ValueError(f"guesses={guesses}, temperature={temperature} for this prompt: each must "
                         "be above 0")
    ids, end, reads = torch.tensor([prompt]), len(prompt) + max_new_tokens, 0
    while ids.shape[1] < end:
        past, q = ids.shape[1], []
        for _ in range(min(guesses, end - past)):
            q.append((_scores(draft, ids, -1)[0, 0] / temperature).softmax(-1))
            ids = torch.cat([ids, torch.multinomial(q[-1], 1, generator=generator)[None]], dim=1)
        p = (_scores(target, ids, past - 1)[0] / temperature).softmax(-1)  # (guesses + 1, vocab)
        reads += 1
        kept, token = _check(p, q, ids[0, past:], generator)
        ids = torch.cat([ids[:, : past + kept], token[None]], dim=1)[:, :end]
    return ids[0, len(prompt):].tolist(), reads


def _one_prompt(prompt_ids: Sequence[int], max_new_tokens: int, *models: Model) -> list[int]:
    """The prompt as a list, once every model that says its sizes can read and continue it."""
    prompts, single = as_lists(prompt_ids)
    if not single or not prompts[0]:
        raise ValueError(f"this takes one prompt of at least one id, not {prompt_ids!r:.80}")
    configs = [model.config for model in models if hasattr(model, "config")]
    if len(sizes := {config.vocab_size for config in configs}) > 1:
        raise ValueError(f"a guess at this prompt needs one vocabulary, not those of {sizes} ids")
    for config in configs:
        check_ids(prompts[0], config.vocab_size)
    room = min((config.max_seq_len for config in configs), default=math.inf)
    if max_new_tokens < 0 or len(prompts[0]) + max_new_tokens > room:
        raise ValueError(f"a prompt of {len(prompts[0])} and max_new_tokens={max_new_tokens} do "
                         f"not fit into max_seq_len={room}")
    return prompts[0]


def _scores(model: Model, ids: Tensor, start: int) -> Tensor:
    """The model's scores from position `start` on, in eval mode and on its device, for the CPU.

    Shapes:   ids (batch, time) -> (batch, positions, vocab), float32
    """
    weight = next(model.parameters(), ids) if isinstance(model, nn.Module) else ids
    with eval_mode(model):
        return model(ids.to(weight.device))[:, start:].float().cpu()


def _check(p: Tensor, q: list[Tensor], guessed: Tensor, generator: torch.Generator | None
           ) -> tuple[int, Tensor]:
    """How many guesses are kept, and the token that follows them."""
    for place, token in enumerate(guessed.tolist()):
        if torch.rand((), generator=generator) * q[place][token] > p[place, token]:
            left = (p[place] - q[place]).clamp_min(0)
            left = left if left.any() else p[place]  # they differed by rounding alone
            return place, torch.multinomial(left, 1, generator=generator)
    return len(guessed), torch.multinomial(p[-1], 1, generator=generator)
