"""The checks of chapter 06d's exercises: properties first, then the mistakes people make.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw


def unless(passed: bool, what: str, *mistakes: tuple[bool, str]) -> Iterator[Property]:
    """A property that is told only when it fails: what few get wrong."""
    if not passed:
        yield expect(what, False, *mistakes)


class _Stopped(BaseException):
    """What a key press raises: no Exception."""


class _Small(nn.Module):
    """Two linear layers, the first used twice, and a bend that writes over what it is given."""

    def __init__(self, breaks: type[BaseException] | None = None):
        super().__init__()
        self.first, self.bend, self.last = nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)
        self.breaks = breaks
        for name, parameter in self.named_parameters():
            parameter.data.copy_(draw(*parameter.shape, name=name))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bend(self.first(x))
        x = self.bend(self.first(x))
        if self.breaks:
            raise self.breaks("the model itself failed")
        return self.last(x)


def _left(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# 06d.1 --------------------------------------------------------------------------------------


@exercise
def watch(answer: Callable) -> Iterator[Property]:
    """06d.1: what every layer of a kind returned, by hooks that leave no trace."""
    model, x = _Small(), draw(2, 4, name="x")
    everywhere = set(torch_module._global_forward_hooks)
    inner = model.first(x)
    second = model.first(inner.relu())
    wanted = [inner.detach(), second.detach(), model(x).detach()]
    plain = model(x)
    got = answer(model, nn.Linear, x)
    pair = isinstance(got, tuple | list) and len(got) == 2
    yield expect("it returns two things: the model's answer, and a list", pair,
                 (True, f"it returned a {type(got).__name__}"))
    if not pair:
        return
    result, seen = got
    yield expect("the model's answer is what it is without hooks",
                 isinstance(result, Tensor) and torch.equal(result, plain),
                 (not isinstance(result, Tensor), "the first of the two is not the model's answer"),
                 (True, "the answer has changed: a hook that returns something puts it in the "
                        "place of the output"))
    yield expect("no hook is left on the model", _left(model) == 0,
                 (True, f"{_left(model)} hooks are still there, and the next call will run them: "
                        "keep what register_forward_hook returns, and call its remove()"))
    sizes = [tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__
             for each in seen]
    yield expect("one entry for every call: the first layer ran twice, the last one once",
                 sizes == [(2, 4), (2, 4), (2, 3)],
                 (len(seen) == 2, "a layer that runs twice is there once: append, do not assign"),
                 (len(seen) > 3, "other kinds of modules are in the list"),
                 (not seen, "the list is empty: was the model called while the hooks were there?"),
                 (True, f"the shapes are {sizes}"))
    if sizes != [(2, 4), (2, 4), (2, 3)]:
        return
    equal = [torch.allclose(a, b) for a, b in zip(seen, wanted, strict=True)]
    yield expect("the outputs in the order of the calls", all(equal),
                 (torch.allclose(seen[0], inner.relu()), "the first output has lost its negative "
                  "numbers: the next layer wrote over it, so keep a copy (clone)"),
                 (torch.allclose(seen[0], x), "these are the inputs, not the outputs"),
                 (True, f"entry {equal.index(False) if False in equal else 0} differs"))
    yield expect("the copies carry no gradient, the answer does",
                 not any(each.requires_grad for each in seen) and result.requires_grad,
                 (not result.requires_grad, "the answer has lost its gradient: detach the copies "
                                            "alone"),
                 (True, "what is kept still holds the whole computation in memory: detach it"))
    reached = (not result.requires_grad  # told already
               or torch.autograd.grad(result.sum(), model.first.weight, allow_unused=True)[0])
    yield from unless(
        reached is not None, "the answer is that of this model",
        (True, "its gradient does not reach the model's weights: was a copy of the model run?"))
    yield from _when_it_fails(answer, x)
    yield from _other_kinds(answer, x)
    yield from _other_traces(answer, x, everywhere)


def _when_it_fails(answer: Callable, x: Tensor) -> Iterator[Property]:
    model, raised = _Small(KeyError), None
    try:
        answer(model, nn.Linear, x)
    except KeyError as error:
        raised = error
    yield expect("an error of the model reaches the caller", raised is not None,
                 (True, "it was swallowed, and the caller believes that all went well"))
    yield expect("and still no hook is left", _left(model) == 0,
                 (True, "when the model raises, the lines behind the call never run: remove the "
                        "hooks in a `finally`"))
    model = _Small(_Stopped)
    with suppress(_Stopped):
        answer(model, nn.Linear, x)
    yield from unless(
        _left(model) == 0, "no hook is left when a run is stopped by hand",
        (True, "KeyboardInterrupt is no Exception, so `except Exception` does not see it: a "
               "`finally` does"))


def _other_kinds(answer: Callable, x: Tensor) -> Iterator[Property]:
    model = _Small()
    seen = answer(model, nn.ReLU, x)[1]
    yield expect("another kind: the bend, twice",
                 len(seen) == 2 and all(bool((each >= 0).all()) for each in seen),
                 (True, f"{len(seen)} entries for nn.ReLU"))
    layer = nn.Linear(4, 2)
    yield expect("a model that is of the kind itself", len(answer(layer, nn.Linear, x)[1]) == 1,
                 (True, "the model itself is a module too: modules() begins with it"))
    deep = nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(4, 2))))
    yield from unless(
        len(answer(deep, nn.Linear, x)[1]) == 1, "a layer within a part of a part",
        (True, "children() goes one step down, modules() all the way"))
    yield from unless(
        len(answer(deep, nn.Sequential, x)[1]) == 3, "a kind that has parts of its own",
        (True, "a module with modules inside is of its kind as well, and returns something"))
    yield from unless(
        len(answer(nn.Sequential(_Special(4, 2)), nn.Linear, x)[1]) == 1,
        "a class that is made from the kind",
        (True, "its class is not the kind, but derived from it: isinstance tells, type() does not"))


class _Special(nn.Linear):
    """A linear layer by another name."""


def _other_traces(answer: Callable, x: Tensor, before: set[int]) -> Iterator[Property]:
    """What else may stay, or be taken away: hooks of others, of all modules, `forward`, a mode."""
    model, calls = _Small(), []
    handle = model.first.register_forward_hook(lambda *_: calls.append(1))
    answer(model, nn.Linear, x)
    everywhere = torch_module._global_forward_hooks
    stay = set(everywhere) - before
    for each in stay:  # the next check starts without them
        del everywhere[each]
    yield from unless(
        not stay, "no hook is left on all modules",
        (True, "a hook of register_module_forward_hook is still there, for every model"))
    yield from unless(
        handle.id in model.first._forward_hooks, "hooks of others stay",
        (True, "a hook that was there before is gone: remove() your own handles alone"))
    yield from unless(
        not any("forward" in vars(module) for module in model.modules()),
        "every `forward` is what it was",
        (True, "a module's `forward` was replaced, and still is"))
    yield from unless(
        all(module.training for module in model.modules()), "the model stays in training mode",
        (True, "the model was in training mode, and is not any more"))
    yield from unless(
        len(calls) == 2, "the model runs once",
        (len(calls) > 2, "it ran more than once: answer and outputs come from one run, or dropout "
                         "makes them strangers"),
        (True, "the model's own hook was not called: was this model run?"))


# 06d.2 --------------------------------------------------------------------------------------


CASES = (  # a source, the cuts between its tokens, a name or a constant to be found
    ("x = price\n", (1, 3, 4, 9), "price"),
    ("x = price + tax\n", (2, 7, 12, 15), "price"),
    ("total = a\nprice = b\n", (5, 9, 12, 15, 17, 19), "b"),
    ("é = price\n", (1, 4, 6, 9), "price"),
    ("s = '汉字' + price + x\n", (4, 8, 11, 13, 16, 20), "price"),
    ("a = 1\n\ns = 'ü'; rate = cost\n", (6, 9, 15, 20, 22, 24), "cost"),
    ("f(alpha, beta)\n", (1, 2, 7, 9, 13), "alpha"),
)
LINES = (  # a source, its cuts, a name whose last place is asked for, and what goes wrong
    ("price = price + 1\n", (2, 5, 8, 13, 15), "price",
     "the node's text stands in two places: its line and column say which is meant"),
    ("é = 'ü'\nx = price\n", (4, 8, 12, 13, 17), "price",
     "a column counts bytes; whole lines before it count as characters, like the spans"),
    ("a = 1\r\nb = 2\r\nx = price\r\n", (3, 7, 14, 17, 18, 23), "price",
     "a line can end in two characters (\\r\\n), and both count"),
    ("a = 1\n\f\nx = price\n", (3, 6, 8, 11, 12, 17), "price",
     "str.splitlines also cuts at a form feed (\\f), which ends no line of Python: split at "
     "\\n"),
)


@exercise
def tokens_of(answer: Callable) -> Iterator[Property]:
    """06d.2: the tokens that a node of Python's syntax tree touches."""
    for source, cuts, name in CASES:
        edges = [0, *cuts, len(source)]
        spans = list(zip(edges, edges[1:], strict=False))
        node = next(each for each in ast.walk(ast.parse(source))
                    if isinstance(each, ast.Name) and each.id == name)
        start = source.index(name)
        stop = start + len(name)
        wanted = _touching(spans, start, stop)
        got = [int(place) for place in answer(source, node, spans)]
        line, column = node.lineno, node.col_offset
        before = len("".join(source.splitlines(keepends=True)[: line - 1]))
        yield expect(
            f"{name!r} in {source!r}: tokens {wanted}", got == wanted,
            (got == _touching(spans, before + column, before + column + len(name)),
             "col_offset counts bytes of UTF-8, and this line has characters of several"),
            (got in (_touching(spans, before + column, stop),
                     _touching(spans, start, before + column + len(name))),
             "one end counts bytes of UTF-8: this line has characters of several"),
            (got == _touching(spans, column, column + len(name)),
             "col_offset counts from the start of its line, spans from that of the source"),
            (got == [i for i, (a, b) in enumerate(spans) if start <= a and b <= stop],
             "a token that reaches over the node's edge touches it too"),
            (got == [i for i, (a, b) in enumerate(spans) if a <= stop and b >= start],
             "a span ends before the character at its second number: tokens that only meet the "
             "node's edge share no character with it"),
            (got == [i for i, (a, b) in enumerate(spans) if a <= start < b],
             "this is the first of its tokens alone"),
            (True, f"you returned {got}; the spans are {spans}"))
    yield from _a_statement(answer)
    for source, cuts, name, advice in LINES:
        edges = [0, *cuts, len(source)]
        spans = list(zip(edges, edges[1:], strict=False))
        *_, node = (each for each in ast.walk(ast.parse(source))
                    if isinstance(each, ast.Name) and each.id == name)
        start = source.rindex(name)
        wanted = _touching(spans, start, start + len(name))
        got = [int(place) for place in answer(source, node, spans)]
        yield from unless(got == wanted, f"the last {name!r} in {source!r}: tokens {wanted}",
                          (True, advice))


