"""The checks behind the exercises of chapters/01_tokenization.ipynb."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from math import log

from scratchbook.companions.exercises_bytes import refuses, result_or_error
from scratchbook.teaching.answers import as_list, counterexample
from scratchbook.teaching.checking import Property, exercise, expect

# 01.2 ---------------------------------------------------------------------------------------


def _merge(ids: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
    merged: list[int] = []
    for token in ids:
        # a token just made cannot be the left half of the pair again: its id is new
        if merged and (merged[-1], token) == pair:
            merged[-1] = new_id
        else:
            merged.append(token)
    return merged


def _changes(before: list[int], after: list[int]) -> dict[tuple[int, int], int]:
    counts = Counter(pairwise(after))
    counts.subtract(Counter(pairwise(before)))
    return {pair: change for pair, change in counts.items() if change}


def _merge_overlapping(ids: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
    """The wrong merge that a later check recognises: a shared token is used twice."""
    merged: list[int] = []
    for i, token in enumerate(ids):
        if tuple(ids[i:i + 2]) == pair:
            merged.append(new_id)
        elif not (i and tuple(ids[i - 1:i + 1]) == pair):
            merged.append(token)
    return merged


@exercise
def merge_once(answer: Callable) -> Iterator[Property]:
    """`merge_once(ids, pair, new_id) -> (new ids, changes of the pair counts)`."""
    given = [1, 2, 3, 1, 2]
    answer = _two_parts(answer)
    got = answer(given, (1, 2), 9)
    if not isinstance(got, tuple):
        yield expect("it returns two things", False,
                     (True, f"return ids, changes; got {type(got).__name__}"))
        return
    yield expect("the list that was given is unchanged", given == [1, 2, 3, 1, 2],
                 (True, "build a new list: others may still hold the one you were given"))
    yield expect("1 2 3 1 2 becomes 9 3 9", got[0] == [9, 3, 9],
                 (got[0] == [9, 3, 1, 2], "the last pair was missed: does the loop stop early?"),
                 (True, f"got {got[0]}"))
    for ids in ([1, 1, 1], [1, 1, 1, 1, 5]):
        merged = answer(list(ids), (1, 1), 9)[0]
        right = _merge(ids, (1, 1), 9)
        yield expect(
            f"{ids} with the pair (1, 1) becomes {right}", merged == right,
            (merged == _merge_overlapping(ids, (1, 1), 9),
             "the middle 1 was used twice: after a merge, go on behind it"),
            (merged == _merge(ids[::-1], (1, 1), 9)[::-1], "merge from the left"),
            (True, f"got {merged}"))
    yield from _change_properties(answer)
    inputs = [(list(ids), pair, 9) for size in range(6)
              for ids in product((1, 2, 3), repeat=size) for pair in ((1, 2), (1, 1))]

    def reference(ids: list[int], pair: tuple[int, int], new_id: int) -> tuple:
        merged = _merge(ids, pair, new_id)
        return merged, _changes(ids, merged)

    differs = counterexample(answer, reference, inputs)
    yield expect("equal to the reference on every list of up to five ids", not differs,
                 (True, differs))


def _two_parts(answer: Callable) -> Callable:
    """The answer with its ids as a list and its changes as a dict without zeros, if it can be."""
    def call(*arguments: object) -> object:
        got = answer(*arguments)
        parts = as_list(got) or []
        ids = as_list(parts[0]) if len(parts) == 2 else None
        if ids is None or not hasattr(parts[1], "items"):
            return [] if isinstance(got, tuple) else got
        return ids, {key: change for key, change in parts[1].items() if change}
    return call


def _change_properties(answer: Callable) -> Iterator[Property]:
    for ids in ([4, 1, 2, 5], [1, 2, 1, 2], [1, 1, 1], [7, 8]):
        pair = (1, 1) if ids == [1, 1, 1] else (1, 2)
        right = _changes(ids, _merge(ids, pair, 9))
        changes = answer(list(ids), pair, 9)[1]
        after = Counter(pairwise(_merge(ids, pair, 9)))
        yield expect(
            f"changes for {ids} and the pair {pair}", changes == right,
            (set(changes) <= {pair} and ids[0] in (4, 1),
             "the neighbours changed as well: 4 1 2 5 loses (4, 1) and (2, 5), gains (4, 9) and "
             "(9, 5)"),
            (changes == dict(after), "these are the new counts; wanted: new count minus old count"),
            (changes == {key: -change for key, change in right.items()},
             "the signs are turned round: what disappears counts negative"),
            (ids == [1, 2, 1, 2], "two merges side by side: (2, 1) between them becomes (9, 9)"),
            (True, f"got {changes}, expected {right}"))


# 01.3 ---------------------------------------------------------------------------------------

# "lower" tells the lowest rank from the longest piece, "tion" the longest piece from the leftmost
_RANKS = {bytes([value]): value for value in range(256)} | {
    b"lo": 256, b"ow": 257, b"er": 258, b"we": 259, b"wer": 260, b"low": 261, b"aa": 262,
    b"io": 263, b"ion": 264, b"tion": 265, b"ti": 266}


def _encode_with_ranks(chunk: bytes, ranks: dict[bytes, int]) -> list[int]:
    pieces = [chunk[i:i + 1] for i in range(len(chunk))]
    while True:
        found = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in ranks]
        if not found:
            return [ranks[piece] for piece in pieces]
        _, i = min(found)
        pieces[i:i + 2] = [pieces[i] + pieces[i + 1]]


def _longest_first(chunk: bytes, ranks: dict[bytes, int]) -> list[int]:
    ids = []
    while chunk:
        size = next(n for n in range(len(chunk), 0, -1) if chunk[:n] in ranks)
        ids.append(ranks[chunk[:size]])
        chunk = chunk[size:]
    return ids


def _leftmost_first(chunk: bytes, ranks: dict[bytes, int]) -> list[int]:
    pieces = [chunk[i:i + 1] for i in range(len(chunk))]
    i = 0
    while i + 1 < len(pieces):
        if pieces[i] + pieces[i + 1] in ranks:
            pieces[i:i + 2] = [pieces[i] + pieces[i + 1]]
            i = 0
        else:
            i += 1
    return [ranks[piece] for piece in pieces]


@exercise
def encode_with_ranks(answer: Callable) -> Iterator[Property]:
    """`encode_with_ranks(chunk: bytes, ranks: dict[bytes, int]) -> list[int]`."""
    yield expect("an empty chunk has no ids", list(answer(b"", _RANKS)) == [])
    got = list(answer(b"xyz", _RANKS))
    yield expect("bytes that nothing merges keep their own ids", got == [120, 121, 122],
                 (got == [b"x", b"y", b"z"], "look the pieces up: return ids, not bytes"),
                 (True, f"got {got}"))
    got = list(answer(b"aaa", _RANKS))
    yield expect("aaa: of two equal pairs the left one is merged", got == [262, 97],
                 (got == [97, 262], "you took the last of two equal ranks, not the first"),
                 (got == [262, 262], "the middle a was used twice"),
                 (got == [97, 97, 97], "nothing was merged: a + a is a token, so join them"),
                 (True, f"got {got}"))
    got, other = list(answer(b"lower", _RANKS)), list(answer(b"tion", _RANKS))
    yield expect(
        "lower: the pair of the lowest rank first, wherever it stands", got == [256, 260],
        (got == [256, *b"wer"], "you stopped after one merge: repeat until no pair is known"),
        (sorted(got) == [256, 260], "the pieces changed their order"),
        (got == _longest_first(b"lower", _RANKS) and other == [265],
         "you took the longest piece that fits. That is WordPiece; BPE takes the pair of the\n"
         "lowest rank"),
        (got == _leftmost_first(b"lower", _RANKS),
         "you took the leftmost known pair; BPE takes the pair of the lowest rank"),
        (True, f"got {got}, expected [256, 260]: lo, then er, then wer"))
    yield expect("tion: io, then ion, then tion", other == [265],
                 (other == _leftmost_first(b"tion", _RANKS),
                  "you took the leftmost known pair; BPE takes the pair of the lowest rank"),
                 (True, f"got {other}"))
    words = [b"lowlower", b"powers", b"wererwolf", "größer".encode(), b"aaaaaaa", b"action"]
    wrong = [word for word in words
             if list(answer(word, _RANKS)) != _encode_with_ranks(word, _RANKS)]
    yield expect(f"equal to the reference on {len(words)} more words", not wrong,
                 (True, f"first difference: {wrong[:1]}"))


# 01.4 ---------------------------------------------------------------------------------------


def _gpt2_letters() -> dict[int, str]:
    """GPT-2's printable letter for each byte value."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [value for value in range(256) if value not in shown]
    return {value: chr(value) for value in shown} | {
        value: chr(256 + i) for i, value in enumerate(hidden)}


