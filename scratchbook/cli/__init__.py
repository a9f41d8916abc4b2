"""The command `scratchbook`: run chapters, train models, see what this machine can do.

Every mistake of the user ends in one clear line and exit status 2, never in a traceback.
"""

import argparse
import importlib
import sys

from scratchbook import __version__
from scratchbook.cli.corpus_commands import add_corpus_commands
from scratchbook.cli.evaluation_commands import add_evaluation_commands
from scratchbook.cli.finetuning_commands import add_finetuning_commands
from scratchbook.cli.launch_commands import add_launch_commands
from scratchbook.cli.planning_commands import add_planning_commands
from scratchbook.cli.serving_commands import add_serving_commands
from scratchbook.cli.smalltalk_commands import add_smalltalk_commands
from scratchbook.cli.training_commands import add_training_commands
from scratchbook.cli.view_commands import add_view_commands
from scratchbook.cli.writing_commands import add_writing_commands
from scratchbook.runtime import saying_new_names

EXTRAS = {"optuna": "training", "yaml": "training", "tensorboard": "tracking",
          "wandb": "tracking", "datasets": "hub", "streamlit": "streamlit", "fastapi": "serve",
          "uvicorn": "serve", "jinja2": "serve", "prometheus_client": "serve",
          "starlette": "serve", "pydantic": "serve",
          "gguf": "export"}  # every other package: "notebooks"
GUIDE = """\
examples
  scratchbook list                                  the chapters, their times, their last run
  scratchbook run 01                                run chapter 01 in its quick profile
  scratchbook run attention --profile full          a chapter by a word of its title, full size
  scratchbook run 01 -p SEED=3                      with another value for a parameter
  scratchbook doctor                                what this machine can run
  scratchbook results                               recorded results, and which are out of date
  scratchbook tokenizer train --vocab 8192          a tokenizer.json from Python's own texts
  scratchbook tokenizer verify tokenizer.json       the same ids as the `tokenizers` library?
  scratchbook tokenizer quality tokenizer.json      characters per token on text it has not seen
  scratchbook sizes --bandwidth 50                  what each model costs, and its speed at best
  scratchbook model show --config llama-3-8b        the parameters of one, part by part
  scratchbook train --preset shakespeare-char-cpu --out runs/first
  scratchbook launch --nproc 2 train --preset shakespeare-char-cpu --out runs/first
  scratchbook finetune --base base --data pairs.jsonl --out runs/tuned
  scratchbook monitor runs/first --summary          where a run stands, and what is wrong with it
  scratchbook sample runs/first --prompt "To be"    let it write
  scratchbook eval runs/first --all                 how good it is, on the same tests as others
  scratchbook chat runs/first                       give it one beginning after the other
  scratchbook diagnose runs/first                   why it writes gibberish
  scratchbook view smalltalk --text "double ^ self * 2"   what its heads look at, as a page
  scratchbook serve base                            a model behind an API, and a page to chat on
  scratchbook export base ollama --completion       the same model for Ollama
  scratchbook corpus collect --root . --include '*.md'
  scratchbook smalltalk collect --output smalltalk  the code that chapter 09 is trained on
  scratchbook smalltalk complete "isEmpty" --class Stack --fields items
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return the exit status.

    0 is success, 1 a run or check that failed, 2 a mistake in the command line, 130 Ctrl-C.
    """
    top = parser()
    options, options.settings = _parse(top, arguments)
    module = importlib.import_module(f"scratchbook.cli.{options.module}")
    try:
        return getattr(module, options.action)(options)
    except (ValueError, OSError, ModuleNotFoundError, RuntimeError) as error:
        print(f"scratchbook: {explain(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nscratchbook: stopped", file=sys.stderr)
        return 130


def _parse(top: argparse.ArgumentParser, arguments: list[str] | None):
    """The known options, and those that only a recipe knows (--train.lr 3e-4)."""
    options, settings = top.parse_known_args(arguments)
    if settings and not getattr(options, "takes_settings", False):
        top.error(saying_new_names(f"unrecognized arguments: {' '.join(settings)}"))
    return options, settings


def explain(error: Exception) -> str:
    """What went wrong and the way out, without a traceback."""
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get(error.name, "notebooks")
        return (f"the package {error.name!r} is missing. Way out: "
                f"pip install 'scratchbook[{extra}]'")
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror.lower()}{where}"
    return str(error) or type(error).__name__


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=96)


