"""Chapter 06e's controls change one thing alone, and tell planted heads of two kinds apart."""

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from scratchbook.companions import mining_controls, mining_errors, mining_findings, mining_heads
from scratchbook.companions.mining_errors import Damaged
from scratchbook.companions.mining_material import Material, mined
from scratchbook.companions.mining_planted import AS_LARGE, Grown, new_model
from scratchbook.config import ModelConfig
from scratchbook.interpret.code_motifs import TokenText, delimiter_motif, method_motif
from scratchbook.interpret.mining import Find, Mined, find_heads, mine
from scratchbook.interpret.patterns import Motif, first_token, induction
from tests.random_models import random_model

CONFIG = ModelConfig(vocab_size=13, max_seq_len=64, num_layers=2, d_model=12, num_heads=3, d_ff=16)
WORDS = ["a", " =", "b", ",", "\n", "def", " f", "(", ")", ":", " x", " +", " y"]


class Words:
    """A tokenizer of thirteen words."""

    def token_bytes(self, number: int) -> bytes:
        return WORDS[number].encode()


def material(texts: int = 6, time: int = 40, seed: int = 0) -> Material:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(len(WORDS), (texts, time), generator=draw)
    return Material("python", random_model(CONFIG, std=0.8), Words(), ids)


def find(motif: str, layer: int, head: int, excess: float = 0.3, p: float = 0.01) -> Find:
    return Find(motif, layer, head, excess + 0.1, excess, p, p, 20)


# vectors


def test_equal_tokens_share_their_vectors_where_it_is_said():
    model, ids = random_model(CONFIG), torch.tensor([[1, 2, 1, 3], [1, 2, 1, 4]])
    table = model.token_embedding.weight.detach()
    with mining_controls.fresh_vectors(model, "everywhere", 0):
        assert torch.equal(model.token_embedding(ids), table[ids])
    with mining_controls.fresh_vectors(model, "within a text", 0):
        found = model.token_embedding(ids)
        assert torch.equal(found[0, 0], found[0, 2])
        assert not torch.isclose(found[0, 0], found[1, 0]).any()
        assert not torch.isclose(model.token_embedding(ids), found).any()  # anew for each text
    with mining_controls.fresh_vectors(model, "nowhere", 0):
        found = model.token_embedding(ids.repeat(1, 16))
        assert not torch.isclose(found[0, 0], found[0, 2]).any()
        assert found.std().item() == pytest.approx(table.std().item(), rel=0.1)
    assert torch.equal(model.token_embedding(ids), table[ids])  # and the hook is gone
    with (pytest.raises(ValueError, match="'here' is none of everywhere"),
          mining_controls.fresh_vectors(model, "here", 0)):
        pass


def test_finds_of_untrained_models_are_counted_by_motif():
    known = material()
    motifs = [{"induction": induction(row), "first token": first_token(len(row))}
              for row in known.ids]
    rows = mining_controls.false_finds(known, motifs, (0, 1), "nowhere")
    assert [row["tests"] for row in rows] == [12, 12]  # six heads, two motifs
    assert all(sum(row["by motif"].values()) == row["holm"] <= row["alone"] for row in rows)
    other = mining_controls.false_finds(known, motifs, (0, 1))
    own = [find_heads(mined(mining_controls.untrained(known.model, seed), known.ids, motifs))
           for seed in (0, 1)]
    assert [row["alone"] for row in other] == [sum(f.p <= 0.05 for f in finds) for finds in own]


def test_finds_are_told_by_where_vectors_are_shared():
    found = {"everywhere": [{"tests": 100, "alone": 20, "holm": 3, "by motif": {"a": 2, "b": 1}},
                            {"tests": 100, "alone": 10, "holm": 1, "by motif": {"a": 1}}],
             "nowhere": [{"tests": 100, "alone": 5, "holm": 0, "by motif": {}}] * 2}
    assert mining_findings.shared_rows("python", found) == [
        {"language": "python", "motif": "a", "everywhere": 3, "nowhere": 0},
        {"language": "python", "motif": "b", "everywhere": 1, "nowhere": 0}]
    line = mining_findings.shared_line("python", found)
    assert "everywhere 4 (15.0% at 5 % each), nowhere 0 (5.0% at 5 % each)" in line


# other texts, other halves


def test_another_texts_motif_is_laid_over():
    known = material(texts=3)
    motifs = [{"induction": induction(row)} for row in known.ids]
    want = mined(known.model, known.ids, [motifs[1], motifs[2], motifs[0]])
    got = mining_controls.of_another_text(known, motifs)
    assert np.array_equal(got.targets["induction"], want.targets["induction"])


