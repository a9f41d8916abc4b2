"""The notebook helpers: checks that name mistakes, figures with alt text, results that go stale."""

import json
import re
import signal
import sys
import threading
from fractions import Fraction
from types import SimpleNamespace
from unittest.mock import patch

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("agg")
import matplotlib.pyplot as plt

from scratchbook.companions import check
from scratchbook.teaching import answers, checking, draw, exercise, expect, figures, results
from scratchbook.teaching.answers import same
from scratchbook.teaching.sources import show_source


@pytest.fixture
def registry():
    with patch.dict(checking.EXERCISES):
        yield


@pytest.fixture
def doubling(registry):

    @exercise
    def doubling(answer):
        got = answer(3)
        yield expect("a number comes back", isinstance(got, int))
        yield expect("3 becomes 6", got == 6, (got == 9, "you squared it"), (True, "look again"))

    return "doubling"


def test_a_right_answer_passes_line_by_line(doubling, capsys):
    check.doubling(lambda n: 2 * n)
    assert capsys.readouterr().out == "ok    a number comes back\nok    3 becomes 6\n"
    assert check.report(doubling, lambda n: 2 * n).passed


def test_a_wrong_answer_gets_the_first_mistake_that_fits(doubling):
    assert check.report(doubling, lambda n: n * n).lines[-2:] == ["no    3 becomes 6",
                                                                  "      you squared it"]
    assert "look again" in check.report(doubling, lambda n: n).lines[-1]
    assert not check.report(doubling, lambda n: n).passed


def test_a_stub_is_not_a_failure_and_not_a_pass(doubling):
    def stub(n):
        raise NotImplementedError

    report = check.report(doubling, stub)
    assert report.lines == ["not yet: doubling raises NotImplementedError"] and not report.passed


def test_an_error_in_the_answer_is_a_line_and_never_an_exception(doubling):
    report = check.report(doubling, lambda n: n / 0)
    assert not report.passed and "ZeroDivisionError: division by zero" in report.lines[-1]
    report = check.report(doubling, lambda: 0)
    assert not report.passed and "TypeError" in report.lines[-1]


def looping(n):
    while True:
        n += 1


def hanging(n):
    # swallows every exception that an answer may swallow
    while True:
        try:
            n += 1
        except Exception:
            n = 0


def doubling_recursion(n):
    return n + doubling_recursion(n)


@pytest.mark.parametrize("slow", [looping, hanging])
def test_an_answer_that_takes_too_long_is_stopped_with_a_message(doubling, slow):
    report = checking.run_check(doubling, slow, seconds=0.2)
    assert not report.passed and report.lines[-2] == "no    it ends within 0.2 seconds"
    assert re.match(r" +stopped at `.+`: does a loop never end", report.lines[-1])
    handler = signal.getsignal(signal.SIGALRM)
    assert handler in (signal.SIG_DFL, None) or handler.__module__ != checking.__name__
    assert checking.run_check(doubling, lambda n: 2 * n).passed, "and the next answer is heard"


@pytest.mark.parametrize("elsewhere", [True, False])
def test_it_is_stopped_without_signals_too(doubling, monkeypatch, elsewhere):
    reports = []

    def ask():
        for answer in (looping, lambda n: 2 * n, lambda n: n / 0):
            reports.append(checking.run_check(doubling, answer, seconds=0.2))

    if elsewhere:                       # in a thread that is not the main one
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    else:                               # or on a system that has no timer
        monkeypatch.delattr(signal, "setitimer", raising=False)
        ask()
    slow, right, broken = reports
    assert slow.lines[-2] == "no    it ends within 0.2 seconds" and right.passed
    assert "ZeroDivisionError" in broken.lines[-1]
    for thread in threading.enumerate():
        if thread.name == "an answer":
            thread.join(20)
            assert not thread.is_alive(), "the loop does not go on unseen"


def test_endless_recursion_is_a_line(doubling):
    assert "RecursionError" in checking.run_check(doubling, doubling_recursion).lines[-1]


@pytest.mark.parametrize("got", [
    (1, 2.0, 0.5), [1, 2, Fraction(1, 2)], np.array([1, 2, 0.5]), torch.tensor([1, 2, 0.5]),
    torch.tensor([1, 2, 0.5], dtype=torch.float64), np.array([1, 2, 0.5], dtype=np.float32),
    "generator", "map", {1: 1, 2: 2, 3: 0.5}.values(),
    [torch.tensor(1.0), torch.tensor(2.0), np.float32(0.5)],
    torch.tensor([1, 2, 0.5], requires_grad=True)], ids=str)
@pytest.mark.parametrize("wanted", [(1, 2, 0.5), torch.tensor([1, 2, 0.5])],
                         ids=["tuple", "tensor"])
def test_the_same_numbers_in_any_style_are_the_same(got, wanted):
    once = {"generator": (n for n in (1, 2, 0.5)), "map": map(float, (1, 2, 0.5))}
    assert same(once.get(got, got) if isinstance(got, str) else got, wanted)


