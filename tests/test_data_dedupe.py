"""Near-duplicates: the sets, the estimate, the pairs, the split and the audit."""

import random

import numpy as np
import pytest

from scratchbook.data import library_documents
from scratchbook.data.dedupe import (
    MinHash,
    deduplicate,
    jaccard,
    mixed,
    near_duplicates,
    rows_per_band,
    run_hashes,
    shingles,
)
from scratchbook.data.documents import Document
from scratchbook.data.held_out import find_leaks, split_documents


def words(count, seed):
    chosen = random.Random(seed)
    return [f"w{chosen.randrange(10**6)}" for _ in range(count)]


def naive(text, length=5):
    found = text.lower().split()
    return {tuple(found[i:i + length]) for i in range(max(1, len(found) - length + 1))} if found \
        else set()


def test_shingles_count_as_sets_of_words_do():
    for seed in range(20):
        base = words(200, seed)
        other = base[:seed * 8] + words(200, seed + 100)[seed * 8:]
        a, b = " ".join(base), " ".join(other)
        want = len(naive(a) & naive(b)) / len(naive(a) | naive(b))
        assert jaccard(shingles(a), shingles(b)) == pytest.approx(want, abs=1e-12)


def test_case_and_punctuation_do_not_count_and_order_does():
    assert np.array_equal(shingles("The cat, sat on the mat!"), shingles("the CAT sat on the mat"))
    assert jaccard(shingles("a b c d e f"), shingles("f e d c b a")) == 0
    assert jaccard(shingles("a a a a a"), shingles("b b b b b")) == 0


def test_short_and_empty_texts():
    assert len(run_hashes("", 5)) == 0 and len(shingles("...")) == 0
    assert len(run_hashes("one two", 5)) == 1
    assert jaccard(shingles(""), shingles("")) == 1
    assert near_duplicates(["", "...", "", "one", "ONE"]) == {4: 3}
    assert near_duplicates([]) == {}


def test_the_estimate_errs_as_the_theory_says():
    # the share of agreeing numbers is binomial: its spread is sqrt(J (1 - J) / size)
    rng, size, gaps = np.random.default_rng(0), 256, []
    for trial in range(200):
        pool = rng.integers(0, 2**32, 900, dtype=np.uint32)
        a, b = pool[:600], pool[300:]  # J = 1/3
        minhash = MinHash(size, seed=trial)
        gaps.append((minhash.signature(a) == minhash.signature(b)).mean() - jaccard(
            np.unique(a), np.unique(b)))
    spread = (1 / 3 * 2 / 3 / size) ** 0.5
    assert abs(np.mean(gaps)) < 4 * spread / 200**0.5  # false alarm: 1 in 16,000
    assert 0.8 < np.std(gaps) / spread < 1.2  # false alarm: 4 sigma of a standard deviation


def test_a_shuffle_moves_no_two_numbers_to_one_place():
    minhash, x = MinHash(64), np.arange(0, 2**32, 65_537, dtype=np.uint32)
    for a, b in zip(minhash.a[:, 0], minhash.b[:, 0], strict=True):
        assert a % 2 == 1 and len(np.unique(a * x + b)) == len(x)
    assert len(np.unique(mixed(x))) == len(x)


def test_consecutive_numbers_are_as_good_as_random_ones():
    a, b = np.arange(600, dtype=np.uint32), np.arange(300, 900, dtype=np.uint32)
    gaps, unmixed = [], []
    for seed in range(100):
        minhash = MinHash(128, seed)
        gaps.append((minhash.signature(a) == minhash.signature(b)).mean() - 1 / 3)
        first, second = ((minhash.a * x + minhash.b).min(axis=1) for x in (a, b))
        unmixed.append((first == second).mean() - 1 / 3)
    spread = (2 / 9 / 128 / 100) ** 0.5
    assert abs(np.mean(gaps)) < 4 * spread
    assert np.mean(unmixed) < -4 * spread  # what the mixing is for


