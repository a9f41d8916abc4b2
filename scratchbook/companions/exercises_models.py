"""The checks of chapter 05b's exercises: properties first, then the mistakes people make.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator
from itertools import permutations

import torch
from torch import Tensor, nn

from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.teaching.answers import as_list, as_tensor
from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw
from scratchbook.weights import activations


def _close(got: object, want: Tensor, bound: float = 1e-5) -> bool:
    return (isinstance(got, Tensor) and got.shape == want.shape
            and torch.allclose(got.double(), want.double(), atol=bound))


@exercise
def as_linear(answer: Callable) -> Iterator[Property]:
    """05b.1: a Conv1D's numbers in an nn.Linear."""
    weight, bias, x = draw(6, 10, name="w"), draw(10, name="b"), draw(3, 6, name="x")
    layer = answer(weight.clone(), bias.clone())
    sizes = (layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else None
    yield expect(
        "an nn.Linear from 6 to 10 numbers", sizes == (6, 10),
        (sizes == (10, 6), "in and out are exchanged: the file's rows are what comes in"),
        (sizes is None, f"expected an nn.Linear, got {type(layer).__name__}"),
        (True, f"got one of {sizes}"))
    if sizes != (6, 10):
        return
    yield expect("its numbers are float32, as the file's are", layer.weight.dtype == weight.dtype,
                 (True, f"the weight is {layer.weight.dtype}: the layer refuses what x @ weight "
                        "takes"))
    if layer.weight.dtype != weight.dtype:
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
        got, x = answer(square.clone(), draw(8, name="b8"))(draw(3, 8)), draw(3, 8)
    want = x @ square + draw(8, name="b8")
    yield expect(
        "a square matrix is turned as well", _close(got, want),
        (_close(got, x @ square.T + draw(8, name="b8")),
         "a square matrix fits either way, so its shape says nothing: always turn it"))
    yield from _is_a_layer_of_its_own(answer)


def _is_a_layer_of_its_own(answer: Callable) -> Iterator[Property]:
    """Other sizes, numbers apart from the file's, and a layer that computes with them."""
    file, bias, x = draw(5, 3, name="file"), draw(3, name="b3"), draw(2, 5, name="x5")
    weight_then, bias_then = file.clone(), bias.clone()
    layer = answer(file, bias)
    sizes = layer.in_features, layer.out_features
    yield expect("from 5 to 3 numbers", sizes == (5, 3) and layer.weight.shape == (3, 5),
                 (True, f"it says {sizes}: take both sizes from weight.shape"))
    if layer.weight.shape != (3, 5) or layer.bias is None:
        return
    yield expect("the file is left as it was",
                 _close(file, weight_then, 0) and _close(bias, bias_then, 0),
                 (True, "what was given was changed in place: compute new numbers"))
    before = [layer.weight.detach().clone(), layer.bias.detach().clone()]
    file.zero_()
    bias.zero_()
    own = [_close(layer.weight.detach(), before[0], 0), _close(layer.bias.detach(), before[1], 0)]
    yield expect("it keeps numbers of its own", all(own),
                 (own[0], "the layer's bias and the file's share their memory: copy it, too"),
                 (True, "the layer and the file share their memory: training one would change the "
                        "other. Copy the numbers"))
    learns = [layer.weight.requires_grad, layer.bias.requires_grad]
    yield expect("its weight and its bias can be trained", all(learns),
                 (learns[0], "the bias is frozen: requires_grad is False"),
                 (True, "wrap the numbers in nn.Parameter, or copy them into the layer's own"))
    if all(own):
        with torch.no_grad():
            layer.weight.mul_(2)
            layer.bias.mul_(-3)
            got = layer(x)
        yield expect("it computes with its own weight and bias",
                     _close(got, x @ (2 * weight_then) - 3 * bias_then),
                     (True, "changed numbers change nothing, or not as they should: fill "
                            "layer.weight and layer.bias, and leave the layer's forward alone"))


Pairs = list[tuple[Tensor | None, Tensor | None]]


def _pairs(got: object) -> Pairs | None:
    """Three pairs of tensors, from any sequences of any arrays; None when they are no pairs."""
    items = [as_list(item) for item in as_list(got) or []]
    if len(items) != 3 or any(item is None or len(item) != 2 for item in items):
        return None
    return [(as_tensor(w), as_tensor(b)) for w, b in items]


@exercise
def split_qkv(answer: Callable) -> Iterator[Property]:
    """05b.2: three projections out of one fused matrix."""
    weight, bias = draw(6, 18, name="w"), draw(18, name="b")
    answered = answer(weight.clone(), bias.clone())
    got = _pairs(answered)
    yield expect("three pairs (weight, bias)", got is not None,
                 (True, f"got {_described(answered)}"))
    if got is None:
        return
    shapes = [tuple(getattr(w, "shape", ())) for w, _ in got]
    yield expect(
        "each weight is (6, 6)", shapes == [(6, 6)] * 3,
        (shapes == [(2, 18)] * 3, "you cut the rows, which are what comes in: the three results "
                                  "stand side by side in the columns"),
        (True, f"got {shapes}"))
    if shapes != [(6, 6)] * 3:
        return
    right = yield from _parts_are_right(got, weight, bias)
    if right:
        yield from _any_width(answer)


def _parts_are_right(got: Pairs, weight: Tensor, bias: Tensor) -> Generator[Property, None, bool]:
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
         "a view into (3, d, d) cuts along the rows of the file: cut the columns"),
        (same([weights[0], *want[1:]])
         and _close(weights[0] * want[0].norm() / weights[0].norm(), want[0]),
         "the queries are scaled: the attention divides the scores itself"),
        (True, _first_wrong(weights, want)))
    biases, parts = [b for _, b in got], list(bias.chunk(3))

    def has(others: list[Tensor]) -> bool:
        return all(_close(b, part) for b, part in zip(biases, others, strict=True))

    yield expect(
        "each has its own third of the bias", has(parts),
        (any(b is None for b in biases), "a bias is None: the file has one for each"),
        (has([bias] * 3), "the bias is still in one piece"),
        (has([bias[:6]] * 3), "all three got the bias of the queries"),
        (has([bias[part::3] for part in range(3)]),
         "every third number: the bias lies in blocks as well, all queries first"),
        (any(has([parts[i] for i in order]) for order in permutations(range(3))),
         "the biases stand in another order than the weights: query, key, value"),
        (not any(b.any() for b in biases if b is not None), "the biases are all zero"),
        (biases[0] is not None and has([biases[0], *parts[1:]])
         and _close(biases[0] * parts[0].norm() / biases[0].norm(), parts[0]),
         "the queries' bias is scaled: the attention divides the scores itself"),
        (True, "expected bias[:6], bias[6:12] and bias[12:]"))
    return same(want) and has(parts)


