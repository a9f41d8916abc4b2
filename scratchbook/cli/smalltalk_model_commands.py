"""`scratchbook smalltalk pack` and `train`: from methods to a model.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

# sustained: two fifths of the peak in bfloat16, which is twice that of float32, 12.7 TFLOP/s
GPUS = {"RTX 3060, 12 GB": 0.4 * 2 * 12.7e12}


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
    from scratchbook.data.smalltalk_documents import check_settings, files_of
    from scratchbook.smalltalk_model import RECIPES, load_tokenizer
    from scratchbook.training.recipes import load_recipe

    if options.preset not in RECIPES:
        raise ValueError(f"preset {options.preset!r} is unknown; known are {', '.join(RECIPES)}")
    file = ["--config", options.config] if options.config else []
    recipe = load_recipe(file + options.settings, RECIPES[options.preset])
    files_of(Path(options.corpus))
    check_settings(recipe.data.seq_len, options.fill_in)
    print_cost(recipe.with_vocabulary(load_tokenizer(options.tokenizer).vocab_size))
    if options.cost_only:
        return 0
    folder = Path(options.out)
    packed = folder.with_name(f"{folder.name}_tokens")
    pack_smalltalk(argparse.Namespace(**vars(options) | {
        "output": packed, "seq_len": recipe.data.seq_len}))
    recipe = replace(recipe, data=replace(recipe.data, text=str(packed)))
    return training_commands.run_recipe(recipe, options)


def print_cost(recipe) -> None:
    """Tokens, memory, hours here (three steps are timed) and on the GPUs of the table."""
    from scratchbook.training.planning import measured_speed, plan

    found, train = plan(recipe), recipe.train
    size = sum(found.memory.values())
    print(f"{found.parameters:,} parameters, {train.max_steps:,} steps of {train.batch_size} x "
          f"{recipe.data.seq_len}: {found.tokens:,} tokens, {size / 1e9:.1f} GB")
    seconds = found.tokens / measured_speed(recipe)
    print(f"here: {seconds / 60:,.0f} minutes of a processor, measured in three steps")
    for name, speed in GPUS.items():
        print(f"{name}: {60 * found.hours(speed):,.0f} minutes, computed for "
              f"{speed / 1e12:.0f} TFLOP/s sustained")
