"""Wrong answers to the exercises of chapter 01b, and what the check must say to each."""

from __future__ import annotations

import re


# 01b.1
def _regions(text, pattern):
    found, end = [], 0
    for match in re.finditer(pattern, text):
        found += [("code", text[end:match.start()]),
                  ("comment" if match[0][0] == "#" else "string", match[0])]
        end = match.end()
    return [pair for pair in [*found, ("code", text[end:])] if pair[1]]


def comments_first(text):
    parts = re.split(r"(#[^\n]*)", text)
    found = []
    for i, part in enumerate(parts):
        found += [("comment", part)] if i % 2 else _regions(part, r'"(?:\\[^\n]|[^"\\\n])*"?')
    return [pair for pair in found if pair[1]]


def hash_ends_a_string(text):
    return _regions(text, r'#[^\n]*|"(?:\\[^\n]|[^"\\\n#])*"?')


def no_backslash(text):
    return _regions(text, r'#[^\n]*|"[^"\n]*"?')


def comment_with_line_end(text):
    return _regions(text, r'#[^\n]*\n?|"(?:\\[^\n]|[^"\\\n])*\\?"?')


def string_over_lines(text):
    return _regions(text, r'#[^\n]*|"(?:\\[\s\S]|[^"\\])*"?')


def no_closing_quote(text):
    return _regions(text, r'#[^\n]*|"(?:\\[^\n]|[^"\\\n])*')


def empty_pieces(text):
    right = _regions(text, r'#[^\n]*|"(?:\\[^\n]|[^"\\\n])*\\?"?')
    return [("code", ""), *right]


def pieces_alone(text):
    return [piece for _, piece in _regions(text, r'#[^\n]*|"(?:\\[^\n]|[^"\\\n])*\\?"?')]


def drops_strings(text):
    return [pair for pair in _regions(text, r'#[^\n]*|"(?:\\[^\n]|[^"\\\n])*\\?"?')
            if pair[0] != "string"]


def carriage_return_ends_a_comment(text):
    return _regions(text, r'#[^\r\n]*|"(?:\\[^\r\n]|[^"\\\r\n])*\\?"?')


def apostrophes_too(text):
    return _regions(text, r"""#[^\n]*|["'](?:\\[^\n]|[^"'\\\n])*\\?["']?""")


def line_by_line(text):
    found = []
    for line in text.splitlines(keepends=True):
        for kind, piece in _regions(line, r'#[^\n]*|"(?:\\[^\n]|[^"\\\n])*\\?"?'):
            if found and found[-1][0] == kind == "code":
                found[-1] = (kind, found[-1][1] + piece)
            else:
                found.append((kind, piece))
    return found


def long_texts_cut(text):
    return _regions(text[:1000], r'#[^\n]*|"(?:\\[^\n]|[^"\\\n])*\\?"?')


