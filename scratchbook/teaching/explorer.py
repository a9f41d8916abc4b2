"""The attention explorer: one figure for a notebook, the published page and a file of its own.

    from scratchbook.interpret import AttentionView
    from scratchbook.teaching.explorer import explorer

    view = AttentionView(model, source, tokenizer)
    explorer(view, language="smalltalk", titles=["Account >> deposit:"])

It reads nothing but what `AttentionView.to_json` writes, and the overlay of the text.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from scratchbook.interpret.code_motifs import all_motifs
from scratchbook.interpret.patterns import head_scores
from scratchbook.interpret.pictures import head_svg
from scratchbook.interpret.token_overlays import short, token_overlay
from scratchbook.interpret.view import AttentionView
from scratchbook.teaching.live_figures import living, living_html

Views = AttentionView | Sequence[AttentionView]
FIGURE = "attention_explorer"
DRAWN_BY = ("explorer_data", "explorer_draw", "explorer_code")
# what reads the reader's own text
COMPUTED_BY = ("smalltalk_tokens", "safetensors", "smalltalk_model", "smalltalk_syntax",
               "smalltalk_overlay", "explorer_model")


def explorer(views: Views, **options: Any) -> None:
    """Show the explorer in a notebook; the arguments are those of `explorer_html`.

    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    data, still, also = explorer_parts(views, **options)
    living(FIGURE, data, still, also)


def explorer_html(views: Views, **options: Any) -> str:
    """The explorer of one view, or of several to choose from, as a piece of HTML.

    language    "python" or "smalltalk" for what is known of code, None for other text; a list
                gives each view its own
    titles      a name for each view (its text's beginning)
    layer, head which head is shown first
    scores      {name: {"about": sentence, "values": (layers, heads)}} beside those that the figure
                counts itself; of one view only (`motif_scores` makes some)
    classes     what `class_panel` gives: the tree of classes, who sends and implements what
    model       what `scratchbook.companions.explorer_reader.reading_model` gives: the Smalltalk
                model, to read the reader's own text in the published page
    digits      of the weights that are embedded; half of 10^-digits is the largest error

    Raises:   ValueError for no view, a language without overlays, lists of unequal length
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    data, still, also = explorer_parts(views, **options)
    return living_html(FIGURE, data, still, also)


def explorer_parts(views: Views, language: str | Sequence[str | None] | None = None,
                   titles: Sequence[str] | None = None, layer: int = 0, head: int = 0,
                   scores: Mapping[str, Any] | None = None,
                   classes: Mapping[str, Any] | None = None,
                   model: Mapping[str, Any] | None = None, digits: int = 3
                   ) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """The figure's data, the picture that stands there without scripts, and the scripts it needs.

    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    views = list(views) if isinstance(views, list | tuple) else [views]
    if not views:
        raise ValueError("views is empty: the explorer needs one to show")
    languages = [language] * len(views) if language is None or isinstance(
        language, str) else list(language)
    titles = [short(view.text) for view in views] if titles is None else list(titles)
    if not len(titles) == len(languages) == len(views):
        raise ValueError(f"{len(views)} views, {len(titles)} titles, {len(languages)} languages: "
                         "give one of each for every view")
    if scores and len(views) > 1:
        raise ValueError(f"scores belong to one view, {len(views)} are given: make a figure each")
    layers, heads = views[0].attention.shape[:2]
    if not (0 <= layer < layers and 0 <= head < heads):
        raise ValueError(f"layer={layer}, head={head}: the view has {layers} layers, {heads} heads")
    data = {"views": [{"view": json.loads(view.to_json(digits)), "title": title,
                       "overlay": token_overlay(view, each)}
                      for view, title, each in zip(views, titles, languages, strict=True)],
            "layer": layer, "head": head, "scores": dict(scores or {}), "classes": classes,
            "model": model}
    still = head_svg(views[0], layer, head)
    return data, still, (*COMPUTED_BY, *DRAWN_BY) if model else DRAWN_BY


def motif_scores(view: AttentionView, language: str) -> dict[str, dict[str, Any]]:
    """Scores of the motifs of code (brackets, names, induction and so on) as `scores` for a figure.

    Each is the mean weight that a head gives to what the motif looks for, over the places of this
    one text where the motif applies; a motif that applies nowhere is left out. One text proves
    nothing of a head: chapter 06e tests many.

    Raises:   ValueError for a text of less than nine tokens, or a language without motifs
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    found = {}
    for name, motif in all_motifs(view.ids, view.tokens, language).items():
        if motif.rows and name not in ("previous token", "first token"):  # the figure's own
            seen = head_scores(view.attention, motif)[0]
            found[name] = {"about": f"mean weight on what \u201c{name}\u201d looks for, where it "
                                    f"applies ({motif.rows} of {len(view.ids)} tokens)",
                           "values": seen.tolist()}
    return found


def explorer_page(views: Views, title: str = "What a model looks at", **options: Any) -> str:
    """A whole page with the explorer in it, which asks nothing of any other host.

    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    name = html.escape(title)
    rule = ("default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
            "img-src data: blob:; worker-src blob:")
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{rule}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{name}</title>\n<style>:root{{color-scheme:light dark}}"
            "body{margin:0 auto;padding:0 10px;max-width:1100px;font:16px system-ui,sans-serif}"
            f"h1{{font-size:1.3rem}}</style></head>\n<body><main><h1>{name}</h1>\n"
            f"{explorer_html(views, **options)}\n</main></body></html>\n")
