"""The attention explorer with a live kernel: ipywidgets over one view, in JupyterLab and Colab.

    from scratchbook.interpret import AttentionView
    from scratchbook.interpret.widgets import attention_widget

    attention_widget(AttentionView(model, source, tokenizer), language="python")

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scratchbook.interpret.pictures import (
    MOST,
    Edge,
    edges_svg,
    grid_svg,
    head_svg,
    map_images,
    strongest_edges,
    token_name,
)
from scratchbook.interpret.token_overlays import facts, token_overlay

if TYPE_CHECKING:
    from scratchbook.interpret.view import AttentionView

NO_TOKEN = -1


@dataclass
class Chosen:
    """What is looked at: a head, perhaps a token, and which of its edges."""

    layer: int = 0
    head: int = 0
    token: int | None = None
    direction: str = "from"
    threshold: float = 0.05
    most: int = MOST
    mark: float = 0.4


@dataclass
class Explorer:
    """One view, its overlay and what is chosen; every surface that has a kernel draws this.

    Chapter:  chapters/06d_seeing_attention.ipynb
    """

    view: AttentionView
    language: str | None = None
    chosen: Chosen = field(default_factory=Chosen)

    def __post_init__(self) -> None:
        self.overlay = token_overlay(self.view, self.language)
        self.images = map_images(self.view)  # once: most of the time of a redraw

    def edges(self) -> list[Edge]:
        """The edges that are drawn."""
        one = self.chosen
        return strongest_edges(self.view, one.layer, one.head, one.token, one.direction,
                               one.threshold, one.most)

    def previous_token_scores(self) -> list[list[float]]:
        """For every layer and head the mean weight on the token before."""
        diagonal = self.view.attention.diagonal(offset=-1, dim1=-2, dim2=-1)
        if not diagonal.shape[-1]:
            return [[0.0] * self.view.attention.shape[1] for _ in self.view.attention]
        return diagonal.mean(-1).tolist()

    def marked(self) -> list[tuple[int, int]]:
        """The heads whose mean weight on the token before reaches `mark`."""
        return [(layer, head) for layer, row in enumerate(self.previous_token_scores())
                for head, score in enumerate(row) if score >= self.chosen.mark]

    def grid(self) -> str:
        """All heads, as SVG."""
        return grid_svg(self.view, (self.chosen.layer, self.chosen.head), self.marked(),
                        self.images)

    def map(self) -> str:
        """The chosen head, as SVG."""
        return head_svg(self.view, self.chosen.layer, self.chosen.head, self.chosen.token)

    def graph(self) -> str:
        """The edges, as SVG."""
        return edges_svg(self.view, self.edges())

    def rows(self) -> list[tuple[str, str, float]]:
        """The edges with the tokens' names."""
        return [(token_name(self.view, edge.start), token_name(self.view, edge.stop), edge.weight)
                for edge in self.edges()]

    def facts(self) -> list[tuple[str, str]]:
        """What the overlay knows of the chosen token."""
        return [] if self.chosen.token is None else facts(self.overlay, self.chosen.token)

    def tokens(self) -> list[tuple[str, int]]:
        """The choices of a token: its name and its place, "none" first."""
        return [("none", NO_TOKEN),
                *((token_name(self.view, at), at) for at in range(len(self.view.tokens)))]


def facts_html(pairs: list[tuple[str, str]]) -> str:
    """Pairs of words as lines of HTML; nothing in them is read as HTML."""
    return "<br>".join(f"<b>{html.escape(name)}</b>: {html.escape(said)}" for name, said in pairs)


def attention_widget(view: AttentionView, language: str | None = None) -> Any:
    """A box of controls and pictures that are drawn anew at every change; display it in a cell.

    Raises:   ModuleNotFoundError without ipywidgets, ValueError for a language without overlays
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    import ipywidgets as widgets

    model = Explorer(view, language)
    layers, heads = view.attention.shape[:2]
    controls = {
        "layer": widgets.Dropdown(options=[(str(name), at) for at, name in enumerate(view.layers)],
                                  value=0, description="Layer"),
        "head": widgets.Dropdown(options=list(range(heads)), value=0, description="Head"),
        "token": widgets.Dropdown(options=model.tokens(), value=NO_TOKEN, description="Token"),
        "direction": widgets.Dropdown(
            options=[("what it looks at", "from"), ("what looks at it", "to")], value="from",
            description="Edges"),
        "threshold": widgets.FloatSlider(0.05, min=0, max=1, step=0.01, description="weight from"),
        "most": widgets.BoundedIntText(MOST, min=1, max=60, description="at most"),
        "mark": widgets.FloatSlider(0.4, min=0, max=1, step=0.01, description="mark from"),
    }
    pictures = {name: widgets.HTML() for name in ("grid", "map", "graph", "facts")}

    def draw(_: object = None) -> None:
        for name, control in controls.items():
            value = control.value
            setattr(model.chosen, name, None if name == "token" and value == NO_TOKEN else value)
        for name, picture in pictures.items():
            make: Callable[[], Any] = getattr(model, name)
            picture.value = facts_html(make()) if name == "facts" else make()

    for control in controls.values():
        control.observe(draw, names="value")
    draw()
    key = widgets.HTML("The shade is the square root of the weight; \u2605 marks heads whose mean "
                       "weight on the token before is at least the second slider's.")
    box = widgets.VBox([
        widgets.HBox(list(controls.values()), layout=widgets.Layout(flex_flow="row wrap")), key,
        widgets.HBox([pictures["grid"], pictures["map"]],
                     layout=widgets.Layout(flex_flow="row wrap")),
        pictures["graph"], pictures["facts"]])
    box.controls, box.pictures = controls, pictures
    return box
