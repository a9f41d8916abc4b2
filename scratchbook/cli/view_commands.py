"""The command view: what a model's heads look at in a text, as one page that needs no network.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

MOST_BYTES = 40_000_000  # of a page; a browser takes seconds to open a larger one
FEWEST = 9  # tokens in which the motifs of code can be sought
NONE = "none"
LANGUAGES = ("python", "smalltalk", NONE)


def add_view_commands(commands, add) -> None:
    """Hang this file's command into the command line; `add` is `scratchbook.cli`'s helper."""
    view = add(commands, "view", "view_commands", "view",
               "write a page that shows what a model's heads look at in a text")
    view.add_argument("model", help="base or smalltalk, which ship, or a run's folder")
    text = view.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", help="what the model reads; - takes the standard input")
    text.add_argument("--file", help="a file that it reads")
    view.add_argument("--language", choices=LANGUAGES,
                      help="whose syntax is laid over the text (default: smalltalk for smalltalk, "
                           "python for base, none for a run)")
    view.add_argument("--layers", type=int, nargs="+", metavar="N", help="only these, from 0 on")
    view.add_argument("--checkpoint", default="best", help="of a run: best (default), last, a step")
    view.add_argument("--output", default="attention.html", metavar="FILE",
                      help="(default: attention.html)")
    view.add_argument("--json", metavar="FILE", help="write the view itself, too")


def view(options: argparse.Namespace) -> int:
    """Read the text, run the model over it once, write the page."""
    from scratchbook.interpret import AttentionView
    from scratchbook.runtime import write_atomically
    from scratchbook.teaching.explorer import explorer_page, motif_scores

    text = _text(options)
    model, tokenizer, before, language = _opened(options.model, options.checkpoint)
    language = options.language or language
    seen = AttentionView(model, text, tokenizer, before=before, layers=options.layers)
    seen.name = options.model
    known = None if language == NONE else language
    scores = motif_scores(seen, known) if known and len(seen.ids) >= FEWEST else {}
    page = explorer_page(seen, title=f"What {Path(options.model).name} looks at", language=known,
                         scores=scores)
    size = len(page.encode())
    if size > MOST_BYTES:
        raise ValueError(f"{len(seen.ids)} tokens in {len(seen.layers)} layers make a page of "
                         f"{size / 1e6:.0f} MB: shorten the text, or name some --layers")
    write_atomically(options.output, page)
    print(f"{options.output}: {len(seen.ids)} tokens, {len(seen.layers)} layers of "
          f"{seen.attention.shape[1]} heads, {size / 1e3:.0f} kB; open it in a browser")
    if options.json:
        write_atomically(options.json, seen.to_json())
        print(f"{options.json}: the view, for AttentionView.from_json and the Streamlit app")
    return 0


def _text(options: argparse.Namespace) -> str:
    if options.file:
        return Path(options.file).read_text(encoding="utf-8")
    return sys.stdin.read() if options.text == "-" else options.text


def _opened(name: str, which: str) -> tuple[Any, Any, list[int], str]:
    """A model, its tokenizer, what stands before its texts, and the language it was made for."""
    if name == "smalltalk":
        from scratchbook.smalltalk import parts
        from scratchbook.smalltalk_model import load_smalltalk

        model, tokenizer = load_smalltalk()
        return model, tokenizer, [tokenizer.special_tokens[parts.METHOD]], "smalltalk"
    if name == "base":
        from scratchbook.base_model import END, load_base

        model, tokenizer = load_base()
        return model, tokenizer, [tokenizer.special_tokens[END]], "python"
    from scratchbook.finetuning.opening import open_tuned
    from scratchbook.tokenizers.base import Tokenizer

    if not Path(name).is_dir():
        raise ValueError(f"{name!r} is no model: name base, smalltalk, or the folder of a run")
    opened = open_tuned(name, int(which) if which.isdecimal() else which)
    # a run that reads bytes has no tokenizer of its own
    tokenizer = opened.tokenizer if isinstance(opened.tokenizer, Tokenizer) else None
    return opened.model, tokenizer, [], NONE
