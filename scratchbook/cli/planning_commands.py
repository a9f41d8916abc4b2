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


def _duration(seconds: float) -> str:
    for name, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:.1f} seconds"
