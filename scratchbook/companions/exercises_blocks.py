"""The checks of chapter 05's exercises: properties first, then the mistakes people make.

Chapter:  chapters/05_blocks.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.attention import MultiHeadAttention
from scratchbook.blocks import Block
from scratchbook.feedforward import GatedFeedForward
from scratchbook.norms import RMSNorm
from scratchbook.teaching.answers import as_tensor, counterexample
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw


def _close(got: object, want: Tensor, bound: float = 1e-5) -> bool:
    return (isinstance(got, Tensor) and got.shape == want.shape
            and torch.allclose(got.to(want.dtype), want, atol=bound))


def _number(got: object) -> float | None:
    """A tensor's or a plain number's value; None when it is neither."""
    if isinstance(got, Tensor) and got.numel() == 1:
        return got.detach().item()
    return float(got) if isinstance(got, float | int) else None


@exercise
def swiglu(answer: Callable) -> Iterator[Property]:
    """05.1: a gated part from three matrices."""
    x, d_model, d_ff = draw(2, 5, 6), 6, 10
    gate, up = draw(2, d_ff, d_model, name="in")
    down = draw(d_model, d_ff, name="out")
    answer = _in_tensors(answer)
    got = answer(x, gate, up, down)
    shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
    yield expect(
        "the result has the shape of x", shape == (2, 5, 6),
        (shape == (2, 5, 10), "this is the hidden vector, d_ff wide: `down` narrows it again"),
        (True, f"expected (2, 5, 6), got {shape}"))
    if shape != (2, 5, 6):
        return
    wide, opened = x @ up.T, x @ gate.T
    yield expect(
        "equal to the package's GatedFeedForward", _close(got, (F.silu(opened) * wide) @ down.T),
        (_close(got, (opened * F.silu(wide)) @ down.T),
         "the bend is on the wrong one: silu belongs to the gate, `up` passes as it is"),
        (_close(got, (opened.sigmoid() * wide) @ down.T),
         "sigmoid makes it GLU; in SwiGLU the gate is silu, x times its sigmoid"),
        (_close(got, (F.gelu(opened) * wide) @ down.T), "gelu makes it GEGLU; SwiGLU has silu"),
        (_close(got, (F.silu(opened) + wide) @ down.T),
         "the gate multiplies what passes, it is not added"),
        (_close(got, F.silu(opened * wide) @ down.T),
         "the product was bent: bend the gate first, then multiply"),
        (_close(got, F.silu(opened) @ down.T), "`up` takes no part"),
        (_close(got, (F.silu(opened) * F.silu(wide)) @ down.T), "only the gate is bent"),
        (_close(got, (opened.relu() * wide) @ down.T), "relu makes it ReGLU; SwiGLU has silu"),
        (_close(got, (F.silu(opened) * wide) @ down.T + x),
         "x was added: that is the block's business, not this part's"),
        (True, f"largest difference {(got - (F.silu(opened) * wide) @ down.T).abs().max():.3g}"))
    closed = answer(x, torch.zeros_like(gate), up, down)
    yield expect("a gate of zeros lets nothing pass", _close(closed, torch.zeros_like(x)))
    square = [draw(6, 6, name=f"square {number}") for number in range(3)]
    for what, rows in (("square matrices, and one vector alone", x[0, 0]),
                       ("square matrices, and four axes", x[None]),
                       ("numbers of a hundred", 100 * x)):
        differs = counterexample(answer, _swiglu, [(rows, *square)], 1e-4)
        turned = answer(rows, *(matrix.T for matrix in square)) if differs else None
        yield expect(what, not differs,
                     (_close(turned, _swiglu(rows, *square), 1e-3), "square matrices fit either "
                      "way, so their shape says nothing: always turn them"),
                     (turned is not None and bool(turned.isnan().any()),
                      "exp of a large number is inf, and inf / inf is NaN: F.silu knows how"),
                     (True, differs))


def _swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def _in_tensors(answer: Callable) -> Callable:
    """The same answer, its numbers as a float32 tensor, whether from an array or in float64."""
    def call(*arguments: Tensor) -> object:
        got = answer(*arguments)
        numbers = as_tensor(got)
        return got if numbers is None else numbers.float()
    return call


@exercise
def count_block(answer: Callable) -> Iterator[Property]:
    """05.2: the parameters of one block, without building it."""
    for sizes in ((24, 6, 3, 40), (8, 2, 2, 12), (48, 6, 1, 128), (4096, 32, 8, 14_336)):
        d_model, num_heads, num_kv_heads, d_ff = sizes
        with torch.device("meta"):
            block = Block(MultiHeadAttention(d_model, num_heads, num_kv_heads),
                          GatedFeedForward(d_model, d_ff), RMSNorm(d_model), RMSNorm(d_model))
        want = sum(p.numel() for p in block.parameters())
        got = answer(*sizes)
        square, shared = d_model * d_model, d_model * d_model // num_heads * num_kv_heads
        feed = d_model * d_ff
        yield expect(
            f"d_model {d_model}, {num_heads} heads over {num_kv_heads}, d_ff {d_ff}: {want:,}",
            got == want,
            (got == 4 * square + 3 * feed + 2 * d_model and shared != square,
             "keys and values were counted for every query head: there are num_kv_heads"),
            (got == 2 * square + 2 * shared + 2 * feed + 2 * d_model,
             "a gated part has three matrices: gate, up and down"),
            (got == 2 * square + 2 * shared + 3 * feed,
             "the two norms are missing: each has a gain of d_model numbers"),
            (got == 2 * square + 2 * shared + 3 * feed + 4 * d_model,
             "an RMSNorm has a gain and no shift"),
            (got == want - d_model, "there are two norms, each with a gain"),
            (got == want - shared, "keys and values have a matrix each"),
            (got == 2 * square + 2 * square // num_heads + 3 * feed + 2 * d_model,
             "one head of keys and values was counted: there are num_kv_heads"),
            (got == want + 3 * d_model + 2 * shared // d_model + 2 * d_ff,
             "the matrices have no biases"),
            (got == square + 2 * shared + 3 * feed + 2 * d_model,
             "o_proj is missing: it joins the heads"),
            (isinstance(got, float), "a count is a whole number: use // where you divide"),
            (True, f"got {got:,}" if isinstance(got, int) else f"got {got!r}"))
        if got != want:
            return


class _Pair(nn.Module):
    """The two ends of a language model, as the exercise about tying gets them."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(11, 6)
        self.lm_head = nn.Linear(6, 11, bias=False)
        self.token_embedding.weight.data = draw(11, 6, name="embedding")
        self.lm_head.weight.data = draw(11, 6, name="head")

    def forward(self, ids: Tensor) -> Tensor:
        return self.lm_head(self.token_embedding(ids))


