"""Chapter 06e's figures and sentences say what their data holds; its task is what it claims."""

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from scratchbook.companions import mining_errors, mining_figures, mining_findings, mining_heads
from scratchbook.companions.mining_planted import (
    FILM,
    HELD_OUT,
    LONGEST,
    SHORTEST,
    TIME,
    Grown,
    Repeats,
    film_ids,
    grow,
    judge,
    new_model,
)
from scratchbook.config import ModelConfig
from scratchbook.interpret.mining import Find, Mined
from scratchbook.interpret.patterns import induction
from tests.random_models import random_model

CONFIG = ModelConfig(vocab_size=13, max_seq_len=16, num_layers=2, d_model=12, num_heads=3, d_ff=16)


def effect(mean: float, half: float = 0.1) -> dict:
    low, high = mean - half, mean + half
    word = "higher" if low > 0 else "lower" if high < 0 else "no clear difference"
    return {"mean": mean, "low": low, "high": high, "verdict": word}


def find(motif: str, layer: int, head: int, excess: float, p: float = 0.01) -> Find:
    return Find(motif, layer, head, excess + 0.1, excess, p, p, 20)


# the planted task


def test_the_second_half_repeats_the_first_and_alone_counts():
    batch = Repeats(3).batch(5, 64)
    lengths = set()
    for ids, targets in zip(batch.ids.tolist(), batch.targets.tolist(), strict=True):
        first = next(place for place, target in enumerate(targets) if target != -100)
        length = first + 1
        lengths.add(length)
        assert len(set(ids[:length])) == length  # all different
        assert all(t == ids[place + 1 - length] for place, t in enumerate(targets)
                   if place >= first)
        assert set(targets[:first]) == {-100}
    assert min(lengths) >= SHORTEST
    assert max(lengths) <= LONGEST
    assert len(lengths) > 4


def test_texts_without_repetition_and_held_out_ones():
    plain = Repeats(3, repeated=False).batch(0, 8)
    assert torch.equal(plain.targets[:, :-1], plain.ids[:, 1:])
    assert induction(plain.ids[0]).rows > 0  # letters come twice by chance
    assert not torch.equal(Repeats(3).batch(0, 8).ids, Repeats(4).batch(0, 8).ids)
    held = next(Repeats(3).validation(8))
    assert torch.equal(held.ids, Repeats(3).batch(HELD_OUT, 8).ids)
    assert Repeats(1).fingerprint() != Repeats(2).fingerprint()


def test_an_untrained_model_guesses_evenly():
    loss, scores = judge(new_model(2, 0), 0)
    assert loss == pytest.approx(np.log(32), abs=0.35)
    assert scores.shape == (2, 4)
    assert scores.max() < 0.1


def test_the_film_shows_a_text_such_as_is_trained_on():
    ids = film_ids()
    half = len(ids) // 2
    assert SHORTEST <= half <= LONGEST and len(ids) <= TIME
    assert len(set(ids.tolist())) == half and torch.equal(ids[:half], ids[half:])
    grown = grow(1, max_steps=12, watch=[0, 12])
    film = grown.film()
    assert [len(sample) for sample in film["samples"]] == [len(ids)] * 2
    assert all(sample.startswith(FILM + FILM[0]) for sample in film["samples"])
    assert len(film["attention"][0]) == len(film["tokens"]) == len(ids)


def test_grown_runs_name_their_best_head():
    grown = Grown([0, 1], [3.0, 1.0], [[[0.1, 0.2], [0.3, 0.1]], [[0.1, 0.2], [0.3, 0.9]]])
    assert grown.best == [0.3, 0.9]
    assert grown.best_head() == (1, 1)
    figure, alt = mining_figures.plot_grown({"two layers": grown})
    assert "score 0.90" in alt
    assert len(figure.axes) == 2
    assert "<table" in mining_figures.film_still(grown)


# figures


def test_the_figures_name_what_is_largest():
    table = np.zeros((2, 3))
    table[1, 2] = 0.3
    _, alt = mining_figures.plot_heads({"python": {"a": table, "b": table / 2}})
    assert "0.30, a at layer 1, head 2" in alt
    rows = [{"step": step, "loss": 3 - step, "excess": {"a": [[0.1 * step, 0.0]]}}
            for step in range(3)]
    assert mining_figures.best_excess(rows)["a"] == pytest.approx([0, 0.1, 0.2])
    _, alt = mining_figures.plot_evolution(rows, ["a"])
    assert "a 0.10 to 0.20" in alt
    _, alt = mining_figures.plot_effects([{"head": "1.2 a", "effect": effect(0.5),
                                           "control": effect(0.0)}])
    assert "0.500 nats, without 1.2 a" in alt


# sentences


def test_finds_say_what_was_not_found():
    finds = [find("induction", 1, 0, 0.3), find("induction", 0, 0, 0.05), find("bracket", 0, 1, 0.2,
                                                                            p=0.6)]
    line = mining_findings.finds_line("python", finds)
    assert "heads found for induction (1). None found (and how many are significant" in line
    assert line.endswith("bracket (0).")
    scores = np.array([[[0.05, 0.0], [0.3, 0.0]]] * 4)  # (texts, layers, heads)
    table = Mined({"induction": scores}, {"induction": np.zeros_like(scores)})
    row, = mining_findings.motif_rows(finds, table, table)
    assert row["significant"] == 2
    assert row["found"] == 1
    assert row["strongest"] == "1.0"


