"""The explorer in the page reads and counts what the package does."""

from __future__ import annotations

import json

import torch

from scratchbook.config import ModelConfig
from scratchbook.interpret import AttentionView
from scratchbook.interpret.overlays import CLASSES, ROLES
from scratchbook.interpret.pictures import strongest_edges
from scratchbook.interpret.token_overlays import facts, token_overlay
from tests.node import passed, run_figure
from tests.random_models import random_model

SMALL = ModelConfig(vocab_size=256, num_layers=2, d_model=32, num_heads=2, max_seq_len=256)
METHOD = "at: i put: v\n\t| t |\n\tt := 'grüße'.\n\t^ self foo: (t at: i) bar: [:x | x + v]; baz"
FUNCTION = "def größe(a):\n    é = [c.b(1) for c in a]\n    return é\n"
HOSTILE = "</script><script>alert(1)</script>\0<img src=x onerror=alert(2)>&\"'<b>"


def rounded(view: AttentionView) -> AttentionView:
    """The view with the weights that the page is given."""
    return AttentionView.from_json(view.to_json())


def counted(view: AttentionView) -> dict:
    """The scores, by torch."""
    maps, ids = view.attention.double(), torch.tensor(view.ids)
    layers, heads, time, _ = maps.shape
    same = (ids[:, None] == ids[None]) & torch.ones(time, time).tril(-1).bool()
    some = same.any(-1)
    copies = (maps * same).sum(-1)[..., some].mean(-1).tolist() if some.any() else (
        [[None] * heads] * layers)
    return {"previous token": maps.diagonal(-1, -2, -1).mean(-1).tolist(),
            "first token": maps[..., 1:, 0].mean(-1).tolist(),
            "itself": maps.diagonal(0, -2, -1)[..., 1:].mean(-1).tolist(),
            "same token before": copies}


def case(view: AttentionView, language: str | None) -> dict:
    near = rounded(view)
    time = len(view.ids)
    whole = (near.attention.double() * 1000).round() / 1000
    near.attention = whole
    chosen = [{"layer": layer, "head": head, "token": token, "direction": direction,
               "threshold": threshold, "most": most}
              for layer, head in ((0, 0), (1, 1)) for token in (None, 0, time // 2, time - 1)
              for direction in ("from", "to") for threshold, most in ((0, 12), (0.05, 3))]
    edges = [{"options": each, "found": [list(edge) for edge in strongest_edges(
        near, **(each | {"most": time * time}))]} for each in chosen]
    overlay = token_overlay(view, language)
    return {"view": json.loads(view.to_json()), "overlay": overlay,
            "facts": [facts(overlay, token) for token in range(time)],
            "shape": [*view.attention.shape[:2], time], "attention": whole.tolist(),
            "edges": edges, "scores": counted(near)}


def test_explorer(tmp_path):
    model = random_model(SMALL)
    views = [(AttentionView(model, text), language) for text, language in (
        (METHOD, "smalltalk"), (FUNCTION, "python"), ("ab", None), ("x ^ (", "smalltalk"))]
    cases = {"views": [case(*each) for each in views],
             "kinds": {"classes": CLASSES, "roles": ROLES},
             "hostile": json.loads(AttentionView(model, HOSTILE).to_json())}
    assert passed(run_figure("explorer", tmp_path, cases)) == 9
