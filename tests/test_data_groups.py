"""Groups of documents that share a run of words: held out by them, nothing leaks."""

import pytest

from scratchbook.companions.data_experiments import audited_twins, reworded, similar_twins, twin
from scratchbook.data import library_documents, python_manual
from scratchbook.data.documents import Document
from scratchbook.data.held_out import find_leaks, group_by_runs, split_documents

WORDS = [f"w{number}" for number in range(60)]
PARAGRAPHS = [p for p in dict.fromkeys(python_manual().split("\n\n")) if 200 < len(p) < 1500]


def text(first: int, last: int) -> str:
    return " ".join(WORDS[first:last])


def projects(*texts: str, words: int = 13) -> list[str]:
    documents = [Document(f"{place}", found, "one") for place, found in enumerate(texts)]
    return [d.project for d in group_by_runs(documents, words)]


def test_a_chain_of_shared_runs_is_one_group():
    a, b, c, alone = text(0, 20), text(7, 40), text(27, 50), text(38, 60)
    assert projects(a, b, c, alone) == ["0", "0", "0", "3"]
    # a and c meet only over b, whichever comes first
    assert len(set(projects(a, c, b))) == 1 and len(set(projects(a, c))) == 2


def test_twelve_words_in_common_are_no_run_of_thirteen():
    assert len(set(projects(text(0, 20), text(8, 40)))) == 2
    assert len(set(projects(text(0, 20), text(7, 40)))) == 1
    assert len(set(projects(text(0, 20), text(8, 40), words=12))) == 1
    with pytest.raises(ValueError, match="words=0"):
        group_by_runs([], 0)


@pytest.mark.parametrize("seed", range(5))
def test_no_split_by_groups_leaks(seed):
    grouped = group_by_runs(library_documents(1_500_000))
    training, held = split_documents(grouped, 0.1, "project", seed)
    assert held and training and find_leaks(training, held) == []


def test_twins_with_more_exchanged_words_slip_through_the_audit():
    near, far = (sum(audited_twins(PARAGRAPHS, seed, every) for seed in range(3))
                 for every in (40, 10))
    assert near > 40 and far < 20
    assert sum(similar_twins(PARAGRAPHS, seed, 0.3, 10) for seed in range(3)) > far
    words, copy = PARAGRAPHS[0].split(" "), twin(PARAGRAPHS[0], 0, 10).split(" ")
    changed = [place for place, (a, b) in enumerate(zip(words, copy, strict=True)) if a != b]
    assert changed and all((b - a) % 10 == 0 for a, b in zip(changed, changed[1:], strict=False))


def test_the_rewording_touches_few_words():
    assert 0 < reworded(PARAGRAPHS, 0) < 0.03
    assert reworded(["no phrase of the list stands here"], 0) == 0
