"""Chapter 01b's controls: the hybrid taken apart, and models that read their text as often."""

import pytest

pytest.importorskip("matplotlib")

from scratchbook.companions import domain_controls as controls
from scratchbook.companions import domain_figures as figures
from scratchbook.companions.domain_study import CUT_ALONE
from scratchbook.teaching.results import load_result
from scratchbook.tokenizers.hybrid import HybridTokenizer
from scratchbook.tokenizers.languages import LANGUAGES, Language

PLAIN = figures.FAIR[0]
CODE = 'def area(r):\n    """Say if r is odd."""\n    return r * r  # if not round\n'


def study(gap: float) -> dict:
    """Both controls, with the folded models so far from the plain ones."""
    run = {"passes": 1.0, "operations": {PLAIN: 4.0, "folded": 1.0}, "bits_per_byte": {
        PLAIN: [1.0, 1.1, 1.2], "folded": [1.0 + gap, 1.11 + gap, 1.19 + gap]}}
    counts = {controls.CUT: [100, 120, 90, 110], "and switching": [110, 131, 99, 122]}
    return {"parts": {"bytes": [300] * 4, "tokens": counts},
            "passes": {"few passes": run, "many passes": run}}


@pytest.mark.parametrize(("gap", "word"), [(-0.5, "better"), (0.5, "worse"),
                                           (0.0, "no clear difference")])
def test_the_models_are_compared_within_the_same_passes(gap, word):
    compared = controls.passes_compared(study(gap)["passes"])
    assert [each.name for each in compared] == ["folded, few passes", "folded, many passes"]
    assert [each.word for each in compared] == [word] * 2
    *first, few, many = controls.closing(study(gap))
    assert len(first) == 1 and "more tokens" in first[0] and controls.CUT in first[0]
    assert word in few and word in many
    assert controls.closing(None) == []


def test_each_part_is_taken_alone():
    python = LANGUAGES["python"]
    switching = HybridTokenizer(Language("switching", python.prose))
    words = HybridTokenizer(Language("words", CUT_ALONE.prose, python.groups))
    assert {kind for kind, _ in HybridTokenizer(CUT_ALONE).split(CODE)} == {"code"}
    assert {kind for kind, _ in switching.split(CODE)} == {"code", "prose"}
    assert not switching.words and words.words
    assert {kind for kind, _ in words.split(CODE)} == {"code"}


def test_the_recorded_passes_are_equal_and_the_operations_are_not():
    result = load_result("01b_domain_tokenizers.controls")
    assert result is not None
    models = load_result("01b_domain_tokenizers.models").numbers
    for run in result.numbers["passes"].values():
        tokens = {name: models["logs"][name]["training_tokens"] for name in (PLAIN, "folded")}
        longer = run["operations"][PLAIN] / run["operations"]["folded"]
        assert longer == pytest.approx(tokens[PLAIN] / tokens["folded"])
    few, many = result.numbers["passes"].values()
    assert few["passes"] < many["passes"]
    assert few["operations"][PLAIN] == many["operations"]["folded"] == models["budget"]
    # the same seeds, the same text: at equal compute these are the models of the first table
    assert few["bits_per_byte"][PLAIN] == pytest.approx(
        models["logs"][PLAIN]["bits_per_byte"][:3], abs=0.05)
