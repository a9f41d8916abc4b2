"""Patterns of tokens: contexts of lexers, log-odds by hand, p-values that keep their word."""

import math
import random
from collections import Counter
from pathlib import Path

import pytest

from scratchbook.tokenizers.token_patterns import (
    LEXERS,
    assertions,
    case_style,
    contexts,
    count_by_context,
    docstring_style,
    is_test,
    jensen_shannon,
    log_odds,
    permutation_test,
)

DATA = Path(__file__).resolve().parent.parent / "data"
SAMPLES = {
    "python": 'def f():\n    """Say if."""\n    return "x y"  # else\n',
    "go": '// if\nfunc f() string { return "x y" } /* else */\n',
    "ruby": 'def f # else\n  "x y #{if_so}" + :sym.to_s\nend\n',
    "vue": ("<template><!-- else --><p>if</p></template>\n"
            "<script>\nlet x = 'x y' // if\n</script>\n"),
    "smalltalk": "f\n\t\"else\" ^ 'x y' size",
    "erb": '<p>if</p><%# else %><%= f "x y" %>\n',
    "javascript": "let f = `x y` /* else */\n",
}


@pytest.mark.parametrize("language", [*LEXERS, "smalltalk"])
def test_pieces_join_up_and_each_stands_in_its_context(language):
    text = SAMPLES[language]
    found = contexts(text, language)
    assert "".join(piece for _, piece in found) == text
    by_context = {context: "".join(p for c, p in found if c == context) for context, _ in found}
    assert "else" in by_context["comment"] and "x y" in by_context["string"]
    assert "else" not in by_context["code"] and "x y" not in by_context["code"]
    if language == "ruby":
        assert "if_so" in by_context["code"] and "sym" in by_context["code"]
    if language == "python":
        assert "Say if." in by_context["docstring"]


def test_a_language_without_a_lexer_is_refused():
    with pytest.raises(ValueError, match="cobol.*python"):
        contexts("x", "cobol")
    with pytest.raises(ValueError, match="cobol.*python"):
        assertions("x", "cobol")


@pytest.mark.parametrize(("name", "answer"), [
    ("shelf_test.go", True), ("LoanTable.spec.vue", True), ("test/models/loan.rb", True),
    ("a/test_x.py", True), ("Course-Bank-Tests/x.st", True), ("latest.py", False),
    ("contest/x.rb", False), ("app/models/loan.rb", False), ("testament.py", False),
    ("specimen.go", False)])
def test_what_a_test_is_called(name, answer):
    assert is_test(name) is answer


def test_words_are_counted_by_file_and_context():
    counts = count_by_context([("a.py", SAMPLES["python"]), ("test_a.py", "assert f() == 'no'\n"),
                               ("b.py", "")], "python")
    assert counts["code"] == [Counter({"def": 1, "f": 1, "return": 1})]
    assert counts["test"] == [Counter({"assert": 1, "f": 1})]
    assert counts["comment"] == [Counter({"else": 1})]
    assert counts["string"] == [Counter({"x": 1, "y": 1}), Counter({"no": 1})]


def test_log_odds_by_hand():
    # 10 of 100 against 20 of 100, prior 20: the word's share of both is 0.15, so 3 are added
    found = log_odds({"a": 10, "b": 90}, {"a": 20, "b": 80}, prior=20)["a"]
    ratio = math.log(13 / 107) - math.log(23 / 97)
    assert found.log_ratio == pytest.approx(ratio, abs=1e-12)
    assert found.z == pytest.approx(ratio / math.sqrt(1 / 13 + 1 / 23), abs=1e-12)


def test_log_odds_laws():
    first, second = Counter(a=5, b=50, c=1), Counter(a=50, b=50)
    there, back = log_odds(first, second), log_odds(second, first)
    assert all(there[w].z == pytest.approx(-back[w].z) for w in there)
    assert log_odds(first, first)["a"].z == pytest.approx(0, abs=1e-12)
    # a stronger prior says less about a word that was seen once
    assert abs(log_odds(first, second, 5000)["c"].log_ratio) < abs(there["c"].log_ratio)
    for bad in ({}, {"a": 0}):
        with pytest.raises(ValueError, match="both sides need words"):
            log_odds(bad, second)
    with pytest.raises(ValueError, match="positive weight"):
        log_odds(first, second, prior=0)


def files(draw: random.Random, number: int, rate: float) -> list[Counter]:
    made = []
    for _ in range(number):
        burst = draw.choice([0, 3])  # words come in bursts
        made.append(Counter(draw.choices(["x", "y", "z", "other"],
                                         [rate * burst + 0.01, 1, burst + 0.1, 10], k=60)))
    return made


