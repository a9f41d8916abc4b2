"""The commands eval, sample and compare: how good a run is, what it writes, which is better."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from scratchbook.runtime import write_atomically


def add_evaluation_commands(commands, add) -> None:
    """Hang this file's commands into the command line; `add` is `scratchbook.cli`'s helper."""
    found = add(commands, "eval", "evaluation_commands", "evaluate_run",
                "measure a run: perplexity and bits per byte; with --all also tests and signals")
    found.add_argument("--all", action="store_true", help="code tests, samples and a figure, too")
    found.add_argument("--json", action="store_true", help="print the result as JSON")
    found.add_argument("--text", action="append", default=[], metavar="FILE",
                       help="measure on this text; repeatable (default: what the run's own "
                            "training left out, and the last tenth of Python's manual and of "
                            "its library)")
    found.add_argument("--output", metavar="FILE", help="default: RUN/evaluation.json")
    sample = add(commands, "sample", "evaluation_commands", "sample_run",
                 "let a run write; without --prompt, one prompt from each line of the input")
    sample.add_argument("--prompt", action="append", default=[], help="repeatable")
    sample.add_argument("--max-new-tokens", type=int, metavar="N",
                        help="default: 100, or fewer where no more fit into the model's window")
    sample.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default: 0.8)")
    sample.add_argument("--top-k", type=int, metavar="K")
    sample.add_argument("--top-p", type=float, metavar="P")
    sample.add_argument("--min-p", type=float, metavar="P")
    sample.add_argument("--beams", type=int, metavar="N", help="search instead of drawing")
    sample.add_argument("--seed", type=int, default=0)
    for command in (found, sample):
        command.add_argument("run", help="the folder of a run")
        command.add_argument("--checkpoint", default="best", help="best (default), last or a step")
    compare = add(commands, "compare", "evaluation_commands", "compare",
                  "two runs or results; `baseline B` takes the recorded one, `checkpoints RUN` "
                  "all of a run")
    compare.add_argument("first", help="a run, a result's JSON, or: baseline, checkpoints")
    compare.add_argument("second", help="a run or a result's JSON")
    compare.add_argument("--output", default="before_after_comparison.png", metavar="FILE")


def evaluate_run(options: argparse.Namespace) -> int:
    """Write one JSON, with --all one figure, and print a summary or the JSON."""
    from scratchbook.finetuning.opening import measure_tuned
    from scratchbook.training.judging import read_texts

    texts = read_texts(options.text, options.run)
    result = measure_tuned(options.run, options.checkpoint, texts, options.all)
    path = Path(options.output or Path(options.run) / "evaluation.json")
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")
    if options.all:
        draw({Path(options.run).name: result}, path.with_suffix(".png"))
    print(text if options.json else "\n".join(summary(result)))
    return 0


def summary(result: dict[str, Any]) -> list[str]:
    """A line for each text, test and signal."""
    lines = [f"{result['run']}, step {result['step']}: {result['parameters']:,} parameters"]
    for name, found in result["texts"].items():
        bits = found["bits_per_byte"]
        lines.append(f"  {name:14} perplexity {found['perplexity']:8.2f} per token, "
                     + ("not the text" if bits is None else f"{bits:.3f} bits per byte"))
    for name, rates in result.get("headings", {}).items():
        shares = (f"{who} {100 * rate['share']:.0f} %" for who, rate in rates.items())
        lines.append(f"  {'headings':14} {', '.join(shares)} of those in {name}")
    for name, test in result.get("tests", {}).items():
        controls = ", ".join(f"{control} {100 * tests[name]['share']:.0f}"
                             for control, tests in result["controls"].items())
        lines.append(f"  {name:14} {100 * test['share']:3.0f} % ({100 * test['low']:.0f} to "
                     f"{100 * test['high']:.0f}; controls: {controls})")
    lines += [f"  {name:14} {s['value']:.2f} ({s['low']:.2f} to {s['high']:.2f})"
              for name, s in result.get("signals", {}).items()]
    return lines


def draw(results: dict[str, dict[str, Any]], path: str | Path) -> None:
    """The four panels of one or two evaluations, at 200 dots per inch."""
    from scratchbook.companions.evaluation_figures import plot_panels

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure, _ = plot_panels(results)
    figure.savefig(path, dpi=200, facecolor="white")
    print(f"written: {path}", file=sys.stderr)


def sample_run(options: argparse.Namespace) -> int:
    """Continue each prompt."""
    from scratchbook.finetuning.opening import open_tuned
    from scratchbook.generation import generate
    from scratchbook.sampling import beam_search

    which = options.checkpoint
    opened = open_tuned(options.run, int(which) if which.isdecimal() else which)
    model, tokenizer = opened.model, opened.tokenizer
    room = model.config.max_seq_len
    lines = (line.rstrip("\n") for line in sys.stdin)
    for prompt in options.prompt or filter(None, lines):
        ids, count = tokenizer.encode(prompt), options.max_new_tokens
        count = min(100, max(1, room - len(ids))) if count is None else count
        if options.beams is not None:
            new = beam_search(model, ids, count, options.beams)[0][1]
        else:
            new = generate(model, ids, count, options.temperature, options.top_k,
                           options.top_p, options.min_p, seed=options.seed)
        print(tokenizer.decode([*ids, *new]), flush=True)
    return 0


def compare(options: argparse.Namespace) -> int:
    """Print what changed, with intervals, and draw both; or a line for each checkpoint."""
    from scratchbook.evaluation import compare_tests, verdict_on

    if options.first == "checkpoints":
        return compare_checkpoints(options.second)
    before, after = (_load(name) for name in (options.first, options.second))
    for name, change in compare_tests(before["tests"], after["tests"]).items():
        print(f"  {name:14} {100 * change.value:+4.0f} points ({100 * change.low:+.0f} to "
              f"{100 * change.high:+.0f}): {verdict_on(change, 'worse', 'better')}")
    draw({f"before: {before['run']}": before, f"after: {after['run']}": after}, options.output)
    return 0


def _load(name: str) -> dict[str, Any]:
    from scratchbook.teaching import load_result
    from scratchbook.training.judging import load_evaluation

    return load_result("baseline_v0").numbers if name == "baseline" else load_evaluation(name)


def compare_checkpoints(run: str) -> int:
    """Evaluate every checkpoint of a run; the best is the least surprised."""
    from scratchbook.training.judging import judged_checkpoints, surprise_of

    rows = []
    for step, result in judged_checkpoints(run):
        value, unit = surprise_of(result)
        passed = sum(test["share"] for test in result["tests"].values()) / len(result["tests"])
        rows.append((value, step))
        print(f"  step {step:6}: {value:.3f} {unit}, {100 * passed:.0f} % of the tests")
    print(f"best: step {min(rows)[1]}")
    return 0