def test_the_strongest_is_chosen_and_told_on_different_texts():
    # the even texts like head 0.1 best, the odd ones head 0.0
    targets = np.array([[[0.2, 0.5]], [[0.6, 0.3]], [[0.2, 0.5]], [[0.6, 0.3]]])
    table = Mined({"a": targets}, {"a": np.full_like(targets, 0.1)})
    elsewhere = Mined({"a": targets / 10}, {"a": np.zeros_like(targets)})
    row, = mining_findings.motif_rows(find_heads(table), table, elsewhere)
    assert row["strongest"] == "0.1"
    assert row["on targets"] == pytest.approx(0.3)
    assert row["excess"] == pytest.approx(0.2)
    assert row["by another text"] == pytest.approx(0.03)


def test_groups_of_two_halves_agree_or_not():
    draw = np.random.default_rng(0)
    kinds = np.repeat([0.0, 1.0, 2.0, 3.0], 3).reshape(2, 6)
    noise = draw.normal(0, 0.01, (10, 2, 6))
    table = Mined({"a": kinds + noise}, {"a": np.zeros((10, 2, 6))})
    assert mining_controls.halves_agree(table, 5, 2) == 1
    mixed = np.where(np.arange(10)[:, None, None] % 2, kinds, kinds[:, ::-1] % 2)
    table = Mined({"a": mixed + noise}, {"a": np.zeros((10, 2, 6))})
    assert mining_controls.halves_agree(table, 5, 2) < 0.8


# the last of its kind


def test_the_delimiter_and_the_method_before_the_last():
    text = TokenText(("a", ",", "b", ",", "c", "\n", "def", " f", "(", ")", ":", " x", " +", " z",
                      "\n", "def", " g", "(", "p", ")", " q"), "python")
    assert delimiter_motif(text).targets[5].nonzero().flatten().tolist() == [3]
    assert delimiter_motif(text, 1).targets[5].nonzero().flatten().tolist() == [1]
    assert delimiter_motif(text, 1).targets[3].sum() == 0  # there is but one
    assert method_motif(text).targets[20].nonzero().flatten().tolist() == [15]
    assert method_motif(text, 1).targets[20].nonzero().flatten().tolist() == [6]
    assert method_motif(text, 1).targets[12].sum() == 0
    both = delimiter_motif(text).where(delimiter_motif(text, 1))
    assert isinstance(both, Motif)
    assert both.rows == delimiter_motif(text, 1).rows < delimiter_motif(text).rows


def test_a_head_of_every_delimiter_is_told_from_one_of_the_last(monkeypatch):
    known = material(texts=12, time=60)
    maps = []
    for number in range(len(known.ids)):
        text = TokenText(tuple(known.pieces(number)), "python")
        distance = (torch.arange(60)[:, None] - torch.arange(60)).float()
        noise = 0.2 * torch.randn(2, 60, 60, generator=torch.Generator().manual_seed(number))
        every = torch.zeros(60, 60)
        every[:, text.delimiters] = 3
        scores = noise - 0.05 * distance + torch.stack([every, 3 * delimiter_motif(text).targets])
        maps.append(scores.masked_fill(distance < 0, -torch.inf).softmax(-1)[None])
    monkeypatch.setattr(mining_controls, "mined", lambda model, ids, motifs: mine(maps, motifs))
    finds = [find("delimiter", 0, 0), find("delimiter", 0, 1), find("induction", 0, 0),
             find("delimiter", 0, 1, p=0.5)]
    every, last = mining_controls.last_or_every(known, finds)
    assert (every["head"], last["head"], last["texts"]) == (0, 1, 12)
    assert every["before"].low > 5
    assert 0.8 < every["ratio"].value < 1.25
    assert last["before"].low < 1.1 < 5 < last["ratio"].low
    rows = mining_findings.kind_rows("python", [every, last | {"before": (1.0, 0.9, 1.1)}])
    assert [row["the one before is liked"] for row in rows] == ["yes", "not clearly"]
    assert rows[1]["the last"] == "more"
    line = mining_findings.kinds_line({"python": {"kinds": [
        {"before": (2, 1.5, 3), "ratio": (1, 0.8, 1.2)}, {"before": (1, 0.5, 2),
                                                          "ratio": (3, 2, 4)}]}})
    assert "Of 2 found delimiter and method heads 1 look at the one before the last" in line
    assert "1 more at the last, 0 less, 1 no clear difference" in line


def test_times_by_hand():
    found = mining_controls.times(np.array([0.2, 0.4]), np.array([0.1, 0.1]), draws=50)
    assert found[0] == pytest.approx(3)
    assert set(found.round(6)) == {2.0, 3.0, 4.0}


# heads that need others


