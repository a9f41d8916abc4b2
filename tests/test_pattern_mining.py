"""Motifs, tests and clusters of heads: by hand, as laws, and planted heads found again."""

import itertools

import numpy as np
import pytest
import torch

from scratchbook.interpret import clustering, code_motifs, head_tests, mining
from scratchbook.interpret.code_motifs import TokenText, all_motifs
from scratchbook.interpret.patterns import (
    Motif,
    first_token,
    head_scores,
    induction,
    make_motif,
    previous_token,
    rival_weights,
)


def causal(scores: torch.Tensor) -> torch.Tensor:
    time = scores.shape[-1]
    return scores.masked_fill(torch.ones(time, time).triu(1).bool(), -torch.inf).softmax(-1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# motifs


def test_the_rivals_of_a_target_by_hand():
    assert rival_weights(3, [1, 4, 5]) == pytest.approx({1: 1 / 3, 4: 2 / 3})
    assert rival_weights(0, [2, 3]) == {2: 1.0}  # none before it: the nearer one
    assert rival_weights(3, [1, 2]) == {}  # none behind it
    assert rival_weights(3, []) == {}


@pytest.mark.parametrize("taste", [lambda d: -d, lambda d: 1 / (1 + d), lambda d: 0.8**d,
                                   lambda d: 1.0])
def test_a_taste_for_nearness_never_favours_the_target(taste):
    for query, key in ((20, 11), (20, 0), (30, 29)):
        for others in ([3, 14], [10, 13], [2, 30], [15, 16]):
            weights = rival_weights(key, [place for place in others if place <= query])
            if weights:
                rival = sum(weight * taste(query - place) for place, weight in weights.items())
                assert rival >= taste(query - key) - 1e-12


def test_previous_token_by_hand():
    motif = previous_token(4)
    assert motif.rows == 2
    assert motif.targets.tolist() == [[0] * 4, [0] * 4, [0, 1, 0, 0], [0, 0, 1, 0]]
    assert motif.rivals.tolist() == [[0] * 4, [0] * 4, [0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]]
    attention = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0], [0.2, 0.7, 0.1, 0], [0.1, 0.1, 0.5, 0.3]])
    targets, rivals = head_scores(attention, motif)
    assert targets == pytest.approx(0.6)
    assert rivals == pytest.approx((0.15 + 0.2) / 2)


def test_induction_by_hand():
    # A B C A B: behind the first A stood B, so position 3 expects place 1, position 4 place 2
    motif = induction([7, 8, 9, 7, 8])
    assert motif.targets.nonzero().tolist() == [[3, 1], [4, 2]]
    assert motif.rivals[3].tolist() == [0.5, 0, 0.5, 0, 0]
    assert induction([7, 7, 7]).rows == 0  # behind the last copy stands the token itself
    assert induction([7, 8, 7, 9, 7]).targets.nonzero().tolist() == [[2, 1], [4, 3]]
    assert induction([1, 2, 3]).rows == 0


def test_a_sink_is_seen_from_afar():
    motif = first_token(12)
    assert motif.rows == 4
    assert motif.targets[8:, 0].tolist() == [1] * 4
    assert motif.rivals[8:, 1].tolist() == [1] * 4


@pytest.mark.parametrize("make", [lambda: previous_token(5, 0), lambda: previous_token(5, 4),
                                  lambda: first_token(8), lambda: make_motif([(1, 2)], lambda q, k:
                                                                            [0], 4)])
def test_motifs_that_cannot_be(make):
    with pytest.raises(ValueError, match=r"\d"):
        make()


def test_a_motif_refuses_unfair_rivals_and_the_future():
    one = torch.zeros(3, 3)
    one[2, 1] = 1
    with pytest.raises(ValueError, match="weigh more or less"):
        Motif(one, torch.zeros(3, 3))
    with pytest.raises(ValueError, match="must both be"):
        Motif(one, one[:2])
    with pytest.raises(ValueError, match="behind its query"):
        Motif(one.T.contiguous(), one.T.contiguous())


def test_scores_of_many_heads_at_once_and_of_none():
    attention = causal(noise(2, 3, 9, 9))
    motif = previous_token(9)
    targets, rivals = head_scores(attention, motif)
    assert targets.shape == rivals.shape == (2, 3)
    for layer, head in itertools.product(range(2), range(3)):
        by_loop = [attention[layer, head, q, q - 1].item() for q in range(2, 9)]
        assert targets[layer, head].item() == pytest.approx(sum(by_loop) / 7)
    assert torch.isnan(head_scores(attention, induction(range(9)))[0]).all()
    with pytest.raises(ValueError, match="one text"):
        head_scores(attention[..., :8], motif)


