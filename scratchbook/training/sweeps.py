"""Trying settings: many short runs of one recipe, and which of them was best.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scratchbook.training.loop import train
from scratchbook.training.recipes import Recipe, load_recipe

SAMPLERS = ("grid", "random", "tpe")


def sweep(objective: Callable[[Any, dict[str, Any]], float], space: dict[str, Any],
          trials: int = 20, sampler: str = "random", halving: bool = False, seed: int = 0
          ) -> list[tuple[dict[str, Any], float]]:
    """Call `objective(trial, values)` with values from `space`; (values, result), best first.

    A name of the space has a list of choices, or {"low", "high", "log"}. "grid" tries every
    combination of lists, "random" draws, "tpe" draws near what went well. With `halving`, runs
    that fall behind at equal steps are ended early (successive halving); they are left out.

    Raises:   ValueError for an unknown sampler, or a grid over a range
    Chapter:  chapters/06_training.ipynb
    """
    import optuna

    if sampler not in SAMPLERS:
        raise ValueError(f"sampler={sampler!r} is unknown; choose one of {', '.join(SAMPLERS)}")
    if sampler == "grid":
        if ranges := [name for name, values in space.items() if isinstance(values, dict)]:
            raise ValueError(f"a grid needs lists; {', '.join(ranges)} is a range")
        made, trials = optuna.samplers.GridSampler(space, seed=seed), None
    else:
        kinds = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
        made = kinds[sampler](seed=seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.SuccessiveHalvingPruner() if halving else optuna.pruners.NopPruner()
    study = optuna.create_study(sampler=made, pruner=pruner)
    study.optimize(lambda trial: objective(trial, _draw(trial, space)), n_trials=trials)
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    return sorted(((t.params, t.value) for t in done), key=lambda pair: pair[1])


def _draw(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    return {name: trial.suggest_float(name, **values) if isinstance(values, dict)
            else trial.suggest_categorical(name, values) for name, values in space.items()}


def recipe_objective(base: Recipe) -> Callable[[Any, dict[str, Any]], float]:
    """An objective for `sweep`: the best validation loss of a recipe with options changed.

    The names of the space are those of the command line: "train.lr", "model.d_model", ...
    """
    import optuna

    def objective(trial: Any, values: dict[str, Any]) -> float:
        options = [f"--{name}={value}" for name, value in values.items()]
        recipe = load_recipe(options, base)
        data, tokenizer = recipe.build_data()
        recipe = recipe.with_vocabulary(tokenizer.vocab_size)
        sink = _Pruning(trial, optuna.TrialPruned)
        return train(recipe.build_model(), data, recipe.train, sinks=(sink,)).progress.best_loss

    return objective


class _Pruning:
    def __init__(self, trial: Any, pruned: type[Exception]):
        self.trial, self.pruned = trial, pruned

    def write(self, entry: dict[str, Any]) -> None:
        if "validation_loss" in entry:
            self.trial.report(entry["validation_loss"], entry["step"])
            if self.trial.should_prune():
                raise self.pruned