def test_induction_heads_without_the_head_before_them():
    known = material(texts=5)
    assert mining_controls.without_earlier(known, [find("induction", 1, 0)], known.ids) is None
    earlier = [find("previous token", 0, 2), find("previous token", 0, 1, excess=0.2)]
    assert mining_controls.without_earlier(known, [*earlier, find("induction", 0, 0)],
                                           known.ids) is None  # in the same layer
    finds = [*earlier, find("induction", 1, 0), find("induction", 1, 2),
             find("induction", 1, 1, p=0.9)]
    known_motifs = [{"induction": induction(row)} for row in known.ids]
    whole = mined(known.model, known.ids, known_motifs).excess()["induction"][1, [0, 2]].mean()
    got = mining_controls.without_earlier(known, finds, known.ids)
    assert got["head"] == [0, 2]
    assert got["induction heads"] == 2
    assert got["whole"] == pytest.approx(whole)
    assert abs(got["without"] - got["whole"]) > 1e-5
    assert len(got["others"]) == 2
    assert len({*got["others"], got["without"]}) == 3  # each without another head
    assert got["change"]["mean"] == pytest.approx(got["without"] - got["whole"])
    assert got["against others"]["mean"] == pytest.approx(got["without"] - np.mean(got["others"]))
    line = mining_findings.earlier_line("smalltalk", got | {
        "whole": 0.22, "without": 0.02, "others": [0.2, 0.23],
        "against others": {"verdict": "lower"}})
    assert "is 0.22; it is 0.02 without previous-token head 0.2, and 0.20 to 0.23" in line
    assert "(the first against these: lower)" in line


def test_one_layer_is_as_large_as_two():
    one, two = (sum(p.numel() for p in model.parameters())
                for model in (new_model(1, 0, AS_LARGE), new_model(2, 0)))
    assert one == two
    grown = Grown([0], [3.0], [[[0.1, 0.2], [0.9, 0.5]]])
    assert grown.ranked() == [(1, 0), (1, 1), (0, 1), (0, 0)]
    assert grown.ranked(0.5) == [(1, 0), (1, 1)]


# pruning, groups and runs in words


def test_draws_as_good_and_the_spread_of_time():
    one = {"mean": 0.2, "low": 0.1, "high": 0.3, "verdict": "lower"}
    row = {"keep": 2, "of": 4, "by evidence": one, "by chance": one, "by norm": one,
           "evidence against chance": one, "evidence against norm": one,
           "chance runs": [0.1, 0.2, 0.3, 0.4], "parameters": [100, 90],
           "seconds": [[1.0, 2.0, 1.0], [0.8, 1.8, 1.0]]}
    shown, = mining_findings.pruning_rows([row])
    assert shown["draws as good"] == "2 of 4"
    assert shown["time of a pass"] == "90% (85% to 95%)"
    assert "(lower; 2 of 4 draws as good)" in mining_findings.pruning_line("python", [row])
    seconds = mining_heads.seconds_per_pass([random_model(CONFIG)] * 2, material().ids, rounds=3)
    assert np.shape(seconds) == (2, 3)
    assert np.min(seconds) > 0


# errors and methods


def test_rarity_is_counted_in_the_other_texts():
    texts = [Damaged([0, 1, 1, 1], [0, 2, 2, 2], 1, "x"), Damaged([1, 1, 0, 0], [1, 1, 0, 0], 0,
                                                                 "x")]
    found = mining_errors.rarities(texts, 3)
    # the other text holds 1 twice, 0 twice, 2 never; with one more of each, of seven
    assert found[0] == pytest.approx([np.log(7), np.log(7 / 3)])


def test_labels_move_between_texts_as_they_are():
    texts = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    labels = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9])
    draw, seen = np.random.default_rng(0), set()
    for _ in range(50):
        moved = mining_errors.labels_of_other_texts(labels, texts, draw).tolist()
        assert sorted(moved) == labels.tolist()
        for part in ([1, 2, 3], [4, 5], [6, 7, 8, 9]):
            start = moved.index(part[0])
            assert moved[start : start + len(part)] == part
        seen.add(tuple(moved))
    assert len(seen) == 6


def test_the_gap_of_two_areas_over_texts():
    draw = np.random.default_rng(0)
    texts, labels = np.repeat(np.arange(30), 10), draw.integers(0, 2, 300).astype(float)
    good, poor = labels + draw.normal(0, 0.3, 300), draw.normal(size=300)
    value, low, high = mining_errors.gap_over_texts(good, poor, labels, texts, draws=200)
    assert 0.3 < low < value < high
    assert mining_errors.gap_over_texts(good, good, labels, texts, draws=50) == (0, 0, 0)
    with pytest.raises(ValueError, match="need one at least"):
        mining_errors.gap_over_texts(good, poor, np.ones(300), texts)


def test_the_probe_is_told_beside_its_rivals():
    found = {"by layer": {"0": 0.89, "6": 0.93}, "last": 6, "shuffled": [0.4, 0.6], "judged": 293,
             "line breaks": 0.73, "p": 0.005, "last against embedding": [0.04, -0.04, 0.11],
             "last against line breaks": [0.2, 0.11, 0.31]}
    line = mining_findings.probe_line(found)
    assert "labels of other texts 0.50 on average, at most 0.60 (p = 0.005)" in line
    assert "embedding (0.89): +0.04, 95 % over texts -0.04 to +0.11: no clear difference" in line
    assert "line breaks (0.73): +0.20, 95 % over texts +0.11 to +0.31: more" in line
