"""Foreseen wrong answers of exercise 07c.2: (answer, a piece of its message)."""

import asyncio
import contextlib


def _tokens(engine, number):
    while (token := engine.next(number)) is not None:
        yield token


def never_gives_back(engine, request):
    number = engine.submit(request)
    yield from _tokens(engine, number)


def at_the_end_alone(engine, request):
    yield from never_gives_back(engine, request)
    engine.release(engine.number)


def _giving_back_after(*errors):
    def stream_answer(engine, request):
        number = engine.submit(request)
        try:
            yield from _tokens(engine, number)
        except errors:
            engine.release(number)
            raise
        engine.release(number)
    return stream_answer


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


WRONG = {
    "stream_answer": [
        (never_gives_back, "so one is lost each time"),
        (at_the_end_alone, "closed behind 1 tokens: the slot is not given back"),
        (_giving_back_after(Exception), "the slot is not given back"),
        (_giving_back_after(GeneratorExit), "_Left behind token 1: the slot is not"),
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
        (no_repeats, "9 of 11 came"),
        (_giving_back_after(Exception, GeneratorExit, KeyboardInterrupt, asyncio.CancelledError),
         "SystemExit behind token 1: the slot"),
        (tries_again, "TimeoutError while waiting for token 1: the error is swallowed"),
        (reads_on, "writes for nobody"), (asks_twice_at_the_end, "behind the end means nothing"),
        (busy_is_no_error, "swallowed"), (lambda engine, request: request, "write a generator"),
    ],
}