def _touching(spans: list[tuple[int, int]], start: int, stop: int) -> list[int]:
    return [place for place, (a, b) in enumerate(spans) if a < stop and b > start]


def _a_statement(answer: Callable) -> Iterator[Property]:
    source = "def f(x):\n    y = 'é'\n    return x\nz = 2\n"
    spans = [(i, min(i + 4, len(source))) for i in range(0, len(source), 4)]
    function = ast.parse(source).body[0]
    stop = source.index("\nz")
    wanted, got = _touching(spans, 0, stop), [int(p) for p in answer(source, function, spans)]
    yield expect(f"a function of three lines: tokens 0 to {wanted[-1]}", got == wanted,
                 (len(got) < len(wanted), "it ends too early: a node has an end_lineno of its own"),
                 (True, f"you returned {got}"))


# 06d.3 --------------------------------------------------------------------------------------


@exercise
def misread(answer: Callable) -> Iterator[Property]:
    """06d.3: the queries whose favourite brings less than another token."""
    weights = torch.tensor([[1.0, 0, 0], [0.6, 0.4, 0], [0.7, 0.1, 0.2]])
    values, output = torch.tensor([[0.1, 0.0], [3.0, 0.0], [0.0, 0.2]]), torch.eye(2)
    given = [each.clone() for each in (weights, values, output)]
    raw = answer(*given)
    got = _places(raw)
    yield from unless(
        all(map(torch.equal, given, (weights, values, output))), "what it is given stays as it was",
        (True, "it writes into one of its arguments: the caller's map is another one now"))
    yield expect("three tokens: the favourite, token 0, brings 0.06 to query 1 and 0.07 to query "
                 "2; token 1 brings 1.2 and 0.3", got == [1, 2],
                 (isinstance(raw, Tensor) and raw.dtype == torch.bool,
                  "this says yes or no for each query; asked are the numbers of those with yes"),
                 (got == [0], "these are the queries that are read rightly"),
                 (got == [0, 1, 2], "query 0 sees itself alone: its favourite brings most"),
                 (got == [], "the favourite is the largest weight, what it brings weight times "
                             "length: compare two argmax"),
                 (True, f"you returned {got}"))
    flat = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    got = _places(answer(weights, torch.tensor([[1.0, 0.0], [0.0, 9.0], [0.0, 9.0]]), flat))
    yield expect("values that the output matrix sends to zero bring nothing: none is misread",
                 got == [],
                 (True, "the length counts behind the output matrix: it is output @ value that is "
                        "added to the stream"))
    weights = torch.tensor([[1.0, 0, 0], [0.51, 0.49, 0], [0.51, 0, 0.49]])
    got = _places(answer(weights, torch.tensor([[3.0, 4], [0, 6], [0, 4.5]]), torch.eye(2)))
    yield from unless(
        got == [1], "values (3, 4), (0, 6) and (0, 4.5): lengths 5, 6 and 4.5",
        (got == [], "the length is the root of the sum of squares: (3, 4) has 5, not 3 + 4"),
        (got == [1, 2], "the length is the root of the sum of squares: (3, 4) has 5, not 4"),
        (True, f"you returned {got}"))
    for time, head_dim, d_model in ((5, 2, 3), (9, 4, 3), (12, 3, 7)):
        scores = draw(time, time, name=f"scores {time}") * 2
        weights = scores.masked_fill(torch.ones(time, time).triu(1).bool(), -torch.inf).softmax(-1)
        values = draw(time, head_dim, name=f"values {time}")
        output = draw(d_model, head_dim, name=f"output {time}")
        yield _random_case(answer, weights, values, output)


def _places(got: object) -> list[int]:
    return sorted(int(each) for each in got)


def _random_case(answer: Callable, weights: Tensor, values: Tensor, output: Tensor) -> Property:
    def of(brought: Tensor) -> list[int]:
        return (brought.argmax(-1) != weights.argmax(-1)).nonzero()[:, 0].tolist()

    moved = values @ output.T  # (time, d_model)
    wanted, got = of(weights * moved.norm(dim=-1)), _places(answer(weights, values, output))
    return expect(
        f"{len(values)} tokens, head_dim {values.shape[1]}, d_model {output.shape[0]}: {wanted}",
        got == wanted,
        (got == of(weights * values.norm(dim=-1)), "the output matrix is left out"),
        (got == of(weights * moved.sum(-1)), "a sum of coordinates is no length: positive and "
                                             "negative ones cancel"),
        (got == of(moved.norm(dim=-1).expand_as(weights)), "the weight is left out: what is "
                                                           "brought is weight times length"),
        (got == of(weights * moved.norm(dim=-1)[:, None]), "the length belongs to the token that "
         "is looked at, so it multiplies columns, not rows"),
        (got == of(weights * moved.norm(dim=-1).square()), "the length is squared"),
        (True, f"you returned {got}"))