def _first_wrong(weights: list[Tensor], want: list[Tensor]) -> str:
    wrong = [name for name, a, b in zip(("queries", "keys", "values"), weights, want, strict=True)
             if not _close(a, b)]
    return f"the {wrong[0]} are not their third of the columns, turned" if wrong else ""


def _any_width(answer: Callable) -> Iterator[Property]:
    """Widths that are not 6: nothing may be written down for one file."""
    for width in (4, 9):
        weight, bias = draw(width, 3 * width, name="w"), draw(3 * width, name="b")
        got = _pairs(answer(weight.clone(), bias.clone())) or []
        want = zip(weight.chunk(3, dim=1), bias.chunk(3), strict=True)
        right = len(got) == 3 and all(_close(w, part.T) and _close(b, third) for (w, b),
                                      (part, third) in zip(got, want, strict=True))
        shapes = [tuple(getattr(w, "shape", ())) for w, _ in got]
        yield expect(f"width {width}", right,
                     (True, f"for a file of {tuple(weight.shape)} the weights are {shapes}, and "
                            "they or their biases are not the file's: the width is "
                            "weight.shape[0]"))


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
    ids = torch.arange(16).reshape(2, 8)
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
    yield from _model_is_left_alone(answer, model, ids, reference)
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
    yield from _looks_everywhere(answer, model, ids, reference)
    yield from _gaps_are_measured(answer)


def _model_is_left_alone(answer: Callable, model: DecoderLM, ids: Tensor,
                         reference: dict[str, Tensor]) -> Iterator[Property]:
    model = copy.deepcopy(model)
    given, seen = copy.deepcopy(model.state_dict()), []
    model.final_norm.register_forward_hook(lambda *_: seen.append(1))
    answer(model, ids, reference)
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks)
                for module in model.modules())
    yield expect("the model has no new hooks afterwards", hooks == 1,
                 (hooks < 1, "a hook that was there before is gone: remove only your own"),
                 (True, f"{hooks - 1} are left: each later run pays for them; call remove()"))
    yield expect("it is still in evaluation mode", not any(m.training for m in model.modules()),
                 (True, "you left train() on: with dropout the next run would give other numbers"))
    yield expect("its weights are as they were",
                 all(torch.equal(now, given[name]) for name, now in model.state_dict().items()),
                 (True, "the model's weights were changed: only look at what it gives"))


def _looks_everywhere(answer: Callable, model: DecoderLM, ids: Tensor,
                      reference: dict[str, Tensor]) -> Iterator[Property]:
    """The first module and the last; one position of one text."""
    def with_row(weight: Tensor) -> Tensor:
        weight[ids[1, 1]] *= 1.5
        return weight

    got = answer(_planted(model, "token_embedding", with_row), ids, reference)
    yield expect("one wrong vector, read at one position of the second text",
                 got == "token_embedding",
                 (True, f"got {got!r}: compare all positions of all texts, not the first or last"))
    got = answer(_planted(model, "lm_head", lambda w: w * 1.5), ids, reference)
    yield expect("a wrong last module", got == "lm_head",
                 (got is None, "lm_head is in `reference` as well: do not stop before the last"),
                 (True, f"got {got!r}"))


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
            ("an entry that is inf", far, [0, 0, torch.inf] + 5 * [0], "first"),
            ("a small reference, off by a thousandth of it", [4e-5, -1e-5], [0, 4e-8], "first"),
            ("a small reference, off by rounding", [4e-5, -1e-5], [0, 4e-10], None),
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
