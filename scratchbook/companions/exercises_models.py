"""The checks of chapter 05b's exercises: properties first, then the mistakes people make.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import permutations

import torch
from torch import Tensor, nn

from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw
from scratchbook.weights import activations


def _close(got: object, want: Tensor, bound: float = 1e-5) -> bool:
    return (isinstance(got, Tensor) and got.shape == want.shape
            and torch.allclose(got, want, atol=bound))


@exercise
def as_linear(answer: Callable) -> Iterator[Property]:
    """05b.1: a Conv1D's numbers in an nn.Linear."""
    weight, bias, x = draw(6, 10, name="w"), draw(10, name="b"), draw(3, 6, name="x")
    layer = answer(weight, bias)
    sizes = (layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else None
    yield expect(
        "an nn.Linear from 6 to 10 numbers", sizes == (6, 10),
        (sizes == (10, 6), "in and out are exchanged: the file's rows are what comes in"),
        (sizes is None, f"expected an nn.Linear, got {type(layer).__name__}"),
        (True, f"got one of {sizes}"))
    if sizes != (6, 10):
        return
    with torch.no_grad():
        got, want = layer(x), x @ weight + bias
        cut = x @ weight.reshape(10, 6).T
        plain = x @ weight
    yield expect(
        "it computes x @ weight + bias", _close(got, want),
        (_close(got, cut + bias) or _close(got, cut),
         "reshape keeps the order of the numbers; .T exchanges rows and columns"),
        (_close(got, plain), "the bias is missing"),
        (_close(layer.weight.detach(), weight.T),
         "the weight is right, the bias is not the file's"))
    square = draw(8, 8, name="square")
    with torch.no_grad():
        got, x = answer(square, draw(8, name="b8"))(draw(3, 8)), draw(3, 8)
    want = x @ square + draw(8, name="b8")
    yield expect(
        "a square matrix is turned as well", _close(got, want),
        (_close(got, x @ square.T + draw(8, name="b8")),
         "a square matrix fits either way, so its shape says nothing: always turn it"))
    file = draw(5, 3, name="file")
    layer = answer(file, draw(3, name="b3"))
    before = layer.weight.detach().clone()
    file.zero_()
    yield expect("it keeps numbers of its own", torch.equal(layer.weight.detach(), before),
                 (True, "the layer and the file share their memory: training one would change the "
                        "other. Copy the numbers"))
    yield expect("its weight can be trained", layer.weight.requires_grad,
                 (True, "wrap the numbers in nn.Parameter, or copy them into the layer's own"))


@exercise
def split_qkv(answer: Callable) -> Iterator[Property]:
    """05b.2: three projections out of one fused matrix."""
    weight, bias, x = draw(6, 18, name="w"), draw(18, name="b"), draw(4, 6, name="x")
    got = answer(weight, bias)
    pairs = isinstance(got, list | tuple) and len(got) == 3 and all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in got)
    yield expect("three pairs (weight, bias)", pairs, (True, f"got {_described(got)}"))
    if not pairs:
        return
    shapes = [tuple(getattr(w, "shape", ())) for w, _ in got]
    yield expect(
        "each weight is (6, 6)", shapes == [(6, 6)] * 3,
        (shapes == [(2, 18)] * 3, "you cut the rows, which are what comes in: the three results "
                                  "stand side by side in the columns"),
        (True, f"got {shapes}"))
    if shapes != [(6, 6)] * 3:
        return
    yield from _parts_are_right(got, weight, bias, x)


def _parts_are_right(got: list, weight: Tensor, bias: Tensor, x: Tensor) -> Iterator[Property]:
    want = [part.T for part in weight.chunk(3, dim=1)]
    weights = [w for w, _ in got]

    def same(others: list[Tensor]) -> bool:
        return all(_close(a, b) for a, b in zip(weights, others, strict=True))

    yield expect(
        "queries, keys, values, as nn.Linear stores them", same(want),
        (same([w.T for w in want]), "each part stands as in the file, (in, out): turn it"),
        (same([weight[:, part::3].T for part in range(3)]),
         "every third column: the parts are blocks, all queries first"),
        (any(same([want[i] for i in order]) for order in permutations(range(3))),
         "the order is query, key, value"),
        (same(list(weight.reshape(3, 6, 6))) or same([w.T for w in weight.reshape(3, 6, 6)]),
         "a view into (3, d, d) cuts along the rows of the file: cut the columns"))
    biases = [b for _, b in got]
    right = all(_close(b, part) for b, part in zip(biases, bias.chunk(3), strict=True))
    yield expect(
        "each has its own third of the bias", right,
        (all(_close(b, bias) for b in biases), "the bias is still in one piece"),
        (all(_close(b, bias[:6]) for b in biases), "all three got the bias of the queries"))
    if right and same(want):
        joined = torch.cat([x @ w.T + b for w, b in got], dim=-1)
        yield expect("side by side they give the fused product", _close(joined, x @ weight + bias))


def _described(got: object) -> str:
    return f"{len(got)} things" if isinstance(got, list | tuple) else type(got).__name__


LAYERS = 12


