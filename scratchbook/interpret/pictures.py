"""Pictures of one view without JavaScript and without matplotlib: SVG for widgets, apps and print.

The shade of a weight is the square root of it, so that small ones are seen. Colours are those of
the book's other figures; text takes the colour of what stands around it.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from scratchbook.interpret.view import AttentionView

MOST = 12  # edges, where no other number is asked for
BLUE = (66, 146, 214)
ORANGE = "#cc6a1d"
DIRECTIONS = ("from", "to")
ROW, WIDE, SIDE, TOP, NAMED = 22, 360, 118, 22, 15


class Edge(NamedTuple):
    """Token `start` gives this weight to token `stop`."""

    start: int
    stop: int
    weight: float


def strongest_edges(view: AttentionView, layer: int, head: int, token: int | None = None,
                    direction: str = "from", threshold: float = 0.0, most: int = MOST
                    ) -> list[Edge]:
    """The heaviest weights of a head, or those "from" or "to" one token, not below a threshold.

    `layer` counts the layers of the view. Edges of one weight keep the order of their tokens.

    Raises:   ValueError for a layer, head, token or direction that the view does not have
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    weights = _map_of(view, layer, head)
    if direction not in DIRECTIONS:
        raise ValueError(f"direction={direction!r}: choose one of {', '.join(DIRECTIONS)}")
    if token is not None and not 0 <= token < len(weights):
        raise ValueError(f"token={token}: the view has tokens 0 to {len(weights) - 1}")
    rows = weights.tolist()
    found = [Edge(i, j, weight) for i, row in enumerate(rows) for j, weight in enumerate(row)
             if weight > 0 and weight >= threshold
             and (token is None or token == (i if direction == "from" else j))]
    return sorted(found, key=lambda edge: (-edge.weight, edge.start, edge.stop))[:most]


def _map_of(view: AttentionView, layer: int, head: int) -> Tensor:
    layers, heads = view.attention.shape[:2]
    if not (0 <= layer < layers and 0 <= head < heads):
        raise ValueError(f"layer={layer}, head={head}: the view has {layers} layers, {heads} heads")
    return view.attention[layer, head]


def token_name(view: AttentionView, token: int) -> str:
    """A token's place and text, white space as marks."""
    text = view.tokens[token]
    marks = {"\n": "\u21b5", "\t": "\u2192", " ": "\u2423", "\r": "\u240d"}
    shown = text.strip() or "".join(marks.get(each, each) for each in text) or "(nothing)"
    return f"{token} {shown}"


def map_png(weights: Tensor) -> bytes:
    """A matrix (time, time) of weights as a PNG: one blue pixel each, its opacity their root."""
    shades = (weights.clamp(0, 1).sqrt() * 255).round().int().tolist()
    rows = b"".join(b"\0" + b"".join(bytes((*BLUE, shade)) for shade in row) for row in shades)
    size = struct.pack(">2I5B", len(shades[0]), len(shades), 8, 6, 0, 0, 0)
    parts = [(b"IHDR", size), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts)


def head_svg(view: AttentionView, layer: int, head: int, token: int | None = None) -> str:
    """One head's map: a row for each token that looks, a column for each that is looked at."""
    weights = _map_of(view, layer, head)
    time = len(weights)
    label = (f"Layer {view.layers[layer]}, head {head}: {time} by {time} weights; the heaviest is "
             f"{weights.max().item():.2f}")
    step = next(each for each in (1, 2, 4, 8, 16, 32, 64, 128, 10**9) if time / each <= 9)
    unit = 400 / time
    ticks = "".join(
        f'<text x="{30 + (at + 0.5) * unit:.1f}" y="15" text-anchor="middle">{at}</text>'
        f'<text x="25" y="{24 + (at + 0.5) * unit:.1f}" text-anchor="end">{at}</text>'
        for at in range(0, time, step))
    return (f'<svg viewBox="0 0 432 422" role="img" aria-label="{html.escape(label)}" '
            f'style="width:100%;max-width:432px" font-family="system-ui,sans-serif" font-size="12" '
            f'fill="currentColor">{_image(_encoded(weights), 30, 20, 400)}{ticks}'
            f'<rect x="30" y="20" width="400" height="400" fill="none" stroke="currentColor" '
            f'stroke-opacity="0.4"/>{_row(token, unit)}</svg>')


