"""The commands serve and export: models behind an API, with a page; or files for Ollama."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

MODEL = ("base or smalltalk, which ship, the folder of a run or of a published model, or a name "
         "on the hub")


def add_serving_commands(commands, add) -> None:
    """Hang this file's commands into the command line; `add` is `scratchbook.cli`'s helper."""
    serve = add(commands, "serve", "serving_commands", "serve",
                "serve models to OpenAI's and Ollama's clients, with a page to chat on")
    serve.add_argument("model", nargs="+",
                       help=f"{MODEL}; of several a request picks one by its name")
    export = add(commands, "export", "serving_commands", "export",
                 "write a model's weights and a Modelfile for Ollama")
    export.add_argument("model", help=MODEL)
    export.add_argument("folder", help="where model.gguf and Modelfile are written")
    export.add_argument("--kind", default="F16", help="of the weights: F32, F16 (default), Q8_0, "
                                                      "Q4_0")
    export.add_argument("--completion", action="store_true",
                        help="prompts go to the model as they are: for one that never learned to "
                             "talk, such as base")
    for command in (serve, export):
        command.add_argument("--checkpoint", default="best",
                             help="of a run: best (default), last, a step")
    serve.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1; any other needs a "
                                                           "key)")
    serve.add_argument("--port", type=int, default=8000, help="(default: 8000; 0 takes a free one)")
    serve.add_argument("--key-file", metavar="FILE", help="the API key that clients must send "
                                                          "(default: SCRATCHBOOK_API_KEY, or none)")
    serve.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN",
                       help="a site whose pages may ask this server; repeatable")
    serve.add_argument("--max-batch", type=int, default=8, metavar="N",
                       help="answers that are written at once (default: 8)")
    serve.add_argument("--max-open", type=int, default=64, metavar="N",
                       help="answers at work or in the line; more are sent away (default: 64)")
    serve.add_argument("--max-tokens", type=int, default=4096, metavar="N",
                       help="of an answer (default: 4096, or what the window holds)")


def serve(options: argparse.Namespace) -> int:
    """Open the models, say where they are, serve until a signal."""
    from scratchbook.serving.answering import Limits
    from scratchbook.serving.app import Server, Settings, create_app
    from scratchbook.serving.served import open_served
    from scratchbook.serving.top_tokens import TopEngine

    key = os.environ.get("SCRATCHBOOK_API_KEY") or None
    if options.key_file:
        key = Path(options.key_file).read_text(encoding="utf-8").strip()
    if min(options.max_batch, options.max_open, options.max_tokens) < 1:
        raise ValueError("--max-batch, --max-open and --max-tokens must be at least 1")
    settings = Settings(options.host, options.port, key, options.allow_origin,
                        Limits(options.max_tokens), options.max_open)
    opened = [open_served(name, options.checkpoint) for name in options.model]
    (first, engine), *more = [(each, TopEngine(each.model, max_batch=options.max_batch))
                              for each in opened]
    names = "; ".join(f"{each.name}, window {each.window}" for each in opened)
    Server(create_app(first, engine, settings, more), settings, lambda url: print(
        f"{names}: chat at {url}/, OpenAI's API at {url}/v1, Ollama's at {url}; Ctrl-C ends",
        flush=True)).run()
    return 0


def export(options: argparse.Namespace) -> int:
    """Write the files, and say what Ollama does with them."""
    import gguf  # noqa: F401  so that it is missed before a model is opened

    from scratchbook.serving.modelfile import export_ollama
    from scratchbook.serving.served import open_served

    served = open_served(options.model, options.checkpoint)
    weights, text = export_ollama(served, options.folder, options.kind, options.completion)
    print(f"{weights}  {weights.stat().st_size:,} bytes, {options.kind}\n{text}\n"
          f"ollama create {served.name.split('/')[-1]} -f {text}")
    return 0
