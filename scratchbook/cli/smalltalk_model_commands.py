"""`scratchbook smalltalk pack`, `train` and `complete`: from methods to a model that writes them.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scratchbook.smalltalk.definitions import parse_class
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.lexer import tokenize
from scratchbook.smalltalk.outlines import outline
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.records import ClassRecord

if TYPE_CHECKING:
    from scratchbook.training.recipes import Recipe

# sustained: two fifths of the peak in bfloat16, which is twice that of float32, 12.7 TFLOP/s; and
# the sizes of memory that it is sold with
GPUS = {"RTX 3060": (0.4 * 2 * 12.7e12, (8, 12))}
TIMED = 4096  # tokens of a step that is timed here: a GPU's batch would take a processor minutes
SPARE = 0.85  # of a GPU's memory for the step; the rest is the driver's and lies between blocks


def add_smalltalk_model_commands(add) -> None:
    """Add the actions to `scratchbook smalltalk`; `add(name, text)` makes one of this file."""
    pack = add("pack", "cut a prepared corpus into the documents that train reads")
    pack.add_argument("corpus", help="what prepare --format wrote")
    _add_packing(pack)
    pack.add_argument("--output", default="smalltalk/packed", metavar="FOLDER")
    pack.add_argument("--seq-len", type=int, default=256, metavar="TOKENS")
    train = add("train", "say what it will cost, then train or go on; takes the settings of "
                         "`scratchbook train`")
    train.add_argument("corpus", help="what prepare --format wrote")
    _add_packing(train)
    train.add_argument("--preset", default="small", metavar="RECIPE",
                       help="small (default), 23m or 89m")
    train.add_argument("--config", metavar="FILE", help="YAML with model, data and train")
    train.add_argument("--out", required=True, metavar="RUN", help="the folder of the run")
    train.add_argument("--cost-only", action="store_true", help="do not train")
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    train.set_defaults(takes_settings=True, init_from=None, warm_restart=False, logger=[])
    _add_complete(add("complete", "write the rest of a method"))


def _add_complete(command: argparse.ArgumentParser) -> None:
    command.add_argument("begun", nargs="?", default="", metavar="BEGINNING",
                         help="of the method, such as 'at: index put: value'; - reads it from the "
                              "standard input (default: none)")
    command.add_argument("--class-definition", metavar="TEXT",
                         help="of the method's class, such as \"Object subclass: #Stack "
                              "instanceVariableNames: 'items' classVariableNames: '' package: "
                              "'Demo'\", with or without a comment behind it")
    command.add_argument("--class", dest="class_name", metavar="NAME", help="instead: its name,")
    command.add_argument("--superclass", default="Object", metavar="NAME", help="its superclass,")
    command.add_argument("--fields", default="", metavar="A,B", help="and its variables")
    command.add_argument("--class-side", action="store_true", help="a method of the class itself")
    command.add_argument("--temperature", type=float, default=0.8, metavar="T",
                         help="0 takes the likeliest token (default: 0.8)")
    command.add_argument("--top-k", type=int, metavar="K", help="draw among the K likeliest")
    command.add_argument("--top-p", type=float, metavar="P",
                         help="draw among the likeliest that together reach P")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    command.add_argument("--samples", type=int, default=1, metavar="N",
                         help="methods, each with the next seed (default: 1)")
    command.add_argument("--length", type=int, default=200, metavar="N",
                         help="tokens at most (default: 200)")
    command.add_argument("--constrained", action="store_true",
                         help="only what the parser lets pass")
    command.add_argument("--tree", action="store_true", help="show the parse tree as well")
    command.add_argument("--model", metavar="FOLDER",
                         help="a run, or one of its checkpoints (default: the model that ships)")


def _add_packing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tokenizer", metavar="FILE",
                         help="another tokenizer than the one that ships")
    command.add_argument("--fill-in", type=float, default=0.3, metavar="SHARE",
                         help="of the methods, told with a stretch last (default: 0.3)")


def pack_smalltalk(options: argparse.Namespace) -> int:
    """Write the token files of both splits."""
    from scratchbook.data import smalltalk_documents
    from scratchbook.data.smalltalk_corpus import load_methods
    from scratchbook.smalltalk_model import load_tokenizer

    pack = smalltalk_documents.pack_smalltalk
    counts = pack(options.corpus, options.output, load_tokenizer(options.tokenizer),
                  options.seq_len, options.fill_in)
    for split, count in counts.items():
        print(f"{Path(options.output, split)}.tokens: {count:,} tokens")
    methods = load_methods(Path(options.corpus, "validation.jsonl"))
    if not smalltalk_documents.in_one_style(methods):
        print("  the methods are not in the printer's style, in which the tokenizer learned: "
              "scratchbook smalltalk prepare --format writes them so")
    return 0


def train_smalltalk(options: argparse.Namespace) -> int:
    """Pack the corpus where that was not done, print the cost, train."""
    from scratchbook.cli import training_commands
    from scratchbook.data.smalltalk_documents import check_settings, estimated_tokens, files_of
    from scratchbook.smalltalk_model import RECIPES, load_tokenizer
    from scratchbook.training.recipes import load_recipe

    if options.preset not in RECIPES:
        raise ValueError(f"preset {options.preset!r} is unknown; known are {', '.join(RECIPES)}")
    file = ["--config", options.config] if options.config else []
    recipe = load_recipe(file + options.settings, RECIPES[options.preset])
    files_of(Path(options.corpus))
    check_settings(recipe.data.seq_len, options.fill_in)
    tokenizer = load_tokenizer(options.tokenizer)
    print_cost(recipe.with_vocabulary(tokenizer.vocab_size), estimated_tokens(
        options.corpus, tokenizer, recipe.data.seq_len, options.fill_in))
    if options.cost_only:
        return 0
    folder = Path(options.out)
    packed = folder.with_name(f"{folder.name}_tokens")
    pack_smalltalk(argparse.Namespace(**vars(options) | {
        "output": packed, "seq_len": recipe.data.seq_len}))
    recipe = replace(recipe, data=replace(recipe.data, text=str(packed)))
    return training_commands.run_recipe(recipe, options)


def print_cost(recipe: Recipe, epoch: int) -> None:
    """Tokens, memory, hours here (three steps are timed) and on the GPUs of the table.

    `epoch` is about how many tokens the corpus has.
    """
    from scratchbook.training.planning import measured_speed, plan

    found, train = plan(recipe), recipe.train
    size = sum(found.memory.values()) / 1e9
    print(f"{found.parameters:,} parameters, {train.max_steps:,} steps of {train.batch_size} x "
          f"{recipe.data.seq_len}: {found.tokens:,} tokens, {size:.1f} GB")
    print(f"the corpus has about {epoch / 1e6:,.1f} million tokens: it is read "
          f"{found.tokens / max(1, epoch):.1f} times")
    few = min(train.batch_size, max(1, TIMED // recipe.data.seq_len))
    speed = measured_speed(replace(recipe, train=replace(train, batch_size=few,
                                                         grad_accum_steps=1)))
    print(f"here: {_hours(found.tokens / speed / 3600)} of a processor, "
          f"{_hours(epoch / speed / 3600)} an epoch, measured in three steps of {few} rows")
    for line in gpu_lines(recipe, epoch):
        print(line)


def gpu_lines(recipe: Recipe, epoch: int) -> list[str]:
    """What a recipe needs on each GPU of the table: memory, hours, hours for one epoch."""
    from scratchbook.smalltalk_model import predicted_hours
    from scratchbook.training.planning import plan

    size, lines = sum(plan(recipe).memory.values()) / 1e9, []
    for name, (speed, memories) in GPUS.items():
        fits = ", ".join(f"{'fits' if size <= SPARE * each else 'does not fit'} in {each} GB"
                         for each in memories)
        lines.append(f"{name}: {size:.1f} GB for a step ({fits}), "
                     f"{_hours(predicted_hours(recipe, speed))}, "
                     f"{_hours(predicted_hours(recipe, speed, epoch))} an epoch, computed for "
                     f"{speed / 1e12:.0f} TFLOP/s sustained")
    return lines


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:,.0f} minutes"


def complete_smalltalk(options: argparse.Namespace) -> int:
    """Write methods; status 1 when one of them does not parse, or nothing whole was written."""
    from scratchbook.smalltalk_model import load_smalltalk, write_method

    if options.samples < 1:
        raise ValueError(f"--samples {options.samples}: at least one")
    record = _class_of(options)
    begun = sys.stdin.read() if options.begun == "-" else options.begun
    model, tokenizer = load_smalltalk(options.model)
    good = True
    for number in range(options.samples):
        seed, said = options.seed + number, []
        source = write_method(model, tokenizer, record, begun, options.class_side, options.length,
                              options.temperature, options.top_k, options.top_p, seed,
                              options.constrained, said.append)
        if options.samples > 1:
            print(f"{chr(10) * (number > 0)}{number + 1} of {options.samples}, seed {seed}")
        good = _show(source, options.tree, said) and good
    return 0 if good else 1


def _class_of(options: argparse.Namespace) -> ClassRecord | None:
    """The class that the options tell of, or None."""
    told = options.class_definition
    if told and options.class_name:
        raise ValueError("--class-definition says it all: leave out --class")
    if not told and not options.class_name:
        if options.fields:
            raise ValueError(f"--fields {options.fields} belong to a class: add --class NAME")
        return None
    if not told:
        return ClassRecord(options.class_name, options.superclass,
                           tuple(options.fields.replace(",", " ").split()))
    node = parse_class(told)
    comments = [token.text for token in tokenize(told) if token.kind == "comment"]
    comment = node.comment or (comments[-1][1:-1].replace('""', '"') if comments else "")
    return ClassRecord(node.name, node.superclass, node.instance_variables, node.class_variables,
                       comment=comment, category=node.category, is_trait=node.is_trait)


def _show(source: str, tree: bool, said: Sequence[str]) -> bool:
    """Print a method, and beside it on the standard error what is wrong; whether all is well."""
    if not source:
        print(f"scratchbook: nothing whole was written, {'; '.join(said)}: give more --length, or "
              "another --seed", file=sys.stderr)
        return False
    print(source)
    try:
        found = parse_method(source)
    except SmalltalkSyntaxError as error:
        said = [*said, f"this is no method: {error}"]
        found = None
    if found is not None and tree:
        print("", *outline(found), sep="\n")
    for line in said:
        print(f"scratchbook: {line}", file=sys.stderr)
    return found is not None
