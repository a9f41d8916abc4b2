"""Foreseen wrong answers of chapter 07c: (answer, a piece of its message)."""

import asyncio
import codecs
import contextlib
import html
import json
import math
import time
import unicodedata
from collections import deque
from functools import partial, reduce


# 07c.1
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


# 07c.2
def _tokens(engine, number):
    while (token := engine.next(number)) is not None:
        yield token


def never_gives_back(engine, request):
    number = engine.submit(request)
    yield from _tokens(engine, number)


def at_the_end_alone(engine, request):
    yield from never_gives_back(engine, request)
    engine.release(engine.number)


def after_errors_alone(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
    except Exception:
        engine.release(number)
        raise
    engine.release(number)


def closed_alone(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
    except GeneratorExit:
        engine.release(number)
        raise
    engine.release(number)


def swallows(engine, request):
    number = engine.submit(request)
    with contextlib.suppress(BaseException):
        yield from _tokens(engine, number)
    engine.release(number)


def returns_in_finally(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
    finally:
        engine.release(number)
        return  # noqa: B012  the mistake


def twice(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
        engine.release(number)
    finally:
        engine.release(number)


def twice_after_errors(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
    except BaseException:
        engine.release(number)
        raise
    finally:
        engine.release(number)


def submits_inside_try(engine, request):
    number = None
    try:
        number = engine.submit(request)
        yield from _tokens(engine, number)
    finally:
        engine.release(number)


def unbound(engine, request):
    try:
        number = engine.submit(request)
        yield from _tokens(engine, number)
    finally:
        engine.release(number)


def submits_at_once(engine, request):
    number = engine.submit(request)

    def tokens():
        try:
            yield from _tokens(engine, number)
        finally:
            engine.release(number)
    return tokens()


def zero_ends(engine, request):
    number = engine.submit(request)
    try:
        while token := engine.next(number):
            yield token
    finally:
        engine.release(number)


def number_zero_is_none(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
    finally:
        if number:
            engine.release(number)


def collects(engine, request):
    number = engine.submit(request)
    try:
        found = list(iter(lambda: engine.next(number), None))
    finally:
        engine.release(number)
    yield from found


def one_ahead(engine, request):
    number = engine.submit(request)
    try:
        token = engine.next(number)
        while token is not None:
            following = engine.next(number)
            yield token
            token = following
    finally:
        engine.release(number)


def gives_back_early(engine, request):
    number = engine.submit(request)
    engine.release(number)
    yield from _tokens(engine, number)


def the_newest(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
    finally:
        engine.release(engine.number)


def everybodys(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
    finally:
        for each in list(engine.released):
            if not engine.released[each]:
                engine.release(each)


def yields_the_end(engine, request):
    number = engine.submit(request)
    try:
        token = 0
        while token is not None:
            token = engine.next(number)
            yield token
    finally:
        engine.release(number)


def yields_without_end(engine, request):
    number = engine.submit(request)
    try:
        while True:
            yield engine.next(number)
    finally:
        engine.release(number)


def yields_in_finally(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
    finally:
        engine.release(number)
        yield None


def says_goodbye(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
    except GeneratorExit:
        engine.release(number)
        yield "gone"
    else:
        engine.release(number)


def goes_on(engine, request):
    number = engine.submit(request)
    try:
        while (token := engine.next(number)) is not None:
            with contextlib.suppress(Exception):
                yield token
    finally:
        engine.release(number)


def another_error(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
    except Exception as error:
        raise RuntimeError("the client is gone") from error
    finally:
        engine.release(number)


def at_most_100(engine, request):
    number = engine.submit(request)
    try:
        for _ in range(100):
            if (token := engine.next(number)) is None:
                return
            yield token
    finally:
        engine.release(number)


def empty_keeps_its_slot(engine, request):
    number = engine.submit(request)
    token = engine.next(number)
    if token is None:
        return
    try:
        while token is not None:
            yield token
            token = engine.next(number)
    finally:
        engine.release(number)


def busy_is_no_error(engine, request):
    with contextlib.suppress(RuntimeError):
        number = engine.submit(request)
        try:
            yield from _tokens(engine, number)
        finally:
            engine.release(number)


def _until(ends, change=lambda token: token):
    def stream_answer(engine, request):
        number = engine.submit(request)
        try:
            while not ends(token := engine.next(number)):
                yield change(token)
        finally:
            engine.release(number)
    return stream_answer


def no_repeats(engine, request):
    number, last = engine.submit(request), None
    try:
        for token in _tokens(engine, number):
            if token != last:
                yield token
            last = token
    finally:
        engine.release(number)


def lists_the_errors(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
    except (Exception, GeneratorExit, KeyboardInterrupt, asyncio.CancelledError):
        engine.release(number)
        raise
    engine.release(number)


def tries_again(engine, request):
    number = engine.submit(request)

    def following():
        try:
            return engine.next(number)
        except TimeoutError:
            return engine.next(number)
    try:
        yield from iter(following, None)
    finally:
        engine.release(number)


def reads_on(engine, request):
    number = engine.submit(request)
    try:
        yield from _tokens(engine, number)
    except GeneratorExit:
        with contextlib.suppress(Exception):
            list(_tokens(engine, number))
        raise
    finally:
        engine.release(number)


def asks_twice_at_the_end(engine, request):
    number = engine.submit(request)
    try:
        while (token := engine.next(number)) is not None or engine.next(number) is not None:
            yield token
    finally:
        engine.release(number)


# 07c.3
def _limit(full=True, cap=True, charged=False, whole=False, stays=False, ok=lambda credit:
           credit >= 1, most=None, wait=lambda credit, rate: (1 - credit) / rate, yes=0, no=None):
    def limit_rate(rate, burst, clock):
        credit, last = (burst if full else 0), clock()

        def ask():
            nonlocal credit, last
            now = clock()
            gained = (now - last) * rate
            credit += int(gained) if whole else gained
            credit = min(credit, most or burst) if cap else credit
            last = last if stays else now
            if ok(credit):
                credit -= 1
                return yes
            found = wait(credit, rate) if no is None else no
            credit -= charged
            return found
        return ask
    return limit_rate


def fixed_window(rate, burst, clock):
    begun, count = clock(), 0

    def ask():
        nonlocal begun, count
        if clock() - begun >= burst / rate:
            begun, count = clock(), 0
        count += 1
        return 0 if count <= burst else begun + burst / rate - clock()
    return ask


def sliding_window(rate, burst, clock):
    seen = deque()

    def ask():
        now = clock()
        while seen and now - seen[0] >= burst / rate:
            seen.popleft()
        if len(seen) < burst:
            seen.append(now)
            return 0
        return seen[0] + burst / rate - now
    return ask


def its_own_clock(rate, burst, clock):
    return _limit()(rate, burst, time.monotonic)


def reads_once(rate, burst, clock):
    now = clock()
    return _limit()(rate, burst, lambda: now)


def clock_from_zero(rate, burst, clock):
    credit, last = 0, 0

    def ask():
        nonlocal credit, last
        now = clock()
        credit, last = min(credit + (now - last) * rate, burst), now
        if credit >= 1:
            credit -= 1
            return 0
        return (1 - credit) / rate
    return ask


def reserves(rate, burst, clock):
    free = clock() - burst / rate

    def ask():
        nonlocal free
        now = clock()
        free = max(free, now - burst / rate) + 1 / rate
        return max(0, free - now)
    return ask


BUCKETS = {}


def shared(rate, burst, clock):
    return BUCKETS.setdefault((rate, burst), _limit()(rate, burst, clock))


def rounds_to_milliseconds(rate, burst, clock):
    ask = _limit()(rate, burst, clock)
    return lambda: round(ask(), 3)


def rounds_credit(rate, burst, clock):
    credit, last = burst, clock()

    def ask():
        nonlocal credit, last
        now = clock()
        credit, last = min(round(credit + (now - last) * rate, 1), burst), now
        if credit >= 1:
            credit -= 1
            return 0
        return (1 - credit) / rate
    return ask


def at_most_ten(rate, burst, clock):
    return _limit()(rate, min(burst, 10), clock)


def rates_of_two(rate, burst, clock):
    return _limit()(2 ** round(math.log2(rate)), burst, clock)


def tired(rate, burst, clock):
    ask, count = _limit()(rate, burst, clock), 0

    def counted():
        nonlocal count
        count += 1
        return ask() if count < 500 else 1
    return counted


def looks_twice(rate, burst, clock):
    credit, last = burst, clock()

    def ask():
        nonlocal credit, last
        credit = min(credit + (clock() - last) * rate, burst)
        last = clock()
        if credit >= 1:
            credit -= 1
            return 0
        return (1 - credit) / rate
    return ask


def waits_a_minute_at_most(rate, burst, clock):
    ask = _limit()(rate, burst, clock)
    return lambda: min(ask(), 60)


def an_hour_at_most(rate, burst, clock):
    begun, lost = clock(), 0

    def shorter():
        nonlocal begun, lost
        now = clock()
        lost += max(0, now - begun - 3600)
        begun = now
        return now - lost
    return _limit()(rate, burst, shorter)


def _rates(change):
    return lambda rate, burst, clock: _limit()(change(rate), burst, clock)


def nearly_is_enough(rate, burst, clock):
    return _limit(ok=lambda credit: credit > 0.999)(rate, burst, clock)


def one_too_many(rate, burst, clock):
    return _limit()(rate, burst + 1, clock)


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
    "stream_answer": [
        (never_gives_back, "so one is lost each time"),
        (at_the_end_alone, "closed behind 1 tokens: the slot is not given back"),
        (after_errors_alone, "the slot is not given back"),
        (closed_alone, "_Left behind token 1: the slot is not"),
        (swallows, "swallowed"), (returns_in_finally, "swallowed"),
        (twice, "given back 2 times"), (twice_after_errors, "given back 2 times"),
        (submits_inside_try, "submit failed, so there is no slot"),
        (unbound, "UnboundLocalError"), (submits_at_once, "inside the generator"),
        (zero_ends, "token 0 is no end"), (number_zero_is_none, "three at once: the slot is not"),
        (collects, "yield each as it comes"), (one_ahead, "yield each as it comes"),
        (gives_back_early, "is not at work"), (the_newest, "which belong to others"),
        (everybodys, "which belong to others"), (yields_the_end, "was given as a token"),
        (yields_without_end, "was given as a token"), (yields_in_finally, "as a token"),
        (says_goodbye, "behind GeneratorExit nothing may be yielded"),
        (goes_on, "the generator goes on"), (another_error, "instead of the error itself"),
        (at_most_100, "got [0, 1, 2"), (empty_keeps_its_slot, "the slot is not given back"),
        (_until(lambda token: token in (None, "")), "0 of 11 came"),
        (_until(lambda token: token in (None, -1)), "2 of 11 came"),
        (_until(lambda token: token in (None,), int), "ValueError"),
        (no_repeats, "9 of 11 came"), (lists_the_errors, "SystemExit behind token 1: the slot"),
        (tries_again, "TimeoutError while waiting for token 1: the error is swallowed"),
        (reads_on, "writes for nobody"), (asks_twice_at_the_end, "behind the end means nothing"),
        (busy_is_no_error, "swallowed"), (lambda engine, request: request, "write a generator"),
    ],
    "limit_rate": [
        (_limit(full=False), "begins empty"), (_limit(cap=False), "grows beyond the burst"),
        (_limit(charged=True), "who is refused pays too"), (_limit(whole=True), "is lost"),
        (_limit(stays=True), "counted again"), (_limit(ok=lambda credit: credit > 1), "is enough"),
        (_limit(ok=lambda credit: credit > 0), "one whole is"),
        (_limit(most=1), "several may come in at once"),
        (_limit(wait=lambda credit, rate: 1 / rate), "part of it is there already"),
        (_limit(wait=lambda credit, rate: 1 - credit), "divide by the rate"),
        (_limit(wait=lambda credit, rate: (1 - credit) * rate), "not multiplied"),
        (_limit(wait=lambda credit, rate: math.ceil((1 - credit) / rate)), "rounded up"),
        (_limit(yes=True, no=False), "the other way round"),
        (_limit(no=math.inf), "got inf"), (_limit(yes=None), "0 for who is let in"),
        (fixed_window, "expected"), (sliding_window, "expected"), (its_own_clock, "not looked at"),
        (reads_once, "expected"), (clock_from_zero, "expected"), (reserves, "expected"),
        (shared, "two limits"), (rounds_to_milliseconds, "expected"),
        (rounds_credit, "expected"), (at_most_ten, "at 0 expected"),
        (rates_of_two, "rate 3, burst"), (tired, "got 1.0"),
        (looks_twice, "look once, and keep"), (waits_a_minute_at_most, "expected 4096.0"),
        (an_hour_at_most, "at 20000 expected"),
        (_rates(lambda rate: int(rate) or rate), "rate 2.5"),
        (_rates(lambda rate: min(rate, 16)), "rate 1024"),
        (_rates(lambda rate: max(rate, 1 / 32)), "rate 0.000244"),
        (lambda rate, burst, clock: _limit()(rate, min(burst, 50), clock), "burst 300"),
        (nearly_is_enough, "s before the wait is over"), (one_too_many, "expected"),
        (lambda rate, burst, clock: 0, "without arguments"),
    ],
}
