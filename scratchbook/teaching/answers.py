"""Compare an answer with what was wanted, in whatever style it was written.

Tuples, lists, generators, numpy arrays, fractions and tensors of any type hold the same numbers;
a check asks about the numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from numbers import Number

import torch
from torch import Tensor


def as_tensor(got: object) -> Tensor | None:
    """The numbers of an answer as float64, or None when it holds something else."""
    if isinstance(got, Tensor):
        return got.detach().double().cpu()
    if isinstance(got, str | bytes | dict | set) or got is None:
        return None
    try:
        if isinstance(got, Number) or getattr(got, "ndim", None) == 0:
            return torch.tensor(float(got), dtype=torch.float64)
        rows = [as_tensor(row) for row in got]
        return torch.stack(rows) if rows else torch.zeros(0, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # no numbers, or a ragged table
        return None


def same(got: object, wanted: object, tolerance: float = 1e-6) -> bool:
    """The same numbers, relative to `tolerance` where they are large; text and None must be equal.

    A sequence that is wanted may come as any sequence, a tensor as nested lists of its shape.
    """
    if isinstance(wanted, list | tuple):
        items = as_list(got)
        return (items is not None and len(items) == len(wanted)
                and all(same(a, b, tolerance) for a, b in zip(items, wanted, strict=True)))
    if isinstance(wanted, dict):
        return (isinstance(got, dict) and got.keys() == wanted.keys()
                and all(same(got[key], wanted[key], tolerance) for key in wanted))
    if isinstance(wanted, str | bytes) or wanted is None:
        return type(got) is type(wanted) and got == wanted
    numbers, wanted = as_tensor(got), as_tensor(wanted)
    if numbers is not None and numbers.numel() == 0 == wanted.numel():
        return len(numbers.shape) > 0 and len(numbers) == len(wanted)
    return (numbers is not None and numbers.shape == wanted.shape
            and torch.allclose(numbers, wanted, rtol=tolerance, atol=tolerance))


def as_list(got: object) -> list | None:
    """The items of a tuple, list, generator or array; None for text and whatever has none."""
    if isinstance(got, str | bytes | dict | set) or not isinstance(got, Iterable | Tensor):
        return None
    try:
        return list(got)
    except TypeError:          # an array without an axis
        return None


def changes_its_input(answer: Callable, *arguments: object) -> bool:
    """Whether a call leaves tensors or lists that it was given other than they were."""
    given = copy.deepcopy(arguments)
    answer(*given)
    return not all(torch.equal(now, before) if isinstance(now, Tensor) else now == before
                   for now, before in zip(given, arguments, strict=True))


def is_rounded(got: float, wanted: float) -> bool:
    """The wanted number with digits missing: rounded to some decimal place, but not to all."""
    return any(got == round(wanted, places) for places in range(7)) and got != wanted


def counterexample(answer: Callable, reference: Callable, inputs: Iterable[tuple],
                   tolerance: float = 1e-6) -> str:
    """What to show when no mistake is recognised: the first input on which the two differ.

    Give `inputs` (tuples of arguments) smallest first. Empty when there is no difference.
    """
    for arguments in inputs:
        wanted, shown = reference(*copy.deepcopy(arguments)), ", ".join(map(_short, arguments))
        try:
            got = answer(*copy.deepcopy(arguments))
        except NotImplementedError:
            raise
        except Exception as error:
            return f"for ({shown}) expected {_short(wanted)}, got {type(error).__name__}: {error}"
        got = as_list(got) if hasattr(got, "__next__") else got
        if not same(got, wanted, tolerance):
            return f"for ({shown}) expected {_difference(got, wanted, tolerance)}"
    return ""


def _difference(got: object, wanted: object, tolerance: float) -> str:
    numbers = as_tensor(got) if isinstance(wanted, Tensor) else None
    if numbers is None or numbers.shape != wanted.shape or (
            wanted.dim() < 2 and wanted.numel() <= 12):
        return f"{_short(wanted)}, got {_short(got)}"
    differs = ~torch.isclose(numbers, wanted.detach().double(), rtol=tolerance, atol=tolerance)
    place = tuple(differs.nonzero()[0].tolist())
    return f"{wanted[place].item():.5g} at {list(place)}, got {numbers[place].item():.5g}"


def _short(value: object) -> str:
    if isinstance(value, Tensor):
        if value.numel() > 12 or value.dim() > 1:
            return f"a tensor of shape {tuple(value.shape)}"
        value = [round(number, 4) for number in value.detach().flatten().tolist()]
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
