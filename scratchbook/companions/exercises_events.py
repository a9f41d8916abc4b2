"""The check of chapter 07c's first exercise: a stream of server-sent events, cut anywhere.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch

from scratchbook.runtime import named_generator
from scratchbook.teaching.answers import counterexample, same
from scratchbook.teaching.checking import Property, exercise, expect

MOST = 1000  # events that are read: an answer may give them without end
Given = list[tuple[object, int]]  # data of an event, and how many chunks were read for it


def _events(chunks: Sequence[bytes], lines: Callable[[str], list[str]] = lambda text:
            text.split("\n"), crlf: bool = True, value: Callable[[str], str] = lambda text:
            text.removeprefix(" "), takes: Callable[[str], bool] = lambda line:
            line.startswith("data:"), joined: Callable[[list[str]], list[str]] = lambda data:
            ["\n".join(data)], unfinished: bool = False, empty: bool = False, cut: str = "",
            kept: bool = False,
            blank: Callable[[str], bool] = lambda line: not line) -> list[str]:
    """The data of each event; the options are mistakes."""
    *whole, rest = lines(b"".join(chunks).decode("utf-8", "replace"))
    found: list[str] = []
    data: list[str] = []
    for line in [*whole, rest, ""] if unfinished else whole:
        line = line.removesuffix("\r") if crlf else line
        if takes(line):
            _, _, rest = line.partition(":")
            data.append(value(rest.partition(cut)[0] if cut else rest))
        elif blank(line) and (data or empty):
            found += joined(data)
            data = data if kept else []
    return found


DATA_SLIPS: dict[str, dict] = {
    "lines are cut at other characters than \\n and \\r\\n: `splitlines` also cuts at U+2028 and "
    "its like, which JSON may hold": {"lines": lambda text: [*text.splitlines(), ""]},
    "a line may end with \\r\\n: then the \\r is no part of it": {"crlf": False},
    "`data:` without a space behind it is data too":
        {"takes": lambda line: line.startswith("data: ")},
    "only one space behind the colon is no part of the data: further ones are":
        {"value": str.lstrip},
    "spaces at the data's end are part of it": {"value": lambda text: text.removeprefix(" ")
                                                .rstrip()},
    "spaces of the data were taken away: only one, right behind the colon, is no part of it":
        {"value": str.strip},
    "the space behind the colon is no part of the data": {"value": lambda text: text},
    "a comment was taken for data: it begins with a colon":
        {"takes": lambda line: line.startswith(("data:", ":"))},
    "a line of another field was taken for data: its name is `data`, the colon right behind":
        {"takes": lambda line: line.startswith("data") and ":" in line},
    "a field's name is `data`, not in capitals":
        {"takes": lambda line: line.lower().startswith("data:")},
    "a field's name is `data`, without a space before it":
        {"takes": lambda line: line.strip().startswith("data:")},
    "a line with a space in it is not empty": {"blank": lambda line: not line.strip()},
    "another field's value was taken for data": {"takes": lambda line: line[:1] != ":" != line
                                                 and ":" in line},
    "the lines of one event are joined with a line end": {"joined": lambda data: ["".join(data)]},
    "the lines of one event are joined with a line end between them, not behind each":
        {"joined": lambda data: ["".join(f"{line}\n" for line in data)]},
    "an empty data line is a line too":
        {"joined": lambda data: ["\n".join(line for line in data if line)]},
    "each data line was given as an event: the empty line ends an event":
        {"joined": lambda data: data},
    "only the last data line of an event is left": {"joined": lambda data: data[-1:]},
    "only the first data line of an event is left": {"joined": lambda data: data[:1]},
    "an event without its empty line was given: the stream broke off in the middle of it":
        {"unfinished": True},
    "an empty line without data before it ends no event": {"empty": True},
    "an event whose data is empty is an event": {"joined": lambda data: [line for line in
                                                 ["\n".join(data)] if line]},
    "the data was cut at a later colon: only the first one ends the field's name": {"cut": ":"},
    "the data of earlier events come again: begin anew behind each empty line": {"kept": True},
}


def _collect(answer: Callable, chunks: Sequence[bytes]) -> Given | Exception:
    """The events, each with how many chunks had been read for it, or what was raised."""
    read = 0

    def source() -> Iterator[bytes]:
        nonlocal read
        for chunk in chunks:
            read += 1
            yield chunk

    try:
        return [(data, read) for data in itertools.islice(answer(source()), MOST)]
    except NotImplementedError:
        raise
    except Exception as error:
        return error


def _data(got: Given | Exception) -> list | Exception:
    return got if isinstance(got, Exception) else [
        str(data) if isinstance(data, str) else data for data, _ in got]


def _earliest(chunks: Sequence[bytes]) -> list[int]:
    """After how many chunks each event is complete."""
    counts = [len(_events(chunks[:size])) for size in range(len(chunks) + 1)]
    return [size for size in range(1, len(counts))
            for _ in range(counts[size] - counts[size - 1])]


def _in_time(got: Given | Exception, chunks: Sequence[bytes]) -> bool:
    earliest = _earliest(chunks)
    return not isinstance(got, Exception) and len(got) == len(earliest) and all(
        read <= first for (_, read), first in zip(got, earliest, strict=True))


def _data_mistakes(got: object, chunks: Sequence[bytes]) -> list[tuple[bool, str]]:
    right = _events(chunks)
    slips = {message: _events(chunks, **slip) for message, slip in DATA_SLIPS.items()}
    alone = "".join(chunk.decode("utf-8", "replace") for chunk in chunks).encode()
    slips["a character that is cut in half was decoded in halves: decode whole lines"] = (
        _events([alone]))
    slips["\\r\\n is cut in half by the end of a chunk: look for it in whole lines"] = _events(
        [chunk.replace(b"\r\n", b"\n") for chunk in chunks], crlf=False)
    slips["each chunk was read alone: an event may be cut anywhere"] = [
        each for chunk in chunks for each in _events([chunk])]
    slips["[DONE] is data like any other here"] = [each for each in right if each != "[DONE]"]
    found = [(same(got, wrong) and wrong != right, message) for message, wrong in slips.items()]
    return [
        (isinstance(got, UnicodeDecodeError),
         "a character may be cut in half by the end of a chunk: decode whole lines"),
        (isinstance(got, Exception), f"{type(got).__name__}: {got}"),
        (isinstance(got, list) and any(isinstance(each, bytes) for each in got),
         "the data is text: decode it"),
        *found, (True, f"for {b''.join(chunks)[:80]!r} expected {right!r:.100}, got {got!r:.100}")]


STREAMS = {
    "two events": b"data: one\n\ndata: two\n\n",
    "JSON": 'data: {"text": "a: b", "n": 1}\n\ndata: {"text": "é"}\n\n'.encode(),
    "lines that end with \\r\\n": b"data: one\r\n\r\ndata: two\r\ndata: three\r\n\r\n",
    "no space behind the colon": b"data:one\n\ndata: two\n\n",
    "more spaces": b"data:  two before\n\ndata: one behind \n\ndata: \t a tab\n\n",
    "comments": b": waiting\n\ndata: one\n: data: no\ndata: 1\n\n:\n\n",
    "other fields": b"event: message\nid: 7\ndata: one\nretry: 10\n\ndatabase: no\n\nid: 8\n\n",
    "a name in capitals": b"Data: no\ndata: yes\n\nDATA: no\n\n",
    "a space before a name": b" data: no\ndata: yes\n\n",
    "a space behind a name": b"data : no\ndata: yes\n\n",
    "a line of one space": b"data: a\n \ndata: b\n\n",
    "data of more lines": b"data: one\ndata: two\ndata:\ndata: four\n\ndata: last\n\n",
    "empty data": b"data:\n\ndata: \n\n\n\ndata: x\n\n",
    "an empty data line before others": b"data:\ndata: x\ndata: y\n\ndata:\ndata:\n\n",
    "characters that only look like line ends":
        "data: a\u2028b\u0085c\x0bd\x0ce\x1cf\n\ndata: 2\n\n".encode(),
    "a stream that breaks off": b"data: one\n\ndata: half",
    "one that breaks off behind a line": b"data: one\n\ndata: no empty line\n",
    "data that is [DONE], and something behind it": b"data: a\n\ndata: [DONE]\n\ndata: b\n\n",
    "equal events": b"data: a\n\ndata: a\n\ndata: a\n\n",
    "characters of two, three and four bytes": "data: aé€😀\n\ndata: 😀\r\n\r\n".encode(),
    "a byte order mark inside": "data: \ufeffa\n\n".encode(),
    "characters as they are": "data: a\0b &amp; \\n e\u0301 \ufb01\n\n".encode(),
    "words that mean nothing here": b'data: ping\n\ndata: null\n\ndata: {"error": "no"}\n\n',
}


def _cuts(stream: bytes) -> Iterator[list[bytes]]:
    """A stream in one piece, in two at each place, and in pieces of 1, 2, 3 and 7 bytes."""
    yield [stream]
    yield from ([stream[:at], stream[at:]] for at in range(len(stream) + 1))
    for size in (1, 2, 3, 7):
        yield [stream[at : at + size] for at in range(0, len(stream), size)]


def _drawn_streams(count: int) -> Iterator[list[bytes]]:
    """Lines and cuts by chance."""
    lines = ["data: ", "data:x", "data: é😀", ": c", "id: 3", "", "", "data:  :", "event: data: "]
    for number in range(count):
        draw = named_generator(number, "server-sent events")
        size = 3 + number
        chosen = torch.randint(len(lines), (size,), generator=draw).tolist()
        ends = torch.randint(2, (size,), generator=draw).tolist()
        stream = "".join(lines[which] + str(at) * (which < 4) + ("\n", "\r\n")[end]
                         for at, (which, end) in enumerate(zip(chosen, ends, strict=True))).encode()
        places = sorted(torch.randint(len(stream) + 1, (4,), generator=draw).tolist())
        yield [stream[a:b] for a, b in itertools.pairwise([0, *places, len(stream)])]


@exercise
def read_events(answer: Callable) -> Iterator[Property]:
    """07c.1: the events of a stream that is cut anywhere."""
    first = answer(iter([b"data: one\n\n"]))
    gives = hasattr(first, "__iter__") and not isinstance(first, str | bytes | dict)
    yield expect("the data of one event after another", gives,
                 (True, f"yield the text of each event, not {first!r:.60}"))
    if not gives:
        return
    for what, stream in STREAMS.items():
        got = _data(_collect(answer, [stream]))
        yield expect(what, same(got, _events([stream])), *_data_mistakes(got, [stream]))
    for what, stream in STREAMS.items():
        found = ((chunks, _data(_collect(answer, chunks))) for chunks in _cuts(stream))
        chunks, got = next(((chunks, got) for chunks, got in found
                            if not same(got, _events(chunks))), ([], []))
        yield expect(f"cut anywhere: {what}", not chunks,
                     (isinstance(got, list) and len(got) < len(_events(chunks)) and len(chunks) < 3,
                      f"cut as {chunks!r:.150} events are lost: keep what is unfinished until more "
                      "comes"), *_data_mistakes(got, chunks))
    late = next((chunks for stream in STREAMS.values() for chunks in _cuts(stream)
                 if not _in_time(_collect(answer, chunks), chunks)), None)
    yield expect("each as soon as its empty line is there", late is None,
                 (True, f"of {late!r:.120} more chunks are read before an event is given: yield "
                        "it at once, or nothing is streamed"))
    inputs = [(chunks,) for chunks in _drawn_streams(40)]
    differs = counterexample(lambda chunks: _data(_collect(answer, chunks)), _events, inputs)
    yield expect("lines and cuts by chance", not differs, (True, differs))
    long = [b"data: " + b"x" * 5000 + b"\n\n"] * 20 + [b"data: y\n", b"\n"]
    got = _collect(answer, long)
    yield expect("long ones, in time", same(_data(got), _events(long)) and _in_time(got, long),
                 (True, "of 21 long events not each came as it was, when it was complete"))
    many = [b"data: ", b"x", b"\n\n"] * 700
    got = _data(_collect(answer, many))
    yield expect("700 events in 2,100 chunks", same(got, ["x"] * 700),
                 (isinstance(got, RecursionError), "the answer calls itself for each chunk: Python "
                  "allows about 1,000 calls within each other, and a stream has more chunks"),
                 *_data_mistakes(got, many))
