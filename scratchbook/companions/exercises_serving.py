"""The check of chapter 07c's second exercise: a slot that is given back whatever happens.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import asyncio
import itertools
import operator
from collections.abc import Callable, Iterator

from scratchbook.teaching.checking import Property, exercise, expect


class _Left(Exception):
    """What a client that is gone raises."""


class _Ends(BaseException):
    """Something that ends a program and is no Exception."""


class _Engine:
    """Gives out numbers and tokens, and writes down what is done with them."""

    def __init__(self, first: int = 4):
        self.number, self.left = first, {}
        self.asked: dict[int, int] = {}       # how often for a token
        self.released: dict[int, int] = {}    # how often its slot was given back
        self.strange: list[object] = []       # numbers that nobody has

    def submit(self, request: object) -> int:
        """A slot for a request, which is here the list of what comes; an error is raised."""
        if isinstance(request, BaseException):
            raise request
        self.number += 1
        self.left[self.number], self.asked[self.number] = list(request), 0
        self.released[self.number] = 0
        return self.number

    def next(self, number: int) -> object:
        """The next token, or None at the end."""
        self.asked[number] = self.asked.get(number, 0) + 1
        if self.released.get(number, 1):
            raise ValueError(f"request {number} is not at work")
        token = self.left[number].pop(0) if self.left[number] else None
        if isinstance(token, BaseException):
            raise token
        return token

    def release(self, number: int) -> None:
        """Give the slot back."""
        if number not in self.released:
            self.strange.append(number)
        else:
            self.released[number] += 1


def _slot(engine: _Engine, when: str, *numbers: int) -> list[tuple[bool, str]]:
    """What is wrong with the slots, where those of these numbers should have been given back."""
    times = engine.released
    lost = [number for number in numbers if not times.get(number)]
    more = [number for number in numbers if times.get(number, 0) > 1]
    others = [number for number in times if times[number] and number not in numbers]
    return [(bool(engine.strange), f"{when}: {engine.strange} was given back, which is no number "
                                   "that submit returned"),
            (bool(others), f"{when}: the slots of {others} are given back, which belong to others "
                           "that are still at work"),
            (bool(lost), f"{when}: the slot is not given back, so one is lost each time"),
            (bool(more), f"{when}: the slot is given back {times.get(more[0]) if more else 0} times"
                         ", and by then it may be somebody else's")]


def _free(engine: _Engine, *numbers: int) -> bool:
    """Whether these slots, and no others, were given back, once each."""
    return not engine.strange and engine.released == {
        number: int(number in numbers) for number in engine.released}


def _raised(call: Callable[[], object]) -> BaseException | None:
    """What a call raises, TooSlow and the like not among it."""
    try:
        call()
    except NotImplementedError:
        raise
    except (Exception, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit, SystemExit, _Ends
            ) as error:
        return error
    return None


def _reads(tokens: Iterator, count: int = 1000) -> list:
    """What comes, but not without end."""
    return list(itertools.islice(tokens, count))


@exercise
def stream_answer(answer: Callable) -> Iterator[Property]:
    """07c.2: tokens from an engine, and the slot given back whatever happens."""
    engine = _Engine()
    tokens = answer(engine, [9, 0, 7])
    fits = all(hasattr(tokens, name) for name in ("__next__", "close", "throw"))
    yield expect("a generator", fits, (True, f"write a generator: yield each token, not "
                                             f"{tokens!r:.50}"))
    if not fits:
        return
    got = _reads(tokens)
    yield expect("all tokens, in their order", got == [9, 0, 7],
                 (got == [9], "token 0 is no end: the end is None"),
                 (None in got, "the end, None, was given as a token"),
                 (True, f"expected [9, 0, 7], got {got}"))
    yield expect("read to the end: given back once", _free(engine, 5),
                 *_slot(engine, "read to the end", 5))
    tokens.close()
    yield expect("closed once more at the end: still once", _free(engine, 5),
                 *_slot(engine, "closed behind the end", 5))
    for request in ([], [3], list(range(300))):
        engine = _Engine()
        got = _reads(answer(engine, request))
        yield expect(f"{len(request)} tokens", got == request and _free(engine, 5),
                     (got != request, f"expected {request!r:.40}, got {got!r:.40}"),
                     *_slot(engine, "read to the end", 5))
        asked = engine.asked.get(5)
        yield expect(f"{len(request)} tokens: nothing is asked for behind the end",
                     asked == len(request) + 1, (got != request, f"got {got!r:.40}"),
                     (True, f"for {len(request)} tokens and the end the engine was asked {asked} "
                            "times: what it says behind the end means nothing"))
    strange = ["", False, -1, 0.5, [], "é", 3, 3, 3, object(), (None,)]
    got = []
    error = _raised(lambda: got.extend(_reads(answer(_Engine(), strange))))
    yield expect("tokens of any kind, equal ones too", len(got) == len(strange) and all(
        map(operator.is_, got, strange)),
        (error is not None, f"of the tokens {strange[:9]} {error!r:.60}"),
        (True, f"a token may be any object, and the end is None alone: {len(got)} of "
               f"{len(strange)} came, {got[:9]} of {strange[:9]} and others"))
    yield from _as_it_comes(answer)
    yield from _leaves(answer)
    yield from _fails(answer)
    yield from _beside_others(answer)


def _as_it_comes(answer: Callable) -> Iterator[Property]:
    engine = _Engine()
    tokens = answer(engine, [1, 2, 3, 4])
    asked = [(next(tokens), engine.asked.get(5), engine.released.get(5)) for _ in range(4)]
    yield expect("one token is asked for at a time", [each[1] for each in asked] == [1, 2, 3, 4],
                 (True, f"for the first four tokens {[each[1] for each in asked]} were asked for: "
                        "yield each as it comes"))
    yield expect("the slot is kept until the end", not any(each[2] for each in asked),
                 (True, "the slot is given back while tokens are still to come"))
    engine = _Engine()
    answer(engine, [1, 2]).close()
    taken, back = len(engine.released), sum(engine.released.values())
    yield expect("never read: nothing taken, or given back", taken == back and not engine.strange,
                 (True, "a slot is taken before anybody reads, and closing a generator that has "
                        "not begun runs nothing of it: take the slot inside the generator"))


def _leaves(answer: Callable) -> Iterator[Property]:
    """The client goes away while it holds a token."""
    for count in (1, 2, 3):
        engine = _Engine()
        tokens = answer(engine, [1, 0, 3, 4])
        got = _reads(tokens, count)
        error = _raised(tokens.close)
        when = f"closed behind {count} tokens"
        yield expect(when, error is None and _free(engine, 5) and got == [1, 0, 3][:count],
                     (error is not None, f"closing raised {type(error).__name__}: {error}; behind "
                                         "GeneratorExit nothing may be yielded"),
                     *_slot(engine, when, 5))
        yield expect(f"{when}: nothing more is asked for", engine.asked.get(5) == count,
                     (True, f"{when}: the engine was asked {engine.asked.get(5)} times, and writes "
                            "for nobody"))
        _raised(tokens.close)
        yield expect(f"{when}, twice", _free(engine, 5), *_slot(engine, "closed twice", 5))
    engine = _Engine()
    for place, _ in enumerate(answer(engine, [1, 2, 3])):
        if place:
            break
    yield expect("left by `break`", _free(engine, 5), *_slot(engine, "left by break", 5))
    for gone in (_Left("gone"), asyncio.CancelledError("gone"), KeyboardInterrupt("gone"),
                 ConnectionResetError("gone"), SystemExit("gone"), _Ends("gone")):
        for count in (1, 3):
            engine = _Engine()
            tokens = answer(engine, [1, 2, 3, 4])
            _reads(tokens, count)
            error, name = _raised(lambda tokens=tokens, gone=gone: tokens.throw(gone)), type(gone)
            when = f"{name.__name__} behind token {count}"
            yield expect(when, error is gone and _free(engine, 5), *_passed_on(error, gone, when),
                         *_slot(engine, when, 5))


def _passed_on(error: BaseException | None, gone: BaseException, when: str
               ) -> list[tuple[bool, str]]:
    return [(error is None, f"{when}: the generator goes on, but nobody is there any more: let "
                            "the error through"),
            (isinstance(error, StopIteration), f"{when}: the error is swallowed, so whoever "
                                               "called believes that all is well"),
            (error is not gone, f"{when}: {type(error).__name__} ({error}) instead of the error "
                                "itself")]


def _fails(answer: Callable) -> Iterator[Property]:
    """The engine raises, for a token or at the beginning."""
    for fault in (RuntimeError("out of memory"), asyncio.CancelledError("waiting"),
                  KeyboardInterrupt("waiting"), TimeoutError("waiting"), _Ends("waiting")):
        for before in ([], [1, 2]):
            engine = _Engine()
            tokens, got = answer(engine, [*before, fault, 8]), []
            error = _raised(lambda tokens=tokens, got=got: got.extend(
                itertools.islice(tokens, 1000)))
            when = f"{type(fault).__name__} while waiting for token {len(before) + 1}"
            yield expect(when, error is fault and got == before and _free(engine, 5),
                         (error is None, f"{when}: the error is swallowed"),
                         *_passed_on(error, fault, when),
                         (got != before, f"{when}: expected {before} before it, got {got}"),
                         *_slot(engine, when, 5))
    engine, full = _Engine(), RuntimeError("the line is full")
    error = _raised(lambda: _reads(answer(engine, full)))
    yield expect("not let in: nothing to give back", error is full and _free(engine),
                 (bool(engine.strange), f"submit failed, so there is no slot, and {engine.strange} "
                                        "was given back"),
                 (error is None, "submit failed, and the error is swallowed"),
                 (True, f"submit failed, and {type(error).__name__} ({error}) comes instead"))


def _beside_others(answer: Callable) -> Iterator[Property]:
    """Several requests at once: one leaves, the others go on."""
    for first in (-1, 4, 99):
        engine = _Engine(first)
        numbers = [first + 1, first + 2, first + 3]
        streams = [answer(engine, [10 * place + token for token in range(4)])
                   for place in range(3)]
        got = [_reads(stream, 2) for stream in streams]
        streams[1].close()
        yield expect(f"of requests {numbers} one leaves", _free(engine, numbers[1]),
                     *_slot(engine, "one of three leaves", numbers[1]))
        error = _raised(lambda got=got, streams=streams: [
            got[place].extend(_reads(streams[place])) for place in (0, 2)])
        whole = [[0, 1, 2, 3], [10, 11], [20, 21, 22, 23]]
        yield expect("and the others get all of theirs", got == whole and _free(engine, *numbers),
                     (error is not None, f"another request fails: {error}"),
                     (got != whole, f"expected {whole}, got {got}"),
                     *_slot(engine, "three at once", *numbers))