def _called() -> list[str]:
    """The modules of the model below in the order in which it calls them."""
    parts = ["attention_norm", "attention.q_proj", "attention.k_proj", "attention.v_proj",
             "attention.o_proj", "feedforward_norm", "feedforward.gate_proj",
             "feedforward.up_proj", "feedforward.down_proj"]
    inner = [f"blocks.{layer}.{part}" for layer in range(LAYERS) for part in parts]
    return ["token_embedding", *inner, "final_norm", "lm_head"]


def _right_model() -> tuple[DecoderLM, Tensor, dict[str, Tensor]]:
    config = ModelConfig(20, max_seq_len=8, num_layers=LAYERS, d_model=8, num_heads=2)
    ids = torch.arange(8)[None]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DecoderLM(config).eval()
        for weight in model.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.4)
        model.lm_head.weight.data *= 1e4  # large numbers: rounding is large there, too
    found = activations(model, lambda: model(ids), _called())
    noise = {name: 2e-7 * out.abs().max() * draw(*out.shape, name=name).clamp(-3, 3)
             for name, out in found.items()}
    return model, ids, {name: out + noise[name] for name, out in found.items()}


def _planted(model: DecoderLM, name: str, change: Callable[[Tensor], Tensor]) -> DecoderLM:
    wrong = copy.deepcopy(model)
    module = wrong.get_submodule(name)
    weight = next(module.parameters())
    weight.data = change(weight.data.clone())
    return wrong


@exercise
def find_wrong_tensor(answer: Callable) -> Iterator[Property]:
    """05b.3: the first module whose output is not the reference's."""
    model, ids, reference = _right_model()
    got = answer(copy.deepcopy(model), ids, reference)
    yield expect(
        "a right model: None", got is None,
        (got == "lm_head", "the scores are in the ten thousands, and so is their rounding: "
                           "compare the gap with the largest entry"),
        (isinstance(got, str), f"{got}: that is rounding, a few parts in ten million"),
        (True, f"got {got!r}"))
    name = "blocks.2.attention.o_proj"
    wrong = _planted(model, name, lambda w: w.T)
    got = answer(wrong, ids, reference)
    yield expect(
        "a turned o_proj in block 2", got == name,
        (got in ("lm_head", "blocks.11.feedforward.down_proj"),
         "you named the last one: what comes after the first divergence differs too"),
        (isinstance(got, str) and got.startswith("blocks.10"),
         "sorted as words, block 10 comes before block 2: keep the order of `reference`"),
        (isinstance(got, str) and got in reference and got != name,
         f"got {got}: the one with the largest gap need not be the first"),
        (True, f"got {got!r}"))
    hooks = sum(len(module._forward_hooks) for module in wrong.modules())
    yield expect("the model has no hooks afterwards", hooks == 0,
                 (True, f"{hooks} are left: each later run pays for them; call remove()"))
    name = "blocks.5.attention_norm"
    got = answer(_planted(model, name, lambda w: w * 1.5), ids, reference)
    yield expect(
        "a wrong gain in block 5", got == name,
        (got == "blocks.5.attention.q_proj",
         "named_modules() lists in the order of definition, where attention comes before its "
         "norm; `reference` lists in the order of calling"),
        (True, f"got {got!r}"))
    name = "blocks.7.feedforward.up_proj"
    got = answer(_planted(model, name, lambda w: w * torch.nan), ids, reference)
    yield expect(
        "a matrix that is NaN", got == name,
        (got is None, "NaN > tolerance is False, as is every comparison with NaN: ask for "
                      "not gap <= tolerance"),
        (True, f"got {got!r}"))
    yield from _gaps_are_measured(answer)


class _Says(nn.Module):
    """A module that gives the same numbers whatever it reads."""

    def __init__(self, numbers: list[float]):
        super().__init__()
        self.numbers = torch.tensor(numbers)

    def forward(self, x: Tensor) -> Tensor:
        return self.numbers


def _gaps_are_measured(answer: Callable) -> Iterator[Property]:
    """Two modules that say known numbers; the first of them is off by a known amount."""
    far, low = [2.0, -1.0, 8.0, -1.0, 3.0, -1.0, 4.0, 0.5], [-2.0, -1.0, -8.0, -3.0]
    for what, want, off, right in (
            ("one entry alone, and lower than it should be", far, [0, -0.5] + 6 * [0], "first"),
            ("eight gaps of 6 parts in 100,000, each small enough", far, 8 * [8 * 6e-5], None),
            ("one gap of 10.5 parts in 100,000", far, [0, 0, 8 * 1.05e-4] + 5 * [0], "first"),
            ("nothing wrong where all entries are negative", low, 4 * [0], None),
            ("nothing wrong where all entries are zero", [0.0, 0.0], [0, 0], None)):
        model = nn.Sequential()
        model.add_module("first", _Says([w + o for w, o in zip(want, off, strict=True)]))
        model.add_module("second", _Says([1.0, 2.0]))
        reference = {"first": torch.tensor(want), "second": torch.tensor([1.0, 2.0])}
        got = answer(model, torch.zeros(1), reference)
        yield expect(what, got == right,
                     (True, f"expected {right!r}, got {got!r}: take the largest absolute gap, and "
                            "hold it against a ten-thousandth of the reference's largest "
                            "absolute entry"))