# 01b.2
def _fold(lines, most_period, first=1, better=lambda new, old: new[0] * new[1] > old[0] * old[1],
          count=lambda times: times, least=1, same=lambda a, b: a == b):
    folded, at = [], 0
    while at < len(lines):
        best = (0, 0)
        for period in range(first, min(most_period, at) + 1):
            end = at
            while end < len(lines) and same(lines[end], lines[end - period]):
                end += 1
            new = (period, (end - at) // period)
            if new[1] and better(new, best):
                best = new
        if best[0] * best[1] >= least and best[1]:
            folded.append((best[0], count(best[1])))
            at += best[0] * best[1]
        else:
            folded.append(lines[at])
            at += 1
    return folded


def times_with_the_first(lines, most_period):
    return _fold(lines, most_period, count=lambda times: times + 1)


def pair_turned(lines, most_period):
    return [step if isinstance(step, str) else step[::-1] for step in _fold(lines, most_period)]


def single_lines_only(lines, most_period):
    return _fold(lines, 1)


def first_period_wins(lines, most_period):
    return _fold(lines, most_period, better=lambda new, old: not old[1])


def single_repeats_kept(lines, most_period):
    return _fold(lines, most_period, least=2)


def one_period_too_far(lines, most_period):
    return _fold(lines, most_period + 1)


def last_period_left_out(lines, most_period):
    return _fold(lines, most_period - 1)


def nothing_folded(lines, most_period):
    return list(lines)


def list_is_emptied(lines, most_period):
    folded = _fold(lines, most_period)
    lines.clear()
    return folded


def longest_period_wins(lines, most_period):
    return _fold(lines, most_period,
                 better=lambda new, old: new[0] * new[1] >= old[0] * old[1])


def case_is_ignored(lines, most_period):
    return _fold(lines, most_period, same=lambda a, b: a.lower() == b.lower())


def white_space_is_ignored(lines, most_period):
    return _fold(lines, most_period, same=lambda a, b: a.strip() == b.strip())


def beginnings_are_compared(lines, most_period):
    return _fold(lines, most_period, same=lambda a, b: a[:5] == b[:5])


def the_same_object(lines, most_period):
    return _fold(lines, most_period, same=lambda a, b: a is b)


def six_lines_at_most(lines, most_period):
    return _fold(lines, min(most_period, 6))


# 01b.3
def zeros_lost(line):
    return re.sub("[0-9]+", "\0", line), [int(n) for n in re.findall("[0-9]+", line)]


def strings_kept(line):
    return re.sub("[0-9]+", "\0", line), re.findall("[0-9]+", line)


def _pack(line, digits="[0-9]+", refuse=True):
    if refuse and "\0" in line:
        raise ValueError(line)
    numbers = []

    def blank(found):
        numbers.append(int(found[0]))
        return "0" * (len(found[0]) - len(str(numbers[-1]))) + "\0"

    return re.sub(digits, blank, line), numbers


def every_script(line):
    return _pack(line, r"\d+")


def digit_by_digit(line):
    return _pack(line, "[0-9]")


def mark_accepted(line):
    return _pack(line, refuse=False)


def template_alone(line):
    return _pack(line)[0]


def last_number_lost(line):
    template, numbers = _pack(line)
    return template, numbers[:-1]


def mark_accepted_without_numbers(line):
    return _pack(line, refuse=bool(re.search("[0-9]", line)))


# 01b.4
def _fair(ours, rivals, fits, best=min):
    fair = {name: rival["tokens"] for name, rival in rivals.items() if fits(rival)}
    name = best(fair, key=fair.get, default=None)
    return None if name is None else (name, ours["tokens"] / fair[name])


def any_size(ours, rivals):
    return _fair(ours, rivals, lambda r: r["lossless"] and r["trained_on"] == ours["trained_on"])


def any_text(ours, rivals):
    return _fair(ours, rivals,
                 lambda r: r["lossless"] and r["vocab_size"] <= ours["vocab_size"])


def lossy_too(ours, rivals):
    return _fair(ours, rivals, lambda r: r["trained_on"] == ours["trained_on"]
                 and r["vocab_size"] <= ours["vocab_size"])


def fits_all(ours, r):
    return (r["lossless"] and r["trained_on"] == ours["trained_on"]
            and r["vocab_size"] <= ours["vocab_size"])


def weakest(ours, rivals):
    return _fair(ours, rivals, lambda r: fits_all(ours, r), best=max)


def upside_down(ours, rivals):
    found = _fair(ours, rivals, lambda r: fits_all(ours, r))
    return found and (found[0], 1 / found[1])


def equal_size_only(ours, rivals):
    return _fair(ours, rivals, lambda r: fits_all(ours, r)
                 and r["vocab_size"] == ours["vocab_size"])


def never_none(ours, rivals):
    return _fair(ours, rivals, lambda r: fits_all(ours, r)) or ("cl100k", 1.0)


WRONG = {
    "regions": [
        (comments_first, "look for what opens first, from left to right"),
        (hash_ends_a_string, "the # stands inside of a string"),
        (no_backslash, "skip the character behind a backslash"),
        (comment_with_line_end, "a comment ends before the line's end"),
        (string_over_lines, "a string that is not closed ends with its line"),
        (no_closing_quote, "the closing quote belongs to the string"),
        (empty_pieces, "leave out the empty pieces"),
        (pieces_alone, "return a list of (context, piece)"),
        (drops_strings, "joined, the pieces are not the text"),
        (carriage_return_ends_a_comment, r"only \n ends a line here"),
        (apostrophes_too, "an apostrophe opens no string"),
        (line_by_line, "expected"),
        (long_texts_cut, "expected")],
    "fold_repeats": [
        (times_with_the_first, "`times` counts how often the lines come *again*"),
        (pair_turned, "the pair is (period, times)"),
        (single_lines_only, "only single lines are folded"),
        (first_period_wins, "take the one that covers most lines"),
        (single_repeats_kept, "one line again is a repeat too"),
        (one_period_too_far, "is the longest allowed"),
        (last_period_left_out, "a period of `most_period` is still allowed"),
        (nothing_folded, "nothing was folded"),
        (list_is_emptied, "build a new list"),
        (longest_period_wins, "the shorter is asked for"),
        (case_is_ignored, "unfolded this gives"),
        (white_space_is_ignored, "unfolded this gives"),
        (beginnings_are_compared, "unfolded this gives"),
        (the_same_object, "compare with =="),
        (six_lines_at_most, "as long as `most_period`")],
    "pack": [
        (zeros_lost, "leave the zeros in front in the template"),
        (strings_kept, "the numbers are strings"),
        (every_script, "take digits of every script"),
        (digit_by_digit, "a number is a run of digits"),
        (mark_accepted, "two places for one number"),
        (template_alone, "return template, numbers"),
        (last_number_lost, "put back together this is"),
        (mark_accepted_without_numbers, "looks like a template that lost one")],
    "fair_baseline": [
        (any_size, "a larger vocabulary is no fair rival"),
        (any_text, "learned from another text"),
        (lossy_too, "only lossless ones count"),
        (weakest, "the weakest rival was taken"),
        (upside_down, "the ratio is upside down"),
        (equal_size_only, "a smaller vocabulary may compete"),
        (never_none, "return None")],
}
