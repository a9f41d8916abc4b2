"""Writing under a rule: at each step only tokens may be drawn that the rule allows.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from scratchbook.generation import choose, eval_mode
from scratchbook.model import DecoderLM

Rule = Callable[[list[int], int], bool]
Choices = Callable[[list[int]], torch.Tensor]


@torch.no_grad()
def generate_within(
    model: DecoderLM, prompt_ids: Sequence[int], max_new_tokens: int, allowed: Rule,
    temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
    stop_ids: Collection[int] = (), seed: int | None = None, max_tries: int = 200,
    choices: Choices | None = None,
) -> tuple[list[int], int]:
    """Continue one prompt with tokens that `allowed(new_ids, token_id)` lets pass.

    A token is drawn, and if the rule refuses it, hidden and drawn again among the others: this
    samples from the model's distribution restricted to what is allowed at each step, and asks the
    rule only about tokens that were drawn. It is not the distribution over allowed *texts*: a step
    that leads where little is allowed is as likely as before. Ends at a stop id (which the rule
    must allow), at `max_new_tokens`, or when `max_tries` tokens in a row were refused. Where the
    few ids that may come are known before, `choices(new_ids)` names them: all others are hidden
    without a draw.

    Returns:  the new ids, and how many draws the rule refused
    Raises:   ValueError as `choose` does
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    device = model.token_embedding.weight.device
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    cache = model.new_cache(len(prompt_ids) + max_new_tokens)
    ids, new, refused = torch.tensor([list(prompt_ids)], device=device), [], 0
    with eval_mode(model):
        while len(new) < max_new_tokens:
            logits = model(ids, cache=cache)[:, -1]  # (1, vocab)
            if choices is not None:
                logits = _only(logits, choices(new))
            for _ in range(max_tries):
                token = int(choose(logits, temperature, top_k, top_p, None, generator))
                if allowed(new, token):
                    break
                logits[0, token] = -torch.inf
                refused += 1
                if not logits.isfinite().any():
                    return new, refused
            else:
                return new, refused
            new.append(token)
            if token in stop_ids:
                break
            ids = torch.tensor([[token]], device=device)
    return new, refused


def _only(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The scores of these ids, all others -inf."""
    hidden = torch.full_like(logits, -torch.inf)
    hidden[:, ids] = logits[:, ids]
    return hidden
