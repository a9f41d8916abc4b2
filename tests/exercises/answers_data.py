"""Wrong answers to the exercises of chapter 06b, and what the check must say to each."""

from __future__ import annotations

import re

WORD = 2**32


# 06b.1
def smallest(numbers, a, b):
    return [min((u * x + v) % WORD for x in numbers) for u, v in zip(a, b, strict=True)]


def counts_agreements(first, second, a, b):
    return sum(x == y for x, y in zip(smallest(first, a, b), smallest(second, a, b), strict=True))


def counts_the_sets(first, second, a, b):
    return len(first & second) / len(first | second)


def compares_the_largest(first, second, a, b):
    def largest(numbers):
        return [max((u * x + v) % WORD for x in numbers) for u, v in zip(a, b, strict=True)]

    pairs = zip(largest(first), largest(second), strict=True)
    return sum(x == y for x, y in pairs) / len(a)


def forgets_the_modulus(first, second, a, b):
    return sum(min(u * x + v for x in first) == min(u * x + v for x in second)
               for u, v in zip(a, b, strict=True)) / len(a)


def throws_the_smallest_together(first, second, a, b):
    mine, theirs = set(smallest(first, a, b)), set(smallest(second, a, b))
    return len(mine & theirs) / len(mine | theirs)


def divides_by_512(first, second, a, b):
    return counts_agreements(first, second, a, b) / 512


def divides_by_128(first, second, a, b):
    return counts_agreements(first, second, a, b) / 128


def takes_31_bits(first, second, a, b):
    def smaller(numbers):
        return [min((u * x + v) % 2**31 for x in numbers) for u, v in zip(a, b, strict=True)]

    return sum(x == y for x, y in zip(smaller(first), smaller(second), strict=True)) / len(a)


def gives_the_agreements(first, second, a, b):
    return [x == y for x, y in zip(smallest(first, a, b), smallest(second, a, b), strict=True)]


def half_of_the_few(first, second, a, b):
    return counts_agreements(first, second, a, b) / len(a) if len(a) > 8 else 0.5


# 06b.2
def only_the_ratio(code, books, unit, share):
    return share / (1 - share)


def share_of_the_old_total(code, books, unit, share):
    return share * (code[unit] + books[unit]) / code[unit]


def after_the_first(code, books, unit, share):
    return share / (1 - share) * books[unit] / code[unit] - 1


def turned_round(code, books, unit, share):
    return (1 - share) / share * code[unit] / books[unit]


def share_of_the_books(code, books, unit, share):
    return share * books[unit] / code[unit]


def odds_turned_round(code, books, unit, share):
    return (1 - share) / share * books[unit] / code[unit]


def rounded(code, books, unit, share):
    return round(share / (1 - share) * books[unit] / code[unit])


def always_lines(code, books, unit, share):
    return share / (1 - share) * books["lines"] / code["lines"]


def cut_off(code, books, unit, share):
    return int(share / (1 - share) * books[unit] / code[unit])


# 06b.3
def runs(text, words):
    found = re.findall(r"\w+", text.lower())
    return {tuple(found[i : i + words]) for i in range(len(found) - words + 1)}


def as_it_is_written(training, validation, words):
    def raw(text):
        found = text.split()
        return {tuple(found[i : i + words]) for i in range(len(found) - words + 1)}

    seen = set().union(*map(raw, training))
    return [n for n, text in enumerate(validation) if raw(text) & seen]


def sets_of_words(training, validation, words):
    def bag(text):
        return set(re.findall(r"\w+", text.lower()))

    return [n for n, text in enumerate(validation)
            if any(len(bag(text) & bag(other)) >= words for other in training)]


def runs_across_documents(training, validation, words):
    seen = runs(" ".join(training), words)
    return [n for n, text in enumerate(validation) if runs(text, words) & seen]


def every_fifth_word(training, validation, words):
    def blocks(text):
        found = re.findall(r"\w+", text.lower())
        return {tuple(found[i : i + words]) for i in range(0, len(found) - words + 1, words)}

    seen = set().union(*map(blocks, training))
    return [n for n, text in enumerate(validation) if blocks(text) & seen]


def one_run_too_few(training, validation, words):
    def cut(text):
        found = re.findall(r"\w+", text.lower())
        return {tuple(found[i : i + words]) for i in range(len(found) - words)}

    seen = set().union(*map(cut, training))
    hits = [n for n, text in enumerate(validation) if cut(text) & seen]
    return hits if len(validation) == 1 else [n for n in hits if n]


