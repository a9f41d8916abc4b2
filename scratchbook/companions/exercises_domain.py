"""The checks of chapter 01b's exercises: properties first, then the mistakes people make.

Chapter:  chapters/01b_domain_tokenizers.ipynb
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator

from scratchbook.teaching.answers import as_list, changes_its_input, counterexample
from scratchbook.teaching.checking import Property, exercise, expect


def _tuples(got: object) -> object:
    """A list of tuples, whatever kinds of sequences were used."""
    items = as_list(got)
    if items is None:
        return got
    return [tuple(as_list(item)) if as_list(item) is not None else item for item in items]


# 01b.1 ---------------------------------------------------------------------------------------


_REGION = re.compile(r'#[^\n]*|"(?:\\[^\n]|[^"\\\n])*(?:\\(?=\n|\Z))?"?')


def _regions(text: str, pattern: re.Pattern[str] = _REGION) -> list[tuple[str, str]]:
    found, end = [], 0
    for match in pattern.finditer(text):
        found.append(("code", text[end:match.start()]))
        found.append(("comment" if match[0][0] == "#" else "string", match[0]))
        end = match.end()
    return [(kind, piece) for kind, piece in [*found, ("code", text[end:])] if piece]


REGION_SLIPS = {
    "the # stands inside of a string: look for what opens first, from left to right":
        r'#[^\n]*|"(?:\\[^\n]|[^"\\\n#])*"?',
    'a quoted quote, \\", does not end a string: skip the character behind a backslash':
        r'#[^\n]*|"[^"\n]*"?',
    "a comment ends before the line's end, which is code again":
        r'#[^\n]*\n?|"(?:\\[^\n]|[^"\\\n])*"?',
    "a string that is not closed ends with its line":
        r'#[^\n]*|"(?:\\[\s\S]|[^"\\])*"?',
    "the closing quote belongs to the string": r'#[^\n]*|"(?:\\[^\n]|[^"\\\n])*',
    r"only \n ends a line here: a \r is a character like any other":
        r'#[^\r\n]*|"(?:\\[^\r\n]|[^"\\\r\n])*\\?"?',
    'an apostrophe opens no string, only " does':
        r"""#[^\n]*|["'](?:\\[^\n]|[^"'\\\n])*\\?["']?""",
}


@exercise
def regions(answer: Callable) -> Iterator[Property]:
    """01b.1: a text of code as (context, piece), joined the text again."""
    def call(text: str) -> object:
        return _tuples(answer(text))

    for what, text in (
            ("code alone is one piece", "x = 1\ny\n"), ("the empty text has no pieces", ""),
            ("a comment goes on to the end of its line", "x # one\ny # two"),
            ("a string, with its quotes", 'a = "one" + b'),
            ("a # in a string is no comment", 'a = "#1" # real'),
            ("a quote in a comment opens no string", '# say "hi\nx = "y"'),
            ("a backslash keeps the quote inside", 'a = "say \\"hi\\"" + b'),
            ("two backslashes do not", 'a = "c:\\\\" + "b"'),
            ("a string that is not closed ends with its line", 'a = "oops\nb = 1'),
            ("a backslash before the line's end does not reach beyond it", 'a = "x\\\ny = "z"'),
            ("two strings side by side are two", '"a""b"'),
            ("an empty string is a string", 'f("")'),
            ("an apostrophe is code", "a = 'x' + b's'"),
            (r"only \n ends a line", '# a\rb\u2028c\n"d\re\x0bf" # g')):
        got, right = call(text), _regions(text)
        yield expect(what, got == right, *_region_mistakes(got, text, right))
    draw = random.Random(0)
    inputs = [("".join(letters),) for size in range(1, 6)
              for letters in itertools.product('a"#\n\\', repeat=size)][:1500]
    inputs += [("".join(draw.choices('ab ="#\n\\', k=k)),) for k in (9, 17, 40, 400) * 20]
    inputs += [("".join(draw.choices("ab ='\"#\r\n\x0b\u2028\\", k=k)),) for k in (20, 3000) * 5]
    differs = counterexample(call, _regions, inputs)
    yield expect("every short text of quotes, marks, backslashes and line ends", not differs,
                 (True, differs))


def _region_mistakes(got: object, text: str, right: list) -> list[tuple[bool, str]]:
    pieces = got if isinstance(got, list) and all(
        isinstance(p, tuple) and len(p) == 2 and isinstance(p[1], str) for p in got) else None
    if pieces is None:
        return [(True, f"return a list of (context, piece), not {got!r:.60}")]
    slips = [(got == _regions(text, re.compile(pattern)), message)
             for message, pattern in REGION_SLIPS.items()]
    return [(any(not piece for _, piece in pieces), "leave out the empty pieces"),
            *slips,
            ("".join(piece for _, piece in pieces) != text,
             f"joined, the pieces are not the text: {''.join(p for _, p in pieces)!r}"),
            (True, f"for {text!r} expected {right}, got {got}")]


