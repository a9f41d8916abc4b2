"""Catch a model that looks at the answer: does any output depend on a later input?

Chapter:  chapters/02_attention.ipynb
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

METHODS = ("auto", "gradient", "mutation")
NEARLY_ZERO = 1e-3  # gates start at 0 or at 1e-6 (LayerScale); a drawn matrix is far above


class FutureLeak(AssertionError):
    """The output at `position` depends on the input at `source`, which comes later."""

    def __init__(self, position: int, source: int, effect: float, method: str,
                 woken: Sequence[str] = ()):
        self.position, self.source, self.effect, self.method = position, source, effect, method
        self.woken = tuple(woken)
        how = {
            "gradient": f"the gradient of one with respect to the other reaches {effect:.2g}",
            "mutation": f"changing that input moves this output by up to {effect:.2g}",
        }[method]
        when = (f", once the parameters that are (nearly) zero are given random values: "
                f"{', '.join(woken)}" if woken else "")
        super().__init__(
            f"the output at position {position} sees the input at position {source}: {how}{when}. "
            "Pass a causal mask to every layer that mixes positions"
        )


def assert_no_future_leak(
    model: Callable,
    vocab_size: int | None = None,
    inputs: Tensor | None = None,
    seq_len: int = 12,
    method: str = "auto",
    tolerance: float = 1e-5,
    seed: int = 0,
) -> None:
    """Raise `FutureLeak` when an output at t depends on an input after t.

    Give `vocab_size` (random ids are drawn) or `inputs`: ids, or vectors. Two probes: the
    gradient of each output with respect to each input vector (of ids: the output of the
    `nn.Embedding` that reads them) and, for ids, changing one token at a time. An effect
    counts as a leak above `tolerance` times the largest legitimate effect.
    A layer whose output projection or gate is still zero hides whatever it sees until the first
    step of training, so parameters that are (nearly) zero throughout are given random values
    for a second round, and their own back.
    Runs in eval mode, so a leak that only training has (batch statistics) stays unseen;
    modes, gradients and parameters are as before afterwards.

    Shapes:   inputs (batch, time) or (batch, time, features);
              the model returns (batch, time, ...), a tuple starting with it, or an
              object with `.logits` or `.last_hidden_state`
    Raises:   FutureLeak with the first (position, source); ValueError when the model cannot
              be tested: no input, outputs of another length, two different answers to one
              input, ids without an `nn.Embedding` under method="gradient", outputs that no
              input moves, or (of a function, whose parameters are out of reach) outputs
              that no earlier input moves
    Chapter:  chapters/02_attention.ipynb
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown; choose one of {', '.join(METHODS)}")
    inputs = _make_inputs(model, vocab_size, inputs, seq_len, seed)
    if method == "mutation" and inputs.is_floating_point():
        raise ValueError("method='mutation' changes tokens; vectors need method='gradient'")
    with _evaluating(model):
        _check_testable(model, inputs)
        effects = _probe(model, inputs, vocab_size, method, tolerance, seed)
        with _awake(model, seed) as woken:
            if woken:
                effects = _probe(model, inputs, vocab_size, method, tolerance, seed, woken)
    if not effects.any():
        raise ValueError("no input moves any output, so a leak could not show: is the last "
                         "projection still zero?")
    if not _is_module(model) and not effects.tril(-1).any():
        raise ValueError(
            "no output depends on an earlier position, so nothing mixes positions yet and a leak "
            "could not show. Pass the nn.Module itself: its zero-initialised parameters are then "
            "given random values for the test"
        )


def _probe(
    model: Callable, inputs: Tensor, vocab_size: int | None, method: str, tolerance: float,
    seed: int, woken: Sequence[str] = (),
) -> Tensor:
    """Raise at a leak, by the gradient first; return the effects that were seen: (time, time)."""
    is_ids, seen = not inputs.is_floating_point(), None
    if method != "mutation":
        seen = _gradient_effects(model, inputs, seed)
        if seen is not None:
            _raise_first(seen, "gradient", tolerance, woken)
        elif method == "gradient":
            raise ValueError(
                "no nn.Embedding of the model reads the ids, so there is no vector to "
                "differentiate by; use method='mutation'"
            )
    if method != "gradient" and is_ids:
        seen = _mutation_effects(model, inputs, vocab_size)
        _raise_first(seen, "mutation", tolerance, woken)
    return seen


@contextmanager
def _awake(model: Callable, seed: int) -> Iterator[list[str]]:
    """Give parameters that are (nearly) zero throughout random values; yield their names."""
    named = dict(model.named_parameters()) if _is_module(model) else {}
    asleep = {name: p for name, p in named.items()
              if p.is_floating_point() and p.numel() and p.detach().abs().max() < NEARLY_ZERO}
    before = {name: p.detach().clone() for name, p in asleep.items()}
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for p in asleep.values():
                width = p.shape[-1] if p.dim() else 1
                p.copy_(torch.randn(p.shape, generator=generator) / width**0.5)
        yield list(asleep)
    finally:
        with torch.no_grad():
            for name, p in asleep.items():
                p.copy_(before[name])


