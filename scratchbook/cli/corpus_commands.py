"""`scratchbook corpus collect`, `dedupe`, `mix` and `pack`: from folders of files to token ids.

Between the commands a corpus is a file of JSON lines; a folder or any text file works as well.
"""

import argparse
import math
import time
from functools import partial
from pathlib import Path

from scratchbook.cli.chapter_commands import as_table
from scratchbook.data import fetch, library_documents
from scratchbook.data.cleaning import clean
from scratchbook.data.documents import (
    INCLUDE,
    Document,
    collect,
    load_documents,
    save_documents,
)

LARGEST = 2**32  # bytes of a mixture, which is written in one piece


def add_corpus_commands(commands) -> None:
    """Add `corpus` and its four actions to the command line."""
    corpus = commands.add_parser("corpus", help="collect, deduplicate, mix and tokenise texts")
    actions = corpus.add_subparsers(metavar="ACTION", required=True)
    found = _action(actions, "collect", "read folders of Markdown, text and code into one file")
    found.add_argument("--root", action="append", default=[], help="a folder or a file; repeatable")
    found.add_argument("--include", action="append", metavar="PATTERN",
                       help=f"file names to take; repeatable (default: {' '.join(INCLUDE)})")
    found.add_argument("--comments", action="store_true", help="of code, its comments alone")
    found.add_argument("--library", action="store_true", help="add Python's standard library")
    found.add_argument("--dataset", action="append", default=[], metavar="NAME",
                       help="add a text of data/registry.toml, such as gutenberg_alice; repeatable")
    clean_up = _action(actions, "dedupe", "remove equal and nearly equal documents")
    clean_up.add_argument("--threshold", type=float, default=0.7, metavar="SHARE",
                          help="runs of five words that two documents share (default: 0.7)")
    mixed = _action(actions, "mix", "repeat sources by weight; print the ratio in three units")
    mixed.add_argument("--weights", required=True, metavar="A=3,B=1",
                       help="how often each source is repeated; a source's name is its file's stem")
    packed = _action(actions, "pack", "tokenise into memory-mapped files, one part held out")
    packed.add_argument("--held-out", type=float, default=0.1, metavar="SHARE")
    packed.add_argument("--by", default="project", choices=("project", "name"),
                        help="what is held out whole (default: project; name: one document)")
    for command in (clean_up, mixed, packed):
        command.add_argument("corpus", nargs="+", help="files that collect wrote, text, folders")
    for command in (mixed, packed):
        command.add_argument("--tokenizer", metavar="FILE", help="a tokenizer.json (else: bytes)")
    found.add_argument("--output", default="corpus.jsonl", metavar="FILE")
    clean_up.add_argument("--output", default="clean.jsonl", metavar="FILE")
    mixed.add_argument("--output", default="mixed.jsonl", metavar="FILE")
    packed.add_argument("--output", default="tokens", metavar="FOLDER")


def _action(actions, name: str, text: str) -> argparse.ArgumentParser:
    command = actions.add_parser(name, help=text, description=text)
    command.set_defaults(module="corpus_commands", action=f"{name}_corpus")
    return command


def collect_corpus(options: argparse.Namespace) -> int:
    """Read everything asked for and write it as JSON lines."""
    cleaner = partial(clean, only_comments=options.comments)
    roots = [*options.root, *map(fetch, options.dataset)]
    if not roots and not options.library:
        raise ValueError("nothing to collect: give --root FOLDER, --dataset NAME or --library")
    documents, skipped = library_documents() if options.library else [], []
    for root in roots:
        found = collect(root, options.include or INCLUDE, cleaner)
        documents += found.documents
        skipped += found.skipped.items()
    for name, reason in skipped[:5]:
        print(f"  left out {name}: {reason}")
    if not documents:
        raise ValueError(f"no document among {len(skipped)} files: look at --include "
                         f"{' '.join(options.include or INCLUDE)}")
    return _write(options.output, documents, f", {len(skipped)} files left out")


def dedupe_corpus(options: argparse.Namespace) -> int:
    """Write the corpus without repetitions."""
    from scratchbook.data.dedupe import deduplicate

    documents = [document for path in options.corpus for document in _read(path)]
    start = time.process_time()
    kept, _, similar = deduplicate(documents, options.threshold)
    seconds = time.process_time() - start
    different = len({document.text.strip() for document in documents})  # names may come twice
    for gone, stays in list(similar.items())[:5]:
        print(f"  {gone} resembles {stays}")
    return _write(options.output, kept, f", without {len(documents) - different} equal and "
                  f"{different - len(kept)} similar ones; {seconds:.1f} CPU seconds")


