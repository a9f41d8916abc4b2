"""Every exercise: the stub says "not yet", the solution passes, each wrong answer is named."""

import importlib.util
import time
from pathlib import Path

import pytest

from scratchbook.companions import check
from tests.notebook_tools import CHAPTERS, exercises, run_cell

HERE = Path(__file__).resolve().parent
NAMES = dir(check)
IN_NOTEBOOKS = {name: (path, stub, solution)
                for path in CHAPTERS for name, stub, solution in exercises(path)}


def wrong_answers() -> dict[str, list]:
    found: dict[str, list] = {}
    for path in sorted(HERE.glob("answers_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        twice = found.keys() & module.WRONG.keys()
        assert not twice, f"{path.name} repeats {twice}"
        found |= module.WRONG
    return found


WRONG = wrong_answers()
CASES = [pytest.param(name, answer, fragment, id=f"{name}-{getattr(answer, '__name__', number)}")
         for name, answers in WRONG.items() for number, (answer, fragment) in enumerate(answers)]


def words(text: str) -> str:
    return " ".join(text.split())


def test_each_exercise_of_a_notebook_has_a_check_and_each_check_an_exercise():
    assert set(IN_NOTEBOOKS) == set(NAMES)
    stubs = [name for path in CHAPTERS for name, *_ in exercises(path)]
    assert len(stubs) == len(set(stubs)), "an exercise stands in two places"


@pytest.mark.parametrize("name", IN_NOTEBOOKS)
def test_a_stub_says_not_yet(name):
    path, stub, _ = IN_NOTEBOOKS[name]
    _, printed = run_cell(path, stub)
    last = (printed.strip().splitlines() or [""])[-1]
    assert last == f"not yet: {name} raises NotImplementedError"


@pytest.mark.parametrize("name", IN_NOTEBOOKS)
def test_a_solution_passes(name):
    path, _, solution = IN_NOTEBOOKS[name]
    assert solution is not None, f"{name}: no cell tagged `solution` after the stub"
    names, printed = run_cell(path, solution)
    lines = [line for line in printed.splitlines() if line.strip()]
    assert lines, "the solution cell calls its check"
    assert all(line.startswith("ok ") for line in lines), printed
    start = time.process_time()
    report = check.report(name, names[name])
    assert time.process_time() - start < 2, "a check takes less than two seconds"
    assert report.passed, "\n".join(report.lines)


@pytest.mark.parametrize("name", NAMES)
def test_at_least_three_wrong_answers_with_messages_of_their_own(name):
    fragments = [words(fragment) for _, fragment in WRONG.get(name, [])]
    assert len(fragments) >= 3, f"{name} foresees {len(fragments)} mistakes"
    assert len(set(fragments)) >= 3, f"{name}: {fragments}"


@pytest.mark.parametrize(("name", "answer", "fragment"), CASES)
def test_a_wrong_answer_is_named(name, answer, fragment):
    start = time.process_time()
    report = check.report(name, answer)
    assert time.process_time() - start < 6
    assert not report.passed
    assert len(fragment) >= 5, f"{fragment!r} is too short to be a message"
    advice = words("\n".join(line for line in report.lines if not line.startswith("ok ")))
    assert words(fragment) in advice, "\n".join(report.lines)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("answer", [None, 3, lambda *a, **k: None, lambda: 1 / 0],
                         ids=["none", "number", "returns-none", "takes-nothing"])
def test_a_check_never_raises(name, answer):
    assert not check.report(name, answer).passed