def test_groups_without_a_name_are_counted():
    group = {"heads": 5, "motif": "", "excess": 0.02, "nearest": "bracket", "silhouette": 0.5,
             "central": [1, 2], "exemplars": ["x"]}
    named = group | {"motif": "bracket", "heads": 1}
    line = mining_findings.clusters_line("python", [group, named], 0.85)
    assert "1 without one of our names, with 5 of 6 heads; the groups" in line
    assert line.endswith("agree to 0.85.")
    assert "each with one of our names" in mining_findings.clusters_line(
        "python", [group | {"motif": "bracket"}], 1.0)
    assert mining_findings.cluster_rows([group])[0]["name"] == "none of ours"


def test_effects_are_compared_with_their_controls():
    rows = [{"effect": effect(0.5), "gap": effect(0.5)}, {"effect": effect(0.1), "gap": effect(0)},
            {"effect": effect(-0.5), "gap": effect(-0.6)}]
    line = mining_findings.effects_line("python", rows, "mean")
    assert "of the 3 found heads with the largest excess 1 raise" in line
    assert "1 more than the heads of the layer" in line
    assert "1 less, 1 no clear difference" in line
    part = {"motifs": ["a"], "excess": {"a": [[0.0, 0.0, 0.0], [0.5, 0.3, 0.2]]},
            "finds": [{"layer": 1, "head": 0, "excess": 0.5, "motif": "a"}],
            "ablation": {"mean": [[9.0, 9.0]] * 3 + [[0.6, 1.0], [0.1, 0.5], [0.3, 0.7]]}}
    found, = mining_findings.effect_rows(part, "mean")
    assert found["effect"]["mean"] == pytest.approx(0.8)
    assert found["control"]["mean"] == pytest.approx(0.4)
    assert found["gap"]["low"] == pytest.approx(0.4)  # the texts vary, the difference does not
    assert found["gap"]["verdict"] == "higher"
    assert mining_heads.controls_for((1, 1), [(1, 0)], 4) == [(1, 2), (1, 3)]
    with pytest.raises(ValueError, match="no control"):
        mining_heads.controls_for((0, 0), [(0, 0), (0, 1)], 2)


def test_cost_is_compared_with_depth_and_within_layers():
    part = {"motifs": ["a", "b"], "excess": {"a": [[0.1, 0.2, 0.3, 0.4], [0.6, 0.5, 0.8, 0.7]],
                                             "b": [[0.0] * 4, [float("nan")] * 4]},
            "ablation": {"mean": [[float(cost)] for cost in range(8)]}}
    line = mining_findings.cost_line("python", part)
    assert "over 8 heads of the largest excess with the cost 0.95" in line
    assert "layer's number with the cost 0.87" in line
    assert "within a layer 0.80 on average (from 0.60 to 1.00)" in line


def test_errors_and_false_finds_in_words():
    part = {"head area": [0.6, 0.45, 0.7], "loss area": [0.9, 0.8, 0.95]}
    line = mining_findings.errors_line("python", part)
    assert "not clearly above chance" in line
    assert "clearly more" in line
    part["loss area"] = [0.65, 0.5, 0.8]
    assert "no clear difference" in mining_findings.errors_line("python", part)
    line = mining_findings.false_line([{"tests": 100, "alone": 7, "holm": 1, "found": 0}])
    assert "7 at 5 % each (7%), 1 with Holm, 0 that are large enough" in line


def test_correlations_have_a_direction():
    rows = [{"step": step, "loss": 5.0 - step, "excess": {"a": [[0.1 * step]], "b": [[0.2]]}}
            for step in range(8)]
    found = mining_findings.correlation_rows(rows)
    assert [row["motif"] for row in found] == ["a"]  # b never changes
    assert found[0]["verdict"] == "higher where the loss is lower"
    line = mining_findings.order_line(rows)
    assert line.endswith("excess: b 0, a 4.")  # a ends at 0.7, and has 0.4 at step 4
    runs = [{"best": [0.1, 0.2, 0.3, 0.4], "losses": [4, 3, 2, 1]}] * 3
    assert mining_findings.seed_correlations(runs).value == pytest.approx(-1)


# heads


def test_worth_decides_which_heads_stay():
    model = random_model(CONFIG)
    worth = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 0.5]])
    smaller = mining_heads.pruned(model, worth, 2)
    ids = torch.randint(13, (2, 9))
    assert smaller.config.num_heads == 2
    want = model.blocks[1].attention.q_proj.weight.unflatten(0, (3, 4))[[0, 2]].flatten(0, 1)
    assert torch.equal(smaller.blocks[1].attention.q_proj.weight, want)
    assert model.config.num_heads == 3  # the model itself is as it was
    model.blocks[1].attention.o_proj.weight.data[:, 4:8] *= 100
    assert mining_heads.norms(model).shape == (2, 3)
    assert mining_heads.norms(model).argmax() == 4
    from scratchbook.interpret.ablation import ablated
    with torch.no_grad(), ablated(model, [(0, 0), (1, 1)]):
        assert torch.allclose(model(ids), smaller(ids), atol=1e-5)


def test_told_says_what_its_interval_says():
    assert mining_heads.told(torch.tensor([1.0, 1.1, 0.9]))["verdict"] == "higher"
    assert mining_heads.told(torch.tensor([1.0, -1.1, 0.1]))["verdict"] == "no clear difference"


# errors


def test_the_first_token_that_differs():
    assert mining_errors.first_difference([1, 2, 3], [1, 2, 4]) == 2
    assert mining_errors.first_difference([1, 2], [1, 2, 3]) == 2


def test_a_probe_finds_a_direction_and_no_direction_in_shuffled_labels():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(400, 5))
    labels = (x[:, 2] > 0).astype(float)
    weights = mining_errors.ridge(x, labels)
    assert np.abs(weights[:-1]).argmax() == 2
    shuffled = mining_errors.ridge(x, draw.permutation(labels))
    assert np.abs(shuffled[:-1]).max() < np.abs(weights[:-1]).max() / 3
