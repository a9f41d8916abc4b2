"""`scratchbook tokenizer train`, `verify` and `quality`: a tokenizer.json and what it is worth.

Without files the text is what every Python carries, its manual (English) and its library (code).
One document in five is never trained on: `quality` measures on those.
"""

import argparse
import json
import time
from pathlib import Path

from scratchbook.data import python_manual, standard_library
from scratchbook.data.documents import load_documents, read_utf8
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.quality import report

CODE_BYTES = 4_000_000
HELD_OUT = 5
HOSTILE = ("", " ", "\n\n  \t\r\n", "don't DON'T", "naïve café", "日本語のテキスト", "👩‍👩‍👧‍👦🏽",
           "a" * 1000, "1234567890.5e-3", "\x00\x7f\u200b\ufeff", "e\u0301 \U0010ffff")


def own_texts(held_out: bool) -> list[str]:
    """Python's manual and library by documents: the held-out fifth, or the other four."""
    paragraphs = python_manual().split("\n\n")
    # the manual repeats paragraphs: each counts once, or it would fall on both sides
    documents = dict.fromkeys(paragraphs + standard_library(CODE_BYTES))
    return [text for number, text in enumerate(documents)
            if (number % HELD_OUT == 0) == held_out]


def read_texts(files: list[str], held_out: bool) -> list[str]:
    """The given files, or Python's own texts when there are none.

    Raises:   ValueError for a file that is not UTF-8 text
    """
    texts = []
    for name in files:
        texts += ([document.text for document in load_documents(name)] if name.endswith(".jsonl")
                  else [read_utf8(name)])
    return texts or own_texts(held_out)


def load(path: str) -> BPETokenizer:
    """Read a tokenizer.json.

    Raises:   ValueError when the file is missing or holds another kind of tokenizer
    """
    if not Path(path).is_file():
        raise ValueError(f"no file {path}: `scratchbook tokenizer train --output {path}` makes it")
    return BPETokenizer.from_tokenizers(path)


def train(options: argparse.Namespace) -> int:
    """Train byte-level BPE and write a file that the `tokenizers` library loads."""
    texts = read_texts(options.files, held_out=False)
    size = sum(len(text.encode("utf-8")) for text in texts)
    start = time.process_time()
    tokenizer = BPETokenizer(pattern=options.pattern).train(texts, options.vocab, options.special)
    seconds = time.process_time() - start
    tokenizer.save_tokenizers(options.output)
    print(f"{options.output}: {tokenizer.vocab_size} tokens from {size / 1e6:.1f} MB of text "
          f"in {seconds:.1f} CPU seconds")
    if tokenizer.vocab_size < options.vocab:
        print(f"  fewer than {options.vocab}: this text has no more pairs to merge")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Compare ids with the `tokenizers` library on the texts and on hostile strings."""
    import tokenizers

    ours = load(options.tokenizer)
    theirs = tokenizers.Tokenizer.from_file(options.tokenizer)
    texts = [*read_texts(options.files, held_out=True), *HOSTILE]
    wrong = lost = tokens = 0
    for text in texts:
        ids = ours.encode(text, allowed_special="all")  # the library always allows them
        tokens += len(ids)
        wrong += ids != theirs.encode(text, add_special_tokens=False).ids
        lost += ours.decode(ids) != text
    print(f"{len(texts)} texts, {tokens} tokens: {wrong} differ from tokenizers "
          f"{tokenizers.__version__}, {lost} do not decode to themselves")
    return 1 if wrong or lost else 0


def quality(options: argparse.Namespace) -> int:
    """Print what a tokenizer is worth on text; fail below --at-least characters per token."""
    numbers = report(load(options.tokenizer), read_texts(options.files, held_out=True))
    if options.json:
        print(json.dumps(numbers, indent=1))
    else:
        for name, value in numbers.items():
            shown = f"{value:.3f}" if isinstance(value, float) else value
            print(f"{name.replace('_', ' '):<24} {shown}")
    enough = options.at_least is None or numbers["chars_per_token"] >= options.at_least
    if not enough:
        print(f"fewer characters per token than {options.at_least}: train on text more like this, "
              "or with a larger --vocab")
    return 0 if enough else 1
