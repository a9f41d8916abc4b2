"""The checks of chapter 08's exercises: properties first, then the mistakes people make.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.teaching.checking import Property, exercise, expect
from scratchbook.teaching.draws import draw


def _linear(inputs: int, outputs: int, bias: bool = True, dtype: torch.dtype = torch.float32
            ) -> nn.Linear:
    """A layer whose numbers are the same whatever ran before."""
    linear = nn.Linear(inputs, outputs, bias=bias)
    for name, parameter in linear.named_parameters():
        parameter.data.copy_(draw(*parameter.shape, name=f"{name} {inputs} {outputs}"))
    return linear.to(dtype)


def _close(got: object, want: Tensor, bound: float = 1e-5) -> bool:
    return (isinstance(got, Tensor) and got.shape == want.shape
            and torch.allclose(got.detach().to(want.dtype), want.detach(), rtol=bound, atol=bound))


# 08.1 ---------------------------------------------------------------------------------------


@exercise
def lora_linear(answer: Callable) -> Iterator[Property]:
    """08.1: a frozen layer with a trained bypass of low rank."""
    linear = _linear(6, 5)
    before = copy.deepcopy(linear.state_dict())
    layer = answer(linear, 3, 12.0, 0.0)
    a, b = (getattr(layer, name, None) for name in ("lora_A", "lora_B"))
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else None for part in (a, b)]
    own = {id(p) for p in layer.parameters()} if isinstance(layer, nn.Module) else set()
    yield expect("a module with parameters lora_A (lora_rank, in) and lora_B (out, lora_rank)",
                 shapes == [(3, 6), (5, 3)] and {id(a), id(b)} <= own,
                 (not isinstance(layer, nn.Module), "return an nn.Module"),
                 (shapes == [(5, 3), (3, 6)], "the names are exchanged: lora_A comes first, it "
                                              "reads the inputs"),
                 (None in shapes, "lora_A and lora_B are to be nn.Parameter of the module itself"),
                 (shapes == [(3, 6), (5, 3)], "they are plain tensors, which no optimizer finds: "
                                              "wrap them in nn.Parameter"),
                 (True, f"for 6 inputs, 5 outputs and rank 3 the shapes are {shapes[0]} and "
                        f"{shapes[1]}"))
    if shapes != [(3, 6), (5, 3)] or not {id(a), id(b)} <= own:
        return
    trained = {id(p) for p in layer.parameters() if p.requires_grad}
    other = answer(_linear(6, 5), 3, 12.0, 0.0)
    yield expect("another layer has two of its own",
                 not {id(other.lora_A), id(other.lora_B)} & {id(a), id(b)},
                 (True, "two layers share a matrix: what one learns would change the other"))
    yield expect("these two are trained, and nothing else", trained == {id(a), id(b)},
                 (id(linear.weight) in trained, "the given layer's weight is still trained: "
                                                "requires_grad_(False)"),
                 (id(linear.bias) in trained, "the given layer's bias is still trained"),
                 (not {id(a), id(b)} <= trained, "lora_A or lora_B is frozen"),
                 (True, "something else in the module is trained: is there a second bias?"))
    yield expect("it holds the given layer, frozen and as it was",
                 {id(linear.weight), id(linear.bias)} <= own
                 and not linear.weight.requires_grad and not linear.bias.requires_grad
                 and all(torch.equal(linear.state_dict()[name], before[name]) for name in before),
                 (id(linear.weight) not in own, "it holds a copy, or nothing, of the given layer: "
                                                "the weights would be in memory twice"),
                 (id(linear.bias) not in own, "the bias of the given layer is not held"),
                 (True, "its numbers were changed, or it was not frozen"))
    yield from _how_it_starts(answer, layer, linear)
    yield from _the_sum(answer)
    yield from _its_gradients(answer)
    yield from _its_dropout(answer)


def _how_it_starts(answer: Callable, layer: nn.Module, linear: nn.Linear) -> Iterator[Property]:
    x = draw(4, 7, 6, name="x")
    got, plain, a, b = layer(x), linear(x), layer.lora_A.detach(), layer.lora_B.detach()
    yield expect("at the start it does what the given layer does", _close(got, plain),
                 (bool(b.any()) and not a.any(), "the matrix that starts at zero is lora_B"),
                 (bool(b.any()), "lora_B starts at zero, so that training begins at the model "
                                 "that was given"),
                 (_close(got, F.linear(x, linear.weight)), "the bias is lost"),
                 (_close(got, plain + linear.bias), "the bias is added twice"),
                 (_close(got, torch.zeros_like(plain)), "the given layer takes no part"),
                 (True, "lora_B is zero, and still the result differs from linear(x)"))
    wide = answer(_linear(256, 2), 64, 1.0, 0.0)
    a, size = wide.lora_A.detach(), wide.lora_A.detach().square().mean().sqrt().item() * 16
    yield expect("lora_B is zero and lora_A is not", not wide.lora_B.any() and bool(a.any()),
                 (not a.any(), "both are zero: the gradient of each is a multiple of the other, "
                               "so neither would ever move"),
                 (True, "lora_B starts at zero, lora_A at random: then the bypass is silent, but "
                        "lora_B gets a gradient"))
    yield expect("the rows of lora_A point in ways of their own",
                 int(torch.linalg.matrix_rank(a)) == 64 and abs(a.mean().item()) < 0.02,
                 (int(torch.linalg.matrix_rank(a)) < 64, "its rows repeat each other, and what "
                  "starts equal stays equal: draw every entry"),
                 (True, "its entries lean to one side: draw them around zero"))
    yield expect("their entries deviate by about one over the root of the inputs",
                 0.25 < size < 1.6,
                 (True, f"the deviation is {size / 16:.3g}, for 256 inputs about 1/16 was wanted: "
                        "the sum over the inputs then keeps the size of x"))


def _filled(answer: Callable, linear: nn.Linear, lora_rank: int, lora_alpha: float,
            dropout: float = 0.0) -> nn.Module:
    """The reader's layer with drawn numbers in both matrices."""
    layer = answer(linear, lora_rank, lora_alpha, dropout)
    for name in ("lora_A", "lora_B"):
        part = getattr(layer, name)
        part.data.copy_(draw(*part.shape, name=name))
    return layer