@exercise
def set_tied(answer: Callable) -> Iterator[Property]:
    """05.3: one matrix at both ends, or two."""
    model = _Pair()
    table = model.token_embedding.weight
    before = model.token_embedding.weight.detach().clone()
    answer(model, True)
    first, last = model.token_embedding.weight, model.lm_head.weight
    count = sum(p.numel() for p in model.parameters())
    yield expect(
        "tied: 66 parameters instead of 132", count == 66,
        (first.data_ptr() == last.data_ptr(),
         "the numbers share their memory, but there are two Parameters: an optimizer moves them "
         "twice. Assign the Parameter itself: model.lm_head.weight = ..."),
        (torch.equal(first, last), "equal numbers, twice: after one training step they differ"),
        (True, f"there are {count}"))
    if count != 66:
        return
    yield expect("the embedding's values are the ones that stay", _close(first, before),
                 (_close(first, draw(11, 6, name="head")),
                  "the head's values won: what was learned about reading is lost"),
                 (True, "these are neither the embedding's values nor the head's"))
    yield expect("it is the embedding's own Parameter", first is table,
                 (True, "there is a new Parameter at both ends, and an optimizer holds the old "
                        "one: give the head the embedding's"))
    answer(model, True)
    yield expect("tied again: nothing changes", model.lm_head.weight is table
                 and model.token_embedding.weight is table,
                 (True, "asked twice to tie, it unties: do what `tied` says"))
    model(torch.tensor([3])).square().sum().backward()
    rows = (first.grad.abs().sum(-1) > 0).sum().item()
    yield expect("the gradient arrives from both ends", rows == 11,
                 (True, f"{rows} of 11 rows have a gradient: the head's are missing"))
    answer(model, False)
    first, last = model.token_embedding.weight, model.lm_head.weight
    yield expect("untied: two matrices that start equal", first is not last and _close(last, first),
                 (first is last, "they are still one: give the head a Parameter of its own"),
                 (True, "the head forgot what the tied matrix had learned: start from a clone"))
    yield expect("untied: the embedding keeps its Parameter, both can be trained",
                 first is table and first.requires_grad and last.requires_grad,
                 (first is not table, "the embedding got the new one: it is the head that leaves"),
                 (True, "one of the two is frozen: requires_grad"))
    with torch.no_grad():
        last += 1
    yield expect("untied: moving one leaves the other", _close(first, before),
                 (True, "both moved: they share their memory, clone() is missing"))


