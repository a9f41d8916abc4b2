"""Wrong answers to the exercises of chapter 00, and what the check must say to each."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import exp, log, log2, prod


# 00.1
def _bits(train, test, alphabet, start=1, firsts=None, share=None, log=log2):
    pairs = Counter(pairwise(train))
    firsts = Counter(train[:-1]) if firsts is None else firsts
    share = len(alphabet) if share is None else share
    return [-log((pairs[a, b] + start) / (firsts[a] + start * share)) for a, b in pairwise(test)]


def no_smoothing(train, test, alphabet):
    bits = _bits(train, test, alphabet, start=0)
    return 2 ** (sum(bits) / len(bits))


def mean_of_bits(train, test, alphabet):
    bits = _bits(train, test, alphabet)
    return sum(bits) / len(bits)


def mixed_logarithms(train, test, alphabet):
    nats = _bits(train, test, alphabet, log=log)
    return 2 ** (sum(nats) / len(nats))


def per_letter(train, test, alphabet):
    return 2 ** (sum(_bits(train, test, alphabet)) / len(test))


def whole_text(train, test, alphabet):
    return 2 ** sum(_bits(train, test, alphabet))


def last_letter_counted(train, test, alphabet):
    bits = _bits(train, test, alphabet, firsts=Counter(train))
    return 2 ** (sum(bits) / len(bits))


def one_for_all_letters(train, test, alphabet):
    bits = _bits(train, test, alphabet, share=1)
    return 2 ** (sum(bits) / len(bits))


def a_hundredth(train, test, alphabet):
    bits = _bits(train, test, alphabet, start=0.01)
    return 2 ** (sum(bits) / len(bits))


def e_to_the_bits(train, test, alphabet):
    bits = _bits(train, test, alphabet)
    return exp(sum(bits) / len(bits))


def probability_for_surprise(train, test, alphabet):
    bits = _bits(train, test, alphabet)
    return 2 ** (-sum(bits) / len(bits))


def first_letter_guessed(train, test, alphabet):
    bits = [log2(len(alphabet)), *_bits(train, test, alphabet)]
    return 2 ** (sum(bits) / len(bits))


def pairs_turned_round(train, test, alphabet):
    pairs, firsts = Counter(pairwise(train)), Counter(train[:-1])
    bits = [log2((firsts[a] + len(alphabet)) / (pairs[b, a] + 1)) for a, b in pairwise(test)]
    return 2 ** (sum(bits) / len(bits))


def share_of_all_pairs(train, test, alphabet):
    pairs, size = Counter(pairwise(train)), len(train) - 1 + len(alphabet) ** 2
    bits = [log2(size / (pairs[pair] + 1)) for pair in pairwise(test)]
    return 2 ** (sum(bits) / len(bits))


def alphabet_of_the_training_text(train, test, alphabet):
    bits = _bits(train, test, set(train))
    return 2 ** (sum(bits) / len(bits))


def alphabet_of_both_texts(train, test, alphabet):
    bits = _bits(train, test, set(train) | set(test))
    return 2 ** (sum(bits) / len(bits))


def counted_as_text(train, test, alphabet):
    bits = [log2((train[:-1].count(a) + len(alphabet)) / (train.count(a + b) + 1))
            for a, b in pairwise(test)]
    return 2 ** (sum(bits) / len(bits))


def each_pair_once(train, test, alphabet):
    pairs = [first + second for first, second in set(pairwise(test))]
    bits = [_bits(train, pair, alphabet)[0] for pair in pairs]
    return 2 ** (sum(bits) / len(bits))


def small_letters(train, test, alphabet):
    bits = _bits(train.lower(), test.lower(), alphabet)
    return 2 ** (sum(bits) / len(bits))


def multiplied(train, test, alphabet):
    bits = _bits(train, test, alphabet)
    return prod(2**-b for b in bits) ** (-1 / len(bits))


def rounded_perplexity(train, test, alphabet):
    bits = _bits(train, test, alphabet)
    return round(2 ** (sum(bits) / len(bits)), 4)


# 00.2
def whole_seconds(num_params, steps, batch_size, time, flops_per_second):
    return 6 * num_params * steps * batch_size * time // flops_per_second


def _operations(number):
    def predict(num_params, steps, batch_size, time, flops_per_second):
        return number * num_params * steps * batch_size * time / flops_per_second
    return predict


def forward_only(num_params, steps, batch_size, time, flops_per_second):
    return 2 * num_params * steps * batch_size * time / flops_per_second


def one_operation(num_params, steps, batch_size, time, flops_per_second):
    return num_params * steps * batch_size * time / flops_per_second


def no_batch(num_params, steps, batch_size, time, flops_per_second):
    return 6 * num_params * steps * time / flops_per_second


def time_twice(num_params, steps, batch_size, time, flops_per_second):
    return 6 * num_params * steps * batch_size * time**2 / flops_per_second


def no_time(num_params, steps, batch_size, time, flops_per_second):
    return 6 * num_params * steps * batch_size / flops_per_second


def one_step(num_params, steps, batch_size, time, flops_per_second):
    return 6 * num_params * batch_size * time / flops_per_second


def operations(num_params, steps, batch_size, time, flops_per_second):
    return 6 * num_params * steps * batch_size * time


def upside_down(num_params, steps, batch_size, time, flops_per_second):
    return flops_per_second / (6 * num_params * steps * batch_size * time)


def in_hours(num_params, steps, batch_size, time, flops_per_second):
    return 6 * num_params * steps * batch_size * time / flops_per_second / 3600


# 00.3
def still_nats(loss, num_guesses, text):
    return loss * num_guesses / len(text.encode())


def times_ln2(loss, num_guesses, text):
    return loss * num_guesses * log(2) / len(text.encode())


def characters(loss, num_guesses, text):
    return loss * num_guesses / log(2) / len(text)


def nats_and_characters(loss, num_guesses, text):
    return loss * num_guesses / len(text)


def per_guess(loss, num_guesses, text):
    return loss / log(2)


def one_guess(loss, num_guesses, text):
    return loss / log(2) / len(text.encode())


def total_bits(loss, num_guesses, text):
    return loss * num_guesses / log(2)


def stripped_text(loss, num_guesses, text):
    return loss * num_guesses / log(2) / len(text.strip().encode())


def two_bytes_beyond_ascii(loss, num_guesses, text):
    return loss * num_guesses / log(2) / sum(1 + (letter > "\x7f") for letter in text)


def a_guess_for_each_letter(loss, num_guesses, text):
    return loss * len(text) / log(2) / len(text.encode())


def rounded_bits(loss, num_guesses, text):
    return round(loss * num_guesses / log(2) / len(text.encode()), 4)


WRONG = {
    "bigram_perplexity": [
        (no_smoothing, "start each count at one"),
        (mean_of_bits, "perplexity is 2 to that power"),
        (mixed_logarithms, "natural logarithms and a power of two"),
        (per_letter, "the first is not guessed"),
        (whole_text, "average over the guesses"),
        (last_letter_counted, "has no follower"),
        (one_for_all_letters, "plus the alphabet's size"),
        (a_hundredth, "not at 0.01"),
        (e_to_the_bits, "raise 2 to them, not e"),
        (probability_for_surprise, "upside down"),
        (first_letter_guessed, "the first letter was guessed too"),
        (pairs_turned_round, "which letter is known"),
        (share_of_all_pairs, "divide by the pairs that begin with it"),
        (alphabet_of_the_training_text, "not of the letters seen"),
        (alphabet_of_both_texts, "not of the letters seen"),
        (counted_as_text, "steps over what overlaps"), (each_pair_once, "three guesses, not one"),
        (small_letters, "A and a are two letters"), (multiplied, "add their logarithms"),
        (rounded_perplexity, "but rounded"),
    ],
    "predict_seconds": [
        (forward_only, "the way back costs twice as much"),
        (one_operation, "a weight is more than one operation"),
        (no_batch, "batch_size windows, not one"),
        (time_twice, "in there twice"),
        (no_time, "a window holds `time` letters"),
        (one_step, "this is one step"),
        (operations, "divide by how many a second brings"),
        (upside_down, "upside down"),
        (in_hours, "the answer is in seconds"),
        (_operations(8), "pays the way forward twice"), (_operations(12), "were counted twice"),
        (_operations(3), "are two forward, and four back"), (whole_seconds, "but rounded"),
        (_operations(4), "the way back costs twice"), (_operations(7), "got 14.3"),
    ],
    "to_bits_per_byte": [
        (still_nats, "divide by ln 2 for bits"),
        (times_ln2, "1 / ln 2 bits, more than one"),
        (characters, "you counted characters"),
        (nats_and_characters, "two slips"),
        (per_guess, "this is per guess"),
        (one_guess, "times the number of guesses"),
        (total_bits, "divide by its bytes"),
        (stripped_text, "do not strip"), (two_bytes_beyond_ascii, "not every letter beyond ASCII"),
        (a_guess_for_each_letter, "a guess is no letter"), (rounded_bits, "but rounded"),
    ],
}
