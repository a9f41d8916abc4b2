"""The checks behind the exercises of chapters/01_tokenization.ipynb."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import log

from scratchbook.teaching.checking import Property, exercise, expect


def _refuses(function: Callable, *arguments: object) -> bool:
    """True when the call raises ValueError."""
    try:
        function(*arguments)
    except ValueError:
        return True
    return False


def _result_or_error(function: Callable, *arguments: object) -> object:
    try:
        return function(*arguments)
    except NotImplementedError:
        raise
    except Exception as error:
        return error


# 01.1 ---------------------------------------------------------------------------------------


@exercise
def utf8_decode(answer: Callable) -> Iterator[Property]:
    """`utf8_decode(data: bytes) -> str`, without any decoder of Python's own."""
    samples = {1: "plain", 2: "Größe", 3: "日本語", 4: "🙂𝄞"}
    for size, text in samples.items():
        got = _result_or_error(answer, text.encode())
        unmasked = isinstance(got, str) and len(got) == len(text)
        yield expect(
            f"{size}-byte characters: {text!r}", got == text,
            (isinstance(got, list), "return a string: ''.join(map(chr, code_points))"),
            (got == text.encode().decode("latin-1"),
             "every byte became a character: the first byte of a character says how many follow"),
            (size == 4 and isinstance(got, ValueError),
             "a first byte of the form 11110xxx starts four bytes"),
            (unmasked or isinstance(got, ValueError | OverflowError),
             "the marks are still in the number: keep 5, 4 or 3 bits of the first byte (& 0x1F, "
             "0x0F, 0x07)\nand 6 bits of each that follows (& 0x3F), shifting by 6 for each"),
            (True, f"got {got!r}"))
    yield expect("the empty text stays empty", answer(b"") == "")
    yield from _malformed_utf8(answer)


def _malformed_utf8(answer: Callable) -> Iterator[Property]:
    cases = {
        "a text that stops inside a character (E2 82)": (
            b"\xe2\x82", "check that enough bytes are left before reading them"),
        "a following byte without the mark 10 (E2 28 A1)": (
            b"\xe2\x28\xa1", "each following byte must satisfy byte & 0xC0 == 0x80"),
        "a text that starts with a following byte (80)": (
            b"\x80", "a byte of the form 10xxxxxx cannot start a character"),
        "an overlong form: 2F written as C0 AF": (
            b"\xc0\xaf", "the same number in more bytes than it needs: compare the code point with "
            "the\nsmallest that needs this length (0x80, 0x800, 0x10000). Filters that look for "
            "'/' in\nthe bytes were walked around this way"),
        "a surrogate (ED A0 80 would be U+D800)": (
            b"\xed\xa0\x80", "U+D800 to U+DFFF are halves of UTF-16 pairs, not characters"),
        "a number beyond U+10FFFF (F4 90 80 80)": (
            b"\xf4\x90\x80\x80", "Unicode ends at U+10FFFF"),
    }
    for what, (data, advice) in cases.items():
        yield expect(f"ValueError for {what}", _refuses(answer, data), (True, advice))


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
    got = answer(given, (1, 2), 9)
    if not (isinstance(got, tuple) and len(got) == 2):
        yield expect("it returns two things", False,
                     (True, f"return ids, changes; got {type(got).__name__}"))
        return
    yield expect("the list that was given is unchanged", given == [1, 2, 3, 1, 2],
                 (True, "build a new list: others may still hold the one you were given"))
    yield expect("1 2 3 1 2 becomes 9 3 9", got[0] == [9, 3, 9],
                 (got[0] == [9, 3, 1, 2], "the last pair was missed: does the loop stop early?"),
                 (True, f"got {got[0]}"))
    for ids in ([1, 1, 1], [1, 1, 1, 1, 5]):
        merged = list(answer(list(ids), (1, 1), 9)[0])
        right = _merge(ids, (1, 1), 9)
        yield expect(
            f"{ids} with the pair (1, 1) becomes {right}", merged == right,
            (merged == _merge_overlapping(ids, (1, 1), 9),
             "the middle 1 was used twice: after a merge, go on behind it"),
            (merged == _merge(ids[::-1], (1, 1), 9)[::-1], "merge from the left"),
            (True, f"got {merged}"))
    yield from _change_properties(answer)


def _change_properties(answer: Callable) -> Iterator[Property]:
    for ids in ([4, 1, 2, 5], [1, 2, 1, 2], [1, 1, 1], [7, 8]):
        pair = (1, 1) if ids == [1, 1, 1] else (1, 2)
        right = _changes(ids, _merge(ids, pair, 9))
        changes = {key: change for key, change in dict(answer(list(ids), pair, 9)[1]).items()
                   if change}
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
    got = answer(b"xyz", _RANKS)
    yield expect("bytes that nothing merges keep their own ids", list(got) == [120, 121, 122],
                 (list(got) == [b"x", b"y", b"z"], "look the pieces up: return ids, not bytes"),
                 (True, f"got {got}"))
    got = answer(b"aaa", _RANKS)
    yield expect("aaa: of two equal pairs the left one is merged", list(got) == [262, 97],
                 (list(got) == [97, 262], "you took the last of two equal ranks, not the first"),
                 (list(got) == [262, 262], "the middle a was used twice"),
                 (list(got) == [97, 97, 97], "nothing was merged: a + a is a token, so join them"),
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
    got = _result_or_error(answer, [_spell(data[:3])], byte_of)
    yield expect("half a character becomes U+FFFD, not an error", got == "a \ufffd",
                 (isinstance(got, UnicodeDecodeError),
                  "a model may stop anywhere: decode with errors='replace'"),
                 (True, f"got {got!r}"))


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
    yield expect("ValueError when no cut exists", _refuses(answer, "unhappyx", _PIECES),
                 (True, "x is in no piece: a position that nothing reaches must stay unreachable"))
    text = "happy" * 60
    yield expect("a long text takes no longer than it must", answer(text, _PIECES) == _best(
        text, _PIECES), (True, "the best cut of a prefix is needed once: keep it in a list"))