# 01b.2 ---------------------------------------------------------------------------------------


def _fold(lines: list[str], most_period: int, longest: bool = True, first: int = 1,
          single: bool = True, ties: bool = False) -> list:
    folded: list = []
    at = 0
    while at < len(lines):
        best = (0, 0)
        for period in range(first, most_period + 1):
            if period > at:
                break
            end = at
            while end < len(lines) and lines[end] == lines[end - period]:
                end += 1
            times = (end - at) // period
            more = times * period - best[0] * best[1]
            if times and (more > 0 or (ties and more == 0) if longest else not best[1]):
                best = (period, times)
        if best[1] and (single or best[0] * best[1] > 1):
            folded.append(best)
            at += best[0] * best[1]
        else:
            folded.append(lines[at])
            at += 1
    return folded


def _unfold(folded: list) -> list[str] | None:
    lines: list[str] = []
    for step in folded:
        if isinstance(step, str):
            lines.append(step)
        elif len(step) == 2 and all(isinstance(n, int) for n in step) and 0 < step[0] <= len(lines):
            lines += lines[-step[0]:] * step[1]
        else:
            return None
    return lines


SAME, LONG = "equal is enough, it need not be one object", "a long period"
UNFOLDED = {SAME: "nothing was folded: compare with ==, for `is` asks for the very same object",
            LONG: "nothing was folded: a period may be as long as `most_period`, however long"}


@exercise
def fold_repeats(answer: Callable) -> Iterator[Property]:
    """01b.2: `fold_repeats(lines, most_period) -> lines and (period, times)`."""
    def call(lines: list[str], most_period: int) -> object:
        return _tuples(answer(lines, most_period))

    changed = changes_its_input(answer, ["a", "a", "a"], 2)
    yield expect("the list that was given is unchanged", not changed,
                 (True, "build a new list: the caller may still need the lines"))
    for what, lines, most in (
            ("nothing repeats: the lines as they are", ["a", "b", "c"], 3),
            ("no lines", [], 2),
            ("one line three times", ["a", "a", "a", "b"], 3),
            ("two lines three times", ["a", "b"] * 3 + ["c"], 3),
            ("a repeat at the end", ["x", "a", "b", "a", "b"], 2),
            ("a stretch that breaks off keeps its last lines", ["a", "b", "a", "b", "a"], 2),
            ("one line again", ["a", "a", "b"], 2),
            ("a period as long as the limit", ["a", "b", "c", "a", "b", "c"], 3),
            ("of two periods the one that covers more", ["a", "b", "a"] * 3, 3),
            ("of two that cover the same, the shorter", list("caacaaaa"), 3),
            ("equally long, with others before", list("abababbabababababab"), 6),
            ("no period beyond the limit", ["a", "b", "c"] * 2, 2),
            ("not before the start", ["b", "a", "b"], 3),
            ("lines are compared whole", ["Job 1", "job 1", "job 1 ", "job 10", " job 10"], 2),
            (SAME, ["job 12", "".join(("job ", "12"))], 2),
            (LONG, [f"frame {n}" for n in range(12)] * 3, 15)):
        got, right = call(list(lines), most), _fold(lines, most)
        yield expect(what, got == right, (got == lines and what in UNFOLDED,
                     UNFOLDED.get(what, "")), *_fold_mistakes(got, lines, most, right))
    draw = random.Random(1)
    inputs = [(list(letters), most) for size in range(1, 9)
              for letters in itertools.product("ab", repeat=size) for most in (1, 2, 3, 4)]
    inputs += [(draw.choices("abc", k=draw.randrange(8, 30)), draw.randrange(1, 6))
               for _ in range(200)]
    inputs += [(list("abcde" * 40 + "x"), 6), (["a"] * 500, 1)]
    differs = counterexample(call, _fold, inputs)
    yield expect("every list of up to eight lines, and many longer ones", not differs,
                 (True, differs))


