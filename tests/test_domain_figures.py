"""Chapter 01b's tables and sentences say what their numbers hold; its texts are what they claim."""

from __future__ import annotations

import random
from collections import Counter

import pytest

pytest.importorskip("matplotlib")

from scratchbook.companions import domain_figures as figures
from scratchbook.companions import domain_material as material
from scratchbook.companions import domain_models as models
from scratchbook.evaluation.comparing import Interval
from scratchbook.teaching.results import load_result
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.domain import LogTokenizer
from scratchbook.tokenizers.folding import LINE


def counts(ours: int, published: int, plain: int, spread: int = 0) -> dict:
    draw = random.Random(0)
    blocks = {"ours": ours, "ours, no templates learned": ours, "ours over cl100k": 2 * ours,
              "cl100k": published, **{name: plain + n for n, name in enumerate(figures.FAIR)}}
    return {"bytes": 100, "gzip_bytes": 10, "tokens": {
        name: [size + draw.randint(-spread, spread) for _ in range(20)]
        for name, size in blocks.items()}}


def test_bounds_are_met_missed_or_open():
    rows = figures.log_rows({"met": counts(30, 100, 90), "missed": counts(80, 100, 90),
                             "open": counts(50, 100, 75, spread=20)})
    assert [row["at most 50 %"] for row in rows] == ["met", "missed", "not settled"]
    assert [row["at most 67 %"] for row in rows] == ["met", "missed", "not settled"]
    assert rows[0]["of cl100k"] == "30 % (30–30)" and rows[0]["cut"] == "GPT-2's cut"


def test_the_strongest_of_the_plain_rivals_is_taken():
    found = counts(30, 100, 90)["tokens"]
    assert figures.strongest(found) == figures.FAIR[0]
    assert figures.strongest(found | {figures.FAIR[2]: [1] * 20}) == figures.FAIR[2]


def test_the_closing_counts_verdicts():
    study = {"left out": {"A": counts(30, 100, 90), "B": counts(80, 100, 90)}}
    [line] = figures.closing(study, None)
    assert line.startswith("Real logs, left out, 2 systems: at most 50 % of cl100k: ")
    assert "met on 1" in line and "missed on 1" in line
    assert figures.closing(None, None) == []


def test_the_hybrid_is_said_to_save_only_where_the_interval_says_so():
    baseline = figures.FAIR[0]
    draw = random.Random(0)
    many = [draw.randint(50, 150) for _ in range(40)]
    for change, word in ((0.9, "fewer tokens"), (1.1, "more tokens")):
        found = {"bytes": [300] * 40, "tokens": {"hybrid": [change * n for n in many],
                                                 baseline: many}}
        assert word in figures.code_line("x", found)
    noisy = {"bytes": [300] * 40, "tokens": {
        "hybrid": [n * draw.choice((0.5, 1.5)) for n in many], baseline: many}}
    assert "no clear difference" in figures.code_line("x", noisy)
    rows = figures.code_rows(noisy)
    assert rows[0]["verdict"] == "no clear difference" and rows[1]["verdict"] == "the baseline"


def test_gzip_and_the_vocabulary_are_compared_by_their_sizes():
    study = {"second halves": {"A": counts(30, 100, 90)}}
    assert "more than gzip" in figures.squeezed(study)
    study["second halves"]["A"]["gzip_bytes"] = 10_000
    assert "fewer than gzip" in figures.squeezed(study)
    assert figures.vocabulary_line(study) == (
        "folding over cl100k, second halves: more (200 % (200–200) of ours)")


def test_alarms_are_shares():
    line = figures.alarms([{"z": 0.4, "p": True}, {"z": 0.2, "p": False}])
    assert "30 % of the words" in line and "in 50 % of the deals" in line


def test_distances_use_as_many_words_of_each():
    same = Counter({f"w{n}": 20 for n in range(30)})
    found = figures.distances({"a": same, "b": same, "c": Counter({"x": 600})}, 200)
    assert found["c"]["c"] == 0 and found["a"]["c"] == pytest.approx(1)
    assert abs(found["a"]["b"] - found["a"]["a"]) < 0.1
    with pytest.raises(ValueError, match="too few for two draws"):
        figures.distances({"a": Counter(x=3)}, 2)


def test_what_transfers_is_named_by_the_numbers():
    found = {"BPE of A": {"A": 4.0, "B": 1.0}, "BPE of B": {"A": 2.0, "B": 5.0},
             "own of A": {"A": 9.0, "B": 9.0}}
    assert figures.transfer_lines(found)[0].startswith("A: BPE of B keeps 50 %")


def test_models_are_compared_seed_by_seed():
    runs = {figures.FAIR[0]: {"bits_per_byte": [2.0, 2.1, 2.2]},
            "folded": {"bits_per_byte": [1.0, 1.1, 1.2]},
            "odd": {"bits_per_byte": [1.0, 3.0, 2.3]}}
    assert [each.word for each in figures.model_comparisons(runs)] == ["better",
                                                                       "no clear difference"]


# the texts


def test_the_made_up_log_is_the_same_for_everybody_and_repeats_itself():
    log = material.service_log(300)
    assert log == material.service_log(300) != material.service_log(300, seed=1)
    assert log.count("\n") >= 300 and "Traceback" in log
    first, second = material.halves({"shop": log})
    assert first["shop"] + second["shop"] == log


def test_blocks_add_up_to_the_whole():
    log = material.service_log(230)
    for tokenizer in (BPETokenizer().train(log, 400), LogTokenizer().train(log, 900)):
        found = material.tokens_by_block(tokenizer, log)
        assert sum(found) == len(tokenizer.encode_ordinary(log))
        assert len(found) in (round(log.count("\n") / material.BLOCK) + d for d in (-1, 0, 1))
    assert material.tokens_by_block(BPETokenizer(), "") == []


def test_held_out_packages_are_in_no_training_text():
    learn, held_out = material.library_halves(1_000_000)
    assert learn and held_out and not set(learn) & set(held_out)
    assert material.library_halves(1_000_000)[1] == held_out


def test_the_strong_rival_cuts_at_digits_and_line_ends_alone():
    splitter = material.MessageSplitter()
    assert splitter.split("10:04 job 1234\r\nok\n") == [
        "10", ":", "04", " job ", "123", "4", "\r\n", "ok", "\n"]
    trained = material.message_bpe().train("all went well in job 1\n" * 20, 300)
    assert len(trained.encode("all went well in job 7\n")) == 3
    for text in (material.service_log(50), "\r\r\n\n7é"):
        assert "".join(chunk for block in splitter.blocks(text) for chunk in block) == text
        assert LINE.findall(text)


def test_a_budget_pays_for_the_same_operations():
    long, short = (models.steps_for(1e12, 4096, seq_len) for seq_len in (128, 32))
    assert 1 <= short / long < 1.3  # shorter windows have fewer scores
    assert models.steps_for(2e12, 4096, 128) in (2 * long, 2 * long + 1)


# what is recorded


def test_the_recorded_study_is_whole():
    study = load_result("01b_domain_tokenizers.logs").numbers
    for systems in study.values():
        assert set(systems) == set(material.SYSTEMS)
        for found in systems.values():
            assert {len(blocks) for blocks in found["tokens"].values()} in ({20}, {40})
            shares = figures.saved(found["tokens"]["ours"], found["tokens"]["cl100k"])
            assert isinstance(shares, Interval) and 0 < shares.low <= shares.value <= shares.high
    code = load_result("01b_domain_tokenizers.code").numbers
    assert len(code) == 4 and all(min(found["bytes"]) > 0 for found in code.values())
