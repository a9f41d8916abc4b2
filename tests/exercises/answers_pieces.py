"""Wrong answers to exercise 01.5, the best pieces, and what the check must say to each."""

from __future__ import annotations

from math import exp

from scratchbook.companions.exercises_pieces import _longest_pieces as greedy


# 01.5
def _whole_viterbi(text, logprobs, impossible=float("-inf"), known=lambda value: value is not None,
                   longest=10**9):
    best, begins = [0.0], [0]
    for end in range(1, len(text) + 1):
        found = []
        for begin in range(max(0, end - longest), end):
            value = logprobs.get(text[begin:end])
            found.append((best[begin] + (value if known(value) else impossible), begin))
        value, begin = max(found)
        best, begins = [*best, value], [*begins, begin]
    if best[-1] <= impossible:
        raise ValueError(text)
    pieces, end = [], len(text)
    while end:
        pieces.append(text[begins[end]:end])
        end = begins[end]
    return pieces[::-1]


def a_million_is_impossible(text, logprobs):
    return _whole_viterbi(text, logprobs, impossible=-1e6)


def certain_is_missing(text, logprobs):
    return _whole_viterbi(text, logprobs, known=bool)


def five_letters_at_most(text, logprobs):
    return _whole_viterbi(text, logprobs, longest=5)


def unknown_letters_only(text, logprobs):
    if set(text) - set("".join(logprobs)):
        raise ValueError(text)
    return _whole_viterbi(text, {**dict.fromkeys(text, -1e8), **logprobs})


def sum_of_probabilities(text, logprobs):
    return _viterbi(text, logprobs, score=exp)[::-1]


def remembers_texts():
    seen = {}

    def best(text, logprobs):
        if text not in seen:
            seen[text] = _whole_viterbi(text, logprobs)
        return seen[text]
    return best


def _viterbi(text, logprobs, score=lambda value: value, start=0.0, pick=max):
    best = [(start, 0)]
    for end in range(1, len(text) + 1):
        found = [(best[begin][0] + score(logprobs[text[begin:end]]), begin)
                 for begin in range(max(0, end - 8), end)
                 if text[begin:end] in logprobs and best[begin] is not None]
        best.append(pick(found) if found else None)
    if best[-1] is None:
        raise ValueError(text)
    pieces, end = [], len(text)
    while end:
        pieces.append(text[best[end][1]:end])
        end = best[end][1]
    return pieces


def likeliest_piece(text, logprobs):
    pieces = []
    while text:
        fits = [piece for piece in logprobs if text.startswith(piece)]
        if not fits:
            raise ValueError(text)
        pieces.append(max(fits, key=logprobs.get))
        text = text[len(pieces[-1]):]
    return pieces


def backwards(text, logprobs):
    return _viterbi(text, logprobs)


def smallest(text, logprobs):
    return _viterbi(text, logprobs, pick=min)[::-1]


def fewest(text, logprobs):
    return _viterbi(text, logprobs, score=lambda value: -1.0 + 1e-6 * value)[::-1]


def no_way_out(text, logprobs):
    return _viterbi(text, {**dict.fromkeys(text, -100.0), **logprobs})[::-1]


def probabilities_added(text, logprobs):
    # averages of probabilities, so that more pieces do not always win
    return _viterbi(text, logprobs, score=lambda value: exp(value) - 1.0)[::-1]


def products(text, logprobs):
    best = [(1.0, 0)]
    for end in range(1, len(text) + 1):
        best.append(max((best[begin][0] * exp(logprobs.get(text[begin:end], -1e9)), begin)
                        for begin in range(end)))
    if best[-1][0] == 0.0:
        raise ValueError(text)
    pieces, end = [], len(text)
    while end:
        pieces.append(text[best[end][1]:end])
        end = best[end][1]
    return pieces[::-1]


def recursion_without_memory(text, logprobs):
    def best(end):
        found = [(0.0, [])] if end == 0 else []
        for begin in range(end):
            if text[begin:end] in logprobs:
                before = best(begin)
                if before:
                    found.append((before[0] + logprobs[text[begin:end]],
                                  [*before[1], text[begin:end]]))
        return max(found, default=None)

    found = best(len(text))
    if found is None:
        raise ValueError(text)
    return found[1]


WRONG = {
    "best_pieces": [
        (likeliest_piece, "you took the likeliest piece"),
        (greedy, "you took the longest piece each time"),
        (backwards, "reverse the list"),
        (smallest, "larger is"),
        (fewest, "compare sums of logarithms"),
        (probabilities_added, "compare sums of logarithms"),
        (no_way_out, "must stay unreachable"),
        (products, "add logarithms"), (a_million_is_impossible, "use -math.inf"),
        (certain_is_missing, "0.0 counts as false"),
        (five_letters_at_most, "as long as the text"), (remembers_texts(), "from an earlier call"),
        (unknown_letters_only, "not whether the letters are known"),
        (sum_of_probabilities, "grows with every piece"),
        (recursion_without_memory, "keep it in a list"),
    ],
}
