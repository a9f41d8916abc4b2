"""The model of any run, plain or adapted, ready to be used.

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scratchbook.evaluation.report import evaluate
from scratchbook.finetuning.bases import open_base
from scratchbook.finetuning.tuning import Adapting, base_left_out
from scratchbook.training.checkpoint import load_checkpoint
from scratchbook.training.identity import read_config
from scratchbook.training.judging import baselines, heading_tests, measure, unreadable
from scratchbook.training.runs import OpenRun, find_checkpoint, open_run


def adapted_run(path: str | Path) -> dict[str, Any] | None:
    """What a folder says of the fine-tuning that it holds; None where the model stands alone.

    A fully fine-tuned model stands alone: its checkpoints hold all of it.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        return None
    found = (read_config(folder)["data"] or {}).get("finetune")
    return None if found is None or found["settings"]["method"] == "full" else found


def open_tuned(path: str | Path, which: str | int = "best") -> OpenRun:
    """Open a run as `open_run` does; where it is a fine-tuning, put it on its base again.

    Raises:   as `open_run` and `open_base`; ValueError when the base has changed since
    Chapter:  chapters/08_lora.ipynb
    """
    run, found = Path(path), adapted_run(path)
    if found is None:
        return open_run(path, which)
    settings = found["settings"] | {"targets": found["settings"]["targets"] and tuple(
        found["settings"]["targets"])}
    adapting = Adapting(**settings)
    base = open_base(found["base"], adapting.quantized)
    if base.sha256() != found["base_sha256"]:
        raise ValueError(f"{found['base']} is not the base that {run} was tuned on: its weights "
                         "have changed. Put those back")
    model, checkpoint = adapting.apply(base.model), find_checkpoint(run, which)
    with base_left_out(model):
        state = load_checkpoint(checkpoint, model)
    return OpenRun(model.requires_grad_(False).eval(), base.tokenizer, read_config(run),
                   state["step"], checkpoint)


def measure_tuned(run: str | Path, which: str | int, texts: dict[str, str], tests: bool = True
                  ) -> dict[str, Any]:
    """Evaluate a run as `measure` does, an adapted one on its base.

    Raises:   as `open_tuned`; ValueError when the tokenizer can encode none of the texts
    """
    if adapted_run(run) is None:
        return measure(run, which, texts, tests)
    opened = open_tuned(run, int(which) if str(which).isdecimal() else which)
    refused = unreadable(opened.tokenizer, texts)
    texts = {name: text for name, text in texts.items() if name not in refused}
    if not texts:
        raise ValueError("this tokenizer can encode none of the texts: give one with --text FILE")
    result = evaluate(opened.model, opened.tokenizer, texts, tests, baselines() if tests else None)
    result |= heading_tests(opened, texts)
    return {"run": Path(run).resolve().name, "step": opened.step} | result