SIZES = ((6, 5, 3, 12.0, True), (4, 4, 2, 1.0, True), (3, 7, 1, 5.0, False), (2, 3, 4, 8.0, True))


def _the_sum(answer: Callable) -> Iterator[Property]:
    for inputs, outputs, lora_rank, lora_alpha, bias in SIZES:
        linear = _linear(inputs, outputs, bias)
        layer, x = _filled(answer, linear, lora_rank, lora_alpha), draw(3, inputs, name="rows")
        a, b = layer.lora_A.float(), layer.lora_B.float()
        plain, update, got = linear(x), x @ a.T @ b.T, layer(x)
        scaling = lora_alpha / lora_rank

        def was(factor: float, update: Tensor = update, plain: Tensor = plain,
                got: object = got) -> bool:
            return _close(got, plain + factor * update, 1e-4)
        square = inputs == outputs
        yield expect(
            f"{inputs} inputs, {outputs} outputs, rank {lora_rank}, alpha {lora_alpha:g}: "
            "W x + b + alpha/r B A x", was(scaling),
            (was(lora_alpha), "lora_alpha is not divided by lora_rank"),
            (was(1.0), "the update is not scaled"), (was(0.0), "the update takes no part"),
            (was(1 / scaling), "the scaling is upside down: lora_alpha / lora_rank"),
            (was(lora_alpha / lora_rank**0.5), "divided by the root of the rank: that is rsLoRA, "
                                               "which comes later"),
            (was(lora_alpha * lora_rank), "lora_alpha is divided by lora_rank, not multiplied"),
            (was(-scaling), "the update is subtracted: add it"),
            (_close(got, scaling * update, 1e-4), "the given layer takes no part"),
            (square and _close(got, plain + scaling * x @ b @ a, 1e-4),
             "the update is transposed: x @ lora_A.T @ lora_B.T"),
            (True, "another sum comes out"))
    linear = _linear(6, 5)
    layer, x = _filled(answer, linear, 3, 12.0), draw(2, 3, 6, name="batch")
    want = linear(x) + 4 * x @ layer.lora_A.float().T @ layer.lora_B.float().T
    yield expect("a batch of sequences and a single vector, too",
                 _close(layer(x), want, 1e-4) and _close(layer(x[0, 0]), want[0, 0], 1e-4),
                 (True, "multiply over the last axis, whatever stands before it"))
    layer.lora_B.data.neg_()  # as a step of training moves it
    yield expect("what was learned since the last call counts",
                 _close(layer(x), 2 * linear(x) - want, 1e-4),
                 (True, "the numbers of an earlier call were kept: multiply by lora_A and lora_B "
                        "anew in each forward"))


