"""The command finetune: adapt a model to examples, cost first."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_finetuning_commands(commands, add) -> None:
    """Hang this file's command into the command line; `add` is `scratchbook.cli`'s helper."""
    tune = add(commands, "finetune", "finetuning_commands", "finetune",
               "adapt a model to examples; says what it costs first, and goes on where it stopped")
    tune.add_argument("--base", required=True, metavar="MODEL",
                      help="the folder of a run or of a published model, a name on the hub, or "
                           "`base`: the model that comes with the package")
    tune.add_argument("--data", required=True, metavar="FILE",
                      help="JSONL: objects with prompt and completion, with instruction, input "
                           "and output, with messages, or with text")
    tune.add_argument("--out", required=True, metavar="DIR", help="the folder of the result")
    tune.add_argument("--validation", metavar="FILE",
                      help="JSONL to validate with (default: a tenth of the data, by prompts)")
    tune.add_argument("--keep", metavar="FILE",
                      help="a text that the base knows: how much of it is forgotten is measured")
    _add_method(tune)
    _add_training(tune)
    tune.add_argument("--merge", action="store_true",
                      help="also write DIR/merged, a plain model without adapter")
    tune.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_method(tune: argparse.ArgumentParser) -> None:
    tune.add_argument("--method", default="lora",
                      help="lora (default), dora, full, ia3, prefix, bottleneck or bitfit")
    tune.add_argument("--rank", type=int, default=8, metavar="R",
                      help="of LoRA; length of a prefix, width of a bottleneck (default: 8)")
    tune.add_argument("--alpha", type=float, metavar="A", help="of LoRA (default: twice the rank)")
    tune.add_argument("--targets", metavar="NAMES",
                      help="layers, such as q_proj,v_proj (LoRA's default) or all-linear")
    tune.add_argument("--dropout", type=float, default=0.0, metavar="P")
    tune.add_argument("--quantize", metavar="KIND",
                      help="pack the frozen base: nf4 (QLoRA), fp4, int4 or int8")


def _add_training(tune: argparse.ArgumentParser) -> None:
    tune.add_argument("--lr", type=float, help="default: 1e-3, and 1e-4 for full")
    tune.add_argument("--max-steps", type=int, metavar="N", help="instead of --epochs")
    tune.add_argument("--epochs", type=float, default=3.0, metavar="N", help="default: 3")
    tune.add_argument("--batch-size", type=int, default=8, metavar="N", help="default: 8")
    tune.add_argument("--max-seq-len", type=int, metavar="N",
                      help="ids of an example (default: 512, or what the model holds)")
    tune.add_argument("--eval-every", type=int, metavar="N", help="default: ten times in all")
    tune.add_argument("--patience", type=int, metavar="N",
                      help="stop after so many evaluations without a better loss")
    tune.add_argument("--seed", type=int, default=0)
    tune.add_argument("--device", default="cpu", help="cpu (default), cuda, mps or auto")


def finetune(options: argparse.Namespace) -> int:
    """Say what it costs, train, and say what came of it."""
    from scratchbook.finetuning.asking import FineTuningRequest, run_request
    from scratchbook.training import ProgressBar

    names = FineTuningRequest.__dataclass_fields__
    request = FineTuningRequest(**{name: getattr(options, name) for name in names})
    loggers: list[ProgressBar] = []

    def bar(steps: int) -> tuple:
        loggers.extend([] if options.quiet else [ProgressBar(steps)])
        return tuple(loggers)

    try:
        done = run_request(request, bar, lambda line: print(line, flush=True))
    finally:
        for logger in loggers:
            logger.close()
    print("\n".join(done), flush=True)
    print(f"try it: scratchbook chat {Path(options.out)}", file=sys.stderr)
    return 0
