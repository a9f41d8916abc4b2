"""The counting rivals, against the formula written out over dictionaries."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from scratchbook.evaluation.counting import KneserNey, Retrieval, _discounts

VOCAB = 7


@pytest.fixture(scope="module")
def ids():
    draw = np.random.default_rng(0)
    return np.concatenate([[0, 1, 2, 3, 1, 2] * 5, draw.integers(0, 6, 200)])


def plain(ids, order, context, token):
    """Chen and Goodman's formula, one probability at a time."""
    grams = Counter(tuple(ids[at:at + order]) for at in range(len(ids) - order + 1))
    levels = {order: grams}
    for length in range(order - 1, 0, -1):
        levels[length] = Counter(gram[1:] for gram in levels[length + 1])

    def prob(context, token):
        lower = prob(context[1:], token) if context else 1 / VOCAB
        level = levels[len(context) + 1]
        following = defaultdict(int)
        for gram, count in level.items():
            if gram[:-1] == context:
                following[gram[-1]] += count
        if not following:
            return lower
        discounts = (0.0, *_discounts(np.array(list(level.values()))))
        total = sum(following.values())
        taken = sum(discounts[min(count, 3)] for count in following.values())
        own = following[token] - discounts[min(following[token], 3)]
        return own / total + taken / total * lower

    return prob(tuple(context), token)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_equal_to_the_formula(ids, order):
    model = KneserNey(ids, VOCAB, order)
    plain_ids = ids.tolist()
    for at in range(10, 60, 7):
        context = plain_ids[at:at + order - 1]
        expected = [plain(plain_ids, order, context, token) for token in range(VOCAB)]
        np.testing.assert_allclose(model.probs([3, *context]), expected, atol=1e-12)
        assert model.probs(context).sum() == pytest.approx(1, abs=1e-12)


def test_an_unseen_context_falls_back(ids):
    model = KneserNey(ids, VOCAB, 3)
    np.testing.assert_allclose(model.probs([6, 6]), model.probs([]))
    np.testing.assert_allclose(model.probs([6, 1]), model.probs([1]))


def test_an_order_that_makes_no_sense_is_refused(ids):
    for order in (0, len(ids) + 1):
        with pytest.raises(ValueError, match="order"):
            KneserNey(ids, VOCAB, order)


def test_retrieval_copies_behind_the_longest_match():
    found = Retrieval([*range(20), 5, 6, 99])
    assert found.find([4, 5, 6]) == (7, 3)
    assert found.copy_after([4, 5, 6], 2) == [7, 8]
    assert found.copy_after([5, 6], 2) == [99]  # of equal matches the last
    assert found.copy_after([77], 2) == []


def test_retrieval_without_lengths_is_refused():
    for lengths in ((), (0, 1)):
        with pytest.raises(ValueError, match="lengths"):
            Retrieval([1, 2, 3], lengths)
