"""The commands chat, compile and diagnose: talk with a run, judge what it writes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELP = "/temperature 0.5   /top_k 40   /length 200   /seed 1   /quit"


def add_writing_commands(commands, add) -> None:
    """Hang this file's commands into the command line; `add` is `scratchbook.cli`'s helper."""
    chat = add(commands, "chat", "writing_commands", "chat",
               "give a run one beginning after the other and watch it write")
    chat.add_argument("run", help="the folder of a run")
    chat.add_argument("--checkpoint", default="best", help="best (default), last or a step")
    examined = add(commands, "diagnose", "writing_commands", "diagnose",
                   "say what is wrong with a run: why it writes gibberish, what ails its curve")
    examined.add_argument("run", help="the folder of a run")
    examined.add_argument("--json", action="store_true", help="as JSON")
    compiled = add(commands, "compile", "writing_commands", "compile_all",
                   "how much of a run's Python, or of files in Python, Go, Vue and Smalltalk, "
                   "compiles")
    compiled.add_argument("what", nargs="+", help="the folder of a run, folders or files of code")
    compiled.add_argument("--count", type=int, default=40, metavar="N", help="functions of a run")
    compiled.add_argument("--length", type=int, metavar="N", help="characters that a run writes "
                          "for each (default: 160, or half of what its window holds)")


def chat(options: argparse.Namespace) -> int:
    """Continue each line of the input as it comes; lines that begin with / change a setting."""
    from scratchbook.finetuning.opening import open_tuned

    which = options.checkpoint
    opened = open_tuned(options.run, int(which) if which.isdecimal() else which)
    settings: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "length": 100, "seed": 0}
    print(f"{opened.folder}: {HELP}", file=sys.stderr)
    for line in _lines():
        if line == "/quit":
            break
        try:
            if line.startswith("/"):
                print(_set(settings, line[1:]), file=sys.stderr)
                continue
            for piece in _pieces(opened.model, opened.tokenizer, line, settings):
                print(piece, end="", flush=True)
            print(flush=True)
            settings["seed"] += 1
        except ValueError as error:
            print(f"  {error}", file=sys.stderr)
    return 0


def _lines() -> Iterator[str]:
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")


def _set(settings: dict[str, Any], words: str) -> str:
    """Change one setting; what it says is for the person who asked."""
    name, _, value = words.partition(" ")
    if name not in settings:
        raise ValueError(f"/{name} is unknown: {HELP}")
    try:
        settings[name] = type(settings[name])(value)
    except ValueError:
        raise ValueError(f"/{name} {value}: a number is needed") from None
    return f"  {name} = {settings[name]}"


def _pieces(model: object, tokenizer: object, prompt: str, settings: dict[str, Any]
            ) -> Iterator[str]:
    """The prompt, then what the model adds to it, as soon as it is whole characters."""
    from scratchbook.generation import stream

    ids = tokenizer.encode(prompt)
    room = model.config.max_seq_len - len(ids)
    if room < 1:
        raise ValueError(f"{len(ids)} tokens are more than a context of "
                         f"{model.config.max_seq_len} takes: give a shorter beginning")
    shown = ""
    for chosen in stream(model, ids, min(settings["length"], room), settings["temperature"],
                         settings["top_k"], seed=settings["seed"]):
        ids = [*ids, int(chosen[0])]
        text = tokenizer.decode(ids)
        if text.startswith(shown) and not text.endswith("\ufffd"):  # half a character waits
            yield text[len(shown) :]
            shown = text
    if text != shown:
        yield text[len(shown) :]


def compile_all(options: argparse.Namespace) -> int:
    """One line for each language or writer; status 1 when no compiler could be asked."""
    runs = [path for path in options.what if Path(path, "config.json").is_file()]
    lines = [line for run in runs for line in _run_lines(run, options.count, options.length)]
    if files := [path for path in options.what if path not in runs]:
        lines += _file_lines(files)
    print("\n".join(lines))
    return 0 if any("%" in line for line in lines) else 1


def _run_lines(run: str, count: int, length: int | None) -> list[str]:
    """Functions of the library that training left out, continued by a run and by controls."""
    from scratchbook.data import standard_library
    from scratchbook.evaluation.code_tests import NGram, writer
    from scratchbook.evaluation.compiling import compile_rate, continued
    from scratchbook.finetuning.opening import open_tuned

    opened = open_tuned(run)
    length = min(160, opened.model.config.max_seq_len // 2) if length is None else length
    writers = {Path(run).name: writer(opened.model, opened.tokenizer),
               "6-gram": NGram("".join(standard_library(300_000)))}
    library = "\n".join(standard_library())
    unseen = library[int(0.9 * len(library)) :]
    pairs = {name: continued(write, [unseen], count, length)
             for name, write in writers.items()}
    sources = {name: [text for text, _ in found] for name, found in pairs.items()}
    sources["their authors"] = [text for _, text in pairs["6-gram"]]
    return [_line(name, compile_rate(texts)) for name, texts in sources.items()]


def _file_lines(paths: list[str]) -> list[str]:
    """Files by language, each a source of its own."""
    from scratchbook.data.documents import collect
    from scratchbook.evaluation.compiling import SUFFIXES, compile_rate, judges

    known, found = judges(), {}
    for path in paths:
        for document in collect(path, [f"*{suffix}" for suffix in SUFFIXES]).documents:
            language = SUFFIXES.get(Path(document.name).suffix, "python")
            found.setdefault(language, []).append(document.text)
    if not found:
        raise ValueError(f"no code in {', '.join(paths)}: known are {', '.join(SUFFIXES)}")
    return [f"{language:14} {len(texts)} not judged: it {known[language]}"
            if isinstance(known[language], str) else _line(language, compile_rate(texts, language))
            for language, texts in found.items()]


def _line(name: str, found: dict[str, Any]) -> str:
    return (f"{name:14} {100 * found['share']:3.0f} % ({100 * found['low']:.0f} to "
            f"{100 * found['high']:.0f}) of {found['total']} compile, says {found['tool']}")


def diagnose(options: argparse.Namespace) -> int:
    """Say what is wrong with a run's files and with its curve; status 1 when something is."""
    from dataclasses import asdict

    from scratchbook.finetuning.opening import open_tuned
    from scratchbook.training import read_log
    from scratchbook.training.diagnosis import diagnose as read_curve
    from scratchbook.training.gibberish import why_gibberish

    opened, log = open_tuned(options.run), read_log(options.run)
    found = why_gibberish(opened.model, opened.tokenizer, log, opened.step)
    if any("loss" in entry for entry in log):
        found += read_curve(log, opened.model.config.vocab_size)
    if options.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        print("\n".join(map(str, found))
              or f"nothing is wrong with {options.run}, step {opened.step}")
    return 1 if found else 0