def _spell(data: bytes) -> str:
    letters = _gpt2_letters()
    return "".join(letters[value] for value in data)


@exercise
def join_pieces(answer: Callable) -> Iterator[Property]:
    """`join_pieces(pieces: list[str], byte_of: dict[str, int]) -> str`."""
    byte_of = {letter: value for value, letter in _gpt2_letters().items()}
    pieces = ["O", "n", "ce", "Ġu", "p", "on", "Ġa", "Ġt", "i", "me"]
    got = answer(list(pieces), byte_of)
    yield expect(
        "Once upon a time, without holes", got == "Once upon a time",
        (got == " ".join(pieces) or got == " ".join(pieces).replace("Ġ", ""),
         "you put spaces between pieces: the pieces carry their own spaces, as Ġ"),
        (got == "".join(pieces), "Ġ is not a letter of the text: it stands for the byte 0x20"),
        (isinstance(got, bytes), "one step is missing: bytes.decode()"),
        (True, f"got {got!r}"))
    text = "Größe: 5 €\n\tnaïve"
    pieces = [_spell(text[i:i + 3].encode()) for i in range(0, len(text), 3)]
    got = answer(pieces, byte_of)
    yield expect("letters beyond ASCII, tabs and line ends", got == text,
                 (isinstance(got, str) and "Ã" in got,
                  "replacing Ġ is not enough: every piece is spelled in stand-ins. Look each\n"
                  "letter up in byte_of, join all bytes, decode once"),
                 (True, f"got {got!r}, expected {text!r}"))
    data = "a 🙂!".encode()
    got = answer([_spell(data[:3]), _spell(data[3:5]), _spell(data[5:])], byte_of)
    yield expect("a character whose bytes lie in two pieces", got == "a 🙂!",
                 (isinstance(got, str) and "\ufffd" in got,
                  "each piece was decoded on its own: join the bytes of all pieces, then decode"),
                 (True, f"got {got!r}"))
    yield expect("a text that begins with a space keeps it", answer(["Ġa"], byte_of) == " a",
                 (answer(["Ġa"], byte_of) == "a", "do not strip: the space belongs to the text"))
    got = result_or_error(answer, [_spell(data[:3])], byte_of)
    yield expect("half a character becomes U+FFFD, not an error", got == "a \ufffd",
                 (isinstance(got, UnicodeDecodeError),
                  "a model may stop anywhere: decode with errors='replace'"),
                 (True, f"got {got!r}"))
    got = result_or_error(answer, [_spell(b"\xc3"), "Ġb", "!"], byte_of)
    yield expect("what follows half a character is read on", got == "\ufffd b!",
                 (got in ("\ufffd", "", " b!"), "only the broken byte becomes U+FFFD: the text "
                  "behind it is whole"),
                 (True, f"got {got!r}, expected {chr(0xFFFD) + ' b!'!r}"))


# 01.5 ---------------------------------------------------------------------------------------

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
         "the least likely cut, or a minimum over log-probabilities: they are negative, and larger "
         "is\nbetter"),
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
    text = "happy" * 60
    try:
        got = list(answer(text, _Counted(_PIECES)))
    except _TooManyLookups:
        got = None
    yield expect("a long text takes no longer than it must", got == _best(text, _PIECES),
                 (got is None, "the best cut of a prefix is needed once: keep it in a list (or "
                               "remember it with functools.cache)"),
                 (True, f"another cut than the best: it begins with {got and got[:4]}"))


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
