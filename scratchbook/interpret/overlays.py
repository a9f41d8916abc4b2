"""What a piece of code means, character by character: to be laid over a map of attention.

An overlay knows the syntax class of every stretch of a source, its tree, the part that each thing
plays (receiver, selector, argument and so on), the scopes that declare its variables, and its
message sends. Everything stands at character offsets, `source[start:stop]`; `align` turns them
into ranges of tokens. Nothing here needs torch.

A source that does not parse keeps its syntax classes and its comments, which need no tree;
everything else is empty and `error` says why.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate

CLASSES = ("keyword", "name", "message", "constant", "number", "string", "symbol", "comment",
           "operator", "punctuation", "unknown")
ROLES = ("selector", "receiver", "argument", "assigned", "parameter", "temporary", "definition",
         "comment", "literal")
LANGUAGES = ("python", "smalltalk")


@dataclass(frozen=True)
class Stretch:
    """`source[start:stop]` is of this kind: a syntax class, or a role."""

    kind: str
    start: int
    stop: int


@dataclass(frozen=True)
class TreeNode:
    """One node of the syntax tree: `parent` is the place of its parent in the list, -1 for a root.

    Parents come before their children, and hold all of their characters.
    """

    kind: str
    role: str
    text: str
    start: int
    stop: int
    parent: int


@dataclass(frozen=True)
class Declared:
    """A name that a scope declares, where it is declared."""

    name: str
    what: str
    start: int
    stop: int


@dataclass(frozen=True)
class Scope:
    """A method, block, function, class or comprehension; `depth` counts the scopes around it."""

    kind: str
    name: str
    start: int
    stop: int
    depth: int
    parent: int
    declares: tuple[Declared, ...] = ()


@dataclass(frozen=True)
class Use:
    """A variable that is read or set, and the scope that declares it: -1 when none here does."""

    name: str
    start: int
    stop: int
    scope: int


@dataclass(frozen=True)
class Argument:
    """An argument of a send, with the word before it: a keyword, an operator, or nothing.

    A word that is not written (a positional argument of Python) has start and stop -1.
    """

    word: str
    word_start: int
    word_stop: int
    start: int
    stop: int


@dataclass(frozen=True)
class Send:
    """A message: who gets it, which words are its selector, what fills its arguments.

    `receiver_send` is the place of the send whose answer is the receiver, -1 where that is no send;
    `cascade` numbers the cascade that it belongs to, -1 for none. All sends of a cascade have one
    receiver. A function called by name has no receiver (start and stop -1).
    """

    selector: str
    kind: str
    words: tuple[tuple[int, int], ...]
    receiver: tuple[int, int]
    receiver_send: int
    arguments: tuple[Argument, ...]
    start: int
    stop: int
    cascade: int = -1


@dataclass(frozen=True)
class Overlay:
    """All that is known of one source; `error` is "" for one that parses."""

    source: str
    language: str
    classes: tuple[Stretch, ...]
    roles: tuple[Stretch, ...] = ()
    nodes: tuple[TreeNode, ...] = ()
    scopes: tuple[Scope, ...] = ()
    uses: tuple[Use, ...] = ()
    sends: tuple[Send, ...] = ()
    error: str = ""

    def text(self, place: object) -> str:
        """The source between the `start` and the `stop` of anything in this overlay."""
        return self.source[place.start : place.stop]

    def to_json(self) -> dict:
        """Plain lists and dictionaries, without the source."""
        names = ("language", "classes", "roles", "nodes", "scopes", "uses", "sends", "error")
        found = asdict(self)
        return {name: found[name] for name in names}


def overlay(source: str, language: str, read_as: str = "auto") -> Overlay:
    """The overlay of a source in "python" or "smalltalk".

    Smalltalk is read as a "method" or as an "expression" (statements without a pattern); "auto"
    takes what begins with a capital letter or no name for an expression, tries a method first
    otherwise, and reads each part of a document with `<|class|>` and `<|method|>` for itself.

    Example:  overlay("double ^ self * 2", "smalltalk").sends[0].selector == "*"
    Raises:   ValueError for an unknown language or way to read
    """
    if language == "python":
        from scratchbook.interpret.python_overlays import python_overlay

        return python_overlay(source)
    if language == "smalltalk":
        from scratchbook.interpret.smalltalk_overlays import smalltalk_overlay

        return smalltalk_overlay(source, read_as)
    raise ValueError(f"language={language!r} has no overlay: choose one of {', '.join(LANGUAGES)}")


def align(spans: Sequence[tuple[int, int]], places: Iterable[object]) -> list[tuple[int, int]]:
    """For each place with `start` and `stop`, its tokens: the first, and one past the last.

    `spans` are the characters (start, stop) of every token, in order. A token belongs to a place
    when they share a character; one that reaches over the place's edge belongs to it too. A token
    of no character (a part of a letter, a special token) belongs to what holds the character behind
    it. A place that no token touches has an empty range.

    Raises:   ValueError when spans go backwards
    """
    starts = [start for start, _ in spans]
    # a part of a letter may end behind the part that follows it
    stops = list(accumulate((stop for _, stop in spans), max))
    for at, (start, stop) in enumerate(spans):
        if stop < start or (at and start < starts[at - 1]):
            raise ValueError(f"token {at} has the span ({start}, {stop}): spans must go forwards")
    return [_covering(starts, stops, place.start, place.stop) for place in places]


def _covering(starts: list[int], stops: list[int], start: int, stop: int) -> tuple[int, int]:
    if stop <= start:
        at = bisect_left(starts, start)
        return at, at
    last = bisect_left(starts, stop)  # of the tokens that begin before the place ends
    first = bisect_left(stops, start + 1)  # the first that ends behind the place's start
    while first > 0 and starts[first - 1] == stops[first - 1] == start:
        first -= 1  # tokens of no character at the very start
    return min(first, last), last


def kinds_of(spans: Sequence[tuple[int, int]], stretches: Sequence[Stretch]) -> list[list[str]]:
    """For every token the kinds of the stretches that touch it, the smallest stretch first.

    Of two stretches of one size the one of the role that comes first in ROLES leads.
    """
    found: list[list[tuple[int, int, str]]] = [[] for _ in spans]
    for (first, last), each in zip(align(spans, stretches), stretches, strict=True):
        order = ROLES.index(each.kind) if each.kind in ROLES else 0
        for token in range(first, last):
            found[token].append((each.stop - each.start, order, each.kind))
    return [list(dict.fromkeys(kind for _, _, kind in sorted(kinds))) for kinds in found]


def send_paths(found: Overlay) -> list[str]:
    """Every chain of sends as text, from what stands first to the last selector.

    The messages of a cascade fork from one receiver: each is a path of its own. Sends inside of
    arguments and blocks begin paths of their own.

    Example:  send_paths(overlay("Transcript show: 'a'; cr", "smalltalk")) is
              ["Transcript → show:", "Transcript → cr"]
    """
    asked = {send.receiver_send for send in found.sends}
    paths = []
    for at in range(len(found.sends)):
        if at in asked:
            continue
        words, here = [], at
        while here >= 0:
            send = found.sends[here]
            words.append(send.selector)
            if send.receiver_send < 0 and send.receiver[0] >= 0:
                words.append(" ".join(found.source[slice(*send.receiver)].split()))
            here = send.receiver_send
        paths.append(" → ".join(words[::-1]))
    return paths