def _its_gradients(answer: Callable) -> Iterator[Property]:
    linear = _linear(6, 5)
    layer, x = _filled(answer, linear, 3, 12.0), draw(4, 6, name="x").requires_grad_()
    up, a, b = draw(4, 5, name="up"), layer.lora_A, layer.lora_B
    update = x @ a.float().T @ b.float().T
    want = torch.autograd.grad(((linear(x) + 4 * update) * up).sum(), (x, a, b))
    (layer(x) * up).sum().backward()
    through = up @ linear.weight  # what reaches x by the frozen layer alone
    yield expect("the gradient reaches what is below by both ways",
                 _close(x.grad, want[0], 1e-4),
                 (_close(x.grad, through, 1e-4), "it stops in the bypass: leave detach() out"),
                 (_close(x.grad, want[0] - through, 1e-4), "it stops at the frozen layer: frozen "
                  "weights need no gradient, but the layers below need one through them"),
                 (True, "no gradient, or another, reaches x"))
    yield expect("lora_A and lora_B get theirs, and the frozen weight none",
                 _close(a.grad, want[1], 1e-4) and _close(b.grad, want[2], 1e-4)
                 and linear.weight.grad is None,
                 (a.grad is None or b.grad is None, "one of the two gets no gradient"),
                 (linear.weight.grad is not None, "the frozen weight got a gradient"),
                 (True, "a gradient of another size: use lora_A and lora_B themselves"))


def _its_dropout(answer: Callable) -> Iterator[Property]:
    linear = _linear(2, 3)
    x = draw(4000, 2, name="many").abs() + 0.1
    layer = answer(linear, 2, 2.0, 0.25)
    layer.eval()
    layer.train()
    given, plain = x.clone(), linear(x)
    out = layer(given)
    yield expect("x is what it was", torch.equal(given, x),
                 (True, "x was changed in place, and others read it, too: leave inplace=True out"))
    yield expect("in training the frozen layer sees all of x", _close(out, plain),
                 (True, "dropout hides what the frozen layer reads or says: it belongs in front "
                        "of lora_A alone"))
    layer.lora_A.data.copy_(torch.eye(2))
    layer.lora_B.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    kept, again = ((layer(x.clone()) - plain).detach() / x[:, [0, 1, 0]] for _ in range(2))
    gone = kept.abs() < 1e-3  # the others are 1 / (1 - 0.25)
    share, size = gone[:, :2].float().mean().item(), kept[~gone].median().item()
    whole = bool((gone[:, 0] == gone[:, 1]).all())
    yield expect("a quarter of its entries is hidden from lora_A at dropout=0.25",
                 0.2 < share < 0.3 and not whole and torch.equal(gone[:, 0], gone[:, 2]),
                 (not gone.any(), "nothing is hidden in training"),
                 (not torch.equal(gone[:, 0], gone[:, 2]), "entries of the update are hidden, not "
                                                           "of the x that goes into lora_A"),
                 (whole, "x is hidden whole or not at all: each entry has a chance of its own"),
                 (True, f"a share of {share:.2f} is hidden"))
    half = answer(_linear(2, 3), 2, 2.0, 0.5).train()
    half.lora_A.data.copy_(torch.eye(2))
    half.lora_B.data.fill_(1.0)
    none = (half(x) - half.eval()(x) + x.sum(1, keepdim=True)).abs() < 1e-3
    yield expect("half of them at dropout=0.5, and others at each call",
                 0.2 < none.float().mean().item() < 0.3 and not torch.equal(kept, again),
                 (torch.equal(kept, again), "the same entries are hidden at each call"),
                 (True, "another share is hidden: does dropout take part?"))
    yield expect("the entries that stay are made larger, so that the mean stays",
                 abs(size - 4 / 3) < 0.01,
                 (True, f"they are multiplied by {size:.3g}; nn.Dropout divides them by "
                        "1 - dropout"))
    layer.eval()
    want = linear(x) + x @ layer.lora_A.float().T @ layer.lora_B.float().T
    yield expect("in evaluation nothing is hidden", _close(layer(x), want),
                 (True, "dropout is at work there, too: nn.Dropout as a submodule knows the mode"))


