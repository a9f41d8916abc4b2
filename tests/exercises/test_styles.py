"""Right answers in other styles pass: lists, arrays, float64, fractions, generators, recursion."""

import cmath
import math
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch

from scratchbook.companions import check


def perplexity_by_fractions(train, test, alphabet):
    pairs, firsts, product = Counter(pairwise(train)), Counter(train[:-1]), Fraction(1)
    for a, b in pairwise(test):
        product *= Fraction(pairs[a, b] + 1, firsts[a] + len(alphabet))
    nats = math.log(product.denominator) - math.log(product.numerator)
    return math.exp(nats / (len(test) - 1))


def memoised_pieces(text, logprobs):
    @cache
    def best(end):
        found = [(0.0, 0)] if end == 0 else []
        for begin in range(end):
            if text[begin:end] in logprobs and best(begin):
                found.append((best(begin)[0] + logprobs[text[begin:end]], begin))
        return max(found, default=None)

    if best(len(text)) is None:
        raise ValueError(text)
    ends = [len(text)]
    while ends[-1]:
        ends.append(best(ends[-1])[1])
    return (text[begin:end] for end, begin in reversed(list(pairwise(ends))))


def attend_in_numpy(q, k, v):
    scores = k.numpy().astype(float) @ q.numpy() / math.sqrt(len(q))
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ v.numpy()


def masked_as_lists(scores, mask):
    return scores.double().masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num(0.0).tolist()


def backward_by_jacobian(weights, upstream):
    jacobian = torch.diag_embed(weights) - weights[..., :, None] * weights[..., None, :]
    return (jacobian.double() @ upstream.double()[..., None])[..., 0]


def leak_as_a_list(layer, x):
    base = layer(x)
    for t in range(len(x)):
        for s in range(t + 1, len(x)):
            other = x.clone()
            other[s] = torch.randn(x.shape[1])
            if (layer(other)[t] - base[t]).abs().max() > 1e-6:
                return [t, s]
    return None


def roll_as_a_list(kept, new, window):
    seen = [*kept.tolist(), *new.tolist()]
    return [torch.tensor(seen).reshape(-1, new.shape[1]),
            torch.tensor(seen[max(0, len(seen) - window + 1):]).reshape(-1, new.shape[1])]


def rotate_by_complex(x, y, position, speed):
    turned = complex(x, y) * cmath.exp(1j * position * speed)
    return np.array([turned.real, turned.imag])


STYLES = {
    "bigram_perplexity": [perplexity_by_fractions],
    "to_bits_per_byte": [lambda loss, guesses, text: torch.tensor(
        loss * guesses * math.log2(math.e) / len(text.encode("utf-8")), dtype=torch.float64)],
    "predict_seconds": [lambda *sizes: Fraction(6) * math.prod(map(Fraction, sizes[:4]))
                        / Fraction(sizes[4])],
    "best_pieces": [memoised_pieces],
    "attend_one": [attend_in_numpy],
    "masked_softmax": [masked_as_lists],
    "softmax_backward": [backward_by_jacobian],
    "find_leak": [leak_as_a_list],
    "repeat_kv": [lambda x, group: np.repeat(x.numpy(), group, axis=1)],
    "roll": [roll_as_a_list],
    "rotate_pair": [rotate_by_complex, lambda x, y, position, speed: list(
        map(float, rotate_by_complex(x, y, position, speed)))],
    "slopes": [lambda n: np.geomspace(2 ** (-8 / n), 2**-8, n),
               lambda n: tuple(math.exp(-8 * math.log(2) * (i + 1) / n) for i in range(n)),
               lambda n: (2 ** (-8 * (i + 1) / n) for i in range(n)),
               lambda n: torch.tensor(2.0) ** (-8 * torch.arange(1, n + 1) / n)],
    "ntk_base": [lambda base, d, factor: math.exp(math.log(base) + d / (d - 2)
                                                  * math.log(factor))],
    "bounded_scores": [lambda q, k: (torch.nn.functional.normalize(q.double(), dim=-1)
                                     @ torch.nn.functional.normalize(k.double(), dim=-1).T
                                     * math.sqrt(q.shape[1])).numpy()],
}
CASES = [pytest.param(name, answer, id=f"{name}-{number}")
         for name, answers in STYLES.items() for number, answer in enumerate(answers)]


@pytest.mark.parametrize(("name", "answer"), CASES)
def test_a_right_answer_in_another_style_passes(name, answer):
    report = check.report(name, answer)
    assert report.passed, "\n".join(report.lines)
