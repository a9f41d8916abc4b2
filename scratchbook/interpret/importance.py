"""Which tokens mattered for one prediction: six measures that need not agree.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import torch
from torch import Tensor

from scratchbook.interpret.capture import capture
from scratchbook.interpret.flow import rollout, value_weighted
from scratchbook.model import DecoderLM

MEASURES = ("attention", "value-weighted", "rollout", "gradient", "gradient x input", "ablation")


def importance(model: DecoderLM, ids: Tensor, target: int | None = None) -> dict[str, Tensor]:
    """How much each token of a text mattered for what stands behind its end, by six measures.

    attention         the weight that the last position gives it, averaged over layers and heads
    value-weighted    the same of weight times length of the transformed value
    rollout           what of it has reached the last position, all layers multiplied
    gradient          the length of the log-probability's slope at the token's embedding
    gradient x input  the size of that slope along the embedding itself
    ablation          how far the log-probability falls when nobody may look at the token

    The first three come from the maps; the gradients ask what a small change would do; only the
    last takes the token away and measures. `target` is the id whose probability is asked for, by
    default the model's most likely next token.

    The last token itself is left out: its own vector stays in the stream whatever is hidden.

    Shapes:   ids (time,) -> measures of (time - 1,)
    Raises:   ValueError for fewer than two tokens
    Paper:    Jain and Wallace (2019), arXiv:1902.10186, section 4
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    if ids.dim() != 1 or len(ids) < 2:
        raise ValueError(f"ids has shape {tuple(ids.shape)}: give one text of two tokens or more")
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), capture(model, keep=("attention", "values")) as seen:
            logits = model(ids[None])[0, -1]
        target = int(logits.argmax()) if target is None else target
        maps = seen.stacked()[:, 0]  # (layers, heads, time, time)
        brought = torch.stack([value_weighted(seen, layer)[0] for layer in sorted(seen.attention)])
        slope, embedded = embedding_slope(model, ids, target)
        found = {"attention": maps[:, :, -1].mean((0, 1)),
                 "value-weighted": brought[:, :, -1].mean((0, 1)),
                 "rollout": rollout(maps)[-1, -1],
                 "gradient": slope.norm(dim=-1),
                 "gradient x input": (slope * embedded).sum(-1).abs()}
        cut = {name: each[:-1].cpu() for name, each in found.items()}
        return cut | {"ablation": leave_one_out(model, ids, target)}
    finally:
        model.train(training)


def embedding_slope(model: DecoderLM, ids: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """The slope of log p(target) at each embedding, and the embedding: both (time, d_model).

    Their product, summed, is to first order the change if that embedding were scaled up. A norm
    hides the scale of what it reads: in a model of one layer, whose attention reads normed vectors
    alone, that product is nothing but the norm's epsilon for all tokens but the last.

    Paper:    Shrikumar et al. (2016), arXiv:1605.01713, for the product
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    caught: list[Tensor] = []

    def hook(module: torch.nn.Module, args: tuple, output: Tensor) -> Tensor:
        caught.append(output.detach().requires_grad_())
        return caught[0]

    handle = model.token_embedding.register_forward_hook(hook)
    try:
        with torch.enable_grad():
            logprob = model(ids[None])[0, -1].float().log_softmax(-1)[target]
            (slope,) = torch.autograd.grad(logprob, caught[0])
    finally:
        handle.remove()
    return slope[0].float(), caught[0].detach()[0].float()


@torch.no_grad()
def leave_one_out(model: DecoderLM, ids: Tensor, target: int, chunk: int = 64) -> Tensor:
    """How far log p(target) falls when one token is hidden from all the others: (time - 1,).

    The token is hidden in every layer and from every query, and the places of the others stay.
    Negative where the prediction is better without it.

    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    time = len(ids)
    mask = ~torch.eye(time, dtype=torch.bool, device=ids.device)[:-1, None, None]
    whole = _logprob(model, ids[None], None, target)
    hidden = [_logprob(model, ids.expand(len(part), -1), part, target)
              for part in mask.split(chunk)]
    return (whole - torch.cat(hidden)).cpu()


def _logprob(model: DecoderLM, ids: Tensor, mask: Tensor | None, target: int) -> Tensor:
    return model(ids, mask=mask)[:, -1].float().log_softmax(-1)[:, target]