def test_bands_bring_pairs_at_the_threshold_together():
    for threshold in (0.3, 0.5, 0.7, 0.9):
        rows = rows_per_band(threshold, 128)
        assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.99
        assert 1 - (1 - threshold ** (rows + 1)) ** (128 // (rows + 1)) < 0.99
    assert rows_per_band(0.7, 128) == 5 or rows_per_band(0.7, 128) == 4


def test_planted_copies_are_found_and_strangers_kept():
    texts = [" ".join(words(300, seed)) for seed in range(60)]
    for number in range(20):  # ten words of three hundred changed: J about 0.7 to 0.85
        copy = texts[number].split()
        for place in range(0, 300, 60):
            copy[place] = "changed"
        texts.append(" ".join(copy))
    assert near_duplicates(texts) == {60 + number: number for number in range(20)}
    assert near_duplicates(texts, threshold=1.0) == {}


def test_a_crowd_of_copies_is_compared_with_one():
    base = words(100, 0)
    texts = [" ".join([*base, f"number {n}"]) for n in range(3000)]
    assert set(near_duplicates(texts).values()) == {0}


@pytest.mark.parametrize("threshold", [0, -1, 1.5, float("nan")])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(ValueError, match="is not a share"):
        near_duplicates(["a"], threshold)


def test_deduplicate_names_who_went_for_whom():
    base = " ".join(words(100, 1))
    documents = [Document("a", base, "p"), Document("b", base + "\n", "q"),
                 Document("c", base + " and more", "q"), Document("d", "something else", "q")]
    kept, equal, similar = deduplicate(documents)
    assert [d.name for d in kept] == ["a", "d"]
    assert equal == {"b": "a"} and similar == {"c": "a"}
    assert deduplicate(kept) == (kept, {}, {})


# splits and the audit


def corpus():
    return [Document(f"{project}/{n}", " ".join(words(200, 100 * project + n)), f"p{project}")
            for project in range(20) for n in range(5)]


@pytest.mark.parametrize("by", ["project", "name"])
def test_groups_stay_whole_and_nothing_is_lost(by):
    documents = corpus()
    for seed in range(5):
        training, validation = split_documents(documents, 0.2, by, seed)
        assert sorted(training + validation) == sorted(documents)
        groups = [{getattr(d, by) for d in part} for part in (training, validation)]
        assert not groups[0] & groups[1]
        assert 0.15 <= len(validation) / len(documents) <= 0.25
        assert find_leaks(training, validation) == []


def test_a_split_depends_on_names_and_seed_alone():
    documents = corpus()
    first = split_documents(documents, seed=1)
    again = split_documents(documents[::-1], seed=1)
    assert [sorted(part) for part in again] == [sorted(part) for part in first]
    assert split_documents(documents, seed=2) != first
    grown = split_documents([*documents, Document("new", "a few words", "p20")], seed=1)
    moved = {d.project for d in first[1]} ^ {d.project for d in grown[1]}
    assert len(moved) <= 1


def test_a_giant_stays_in_training_where_it_can():
    documents = [Document("big", "x" * 10_000, "big")] + [
        Document(f"small{n}", "x" * 100, f"small{n}") for n in range(10)]
    held = [sum(len(d.text) for d in split_documents(documents, 0.05, seed=seed)[1])
            for seed in range(40)]
    assert all(400 <= size <= 700 for size in held)
    two = [Document("big", "x" * 10_000, "big"), Document("small", "x" * 900, "small")]
    for seed in range(8):  # where nothing fits, the least is held out
        assert [d.name for d in split_documents(two, 0.01, seed=seed)[1]] == ["small"]


def test_splits_that_cannot_be_made_are_said():
    with pytest.raises(ValueError, match="1 project cannot be split"):
        split_documents([Document("a", "x", "p"), Document("b", "y", "p")])
    with pytest.raises(ValueError, match="by='author'"):
        split_documents(corpus(), by="author")
    with pytest.raises(ValueError, match=r"share=1.5 within"):
        split_documents(corpus(), 1.5)


def test_the_audit_finds_one_planted_sentence():
    training, validation = split_documents(corpus(), 0.2)
    assert find_leaks(training, validation) == []
    stolen = training[3].text.split()[50:64]  # fourteen words: two runs of thirteen
    dirty = validation[0]._replace(text=validation[0].text + " " + " ".join(stolen).upper())
    (leak,) = find_leaks(training, [dirty, *validation[1:]])
    assert (leak.name, leak.shared) == (dirty.name, 2)
    twice = dirty._replace(text=f"{dirty.text} . {dirty.text}")  # a run counts once
    assert find_leaks(training, [twice])[0].shared == 2
    assert find_leaks(training, [dirty], words=15) == []
    assert find_leaks([], [dirty]) == [] and find_leaks(training, []) == []


def test_copies_across_projects_leak_until_they_are_removed():
    documents = corpus()
    copies = [Document(f"fork/{n}", d.text + " changed", "fork") for n, d in enumerate(documents)]
    training, validation = split_documents([*documents, *copies], 0.4)
    assert find_leaks(training, validation)
    kept, _, similar = deduplicate([*documents, *copies])
    assert len(similar) == len(copies)
    assert find_leaks(*split_documents(kept, 0.4)) == []


def test_python_s_library_holds_real_copies():
    _, equal, similar = deduplicate(library_documents(3_000_000))
    assert isinstance(equal, dict) and isinstance(similar, dict)
    assert not set(equal) & set(similar)