def test_a_head_without_a_preference_scores_nothing():
    even = causal(torch.zeros(40, 40))
    ids = torch.randint(5, (40,), generator=torch.Generator().manual_seed(1))
    for motif in (previous_token(40), previous_token(40, 3), first_token(40), induction(ids)):
        targets, rivals = head_scores(even, motif)
        assert targets.item() == pytest.approx(rivals.item(), abs=1e-6)


# code

PYTHON = ('import os\n\ndef f(a, b):\n    x = g(a[0], (b))\n    # (not\n    return x + a\n\n'
          'y = f(1)\n')
SMALLTALK = "<|method|>at: k\n\t^ (self get: (k + 1)) max: (k or: [k])<|end|><|method|>b\n\t^ '('"


def words_of(text: str) -> TokenText:
    import re
    language = "smalltalk" if "<|" in text else "python"
    return TokenText(tuple(re.findall(r"<\|\w+\|>|\w+|\s+|.", text)), language)


def spelled(text: TokenText, pairs) -> list[tuple[str, str]]:
    return [(text.pieces[a], text.pieces[b]) for a, b in pairs]


def test_brackets_names_and_lines_of_python():
    text = words_of(PYTHON)
    assert "".join(text.pieces) == PYTHON
    partners = [(text.code[text.starts[k]], text.code[text.starts[q]]) for q, k in text.brackets]
    assert sorted(partners) == [("(", ")")] * 4 + [("[", "]")]
    assert [name for _, name in text.identifiers] == ["os", "f", "a", "b", "x", "g", "a", "b", "x",
                                                      "a", "y", "f"]
    assert [(text.pieces[place], width) for place, width in text.lines] == [
        ("def", 0), ("x", 4), ("return", 4), ("y", 0)]
    assert [text.pieces[place] for place in text.methods] == ["def"]
    assert "not" not in text.code


def test_the_partner_of_an_outer_bracket_has_rivals_within():
    text = words_of(PYTHON)
    motif = code_motifs.bracket_motif(text)
    pairs = motif.targets.nonzero().tolist()
    # only the closing bracket of g(a[0], (b)) has other opening brackets behind its partner
    assert len(pairs) == 1
    query, key = pairs[0]
    assert text.pieces[key - 1] == "g"
    assert text.pieces[query] == ")"
    rivals = motif.rivals[query].nonzero()[:, 0].tolist()
    assert [text.pieces[place] for place in rivals] == ["(", "["]  # f(a, b)'s, and a[0]'s


def test_names_are_compared_with_names_as_frequent():
    text = words_of("q = a + b\nr = a + b + c + c + c + c + c + c\ns = a\n")
    motif = code_motifs.identifier_motif(text)
    rows = {(text.pieces[q], q): {text.pieces[k] for k in motif.rivals[q].nonzero()[:, 0].tolist()}
            for q, k in motif.targets.nonzero().tolist()}
    last_a = max(place for place, name in text.identifiers if name == "a")
    assert rows["a", last_a] <= {"b", "q", "r", "s"}  # c is three times as frequent
    assert text.pieces[int(motif.targets[last_a].argmax())] == "a"


def test_a_line_looks_to_the_line_it_is_under():
    text = words_of("\nif a:\n    b = 1\n    if c:\n        d = 2\n    e = 3\nf = 4\n")
    pairs = spelled(text, code_motifs.indentation_motif(text).targets.nonzero().tolist())
    # d is under the inner if; e under the outer one, with later lines as rivals
    assert ("e", "if") in pairs
    assert all(query != "f" for query, _ in pairs)


def test_smalltalk_methods_brackets_and_delimiters():
    text = words_of(SMALLTALK)
    assert [text.pieces[place] for place in text.methods] == ["<|method|>"] * 2
    assert len(text.brackets) == 4  # the bracket in the string is none
    assert [name for _, name in text.identifiers if name != "self"] == [
        name for _, name in text.identifiers]
    motif = code_motifs.method_motif(text)
    assert {text.pieces[k] for _, k in motif.targets.nonzero().tolist()} == {"<|method|>"}
    first = text.methods[1]
    assert not (motif.targets[first:].nonzero()[:, 1] == 0).any()  # its own head only
    python = words_of("a = b, c\nd(x.y)\n")
    assert {python.pieces[place] for place in python.delimiters} == {",", "\n"}


