"""The command cost: what a run takes, before it starts."""

from __future__ import annotations

import argparse


def add_planning_commands(commands, add) -> None:
    """Hang this file's command into the command line; `add` is `scratchbook.cli`'s helper."""
    cost = add(commands, "cost", "planning_commands", "cost",
               "tokens, operations, memory and hours of a run before it starts; takes the "
               "settings of train")
    cost.set_defaults(takes_settings=True)
    cost.add_argument("--preset", help="a recipe, such as code-27m")
    cost.add_argument("--config", metavar="FILE", help="a YAML file with model, data, train")
    cost.add_argument("--speed", type=float, action="append", default=[], metavar="TFLOP/S",
                      help="sustained on another machine, in 10^12 operations; repeatable")
    cost.add_argument("--rate", type=float, metavar="$", help="what an hour there costs")
    cost.add_argument("--memory", type=float, metavar="GB", help="say which batch would fit")
    cost.add_argument("--finetune", metavar="NAME", help="what adapting a known model takes "
                      "instead, in full, by LoRA and by QLoRA: llama-3-8b, ...")
    cost.add_argument("--targets", default="q_proj,v_proj", help="of LoRA, or all-linear")
    cost.add_argument("--rank", type=int, default=8, help="of LoRA (default: 8)")
    cost.add_argument("--no-measure", action="store_true", help="do not time three steps here")


def cost(options: argparse.Namespace) -> int:
    """Print what is counted, then hours: measured here, computed elsewhere."""
    from scratchbook.training.planning import (
        largest_batch,
        measured_speed,
        plan,
        training_flops_per_token,
    )
    from scratchbook.training.recipes import RECIPES, load_recipe

    if options.preset is not None and options.preset not in RECIPES:
        raise ValueError(f"preset {options.preset!r} is unknown; known are {', '.join(RECIPES)}")
    given = [*options.speed, options.memory or 1, options.rate or 1]
    if not all(0 < number < float("inf") for number in given):
        raise ValueError("--speed, --rate and --memory must be numbers above 0")
    file = ["--config", options.config] if options.config else []
    recipe = load_recipe(file + options.settings, RECIPES.get(options.preset))
    if options.finetune is not None:
        return _finetuning(options, recipe)
    found, train, seq_len = plan(recipe), recipe.train, recipe.data.seq_len
    per_token = training_flops_per_token(recipe.model, seq_len)
    print(f"{found.parameters:,} parameters, {train.max_steps:,} steps of {train.batch_size} x "
          f"{seq_len} tokens: {found.tokens:,} tokens")
    print(f"operations  {found.flops:.2e}, {per_token / found.parameters:.1f} for each parameter "
          "and token")
    parts = ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in found.memory.items())
    print(f"memory      {sum(found.memory.values()) / 1e6:,.0f} MB: {parts}")
    if options.memory:
        rows = largest_batch(recipe.model, seq_len, int(options.memory * 1e9), train.optimizer,
                             train.precision, train.activation_checkpointing)
        print(f"            {rows:,} rows would fit into {options.memory:g} GB")
    if not options.no_measure:
        speed = measured_speed(recipe)
        print(f"here        {_duration(found.tokens / speed)} of a processor, measured in three "
              f"steps: {speed:,.0f} tokens/s, {speed * per_token / 1e12:.3f} TFLOP/s")
    for speed in options.speed:
        hours = found.hours(speed * 1e12)
        price = f", ${hours * options.rate:,.2f}" if options.rate else ""
        print(f"computed    {_duration(3600 * hours)}{price} at {speed:g} TFLOP/s, sustained")
    return 0


def _finetuning(options: argparse.Namespace, recipe) -> int:
    """Print bytes, and hours where a speed is given; nothing is measured here."""
    from scratchbook.accounting import total_parameters
    from scratchbook.config import PRESETS
    from scratchbook.finetuning.ledger import ways_to_tune
    from scratchbook.training.planning import training_flops_per_token

    if options.finetune not in PRESETS:
        raise ValueError(f"model {options.finetune!r} is unknown; known are {', '.join(PRESETS)}")
    config, train, seq_len = PRESETS[options.finetune], recipe.train, recipe.data.seq_len
    targets = options.targets if options.targets == "all-linear" else options.targets.split(",")
    rows = -(-train.batch_size // train.grad_accum_steps)
    print(f"{options.finetune}: {total_parameters(config):,} parameters; {train.max_steps:,} steps "
          f"of {train.batch_size} x {seq_len} tokens, read {rows} at a time")
    tokens = train.max_steps * train.batch_size * seq_len
    for way, parts in ways_to_tune(config, rows, seq_len, targets, options.rank).items():
        learned = parts.pop("learned")
        sizes = ", ".join(f"{name} {size / 1e9:,.2f}" for name, size in parts.items())
        size = sum(parts.values())
        fits = "" if not options.memory else (
            ", fits" if size <= options.memory * 1e9 else ", does not fit")
        print(f"{way:11} {size / 1e9:,.1f} GB{fits}: {sizes}; {learned:,} numbers learn")
        # a frozen matrix needs no gradient of its own: two products instead of three
        flops = tokens * training_flops_per_token(config, seq_len) * (1 if way == "full" else 2 / 3)
        for speed in options.speed:
            hours = flops / (speed * 1e12) / 3600
            price = f", ${hours * options.rate:,.2f}" if options.rate else ""
            print(f"            {_duration(3600 * hours)}{price} at {speed:g} TFLOP/s, sustained")
    return 0


def _duration(seconds: float) -> str:
    for name, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:.1f} seconds"