def mix_corpus(options: argparse.Namespace) -> int:
    """Repeat each source by its weight, and say what the ratio is in lines, bytes and tokens."""
    from scratchbook.data.mixing import measure, shares

    weights, stems = _weights(options.weights), [Path(path).stem for path in options.corpus]
    if len(set(stems)) < len(stems):
        raise ValueError(f"two sources are called {max(stems, key=stems.count)}: rename a file")
    sources = {stem: _read(path) for stem, path in zip(stems, options.corpus, strict=True)}
    encode, _, _ = _tokenizer(options.tokenizer)
    sizes = {name: measure([d.text for d in found], encode) for name, found in sources.items()}
    rows = [{"source": name, "weight": f"{weights[name]:g}", **{
        unit: f"{share:.1%} ({weights[name] * getattr(sizes[name], unit):,.0f})"
        for unit, share in by_unit.items()}} for name, by_unit in shares(sizes, weights).items()]
    print(as_table(rows))
    if not all(float(weight).is_integer() for weight in weights.values()):
        raise ValueError(f"{options.weights}: documents are repeated whole; give whole weights")
    size = sum(weights[name] * sizes[name].bytes for name in sizes)
    if size > LARGEST:
        raise ValueError(f"{options.weights}: the mixture would be {size / 1e9:,.0f} GB; give "
                         "smaller weights")
    mixed = [document for name, found in sources.items() for document in found * int(weights[name])]
    return _write(options.output, mixed)


def pack_corpus(options: argparse.Namespace) -> int:
    """Split, look for leaks, tokenise; write train.tokens and validation.tokens into OUTPUT."""
    from scratchbook.data.held_out import find_leaks, split_documents
    from scratchbook.data.token_files import cached_tokens

    documents = [document for path in options.corpus for document in _read(path)]
    start = time.process_time()
    parts = split_documents(documents, options.held_out, options.by)
    share = _size(parts[1]) / max(1, _size(documents))
    if not 0.5 < share / options.held_out < 2:
        print(f"  {share:.1%} of the bytes are held out, not {options.held_out:.1%}: no "
              f"{options.by} is of a size that fits")
    leaks = find_leaks(*parts)
    encode, vocab_size, name = _tokenizer(options.tokenizer)
    for part, found in zip(("train", "validation"), parts, strict=True):
        path = Path(options.output, f"{part}.tokens")
        tokens = cached_tokens(path, [d.text for d in found], encode, vocab_size, name)
        print(f"{path}: {len(tokens.ids):,} tokens in {len(tokens.lengths):,} documents")
    _keep_tokenizer(options.tokenizer, Path(options.output))
    for leak in leaks[:3]:
        print(f"  leak: {leak.name} shares {leak.shared:,} of its {leak.runs:,} runs of 13 words")
    size, seconds = _size(documents) / 1e6, time.process_time() - start
    print(f"{len(leaks)} held-out documents share 13 words in a row with training; "
          f"{size / max(seconds, 1e-9):.1f} MB per CPU second")
    return 0


def _keep_tokenizer(file: str | None, folder: Path) -> None:
    """Lay the tokenizer beside its ids, so that `scratchbook train` reads them rightly."""
    from scratchbook.runtime import write_atomically
    from scratchbook.training.packed import TOKENIZER

    if file is None:
        (folder / TOKENIZER).unlink(missing_ok=True)
    else:
        write_atomically(folder / TOKENIZER, Path(file).read_bytes())


def _read(path: str) -> list[Document]:
    """A corpus, the text of a file, or all texts of a folder; says what it leaves out.

    Raises:   ValueError when nothing can be read there
    """
    if path.endswith(".jsonl"):
        return load_documents(path)
    documents, skipped = collect(path, clean=clean)
    if not documents:
        raise ValueError(f"{path} holds no document: {_left_out(skipped) or 'no file to read'}")
    if skipped:
        print(f"  left out of {path}: {_left_out(skipped)}")
    return documents


def _left_out(skipped: dict[str, str]) -> str:
    more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    return "; ".join(f"{name} ({reason})" for name, reason in list(skipped.items())[:5]) + more


def _write(path: str, documents: list[Document], more: str = "") -> int:
    save_documents(path, documents)
    print(f"{path}: {len(documents):,} documents, {_size(documents) / 1e6:.2f} MB{more}")
    return 0


def _size(documents: list[Document]) -> int:
    return sum(len(document.text.encode("utf-8")) for document in documents)


def _weights(text: str) -> dict[str, float]:
    try:
        pairs = [weight.split("=") for weight in text.split(",")]
        weights = {name: float(value) for name, value in pairs}
    except ValueError:
        raise ValueError(f"--weights {text}: write name=number, such as code=3,books=1") from None
    if len(weights) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"--weights {text}: {max(names, key=names.count)} is weighted twice")
    if not all(math.isfinite(weight) for weight in weights.values()):
        raise ValueError(f"--weights {text}: a source cannot be repeated for ever; leave out the "
                         "others instead")
    return weights


def _tokenizer(path: str | None) -> tuple:
    """What encodes a text, the size of its vocabulary, and a name that changes with its ids."""
    if path is None:
        return (lambda text: text.encode("utf-8")), 256, "bytes"
    import hashlib

    from scratchbook.cli.tokenizer_commands import load

    tokenizer = load(path)
    name = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return tokenizer.encode_ordinary, tokenizer.vocab_size, name
