"""Small faults put into the official solutions: does the check of each exercise refuse them?

    python -m tests.exercises.mutants            the share refused, by exercise and in all
    python -m tests.exercises.mutants NAME ...   what the check of NAME accepts, as diffs
"""

import ast
import contextlib
import copy
import difflib
import multiprocessing
import os
import signal
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from scratchbook.companions import check
from scratchbook.teaching.checking import EXERCISES
from tests.notebook_tools import (
    CHAPTERS,
    code_cells,
    exercises,
    load,
    names_before,
    run_cell,
    source_of,
)

HERE = Path(__file__).resolve().parent
EQUIVALENT = HERE / "equivalent_mutants.toml"
SOLUTIONS = {name: (path, solution) for path in CHAPTERS
             for name, _, solution in exercises(path)}

OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Mult,), ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,), ast.MatMult: (ast.Mult,), ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd, ast.BitXor), ast.BitXor: (ast.BitAnd,), ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,)}
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,)}
KIN = [("min", "max"), ("any", "all"), ("minimum", "maximum"), ("amin", "amax"), ("sum", "mean"),
       ("sum", "max"), ("sin", "cos"), ("argmin", "argmax"), ("sqrt", "square"), ("log", "log2"),
       ("floor", "ceil"), ("zeros", "ones"), ("zeros_like", "ones_like"), ("softmax", "sigmoid"),
       ("exp", "expm1"), ("log_softmax", "softmax"), ("clamp_min", "clamp_max"),
       ("append", "extend"), ("inf", "nan"), ("mean", "median"), ("std", "var")]
SEPARATOR = " | "


@dataclass(frozen=True)
class Mutant:
    """One changed solution: the lines that differ (as `ast.unparse` writes them) and the whole."""

    before: str
    after: str
    source: str
    fate: str = ""           # "accepted", "refused" or "stopped", once the check has run

    @property
    def key(self) -> tuple[str, str]:
        return self.before, self.after


# making them --------------------------------------------------------------------------------


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a solution's source, none twice."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not _calls_check(node)]
    original, found = ast.unparse(tree), {}
    for holder, name, place, changed in _edits(tree):
        kept = getattr(holder, name)
        if place is None:
            setattr(holder, name, changed)
        else:
            setattr(holder, name, [*kept[:place], *changed, *kept[place + 1:]])
        try:
            text = ast.unparse(tree)
        finally:
            setattr(holder, name, kept)
        if text != original and text not in found:
            found[text] = Mutant(*_difference(original, text), text)
    return list(found.values())