def test_every_motif_of_a_text_is_fair():
    for source in (PYTHON * 3, SMALLTALK * 3):
        text = words_of(source)
        ids = [hash(piece) % 1000 for piece in text.pieces]
        found = all_motifs(ids, text.pieces, text.language)
        assert len(found) == 9
        even = causal(torch.zeros(len(ids), len(ids)))
        for motif in found.values():
            targets, rivals = head_scores(even, motif)
            assert torch.isnan(targets) or torch.allclose(targets, rivals, atol=1e-6)
    with pytest.raises(ValueError, match="one text for each"):
        all_motifs([1], ["a", "b"], "python")
    with pytest.raises(ValueError, match="choose one of"):
        TokenText(("a",), "cobol")


# tests


def test_swaps_by_hand():
    # three texts, all in favour: only the pattern that was seen is as large, 1 of 8
    assert head_tests.swap_test(np.array([[1.0], [2.0], [3.0]])) == pytest.approx([1 / 8])
    # 1 + 2 - 4 = -1: patterns with a sum of -1 or more: 7+... counted by a loop
    seen = np.array([1.0, 2.0, -4.0])
    sums = [np.dot(signs, seen) for signs in itertools.product((1, -1), repeat=3)]
    want = sum(each >= seen.sum() for each in sums) / 8
    assert head_tests.swap_test(seen[:, None]) == pytest.approx([want])
    # a text that says nothing leaves the others as they are
    with_nan = np.array([[1.0], [np.nan], [2.0], [3.0]])
    assert head_tests.swap_test(with_nan) == pytest.approx([1 / 8])
    assert head_tests.swap_test(np.full((3, 1), np.nan)) == pytest.approx([1.0])
    assert head_tests.swap_test(np.zeros((5, 1))) == pytest.approx([1.0])


def test_random_swaps_agree_with_all_swaps_and_never_give_zero():
    gaps = np.random.default_rng(0).normal(0.3, 1, (14, 5))
    exact = head_tests.swap_test(gaps)
    drawn = head_tests.swap_test(np.concatenate([gaps, np.full((1, 5), np.nan)]), draws=20_000)
    assert np.abs(exact - drawn).max() < 0.02  # five standard errors of 20,000 draws
    assert head_tests.swap_test(np.ones((40, 1)), draws=99) == pytest.approx([1 / 100])
    for wrong in (np.zeros(3), np.zeros((0, 2))):
        with pytest.raises(ValueError, match="at least one text"):
            head_tests.swap_test(wrong)


def test_p_values_of_a_true_null_are_even():
    # 2,000 heads without a preference, texts of unlike size: 5 % +- 5 standard errors of 0.5 %
    draw = np.random.default_rng(1)
    gaps = draw.normal(0, 1, (20, 2000)) * draw.exponential(1, (20, 1))
    p = head_tests.swap_test(gaps, draws=1999)
    for level in (0.05, 0.2, 0.5):
        assert abs((p <= level).mean() - level) < 5 * np.sqrt(level * (1 - level) / 2000)


def test_holm_by_hand():
    assert head_tests.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert head_tests.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert head_tests.holm(np.full((2, 2), 0.01)) == pytest.approx(np.full((2, 2), 0.04))
    for wrong in ([], [1.2], [float("nan")]):
        with pytest.raises(ValueError, match="within 0..1"):
            head_tests.holm(wrong)


def test_holm_keeps_its_promise_where_single_tests_do_not():
    # 40 nulls a time, 200 times: one find or more in at most 5 % (here 10 + 4 standard errors)
    draw = np.random.default_rng(2)
    p = draw.random((200, 40))
    assert sum(head_tests.holm(row).min() <= 0.05 for row in p) <= 22
    assert sum(row.min() <= 0.05 for row in p) > 150


def test_area_by_hand():
    assert head_tests.area_under_curve([3, 1], [2, 0]) == 0.75
    assert head_tests.area_under_curve([1], [1]) == 0.5
    value, low, high = head_tests.area_interval(range(5, 15), range(10))
    assert low < value == 0.875 < high
    with pytest.raises(ValueError, match="one pair"):
        head_tests.area_interval([1, 2], [1])
    with pytest.raises(ValueError, match="no NaN"):
        head_tests.area_under_curve([], [1])


# clusters


