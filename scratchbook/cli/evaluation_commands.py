"""The commands eval, sample and compare: how good a run is, what it writes, which is better."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratchbook.runtime import sha256_of, write_atomically

if TYPE_CHECKING:
    from scratchbook.training.recipes import DataConfig

HELD_OUT = 40_000  # characters of each text, from the part that training on it leaves out


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
    texts = read_texts(options.text, options.run)
    result = measure(options.run, options.checkpoint, texts, options.all)
    path = Path(options.output or Path(options.run) / "evaluation.json")
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")
    if options.all:
        draw({Path(options.run).name: result}, path.with_suffix(".png"))
    print(text if options.json else "\n".join(summary(result)))
    return 0


def measure(run: str | Path, which: str | int, texts: dict[str, str], tests: bool = True,
            controls: bool = True) -> dict[str, Any]:
    """Open a run's checkpoint and evaluate it, its tests beside an n-gram and a `)`-only control.

    Raises:   ValueError when the tokenizer can encode none of the texts
    """
    from scratchbook.evaluation.report import evaluate
    from scratchbook.training import open_run

    opened = open_run(run, int(which) if str(which).isdecimal() else which)
    refused = unreadable(opened.tokenizer, texts)
    for name, reason in refused.items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    texts = {name: text for name, text in texts.items() if name not in refused}
    if not texts:
        raise ValueError("this tokenizer can encode none of the texts: give one with --text FILE")
    result = evaluate(opened.model, opened.tokenizer, texts, tests,
                      baselines() if tests and controls else None)
    result |= heading_tests(opened, texts)
    return {"run": Path(run).resolve().name, "step": opened.step} | result


def heading_tests(opened: Any, texts: dict[str, str]) -> dict[str, Any]:
    """For Markdown with headings, how often the run goes on with one, beside an n-gram."""
    from scratchbook.evaluation.code_tests import NGram, writer
    from scratchbook.evaluation.headings import FEWEST, HEADING, LENGTH, heading_rates

    if opened.model.config.max_seq_len <= LENGTH + 1:
        return {}
    write = writer(opened.model, opened.tokenizer)
    found = {name: heading_rates(text, {"the run": write, "n-gram": NGram(text[: len(text) // 2])})
             for name, text in texts.items() if name == "held out" or name.endswith(".md")
             if len(HEADING.findall(text)) >= FEWEST}
    return {"headings": found} if found else {}


def baselines() -> dict[str, Any]:
    """What a model must beat: an n-gram table of the standard library, and writing only `)`."""
    from scratchbook.data import standard_library
    from scratchbook.evaluation.code_tests import NGram, only_closing

    return {"n-gram": NGram("".join(standard_library(300_000))), "only )": only_closing}


def unreadable(tokenizer: object, texts: dict[str, str]) -> dict[str, str]:
    """The texts that a tokenizer refuses, such as characters it never saw, and why.

    Those that it loses something of are left out only where there are others.
    """
    refused, lossy, encode = {}, {}, getattr(tokenizer, "encode_ordinary", tokenizer.encode)
    for name, text in texts.items():
        try:
            if tokenizer.decode(encode(text)) != text:
                lossy[name] = "this tokenizer's tokens do not spell all of it"
        except ValueError as error:
            refused[name] = str(error).partition(":")[0]
    return refused | (lossy if len(refused) + len(lossy) < len(texts) else {})


def read_texts(files: list[str], run: str | Path) -> dict[str, str]:
    """The given files by name; else what the run's, and Python's own texts keep for this.

    Raises:   ValueError when a file is no text
    """
    from scratchbook.data import python_manual, standard_library

    if files:
        names = [Path(file).name for file in files]
        names = names if len(set(names)) == len(names) else files
        return {name: _read(file) for name, file in zip(names, files, strict=True)}
    own = {"prose": python_manual(), "code": "\n".join(standard_library())}
    own = {name: text[int(0.9 * len(text)) :] for name, text in own.items()}
    return {name: text[:HELD_OUT] for name, text in (held_out(Path(run)) | own).items()}


def held_out(run: Path) -> dict[str, str]:
    """The part of a run's own text that training left out, where the folder says which it was.

    Raises:   ValueError when the folder's config is damaged
    """
    from scratchbook.training.identity import read_config
    from scratchbook.training.recipes import TEXTS, DataConfig

    kept = read_config(run)["data"] or {}
    if kept.get("text", "python_manual") in TEXTS:
        return {}  # not said, or Python's own texts, which are measured anyway
    fields = {name: kept[name] for name in DataConfig.__dataclass_fields__ if name in kept}
    try:
        _check_text(kept)
        return {"held out": _last_part(DataConfig(**fields))}
    except FileNotFoundError as error:
        print(f"left out what training held out: {error}", file=sys.stderr)
        return {}


def _check_text(kept: dict[str, Any]) -> None:
    """Refuse to call a part of a text held out that training may have read before an edit.

    Raises:   FileNotFoundError when the text is not the one that the run was trained on
    """
    wanted = kept.get("text_sha256")
    if wanted and Path(kept["text"]).is_file() and sha256_of(kept["text"]) != wanted:
        raise FileNotFoundError(f"{kept['text']} was edited after the training, which may have "
                                "read what its end says now; give a text with --text FILE")


def _last_part(data: DataConfig) -> str:
    """What `Recipe.build_data` cuts off the end of its text, or the packed documents apart."""
    from scratchbook.data.token_files import read_tokens
    from scratchbook.training import ByteTokenizer
    from scratchbook.training.packed import TOKENIZER, VALIDATION, is_packed, load_tokenizer
    from scratchbook.training.recipes import read_text

    if not is_packed(data.text):
        text = read_text(data.text)
        return text[int(len(text) * (1 - data.validation_share)) :]
    file, documents = Path(data.text, TOKENIZER), read_tokens(Path(data.text, VALIDATION))
    decode = (load_tokenizer(file) if file.is_file() else ByteTokenizer()).decode
    return "\n".join(decode(ids.tolist()) for ids in documents.documents())


def _read(file: str) -> str:
    from scratchbook.data.documents import decode

    try:
        return decode(Path(file).read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


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
    from scratchbook.generation import generate
    from scratchbook.sampling import beam_search
    from scratchbook.training import open_run

    which = options.checkpoint
    opened = open_run(options.run, int(which) if which.isdecimal() else which)
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
    before, after = (load(name) for name in (options.first, options.second))
    for name, change in compare_tests(before["tests"], after["tests"]).items():
        print(f"  {name:14} {100 * change.value:+4.0f} points ({100 * change.low:+.0f} to "
              f"{100 * change.high:+.0f}): {verdict_on(change, 'worse', 'better')}")
    draw({f"before: {before['run']}": before, f"after: {after['run']}": after}, options.output)
    return 0


def load(name: str) -> dict[str, Any]:
    """The evaluation of a run, of a JSON file, or the recorded baseline."""
    if name == "baseline":
        from scratchbook.teaching import load_result

        return load_result("baseline_v0").numbers
    path = Path(name)
    if path.is_dir():
        return measure(path, "best", read_texts([], path))
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no result of `scratchbook eval`: {error}") from None
    if not isinstance(result, dict) or not {"run", "tests", "texts"} <= set(result):
        raise ValueError(f"{path} holds no code tests: write it with `scratchbook eval RUN --all`")
    return result


def compare_checkpoints(run: str) -> int:
    """Evaluate every checkpoint of a run; the best is the least surprised."""
    from scratchbook.training.checkpoint import checkpoints

    texts, rows = read_texts([], run), []
    steps = sorted(int(path.name.removeprefix("step_")) for path in checkpoints(Path(run))
                   if path.is_dir() and path.name.removeprefix("step_").isdecimal())
    if not steps:
        raise ValueError(f"{run} holds no checkpoints to compare")
    for step in steps:
        result = measure(run, step, texts, controls=False)
        value, unit = surprise_of(result)
        passed = sum(test["share"] for test in result["tests"].values()) / len(result["tests"])
        rows.append((value, step))
        print(f"  step {step:6}: {value:.3f} {unit}, {100 * passed:.0f} % of the tests")
    print(f"best: step {min(rows)[1]}")
    return 0


def surprise_of(result: dict[str, Any]) -> tuple[float, str]:
    """The mean over a result's texts, and in which unit: tokens that spell no text have no bytes.
    """
    for key, unit in (("bits_per_byte", "bits per byte"), ("perplexity", "perplexity per token")):
        values = [found[key] for found in result["texts"].values()]
        if None not in values:
            return sum(values) / len(values), unit
    raise AssertionError("every text has a perplexity")