@exercise
def balance_loss(answer: Callable) -> Iterator[Property]:
    """05.4: what keeps a router from having favourites."""
    even, choices = torch.full((8, 4), 0.25), (torch.arange(8) % 4)[:, None]
    got = answer(even, choices)
    value = _number(got)
    yield expect(
        "1 when choices and probabilities are even", value is not None and abs(value - 1) < 1e-5,
        (value is not None and abs(value - 0.25) < 1e-5,
         "multiply by the number of experts, so that even is 1 for any number of them"),
        (value is None, f"expected one number, got {type(got).__name__}"),
        (True, f"got {value}"))
    if value is None:
        return
    sure = F.one_hot(torch.zeros(8, dtype=torch.long), 4).float()
    value = _number(answer(sure, torch.zeros(8, 1, dtype=torch.long)))
    yield expect(
        "4 when one of four experts takes all", value is not None and abs(value - 4) < 1e-5,
        (value is not None and abs(value - 1) < 1e-5,
         "it is 1 here as well: the load must take part, not the probabilities alone, which "
         "always sum to one"),
        (True, f"got {value}"))
    value = _number(answer(even, torch.zeros(8, 1, dtype=torch.long)))
    yield expect("1 when all go to one expert but the router is even",
                 value is not None and abs(value - 1) < 1e-5,
                 (value is not None and abs(value - 4) < 1e-5,
                  "the experts that nobody chose are missing from the load: minlength"),
                 (True, f"got {value}"))
    yield from _balance_of_random_choices(answer)


def _balance_of_random_choices(answer: Callable) -> Iterator[Property]:
    """Choices that are not the likeliest, as noise or a bias makes them."""
    for tokens, experts, k in ((8, 4, 2), (10, 6, 3)):
        probs = draw(tokens, experts).softmax(-1).requires_grad_()
        chosen = draw(tokens, experts, name="chosen").topk(k, dim=-1).indices
        load = F.one_hot(chosen, experts).float().mean((0, 1))
        first = F.one_hot(chosen[:, 0], experts).float().mean(0)
        likeliest = F.one_hot(probs.topk(k, dim=-1).indices, experts).float().mean((0, 1))
        mean = probs.mean(0)
        want, got = experts * (load * mean).sum(), answer(probs, chosen.clone())
        yield expect(
            f"{tokens} tokens, {k} of {experts} experts for each: every choice counts alike",
            _close(got, want.detach()),
            (_close(got, k * want.detach()), "divide the counts by all choices, not by the tokens, "
                                             "or more choices look like less balance"),
            (_close(got, experts * (likeliest * mean).sum().detach()),
             "`chosen` takes no part: the load was taken from the likeliest experts, but noise or "
             "a bias may choose others"),
            (_close(got, experts * (first * mean).sum().detach()),
             "only the first choice of each token was counted: flatten `chosen`"),
            (_close(got, experts * load.square().sum()),
             "the load was squared: it needs the mean probability as its partner"),
            (_close(got, experts * mean.square().sum().detach()),
             "the mean probability was squared: it needs the load as its partner"),
            (experts != 4 and _close(got, 4 * (load * mean).sum().detach()),
             "multiplied by 4: here there are six experts"),
            (tokens != 8 and _close(got, tokens / 8 * want.detach()),
             "divided by 8 tokens: here there are ten"),
            (True, f"expected {want.item():.4f}, got {_number(got)}"))
        if not _close(got, want.detach()):
            return
    has_gradient = isinstance(got, Tensor) and got.requires_grad
    yield expect("the router gets a gradient", has_gradient,
                 (True, "counting has no gradient: the mean of `probs` must be in it, undetached"))
    if has_gradient:
        got.backward()
        yield expect("each expert's is in proportion to its load",
                     _close(probs.grad, (experts * load / tokens).expand(tokens, experts)),
                     (True, "it reaches `probs` by another way than the mean probability"))
