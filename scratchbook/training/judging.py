"""A run judged: its held-out text found again, its checkpoints measured beside the baselines.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scratchbook.data import python_manual, standard_library
from scratchbook.data.documents import decode
from scratchbook.data.token_files import read_tokens
from scratchbook.evaluation.code_tests import NGram, only_closing, writer
from scratchbook.evaluation.headings import FEWEST, HEADING, LENGTH, heading_rates
from scratchbook.evaluation.report import evaluate
from scratchbook.runtime import sha256_of
from scratchbook.training.checkpoint import checkpoints
from scratchbook.training.identity import read_config
from scratchbook.training.packed import TOKENIZER, VALIDATION, is_packed, load_tokenizer
from scratchbook.training.recipes import TEXTS, DataConfig, read_text
from scratchbook.training.runs import ByteTokenizer, open_run

HELD_OUT = 40_000  # characters of each text, from the part that training on it leaves out


def measure(run: str | Path, which: str | int, texts: dict[str, str], tests: bool = True,
            controls: bool = True) -> dict[str, Any]:
    """Open a run's checkpoint and evaluate it, its tests beside an n-gram and a `)`-only control.

    Raises:   ValueError when the tokenizer can encode none of the texts
    """
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
    if opened.model.config.max_seq_len <= LENGTH + 1:
        return {}
    write = writer(opened.model, opened.tokenizer)
    found = {name: heading_rates(text, {"the run": write, "n-gram": NGram(text[: len(text) // 2])})
             for name, text in texts.items() if name == "held out" or name.endswith(".md")
             if len(HEADING.findall(text)) >= FEWEST}
    return {"headings": found} if found else {}


def baselines() -> dict[str, Any]:
    """What a model must beat: an n-gram table of the standard library, and writing only `)`."""
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
    if not is_packed(data.text):
        text = read_text(data.text)
        return text[int(len(text) * (1 - data.validation_share)) :]
    file, documents = Path(data.text, TOKENIZER), read_tokens(Path(data.text, VALIDATION))
    decode = (load_tokenizer(file) if file.is_file() else ByteTokenizer()).decode
    return "\n".join(decode(ids.tolist()) for ids in documents.documents())


def _read(file: str) -> str:
    try:
        return decode(Path(file).read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def load_evaluation(name: str) -> dict[str, Any]:
    """The evaluation of a run's best checkpoint, or of the JSON that `scratchbook eval` wrote.

    Raises:   ValueError when a file holds none
    """
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


def surprise_of(result: dict[str, Any]) -> tuple[float, str]:
    """The mean over a result's texts, and in which unit: tokens that spell no text have no bytes.
    """
    for key, unit in (("bits_per_byte", "bits per byte"), ("perplexity", "perplexity per token")):
        values = [found[key] for found in result["texts"].values()]
        if None not in values:
            return sum(values) / len(values), unit
    raise AssertionError("every text has a perplexity")


def judged_checkpoints(run: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every checkpoint of a run with its step, measured in their order.

    Raises:   ValueError when there are none
    """
    steps = [int(path.name.removeprefix("step_")) for path in checkpoints(Path(run))
             if path.is_dir()]
    if not steps:
        raise ValueError(f"{run} holds no checkpoints to compare")
    texts = read_texts([], run)
    for step in steps:
        yield step, measure(run, step, texts, controls=False)
