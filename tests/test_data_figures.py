"""The figures and curricula of chapter 06b say what their data shows, whatever the data is."""

import math

import matplotlib.pyplot as plt
import pytest
import torch

from scratchbook.companions import data_experiments as plan
from scratchbook.companions import data_figures as figures
from scratchbook.companions.curricula import (
    GrowingContext,
    InOrder,
    TokenDropout,
    difficulty,
    paraphrase,
)
from scratchbook.data.batches import Windows
from scratchbook.data.documents import Document
from scratchbook.data.packing import document_mask

# figures


def closed(found):
    figure, alt = found
    plt.close(figure)
    return alt


def test_the_pipeline_names_every_stage():
    two = [Document("a", "x" * 500_000, "p"), Document("b", "ü" * 250_000, "p")]
    alt = closed(figures.plot_pipeline({"all": two, "less": two[:1]}, 0.25))
    assert ("all: 2 documents, 1.00 MB; less: 1 documents, 0.50 MB; tokens on disk: of those for "
            "training, 0.25 MB.") in alt


def test_estimates_are_counted_inside_their_band():
    alt = closed(figures.plot_estimates([0.5, 0.5, 0.0], [0.55, 0.9, 0.0], 100))
    assert "3 pairs from 100 numbers each: the largest error is 0.40, and 67% lie within" in alt


def test_the_step_of_the_bands_is_found():
    similarity = [i / 10 for i in range(11)]
    alt = closed(figures.plot_bands({"bands of 1": similarity}, similarity, [(0.2, 0.25)]))
    assert "One half: bands of 1 at a similarity of 0.50. Measured, bands of 1: 0.25 at 0.20" in alt


def test_a_packed_row_counts_its_pairs():
    segments = torch.tensor([0, 0, 1, -1])
    mask = document_mask(segments[None])[0, 0]
    alt = closed(figures.plot_row(segments, mask, torch.ones(4, 4).tril().bool()))
    assert "4 places with 2 documents" in alt
    assert "5 with document masks, 10 causal mask alone" in alt
    figure, _ = figures.plot_row(segments, mask, mask)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["document 1", "document 2",
                                                                "padding"]
    shown = figure.axes[0].images[0].to_rgba(figure.axes[0].images[0].get_array())
    for place, patch in zip((0, 2, 3), legend.get_patches(), strict=True):
        assert tuple(shown[place, place]) == pytest.approx(patch.get_facecolor())
    plt.close(figure)


def test_mixes_and_contexts_give_means():
    mixes = {"0": {"code": [4.0, 5.0], "prose": [1.0, 1.0]}, "∞": {"code": [2.0], "prose": [3.0]}}
    alt = closed(figures.plot_mixes(mixes))
    assert "On code: 4.50 at weight 0, 2.00 at weight ∞. On prose: 1.00 at weight 0" in alt
    alt = closed(figures.plot_contexts({"32": [(1.0, 2.0), (3.0, 4.0)]}))
    assert "32: 3.000 bits per byte in 2.0 seconds." in alt


def test_the_still_picture_names_every_share():
    svg = figures.mixture_still({"code": {"lines": 0.75, "bytes": 0.5}, "prose": {
        "lines": 0.25, "bytes": 0.5}})
    assert "code: 75% of the lines, 50% of the bytes; prose: 25% of the lines" in svg
    assert svg.startswith("<svg")


def numbers(random, other):
    flat = {f"{corpus}, {on}": [3.0, 3.1, 3.2] for corpus in ("clean", "leaky")
            for on in ("held out", "new")}
    return {"leak": flat | {"leaky, held out": [2.0, 2.1, 2.2]},
            "orders": {"random": random, "short to long": other},
            "contexts": {"32 → 64 → 128": [(1, 2.0), (1, 2.1), (1, 2.2)],
                         "128": [(1, 2.2), (1, 2.1), (1, 2.0)]},
            "masks": {"True": [1.0, 1.1, 1.2], "False": [1.5, 1.6, 1.75]}}


