"""The checks behind the exercises of chapters/00_start_here.ipynb."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import exp, inf, isclose, log, log2, prod

from scratchbook.teaching.answers import is_rounded
from scratchbook.teaching.checking import Property, exercise, expect


def _number(answer: Callable, *arguments: object) -> float:
    """The answer as a float; infinite where the reader's own code meets an impossible event."""
    try:
        return float(answer(*arguments))
    except (ZeroDivisionError, ValueError, KeyError, OverflowError):
        return inf


ROUNDED = "the right number, but rounded: return all its digits"


def _same(got: float, want: float) -> bool:
    return isclose(got, want, rel_tol=1e-6)


# 00.1 ---------------------------------------------------------------------------------------


def _guesses(train: str, test: str, size: int, *, start: int = 1, last: bool = False,
             share: int | None = None) -> list[float]:
    """The probability of each guess, with the slips of the exercise as options."""
    pairs, firsts = Counter(pairwise(train)), Counter(train if last else train[:-1])
    share = size if share is None else share
    return [(pairs[a, b] + start) / max(firsts[a] + start * share, 1e-300)
            for a, b in pairwise(test)]


@exercise
def bigram_perplexity(answer: Callable) -> Iterator[Property]:
    """`bigram_perplexity(train, test, alphabet)`: 2 to the power of the mean bits per guess."""
    sample = ("banana", "nab", "abn")
    guesses = _guesses(*sample[:2], 3)
    want = prod(guesses) ** (-1 / 2)                     # n -> a: 3/5, a -> b: 1/5
    got = _number(answer, *sample)
    bits = -sum(log(p, 2) for p in guesses) / 2
    whole = _guesses(*sample[:2], 3, last=True)
    yield expect(
        f"two guesses by hand: sqrt(25/3) = {want:.4f}", _same(got, want),
        (got == inf, "a pair that was never seen got probability zero: start each count at one"),
        (_same(got, bits), "this is the mean of the bits; perplexity is 2 to that power"),
        (_same(got, 2 ** (bits * log(2))),
         "natural logarithms and a power of two do not go together: use log2, or exp"),
        (_same(got, prod(guesses) ** (-1 / 3)),
         "you divided by the letters of the test; the first is not guessed, so count the pairs"),
        (_same(got, 1 / prod(guesses)), "this is the whole text's; average over the guesses"),
        (_same(got, prod(whole) ** (-1 / 2)),
         "the last letter of the training text has no follower: an `a` is a first letter twice "
         "in banana, not three times"),
        (_same(got, prod(_guesses(*sample[:2], 3, share=1)) ** (-1 / 2)),
         "each letter of the alphabet got one more: divide by the count plus the alphabet's size"),
        (_same(got, prod(_guesses(*sample[:2], 3, start=0.01)) ** (-1 / 2)),
         "here each count starts at one, not at 0.01"),
        (_same(got, exp(bits)), "the bits are powers of two: raise 2 to them, not e"),
        (_same(got, 1 / want), "upside down: surprise is log2(1 / p), or -log2(p)"),
        (_same(got, (3 / prod(guesses)) ** (1 / 3)),
         "the first letter was guessed too; there are two guesses, a after n and b after a"),
        (_same(got, (25 / 6) ** 0.5),
         "the pairs are turned round: which letter is known, and which is guessed?"),
        (_same(got, (14**2 / 3) ** 0.5),
         "this is how often the pair comes among all pairs; the letter before is known, so divide "
         "by the pairs that begin with it"),
        (is_rounded(got, want), ROUNDED), (True, f"got {got:.6g}"))
    uniform = _number(answer, "a", "ab" * 3, "abcd")
    yield expect("with nothing seen, every letter is as likely: the alphabet's size",
                 _same(uniform, 4.0),
                 (_same(uniform, 1.0) or _same(uniform, 2.0),
                  "take the size of the alphabet that is given, not of the letters seen"),
                 (True, f"got {uniform:.6g} for an alphabet of 4"))
    longer = "the cat sat on the mat", "the hat", "acehmnost "
    want = prod(_guesses(*longer[:2], 10)) ** (-1 / 6)
    got = _number(answer, *longer)
    yield expect("a longer text", _same(got, want),
                 (is_rounded(got, want), ROUNDED),
                 (True, f"got {got:.6g}, expected {want:.6g}"))
    yield from _repetitions(answer)


def _geometric(guesses: list[float]) -> float:
    return 2 ** (-sum(map(log2, guesses)) / len(guesses))


def _repetitions(answer: Callable) -> Iterator[Property]:
    train, test, alphabet = "baaaa Ab", "aaaab Aab", " Aab"
    want, got = _geometric(_guesses(train, test, 4)), _number(answer, train, test, alphabet)
    stepping = [(train.count(a + b) + 1) / (train[:-1].count(a) + 4) for a, b in pairwise(test)]
    once = [_guesses(train, a + b, 4)[0] for a, b in set(pairwise(test))]
    yield expect(
        "doubled letters, pairs that come again, and a capital", _same(got, want),
        (_same(got, _geometric(stepping)),
         "str.count steps over what overlaps: aaaa holds the pair of two a three times"),
        (_same(got, _geometric(once)),
         "a pair that comes three times in the test is three guesses, not one"),
        (_same(got, _geometric(_guesses(train.lower(), test.lower(), 4))),
         "A and a are two letters: leave the text as it is"),
        (True, f"got {got:.6g}, expected {want:.6g}"))
    long = "a cab " * 100
    want, got = _geometric(_guesses(train, long, 5)), _number(answer, train, long, " abcA")
    yield expect(f"a test of {len(long):,} letters", _same(got, want),
                 (got in (0.0, inf), "a product of thousands of probabilities is 0.0 in floating "
                                     "point: add their logarithms"),
                 (True, f"got {got:.6g}, expected {want:.6g}"))


