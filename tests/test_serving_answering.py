"""The pieces of an answer, from events that come in whatever order a thread may bring them."""

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")

from scratchbook.serving import Event, Request  # noqa: E402
from scratchbook.serving.answering import Writing  # noqa: E402
from scratchbook.serving.bodies import Wanted  # noqa: E402
from tests.serving_home import run_alone, tiny_served  # noqa: E402

SERVED = tiny_served()


class Told:
    """A ticket whose events are given, some of them after a pause."""

    def __init__(self, count, events, pause=0.0):
        self.requests = [Request([1], 9)] * count
        self.events, self.pause, self.cancelled = events, pause, []

    def cancel(self, place=None):
        self.cancelled.append(place)

    async def __aiter__(self):
        for pair in self.events:
            await asyncio.sleep(self.pause)
            yield pair


def pieces(ticket, stops=()):
    noted, wanted = [], Wanted(9, 0.0, None, None, stops, n=len(ticket.requests))
    writing = Writing(ticket, SERVED, wanted,
                      SimpleNamespace(answered=lambda *times: noted.append(times)))

    async def read():
        return [piece async for piece in writing.pieces()]
    return run_alone(read()), writing, noted[0]


def test_tokens_that_were_under_way_behind_a_stop_string_are_not_shown_and_not_counted():
    tokens = [SERVED.tokenizer.encode(letter)[0] for letter in "abXcdX"]
    events = [(place, Event(place, token)) for token in tokens for place in (0, 1)]
    ticket = Told(2, [*events, (0, Event(0, done=True, reason="cancelled")),
                      (1, Event(1, done=True, reason="cancelled"))])
    found, writing, _ = pieces(ticket, ["X"])
    for place in (0, 1):
        mine = [piece for piece in found if piece.place == place]
        assert "".join(piece.text for piece in mine) == "ab"
        assert [piece.reason for piece in mine if piece.reason] == ["stop"]
    assert writing.new_tokens == 6
    assert ticket.cancelled == [0, 1], "each ends its own request, once"


def test_the_first_token_has_a_time_of_its_own():
    events = [(0, Event(0, token, done=token == 99, reason="length" if token == 99 else None))
              for token in b"abc"]
    _, writing, (model, first, whole) = pieces(Told(1, events, pause=0.02))
    assert model == "tiny" and 0.02 <= first < whole - 0.02
