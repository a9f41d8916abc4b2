"""Random tensors that do not depend on which cells ran before."""

from __future__ import annotations

import sys

import torch

from scratchbook.runtime import named_generator

_in_cell: dict = {}  # what the notebook's present cell has drawn: {(seed, name): shape}


def draw(*shape: int, seed: int = 0, name: str = "") -> torch.Tensor:
    """A standard normal float32 tensor that is the same whenever shape, seed and name are.

    A notebook's cells get run twice, skipped and run out of order. With one shared generator the
    numbers would then differ from the page's; here every draw has a generator of its own. Two
    shapes under one seed and name begin with the same numbers: a vector drawn beside a matrix
    would be the matrix's first row. A notebook's cell that draws such a pair is therefore
    refused; a cell that draws one shape again gets the same numbers again.

    Shapes:   -> shape
    Raises:   ValueError for another shape under a seed and name that the same cell has drawn
    """
    if sys._getframe(1).f_globals.get("__name__") == "__main__":
        _refuse_shared_numbers(shape, seed, name)
    return torch.randn(*shape, generator=named_generator(seed, name))


def _refuse_shared_numbers(shape: tuple[int, ...], seed: int, name: str) -> None:
    cell = _running_cell()
    if _in_cell.get("cell") != cell:
        _in_cell.clear()
        _in_cell["cell"] = cell
    before = _in_cell.setdefault((seed, name), shape)
    if cell is not None and before != shape:
        raise ValueError(f"draw: shapes {before} and {shape} under one seed={seed} and "
                         f"name={name!r} hold the same numbers; give one of them another name")


def _running_cell() -> object:
    """What tells the notebook's running cell from the last one, or None outside of a notebook.

    That is the message which asked for it: a kernel that keeps no history counts no cells.
    """
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    asked = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return asked["header"]["msg_id"] if asked else getattr(shell, "execution_count", None)
