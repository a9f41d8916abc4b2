"""The check of exercise 06d.1: hooks that leave no trace.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

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


class _Turned(nn.Sequential):
    """Its layers run from the last to the first."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in reversed(self):
            x = layer(x)
        return x


def _left(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@exercise
def watch(answer: Callable) -> Iterator[Property]:
    """06d.1: what every layer of a kind returned, by hooks that leave no trace."""
    model, x = _Small(), draw(2, 4, name="x")
    everywhere = set(torch_module._global_forward_hooks)
    inner = model.first(x)
    second = model.first(inner.relu())
    wanted = [inner.detach(), second.detach(), model(x).detach()]
    plain, given = model(x), x.clone()
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
    yield from unless(torch.equal(x, given), "x stays as it was", (True, "it writes into x"))
    yield from unless(isinstance(seen, list | tuple), "the second of the two is a list",
                      (True, f"it is a {type(seen).__name__}"))
    if not isinstance(seen, list | tuple):
        return
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
    seen = [each.float() for each in seen]
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


    turned = answer(_Turned(nn.Linear(4, 2), nn.Linear(4, 4)), nn.Linear, x)[1]
    yield from unless(
        [len(each[0]) for each in turned] == [4, 2], "a model that runs its last layer first",
        (True, "the list is in the order of the modules: the calls came in another one"))
    layer = nn.Linear(4, 4)
    found = len(answer(nn.Sequential(layer, layer), nn.Linear, x)[1])
    yield from unless(
        found == 2, "one layer under two names, called twice",
        (found > 2, "it got two hooks: modules() gives a module once, however often it is named"),
        (True, f"{found} entries"))


class _Special(nn.Linear):
    """A linear layer by another name."""


def _other_traces(answer: Callable, x: Tensor, before: set[int]) -> Iterator[Property]:
    """What else may stay, or be taken away: hooks of others, of all modules, `forward`, a mode."""
    model, calls = _Small(), []
    names = [set(vars(module)) for module in model.modules()]
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
        [set(vars(module)) for module in model.modules()] == names, "no attribute is left",
        (True, "a module has an attribute that it had not: keep the list outside of the model"))
    yield from unless(
        all(each.grad is None for each in model.parameters()), "no gradient is left",
        (True, "a parameter has a .grad that it had not"))
    resting = _Small().eval()
    answer(resting, nn.Linear, x)
    yield from unless(
        not any(module.training for module in resting.modules()), "eval mode stays eval mode",
        (True, "the model was in eval mode, and is in training mode now"))
    yield from unless(
        len(calls) == 2, "the model runs once",
        (len(calls) > 2, "it ran more than once: answer and outputs come from one run, or dropout "
                         "makes them strangers"),
        (True, "the model's own hook was not called: was this model run?"))