def test_groups_by_hand():
    points = np.array([[0.0], [1.0], [10.0], [11.0], [30.0]])
    assert clustering.agglomerate(points, 3).tolist() == [0, 0, 1, 1, 2]
    assert clustering.agglomerate(points, 5).tolist() == [0, 1, 2, 3, 4]
    assert clustering.agglomerate(points, 1).tolist() == [0] * 5
    values = clustering.silhouette(points, np.array([0, 0, 1, 1, 2]))
    assert values[0] == pytest.approx(1 - 1 / 10.5)
    assert values[4] == 0  # alone
    for wrong in (0, 6):
        with pytest.raises(ValueError, match="1..5"):
            clustering.agglomerate(points, wrong)
    with pytest.raises(ValueError, match="no other"):
        clustering.silhouette(points, np.zeros(5))


def test_the_number_of_groups_is_chosen_by_the_silhouette():
    points = np.array([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]])
    labels, value = clustering.best_clusters(points)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert value == pytest.approx(clustering.silhouette(points, labels).mean())
    assert len(set(clustering.best_clusters(points, fewest=4)[0])) == 4
    for wrong in ({"fewest": 1}, {"fewest": 6}, {"most": 2, "fewest": 3}):
        with pytest.raises(ValueError, match="6 points"):
            clustering.best_clusters(points, **wrong)


def test_agreement_of_groupings():
    assert clustering.adjusted_rand([0, 0, 1, 1], [1, 1, 0, 0]) == 1
    assert clustering.adjusted_rand([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(-0.5)
    draw = np.random.default_rng(0)
    chance = [clustering.adjusted_rand(draw.integers(3, size=60), draw.integers(3, size=60))
              for _ in range(100)]
    assert abs(np.mean(chance)) < 0.02


# planted heads


def planted(kind: str, ids: torch.Tensor, seed: int) -> torch.Tensor:
    """The map of a head of one kind, with noise: (time, time)."""
    time = len(ids)
    scores = 0.5 * noise(time, time, seed=seed)
    places = torch.arange(time)
    if kind == "previous token":
        scores[places[1:], places[:-1]] += 4
    elif kind == "two back":
        scores[places[2:], places[:-2]] += 4
    elif kind == "first token":
        scores[:, 0] += 6
    elif kind == "induction":
        scores = scores + 5 * induction(ids).targets
    return causal(scores)


KINDS = ("previous token", "two back", "first token", "induction", "even")


def planted_model(seed: int, copies: int = 4) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    texts = [torch.randint(12, (48,), generator=draw) for _ in range(15)]
    maps = [torch.stack([torch.stack([planted(kind, ids, 1000 * seed + 100 * number + 10 * i + j)
                                      for j in range(copies)]) for i, kind in enumerate(KINDS)])
            for number, ids in enumerate(texts)]
    return texts, maps


def motifs_of(ids: torch.Tensor) -> dict[str, Motif]:
    time = len(ids)
    return {"previous token": previous_token(time), "two back": previous_token(time, 2),
            "first token": first_token(time), "induction": induction(ids)}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_five_planted_kinds_are_found_again(seed):
    texts, maps = planted_model(seed)
    mined = mining.mine(maps, map(motifs_of, texts))
    truth = np.repeat(np.arange(5), 4)
    labels, value = clustering.best_clusters(mined.features())
    assert clustering.adjusted_rand(labels, truth) >= 0.9
    assert value > 0.5
    found = {(find.motif, find.layer) for find in mining.find_heads(mined) if find.found}
    assert found == {(kind, layer) for layer, kind in enumerate(KINDS[:4])}
    assert len(found) * 4 == sum(find.found for find in mining.find_heads(mined))


def test_noise_has_no_heads():
    # 20 models of 12 heads and 4 motifs; a false find in one of 20 is what 5 % allows, in five
    # or more it would be 1 in 400
    wrong = 0
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        texts = [torch.randint(12, (32,), generator=draw) for _ in range(15)]
        maps = [causal(torch.randn(3, 4, 32, 32, generator=draw)) for _ in texts]
        found = mining.find_heads(mining.mine(maps, map(motifs_of, texts)), draws=1999)
        wrong += any(find.significant for find in found)
        assert not any(find.found for find in found)
    assert wrong <= 4


def test_mining_needs_texts_and_says_how_many():
    with pytest.raises(ValueError, match="at least one map"):
        mining.mine([], [])
    ids = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    even = causal(torch.zeros(1, 2, 10, 10))
    mined = mining.mine([even, [even[0]]], [motifs_of(ids)] * 2)
    assert mined.targets["induction"].shape == (2, 1, 2)
    finds = {find.motif: find for find in mining.find_heads(mined)}
    assert finds["induction"].texts == 0
    assert finds["induction"].p == 1
    assert not finds["induction"].found
    assert finds["previous token"].texts == 2
    assert mined.features().shape == (2, 4)
