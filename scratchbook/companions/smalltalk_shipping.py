"""How the shipped Smalltalk model is made of a training run, and what it loses on the way.

    scratchbook smalltalk train CORPUS --out RUN
    python -m scratchbook.companions.smalltalk_shipping RUN CORPUS    # ten minutes of a processor

The last checkpoint is rounded in every way of the table; of those whose files fit, the one that
reads unseen projects best is written beside its tokenizer, and the card with it.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.companions.smalltalk_card import write_card
from scratchbook.companions.smalltalk_datasets import some_classes
from scratchbook.compression import quantize, quantize_gptq, save_compressed
from scratchbook.compression.measuring import one_thread
from scratchbook.data.smalltalk_corpus import load_classes, load_methods
from scratchbook.data.smalltalk_documents import FILES, class_documents
from scratchbook.data.token_files import read_tokens
from scratchbook.evaluation.comparing import bootstrap, bound_verdict, verdict_on
from scratchbook.evaluation.perplexity import IGNORED, score_batches
from scratchbook.model import DecoderLM
from scratchbook.runtime import write_atomically
from scratchbook.smalltalk_model import (
    TOKENIZER,
    WEIGHTS,
    load_smalltalk,
    model_folder,
)
from scratchbook.teaching.results import record
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer
from scratchbook.training import read_log
from scratchbook.training.identity import read_config

LIMIT = 6_000_000  # bytes of the whole folder
CARD = 10_000  # of them kept for the card
JUDGED, CALIBRATED, LONG = 4_000, 500, 32  # methods, methods, documents
TABLE = ("token_embedding",)  # the head shares its weight
SUFFICIENT = 0.1  # seconds for a window

Documents = list[list[int]]
Rounding = Callable[[DecoderLM, Sequence[Tensor]], nn.Module]


class Reading(NamedTuple):
    """What a model needs for each document, in bits, and the characters of each."""

    bits: list[float]
    characters: list[int]

    @property
    def bits_per_character(self) -> float:
        """Over all documents together; boundaries cost bits and have no characters."""
        return sum(self.bits) / sum(self.characters)


def all_alike(kind: str, group_size: int, double: bool = False) -> Rounding:
    """Every matrix rounded in the same way."""
    return lambda model, batches: quantize(model, kind, group_size, double=double)


def finer_table(kind: str, group_size: int, double: bool = False, calibrated: bool = False
                ) -> Rounding:
    """The table of tokens, which is the head too, in eight bits; the layers as said."""
    def make(model: DecoderLM, batches: Sequence[Tensor]) -> nn.Module:
        way = partial(quantize_gptq, batches=batches) if calibrated else quantize
        model = way(model, kind=kind, group_size=group_size, double=double, skip=TABLE)
        return quantize(model, "int8", "channel")
    return make


ROUNDINGS: dict[str, Rounding] = {
    **{f"{kind}, groups of {size}": all_alike(kind, size)
       for kind, size in (("int4", 32), ("int4", 64), ("nf4", 32), ("nf4", 64), ("nf4", 128))},
    "nf4, groups of 32, scales rounded too": all_alike("nf4", 32, double=True),
    "table int8, rest int4, groups of 32": finer_table("int4", 32),
    "table int8, rest nf4, groups of 32": finer_table("nf4", 32),
    "table int8, rest nf4, groups of 64": finer_table("nf4", 64),
    "table int8, rest int4 by GPTQ, groups of 32": finer_table("int4", 32, calibrated=True),
    "table int8, rest nf4 by GPTQ, groups of 32": finer_table("nf4", 32, calibrated=True),
    "int8, groups of 64": all_alike("int8", 64),
}


def documents_of(corpus: Path, split: str, tokenizer: SmalltalkTokenizer, seq_len: int,
                 methods: int) -> Documents:
    """Whole methods of classes drawn by chance, laid out as in training, none with a hole."""
    chosen = some_classes(load_methods(corpus / f"{split}.jsonl"), methods)
    classes = load_classes(corpus / "classes.jsonl", split)
    return [ids[:seq_len + 1] for ids in
            class_documents(classes, chosen, tokenizer, seq_len, fill_in_share=0)]


def batches_of(documents: Documents, size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Documents side by side, short ones filled up behind with what counts for nothing."""
    for start in range(0, len(documents), size):
        rows = documents[start:start + size]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        targets = torch.full_like(ids, IGNORED)
        for place, row in enumerate(rows):
            ids[place, :len(row)] = torch.tensor(row)
            targets[place, :len(row) - 1] = torch.tensor(row[1:])
        yield ids[:, :-1], targets[:, :-1]


