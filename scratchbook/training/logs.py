"""Where a run's numbers go: a file of JSON lines always, other programs on request.

Chapter:  chapters/06_training.ipynb
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from scratchbook.runtime import write_atomically


class Logger(Protocol):
    """Something that is told every line of the log."""

    def write(self, entry: dict[str, Any]) -> None:
        """Take one line: {"step", "loss", "lr", ...} or {"step", "validation_loss", ...}."""
        ...


class JsonLog:
    """RUN/log.jsonl, one JSON object a line; without a folder nothing is written.

    Chapter:  chapters/06_training.ipynb
    """

    def __init__(self, folder: Path | None):
        self.path = None if folder is None else folder / "log.jsonl"

    def __call__(self, entry: dict[str, Any]) -> None:
        """Append one line; it is on its way to the disk when this returns."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def keep_until(self, step: int) -> list[dict[str, Any]]:
        """Drop the lines after `step`: the run goes on from there and writes them again."""
        if self.path is None or not self.path.is_file():
            return []
        kept = [entry for entry in read_log(self.path.parent) if entry["step"] <= step]
        write_atomically(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))
        return kept


def read_log(run: str | Path) -> list[dict[str, Any]]:
    """All lines of a run's log; one that was cut short, or is no entry, is left out.

    Raises:   FileNotFoundError when the folder holds no log
    Chapter:  chapters/06_training.ipynb
    """
    path = Path(run) / "log.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: is {run} the folder of a run?")
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and _is_number(entry.get("step")) and all(
                _is_number(entry[name]) for name in NUMBERS if name in entry):
            entries.append(entry)
    return entries


NUMBERS = ("loss", "validation_loss", "bits_per_byte", "lr", "tokens", "cpu_seconds")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class TensorBoardLogger:
    """Write event files for TensorBoard, which `pip install tensorboard` brings.

    Chapter:  chapters/06_training.ipynb
    """

    def __init__(self, folder: str | Path):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def write(self, entry: dict[str, Any]) -> None:
        """One scalar per number of the line."""
        for name, value in entry.items():
            if name != "step":
                self.writer.add_scalar(name, float(value), entry["step"])
        self.writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self.writer.close()


class WandbLogger:
    """Log to Weights & Biases; offline unless told otherwise, so that no account is needed.

    `wandb sync FOLDER` uploads an offline run later.

    Chapter:  chapters/06_training.ipynb
    """

    def __init__(self, project: str, folder: str | Path, mode: str = "offline"):
        import wandb

        Path(folder).mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("WANDB_SILENT", "true")
        self.run = wandb.init(project=project, dir=str(folder), mode=mode)

    def write(self, entry: dict[str, Any]) -> None:
        """One record per line; the step is a number like the others, as two lines share it."""
        self.run.log(entry)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


class ProgressBar:
    """A bar with loss, bits per byte, tokens per second and the time left (`tqdm`)."""

    def __init__(self, max_steps: int):
        from tqdm.auto import tqdm

        self.bar, self.shown = tqdm(total=max_steps, unit="step"), {}
        self.first: tuple[int, float] | None = None

    def write(self, entry: dict[str, Any]) -> None:
        """Move to the line's step."""
        self.bar.update(entry["step"] - self.bar.n)
        for name, short in (("loss", "loss"), ("bits_per_byte", "bits/byte")):
            if name in entry:
                self.shown[short] = f"{entry[name]:.3f}"
        if "tokens" in entry:
            elapsed = self.bar.format_dict["elapsed"]
            self.first = self.first or (entry["tokens"], elapsed)
            if elapsed > self.first[1]:
                speed = (entry["tokens"] - self.first[0]) / (elapsed - self.first[1])
                self.shown["tokens/s"] = f"{speed:,.0f}"
        self.bar.set_postfix(self.shown)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()
