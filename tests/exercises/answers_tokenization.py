"""Wrong answers to the exercises of chapter 01, and what the check must say to each."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise


# 01.1
def bytes_are_characters(data):
    return "".join(map(chr, data))


def _decode(data, masks=(0x1F, 0x0F, 0x07), longest=4, overlong=False, surrogates=False,
            marks=True, short=False, last_surrogate=0xDFFF, least=(0x80, 0x800, 0x10000)):
    points, i = [], 0
    while i < len(data):
        first = data[i]
        if first < 0x80:
            points.append(first)
            i += 1
            continue
        size = 2 if first >> 5 == 6 else 3 if first >> 4 == 14 else 4 if first >> 3 == 30 else 0
        if not 2 <= size <= longest:
            raise ValueError("bad first byte")
        rest = data[i + 1:i + size]
        if len(rest) < size - 1 and not short:
            raise ValueError("cut short")
        if marks and any(byte & 0xC0 != 0x80 for byte in rest):
            raise ValueError("no following byte")
        point = first & masks[size - 2]
        for byte in rest:
            point = point << 6 | byte & 0x3F
        if point < least[size - 2] and not overlong and not short:
            raise ValueError("overlong")
        if 0xD800 <= point <= last_surrogate and not surrogates:
            raise ValueError("surrogate")
        points.append(point)
        i += size
    return "".join(map(chr, points))


def one_mask_for_all(data):
    return _decode(data, masks=(0x3F, 0x3F, 0x3F), overlong=True)


def no_four_bytes(data):
    return _decode(data, longest=3)


def overlong_accepted(data):
    return _decode(data, overlong=True)


def surrogates_accepted(data):
    return _decode(data, surrogates=True)


def low_surrogates_accepted(data):
    return _decode(data, last_surrogate=0xDBFF)


def overlong_of_three_bytes_accepted(data):
    return _decode(data, least=(0x80, 0x80, 0x10000))


def marks_unchecked(data):
    return _decode(data, marks=False)


def cut_short_accepted(data):
    return _decode(data, short=True)


def code_points_only(data):
    return list(map(ord, _decode(data)))


def pythons_decoder(data):
    return data.decode()


def drops_the_byte_order_mark(data):
    return _decode(data).removeprefix("\ufeff")


def line_ends_unified(data):
    return _decode(data).replace("\r\n", "\n")


# 01.2
def _merged(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i:i + 2]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def _difference(before, after):
    changes = Counter(pairwise(after))
    changes.subtract(Counter(pairwise(before)))
    return changes


def overlapping(ids, pair, new_id):
    merged = []
    for i, token in enumerate(ids):
        if tuple(ids[i:i + 2]) == pair:
            merged.append(new_id)
        elif not (i and tuple(ids[i - 1:i + 1]) == pair):
            merged.append(token)
    return merged, _difference(ids, merged)


def stops_early(ids, pair, new_id):
    merged = [*_merged(ids[:-1], pair, new_id), ids[-1]] if len(ids) > 1 else list(ids)
    return merged, _difference(ids, merged)


def from_the_right(ids, pair, new_id):
    merged = _merged(ids[::-1], pair[::-1], new_id)[::-1]
    return merged, _difference(ids, merged)


def in_place(ids, pair, new_id):
    before = list(ids)
    ids[:] = _merged(ids, pair, new_id)
    return ids, _difference(before, ids)


def neighbours_forgotten(ids, pair, new_id):
    merged = _merged(ids, pair, new_id)
    return merged, {pair: len(merged) - len(ids)}


def new_counts(ids, pair, new_id):
    merged = _merged(ids, pair, new_id)
    return merged, Counter(pairwise(merged))


def signs_turned(ids, pair, new_id):
    merged = _merged(ids, pair, new_id)
    return merged, _difference(merged, ids)


def ids_alone(ids, pair, new_id):
    return _merged(ids, pair, new_id)


def always_nine(ids, pair, new_id):
    merged = _merged(ids, pair, 9)
    return merged, _difference(ids, merged)


def as_text(ids, pair, new_id):
    text = " ".join(map(str, ids)).replace(f"{pair[0]} {pair[1]}", str(new_id))
    merged = list(map(int, text.split()))
    return merged, _difference(ids, merged)


def the_same_objects(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and ids[i] is pair[0] and ids[i + 1] is pair[1]:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged, _difference(ids, merged)


def counters_subtracted(ids, pair, new_id):
    merged = _merged(ids, pair, new_id)
    return merged, Counter(pairwise(merged)) - Counter(pairwise(ids))


# 01.3
def _pieces(chunk):
    return [chunk[i:i + 1] for i in range(len(chunk))]


def _by_rank(chunk, ranks, pick=min, rounds=10**9):
    pieces = _pieces(chunk)
    for _ in range(rounds):
        found = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in ranks]
        if not found:
            break
        _, i = pick(found)
        pieces[i:i + 2] = [pieces[i] + pieces[i + 1]]
    return pieces


def longest_match(chunk, ranks):
    ids = []
    while chunk:
        size = next(n for n in range(len(chunk), 0, -1) if chunk[:n] in ranks)
        ids.append(ranks[chunk[:size]])
        chunk = chunk[size:]
    return ids


def leftmost_pair(chunk, ranks):
    pieces, i = _pieces(chunk), 0
    while i + 1 < len(pieces):
        if pieces[i] + pieces[i + 1] in ranks:
            pieces[i:i + 2] = [pieces[i] + pieces[i + 1]]
            i = 0
        else:
            i += 1
    return [ranks[piece] for piece in pieces]


def no_merge(chunk, ranks):
    return [ranks[bytes([byte])] for byte in chunk]


def one_merge_only(chunk, ranks):
    return [ranks[piece] for piece in _by_rank(chunk, ranks, rounds=1)]


def pieces_not_ids(chunk, ranks):
    return _by_rank(chunk, ranks)


def last_of_the_lowest(chunk, ranks):
    def pick(found):
        return min(found, key=lambda item: (item[0], -item[1]))

    return [ranks[piece] for piece in _by_rank(chunk, ranks, pick)]


def byte_values(chunk, ranks):
    return [piece[0] if len(piece) == 1 else ranks[piece] for piece in _by_rank(chunk, ranks)]


def ten_merges(chunk, ranks):
    return [ranks[piece] for piece in _by_rank(chunk, ranks, rounds=10)]


def highest_rank(chunk, ranks):
    return [ranks[piece] for piece in _by_rank(chunk, ranks, pick=max)]


def remembers_chunks():
    seen = {}

    def encode(chunk, ranks):
        if chunk not in seen:
            seen[chunk] = [ranks[piece] for piece in _by_rank(chunk, ranks)]
        return seen[chunk]
    return encode


# 01.4
def spaces_between(pieces, byte_of):
    return " ".join(piece.replace("Ġ", "") for piece in pieces)


def joined_only(pieces, byte_of):
    return "".join(pieces)


def replaced_only(pieces, byte_of):
    return "".join(pieces).replace("Ġ", " ")


def piece_by_piece(pieces, byte_of):
    return "".join(bytes(byte_of[letter] for letter in piece).decode(errors="replace")
                   for piece in pieces)


def stripped(pieces, byte_of):
    return bytes(byte_of[letter] for letter in "".join(pieces)).decode(errors="replace").strip()


def strict(pieces, byte_of):
    return bytes(byte_of[letter] for letter in "".join(pieces)).decode()


def stops_at_the_first_bad_byte(pieces, byte_of):
    data = bytes(byte_of[letter] for letter in "".join(pieces))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return data[:error.start].decode() + "\ufffd"


def line_ends_stripped(pieces, byte_of):
    return bytes(byte_of[letter] for letter in "".join(pieces)).decode(errors="replace").rstrip()


def broken_ones_dropped(pieces, byte_of):
    return bytes(byte_of[letter] for letter in "".join(pieces)).decode(errors="ignore")


def a_letter_for_each_byte(pieces, byte_of):
    return "".join(chr(byte_of[letter]) for letter in "".join(pieces))


def at_least_one_piece(pieces, byte_of):
    text = pieces[0] + "".join(pieces[1:])
    return bytes(byte_of[letter] for letter in text).decode(errors="replace")


WRONG = {
    "utf8_decode": [
        (bytes_are_characters, "every byte became a character"),
        (one_mask_for_all, "the marks still in it"),
        (no_four_bytes, "11110xxx starts four bytes"),
        (overlong_accepted, "the same number in more bytes than it needs"),
        (surrogates_accepted, "halves of UTF-16 pairs"),
        (low_surrogates_accepted, r"for (b'\xed\xbf\x80') expected 'a ValueError'"),
        (overlong_of_three_bytes_accepted, r"for (b'\xe0\x8f\x80') expected"),
        (marks_unchecked, "byte & 0xC0 == 0x80"),
        (cut_short_accepted, "enough bytes are left"),
        (code_points_only, "return a string"), (pythons_decoder, "asks you to write"),
        (drops_the_byte_order_mark, r"for (b'\xef\xbb\xbf')"),
        (line_ends_unified, r"for (b'\r\n')"),
    ],
    "merge_once": [
        (overlapping, "used twice"),
        (stops_early, "the last pair was missed"),
        (from_the_right, "merge from the left"),
        (in_place, "build a new list"),
        (neighbours_forgotten, "the neighbours changed as well"),
        (new_counts, "new count minus old count"),
        (signs_turned, "the signs are turned round"),
        (ids_alone, "return ids, changes"), (always_nine, "9 was the new id of another call"),
        (as_text, "compare numbers, not text"), (the_same_objects, "`is` asks for one object"),
        (counters_subtracted, "`-` between Counters drops that"),
    ],
    "encode_with_ranks": [
        (longest_match, "That is WordPiece"),
        (leftmost_pair, "leftmost known pair"),
        (no_merge, "nothing was merged"),
        (one_merge_only, "you stopped after one merge"),
        (pieces_not_ids, "return ids, not bytes"),
        (last_of_the_lowest, "not the first"), (byte_values, "need not be its value"),
        (ten_merges, "go on until no pair is known"), (highest_rank, "pair of the highest rank"),
        (remembers_chunks(), "the ids of the table before"),
    ],
    "join_pieces": [
        (spaces_between, "you put spaces between pieces"),
        (joined_only, "it stands for the byte 0x20"),
        (replaced_only, "replacing Ġ is not enough"),
        (piece_by_piece, "each piece was decoded on its own"),
        (stripped, "do not strip"),
        (strict, "errors='replace'"),
        (line_ends_stripped, "the line ends belong to the text"),
        (broken_ones_dropped, "dropped without a trace"),
        (a_letter_for_each_byte, "every byte became a letter"), (at_least_one_piece, "IndexError"),
        (stops_at_the_first_bad_byte, "only the broken byte becomes U+FFFD"),
    ],
}
