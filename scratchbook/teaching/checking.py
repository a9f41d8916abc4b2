"""Exercise checks that say more than right or wrong: they name the mistake.

A check is a generator that calls the reader's function and yields one `Property` after another,
from the most basic to the most demanding. `scratchbook.companions.check` finds and runs them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Mistake = tuple[bool, str]
EXERCISES: dict[str, Callable[[Callable], Iterator[Property]]] = {}


@dataclass(frozen=True)
class Property:
    """One thing an answer should do, whether it does, and what most likely went wrong."""

    what: str
    passed: bool
    advice: str = ""


@dataclass
class Report:
    """The outcome of one check: its properties in order, or the reason there are none."""

    name: str
    properties: list[Property] = field(default_factory=list)
    note: str = ""

    @property
    def passed(self) -> bool:
        """True when at least one property was tested and all of them hold."""
        return not self.note and bool(self.properties) and all(p.passed for p in self.properties)

    @property
    def lines(self) -> list[str]:
        """What the reader sees, a line per property and the advice indented below it."""
        if self.note:
            return [self.note]
        lines = []
        for p in self.properties:
            lines.append(f"{'ok   ' if p.passed else 'no   '} {p.what}")
            lines += [f"      {line}" for line in p.advice.splitlines() if not p.passed]
        return lines


def expect(what: str, passed: bool, *mistakes: Mistake) -> Property:
    """A property, and for when it fails (condition, message) pairs, the likeliest mistake first."""
    advice = next((message for happened, message in mistakes if bool(happened)), "")
    return Property(what, bool(passed), "" if passed else advice)


def exercise(check_function: Callable) -> Callable:
    """Register a check under its own name, which must be unique in the book."""
    name = check_function.__name__
    known = EXERCISES.get(name)
    if known is not None and known.__module__ != check_function.__module__:
        raise ValueError(f"two exercises are called {name!r}: {known.__module__} has the first")
    EXERCISES[name] = check_function
    return check_function


def _error_line(error: Exception) -> str:
    # the innermost line of the reader's own code is the one to look at
    frames = traceback.extract_tb(error.__traceback__)
    line = (frames[-1].line or "").strip()
    where = f" at `{line}`" if line else ""
    return f"{type(error).__name__}: {error}{where}"


def run_check(name: str, answer: Callable) -> Report:
    """Run the check of one exercise; whatever the answer raises becomes a line of the report."""
    report = Report(name)
    try:
        for found in EXERCISES[name](answer):
            report.properties.append(found)
    except NotImplementedError:
        report.note = f"not yet: {name} raises NotImplementedError"
    except Exception as error:  # the reader's code may raise anything; a check never does
        report.properties.append(Property("it runs without an error", False, _error_line(error)))
    return report
