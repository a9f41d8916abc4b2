"""The check behind exercise 1.5 of chapters/01_tokenization.ipynb: the best cut into pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log

from scratchbook.companions.exercises_bytes import refuses, result_or_error
from scratchbook.teaching.checking import Property, exercise, expect

_PIECES = {"u": log(0.08), "n": log(0.08), "h": log(0.06), "a": log(0.06), "p": log(0.06),
           "y": log(0.05), "un": log(0.10), "unh": log(0.0005), "ha": log(0.07), "app": log(0.02),
           "happy": log(0.03), "ppy": log(0.01), "py": log(0.05), "hap": log(0.04)}


def _best(text: str, logprobs: dict[str, float], longest: int = 20) -> list[str]:
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(text) + 1):
        best.append(max((best[start][0] + logprobs[text[start:end]], start)
                        for start in range(max(0, end - longest), end)
                        if text[start:end] in logprobs))
    pieces, end = [], len(text)
    while end:
        pieces.append(text[best[end][1]:end])
        end = best[end][1]
    return pieces[::-1]


def _longest_pieces(text: str, logprobs: dict[str, float]) -> list[str]:
    pieces = []
    while text:
        size = next(n for n in range(len(text), 0, -1) if text[:n] in logprobs)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


@exercise
def best_pieces(answer: Callable) -> Iterator[Property]:
    """`best_pieces(text: str, logprobs: dict[str, float]) -> list[str]`."""
    got = list(answer("unhappy", _PIECES))
    yield expect("the pieces spell the text", "".join(got) == "unhappy",
                 ("".join(got[::-1]) == "unhappy", "walking back finds the last piece first: "
                  "reverse the list"),
                 (True, f"got {got}"))
    yield expect(
        "unhappy is cut where the probability is highest", got == ["un", "happy"],
        (got == _longest_pieces("unhappy", _PIECES),
         "you took the longest piece each time: unh fits, but what is left of it costs more"),
        (got == ["un", "ha", "p", "p", "y"],
         "you took the likeliest piece each time: ha is likelier than happy, but p, p and y are\n"
         "still to be paid"),
        (all(len(piece) == 1 for piece in got),
         "the least likely cut: a minimum over log-probabilities, which are negative (larger is\n"
         "better), or a sum of probabilities, which grows with every piece"),
        (True, f"got {got}"))
    fewer = {"a": log(0.4), "b": log(0.4), "ab": log(0.01)}
    got = list(answer("ab", fewer))
    yield expect("fewer pieces are not always better", got == ["a", "b"],
                 (got == ["ab"], "0.4 * 0.4 is more than 0.01: compare sums of logarithms, not "
                  "numbers of pieces\nor sums of probabilities"),
                 (True, f"got {got}"))
    yield expect("an empty text has no pieces", list(answer("", _PIECES)) == [])
    yield expect("ValueError when no cut exists", refuses(answer, "unhappyx", _PIECES),
                 (True, "x is in no piece: a position that nothing reaches must stay unreachable"))
    rare = {"a": -400.0, "b": -400.0, "ab": -900.0}
    got = result_or_error(lambda: list(answer("ab", rare)))
    yield expect("pieces of probability exp(-400)", got == ["a", "b"],
                 (True, f"got {got!r}: such probabilities multiply to 0.0 in floating point (a "
                        "long text's do too); add logarithms"))
    yield from _other_tables(answer)
    text = "happy" * 30
    try:
        got = list(answer(text, _Counted(_PIECES)))
    except _TooManyLookups:
        got = None
    yield expect("a long text takes no longer than it must", got == _best(text, _PIECES),
                 (got is None, "the best cut of a prefix is needed once: keep it in a list (or "
                               "remember it with functools.cache)"),
                 (True, f"another cut than the best: it begins with {got and got[:4]}"))


def _other_tables(answer: Callable) -> Iterator[Property]:
    whole = "abcdefghijklmnopqrstuvwxyz"
    cases = [
        ("the same text under another table is cut anew", "ab",
         {"a": log(0.1), "b": log(0.1), "ab": log(0.4)}, ["ab"],
         "nothing may be kept from an earlier call: the probabilities are others now"),
        ("a piece that is certain (its logarithm is 0)", "aab", {"a": 0.0, "b": log(0.5)},
         ["a", "a", "b"], "0.0 counts as false: ask whether the piece is in the table"),
        ("a piece of 26 letters", whole, dict.fromkeys(whole, -3.0) | {whole: -9.0},
         [whole], "a piece may be as long as the text: every beginning has to be tried"),
        ("a sum of minus four million", "cc", {"c": -2e6}, ["c", "c"],
         "a sum may fall below any number that stands for 'impossible': use -math.inf")]
    for what, text, table, right, advice in cases:
        got = result_or_error(lambda text=text, table=table: list(answer(text, table)))
        yield expect(what, got == right, (True, f"got {got!r}: {advice}"))
    yield expect("ValueError when every letter is known, but no cut exists",
                 refuses(answer, "abca", {"ab": -1.0, "c": -1.0}),
                 (True, "ab and c are pieces, the last a alone is none: what counts is whether the "
                        "end can be\nreached, not whether the letters are known"))


class _TooManyLookups(BaseException):
    pass


class _Counted(dict):
    """A table that stops whoever looks into it far more often than there are cuts to compare."""

    looked = 0

    def _look(self) -> None:
        self.looked += 1
        if self.looked > 500_000:
            raise _TooManyLookups

    def __getitem__(self, piece: str) -> float:
        self._look()
        return super().__getitem__(piece)

    def get(self, piece: str, default: float | None = None) -> float | None:
        """The entry, counted."""
        self._look()
        return super().get(piece, default)

    def __contains__(self, piece: object) -> bool:
        self._look()
        return super().__contains__(piece)
