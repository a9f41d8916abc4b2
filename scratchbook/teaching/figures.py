"""Figures and tables that follow the page's theme and can be read without seeing them.

A figure becomes one inline SVG: its text and axes take the colour of the text around them, so the
same picture serves the light page, the dark page and JupyterLab.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence

from scratchbook.teaching.themes import dressed

# Ink is drawn in a colour that nothing else uses, and replaced by the page's own text colour.
INK = "#010203"
# After Okabe and Ito, moved to mid lightness: each has contrast 3 or more on white and on #121212.
PALETTE = ("#2f7fc1", "#cc6a1d", "#2a9071", "#b8609a", "#8a7a1f", "#6f6bd1", "#c9504c", "#5b8a3a")


def palette() -> list[str]:
    """Eight colours for the colour-blind that stay readable on white and on black."""
    return list(PALETTE)


def use_style() -> None:
    """Set matplotlib up for the book: theme-aware ink, no frame, the palette, 6.4 by 3.4 inches."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    ink = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor",
                         "xtick.color", "ytick.color"), INK)
    plt.rcParams.update(ink | {
        "figure.figsize": (6.4, 3.4), "figure.facecolor": "none", "axes.facecolor": "none",
        "savefig.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=PALETTE), "axes.titlesize": 11, "axes.labelsize": 10,
        "legend.frameon": False, "legend.fontsize": 9, "font.size": 10, "image.cmap": "viridis",
        "svg.fonttype": "path", "grid.color": INK, "grid.alpha": 0.15, "lines.linewidth": 1.8,
    })


def figure_svg(figure, alt: str) -> str:
    """One matplotlib figure as an SVG element with a label for screen readers.

    Raises:   ValueError when the alternative text is empty
    """
    import matplotlib as mpl

    if not alt.strip():
        raise ValueError("a figure needs alt text: say what its data shows, with the numbers")
    buffer = io.StringIO()
    # without a salt of its own, two figures of a page would share the ids of their clip paths
    with mpl.rc_context({"svg.hashsalt": alt}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg"):].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    width = re.search(r'width="([\d.]+)pt"', svg)[1]
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt" width="[\d.]+pt"', "", svg,
                 count=1)
    svg = _own_ids(_compact(svg), alt)
    label = html.escape(" ".join(alt.split()), quote=True)
    style = f"width:100%;max-width:{float(width) * 1.25:.0f}px;height:auto"
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}" style="{style}"', 1)


def _compact(svg: str) -> str:
    """The same picture in fewer bytes: no comments, line breaks or names that nothing refers to,
    places to a hundredth, images of few colours with a palette."""
    def rounded(text: re.Match) -> str:
        return re.sub(r"\d+\.\d{2,}", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."),
                      text[0])

    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(?<=base64,)[^"]*', lambda image: _few_colours("".join(image[0].split())), svg)
    svg = re.sub(r'(?<= d=")[^"]*', rounded, svg)
    svg = re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"\s*([A-Za-z])\s*", r"\1", path[0]), svg)
    svg = re.sub(r' (?:x|y|width|height|viewBox)="[^"]*"|translate\([^)]*\)|stroke-width: [\d.]+',
                 rounded, svg)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda name: name[0] if name[1] in used else "", svg)
    return re.sub(r"\s*\n\s*", " ", svg)


def _few_colours(image: str) -> str:
    """A PNG in base64 of at most 256 colours, with a palette where that is smaller; not one pixel
    changes."""
    import base64

    import numpy as np
    from PIL import Image

    whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGBA"))
    colours, places = np.unique(whole.reshape(-1, 4), axis=0, return_inverse=True)
    if len(colours) > 256:
        return image
    few = Image.frombytes("P", whole.shape[1::-1], places.astype(np.uint8).tobytes())
    few.putpalette(colours[:, :3].tobytes())
    buffer = io.BytesIO()
    few.save(buffer, "PNG", optimize=True, transparency=colours[:, 3].tobytes())
    return min(base64.b64encode(buffer.getvalue()).decode(), image, key=len)


def _own_ids(svg: str, salt: str) -> str:
    """Rename ids such as figure_1, which all figures of a page would otherwise share."""
    import hashlib

    prefix = "f" + hashlib.sha256(salt.encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    return re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg)


def show(figure, alt: str, caption: str = "") -> None:
    """Display a matplotlib figure as inline SVG and close it.

    `alt` is built from the data, so that it says what this run found. The caption is for everyone;
    what stands in backticks there is set as code.
    """
    import matplotlib.pyplot as plt
    from IPython.display import HTML, display

    said = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(caption))
    below = f"<figcaption>{said}</figcaption>" if caption else ""
    drawn = figure_svg(figure, alt)
    display(HTML(dressed(f'<figure class="sb-figure">{drawn}{below}</figure>')))
    plt.close(figure)


def _cell(value: object, digits: int) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return html.escape(str(value))


def table_html(rows: Sequence[Mapping[str, object]], caption: str = "", digits: int = 3) -> str:
    """Rows of equal keys as an HTML table inside a box that scrolls by itself on a phone.

    Raises:   ValueError when there are no rows, or when rows have different keys
    """
    rows = list(rows)
    if not rows or any(list(row) != list(rows[0]) for row in rows):
        raise ValueError("a table needs one row or more, all with the same keys in the same order")
    head = "".join(f'<th scope="col">{html.escape(str(key))}</th>' for key in rows[0])
    body = ""
    for row in rows:
        cells = "".join(
            f'<td class="{"sb-number" if isinstance(v, int | float) else "sb-text"}">'
            f"{_cell(v, digits)}</td>" for v in row.values())
        body += f"<tr>{cells}</tr>"
    label = html.escape(caption or "table", quote=True)
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return (f'<div class="sb-table" tabindex="0" role="region" aria-label="{label}"><table>{title}'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")


def table(rows: Sequence[Mapping[str, object]], caption: str = "", digits: int = 3) -> None:
    """Display rows (dicts of the same keys); floats get `digits` significant digits."""
    from IPython.display import HTML, display

    display(HTML(dressed(table_html(rows, caption, digits))))


def insights(lines: Sequence[str]) -> None:
    """Display a chapter's closing box; `backquoted` words become code, the rest is escaped."""
    from IPython.display import HTML, display

    items = "".join(f"<li>{html.escape(line, quote=False)}</li>" for line in lines)
    items = re.sub("`(.+?)`", r"<code>\1</code>", items)
    display(HTML(dressed('<div class="admonition tip"><p class="admonition-title">Insights</p>'
                         f"<ul>{items}</ul></div>")))
