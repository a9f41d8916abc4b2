"""What belongs to a single chapter: the checks of its exercises and the plumbing of its figures.

`check.NAME(answer)` runs the check of one exercise; each stands in an `exercises_*.py` here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from scratchbook.teaching.checking import EXERCISES, Report, run_check


class Checks:
    """`check.NAME(answer)` for every exercise of the book."""

    def _load(self) -> dict[str, Callable]:
        for module in pkgutil.iter_modules(__path__):
            if module.name.startswith("exercises_"):
                importlib.import_module(f"{__name__}.{module.name}")
        return EXERCISES

    def report(self, name: str, answer: Callable) -> Report:
        """Run one check and return its report without printing.

        Raises:   ValueError when no exercise has this name
        """
        if name not in self._load():
            raise ValueError(f"no exercise is called {name!r}; there are: {', '.join(dir(self))}")
        return run_check(name, answer)

    def __getattr__(self, name: str) -> Callable[[Callable], None]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._load():
            raise AttributeError(f"no exercise is called {name!r}; there are: "
                                 f"{', '.join(dir(self))}")
        return lambda answer: print("\n".join(run_check(name, answer).lines))

    def __dir__(self) -> list[str]:
        return sorted(self._load())


check = Checks()
