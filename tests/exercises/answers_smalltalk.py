"""Wrong answers to the exercises of chapter 09, and what the check must say to each."""

from __future__ import annotations

import math

from scratchbook.companions.exercises_bugs import METHODS
from scratchbook.smalltalk.viable import is_method


# 09.1
def _parts(tokens):
    parts = [[]]
    for token in tokens:
        if token == ";":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _message(part):
    return "".join(part[::2]), part[1::2]


def receiver_is_the_first_token(tokens):
    first, *rest = _parts(tokens)
    return first[:1], [_message(part) for part in [first[1:], *rest]]


def receiver_is_a_text(tokens):
    first, *rest = _parts(tokens)
    return first[0], [_message(part) for part in [first[1:], *rest]]


def first_message_forgotten(tokens):
    first, *rest = _parts(tokens)
    return first[:1], [_message(part) for part in rest]


def keywords_apart(tokens):
    first, *rest = _parts(tokens)
    found = []
    for part in [first[1:], *rest]:
        pairs = [part[at:at + 2] for at in range(0, len(part), 2)]
        found += [(pair[0], pair[1:]) for pair in pairs]
    return first[:1], found


def messages_as_tokens(tokens):
    first, *rest = _parts(tokens)
    return first[:1], [first[1:], *rest]


def messages_alone(tokens):
    return [_message(part) for part in _parts(tokens)]


def cuts_the_list(tokens):
    first, *rest = _parts(tokens)
    del tokens[len(first):]
    return first[:1], [_message(part) for part in [first[1:], *rest]]


def _right(tokens, is_sign=lambda token: not any(map(str.isalnum, token))):
    first, *rest = _parts(tokens)
    keywords = [at for at, token in enumerate(first) if token.endswith(":")]
    cut = min(keywords, default=len(first) - (2 if is_sign(first[-2]) else 1))
    return first[:cut], [_message(part) for part in [first[cut:], *rest]]


def _right_but(change):
    def parse_cascade(tokens):
        receiver, messages = _right(tokens)
        return receiver, change(messages)
    return parse_cascade


def exchanged_parts(tokens):
    return _right(tokens)[::-1]


def a_minus_is_a_sign(tokens):
    return _right(tokens, lambda token: token[0] in "+-*/\\<>=~,@&|")


def few_signs(tokens):
    return _right(tokens, lambda token: token in ("+", "-", "*", ",", "->"))


def joins_and_splits(tokens):
    first, *rest = [part.split() for part in " ".join(tokens).split(";")]
    receiver, messages = _right(first)
    return receiver, messages + [_message(part) for part in rest]


def empties_long_receivers(tokens):
    receiver, messages = _right(tokens)
    if len(receiver) > 1:
        tokens.clear()
    return receiver, messages