# 08.2 ---------------------------------------------------------------------------------------


def _adapter(inputs: int, outputs: int, lora_rank: int, name: str = "", parts: int = 8
             ) -> tuple[Tensor, Tensor]:
    """Two matrices in eighths, or smaller parts: in any order their product is exact."""
    shapes = {"A": (lora_rank, inputs), "B": (outputs, lora_rank)}
    a, b = (nn.Parameter((draw(*shape, name=f"{which} {name}") * parts).round() / parts)
            for which, shape in shapes.items())
    return a, b


@exercise
def merge_unmerge(answer: Callable) -> Iterator[Property]:
    """08.2: an update added to a weight, and taken out again bit for bit."""
    for inputs, outputs, scaling in ((6, 5, 0.375), (4, 4, 2.0)):
        linear, (a, b) = _linear(inputs, outputs), _adapter(inputs, outputs, 3)
        weight, bias, kept = linear.weight, linear.bias.detach().clone(), [a.clone(), b.clone()]
        before, update = weight.detach().clone(), (b @ a).detach()
        undo = answer(linear, a, b, scaling)
        got, square = linear.weight.detach(), inputs == outputs
        yield expect(
            f"{inputs} inputs, {outputs} outputs: the weight is W + scaling B A",
            _close(got, before + scaling * update, 1e-6),
            (_close(got, before), "the weight is what it was: change linear.weight itself"),
            (_close(got, before + update), "scaling takes no part"),
            (_close(got, before - scaling * update), "the update is subtracted"),
            (_close(got, scaling * update), "the old weight is gone: add the update to it"),
            (_close(got, before + update / scaling), "divided by scaling: multiply"),
            (square and _close(got, before + scaling * (a.T @ b.T)),
             "the update is transposed: lora_B @ lora_A is (out, in), as the weight is"),
            (True, "something else was added"))
        yield expect("in place: the same parameter, trained or not as before",
                     linear.weight is weight and weight.requires_grad and weight.is_leaf,
                     (linear.weight is not weight, "linear.weight is another parameter now, and "
                      "an optimizer, or a tied layer, still holds the old one: copy_ into it"),
                     (True, "the weight was frozen, or became a result of other tensors"))
        yield expect("bias, lora_A and lora_B are what they were",
                     torch.equal(linear.bias, bias) and torch.equal(a, kept[0])
                     and torch.equal(b, kept[1]),
                     (True, "one of them was changed in place"))
        yield expect("a function that takes it out again comes back", callable(undo),
                     (True, "return a function without arguments"))
        if not callable(undo):
            return
        a.data.mul_(3)  # it may be trained further
        linear.bias.data.add_(1.0)
        undo()
        yield expect("it puts the old weight back, bit for bit",
                     torch.equal(linear.weight, before) and linear.weight is weight,
                     (_close(linear.weight, before + scaling * update), "it changes nothing: is "
                      "what you kept a copy, or the weight itself? clone()"),
                     (_close(linear.weight, before, 1e-4), "nearly, but subtracting does not "
                      "give back what rounding took: keep a copy"),
                     (True, "another weight is there: lora_A was trained further after the merge, "
                            "and what you subtract is no longer what you added"))
        yield expect("and nothing else: neither the bias nor what is trained",
                     torch.equal(linear.bias, bias + 1.0) and weight.requires_grad,
                     (not weight.requires_grad, "the weight was trained, and is frozen now"),
                     (True, "an old bias was put back over a newer one: keep the weight alone"))
    yield from _in_bfloat16(answer)
    yield from _twice(answer)