# 00.2 ---------------------------------------------------------------------------------------


@exercise
def predict_seconds(answer: Callable) -> Iterator[Property]:
    """`predict_seconds(num_params, steps, batch_size, time, flops_per_second)`, exactly."""
    sizes = (100_000, 1_000, 16, 64, 5e10)
    params, steps, batch_size, time, rate = sizes
    want = 6 * params * steps * batch_size * time / rate
    got = _number(answer, *sizes)
    slips = [
        (_same(got, want / 3), "this is the way forward only; the way back costs twice as much "
                               "again"),
        (_same(got, want / 6), "a weight is more than one operation: multiply and add, forward "
                               "and twice back"),
        (_same(got, want * 4 / 3), "8 operations: that pays the way forward twice. Forward is 2 "
                                   "and back is 4"),
        (_same(got, want * 2), "12 operations: the multiplication and the addition were counted "
                               "twice. Both are in the 2 forward, and in the 4 back"),
        (_same(got, want * 2 / 3), "4 operations: the way back costs twice the way forward, not "
                                   "as much again"),
        (_same(got, want / 2), "3 operations: a multiplication and an addition are two "
                               "forward, and four back"),
        (is_rounded(got, want), ROUNDED),
        (_same(got, want / batch_size), "each step reads batch_size windows, not one"),
        (_same(got, want / time), "a window holds `time` letters, and every weight works on each"),
        (_same(got, want * time), "every weight works once on each letter: `time` is in there "
                                  "twice"),
        (_same(got, want / steps), "this is one step; the training has many"),
        (_same(got, want * rate), "these are operations: divide by how many a second brings"),
        (_same(got, 1 / want), "upside down: operations divided by operations a second"),
        (_same(got, want / 3600) or _same(got, want / 60), "the answer is in seconds"),
    ]
    yield expect(f"100,000 weights, 1,000 steps of 16 x 64: {want:.1f} s",
                 _same(got, want), *slips, (True, f"got {got:.4g} s"))
    large = (124_000_000, 10_000, 1_000, 1_000, 1e14)
    seconds = 6 * 124e6 * 1e10 / 1e14
    got_large = _number(answer, *large)
    yield expect(f"124 million weights, ten billion letters: {seconds / 3600:.1f} hours",
                 _same(got_large, seconds), (True, f"got {got_large / 3600:.4g} hours"))
    doubled = [_number(answer, *(2 * s if i == k else s for i, s in enumerate(sizes))) / got
               for k in range(4)]
    yield expect("twice the weights, steps, windows or letters take twice as long",
                 all(_same(ratio, 2) for ratio in doubled),
                 (True, "the ratios are " + ", ".join(f"{ratio:.3g}" for ratio in doubled)))


# 00.3 ---------------------------------------------------------------------------------------


@exercise
def to_bits_per_byte(answer: Callable) -> Iterator[Property]:
    """`to_bits_per_byte(loss, num_guesses, text)` from nats per guess."""
    text, loss, guesses = "Größe: 2.1", 2.1, 4
    size = len(text.encode())
    want = loss * guesses / log(2) / size
    got = _number(answer, loss, guesses, text)
    yield expect(
        f"four guesses of {loss} nats on {size} bytes: {want:.4f}", _same(got, want),
        (_same(got, want * log(2)), "nats went in and nats came out: divide by ln 2 for bits"),
        (_same(got, want * log(2) ** 2), "one nat is 1 / ln 2 bits, more than one: divide"),
        (_same(got, want * size / len(text)),
         "you counted characters; ö and ß fill two bytes each: len(text.encode())"),
        (_same(got, loss / log(2)), "this is per guess; the text is what both models share"),
        (_same(got, loss / log(2) / size), "the loss is an average: times the number of guesses"),
        (_same(got, loss * guesses / len(text)),
         "two slips: nats are not bits yet (divide by ln 2), and characters are not bytes"),
        (_same(got, want * size), "this is the whole text's bits: divide by its bytes"),
        (_same(got, want * len(text) / guesses),
         "the loss is for each guess, and here a guess is no letter: times num_guesses"),
        (is_rounded(got, want), ROUNDED),
        (True, f"got {got:.6g}"))
    yield expect("a model that knows nothing of bytes pays 8 bits for each",
                 _same(_number(answer, log(256), 5, "abcde"), 8.0))
    text = " 日本 🙂\n"
    got, bits = _number(answer, loss, 9, text), loss * 9 / log(2)
    yield expect("spaces, a line end, and letters of three and four bytes", _same(got, bits / 13),
                 (_same(got, bits / 9), "not every letter beyond ASCII has two bytes: "
                                        "len(text.encode())"),
                 (_same(got, bits / 11) or _same(got, bits / 10),
                  "spaces and line ends at the edges are bytes of the text, too: do not strip"),
                 (True, f"got {got:.6g}, expected {bits / 13:.6g}"))
    pieces, single = (_number(answer, 2.1, 25, "a" * 100), _number(answer, 1.2, 100, "a" * 100))
    yield expect("2.1 nats per piece of four bytes beat 1.2 nats per letter", pieces < single,
                 (True, f"got {pieces:.3g} and {single:.3g}"))
