"""From tokens to text as they come: whole characters only, and nothing of what stops the text.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

UNFINISHED = "\ufffd"


class Shown(NamedTuple):
    """A token whose text begins at character `place` of an answer, and the likeliest there."""

    token: int
    logprob: float | None
    place: int
    top: Sequence[tuple[int, float]] = ()


class TextStream:
    """The text of one answer, token by token.

    A token may end in the middle of a character: its text waits until the character is whole. It
    may hold the beginning of a stop string: that waits until it is clear whether the rest follows.
    The pieces, joined, are `decode` of all ids, cut before the stop string that is whole first,
    wherever tokens end. Tokens of `control` have no text.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = (),
                 control: Collection[int] = ()):
        self._decode, self._stops, self._control = decode, [s for s in stops if s], control
        self._ids: list[int] = []
        self._start = self._read = 0  # ids whose text is known already, and context before them
        self._held, self._length, self._known = "", 0, 0
        self._waiting: list[Shown] = []
        self.stopped = False

    def add(self, token: int, logprob: float | None = None,
            top: Sequence[tuple[int, float]] = ()) -> tuple[str, list[Shown]]:
        """What may be shown once this token is there: text, and the tokens that it begins with."""
        if token in self._control:
            return "", []
        self._ids.append(token)
        self._waiting.append(Shown(token, logprob, self._known, top))
        new = self._new_text()
        if new.endswith(UNFINISHED):
            return "", []
        self._start, self._read = self._read, len(self._ids)
        return self._show(new)

    def end(self) -> tuple[str, list[Shown]]:
        """What is left when no token follows."""
        return ("", []) if self.stopped else self._show(self._new_text(), last=True)

    def _new_text(self) -> str:
        """What the unread ids add; some ids before them make a tokenizer set its spaces right."""
        before = self._decode(self._ids[self._start : self._read])
        return self._decode(self._ids[self._start :])[len(before) :]

    def _show(self, text: str, last: bool = False) -> tuple[str, list[Shown]]:
        held = self._held + text
        self._known += len(text)
        # the one that is whole first, then the longest: letter by letter it would be the same
        found = min(((held.find(stop) + len(stop), held.find(stop)) for stop in self._stops
                     if stop in held), default=None)
        self.stopped = found is not None
        size = found[1] if found else len(held) - (0 if last else self._begun(held))
        self._held, self._length = held[size:], self._length + size
        whole = last and not self.stopped
        ready = [each for each in self._waiting if whole or each.place < self._length]
        self._waiting = self._waiting[len(ready) :]
        return held[:size], ready

    def _begun(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        sizes = (size for stop in self._stops for size in range(1, len(stop))
                 if text.endswith(stop[:size]))
        return max(sizes, default=0)