def _make_inputs(
    model: Callable, vocab_size: int | None, inputs: Tensor | None, seq_len: int, seed: int
) -> Tensor:
    if inputs is None:
        if vocab_size is None or vocab_size < 2 or seq_len < 2:
            raise ValueError(
                f"vocab_size={vocab_size}, seq_len={seq_len}: give inputs, or at least 2 of each"
            )
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randint(vocab_size, (2, seq_len), generator=generator)
        parameter = next(iter(model.parameters()), None) if _is_module(model) else None
        inputs = inputs if parameter is None else inputs.to(parameter.device)
    if inputs.dim() < 2 or inputs.shape[1] < 2:
        raise ValueError(f"inputs {tuple(inputs.shape)}: a leak needs (batch, at least 2 steps)")
    return inputs.detach()


def _check_testable(model: Callable, inputs: Tensor) -> None:
    with torch.no_grad():
        first, second = _call(model, inputs), _call(model, inputs)
    if first.shape[:2] != inputs.shape[:2]:
        raise ValueError(
            f"the model turned inputs {tuple(inputs.shape)} into {tuple(first.shape)}; "
            "a leak can only be placed when outputs are (batch, time, ...)"
        )
    if not torch.equal(first, second):
        gap = (first - second).abs().max().item()
        raise ValueError(
            f"two calls with the same input differ by {gap:.2g} (or hold NaN): switch off what "
            "is random in eval mode, and give each call a fresh cache"
        )


def _gradient_effects(model: Callable, inputs: Tensor, seed: int) -> Tensor | None:
    """|d output at t / d input at s|, the largest over batch and features: (time, time)."""
    with torch.enable_grad(), _input_vectors(model, inputs) as (given, vectors):
        outputs = _call(model, given)
        if not vectors:
            return None
        # A random direction, not a sum: the sum of probabilities is constant, so its gradient
        # is zero however much each of them leaks.
        generator = torch.Generator().manual_seed(seed)
        direction = torch.randn(outputs[:, 0].shape, generator=generator).to(outputs)
        rows = []
        for t in range(outputs.shape[1]):
            target = (outputs[:, t] * direction).sum()
            if not target.requires_grad:
                rows.append(vectors[0].new_zeros(vectors[0].shape[1]))
                continue
            gradient = torch.autograd.grad(
                target, vectors[0], retain_graph=True, allow_unused=True, materialize_grads=True
            )[0]
            rows.append(gradient.abs().flatten(2).amax(dim=(0, 2)))
    return torch.stack(rows)  # (time, time): row = position of the output


@contextmanager
def _input_vectors(model: Callable, inputs: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield what to call the model with, and a list that will hold the vectors it reads."""
    if inputs.is_floating_point():
        vectors = inputs.clone().requires_grad_()
        yield vectors, [vectors]
        return
    found: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple, output: Tensor) -> Tensor | None:
        if found or not torch.equal(arguments[0], inputs):
            return None  # the embedding of something else, such as positions
        found.append(output.detach().requires_grad_())
        return found[0]

    modules = list(model.modules()) if _is_module(model) else []
    handles = [m.register_forward_hook(keep) for m in modules if isinstance(m, nn.Embedding)]
    try:
        yield inputs, found
    finally:
        for handle in handles:
            handle.remove()


def _mutation_effects(model: Callable, inputs: Tensor, vocab_size: int | None) -> Tensor:
    """How far changing the token at s moves the output at t: (time, time)."""
    vocab_size = vocab_size or int(inputs.max()) + 1
    if vocab_size < 2:
        raise ValueError("all ids are 0: give vocab_size, so that a token can be changed")
    columns = []
    with torch.no_grad():
        before = _call(model, inputs)
        for s in range(inputs.shape[1]):
            mutated = inputs.clone()
            mutated[:, s] = (mutated[:, s] + 1) % vocab_size
            moved = (_call(model, mutated) - before).abs()
            columns.append(moved.flatten(2).amax(dim=(0, 2)) if moved.dim() > 2 else moved.amax(0))
    return torch.stack(columns, dim=1)  # (time, time): row = position of the output


def _raise_first(
    effects: Tensor, method: str, tolerance: float, woken: Sequence[str] = ()
) -> None:
    effects = effects.double().cpu()
    if effects.isnan().any():
        raise ValueError(f"the {method} probe met NaN: repair that first, it hides any leak")
    allowed = effects.tril().max()
    leaks = (effects.triu(1) > tolerance * allowed).nonzero()
    if len(leaks):
        position, source = leaks[0].tolist()
        raise FutureLeak(position, source, effects[position, source].item(), method, woken)


def _call(model: Callable, inputs: Tensor) -> Tensor:
    outputs = model(inputs)
    if isinstance(outputs, tuple):
        outputs = outputs[0]
    for name in ("logits", "last_hidden_state"):
        outputs = getattr(outputs, name, outputs)
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"the model returns a {type(outputs).__name__}; wrap it in a function that returns "
            "its (batch, time, ...) tensor"
        )
    return outputs


def _is_module(model: Callable) -> bool:
    return isinstance(model, nn.Module)


@contextmanager
def _evaluating(model: Callable) -> Iterator[None]:
    """Switch to eval mode, and back to the mode that each single module had."""
    modes = {m: m.training for m in model.modules()} if _is_module(model) else {}
    try:
        if modes:
            model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training
