"""The checks behind the exercises of chapters/01_tokenization.ipynb."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise, product

from scratchbook.companions.exercises_bytes import result_or_error
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
    yield from _other_ids(answer)
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


def _other_ids(answer: Callable) -> Iterator[Property]:
    digits = "11", "2", "1", "2", "1000", "2000", "3"
    ids = list(map(int, digits))             # the 1000 here and the one below are two objects
    for pair, new_id in ((1, 2), 256), ((int("1000"), int("2000")), 3000):
        right, got = _merge(ids, pair, new_id), answer(list(ids), pair, new_id)[0]
        text = " ".join(map(str, ids)).replace(f"{pair[0]} {pair[1]}", str(new_id))
        yield expect(
            f"{ids} with the pair {pair} becomes {right}", got == right,
            (9 in got, "9 was the new id of another call: put in the one that is given"),
            (got == ids, "nothing was merged: `is` asks for one object, == for equal numbers"),
            (got == list(map(int, text.split())),
             "11 2 holds the digits of 1 2, but not the ids: compare numbers, not text"),
            (True, f"got {got}"))


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
            (changes == dict(after), "nothing went down here; wanted: new count minus old count, "
             "so\nthat what disappears counts negative (`-` between Counters drops that, subtract "
             "keeps it)"),
            (changes == {key: -change for key, change in right.items()},
             "the signs are turned round: what disappears counts negative"),
            (ids == [1, 2, 1, 2], "two merges side by side: (2, 1) between them becomes (9, 9)"),
            (True, f"got {changes}, expected {right}"))


# 01.3 ---------------------------------------------------------------------------------------

# "lower" tells the lowest rank from the longest piece, "tion" the longest piece from the leftmost
_RANKS = {bytes([value]): value for value in range(256)} | {
    b"lo": 256, b"ow": 257, b"er": 258, b"we": 259, b"wer": 260, b"low": 261, b"aa": 262,
    b"io": 263, b"ion": 264, b"tion": 265, b"ti": 266}


# other ids for the bytes, "ow" before "lo", and a token of five bytes
_OTHER_RANKS = {bytes([value]): 255 - value for value in range(256)} | {
    b"ow": 256, b"er": 257, b"lo": 258, b"ower": 259, b"erow": 260, b"owerow": 261, b"lowerow": 262}


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
                 (other == [266, 111, 110] and got == [256, 260],
                  "you took the pair of the highest rank; the lowest was learned first"),
                 (other == _leftmost_first(b"tion", _RANKS)
                  and got == _leftmost_first(b"lower", _RANKS),
                  "you took the leftmost known pair; BPE takes the pair of the lowest rank"),
                 (True, f"got {other}"))
    words = [b"lowlower", b"powers", b"wererwolf", "größer".encode(), b"aaaaaaa", b"action"]
    wrong = [word for word in words
             if list(answer(word, _RANKS)) != _encode_with_ranks(word, _RANKS)]
    yield expect(f"equal to the reference on {len(words)} more words", not wrong,
                 (True, f"first difference: {wrong[:1]}"))
    got, right = list(answer(b"lower", _OTHER_RANKS)), _encode_with_ranks(b"lower", _OTHER_RANKS)
    yield expect(
        f"another table gives lower the ids {right}", got == right,
        (got == _encode_with_ranks(b"lower", _RANKS),
         "these are the ids of the table before: look them up in the one that is given"),
        (got == [*b"l", *right[1:]], "a single byte has an id in the table, too, which need not be "
                                     "its value: ranks[b'l']"),
        (True, f"got {got}"))
    long = b"lowerow" * 20
    got, right = list(answer(long, _OTHER_RANKS)), _encode_with_ranks(long, _OTHER_RANKS)
    yield expect(f"a chunk of {len(long)} bytes", got == right,
                 (True, f"{len(got)} ids instead of {len(right)}: go on until no pair is known, "
                        "whatever its length"))


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
    spelled = got == text
    yield expect("letters beyond ASCII, tabs and line ends", spelled,
                 (got == text.encode().decode("latin-1"), "every byte became a letter of its own: "
                  "decode the bytes as UTF-8, in which ö has two"),
                 (isinstance(got, str) and "Ã" in got,
                  "replacing Ġ is not enough: every piece is spelled in stand-ins. Look each\n"
                  "letter up in byte_of, join all bytes, decode once"),
                 (True, f"got {got!r}, expected {text!r}"))
    data = "a 🙂!".encode()
    got = answer([_spell(data[:3]), _spell(data[3:5]), _spell(data[5:])], byte_of)
    yield expect("a character whose bytes lie in two pieces", got == "a 🙂!",
                 (spelled and isinstance(got, str) and "\ufffd" in got,
                  "each piece was decoded on its own: join the bytes of all pieces, then decode"),
                 (True, f"got {got!r}"))
    yield expect("a text that begins with a space keeps it", answer(["Ġa"], byte_of) == " a",
                 (answer(["Ġa"], byte_of) == "a", "do not strip: the space belongs to the text"))
    got = answer(["Ċa", "Ġ", "Ċ"], byte_of)
    yield expect("line ends before and after are kept", got == "\na \n",
                 (isinstance(got, str) and got.strip() == "a",
                  "do not strip: the line ends belong to the text"), (True, f"got {got!r}"))
    got = result_or_error(answer, [], byte_of)
    yield expect("no pieces are the empty text", got == "", (True, f"got {got!r}"))
    got = result_or_error(answer, [_spell(data[:3])], byte_of)
    yield expect("half a character becomes U+FFFD, not an error", got == "a \ufffd",
                 (isinstance(got, UnicodeDecodeError),
                  "a model may stop anywhere: decode with errors='replace'"),
                 (got == "a ", "what is broken was dropped without a trace: U+FFFD stands in its "
                               "place (errors='replace')"),
                 (True, f"got {got!r}"))
    got = result_or_error(answer, [_spell(b"\xc3"), "Ġb", "!"], byte_of)
    yield expect("what follows half a character is read on", got == "\ufffd b!",
                 (got in ("\ufffd", "", " b!"), "only the broken byte becomes U+FFFD: the text "
                  "behind it is whole"),
                 (True, f"got {got!r}, expected {chr(0xFFFD) + ' b!'!r}"))
