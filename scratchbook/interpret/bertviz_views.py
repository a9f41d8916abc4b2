"""bertviz's views over our tensors, offline.

As it ships, bertviz fetches require.js, d3 and jQuery from a remote host, and writes its data
twice, with all digits. Here its own scripts run over a small stand-in for d3 and jQuery, nothing is
fetched, numbers are rounded, and the data stands there once.

Paper:    Vig (2019), arXiv:1906.05714
Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

KINDS = ("head", "model", "neuron")
MOST_TOKENS = 64
STAND_IN = Path(__file__).with_name("bertviz_stand_in.js")
# bertviz knows one theme for two of its views: a dark page turns the picture over, hues kept. Who
# says which theme it is: the book, Colab, JupyterLab, VS Code; else the reader's preference counts.
TURNED = ".sb-bertviz{filter:invert(.92) hue-rotate(180deg)}"
THEMES = ("<style>@media(prefers-color-scheme:dark){html:not([data-theme],[theme]) "
          f"body:not([data-jp-theme-light],[class*=vscode-]) {TURNED}}}"
          ":is(html[data-theme=dark],html[theme=dark],body[data-jp-theme-light=false],"
          f"body.vscode-dark) {TURNED}</style>")
MARKER = re.compile(r"PYTHON_PARAMS; //.*")  # its second occurrence is in the comment


def bertviz_frame(kind: str, tokens: Sequence[str], attention: Tensor,
                  layers: Sequence[int], queries: Tensor | None = None, keys: Tensor | None = None,
                  digits: int = 3, height: int | None = None) -> str:
    """One view of bertviz as an isolated frame that a page or a notebook can show.

    Shapes:   attention (layers, heads, time, time); queries and keys (layers, heads, time,
              head_dim), of which the neuron view alone shows how they meet
    Raises:   ValueError for an unknown view, more than 64 tokens, or a neuron view without them
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    if kind not in KINDS:
        raise ValueError(f"view={kind!r} is unknown; choose one of {', '.join(KINDS)}")
    if len(tokens) > MOST_TOKENS:
        raise ValueError(f"{len(tokens)} tokens: bertviz draws {MOST_TOKENS} at the most, shorten "
                         "the text")
    params = _params(kind, tokens, attention, layers, queries, keys, digits)
    page = (f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>bertviz</title>'
            '<style>:root{color-scheme:light}</style>'
            f'<body style="margin:0;background:#fff">{_controls(kind)}'
            f"<script>{_in_script(STAND_IN.read_text(encoding='utf-8'))}</script>"
            f"<script>{_script(kind, params)}</script></body></html>")
    height = height or {"head": 60 + 23 * len(tokens), "neuron": 190 + 26 * len(tokens)}.get(
        kind, 80 + 30 * len(layers) * max(1, len(tokens) // 8))
    return (f'{THEMES}<iframe class="sb-bertviz" title="bertviz, {kind} view" '
            'sandbox="allow-scripts" loading="lazy" '
            f'style="width:100%;height:{height}px;border:0" '
            f'srcdoc="{html.escape(page, quote=True)}"></iframe>')


def _params(kind: str, tokens: Sequence[str], attention: Tensor, layers: Sequence[int],
            queries: Tensor | None, keys: Tensor | None, digits: int) -> dict:
    tokens, heads = [token.replace("\n", "⏎").replace("\t", "→") for token in tokens], range(
        attention.shape[1])
    data = {"attn": _rounded(attention, digits), "left_text": tokens, "right_text": tokens}
    if kind == "neuron":
        if queries is None or keys is None:
            raise ValueError("the neuron view shows how queries meet keys: give both")
        data |= {"queries": _rounded(queries, digits), "keys": _rounded(keys, digits)}
        return {"attention": {"all": data}, "default_filter": "all", "root_div_id": "bertviz",
                "bidirectional": bool(attention.triu(1).any()), "display_mode": "light",
                "layer": 0, "head": 0}
    shared = {"attention": [{"name": None} | data], "default_filter": "0",
              "root_div_id": "bertviz", "include_layers": list(layers)}
    if kind == "head":
        return shared | {"layer": layers[0], "heads": None}
    return shared | {"display_mode": "light", "include_heads": list(heads),
                     "total_heads": len(heads)}


def _rounded(x: Tensor, digits: int) -> list:
    def short(part: list | float) -> list | float:
        if isinstance(part, list):
            return [short(each) for each in part]
        number = round(part, digits)
        return int(number) if number == int(number) else number
    return short(x.tolist())


def _controls(kind: str) -> str:
    """The elements that bertviz's script fills."""
    layer = '<label>Layer: <select id="layer"></select></label> ' if kind != "model" else ""
    head = '<label>Head: <select id="att_head"></select></label>' if kind == "neuron" else ""
    return (f'<div id="bertviz" style="font-family:Helvetica,Arial,sans-serif">'
            f'<span style="user-select:none">{layer}{head}</span><div id="vis"></div></div>')


def _script(kind: str, params: dict) -> str:
    """bertviz's own script with its data, and without the hosts that it would ask."""
    import bertviz

    path = Path(bertviz.__file__).with_name(f"{kind}_view.js")
    source = re.sub(r"https://cdnjs[^']*", "", path.read_text(encoding="utf-8"))
    source = re.sub(r"/\*\*.*?\*/", "", source, count=1, flags=re.DOTALL)
    data = json.dumps(params, ensure_ascii=False, separators=(",", ":"))
    if kind == "neuron":
        return _in_script(f"window.bertviz_params = {data};{source}")
    source, found = MARKER.subn(lambda _: f"{data};", source, count=1)
    if not found:
        raise ValueError(f"bertviz's {path.name} has no place for its data that is known: version "
                         "1.4 was expected")
    return _in_script(source)


def _in_script(source: str) -> str:
    return source.replace("</script", "<\\/script")