@pytest.mark.parametrize("got", [(1, 2), (1, 2, 0.5, 0), (1, 2, 0.51), "1 2", None, 1, {}, object(),
                                 [[1, 2, 0.5]], (1, 2, float("nan")), (1, 2, "0.5"), (1, 2, None)])
def test_other_numbers_are_not(got):
    for wanted in ((1, 2, 0.5), torch.tensor([1, 2, 0.5])):
        assert not same(got, wanted)


def test_same_looks_into_what_is_nested():
    assert same([np.ones((2, 3)), 5, None], (torch.ones(2, 3), 5.0, None))
    assert not same([np.ones((3, 2)), 5], (torch.ones(2, 3), 5))
    assert same({"a": [1]}, {"a": (1,)}) and not same({"a": 1, "b": 2}, {"a": 1})
    assert same("text", "text") and not same(b"text", "text") and same((), ())
    assert same(1e9 + 1, 1e9) and not same(1.001, 1.0)
    assert answers.as_tensor("3") is None and answers.as_tensor([[1], [2, 3]]) is None


def test_a_counterexample_is_the_smallest_input_that_differs():
    def add(numbers, more):
        numbers.append(more)
        return sum(numbers)

    inputs = [([], 1), ([1], 2), ([1, 2], 3)]
    assert answers.counterexample(lambda numbers, more: sum(numbers) + more, add, inputs) == ""
    assert answers.counterexample(lambda numbers, more: more, add, inputs) == (
        "for ([1], 2) expected 3, got 2")
    assert "got ZeroDivisionError" in answers.counterexample(lambda a, b: 1 / 0, add, inputs)


def test_an_unknown_exercise_lists_the_known_ones(doubling):
    with pytest.raises(AttributeError, match="no exercise is called 'tripling'.*doubling"):
        _ = check.tripling
    with pytest.raises(ValueError, match="doubling"):
        check.report("tripling", len)


def test_a_check_that_yields_nothing_has_not_passed(registry):

    @exercise
    def empty(answer):
        return iter(())

    assert not check.report("empty", len).passed


def test_two_exercises_of_one_name_are_refused(doubling):
    def other(answer):
        yield expect("x", True)

    other.__name__, other.__module__ = "doubling", "somewhere.else"
    with pytest.raises(ValueError, match="two exercises are called 'doubling'"):
        exercise(other)


def test_draws_repeat_and_do_not_disturb_each_other():
    first = draw(2, 3, seed=1, name="x")
    torch.manual_seed(0)
    assert torch.equal(first, draw(2, 3, seed=1, name="x")) and first.shape == (2, 3)
    assert not torch.equal(first, draw(2, 3, seed=1, name="y"))


@pytest.fixture
def two_figures():
    figures.use_style()
    made = []
    for title in "ab":
        figure, axes = plt.subplots()
        axes.plot([1, 2], [3, 4])
        axes.set_title(title)
        made.append(figures.figure_svg(figure, f"figure {title}"))
        plt.close(figure)
    return made


def test_a_figure_takes_the_colour_of_the_page_and_has_a_label(two_figures):
    svg = two_figures[0]
    assert 'role="img"' in svg and 'aria-label="figure a"' in svg
    assert "currentColor" in svg and figures.INK not in svg
    assert not re.search(r'fill: ?#fff', svg) and "http://www.w3.org" in svg


def test_two_figures_of_a_page_share_no_ids(two_figures):
    first, second = (set(re.findall(r'\bid="([^"]+)"', svg)) for svg in two_figures)
    assert first and second and not first & second
    for svg, ids in zip(two_figures, (first, second), strict=True):
        used = set(re.findall(r'xlink:href="#([^"]+)"|url\(#([^)]+)\)', svg))
        assert {a or b for a, b in used} <= ids


def test_the_same_figure_gives_the_same_bytes(two_figures):
    figure, axes = plt.subplots()
    axes.plot([1, 2], [3, 4])
    axes.set_title("a")
    assert figures.figure_svg(figure, "figure a") == two_figures[0]


def test_a_picture_of_few_colours_is_smaller_and_the_same():
    """The image of a figure gets a palette; not one pixel changes, transparent ones included."""
    import base64
    import io

    import numpy as np
    from PIL import Image

    def pixels(encoded):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA"))

    def encoded(array):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    draw = np.random.default_rng(0)
    colours = draw.integers(0, 256, (9, 4), dtype=np.uint8)
    colours[0, 3] = 0
    few = encoded(colours[draw.integers(0, 9, (60, 80))])
    assert len(figures._few_colours(few)) < len(few) / 2
    assert np.array_equal(pixels(figures._few_colours(few)), pixels(few))
    many = encoded(draw.integers(0, 256, (60, 80, 4), dtype=np.uint8))
    assert figures._few_colours(many) == many