def _calls_check(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and ast.unparse(node).startswith("check.")


def _difference(old: str, new: str) -> tuple[str, str]:
    lines = list(difflib.ndiff(old.splitlines(), new.splitlines(), charjunk=None))
    return tuple(SEPARATOR.join(line[2:].strip() for line in lines if line.startswith(sign))
                 for sign in ("- ", "+ "))


Edit = tuple[ast.AST, str, int | None, object]


def _edits(node: ast.AST) -> Iterator[Edit]:
    """(node, field, index or None, new value or list of new values) for each single change."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.arguments):
        return   # the text of a message, and the signature, are no part of the answer
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "ctx"):
            continue
        if isinstance(value, list):
            for place, child in enumerate(value):
                if isinstance(child, ast.AST):
                    yield from ((node, name, place, [new]) for new in _replacements(child))
                    yield from _dropped(node, name, value, place)
                    yield from _edits(child)
        elif isinstance(value, ast.AST):
            yield from ((node, name, None, new) for new in _replacements(value))
            yield from _edits(value)
    yield from _own_changes(node)


def _dropped(node: ast.AST, name: str, value: list, place: int) -> Iterator[Edit]:
    child = value[place]
    if isinstance(child, ast.stmt) and not isinstance(child, ast.FunctionDef | ast.ClassDef
                                                      | ast.Import | ast.ImportFrom | ast.Pass):
        yield node, name, place, [ast.Pass()]
    elif name == "keywords" or (name == "values" and isinstance(node, ast.BoolOp)
                                and len(value) > 1):
        yield node, name, place, []
    elif name == "ifs":
        yield node, name, place, []
        yield node, name, place, [ast.Constant(False)]


def _own_changes(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.BinOp | ast.AugAssign):
        for new in OPERATORS.get(type(node.op), ()):
            yield node, "op", None, new()
    elif isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            for new in COMPARISONS[type(op)]:
                yield node, "ops", place, [new()]
    elif isinstance(node, ast.BoolOp):
        yield node, "op", None, ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.If | ast.IfExp):
        yield from ((node, "test", None, ast.Constant(value)) for value in (True, False))
    elif isinstance(node, ast.While):
        yield node, "test", None, ast.Constant(False)
    elif isinstance(node, ast.Name | ast.Attribute):
        name = "id" if isinstance(node, ast.Name) else "attr"
        for pair in KIN:
            if getattr(node, name) in pair:
                yield node, name, None, pair[pair[0] == getattr(node, name)]


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of an expression."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int):
            yield from (ast.Constant(node.value + step) for step in (1, -1))
        elif isinstance(node.value, float):
            yield ast.Constant(round(node.value * 1.1, 12) or 1.0)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
            yield node.func.value
        elif node.args and not isinstance(node.args[0], ast.Starred):
            yield node.args[0]


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("math", "torch", "np", "nn", "F", "random")


# trying them --------------------------------------------------------------------------------


def survey(name: str) -> tuple[list[Mutant], float]:
    """All mutants of one exercise's solution, each with its fate, and the CPU seconds it took.

    In a process of its own, which imports once and forks for each mutant.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else None)
    if "forkserver" in methods:
        context.set_forkserver_preload(["scratchbook.companions", "torch", "tests.notebook_tools"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_survey_here, name).result()


def _survey_here(name: str) -> tuple[list[Mutant], float]:
    import torch

    os.environ["CUDA_VISIBLE_DEVICES"] = ""     # autograd may not fork once it knows a GPU
    torch.set_num_threads(1)
    assert name in dir(check), f"no check is called {name}"
    path, number = SOLUTIONS[name]
    names = names_before(path, number)
    source = source_of(code_cells(load(path))[number])
    run_cell(path, number)                      # loads what a first use loads
    fate = _fate(name, names, source, 20.0)
    if fate != "accepted":
        raise AssertionError(f"{name}: the official solution is {fate}")
    enough = 0.5 + 3 * _cpu_seconds()
    found = [replace(mutant, fate=_fate(name, names, mutant.source, enough))
             for mutant in mutants(source)]
    return found, _cpu_seconds()


def _cpu_seconds() -> float:
    return sum(os.times()[2:4])      # of the children that have ended


def _fate(name: str, names: dict, source: str, cpu_seconds: float) -> str:
    """Fork, run the check on this source, and tell by how the child ended."""
    run = EXERCISES[name]
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        with contextlib.suppress(BaseException):
            _limit_memory()
            sys.modules["torch"].manual_seed(0)
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), \
                    contextlib.redirect_stderr(nowhere):
                names = copy.copy(names)
                exec(compile(source, f"<a mutant of {name}>", "exec"), names)
                # as `check.report` decides, but the first property that fails is enough
                os._exit(0 if all(found.passed for found in run(names[name])) else 1)
        os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "stopped"
    return "accepted" if os.WEXITSTATUS(status) == 0 else "refused"


def _limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))


# what is known to be accepted ---------------------------------------------------------------


def listed(path: Path, name: str) -> dict[tuple[str, str], str]:
    """{(before, after): why it may be accepted} for one exercise."""
    if not path.exists():
        return {}
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get(name, [])
    return {(entry["before"], entry["after"]): entry.get("why", "") for entry in entries}


def main(arguments: list[str]) -> None:
    """Print the survivors of the exercises named, or without a name the share of each."""
    refused = total = total_seconds = 0
    for name in arguments or SOLUTIONS:
        found, seconds = survey(name)
        known = listed(EQUIVALENT, name)
        alive = [mutant for mutant in found if mutant.fate == "accepted"]
        refused, total = refused + len(found) - len(alive), total + len(found)
        open_ones = [mutant for mutant in alive if mutant.key not in known]
        total_seconds += seconds
        print(f"{name:28} {len(found) - len(alive):4} of {len(found):4} refused, "
              f"{len(alive) - len(open_ones)} listed, {len(open_ones)} open "
              f"({seconds:.1f} s)", flush=True)
        for mutant in open_ones if arguments else []:
            print(f"  - {mutant.before}\n  + {mutant.after}")
    print(f"{refused} of {total} mutants refused ({refused / total:.1%}), "
          f"{total_seconds:.0f} CPU seconds")


if __name__ == "__main__":
    main(sys.argv[1:])