def parser() -> argparse.ArgumentParser:
    """The whole command line; the modules behind it are imported only when they are needed."""
    top = argparse.ArgumentParser(prog="scratchbook", description=__doc__.splitlines()[0],
                                  epilog=GUIDE, formatter_class=_Help)
    top.add_argument("--version", action="version", version=f"scratchbook {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_chapter_commands(commands)
    _add_doctor_and_results(commands)
    tokenizer = commands.add_parser("tokenizer", formatter_class=_Help,
                                    help="train, verify or judge a byte-pair tokenizer")
    _add_tokenizer_commands(tokenizer.add_subparsers(metavar="ACTION", required=True))
    model = commands.add_parser("model", formatter_class=_Help, help="look at one model")
    _add_model_commands(commands, model.add_subparsers(metavar="ACTION", required=True))
    add_training_commands(commands, _add)
    add_finetuning_commands(commands, _add)
    add_planning_commands(commands, _add)
    add_launch_commands(commands, _add)
    add_corpus_commands(commands)
    add_evaluation_commands(commands, _add)
    add_writing_commands(commands, _add)
    add_view_commands(commands, _add)
    add_serving_commands(commands, _add)
    add_smalltalk_commands(commands)
    return top


def _add(commands, name: str, module: str, action: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text, formatter_class=_Help)
    command.set_defaults(module=module, action=action)
    return command


def _add_chapter_commands(commands) -> None:
    run = _add(commands, "run", "chapter_commands", "run", "run a chapter and print a receipt")
    run.add_argument("chapter", help="its number (01), its file's stem, or a word of its title")
    run.add_argument("--profile", default="quick", help="quick (default) or full")
    run.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE",
                     help="another value for a line of the chapter's parameters cell; repeatable")
    run.add_argument("--threads", type=_positive, metavar="N",
                     help="threads of torch (default: 1 for quick, all cores for full)")
    run.add_argument("--output", metavar="FILE",
                     help="the executed notebook (default: build/runs/NN.PROFILE.ipynb)")
    run.add_argument("--dry-run", action="store_true", help="only say what it would cost")
    listing = _add(commands, "list", "chapter_commands", "list_chapters",
                   "list the chapters with time, status and last run")
    listing.add_argument("--json", action="store_true", help="as JSON")


def _add_doctor_and_results(commands) -> None:
    doctor = _add(commands, "doctor", "chapter_commands", "doctor",
                  "say which chapters and profiles this machine can run, and why not")
    doctor.add_argument("run", nargs="?", help=argparse.SUPPRESS)  # is `diagnose RUN` now
    doctor.add_argument("--json", action="store_true", help="as JSON")
    results = _add(commands, "results", "chapter_commands", "results",
                   "list the recorded results, or show one")
    results.add_argument("name", nargs="?", help="a result's name: shows its numbers")


def _add_tokenizer_commands(actions) -> None:
    train = _add(actions, "train", "tokenizer_commands", "train",
                 "train byte-level BPE and write a tokenizer.json")
    train.add_argument("files", nargs="*", help="text files (default: Python's manual and library)")
    train.add_argument("--vocab", type=_positive, default=8192, help="tokens (default: 8192)")
    train.add_argument("--pattern", default="gpt2", choices=("gpt2", "cl100k", "o200k"),
                       help="how text is split before merging (default: gpt2)")
    train.add_argument("--special", action="append", default=[], metavar="TOKEN",
                       help="a special token such as <|endoftext|>; repeatable")
    train.add_argument("--output", default="tokenizer.json", metavar="FILE")
    verify = _add(actions, "verify", "tokenizer_commands", "verify",
                  "compare our ids with the `tokenizers` library's, and decode them back")
    quality = _add(actions, "quality", "tokenizer_commands", "quality",
                   "measure compression and what is lost, on text it was not trained on")
    quality.add_argument("--at-least", type=float, metavar="X",
                         help="fail when there are fewer characters per token than X")
    quality.add_argument("--json", action="store_true", help="as JSON")
    for command in (verify, quality):
        command.add_argument("tokenizer", help="a tokenizer.json")
        command.add_argument("files", nargs="*", help="text files (default: the part of Python's "
                                                      "manual and library that train leaves out)")


def _add_model_commands(commands, actions) -> None:
    sizes = _add(commands, "sizes", "model_commands", "sizes",
                 "parameters, operations, bytes and best speed of every config")
    sizes.add_argument("--config", action="append", metavar="NAME", help="only this; repeatable")
    sizes.add_argument("--bandwidth", type=_amount, default=50.0, metavar="GB/S",
                       help="memory read per second (default: 50, a laptop; an H200 has 4,800)")
    sizes.add_argument("--context", type=_positive, default=1024, metavar="TOKENS",
                       help="tokens already read (default: 1024)")
    sizes.add_argument("--json", action="store_true", help="as JSON, unrounded")
    show = _add(actions, "show", "model_commands", "show",
                "count one model's parameters, part by part, without allocating them")
    show.add_argument("--config", required=True, metavar="NAME", help="such as llama-3-8b")


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number