def test_a_planted_difference_is_found():
    draw = random.Random(0)
    found = permutation_test(files(draw, 15, 4.0), files(draw, 15, 0.1), ["x", "y", "z"], draws=499)
    assert found["x"] <= 0.02 < found["y"]
    assert found == permutation_test(files(r := random.Random(0), 15, 4.0), files(r, 15, 0.1),
                                     ["x", "y", "z"], draws=499)


def test_chance_alone_alarms_as_rarely_as_promised():
    # 200 tests without a difference, level 0.1 for the whole family of three words: more than 34
    # alarms would come up once in a thousand times (binomial)
    alarms = 0
    for seed in range(200):
        draw = random.Random(seed)
        p = permutation_test(files(draw, 6, 1.0), files(draw, 6, 1.0), ["x", "y", "z"], draws=79,
                             seed=seed)
        alarms += min(p.values()) <= 0.1
    assert 3 <= alarms <= 34


def test_the_smallest_p_value_and_refusals():
    one = [Counter(x=9, y=1)] * 6
    other = [Counter(x=1, y=9)] * 6
    assert permutation_test(one, other, ["x"], draws=19)["x"] >= 1 / 20
    for arguments in (([one[0]], other, ["x"]), (one, other, [])):
        with pytest.raises(ValueError, match="two files or more"):
            permutation_test(*arguments)
    with pytest.raises(ValueError, match="'z' occurs in none of the files"):
        permutation_test(one, other, ["x", "z"])


def test_distances_between_vocabularies():
    first, second = Counter(a=3, b=1), Counter(a=1, c=3)
    jensenshannon = pytest.importorskip("scipy.spatial.distance").jensenshannon
    expected = jensenshannon([3, 1, 0], [1, 0, 3], base=2)
    assert jensen_shannon(first, second) == pytest.approx(expected, abs=1e-12)
    assert jensen_shannon(first, first) == 0
    assert jensen_shannon({"a": 1}, {"b": 2}) == pytest.approx(1)
    with pytest.raises(ValueError, match="no words"):
        jensen_shannon({}, first)


@pytest.mark.parametrize(("name", "style"), [
    ("snake_case_2", "snake_case"), ("camelCase", "camelCase"), ("PascalCase", "PascalCase"),
    ("HTTP", "UPPER_CASE"), ("MAX_SIZE", "UPPER_CASE"), ("value", "lower"), ("_private", "lower"),
    ("__init__", "lower"), ("at:put:", "keyword:"), ("Mixed_Case", "other"), ("é", "other"),
    ("X", "UPPER_CASE"), ("_", "other")])
def test_how_a_name_is_written(name, style):
    assert case_style(name) == style


@pytest.mark.parametrize(("language", "text", "found"), [
    ("python", "self.assertEqual(a, b)  # assert\nassert a, 'assert b'\nwith pytest.raises(E): f()",
     {"assertEqual": 1, "assert": 1, "raises": 1}),
    ("ruby", "assert_equal 1, x # assert\nrefute x\nexpect(x).to eq 1",
     {"assert_equal": 1, "refute": 1, "expect": 1}),
    ("go", 't.Errorf("t.Fatal")\nt.Fatal(err)', {"Errorf": 1, "Fatal": 1}),
    ("smalltalk", "self assert: x equals: 2. self deny: y \"self deny: z\"",
     {"assert:": 1, "deny:": 1}),
    ("vue", "<script>\nexpect(x).toBe(1); // .toBe(2)\n</script>", {"toBe": 1}),
])
def test_assertions(language, text, found):
    assert assertions(text, language) == found


@pytest.mark.parametrize(("text", "style"), [
    ("Add.\n\nArgs:\n    x: one\n", "Google"), ("Add.\n\n:param x: one\n:return: y", "reST"),
    ("Add.\n\nParameters\n----------\nx : int\n", "NumPy"), ("Add. Args: none", "plain"),
    ("", "plain")])
def test_docstring_styles(text, style):
    assert docstring_style(text) == style


def test_the_samples_have_code_comments_and_tests():
    for language, suffix in (("go", ".go"), ("vue", ".vue")):
        found = count_by_context([(str(p.relative_to(DATA)), p.read_text(encoding="utf-8"))
                                  for p in sorted((DATA / "code_samples").rglob(f"*{suffix}"))],
                                 language)
        assert {"code", "test", "comment", "string"} <= set(found) or language == "vue"
        assert found["test"] and found["code"]
