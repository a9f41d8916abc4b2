"""Foreseen wrong answers of exercise 07c.1: (answer, a piece of its message)."""

import codecs
import contextlib
import html
import json
import unicodedata
from collections import deque
from functools import partial, reduce


def _events(lines=lambda text: text.split("\n"), crlf=True, value=lambda text:
            text.removeprefix(" "), takes=lambda line: line.startswith("data:"),
            joined=lambda data: ["\n".join(data)], blank=lambda line: not line,
            unfinished=False, empty=False, clear=True, errors=None, cut=1):
    def read_events(chunks):
        text, data = "", []
        whole = codecs.getincrementaldecoder("utf-8")()
        for chunk in chunks:
            text += chunk.decode("utf-8", errors) if errors else whole.decode(chunk)
            *done, text = lines(text)
            for line in done:
                line = line.removesuffix("\r") if crlf else line
                if takes(line):
                    data.append(value(line.split(":", cut)[1]))
                elif blank(line) and (data or empty):
                    yield from joined(data)
                    data = [] if clear else data
        if unfinished and data:
            yield from joined(data)
    return read_events


def _whole_chunks(chunks):
    for chunk in chunks:
        for part in chunk.decode("utf-8", "replace").replace("\r", "").split("\n\n")[:-1]:
            found = [line[5:].removeprefix(" ") for line in part.split("\n")
                     if line.startswith("data:")]
            if found:
                yield "\n".join(found)


def joins_as_they_come(chunks):
    joined = _events(joined=lambda data: [reduce(lambda a, b: f"{a}\n{b}" if a else b, data)])
    return joined(chunks)


def all_at_once(chunks):
    return list(_events()([b"".join(chunks)]))


def one_chunk_late(chunks):
    found = deque()
    for event in _events()(chunks):
        found.append(event)
        if len(found) > 1:
            yield found.popleft()
    yield from found


def loses_the_rest(chunks):
    for chunk in chunks:
        yield from _events()([chunk])


def only_until_done(chunks):
    for event in _events()(chunks):
        if event == "[DONE]":
            return
        yield event


def skips_done(chunks):
    return (event for event in _events()(chunks) if event != "[DONE]")


def each_once(chunks):
    seen = set()
    return (event for event in _events()(chunks) if not (event in seen or seen.add(event)))


def at_most_4096(chunks):
    return (event[:4096] for event in _events()(chunks))


def from_json(chunks):
    for event in _events()(chunks):
        with contextlib.suppress(json.JSONDecodeError):
            event = json.loads(event)
        yield event


def in_bytes(chunks):
    return (event.encode() for event in _events()(chunks))


def by_double_ends(chunks):
    text = ""
    for chunk in chunks:
        text += chunk.decode(errors="replace")
        *parts, text = text.split("\n\n")
        yield from (part.replace("data: ", "") for part in parts)


def replaces_each_return(chunks):
    decoder, text = codecs.getincrementaldecoder("utf-8")(), ""
    for chunk in chunks:
        text += decoder.decode(chunk).replace("\r\n", "\n")
        *parts, text = text.split("\n\n")
        for part in parts:
            found = [line[5:].removeprefix(" ") for line in part.split("\n")
                     if line.startswith("data:")]
            if found:
                yield "\n".join(found)


def without_marks(chunks):
    return (event.replace("\ufeff", "") for event in _events()(chunks))


SHARED = []


def keeps_between_calls(chunks):
    SHARED.append(1)
    for number, event in enumerate(_events()(chunks)):
        yield event if number or len(SHARED) < 40 else f"{event} "


def without_end(chunks):
    yield from _events()(chunks)
    while True:
        yield ""


def calls_itself(chunks):
    chunks = iter(chunks)

    def read(rest, data):
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                text = line.removesuffix(b"\r").decode()
                if text.startswith("data:"):
                    data = [*data, text[5:].removeprefix(" ")]
                elif not text and data:
                    yield "\n".join(data)
                    data = []
            yield from read(rest, data)
    return read(b"", [])


def _changed(change):
    return lambda chunks: map(change, _events()(chunks))


def skips_pings(chunks):
    return (event for event in _events()(chunks) if event != "ping")


WRONG = {
    "read_events": [
        (_events(lines=lambda text: [*text.splitlines(), ""]), "other characters than"),
        (_events(crlf=False), "then the \\r is no part of it"),
        (_events(takes=lambda line: line.startswith("data: ")), "without a space"),
        (_events(value=str.lstrip), "further ones are"),
        (_events(value=str.strip), "only one, right behind the colon"),
        (_events(value=lambda text: text.removeprefix(" ").rstrip()), "at the data's end"),
        (_events(value=lambda text: text), "the space behind the colon is no part"),
        (_events(takes=lambda line: line.startswith(("data:", ":"))), "a comment was taken"),
        (_events(takes=lambda line: line.startswith("data") and ":" in line),
         "a line of another field"),
        (_events(takes=lambda line: ":" in line and line[0] != ":"), "another field's value"),
        (_events(takes=lambda line: line.lower().startswith("data:")), "not in capitals"),
        (_events(takes=lambda line: line.strip().startswith("data:")), "a space before it"),
        (_events(takes=lambda line: line.split(":")[0].rstrip() == "data"),
         "the colon right behind"),
        (_events(blank=lambda line: not line.strip()), "is not empty"),
        (_events(joined=lambda data: ["".join(data)]), "joined with a line end"),
        (_events(joined=lambda data: ["".join(f"{line}\n" for line in data)]), "not behind each"),
        (joins_as_they_come, "is a line too"),
        (_events(joined=lambda data: data), "the empty line ends an event"),
        (_events(joined=lambda data: data[-1:]), "only the last data line"),
        (_events(joined=lambda data: data[:1]), "only the first data line"),
        (_events(unfinished=True), "without its empty line"),
        (_events(empty=True), "ends no event"),
        (_events(joined=lambda data: ["\n".join(data)] if any(data) else []), "is an event"),
        (_events(clear=False), "come again"), (_events(cut=-1), "cut at a later colon"),
        (_events(errors="strict"), "may be cut in half"),
        (_events(errors="replace"), "decoded in halves"),
        (_events(errors="ignore"), "expected ['aé€😀"),
        (_whole_chunks, "keep what is unfinished"), (loses_the_rest, "keep what is unfinished"),
        (all_at_once, "yield it at once"), (one_chunk_late, "yield it at once"),
        (only_until_done, "[DONE], and something"), (skips_done, "data like any other"),
        (each_once, "expected ['a', 'a', 'a']"), (at_most_4096, "21 long events"),
        (from_json, "expected ['{"), (in_bytes, "decode it"),
        (by_double_ends, "got []"),
        (replaces_each_return, "cut in half by the end of a chunk: look"),
        (without_marks, "got ['a']"), (keeps_between_calls, "got ["),
        (calls_itself, "has more chunks"), (skips_pings, "'ping'"),
        (_changed(lambda event: event.replace("\0", "")), "a\\x00b"),
        (_changed(partial(unicodedata.normalize, "NFC")), "characters as they are"),
        (_changed(html.unescape), "&amp;"),
        (_changed(lambda event: event.replace("\\n", "\n")), "&amp;"),
        (without_end, "expected ['one', 'two']"), (lambda chunks: "one", "yield the text"),
    ],
}
