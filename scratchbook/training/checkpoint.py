"""Checkpoints that survive whatever happens: a folder appears whole, or not at all.

Tensors lie in safetensors, everything else in JSON: nothing that is loaded can run code.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from scratchbook.runtime import sha256_of, with_new_names, write_atomically
from scratchbook.training.frozen import base_of, fill, learned

FOLDER = "checkpoints"
MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message names the last good one."""


def save_checkpoint(run: Path, step: int, model: nn.Module, optimizer: Any,
                    state: dict[str, Any], keep_last: int = 2, buffers: bool = True) -> Path:
    """Write RUN/checkpoints/step_NNNNNN and name it in RUN/last; older ones go, the best stays.

    The folder is written under another name, flushed, and renamed in one step. Of a model with
    frozen parameters only what learns is written, with or without its buffers, and the hash of
    every other tensor.

    Raises:   CheckpointError when the disk refuses; what was saved before is untouched
    Chapter:  chapters/06_training.ipynb
    """
    final = folder_of(run, step)
    partial, replaced = (final.with_name(f".{final.name}.{name}")
                         for name in ("partial", "replaced"))
    try:
        for leftover in (partial, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        tensors, scalars = split_state(optimizer.state_dict())
        base = base_of(model, buffers)
        if base is None:
            save_model(model, str(partial / MODEL))  # tied weights are written once
        else:
            save_file(learned(model, buffers), partial / MODEL)
        save_file(tensors, partial / OPTIMIZER)
        hashes = {name: _flushed(partial / name) for name in (MODEL, OPTIMIZER)}
        state = {**state, "step": step, "optimizer": scalars, "sha256": hashes, "base": base}
        write_atomically(partial / "state.json", json.dumps(state, indent=1))
        if final.exists():  # a damaged one, or one to be written anew
            final.rename(replaced)
        partial.rename(final)
        shutil.rmtree(replaced, ignore_errors=True)
        write_atomically(run / "last", final.name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {run}: {error}. Free some "
            f"space and start the same command again: it goes on from "
            f"{_name_of_last(run) or 'the beginning'}") from error
    _remove_old(run, step, keep_last)
    return final


def load_checkpoint(folder: Path, model: nn.Module, optimizer: Any | None = None
                    ) -> dict[str, Any]:
    """Fill a model, and an optimizer if given, from a checkpoint; returns its state.json.

    Raises:   CheckpointError naming the file that is missing, changed or not for this model
    Chapter:  chapters/06_training.ipynb
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        for name in (MODEL,) if optimizer is None else (MODEL, OPTIMIZER):
            if sha256_of(folder / name) != state["sha256"][name]:
                raise CheckpointError(f"{folder / name} has changed since it was written")
        named = _under_its_prefix(model, folder / MODEL)
        if state.get("base") is None:
            load_model(named, str(folder / MODEL))
        else:
            fill(named, load_file(folder / MODEL), state["base"])
        if optimizer is not None:
            tensors = load_file(folder / OPTIMIZER)
            optimizer.load_state_dict(_today(join_state(tensors, state["optimizer"])))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError,
            RuntimeError) as error:  # all that files which were meddled with can lead to
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder} cannot be read: {error}") from error
    return state


def _today(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state as it is called now: older checkpoints name its tensors otherwise."""
    return state | {"state": with_new_names(state["state"])}


def _under_its_prefix(model: nn.Module, file: Path) -> nn.Module:
    """The model as a compiled or a distributed one names its weights, where the file does."""
    with safe_open(file, "pt") as saved:
        shared = os.path.commonprefix(list(saved.keys()))
    prefixes = re.match(r"(?:(?:_orig_mod|module)\.)*", shared)[0].split(".")[:-1]
    for prefix in reversed(prefixes):
        model = nn.ModuleDict({prefix: model})
    return model


def load_newest(run: Path, model: nn.Module, optimizer: Any) -> dict[str, Any] | None:
    """Resume from the newest checkpoint that is whole; None where there is none.

    A damaged one is passed over with a warning, and the one before it is taken.

    Raises:   CheckpointError when there are checkpoints and none can be read
    Chapter:  chapters/06_training.ipynb
    """
    failures = []
    for folder in reversed(checkpoints(run)):
        try:
            state = load_checkpoint(folder, model, optimizer)
        except CheckpointError as error:
            failures.append(error)
            continue
        for error in failures:
            warnings.warn(f"{error}; going on from {folder.name}", stacklevel=2)
        return state
    if failures:
        raise CheckpointError(f"no checkpoint of {run} can be read, the newest because "
                              f"{failures[0]}; to start anew, move the folder away")
    return None


def checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted((folder for folder in (run / FOLDER).glob("step_*")
                   if re.fullmatch(r"step_\d+", folder.name)), key=_step)


def folder_of(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies, or would."""
    return run / FOLDER / f"step_{step:06d}"


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def split_state(state: Any, path: str = "") -> tuple[dict[str, Tensor], Any]:
    """Take the tensors out of nested dicts and lists; a name stands where each was.

    `join_state` puts them back. Keys that are whole numbers are kept as such.
    """
    if isinstance(state, Tensor):
        return {path: state.detach().cpu().clone().contiguous()}, {"tensor": path}
    if isinstance(state, dict):
        items = [(f"{type(key).__name__}:{key}", value) for key, value in state.items()]
        parts = {key: split_state(value, f"{path}/{key}") for key, value in items}
        return ({name: t for found, _ in parts.values() for name, t in found.items()},
                {"dict": {key: rest for key, (_, rest) in parts.items()}})
    if isinstance(state, list | tuple):
        parts = [split_state(value, f"{path}/{i}") for i, value in enumerate(state)]
        kind = "tuple" if isinstance(state, tuple) else "list"
        return ({name: t for found, _ in parts for name, t in found.items()},
                {kind: [rest for _, rest in parts]})
    return {}, {"value": state}


def join_state(tensors: dict[str, Tensor], state: Any) -> Any:
    """Undo `split_state`."""
    (kind, content), = state.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        keys = {key: key.split(":", 1) for key in content}
        return {int(name) if of == "int" else name: join_state(tensors, content[key])
                for key, (of, name) in keys.items()}
    if kind in ("list", "tuple"):
        values = [join_state(tensors, value) for value in content]
        return tuple(values) if kind == "tuple" else values
    return content


def _flushed(path: Path) -> str:
    """Make sure that a file is on the disk, and say what is in it."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return sha256_of(path)


def _name_of_last(run: Path) -> str | None:
    found = checkpoints(run)
    return found[-1].name if found else None


def _remove_old(run: Path, step: int, keep_last: int) -> None:
    """Later checkpoints than `step` are damaged ones that were passed over: they do not count."""
    best = run / "best"
    best_name = best.read_text(encoding="utf-8") if best.is_file() else None
    older = [folder for folder in checkpoints(run) if _step(folder) <= step]
    for folder in older[:-keep_last]:
        if folder.name != best_name:
            shutil.rmtree(folder, ignore_errors=True)