def test_a_compact_figure_keeps_its_numbers_and_what_is_referred_to():
    svg = ('<svg viewBox="0 0 10.128 5"><!-- no --><g id="figure_1"><path id="a" '
           'd="M 1.23456 -2 L 30 4.50 z "/>\n  <use x="61.351179" xlink:href="#a" '
           'transform="translate(209.78125 0) scale(0.015625)"/></g></svg>')
    assert figures._compact(svg) == (
        '<svg viewBox="0 0 10.13 5"><g><path id="a" d="M1.23 -2L30 4.5z"/> <use x="61.35" '
        'xlink:href="#a" transform="translate(209.78 0) scale(0.015625)"/></g></svg>')


def test_a_figure_without_alt_text_is_refused():
    with pytest.raises(ValueError, match="needs alt text"):
        figures.figure_svg(plt.figure(), "  ")


def _contrast(colour: str, ground: str) -> float:
    def luminance(hexed):
        parts = [int(hexed[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("ground", ["#ffffff", "#121212"])
def test_every_colour_of_the_palette_reads_on_both_grounds(ground):
    assert all(_contrast(colour, ground) >= 3 for colour in figures.palette())


def test_a_table_escapes_its_cells_and_aligns_numbers():
    made = figures.table_html([{"name": "<b>", "score": 0.12345, "runs": 12000}], "scores")
    assert "&lt;b&gt;" in made and "0.123" in made and "12,000" in made
    assert 'aria-label="scores"' in made and 'scope="col"' in made
    with pytest.raises(ValueError, match="same keys"):
        figures.table_html([{"a": 1}, {"b": 2}])


def test_a_living_figure_carries_its_data_and_cannot_be_broken_out_of(monkeypatch, tmp_path):
    monkeypatch.setattr("scratchbook.teaching.live_figures.LIVE", tmp_path)
    for name in ("common", "x"):
        (tmp_path / f"{name}.js").write_text("// </script> in a comment", encoding="utf-8")
    from scratchbook.teaching.live_figures import living_html

    made = living_html("x", {"text": "</script><b>"}, still="<p>still</p>")
    assert made.count("</script>") == 2 and "<p>still</p>" in made
    payload = re.search(r'class="sb-data">(.*?)</script>', made, re.DOTALL)[1]
    assert json.loads(payload) == {"text": "</script><b>"}
    with pytest.raises(ValueError, match="no living figure is called 'y'; there are: common, x"):
        living_html("y", {})
    with pytest.raises(ValueError, match="not JSON"):
        living_html("x", {"bad": float("nan")})


@pytest.fixture
def result_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "results_dir", lambda: tmp_path)
    return tmp_path


def test_a_result_comes_back_with_its_provenance(result_folder):
    results.record("demo", {"loss": 1.5}, seeds=[0, 1], command="make it")
    found = results.load_result("demo")
    assert found.numbers == {"loss": 1.5} and found.seeds == [0, 1] and not found.stale
    assert "make it" in found.provenance() and "STALE" not in found.provenance()


def test_a_result_is_stale_once_its_code_changes(result_folder):
    path = results.record("budgets", {}, seeds=[], command="python -m book.builder.budgets")
    assert not results.load_result("budgets").stale
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"fingerprint": "0" * 64}), encoding="utf-8")
    assert results.load_result("budgets").stale
    assert "STALE" in results.load_result("budgets").provenance()
    assert results.is_stale("budgets", "python -m book.builder.nothing", "0" * 64)


def test_bad_results_say_what_to_do(result_folder):
    with pytest.raises(FileNotFoundError, match="no result called 'gone' is recorded"):
        results.load_result("gone")
    with pytest.raises(ValueError, match="letters a-z"):
        results.load_result("../secret")
    with pytest.raises(ValueError, match="JSON cannot"):
        results.record("demo", {"x": float("inf")}, seeds=[], command="")
    (result_folder / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        results.load_result("broken")


def test_show_source_emits_the_code_itself(monkeypatch):
    shown = []
    monkeypatch.setattr("scratchbook.teaching.sources.display", lambda m: shown.append(m.data))
    show_source(draw, docstring=False)
    assert shown[0].startswith("```python\ndef draw(") and "A standard normal" not in shown[0]
    show_source(draw)
    assert "A standard normal" in shown[1]


def test_cells_are_told_apart_where_no_history_is_kept(monkeypatch):
    """As nbval runs them: the count stays 1, only the asking message is another."""
    from scratchbook.teaching import draws

    asked = {"header": {"msg_id": "first"}}
    shell = SimpleNamespace(execution_count=1, get_parent=lambda: asked)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    draws._refuse_shared_numbers((2,), 0, "")
    asked["header"]["msg_id"] = "second"
    draws._refuse_shared_numbers((2, 2), 0, "")
    with pytest.raises(ValueError, match="hold the same numbers"):
        draws._refuse_shared_numbers((3,), 0, "")


def test_of_many_properties_that_hold_the_first_are_shown_and_of_a_failure_all():
    held = [checking.Property(f"case {number}", True) for number in range(20)]
    assert checking.Report("x", held).lines[-2:] == ["ok    case 11", "ok    and 8 more"]
    failed = checking.Report("x", [*held, checking.Property("last", False, "why")])
    assert len(failed.lines) == 22 and failed.lines[-1] == "      why"
    assert checking.Report("x", held[:12]).lines[-1] == "ok    case 11"
