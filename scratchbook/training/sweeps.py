"""Trying settings: many short runs of one recipe, and which of them was best.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from scratchbook.training.loop import Diverged, train
from scratchbook.training.recipes import Recipe, load_recipe

SAMPLERS = ("grid", "random", "tpe")


def sweep(objective: Callable[[Any, dict[str, Any]], float], space: dict[str, Any],
          trials: int = 20, sampler: str = "random", halving: bool = False, seed: int = 0
          ) -> list[tuple[dict[str, Any], float]]:
    """Call `objective(trial, values)` with values from `space`; (values, result), best first.

    A name of the space has a list of choices, or {"low", "high", "log"}. "grid" tries every
    combination of lists, "random" draws, "tpe" draws near what went well. With `halving`, runs
    that fall behind at equal steps are ended early (successive halving); they are left out, as
    are runs that diverge.

    Raises:   ValueError for an unknown sampler, a space without values, a grid over a range
    Chapter:  chapters/06_training.ipynb
    """
    import optuna

    if sampler not in SAMPLERS:
        raise ValueError(f"sampler={sampler!r} is unknown; choose one of {', '.join(SAMPLERS)}")
    space = _checked(space)
    if not isinstance(trials, int) or trials < 1:
        raise ValueError(f"trials={trials!r} must be a whole number from 1")
    if sampler == "grid":
        if ranges := [name for name, values in space.items() if isinstance(values, dict)]:
            raise ValueError(f"a grid needs lists; {', '.join(ranges)} is a range")
        made, trials = optuna.samplers.GridSampler(space, seed=seed), None
    else:
        kinds = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
        made = kinds[sampler](seed=seed)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.SuccessiveHalvingPruner() if halving else optuna.pruners.NopPruner()
    study = optuna.create_study(sampler=made, pruner=pruner)
    study.optimize(lambda trial: objective(trial, _draw(trial, space)), n_trials=trials)
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    return sorted(((t.params, t.value) for t in done), key=lambda pair: pair[1])


def _checked(space: dict[str, Any]) -> dict[str, Any]:
    """The space with numbers in its ranges: YAML reads 1e-4 as a word."""
    if not space:
        raise ValueError("the space of a sweep is empty: name settings and their values")
    ready = {}
    for name, values in space.items():
        try:
            if isinstance(values, dict):
                values = values | {"low": float(values["low"]), "high": float(values["high"])}
            known = isinstance(values, list) or set(values) <= {"low", "high", "log"}
        except (KeyError, TypeError, ValueError):
            known = False
        if not known or not values:
            raise ValueError(f"{name}: {values!r} is neither a list of values nor a range such as "
                             "{low: 1e-4, high: 1e-1, log: true}")
        ready[name] = values
    return ready


def _draw(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    return {name: trial.suggest_float(name, **values) if isinstance(values, dict)
            else trial.suggest_categorical(name, values) for name, values in space.items()}


def recipe_objective(base: Recipe) -> Callable[[Any, dict[str, Any]], float]:
    """An objective for `sweep`: the best validation loss of a recipe with options changed.

    The names of the space are those of the command line: "train.lr", "model.d_model", ...
    """
    import optuna

    read: dict[Any, Any] = {}  # most trials share their text: it is read and cut up once

    def objective(trial: Any, values: dict[str, Any]) -> float:
        recipe = load_recipe([f"--{name}={_written(value)}" for name, value in values.items()],
                             base)
        wanted = recipe.data, recipe.train.seed, recipe.model.vocab_size
        if wanted not in read:
            read[wanted] = recipe.build_data()
        data, tokenizer = read[wanted]
        recipe = recipe.with_vocabulary(tokenizer.vocab_size)
        logger = _Pruning(trial, optuna.TrialPruned)
        try:
            done = train(recipe.build_model(), data, recipe.train, loggers=(logger,))
        except Diverged as error:
            raise optuna.TrialPruned from error
        return done.progress.best_loss

    return objective


def _written(value: Any) -> str:
    """A value as the command line reads it: null, true, [0.9, 0.95], but words without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


class _Pruning:
    def __init__(self, trial: Any, pruned: type[Exception]):
        self.trial, self.pruned = trial, pruned

    def write(self, entry: dict[str, Any]) -> None:
        if "validation_loss" in entry:
            self.trial.report(entry["validation_loss"], entry["step"])
            if self.trial.should_prune():
                raise self.pruned