def _row(token: int | None, unit: float) -> str:
    """A frame around the selected token's row."""
    if token is None:
        return ""
    return (f'<rect x="30" y="{20 + token * unit:.1f}" width="400" height="{unit:.1f}" fill="none" '
            f'stroke="{ORANGE}" stroke-width="2"/>')


def map_images(view: AttentionView) -> list[list[str]]:
    """The map of every layer and head as a PNG in base64, for pictures that are drawn often."""
    return [[_encoded(weights) for weights in layer] for layer in view.attention]


def _encoded(weights: Tensor) -> str:
    return base64.b64encode(map_png(weights)).decode("ascii")


def _image(data: str, x: float, y: float, side: float) -> str:
    return (f'<image x="{x}" y="{y}" width="{side}" height="{side}" preserveAspectRatio="none" '
            f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>')


def grid_svg(view: AttentionView, chosen: tuple[int, int] | None = None,
             marked: Sequence[tuple[int, int]] = (),
             images: Sequence[Sequence[str]] | None = None) -> str:
    """All heads as small maps, a row a layer; marked ones have a star, the chosen a frame.

    `images` are those of `map_images`, made here when they are not given.
    """
    images = map_images(view) if images is None else images
    layers, heads = view.attention.shape[:2]
    parts = []
    for layer in range(layers):
        parts.append(f'<text x="0" y="{54 + 68 * layer}">L{view.layers[layer]}</text>')
        for head in range(heads):
            x, y = 30 + 68 * head, 18 + 68 * layer
            thick = 3 if (layer, head) == chosen else 1
            colour = ORANGE if (layer, head) == chosen else "currentColor"
            parts.append(_image(images[layer][head], x, y, 60))
            parts.append(f'<rect x="{x}" y="{y}" width="60" height="60" fill="none" '
                         f'stroke="{colour}" stroke-width="{thick}"/>')
            if (layer, head) in marked:
                parts.append(f'<text x="{x + 46}" y="{y + 14}">\u2605</text>')
    parts += [f'<text x="{52 + 68 * head}" y="12">h{head}</text>' for head in range(heads)]
    wide, high = 30 + 68 * heads, 18 + 68 * layers
    label = f"{layers} layers of {heads} heads, {len(marked)} of them marked"
    return (f'<svg viewBox="0 0 {wide} {high}" role="img" aria-label="{label}" style="width:100%;'
            f'max-width:{wide}px" font-family="system-ui,sans-serif" font-size="12" '
            f'fill="currentColor">{"".join(parts)}</svg>')


def edges_svg(view: AttentionView, edges: Sequence[Edge]) -> str:
    """Two columns of tokens, and between them the edges, as wide as they weigh."""
    left = sorted({edge.start for edge in edges})
    right = sorted({edge.stop for edge in edges})
    rows = max(len(left), len(right), 1)

    def height(column: list[int], token: int) -> float:
        return TOP + ROW * (column.index(token) + 0.5 + (rows - len(column)) / 2)

    parts = [f'<text x="{SIDE}" y="14" text-anchor="end">looks</text>',
             f'<text x="{WIDE - SIDE}" y="14">is looked at</text>']
    for edge in edges:
        parts.append(
            f'<line x1="{SIDE + 6}" y1="{height(left, edge.start):.1f}" x2="{WIDE - SIDE - 6}" '
            f'y2="{height(right, edge.stop):.1f}" stroke="rgb{BLUE}" '
            f'stroke-width="{1 + 6 * edge.weight:.2f}" stroke-opacity="0.8" '
            f'data-weight="{edge.weight:.6g}"><title>{edge.weight:.3f}</title></line>')
    for column, x, anchor in ((left, SIDE, "end"), (right, WIDE - SIDE, "start")):
        for token in column:
            name = token_name(view, token)
            name = name if len(name) <= NAMED else f"{name[:NAMED - 1]}\u2026"
            parts.append(f'<text x="{x}" y="{height(column, token) + 4:.1f}" '
                         f'text-anchor="{anchor}">{html.escape(name)}</text>')
    label = f"{len(edges)} edges between tokens"
    return (f'<svg viewBox="0 0 {WIDE} {TOP + ROW * rows + 8}" role="img" aria-label="{label}" '
            f'style="width:100%;max-width:460px" font-family="system-ui,sans-serif" '
            f'font-size="12.5" fill="currentColor">{"".join(parts)}</svg>')
