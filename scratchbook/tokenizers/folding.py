"""Folding a log: a line that looks like an earlier one is written as what differs from it.

A log says a few things many times. Cut at its words, a line is words and what stands between
them; two lines of one *template* differ in few words, mostly those with a digit in them:

    10:04:07 INFO Worker 12 started            plain text, remembered in slot 0
    10:04:08 INFO Worker 12 started            LIKE 0, and UP 2: two words as before, the next
                                               number one higher, the rest as before
    10:04:08 INFO Worker 7 started             LIKE 0, SKIP 4, "7"

`fold` turns text into such marks and the strings that remain; `unfold` turns them back, exactly.
Both keep the same memory, which depends on the finished lines only. Nothing is thrown away: a
time, a path and a number come back digit by digit, and a text that is no log stays one string.

    TEXT       plain text follows           LIKE slot   a line like the one in that slot
    SKIP n     n words as before, then another word (a string or a SEEN)
    UP n       n words as before, then the number plus one      FAR   many words as before
    SEEN k     a path or a long word from the memory of those
    AGAIN p    the last p lines again, as many times as the string behind it says

Paper:    the idea of templates: He et al. (2017), "Drain", IEEE ICWS; of writing a line by its
          difference from the one before: front coding, Witten, Moffat and Bell (1999), section 4.1
Chapter:  chapters/01b_domain_tokenizers.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

LINE = re.compile(r"[^\n]*\n|[^\n]+")
WORD = re.compile(r"([A-Za-z0-9]+)")
# paths of two steps or more, and long words, of which those with a digit are kept: each
# alternative begins where a word cannot have begun before, so that reading stays linear
LONG = re.compile(r"((?:/[\w.+-]+){2,}|(?<![A-Za-z0-9])[A-Za-z0-9]{6,})", re.ASCII)
BLANK = "\ud800"  # half of a surrogate pair: no text that is checked can hold it

NEW_SLOTS = 128   # for templates met in the text itself
MOST_SEEN = 128   # long words that are remembered
MOST_SKIP = 47    # words as before, in one mark
LONGEST_PERIOD = 8  # lines
MOST_TIMES = 999  # one mark may repeat them: what a model makes up stays bounded
LONGEST_LINE = 2000  # characters: a longer one stays plain text
CHARS_PER_TOKEN = 3  # a guess, for choosing between the two ways to write a line


class Mark(NamedTuple):
    """One step of a folded text that is no string: its kind, and its number."""

    kind: str
    number: int = 0


TEXT, FAR = Mark("TEXT"), Mark("FAR")
Folded = list["str | Mark"]
Cut = tuple[list[str], str, str]


def marks(num_templates: int) -> list[Mark]:
    """Every mark that can occur, always in the same order; LIKE comes last, learned ones first."""
    sizes = {"SKIP": MOST_SKIP + 1, "UP": MOST_SKIP + 1, "SEEN": MOST_SEEN}
    counted = [Mark(kind, n) for kind, size in sizes.items() for n in range(size)]
    periods = [Mark("AGAIN", p) for p in range(1, LONGEST_PERIOD + 1)]
    likes = [Mark("LIKE", slot) for slot in range(num_templates + NEW_SLOTS)]
    return [TEXT, FAR, *counted, *periods, *likes]


def cut_line(line: str) -> Cut:
    """The parts of a line (words at odd places), its template and the marks between its words.

    The template is the line with every word that holds a digit blanked out.
    """
    parts = WORD.split(line)
    words = parts[1::2]
    template = parts.copy()
    template[1::2] = [word if word.isalpha() else BLANK for word in words]
    return parts, "".join(template), BLANK.join(parts[::2])


def is_long(word: str) -> bool:
    """Whether `fold` remembers this match of LONG: a path, or a long word with a digit."""
    return not word.isalpha()


class Memory:
    """What has been read so far, the same for the one that folds and the one that unfolds.

    `templates` are example lines, learned before: they own the first slots for good. Lines that
    match none take the slots behind them in turn.
    """

    def __init__(self, templates: Sequence[str] = ()) -> None:
        self.num_templates = len(templates)
        self.parts: list[list[str]] = [[] for _ in range(self.num_templates + NEW_SLOTS)]
        self._keys: list[tuple[str, str] | None] = [None] * len(self.parts)
        self._slot_of: dict[str, int] = {}
        self._latest: dict[str, int] = {}  # by the marks between the words
        self._new = 0
        self._seen: list[str] = []
        self._place_of: dict[str, int] = {}
        self._num_seen = 0
        for slot, line in enumerate(templates):
            self._put(slot, *cut_line(line))

    def _put(self, slot: int, parts: list[str], template: str, between: str) -> None:
        if (old := self._keys[slot]) and old[0] != template:
            del self._slot_of[old[0]]
            if self._latest.get(old[1]) == slot:
                del self._latest[old[1]]
        self.parts[slot], self._keys[slot] = parts, (template, between)
        self._slot_of[template] = self._latest[between] = slot

    def find(self, template: str, between: str) -> int | None:
        """The slot of this template, or of the last line with the same marks between words."""
        return self._slot_of.get(template, self._latest.get(between))

    def remember(self, line: str, cut: Cut | None = None) -> None:
        """Take in one finished line, and what `cut_line` makes of it if that is known."""
        if len(line) > LONGEST_LINE:
            return
        parts, template, between = cut or cut_line(line)
        slot = self._slot_of.get(template)
        if slot is None:
            slot = self.num_templates + self._new % NEW_SLOTS
            self._new += 1
        self._put(slot, parts, template, between)
        for word in LONG.findall(line):
            if is_long(word) and word not in self._place_of:
                self._remember_word(word)

    def _remember_word(self, word: str) -> None:
        place = self._num_seen % MOST_SEEN
        if self._num_seen < MOST_SEEN:
            self._seen.append(word)
        else:
            del self._place_of[self._seen[place]]
            self._seen[place] = word
        self._place_of[word] = place
        self._num_seen += 1

    def place(self, word: str) -> int | None:
        """Where a long word is remembered."""
        return self._place_of.get(word)

    def word(self, place: int) -> str | None:
        """The long word that is remembered there."""
        return self._seen[place] if place < len(self._seen) else None


def count_up(word: str) -> str:
    """The number plus one with as many digits, "" where that does not exist."""
    if not word.isdecimal() or word.count("9") == len(word):
        return ""
    return str(int(word) + 1).zfill(len(word))


def fold(text: str, templates: Sequence[str] = ()) -> Folded:
    """Write a text as marks and strings; `unfold` gives it back.

    Two strings never stand side by side. The first is plain text without a mark.
    """
    memory, lines = Memory(templates), LINE.findall(text)
    folded: Folded = []
    plain: list[str | Mark] = []  # not yet in `folded`
    in_text, at = True, 0
    while at < len(lines):
        line = lines[at]
        period, times = _repeat(lines, at)
        cut = None if times or len(line) > LONGEST_LINE else cut_line(line)
        marked = [Mark("AGAIN", period), str(times)] if times else _like(line, cut, memory)
        if marked:
            folded += _joined(plain)
            folded += marked
            plain, in_text = [], False
        else:
            plain += [] if in_text else [TEXT]
            plain += _with_seen(line, memory)
            in_text = True
        if not times:
            memory.remember(line, cut)
        at += period * times or 1
    return folded + _joined(plain)


def _repeat(lines: list[str], at: int) -> tuple[int, int]:
    """How many lines, repeated how often, go on from here: the longest stretch of all periods."""
    best, longest = (0, 0), 1  # one line again is one LIKE
    for period in range(1, min(LONGEST_PERIOD, at) + 1):
        end, last = at, min(len(lines), at + period * MOST_TIMES)
        while end < last and lines[end] == lines[end - period] and len(lines[end]) <= LONGEST_LINE:
            end += 1
        times = (end - at) // period
        if times * period > longest:
            best, longest = (period, times), times * period
    return best


def _like(line: str, cut: Cut | None, memory: Memory) -> Folded:
    """The line as its difference from one remembered, or nothing where plain text is shorter."""
    slot = memory.find(cut[1], cut[2]) if cut else None
    if cut is None or slot is None:
        return []
    marked: Folded = [Mark("LIKE", slot)]
    cost, same = 1, 0
    for word, old in zip(cut[0][1::2], memory.parts[slot][1::2], strict=True):
        if word == old:
            same += 1
            continue
        marked += [FAR] * (same // (MOST_SKIP + 1))
        same %= MOST_SKIP + 1
        place = memory.place(word)
        if word == count_up(old):
            marked.append(Mark("UP", same))
        elif place is not None:
            marked += [Mark("SKIP", same), Mark("SEEN", place)]
            cost += 1
        else:
            marked += [Mark("SKIP", same), word]
            cost += -(-len(word) // CHARS_PER_TOKEN)
        cost, same = cost + 1, 0
    return marked if CHARS_PER_TOKEN * (cost - 1) <= len(line) else []


def _with_seen(line: str, memory: Memory) -> Iterator[str | Mark]:
    for position, part in enumerate(LONG.split(line)):
        place = memory.place(part) if position % 2 else None
        yield part if place is None else Mark("SEEN", place)


def _joined(plain: Iterable[str | Mark]) -> Folded:
    """Strings side by side become one."""
    joined: Folded = []
    for part in plain:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return joined


def unfold(folded: Iterable[str | Mark], templates: Sequence[str] = (),
           errors: str = "strict") -> str:
    """Turn marks and strings back into the text that `fold` was given.

    A list that breaks off inside of a line gives that line with its remaining words as before.
    With `errors="replace"` a mark that means nothing where it stands becomes U+FFFD.

    Raises:   ValueError for such a mark unless replaced
    """
    reader = _Reader(templates, errors)
    for step in folded:
        reader.take(step)
    reader.finish_line()
    return "".join(reader.lines)


class _Reader:
    """Undoes `fold`, one step at a time."""

    def __init__(self, templates: Sequence[str], errors: str) -> None:
        self.memory, self.errors = Memory(templates), errors
        self.lines: list[str] = []
        self._plain = ""  # of a line that is not finished
        self._parts: list[str] | None = None  # of a LIKE
        self._at = 0  # the next of its words
        self._wants = ""  # the kind of mark that waits for a string: SKIP or AGAIN
        self._period = 0

    def take(self, step: str | Mark) -> None:
        if isinstance(step, str):
            self._string(step)
        elif step.kind == "SEEN":
            word = self.memory.word(step.number)
            self._string(self._nothing(step) if word is None else word)
        elif step.kind in ("SKIP", "UP", "FAR"):
            self._word(step)
        else:
            self.finish_line()
            if step.kind == "LIKE":
                slot = step.number
                self._parts, self._at = self.memory.parts[slot].copy(), 0
                if not self._parts:
                    self._parts = [self._nothing(step)]
            elif step.kind == "AGAIN":
                self._wants, self._period = "AGAIN", step.number

    def _nothing(self, step: str | Mark) -> str:
        if self.errors == "strict":
            raise ValueError(f"{step} means nothing where it stands: the ids were not written by "
                             "encode, or a part of them is missing; errors='replace' goes on")
        return "\ufffd"

    def _string(self, text: str) -> None:
        if self._wants == "AGAIN":
            self._wants = ""
            self._again(text)
        elif self._parts is not None:
            if self._wants == "SKIP":
                self._parts[2 * self._at + 1] = text
                self._at += 1
            else:
                self._parts[2 * self._at] += self._nothing(text)
            self._wants = ""
        else:
            *finished, self._plain = (self._plain + text).split("\n")
            for line in finished:
                self._finish(line + "\n")

    def _word(self, step: Mark) -> None:
        ahead = MOST_SKIP + 1 if step.kind == "FAR" else step.number
        words = len(self._parts) // 2 if self._parts is not None and not self._wants else -1
        if self._at + ahead + (step.kind != "FAR") > words:
            self._string(self._nothing(step))
            return
        assert self._parts is not None
        self._at += ahead
        if step.kind == "SKIP":
            self._wants = "SKIP"
        elif step.kind == "UP":
            place = 2 * self._at + 1
            self._parts[place] = count_up(self._parts[place]) or self._nothing(step)
            self._at += 1

    def _again(self, times: str) -> None:
        lines = self.lines[-self._period:]
        sound = times.isdecimal() and times.isascii() and len(times) <= len(str(MOST_TIMES))
        if not sound or len(lines) < self._period or max(map(len, lines)) > LONGEST_LINE:
            self._plain += self._nothing(Mark("AGAIN", self._period))
        else:
            self.lines += lines * int(times)

    def _finish(self, line: str) -> None:
        self.memory.remember(line)
        self.lines.append(line)

    def finish_line(self) -> None:
        """Put the line that is under way behind the others."""
        line = self._plain + "".join(self._parts or ())
        self._plain, self._parts, self._wants = "", None, ""
        if line:
            self._finish(line)
