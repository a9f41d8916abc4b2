"""Beyond one map: through all layers, with the values weighed in, and what a layer would say.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scratchbook.attention.shared_heads import for_every_head
from scratchbook.interpret.capture import Seen


def rollout(attention: Tensor, stays: float = 0.5) -> Tensor:
    """How much of each input is left at each position after each layer, if attention alone mixed.

    Heads are averaged. A share `stays` of every vector goes past the attention on the residual
    stream, the rest is mixed; layers multiply. Values, norms and feed-forward parts do not count:
    it is a bound on what could flow, not what did.

    Shapes:   attention (layers, heads, time, time) -> (layers, time, time), rows sum to 1
    Raises:   ValueError for another shape, rows that are no distributions, stays outside 0..1
    Paper:    Abnar and Zuidema (2020), arXiv:2005.00928, section 3
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    if attention.dim() != 4 or attention.shape[2] != attention.shape[3]:
        raise ValueError(f"attention has shape {tuple(attention.shape)}, expected (layers, heads, "
                         "time, time): one text, without a cache")
    if not 0 <= stays <= 1:
        raise ValueError(f"stays={stays} is a share, within 0..1")
    off = (attention.sum(-1) - 1).abs().max().item()
    if not off < 1e-2:
        raise ValueError(f"a row of the attention sums to 1 only within {off:.3f}: give all the "
                         "weights of each query")
    mixed = attention.mean(1)  # (layers, time, time)
    own = torch.eye(attention.shape[-1], dtype=mixed.dtype, device=mixed.device)
    reached, found = own, []
    for layer in stays * own + (1 - stays) * mixed:
        reached = layer @ reached
        found.append(reached)
    return torch.stack(found)


@torch.no_grad()
def value_weighted(seen: Seen, layer: int) -> Tensor:
    """The length of what each token really brings to each other: weight times transformed value.

    A head adds to the stream the sum over j of weight[i, j] * f(x_j), where f is the value
    projection followed by the head's slice of the output projection. A large weight on a token
    whose f is short brings next to nothing.

    Shapes:   -> (batch, heads, time, keys), not negative; rows do not sum to 1
    Raises:   ValueError when attention or values of the layer were not captured
    Paper:    Kobayashi et al. (2020), arXiv:2004.10102, equation 6
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    return seen.attention[_captured(seen, layer)] * value_lengths(seen, layer)[:, :, None]


@torch.no_grad()
def value_lengths(seen: Seen, layer: int) -> Tensor:
    """The length of f(x_j), what each token has to offer, for every head: (batch, heads, keys).

    Raises:   ValueError when attention or values of the layer were not captured
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    heads = seen.attention[_captured(seen, layer)].shape[1]
    values = for_every_head(seen.values[layer], heads)  # (batch, heads, keys, value_dim)
    project = _output_projection(seen.modules[layer])
    batch, _, keys, width = values.shape
    empty = values.new_zeros(1, 1, heads * width).to(_dtype(project))
    constant = project(empty)  # its bias, which no token brings
    lengths = []
    for head in range(heads):
        alone = empty.repeat(batch, keys, 1)
        alone[..., head * width : (head + 1) * width] = values[:, head]
        lengths.append((project(alone) - constant).float().norm(dim=-1))  # (batch, keys)
    return torch.stack(lengths, dim=1)


@torch.no_grad()
def logit_lens(model: nn.Module, residuals: Mapping[int, Tensor]) -> Tensor:
    """What the model would say if it stopped before each layer: the head read on every stream.

    The last row, the stream behind the last layer, is the model's own answer. The head was only
    trained to read that one: a layer may hold what its lens does not show.

    Shapes:   residuals[level] (batch, time, d_model) -> logits (levels, batch, time, vocab)
    Raises:   ValueError for a model without a final norm and a head that are known
    Source:   nostalgebraist (2020), "interpreting GPT: the logit lens"
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    norm, head = _reader(model)
    dtype = _dtype(norm, _dtype(head))
    levels = [head(norm(residuals[level].to(dtype))).float() for level in sorted(residuals)]
    if not levels:
        raise ValueError("no residuals: capture(model, keep=('residuals',)) keeps them")
    return torch.stack(levels)


def _captured(seen: Seen, layer: int) -> int:
    if layer not in seen.attention or layer not in seen.values:
        raise ValueError(f"layer {layer} has no attention and values: run the model within "
                         "capture(model, keep=('attention', 'values'))")
    return layer


def _output_projection(attention: nn.Module) -> nn.Module:
    return attention.o_proj if hasattr(attention, "o_proj") else attention.c_proj  # GPT-2's name


def _dtype(module: nn.Module, default: torch.dtype = torch.float32) -> torch.dtype:
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), default)


def _reader(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The final norm and the head: of this course, or of transformers' GPT-2 and Llama."""
    for path in ("final_norm", "transformer.ln_f", "model.norm"):
        try:
            return model.get_submodule(path), model.get_submodule("lm_head")
        except AttributeError:
            continue
    raise ValueError(f"{type(model).__name__} has no final norm and lm_head that are known: the "
                     "lens reads DecoderLM, and GPT-2 and Llama of transformers")
