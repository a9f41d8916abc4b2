"""Living figures: plain JavaScript that a notebook cell emits and that needs no kernel and no host.

The script of a figure travels with the cell's output, so the figure works on the built page from
`file://`, in JupyterLab and in Colab. `live/common.js` holds what they share.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

LIVE = Path(__file__).resolve().parent / "live"


def _script(name: str) -> str:
    path = LIVE / f"{name}.js"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in LIVE.glob("*.js")))
        raise ValueError(f"no living figure is called {name!r}; there are: {known}")
    # a closing tag inside of a script would end it
    return path.read_text(encoding="utf-8").replace("</script", "<\\/script")


def living_html(name: str, data: object, still: str = "", also: Sequence[str] = ()) -> str:
    """The element, the data and the scripts of one living figure as a single piece of HTML.

    `still` is what stands there when scripts are off: a picture or a table. `also` names scripts
    of other figures that this one computes with.

    Raises:   ValueError when no script of this name exists or the data is not JSON
    """
    try:
        payload = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the data of living figure {name!r} is not JSON: {error}") from None
    payload = payload.replace("<", "\\u003c")
    still = still or '<p class="sb-muted">This figure moves when scripts are allowed.</p>'
    scripts = "\n".join(_script(each) for each in ("common", *also, name))
    return (
        f'<div class="sb-live" data-live="{html.escape(name)}">\n'
        f'<div class="sb-still">{still}</div>\n'
        f'<script type="application/json" class="sb-data">{payload}</script>\n</div>\n'
        f"<script>\n{scripts}\nScratchbook.mountAll();\n</script>")


def living(name: str, data: object, still: str = "", also: Sequence[str] = ()) -> None:
    """Display a living figure: `name` is a script in `scratchbook/teaching/live/`."""
    from IPython.display import HTML, display

    display(HTML(living_html(name, data, still, also)))