def read(model: nn.Module, tokenizer: SmalltalkTokenizer, documents: Documents) -> Reading:
    """Bits for each document behind its first token."""
    special = set(tokenizer.special_tokens.values())
    found = score_batches(model, batches_of(documents)).windows
    return Reading([nats / math.log(2) for nats, _ in found],
                   [len(tokenizer.decode([i for i in ids if i not in special]))
                    for ids in documents])


def change(before: Reading, after: Reading) -> dict[str, Any]:
    """Bits per character that rounding costs, its interval from redrawing documents."""
    sizes = before.characters
    found = bootstrap([(b - a) / max(1, n) for a, b, n in zip(before.bits, after.bits, sizes,
                                                              strict=True)], sizes)
    return {**found._asdict(), "verdict": verdict_on(found, "better", "worse")}


def compare_roundings(model: DecoderLM, tokenizer: SmalltalkTokenizer, documents: Documents,
                      calibration: Documents, folder: Path) -> dict[str, dict[str, Any]]:
    """Each way of the table: bytes of its file in `folder`, bits per character, the change."""
    before = read(model, tokenizer, documents)
    batches = [torch.tensor([ids]) for ids in calibration]
    found: dict[str, dict[str, Any]] = {
        "float32": {"bits_per_character": before.bits_per_character,
                    "bytes": 4 * sum(p.numel() for p in model.parameters())}}
    for name, rounding in ROUNDINGS.items():
        small = rounding(copy.deepcopy(model), batches)
        after = read(small, tokenizer, documents)
        path = save_compressed(small, folder / f"{len(found)}.safetensors")
        found[name] = {"bits_per_character": after.bits_per_character,
                       "bytes": path.stat().st_size, "file": path.name,
                       "change": change(before, after)}
    return found


def choose_rounding(found: dict[str, dict[str, Any]], room: int) -> str:
    """Of the files that fit, the one of the model that reads best.

    Raises:   ValueError when none fits
    """
    sizes = {name: row["bytes"] for name, row in found.items() if "file" in row}
    fitting = [name for name, size in sizes.items() if size <= room]
    if not fitting:
        raise ValueError(f"no way of rounding fits into {room:,} bytes; the smallest has "
                         f"{min(sizes.values()):,}: ship a smaller model")
    return min(fitting, key=lambda name: found[name]["bits_per_character"])


@torch.no_grad()
def nats_at(model: DecoderLM, ids: list[int], context: int | None, stride: int = 32) -> Tensor:
    """Nats of every token behind the first, all before it in view, or the last `context` only.

    Shapes:   -> (len(ids) - 1,)
    """
    row, found = torch.tensor([ids]), []
    step = len(ids) if context is None else stride
    for end in range(1, len(ids), step):  # targets end to last
        last = min(end + step, len(ids))
        start = 0 if context is None else max(0, last - 1 - context)
        logits = model(row[:, start:last - 1])[0, end - 1 - start:]  # (targets, vocab)
        found.append(F.cross_entropy(logits, row[0, end:last], reduction="none"))
    return torch.cat(found)