def _fold_mistakes(got: object, lines: list[str], most: int, right: list
                   ) -> list[tuple[bool, str]]:
    if not isinstance(got, list):
        return [(True, f"return a list of lines and pairs, not {got!r:.60}")]
    back = _unfold(got)
    total = [(step[0], step[1] + 1) if isinstance(step, tuple) else step for step in right]
    return [
        (got == total != right, "`times` counts how often the lines come *again*, after the first"),
        (got == [step[::-1] if isinstance(step, tuple) else step for step in right] != right,
         "the pair is (period, times)"),
        (got == _fold(lines, most - 1) != right, "a period of `most_period` is still allowed"),
        (got == _fold(lines, 1) != right, "only single lines are folded: try longer periods too"),
        (got == _fold(lines, most, first=most) != right, "try every period up to the limit"),
        (got == lines != right, "nothing was folded"),
        (got == _fold(lines, most, longest=False) != right,
         "the first period that fits was taken: take the one that covers most lines"),
        (got == _fold(lines, most, ties=True) != right,
         "of two periods that cover the same lines, the shorter is asked for"),
        (got == _fold(lines, most, single=False) != right,
         "one line again is a repeat too, (1, 1)"),
        (got == _fold(lines, most + 1) != right,
         "a period of `most_period` is the longest allowed"),
        (back != lines, f"unfolded this gives {back}, not {lines}"),
        (True, f"for {lines} expected {right}, got {got}")]


# 01b.3 ---------------------------------------------------------------------------------------


def _pack(line: str) -> tuple[str, list[int]]:
    if "\0" in line:
        raise ValueError("the line holds the mark")
    numbers: list[int] = []

    def blank(found: re.Match[str]) -> str:
        numbers.append(int(found[0]))
        return found[0][:len(found[0]) - len(str(numbers[-1]))] + "\0"

    return re.sub("[0-9]+", blank, line), numbers


def _unpack(template: str, numbers: list[int]) -> str:
    pieces = template.split("\0")
    if len(pieces) != len(numbers) + 1:
        return f"({len(pieces) - 1} marks for {len(numbers)} numbers)"
    return pieces[0] + "".join(f"{n}{piece}" for n, piece in zip(numbers, pieces[1:], strict=True))


@exercise
def pack(answer: Callable) -> Iterator[Property]:
    """01b.3: `pack(line) -> (template, numbers)`, from which the line comes back exactly."""
    def call(line: str) -> object:
        got = as_list(answer(line))
        if got is None or len(got) != 2 or not isinstance(got[0], str) or as_list(got[1]) is None:
            return got
        return got[0], as_list(got[1])

    got = call("job 12 done")
    yield expect("two things: a template and a list of numbers", isinstance(got, tuple),
                 (True, f"return template, numbers, not {got!r:.60}"))
    if not isinstance(got, tuple):
        return
    for what, line in (
            ("a number", "job 12 done"), ("no number at all", "job done"), ("the empty line", ""),
            ("several, at both ends", "1 of 22, 333"),
            ("a time: zeros in front come back", "09:05:00"),
            ("only zeros", "000 0"), ("a number behind letters and a minus", "blk-8 x2y"),
            ("digits that are not ASCII are text", "٣ of 3"), ("superscripts too", "x² 2"),
            ("a long number", "id 38865049064139660123"), ("a full stop is none", "3.14 1,000"),
            ("the line's end", "a 5\r\n")):
        got, right = call(line), _pack(line)
        yield expect(f"{what}: {line!r}", got == right, *_pack_mistakes(got, line, right))
    for what, line, why in (
            ("ValueError for a line that holds the mark itself", "a \0 5",
             r"'a \0 5' has two places for one number: which one is meant?"),
            ("also where it holds no number", "a \0",
             r"'a \0' with no numbers looks like a template that lost one: refuse it too")):
        refused = False
        try:
            answer(line)
        except ValueError:
            refused = True
        yield expect(what, refused, (True, why))
    draw = random.Random(2)
    inputs = [("".join(letters),) for size in range(1, 5)
              for letters in itertools.product("01a٣", repeat=size)]
    inputs += [("".join(draw.choices("0019a:-.² \n٣", k=30)),) for _ in range(100)]
    differs = counterexample(call, _pack, inputs)
    yield expect("every short line of zeros, ones and letters", not differs, (True, differs))


def _pack_mistakes(got: object, line: str, right: tuple) -> list[tuple[bool, str]]:
    if not isinstance(got, tuple):
        return [(True, f"return template, numbers, not {got!r:.60}")]
    template, numbers = got
    texts = all(isinstance(n, str) for n in numbers) and bool(numbers)
    plain = re.sub("[0-9]+", "\0", line)
    back = _unpack(template, numbers)
    return [
        (texts, "the numbers are strings: make them int"),
        (template == plain != right[0],
         "int('05') is 5: leave the zeros in front in the template, or they are lost"),
        (line.isascii() is False and got == _pack_any(line) != right,
         r"\d and str.isdigit take digits of every script, and int makes them ASCII: [0-9] alone"),
        (numbers == [int(digit) for digit in re.findall("[0-9]", line)] != right[1],
         "a number is a run of digits, not one"),
        (back != line, f"put back together this is {back!r}"),
        (True, f"for {line!r} expected {right}, got {got}")]