def short_slices_count(training, validation, words):
    def loose(text):
        found = re.findall(r"\w+", text.lower())
        return {tuple(found[i : i + words]) for i in range(len(found))}

    seen = set().union(*map(loose, training))
    return [n for n, text in enumerate(validation) if loose(text) & seen]


def always_thirteen(training, validation, words):
    seen = set().union(*(runs(text, 13) for text in training))
    return [n for n, text in enumerate(validation) if runs(text, 13) & seen]


def one_run_short(training, validation, words):
    def cut(text):
        found = re.findall(r"\w+", text.lower())
        return {tuple(found[i : i + words]) for i in range(len(found) - words)}

    seen = set().union(*map(cut, training))
    return [n for n, text in enumerate(validation) if cut(text) & seen]


def text_within_text(training, validation, words):
    flat = [" ".join(re.findall(r"\w+", text.lower())) for text in validation]
    seen = set().union(*(runs(text, words) for text in training))
    return [n for n, text in enumerate(flat) if any(" ".join(run) in text for run in seen)]


def gives_texts(training, validation, words):
    seen = set().union(*(runs(text, words) for text in training))
    return [text for text in validation if runs(text, words) & seen]


def by_words(find, most=99):
    def found(training, validation, words):
        def cut(text):
            row = find(text.lower())
            size = min(words, most)
            return {tuple(row[i : i + size]) for i in range(len(row) - size + 1)}

        seen = set().union(*map(cut, training))
        return [n for n, text in enumerate(validation) if cut(text) & seen]
    return found


letters_alone = by_words(lambda text: re.findall("[a-z]+", text))
cut_at_spaces = by_words(lambda text: re.sub(r"[^\w ]", "", text).split(" "))
five_at_most = by_words(lambda text: re.findall(r"\w+", text), 5)


def three_texts(training, validation, words):
    return by_words(lambda text: re.findall(r"\w+", text))(training[:3], validation, words)


def a_tenth_of_the_text(training, validation, words):
    seen = set().union(*(runs(text, words) for text in training))
    return [n for n, text in enumerate(validation)
            if len(runs(text, words) & seen) > 0.1 * len(runs(text, words))]


def within_training(training, validation, words):
    flat = [" ".join(re.findall(r"\w+", text.lower())) for text in training]
    return [n for n, text in enumerate(validation)
            if any(" ".join(run) in other for run in runs(text, words) for other in flat)]


def needs_a_text(training, validation, words):
    seen = set.union(*(runs(text, words) for text in training))
    return [n for n, text in enumerate(validation) if runs(text, words) & seen]


WRONG = {
    "minhash_estimate": [
        (counts_agreements, "divide by the number of shuffles"),
        (counts_the_sets, "this is the similarity itself, counted"),
        (compares_the_largest, "the largest were compared"),
        (forgets_the_modulus, "without the modulus nothing is shuffled"),
        (throws_the_smallest_together, "compared shuffle by shuffle"),
        (divides_by_512, "by the number of shuffles that were given, not by 512"),
        (divides_by_128, "here 512 shuffles are given"),
        (counts_the_sets, "from the eight smallest alone"),
        (takes_31_bits, "the modulus is 2**32, not 2**31"),
        (half_of_the_few, "of eight shuffles"),
        (gives_the_agreements, "count in how many places the two agree"),
    ],
    "repeats_for_share": [
        (only_the_ratio, "code is smaller than the books"),
        (share_of_the_old_total, "the corpus grows with every repetition"),
        (after_the_first, "count the first too"),
        (turned_round, "how often the books would be repeated"),
        (share_of_the_books, "the ratio to the books is 0.75 / 0.25"),
        (odds_turned_round, "the odds are turned round"),
        (rounded, "the answer need not be whole"), (cut_off, "the answer need not be whole"),
        (always_lines, "the lines were counted again: use the bytes"),
    ],
    "leaked_documents": [
        (as_it_is_written, "compare words in small letters"),
        (sets_of_words, "these are sets of words"),
        (runs_across_documents, "it begins in one and ends in another"),
        (every_fifth_word, "not only at every fifth"),
        (one_run_too_few, "how many runs has a text of exactly `words` words"),
        (short_slices_count, "a text of two words has no run of five"),
        (always_thirteen, "are the runs `words` long"),
        (one_run_short, "a text of exactly four words has one run of four"),
        (text_within_text, "compare lists of words, not text within text"),
        (letters_alone, "keep digits"), (cut_at_spaces, "are three words"),
        (five_at_most, "take the length that is given"), (three_texts, "the last one was not"),
        (within_training, "compare lists of words"),
        (a_tenth_of_the_text, "one run is enough"), (needs_a_text, "TypeError"),
        (gives_texts, "these are texts: give their places"),
    ],
}
