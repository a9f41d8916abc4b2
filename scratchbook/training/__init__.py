"""Training a model: the loop, its optimizers and schedules, checkpoints that nothing destroys.

Chapter:  chapters/06_training.ipynb
"""

from scratchbook.training.checkpoint import CheckpointError
from scratchbook.training.logs import ProgressBar, TensorBoardLogger, WandbLogger, read_log
from scratchbook.training.loop import (
    Diverged,
    Trained,
    accumulate,
    activation_checkpointing,
    evaluate,
    train,
)
from scratchbook.training.runs import ByteTokenizer, OpenRun, open_run
from scratchbook.training.settings import TrainConfig

__all__ = [
    "ByteTokenizer",
    "CheckpointError",
    "Diverged",
    "OpenRun",
    "ProgressBar",
    "TensorBoardLogger",
    "TrainConfig",
    "Trained",
    "WandbLogger",
    "accumulate",
    "evaluate",
    "open_run",
    "read_log",
    "activation_checkpointing",
    "train",
]
