"""The recorded counts of chapter 01b: logs, code, and each tokenizer on each corpus.

    python -m scratchbook.companions.domain_study RAILS...     # about four minutes on one core

RAILS are folders of public Rails applications, three or more; each is left out of training once.
The files named in data/registry.toml are fetched where they are missing.

Chapter:  chapters/01b_domain_tokenizers.ipynb
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

from scratchbook.companions.domain_material import (
    code_files,
    halves,
    library_halves,
    loghub,
    message_bpe,
    published,
    tokens_by_block,
)
from scratchbook.data import python_manual
from scratchbook.runtime import data_dir
from scratchbook.teaching.results import record
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.tokenizers.domain import LogTokenizer
from scratchbook.tokenizers.hybrid import HybridTokenizer
from scratchbook.tokenizers.languages import Language

VOCAB_SIZE = 4096
COMMAND = "python -m scratchbook.companions.domain_study"
CUT_ALONE = Language("cut alone", "(?!)")  # the code's cut for everything, no words, no switching
EACH = 600_000  # bytes of every corpus of the matrix
Counts = dict[str, dict]


def learned_from(texts: Sequence[str]) -> dict[str, Tokenizer]:
    """Ours and its rivals of the same size, all learned from the same logs."""
    return {
        "ours": LogTokenizer().train(texts, VOCAB_SIZE),
        "ours, no templates learned": LogTokenizer().train(texts, VOCAB_SIZE, most_templates=0),
        "BPE, GPT-2's cut": BPETokenizer("gpt2").train(texts, VOCAB_SIZE),
        "BPE, GPT-4's cut": BPETokenizer("cl100k").train(texts, VOCAB_SIZE),
        "BPE, whole messages": message_bpe().train(texts, VOCAB_SIZE)}


def on_log(text: str, tokenizers: Mapping[str, Tokenizer]) -> dict:
    """Tokens by block of lines, after seeing that everything comes back."""
    found = {}
    for name, tokenizer in tokenizers.items():
        assert tokenizer.decode(tokenizer.encode_ordinary(text), errors="strict") == text, name
        found[name] = tokens_by_block(tokenizer, text)
    content = text.encode()
    return {"bytes": len(content), "gzip_bytes": len(gzip.compress(content, 9)), "tokens": found}


def logs() -> Counts:
    """Second halves after training on the first ones, and each system after the other eight."""
    texts, known = loghub(), published()
    known = known | {"ours over cl100k": LogTokenizer.over(known["cl100k"])}
    first, second = halves(texts)
    tokenizers = {**learned_from(list(first.values())), **known}
    counts: Counts = {"second halves": {system: on_log(text, tokenizers)
                                        for system, text in second.items()}, "left out": {}}
    for system, text in texts.items():
        others = [other for name, other in texts.items() if name != system]
        counts["left out"][system] = on_log(text, {**learned_from(others), **known})
        print("left out:", system, flush=True)
    return counts


def on_files(texts: Sequence[str], tokenizers: Mapping[str, Tokenizer]) -> dict:
    """Tokens by file, after seeing that everything comes back."""
    for name, tokenizer in tokenizers.items():
        assert all(tokenizer.decode(tokenizer.encode_ordinary(text), errors="strict") == text
                   for text in texts), name
    return {"bytes": [len(text.encode()) for text in texts],
            "tokens": {name: [len(tokenizer.encode_ordinary(text)) for text in texts]
                       for name, tokenizer in tokenizers.items()}}


def code_tokenizers(language: str, texts: Sequence[str]) -> dict[str, Tokenizer]:
    """The hybrid, what it is made of alone, and its rivals of the same size."""
    made: dict[str, Tokenizer] = {
        "hybrid": HybridTokenizer(language),
        "hybrid, identifiers as bytes": HybridTokenizer(language, identifiers="bytes"),
        "the cut for code, no switching": HybridTokenizer(CUT_ALONE),
        "BPE, GPT-2's cut": BPETokenizer("gpt2"), "BPE, GPT-4's cut": BPETokenizer("cl100k")}
    if language == "rails":
        made["hybrid, Ruby without Rails"] = HybridTokenizer("ruby")
    return {name: tokenizer.train(texts, VOCAB_SIZE) for name, tokenizer in made.items()}


def code(rails: Mapping[str, list[str]]) -> Counts:
    """Python by packages that were held out, Rails by applications that were."""
    known = published()
    learn, held_out = library_halves()
    counts: Counts = {"Python": on_files(held_out, {**code_tokenizers("python", learn), **known})}
    for name, texts in rails.items():
        others = [text for other, files in rails.items() if other != name for text in files]
        counts[f"Rails: {name}"] = on_files(
            texts, {**code_tokenizers("rails", others), **known})
        print("left out:", name, flush=True)
    return counts


def corpora(rails: Mapping[str, list[str]]) -> dict[str, tuple[list[str], list[str]]]:
    """Each corpus as what is learned from and what is held out, about equally large."""
    learn, held_out = library_halves()
    first, second = halves()
    *applications, last = rails.values()
    classes = [text for _, text in code_files(data_dir() / "smalltalk", (".class.st",))]
    manual = python_manual()
    sides = {
        "English": ([manual[:EACH * 3 // 4]], [manual[EACH * 3 // 4:]]),
        "Python": (learn, held_out),
        "Rails": ([text for files in applications for text in files], last),
        "Smalltalk": (classes[::4] + classes[1::4] + classes[2::4], classes[3::4]),
        "logs": (list(first.values()), list(second.values()))}
    return {name: (_up_to(one, EACH), _up_to(other, EACH // 4))
            for name, (one, other) in sides.items()}


def _up_to(texts: Sequence[str], size: int) -> list[str]:
    """An equal share of each text, so that all sources are in it."""
    share = size / max(1, sum(map(len, texts)))
    return [text[:int(len(text) * min(1.0, share))] for text in texts]


def matrix(rails: Mapping[str, list[str]]) -> Counts:
    """Bytes per token of every tokenizer (learned on one corpus) on every held-out corpus."""
    sides = corpora(rails)
    special: dict[str, Tokenizer] = {
        "Python": HybridTokenizer("python"), "Rails": HybridTokenizer("rails"),
        "logs": LogTokenizer()}
    tokenizers: dict[str, Tokenizer] = {}
    for name, (learn, _) in sides.items():
        tokenizers[f"BPE of {name}"] = BPETokenizer("gpt2").train(learn, VOCAB_SIZE)
        if name in special:
            tokenizers[f"own of {name}"] = special[name].train(learn, VOCAB_SIZE)
    return {"bytes_per_token": {
        row: {name: sum(len(text.encode()) for text in held_out)
              / sum(len(tokenizer.encode_ordinary(text)) for text in held_out)
              for name, (_, held_out) in sides.items()} for row, tokenizer in tokenizers.items()},
        "bytes": {name: [sum(len(text.encode()) for text in side) for side in both]
                  for name, both in sides.items()}}


def main() -> None:
    """Count all three, and record each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rails", nargs="+", type=Path)
    rails = {path.name: [text for _, text in code_files(path, (".rb", ".erb")) if text]
             for path in parser.parse_args().rails}
    if len(rails) < 3 or not all(rails.values()):
        parser.error("give three folders or more with files of Ruby in each")
    record("01b_domain_tokenizers.logs", logs(), seeds=[0], command=COMMAND)
    record("01b_domain_tokenizers.code", code(rails), seeds=[0], command=COMMAND)
    record("01b_domain_tokenizers.matrix", matrix(rails), seeds=[0], command=COMMAND)


if __name__ == "__main__":
    main()