def beyond(model: DecoderLM, documents: Documents, window: int) -> list[dict[str, Any]]:
    """Bits per token in stretches of `window` places: with all in view, with a window's worth."""
    whole, slid = ([nats_at(model, ids, context) / math.log(2) for ids in documents]
                   for context in (None, window))
    rows = []
    for low in range(0, 4 * window, window):
        pairs = [(a[low:low + window].mean().item(), b[low:low + window].mean().item())
                 for a, b in zip(whole, slid, strict=True) if len(a) >= low + window // 2]
        if len(pairs) >= 3:
            cost = bootstrap([a - b for a, b in pairs])
            rows.append({"from": low, "to": low + window, "documents": len(pairs),
                         "all_in_view": sum(a for a, _ in pairs) / len(pairs),
                         "window_in_view": sum(b for _, b in pairs) / len(pairs),
                         "cost": {**cost._asdict(), "verdict": verdict_on(cost, "less", "more")}})
    return rows


def window_seconds(model: DecoderLM, seq_len: int, repeats: int = 20) -> dict[str, Any]:
    """How long a forward pass of one window takes on one thread: the best, the median."""
    ids, spent = torch.arange(seq_len)[None], []
    with one_thread(), torch.no_grad():
        for _ in range(repeats + 1):
            begun = time.perf_counter()
            model(ids)
            spent.append(time.perf_counter() - begun)
    spent = sorted(spent[1:])  # the first one warms up
    return {"tokens": seq_len, "best": spent[0], "median": spent[len(spent) // 2],
            "all": spent, "at_most": SUFFICIENT, "verdict": bound_verdict(
                spent, at_most=SUFFICIENT)}


def account_of(run: Path) -> dict[str, Any]:
    """Of the run: sizes, recipe, steps, tokens, processor seconds, held-out loss as it fell."""
    config, log = read_config(run), read_log(run)
    steps = [entry for entry in log if "tokens" in entry and "loss" in entry]
    packed = run.with_name(f"{run.name}_tokens")  # where `smalltalk train` packs
    return {"model": config["model"], "train": config["train"],
            "seq_len": config["data"]["seq_len"], "steps": steps[-1]["step"],
            "tokens": steps[-1]["tokens"], "cpu_seconds": steps[-1]["cpu_seconds"],
            "validation": [{key: entry[key] for key in ("step", "validation_loss",
                                                        "bits_per_byte")}
                           for entry in log if "validation_loss" in entry],
            "train_tokens": int(read_tokens(packed / FILES["train"]).header["tokens"])}


def corpus_of(folder: Path) -> dict[str, Any]:
    """Of the corpus: sizes and licences of each split, and every source with its commit."""
    account = json.loads((folder / "funnel.json").read_text(encoding="utf-8"))
    splits = {name: {key: split[key] for key in ("methods", "bytes", "methods_by_licence")}
              | {"projects": len(split["bytes_by_project"])}
              for name, split in account["splits"].items()}
    used = {name for split in account["splits"].values() for name in split["bytes_by_project"]}
    sources = [{key: source[key] for key in ("name", "commit", "licence", "split")}
               for source in account["sources"] if source["name"] in used]
    return {"splits": splits, "sources": sources, "audit": account["audit"]}


def ship(run: Path, corpus: Path, folder: Path) -> dict[str, Any]:
    """Write weights and tokenizer into `folder`; what was measured on the way."""
    model, tokenizer = load_smalltalk(run)
    window = model.config.max_seq_len
    judged = documents_of(corpus, "validation", tokenizer, window, JUDGED)
    calibration = documents_of(corpus, "train", tokenizer, window, CALIBRATED)
    size = (run / TOKENIZER).stat().st_size
    with TemporaryDirectory() as place:
        found = compare_roundings(model, tokenizer, judged, calibration, Path(place))
        chosen = choose_rounding(found, LIMIT - CARD - size)
        write_atomically(folder / TOKENIZER, (run / TOKENIZER).read_bytes())
        write_atomically(folder / WEIGHTS, Path(place, found[chosen]["file"]).read_bytes())
    shipped, _ = load_smalltalk(folder)
    reading = read(shipped, tokenizer, judged)
    long = sorted(documents_of(corpus, "validation", tokenizer, 4 * window, JUDGED), key=len)
    long = random.Random(0).sample(long[-4 * LONG:], min(LONG, len(long)))
    return {"run": account_of(run), "corpus": corpus_of(corpus), "limit_bytes": LIMIT,
            "parameters": sum(p.numel() for p in model.parameters()),
            "shipped_config": asdict(shipped.config), "tokenizer_bytes": size,
            "documents": len(judged), "characters": sum(reading.characters),
            "roundings": found, "chosen": chosen,
            "shipped_bits_per_character": reading.bits_per_character,
            "beyond_the_window": beyond(shipped, long, window),
            "window_seconds": window_seconds(shipped, window)}


def lines(numbers: dict[str, Any]) -> list[str]:
    """What was found, in sentences that the numbers write."""
    rows = [f"{name}: {row['bytes']:,} bytes, {row['bits_per_character']:.4f} bits per character"
            + (f" ({row['change']['value']:+.4f}, 95 % {row['change']['low']:+.4f} to "
               f"{row['change']['high']:+.4f}: {row['change']['verdict']})"
               if "change" in row else "") for name, row in numbers["roundings"].items()]
    places = [f"places {row['from']} to {row['to']}: {row['all_in_view']:.2f} bits per token with "
              f"all in view, {row['window_in_view']:.2f} with a window's worth "
              f"({row['cost']['verdict']})" for row in numbers["beyond_the_window"]]
    spent = numbers["window_seconds"]
    return [*rows, f"chosen: {numbers['chosen']}", *places,
            f"a window of {spent['tokens']} tokens takes {1000 * spent['median']:.0f} ms, "
            f"{1000 * spent['at_most']:.0f} at most: {spent['verdict']}"]


def read_options() -> argparse.Namespace:
    """The run, the corpus, and where the files go."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="the folder of `scratchbook smalltalk train`")
    parser.add_argument("corpus", type=Path, help="a folder that `smalltalk prepare` wrote")
    parser.add_argument("--output", type=Path, default=model_folder(), metavar="FOLDER")
    return parser.parse_args()


if __name__ == "__main__":
    options = read_options()
    numbers = ship(options.run, options.corpus, options.output)
    record("09_smalltalk.shipping", numbers, seeds=[0],
           command="python -m scratchbook.companions.smalltalk_shipping RUN CORPUS")
    write_card(options.output)
    print(*lines(numbers), sep="\n")