def test_differences_are_paired_and_signed():
    far = figures.difference([1.0, 2.0, 3.0], [1.5, 2.5, 3.5])  # ranges that overlap
    assert far == "-0.50\u00a0±\u00a00.00: lower"
    assert figures.difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.1]).startswith("-0.03\u00a0±\u00a00.14")
    assert figures.difference([2.0, 3.0, 4.0], [1.0, 2.5, 4.2]).endswith(": no clear difference")
    assert figures.difference([1.0, 2.0, 3.0], [1.001, 2.0, 3.0]).startswith("+0.00")
    assert figures.spread([1.0, 1.0, 1.0]) == "1.00\u00a0±\u00a00.00"


def test_findings_name_winners_only_when_there_are_some():
    lines = figures.findings(numbers([3.0, 3.1, 3.2], [2.9, 3.2, 3.2]))
    assert "(lower); on new texts" in lines[0] and lines[0].endswith("(no clear difference).")
    assert lines[1] == "Against random order, better: none; worse: none."
    assert "(no clear difference)" in lines[2] and "(higher)" in lines[3]
    lines = figures.findings(numbers([3.0, 3.1, 3.2], [2.0, 2.1, 2.2]))
    assert lines[1] == "Against random order, better: short to long; worse: none."
    lines = figures.findings(numbers([2.0, 2.1, 2.2], [3.0, 3.1, 3.2]))
    assert lines[1] == "Against random order, better: none; worse: short to long."


# curricula


def test_every_order_reads_the_same_tokens_once():
    documents = [torch.arange(10 * n, 10 * n + n) % 256 for n in range(1, 12)]  # 66 ids
    data = InOrder(documents, torch.arange(20), 4)
    batches = [data.batch(step, 2) for step in range(8)]
    read = torch.cat([batch.ids.flatten() for batch in batches])
    assert torch.equal(read, torch.cat(documents)[:64])
    assert torch.equal(torch.cat([b.targets.flatten() for b in batches]),
                       torch.cat(documents)[1:65])
    with pytest.raises(ValueError, match="step 8 would read past the 66 ids"):
        data.batch(8, 2)
    assert sum(len(batch.ids) for batch in data.validation(3)) == 4


def test_contexts_grow_and_tokens_stay():
    ids = torch.arange(2000) % 256
    data = GrowingContext(ids, ids[:300], 8, [(0.5, 4), (0.25, 8), (0.25, 16)], 16, seed=1)
    shapes = [tuple(data.batch(step, 2).ids.shape) for step in range(8)]
    assert shapes == [(8, 4)] * 4 + [(4, 8)] * 2 + [(2, 16)] * 2
    assert all(batch.ids.shape[1] == 16 for batch in data.validation(5))
    assert torch.equal(data.batch(3, 2).ids, data.batch(3, 2).ids)
    for stages in ([(0.5, 4)], [(1.0, 5)]):
        with pytest.raises(ValueError, match="shares must sum to 1"):
            GrowingContext(ids, ids[:300], 8, stages, 16)


def test_dropout_blanks_what_is_read_and_never_what_is_asked():
    ids = 1 + torch.arange(5000) % 255
    plain = Windows(ids, ids[:200], 32, seed=2)
    data = TokenDropout(plain, 0.1, seed=2)
    batch, before = data.batch(4, 100), plain.batch(4, 100)
    assert torch.equal(batch.targets, before.targets)
    blanks = batch.ids == 0
    assert torch.equal(batch.ids[~blanks], before.ids[~blanks])
    assert abs(blanks.float().mean() - 0.1) < 4 * math.sqrt(0.09 / 3200)  # 1 in 16,000
    assert torch.equal(data.batch(4, 100).ids, batch.ids)
    assert all((b.ids > 0).all() for b in data.validation(3))
    with pytest.raises(ValueError, match="share=1 is not within"):
        TokenDropout(plain, 1)


