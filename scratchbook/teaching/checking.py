"""Exercise checks that say more than right or wrong: they name the mistake.

A check is a generator that calls the reader's function and yields one `Property` after another,
from the most basic to the most demanding. `scratchbook.companions.check` finds and runs them.
"""

from __future__ import annotations

import ctypes
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Mistake = tuple[bool, str]
EXERCISES: dict[str, Callable[[Callable], Iterator[Property]]] = {}


@dataclass(frozen=True)
class Property:
    """One thing an answer should do, whether it does, and what most likely went wrong."""

    what: str
    passed: bool
    advice: str = ""


SHOWN = 12  # properties of a right answer


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
        """What the reader sees, a line per property and the advice indented below it.

        When all hold, the first of many stand for the others.
        """
        if self.note:
            return [self.note]
        shown = self.properties[:SHOWN] if self.passed else self.properties
        lines = []
        for p in shown:
            lines.append(f"{'ok   ' if p.passed else 'no   '} {p.what}")
            lines += [f"      {line}" for line in p.advice.splitlines() if not p.passed]
        more = len(self.properties) - len(shown)
        return lines + [f"ok    and {more} more"] * (more > 0)


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


def _line_of(error: BaseException) -> str:
    # the innermost line of the reader's own code is the one to look at
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if frame.filename != __file__]
    line = (frames[-1].line or "").strip() if frames else ""
    return f" at `{line}`" if line else ""


class TooSlow(BaseException):
    """The time is up. No Exception, so that an answer's own `except` does not swallow it."""


def _clock(seconds: float) -> Callable[[], bool]:
    """A function that says whether the time is up; on a busy machine the work counts."""
    wall, work = time.monotonic(), time.process_time()

    def is_up() -> bool:
        past = time.monotonic() - wall
        return past >= 6 * seconds or (
            past >= seconds and time.process_time() - work >= seconds / 2)
    return is_up


@contextmanager
def _interrupted(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` inside the block when it takes longer (main thread of a POSIX system)."""
    is_up = _clock(seconds)

    def stop(number: int, frame: object) -> None:
        if is_up():
            raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds / 10)  # again: `except:` may swallow it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _in_a_thread(task: Callable[[], None], seconds: float) -> bool:
    """Run `task` in a thread and say whether it ended in time; else ask it to stop."""
    thread, is_up = threading.Thread(target=task, name="an answer", daemon=True), _clock(seconds)
    thread.start()
    while thread.is_alive():
        if is_up():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident),
                                                       ctypes.py_object(TooSlow))
            return False
        thread.join(seconds / 10)
    return True


def run_check(name: str, answer: Callable, seconds: float = 10.0) -> Report:
    """Run the check of one exercise; whatever the answer raises becomes a line of the report.

    An answer that takes longer than `seconds` is stopped, and the report says so.
    """
    report, properties = Report(name), []

    def task() -> None:
        try:
            for found in EXERCISES[name](answer):
                properties.append(found)
        except NotImplementedError:
            report.note = f"not yet: {name} raises NotImplementedError"
        except TooSlow as error:
            properties.append(_too_slow(seconds, _line_of(error)))
        except Exception as error:  # the reader's code may raise anything; a check never does
            properties.append(Property("it runs without an error", False,
                                       f"{type(error).__name__}: {error}{_line_of(error)}"))

    main = threading.current_thread() is threading.main_thread()
    if main and hasattr(signal, "setitimer"):
        try:
            with _interrupted(seconds):
                task()
        except TooSlow:      # it came between two lines of this file
            properties.append(_too_slow(seconds, ""))
    elif not _in_a_thread(task, seconds):
        return Report(name, [*properties, _too_slow(seconds, "")])
    report.properties = properties
    return report


def _too_slow(seconds: float, line: str) -> Property:
    return Property(f"it ends within {seconds:g} seconds", False,
                    f"stopped{line}: does a loop never end, or is the same thing computed again "
                    "and again?")