# 09.2
UNARY = {"negated": lambda x: -x, "squared": lambda x: x * x}
BINARY = {"+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y}
KEYWORD = {"max:": max, "min:": min}


def left_to_right(tokens):
    rest = list(tokens)
    value = int(rest.pop(0))
    while rest:
        token = rest.pop(0)
        if token in UNARY:
            value = UNARY[token](value)
        else:
            value = (BINARY | KEYWORD)[token](value, int(rest.pop(0)))
    return value


def _unary(rest):
    value = int(rest.pop(0))
    while rest and rest[0] in UNARY:
        value = UNARY[rest.pop(0)](value)
    return value


def as_school_teaches(tokens):
    rest = list(tokens)

    def product():
        value = _unary(rest)
        while rest and rest[0] == "*":
            rest.pop(0)
            value *= _unary(rest)
        return value

    def total():
        value = product()
        while rest and rest[0] in "+-":
            value = BINARY[rest.pop(0)](value, product())
        return value

    value = total()
    return KEYWORD[rest.pop(0)](value, total()) if rest else value


def keyword_as_strong_as_binary(tokens):
    rest = list(tokens)
    value = _unary(rest)
    while rest:
        value = (BINARY | KEYWORD)[rest.pop(0)](value, _unary(rest))
    return value


def keyword_before_binary(tokens):
    rest = list(tokens)

    def keyword():
        value = _unary(rest)
        return KEYWORD[rest.pop(0)](value, total()) if rest and rest[0] in KEYWORD else value

    def total():
        value = keyword()
        while rest and rest[0] in BINARY:
            value = BINARY[rest.pop(0)](value, keyword())
        return value
    return total()


def _total(rest, number=int, unary=99, signs=99):
    def term():
        value = number(rest.pop(0))
        for _ in range(unary):
            value = UNARY[rest.pop(0)](value) if rest and rest[0] in UNARY else value
        return value

    value = term()
    for _ in range(signs):
        value = BINARY[rest.pop(0)](value, term()) if rest and rest[0] in BINARY else value
    return value


def _value(tokens, **limits):
    rest = list(tokens)
    value = _total(rest, **limits)
    return KEYWORD[rest.pop(0)](value, _total(rest, **limits)) if rest else value


def empties_without_a_keyword(tokens):
    value = _value(tokens)
    if not KEYWORD.keys() & set(tokens):
        tokens.clear()
    return value


def right_to_left(tokens):
    rest = list(tokens)
    value = _unary(rest)
    return value if not rest else (BINARY | KEYWORD)[rest[0]](value, right_to_left(rest[1:]))


def empties_the_list(tokens):
    def total():
        value = _unary(tokens)
        while tokens and tokens[0] in BINARY:
            value = BINARY[tokens.pop(0)](value, _unary(tokens))
        return value

    value = total()
    return KEYWORD[tokens.pop(0)](value, total()) if tokens else value


# 09.3
def _fim(build, learned=None):
    def fim_split(ids, start, stop, marks):
        made = build(ids[:start], ids[start:stop], ids[stop:], *marks)
        hole = stop - start + 1
        given = [False] * (len(made) - hole) + [True] * hole
        return made, given if learned is None else learned(given)
    return fim_split


def in_place(a, hole, b, prefix, suffix, middle, end):
    return [prefix, *a, middle, *hole, suffix, *b, end]


def in_order(a, hole, b, prefix, suffix, middle, end):
    return [prefix, *a, suffix, *b, middle, *hole, end]


def suffix_first(a, hole, b, prefix, suffix, middle, end):
    return [suffix, *b, prefix, *a, middle, *hole, end]


def without_end(a, hole, b, prefix, suffix, middle, end):
    return [prefix, *a, suffix, *b, middle, *hole]


def without_marks(a, hole, b, *marks):
    return [*a, *b, *hole]


def one_too_many(ids, start, stop, marks):
    return _fim(in_order)(ids, start, stop + 1, marks)


def without_stars(ids, start, stop, marks):
    prefix, suffix, middle, end = marks
    return [prefix, ids[:start], suffix, ids[stop:], middle, ids[start:stop], end], [False] * 7


def own_marks(ids, start, stop, marks):
    return _fim(in_order)(ids, start, stop, (100, 101, 102, 103))


def sorted_marks(ids, start, stop, marks):
    return _fim(in_order)(ids, start, stop, sorted(marks))


def learned_by_value(ids, start, stop, marks):
    made, _ = _fim(in_order)(ids, start, stop, marks)
    return made, [each in (*ids[start:stop], marks[3]) for each in made]


def as_labels(ids, start, stop, marks):
    made, learned = _fim(in_order)(ids, start, stop, marks)
    return made, [each if known else -100 for each, known in zip(made, learned, strict=True)]


def cuts_at_the_end(ids, start, stop, marks):
    made = _fim(in_order)(ids, start, stop, marks)
    if stop == len(ids):
        del ids[start:]
    return made


# 09.4
def the_last_character(source):
    return source[:-1]


def unchanged(source):
    return source


def half_of_it(source):
    return source[: len(source) // 2]


def without_its_periods(source):
    return source.replace(".", "", 1) if "." in source else source[1:]


def gives_up(source):
    return None


def never_gives_up(source):
    found = [source[:at] + source[at + 1:] for at in range(len(source))]
    return next((each for each in found if not is_method(each)), found[-1])


def _first_bug(places, otherwise=None):
    def break_method(source):
        found = (source[:at] + source[at + 1:] for at in places(source))
        return next((each for each in found if not is_method(each)), otherwise)
    return break_method


def no_blanks(source):
    return [at for at, letter in enumerate(source) if not letter.isspace()]


def no_words(source):
    return [at for at, letter in enumerate(source) if not letter.isalnum() or len(source) == 1]


def first_of_each(source):
    return [at for at, letter in enumerate(source) if source.index(letter) == at]


def second_half(source):
    return range(len(source) // 2, len(source))


def first_twenty(source):
    return range(min(20, len(source)))


def two_if_one_is_too_few(source):
    found = (source[:at] + source[at + more:] for more in (1, 2)
             for at in range(len(source) - more + 1))
    return next((each for each in found if not is_method(each)), None)


def knows_them_by_heart(source):
    return _first_bug(lambda text: range(len(text)))(source) if source in METHODS else None


def looks_them_up(source):
    return {each: _first_bug(lambda text: range(len(text)))(each) for each in METHODS}[source]


# 09.5
def normal(passed, total):
    share = passed / total
    half = 1.96 * math.sqrt(share * (1 - share) / total)
    return share - half, share + half


def _wilson(passed, total, z=1.96):
    share = passed / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    half /= 1 + z * z / total
    return centre - half, centre + half


def ninety_per_cent(passed, total):
    return _wilson(passed, total, 1.645)


def exchanged(passed, total):
    return _wilson(passed, total)[::-1]


def in_per_cents(passed, total):
    return [100 * each for each in _wilson(passed, total)]


def says_nothing(passed, total):
    if not 0 <= passed <= total or total < 1:
        raise ValueError("no share")
    return _wilson(passed, total)


def takes_anything(passed, total):
    return (0.0, 0.0) if total == 0 else tuple(map(
        float, _wilson(min(max(passed, 0), total), total)))


def _refusing(change=lambda low, high: (low, high), text="{} of {}",
              refuses=lambda passed, total: not 0 <= passed <= total or total < 1):
    def wilson_interval(passed, total):
        if refuses(passed, total):
            raise ValueError(text.format(passed, total))
        return change(*_wilson(passed, total))
    return wilson_interval


def centre_alone(passed, total):
    return sum(_wilson(passed, total)) / 2


WRONG = {
    "parse_cascade": [
        (receiver_is_the_first_token, "the receiver is that of the last message"),
        (receiver_is_a_text, "the receiver is a list of tokens"),
        (first_message_forgotten, "the message before the first ; is one of the cascade's"),
        (keywords_apart, "at: 1 put: 2 is one message"),
        (messages_as_tokens, "a message is a pair"),
        (messages_alone, "return a pair"),
        (cuts_the_list, "the list was changed"),
        (empties_long_receivers, "the list was changed"),
        (exchanged_parts, "first the receiver's tokens, then the messages"),
        (_right_but(lambda messages: messages[:-1]), "the last message, + 3, is missing"),
        (_right_but(lambda messages: [each for each in messages if each[1]]),
         "cr is a message, too"),
        (_right_but(lambda messages: [None] * len(messages)), "a message is a pair"),
        (_right_but(lambda messages: [{"selector": name, "arguments": given}
                                      for name, given in messages]), "a message is a pair"),
        (_right_but(lambda messages: messages[:9]), "['Set', 'new', 'at:'"),
        (a_minus_is_a_sign, "for (['-3'"),
        (few_signs, "got [['-3', '==']"),
        (joins_and_splits, "'a; b: c'"),
    ],
    "message_value": [
        (left_to_right, "`squared` goes to the 3 alone"),
        (as_school_teaches, "is what school teaches"),
        (keyword_as_strong_as_binary, "the argument of max: is all of 3 + 4"),
        (right_to_left, "is what school teaches"),
        (empties_the_list, "the list was changed, copy it first"),
        (empties_without_a_keyword, "the list was changed, copy it first"),
        (keyword_before_binary, "the receiver of max: is all of 1 + 2"),
        (lambda tokens: _value(tokens, unary=2), "'negated', 'negated', 'negated'"),
        (lambda tokens: _value(tokens, signs=3), "200 more"),
        (lambda tokens: _value(tokens, number=lambda token: int(token[0])), "for (['17'])"),
        (lambda tokens: (_value(tokens) + 2**31) % 2**32 - 2**31, "200 more"),
        (lambda tokens: str(_value(tokens)), "'7' is a text"),
        (lambda tokens: [_value(tokens)], "got [7]"),
        (lambda tokens: None, "nothing is returned"),
    ],
    "fim_split": [
        (_fim(in_place), "the middle stands where it stood"),
        (_fim(suffix_first), "here the prefix is first"),
        (_fim(without_end), "the end's mark is missing"),
        (_fim(without_marks), "the four marks are missing"),
        (one_too_many, "the id at `stop` is behind the hole already"),
        (_fim(in_order, lambda learned: [True] * len(learned)), "the prompt is given"),
        (_fim(in_order, lambda learned: [not each for each in learned]), "the other way round"),
        (_fim(in_order, lambda learned: [*learned[:-1], False]), "the end is learned too"),
        (_fim(in_order, lambda learned: learned[1:]), "one True or False for each id"),
        (lambda ids, start, stop, marks: [*marks, *ids], "return two lists"),
        (without_stars, "a list stands in the list of ids"),
        (own_marks, "other marks"),
        (sorted_marks, "other marks"),
        (learned_by_value, "other marks"),
        (as_labels, "True or False for each id, not [-100"),
        (cuts_at_the_end, "the list was changed"),
    ],
    "break_method": [
        (the_last_character, "is still a method"),
        (unchanged, "nothing was left out"),
        (half_of_it, "more than one character left out"),
        (without_its_periods, "is still a method"),
        (gives_up, "there is a character without which"),
        (never_gives_up, "return None where every deletion leaves one"),
        (lambda source: 0, "a text is asked for"),
        (_first_bug(no_blanks), "'radix ^ 16 r '"),
        (_first_bug(no_words), "'sum ^ aa + a'"),
        (_first_bug(first_of_each), "'sum ^ aa + a'"),
        (_first_bug(second_half), r"'+ o\n\t^ other"),
        (_first_bug(first_twenty), "'numberOfDaysInAWeek"),
        (lambda source: _first_bug(lambda text: range(len(text)))(source.strip()),
         "'radix ^ 16 r '"),
        (_first_bug(lambda source: range(len(source)), ""), "return None, not ''"),
        (_first_bug(lambda source: range(len(source)), False), "return None, not False"),
        (knows_them_by_heart, "you return None, and"),
        (looks_them_up, "KeyError"),
        (two_if_one_is_too_few, "return None, not '+"),
    ],
    "wilson_interval": [
        (normal, "that is the normal interval"),
        (ninety_per_cent, "that is the 90 % interval"),
        (exchanged, "low and high are exchanged"),
        (in_per_cents, "not per cents"),
        (takes_anything, "it is no share"),
        (says_nothing, "which two numbers were given"),
        (centre_alone, "return a pair"),
        (_refusing(lambda low, high: ((low + high) / 2, (high - low) / 2)), "the half-width"),
        (_refusing(lambda low, high: (round(low, 4), round(high, 4))), "rounded"),
        (_refusing(lambda low, high: (low - 0.01, high + 0.01)), "the width is not"),
        (_refusing(lambda low, high: (None, None)), "got [None, None]"),
        (_refusing(text="{} is no share, and has no 95 % interval"), "which two numbers"),
        (_refusing(text="no share of {1}"), "which two numbers"),
        (_refusing(refuses=lambda passed, total: total == 0 or not 0 <= passed / total <= 1),
         "-1 of -5"),
    ],
}