def test_paraphrases_go_both_ways_and_by_chance():
    text = "For example, this contains that; for example, it returns one. It holds: to be."
    assert paraphrase(text, 0.0) == text
    changed = paraphrase(text, 1.0)
    assert changed == ("For example, this holds that; for instance, it gives back one. "
                       "It contains: to be.")
    assert paraphrase(changed, 1.0) == text
    some = {paraphrase("contains " * 10, 0.5, seed) for seed in range(9)}
    assert len(some) > 5 and paraphrase(text, 0.5, 3) == paraphrase(text, 0.5, 3)
    texts = [f"text {number} contains it" for number in range(20)]
    changed = [paraphrase(text, 0.5) != text for text in texts]  # not all by the same first draw
    assert 4 <= sum(changed) <= 16


def test_difficulty_is_bits_under_the_counts_of_pairs():
    easy, hard = torch.tensor([1, 2] * 50), torch.tensor([3, 4, 3, 5, 3, 6, 3, 7])
    found = difficulty([easy, hard, torch.tensor([9])])
    assert found[0] < 0.1 and found[2] == 0
    # after 3 come four others, each once; after each of these comes 3
    assert found[1] == pytest.approx(4 * 2 / 7)


# the materials of the experiments


def test_planted_copies_lose_a_word_each_time():
    texts = [text.split() for text in plan.planted_copies(5, seed=1)]
    assert texts[0] == texts[1]
    assert [sum(a != b for a, b in zip(texts[0], t, strict=True)) for t in texts[1:]] == [
        0, 1, 2, 3, 4]
    assert plan.planted_copies(3, 1) == plan.planted_copies(3, 1)


def test_bands_meet_as_often_as_predicted():
    got, wanted = plan.share_that_meets(0.4, 4, seed=3), 1 - (1 - 0.4**4) ** 32
    assert abs(got - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / 300)  # 1 in 16,000
    assert plan.share_that_meets(1.0, 4, seed=0, trials=9) == 1


def test_a_twin_is_near_and_not_equal():
    text = " ".join(f"word{n}" for n in range(120))
    changed = sum(a != b for a, b in zip(text.split(), plan.twin(text, 1).split(), strict=True))
    assert 1 <= changed <= 3
    heaps = plan.heaps([str(n) for n in range(200)], seed=2)
    assert [len(heap) for heap in heaps.values()] == [15, 15, 15, 45]
    assert len(set().union(*heaps.values())) == 90


def test_twins_of_short_texts_slip_under_the_threshold():
    short = [" ".join(f"w{n}x{k}" for k in range(20)) for n in range(90)]  # one word of 20
    assert plan.similar_twins(short, 1, 0.7) == 0  # 11 of 21 shingles are left
    assert plan.audited_twins(short, 1) == 15
    long = [" ".join(f"w{n}x{k}" for k in range(79)) for n in range(90)]  # one word of 79
    assert plan.similar_twins(long, 1, 0.7) == plan.audited_twins(long, 1) == 15


def test_orders_read_the_same_bytes():
    texts = [f"{n} " * (5 + n % 40) for n in range(400)]
    found = plan.orders(texts, 64 * 8 * 4, seed=1)
    ids = [sorted(torch.cat(list(found[name].ids.split(1))).tolist())
           for name in ("random", "short to long", "easy to hard")]
    assert ids[0] == ids[1] == ids[2]
    for data in found.values():
        assert data.batch(3, 8).ids.shape == (8, 64)


def test_the_small_tree_is_written_and_leaks_are_shares(tmp_path):
    folder = plan.write_tree(plan.SMALL_TREE)
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.*")} == set(plan.SMALL_TREE)
    same = [Document(str(n), " ".join(map(str, range(30))), str(n)) for n in range(10)]
    assert plan.leaked_share(same, "name", 0) == 1.0
    (only,) = plan.paragraphs_of([Document("a", "x " * 20 + "\n\ny", "p")])
    assert only.name == "a:0"