def _in_bfloat16(answer: Callable) -> Iterator[Property]:
    linear, (a, b) = _linear(16, 12, dtype=torch.bfloat16), _adapter(16, 12, 24, "fine", 256)
    linear.weight.data.copy_((linear.weight.data * 64).round() / 64)
    before, update = linear.weight.detach().clone(), 0.375 * (b @ a).detach()
    undo = answer(linear, a, b, 0.375)
    got, half = linear.weight.detach().clone(), torch.bfloat16
    twice = before + update.to(half)
    products = before + (0.375 * (b.to(half) @ a.to(half))).detach()
    yield expect("a bfloat16 weight: added in float32, rounded once",
                 torch.equal(got, (before.float() + update).to(half)) and got.dtype == half,
                 (got.dtype != half, f"the weight is {got.dtype} now: round it back"),
                 (torch.equal(got, twice) or torch.equal(got, products),
                  "the update was rounded to bfloat16 before it was added, and the sum again: "
                  "convert the weight to float32, add, and round once"),
                 (torch.equal(got, (before.float() + 0.375 * (b.to(half).float() @ a.to(
                     half).float())).to(half)), "lora_A and lora_B were rounded to bfloat16: "
                  "bring the weight to their type, not them to the weight's"),
                 (True, "the sum differs from (W.float() + update).bfloat16()"))
    undo()
    a, b = (part.data.to(half) for part in (a, b))
    answer(linear, a, b, 0.375)
    yield expect("a bfloat16 adapter: multiplied in float32 as well",
                 torch.equal(linear.weight.detach(), (
                     before.float() + 0.375 * (b.float() @ a.float())).to(half)),
                 (True, "BA was rounded to bfloat16 before it was added: convert lora_A and "
                        "lora_B first"))
    for kind in (half, torch.float64):
        linear, (a, b) = _linear(16, 12, dtype=kind), _adapter(16, 12, 24, "half")
        linear.weight.data.div_(3)
        before = linear.weight.detach().clone()
        answer(linear, a, b, 0.375)()
        yield expect(f"and back, bit for bit ({kind})", torch.equal(linear.weight, before),
                     (kind == torch.float64, "the copy was kept in float32, and has fewer digits"),
                     (True, "bfloat16 keeps eight bits: what the update pushed out is gone, "
                            "unless you kept a copy"))


def _twice(answer: Callable) -> Iterator[Property]:
    linear, other = _linear(6, 5), _linear(3, 4, bias=False)
    before, others = linear.weight.detach().clone(), other.weight.detach().clone()
    linear.weight.requires_grad_(False)
    one, two = _adapter(6, 5, 2, "one"), _adapter(6, 5, 1, "two")
    undo = answer(linear, *one, 0.5)
    merged, refused = linear.weight.detach().clone(), ""
    try:
        answer(linear, *two, 0.5)
    except Exception as error:  # whatever it is: named below
        refused = type(error).__name__
    yield expect("a layer that is merged already is refused with a ValueError",
                 refused == "ValueError",
                 (not refused, "the second merge went through: its function would put back the "
                               "first merge, and the first one's nothing at all"),
                 (True, f"it raised {refused}"))
    yield expect("and keeps the weight that it had", torch.equal(linear.weight, merged),
                 (True, "the weight was changed before the refusal: ask first"))
    undo_other = answer(other, *_adapter(3, 4, 2, "other"), 0.5)
    undo()
    yield expect("another layer can be merged meanwhile, and stays so",
                 torch.equal(linear.weight, before) and not torch.equal(other.weight, others)
                 and not linear.weight.requires_grad,
                 (torch.equal(other.weight, others), "what is kept belongs to all layers: keep it "
                                                     "with each"),
                 (linear.weight.requires_grad, "the weight was frozen, and is trained now"),
                 (True, "after a refused merge, or beside another layer, the old weight did not "
                        "come back"))
    again = answer(linear, *two, 0.5)
    want = before + 0.5 * (two[1] @ two[0])
    undo()
    yield expect("after that it can be merged anew, and a function used up does nothing",
                 _close(linear.weight, want, 1e-6),
                 (torch.equal(linear.weight, before), "the first merge's function was called "
                  "again and took out the second one's merge: it may work once only"),
                 (True, "the second merge did not start from the old weight"))
    again()
    linear.weight.data.add_(1.0)  # trained further
    again()
    undo_other()
    yield expect("a second call does not undo later training",
                 torch.equal(linear.weight, before + 1.0) and torch.equal(other.weight, others),
                 (True, "it put an old weight over a newer one"))
