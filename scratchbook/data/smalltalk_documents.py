"""Methods as a model of Smalltalk reads them: never without their class, some with a hole.

A document is a class's definition and as many of its methods as fit into one window, so that every
method that the model reads or writes stands behind the variables that it may use. Of some methods
a stretch is taken out and told last, which teaches to fill in without costing the other direction
much (Bavarian et al.).

Paper:    Bavarian et al. (2022), arXiv:2207.14255, section 4
Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from scratchbook.data.smalltalk_corpus import load_classes, load_methods
from scratchbook.data.token_files import read_tokens, write_tokens
from scratchbook.runtime import sha256_of
from scratchbook.smalltalk import parts, tasks
from scratchbook.smalltalk.preparing import in_style
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer

FILES = {"train": "train.tokens", "validation": "validation.tokens"}
SHORTEST = 32  # tokens of a window
TOKENIZER = "train.tokenizer.json"  # beside train.tokens, where `scratchbook train` looks


def class_documents(
    classes: Iterable[ClassRecord], methods: Sequence[MethodRecord], tokenizer: SmalltalkTokenizer,
    seq_len: int, fill_in_share: float = 0.3, seed: int = 0,
) -> Iterator[list[int]]:
    """The ids of one document after the other, each of at most `seq_len` where a method allows it.

    A class's methods come in an order drawn by its name, so that each is told behind different
    ones; a definition takes at most a third of a window, its comment goes first.

    Raises:   ValueError for a share outside 0..1, or a window too short for a method
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    check_settings(seq_len, fill_in_share)
    known = {(record.project, record.name): record for record in classes}
    for key, own in tasks.methods_by_class(methods).items():
        draw = random.Random(f"{seed} {key}")
        head = head_ids(known.get(key), tokenizer, seq_len)
        document = list(head)
        for record in draw.sample(own, len(own)):
            ids = tokenizer.encode_parts(_method(record, draw, fill_in_share))[0]
            if len(document) + len(ids) >= seq_len and len(document) > len(head):
                yield [*document, tokenizer.special_tokens[parts.END_OF_TEXT]]
                document = list(head)
            document += ids
        yield [*document, tokenizer.special_tokens[parts.END_OF_TEXT]]


def check_settings(seq_len: int, fill_in_share: float) -> None:
    """Refuse what no document can be made of.

    Raises:   ValueError naming the setting
    """
    if not 0 <= fill_in_share <= 1:
        raise ValueError(f"fill_in_share={fill_in_share} is not within 0..1")
    if seq_len < SHORTEST:
        raise ValueError(f"seq_len={seq_len} is too short for methods: at least {SHORTEST}")


def files_of(corpus: Path) -> dict[str, Path]:
    """The files of a prepared corpus that are read: methods of each split, and the classes.

    Raises:   FileNotFoundError for a folder that prepare did not write
    """
    found = {split: corpus / f"{split}.jsonl" for split in FILES}
    found["classes"] = corpus / "classes.jsonl"
    for path in found.values():
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: first run scratchbook smalltalk prepare")
    return found


def head_of(record: ClassRecord) -> list[parts.Part]:
    """The definition of a class between its boundaries, as every document begins."""
    return [parts.special(parts.CLASS), parts.Part(tasks.definition_of(record)),
            parts.special(parts.END)]


def head_ids(record: ClassRecord | None, tokenizer: SmalltalkTokenizer, seq_len: int
             ) -> list[int]:
    """A definition that fits into a third of a window: with its comment, without it, or none."""
    if record is None:
        return []
    bare = ClassRecord(record.name, record.superclass, record.instance_variables,
                       record.class_variables, category=record.category, is_trait=record.is_trait)
    for each in (record, bare):
        ids = tokenizer.encode_parts(head_of(each))[0]
        if len(ids) <= seq_len // 3:
            return ids
    return []


def _method(record: MethodRecord, draw: random.Random, share: float) -> list[parts.Part]:
    """A method between its boundaries, or with a stretch of it told last."""
    if draw.random() >= share or len(record.source) < 20:
        return tasks.method_parts(record)
    first, last = sorted(draw.sample(range(len(record.source) + 1), 2))
    side = parts.CLASS_METHOD if record.class_side else parts.METHOD
    return [parts.special(side), parts.special(parts.PREFIX), parts.Part(record.source[:first]),
            parts.special(parts.SUFFIX), parts.Part(record.source[last:]),
            parts.special(parts.MIDDLE), parts.Part(record.source[first:last]),
            parts.special(parts.END)]


def pack_smalltalk(corpus: str | Path, output: str | Path, tokenizer: SmalltalkTokenizer,
                   seq_len: int, fill_in_share: float = 0.3, seed: int = 0) -> dict[str, int]:
    """Write what `scratchbook train` reads from a folder of `scratchbook smalltalk prepare`.

    A file that was made of the same corpus by the same tokenizer and settings is kept as it is.

    Returns:  the tokens of each part
    Raises:   FileNotFoundError for a folder that prepare did not write
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    check_settings(seq_len, fill_in_share)
    files, output, counts = files_of(Path(corpus)), Path(output), {}
    tokenizer.save(output / TOKENIZER)
    for split, file in FILES.items():
        sources = [output / TOKENIZER, files[split], files["classes"]]
        made_by = " ".join([*map(sha256_of, sources), f"{seq_len} {fill_in_share} {seed}"])
        counts[split] = _kept(output / file, made_by)
        if not counts[split]:
            documents = list(class_documents(
                load_classes(files["classes"], split), load_methods(files[split]), tokenizer,
                seq_len, fill_in_share, seed))
            write_tokens(output / file, documents, tokenizer.vocab_size, made_by)
            counts[split] = sum(map(len, documents))
    return counts


def estimated_tokens(corpus: str | Path, tokenizer: SmalltalkTokenizer, seq_len: int,
                     fill_in_share: float = 0.3, most: int = 400, seed: int = 0) -> int:
    """About how many tokens the training documents have: some classes are laid out and counted.

    Raises:   FileNotFoundError for a folder that prepare did not write
    Chapter:  chapters/09_smalltalk_model.ipynb
    """
    files = files_of(Path(corpus))
    groups = list(tasks.methods_by_class(load_methods(files["train"])).values())
    sizes = [sum(len(record.source) for record in own) for own in groups]
    chosen = random.Random(seed).sample(range(len(groups)), min(most, len(groups)))
    methods = [record for at in chosen for record in groups[at]]
    counted = sum(map(len, class_documents(load_classes(files["classes"]), methods, tokenizer,
                                           seq_len, fill_in_share, seed)))
    return round(counted * sum(sizes) / max(1, sum(sizes[at] for at in chosen)))


def _kept(path: Path, made_by: str) -> int:
    """The tokens of a file that was made so, 0 where there is none."""
    try:
        found = read_tokens(path)
    except (FileNotFoundError, ValueError):
        return 0
    return len(found.ids) if found.header["made_by"] == made_by else 0


def in_one_style(methods: Sequence[MethodRecord], most: int = 200) -> bool:
    """Whether the first methods stand in the printer's style, in which the tokenizer learned."""
    return all(in_style(record.source) == record.source for record in methods[:most])