def _pack_any(line: str) -> tuple[str, list[int]]:
    numbers: list[int] = []

    def blank(found: re.Match[str]) -> str:
        numbers.append(int(found[0]))
        return found[0][:len(found[0]) - len(str(numbers[-1]))] + "\0"

    return re.sub(r"\d+", blank, line), numbers


# 01b.4 ---------------------------------------------------------------------------------------


Candidate = dict


def _fair(ours: Candidate, rivals: dict[str, Candidate], size: bool = True, text: bool = True,
          lossless: bool = True, best: Callable = min) -> tuple[str, float] | None:
    fit = {name: rival["tokens"] for name, rival in rivals.items()
           if (not size or rival["vocab_size"] <= ours["vocab_size"])
           and (not text or rival["trained_on"] == ours["trained_on"])
           and (not lossless or rival["lossless"])}
    if not fit:
        return None
    name = best(fit, key=fit.get)
    return name, ours["tokens"] / fit[name]


def _candidate(vocab_size: int, trained_on: str, lossless: bool, tokens: int) -> Candidate:
    return {"vocab_size": vocab_size, "trained_on": trained_on, "lossless": lossless,
            "tokens": tokens}


RIVALS = {
    "cl100k": _candidate(100_277, "the web", True, 560),
    "BPE": _candidate(4096, "logs", True, 480),
    "BPE, tuned": _candidate(4096, "logs", True, 420),
    "English": _candidate(4096, "English", True, 410),
    "small": _candidate(1000, "logs", True, 700),
    "large": _candidate(8192, "logs", True, 390),
    "lossy": _candidate(4096, "logs", False, 60),
}
FAIR_SLIPS: dict[str, dict] = {
    "a larger vocabulary is no fair rival: it has more ids to save tokens with": {"size": False},
    "a rival that learned from another text is no fair one": {"text": False},
    "a rival that loses text can be as short as it likes: only lossless ones count":
        {"lossless": False},
    "the weakest rival was taken: the fair one is the strongest that fits": {"best": max},
}


@exercise
def fair_baseline(answer: Callable) -> Iterator[Property]:
    """01b.4: `fair_baseline(ours, rivals) -> (name, ratio)`, None where there is no fair rival."""
    ours = _candidate(4096, "logs", True, 105)

    def call(ours: Candidate, rivals: dict[str, Candidate]) -> object:
        got = answer(ours, rivals)
        items = as_list(got)
        return tuple(items) if items is not None else got

    changed = changes_its_input(answer, ours, RIVALS)
    yield expect("what was given is unchanged", not changed, (True, "a dictionary was changed"))
    few = {name: RIVALS[name] for name in ("cl100k", "BPE")}
    one = {"small": RIVALS["small"], "cl100k": RIVALS["cl100k"]}
    none = {name: RIVALS[name] for name in ("cl100k", "large", "lossy")}
    for what, rivals in (("one rival is fair", few), ("a smaller vocabulary may compete", one),
                         ("of all that fit, the strongest", RIVALS), ("none fits: None", none),
                         ("no rivals at all: None", {})):
        got, right = call(ours, dict(rivals)), _fair(ours, rivals)
        yield expect(what, _close(got, right), *_fair_mistakes(got, ours, rivals, right))
    draw = random.Random(3)

    def any_case() -> tuple[Candidate, dict[str, Candidate]]:
        def one() -> Candidate:
            return _candidate(draw.choice((512, 4095, 4096, 4097)), draw.choice("ab"),
                              draw.random() < 0.7, draw.randrange(50, 900))
        names = draw.sample("abcdefgh", draw.randrange(0, 7))
        tokens = draw.sample(range(50, 900), len(names))   # no ties: then either would be right
        return one(), {name: one() | {"tokens": count}
                       for name, count in zip(names, tokens, strict=True)}

    differs = counterexample(call, _fair, [any_case() for _ in range(400)])
    yield expect("four hundred other fields of rivals", not differs, (True, differs))


def _close(got: object, right: tuple[str, float] | None) -> bool:
    if right is None or not isinstance(got, tuple) or len(got) != 2:
        return got is None and right is None
    return got[0] == right[0] and abs(got[1] - right[1]) < 1e-9


def _fair_mistakes(got: object, ours: Candidate, rivals: dict[str, Candidate],
                   right: tuple[str, float] | None) -> list[tuple[bool, str]]:
    slips = [(not _close(got, right) and _close(got, _fair(ours, rivals, **slip)), message)
             for message, slip in FAIR_SLIPS.items()]
    upside = right is not None and _close(got, (right[0], 1 / right[1]))
    return [*slips,
            (upside, "the ratio is upside down: our tokens over the rival's, below 1 where we "
                     "save"),
            (right is None, f"no rival is fair here: return None, not {got!r:.60}"),
            (True, f"expected {right}, got {got!r:.80}")]
