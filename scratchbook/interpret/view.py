"""One text and all that a model's attention did with it: the object that every picture starts from.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from scratchbook.interpret.bertviz_views import bertviz_frame
from scratchbook.interpret.capture import capture
from scratchbook.interpret.spans import read_text

FORMAT, VERSION = "scratchbook attention", 1


class AttentionView:
    """What every head of a model looked at, token by token, in one text.

        view = AttentionView(model, "def f(x):\\n    return x", tokenizer)
        view.attention[2, 0, 5]  # layer 2, head 0: what token 5 looked at

    `tokenizer` is one of the course or a fast one of transformers; a model of 256 ids reads bytes
    without one. `before` are ids of special tokens to stand before the text (the Smalltalk models
    expect some); their span is (0, 0). `layers` chooses some; `view.layers` says which.

    text        the text itself
    ids         list of int, `tokens` their spelling; bytes that are only a part of a character
                are spelled as backslash and hexadecimal digits
    spans       (start, end) of each token in `text`, in characters; a token that holds a part of
                a character covers the whole of it
    attention   (layers, heads, time, time), float32, rows are distributions

    Raises:   ValueError for a text of no tokens, one longer than the model's window, a tokenizer
              that is missing or whose tokens are no slices of the text, or too many bytes
    Chapter:  chapters/06d_seeing_attention.ipynb
    """

    text: str
    ids: list[int]
    tokens: list[str]
    spans: list[tuple[int, int]]
    attention: Tensor
    layers: list[int]
    name: str

    def __init__(self, model: nn.Module, text: str, tokenizer: Any = None, *,
                 before: Sequence[int] = (), layers: Iterable[int] | None = None,
                 max_bytes: int = 1 << 30):
        ids, tokens, spans = read_text(text, tokenizer, before, vocab_size_of(model))
        _check_length(model, len(ids))
        training = model.training
        device = next(model.parameters()).device
        with torch.no_grad(), capture(model, layers=layers, max_bytes=max_bytes) as seen:
            try:
                model.eval()(torch.tensor([ids], device=device))
            finally:
                model.train(training)
        self._fill(text, ids, tokens, spans, seen.stacked()[:, 0].cpu(), sorted(seen.attention),
                   type(model).__name__)

    def _fill(self, text: str, ids: list[int], tokens: list[str], spans: list[tuple[int, int]],
              attention: Tensor, layers: list[int], name: str) -> None:
        self.text, self.ids, self.tokens, self.spans = text, ids, tokens, spans
        self.attention, self.layers, self.name = attention, layers, name

    def __repr__(self) -> str:
        layers, heads, time, _ = self.attention.shape
        return f"AttentionView({self.name}: {layers} layers, {heads} heads, {time} tokens)"

    def to_json(self, digits: int = 3) -> str:
        """Everything as one line of JSON, weights as whole numbers of 10^-`digits`.

        `attention[layer][head][i]` lists what token i looked at, from token 0 on; where no head
        looks ahead, up to token i only. Divide by `scale`. What is rounded is off by half of
        10^-digits at the most: rows then sum to 1 only about.

        Raises:   ValueError for digits outside of 1..6
        """
        if not 1 <= digits <= 6:
            raise ValueError(f"digits={digits} must be within 1..6")
        scale = 10 ** digits
        causal = not self.attention.triu(1).any().item()
        whole = (self.attention.double() * scale).round().long().tolist()
        if causal:
            whole = [[[row[: i + 1] for i, row in enumerate(head)] for head in layer]
                     for layer in whole]
        return json.dumps({
            "format": FORMAT, "version": VERSION, "model": self.name, "text": self.text,
            "ids": self.ids, "tokens": self.tokens, "spans": self.spans, "layers": self.layers,
            "causal": causal, "scale": scale, "attention": whole,
        }, ensure_ascii=False, separators=(",", ":"))

    def to_bertviz(self, view: str = "head", layers: Sequence[int] | None = None,
                   digits: int = 3) -> str:
        """The same numbers in bertviz's "head" or "model" view: HTML that asks no other host.

        `layers` are numbers of `self.layers`. For the neuron view, which needs queries and keys
        as well, see `scratchbook.interpret.bertviz_views.bertviz_frame`.

        Raises:   ValueError for an unknown view or layer, and for more than 64 tokens
        """
        layers = self.layers if layers is None else list(layers)
        if unknown := [layer for layer in layers if layer not in self.layers]:
            raise ValueError(f"layer {unknown[0]} is none of this view's {self.layers}")
        if view == "neuron":
            raise ValueError("an AttentionView holds no queries and keys: capture them, and call "
                             "bertviz_frame")
        chosen = self.attention[[self.layers.index(layer) for layer in layers]]
        return bertviz_frame(view, self.tokens, chosen, layers, digits=digits)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The view that `to_json` wrote, to its digits; no model is needed.

        Raises:   ValueError for anything else, or a newer version of the format
        """
        try:
            state = json.loads(text)
            if state.get("format") != FORMAT or state.get("version") != VERSION:
                raise ValueError(f"format {state.get('format')!r}, version {state.get('version')}")
            time = len(state["ids"])
            rows = [[[row + [0] * (time - len(row)) for row in head] for head in layer]
                    for layer in state["attention"]]
            attention = torch.tensor(rows, dtype=torch.float64) / state["scale"]
            sizes = (attention.shape[0], *attention.shape[2:], len(state["tokens"]),
                     len(state["spans"]))
            if sizes != (len(state["layers"]), time, time, time, time):
                raise ValueError(f"attention {tuple(attention.shape)} for {time} tokens")
            view = cls.__new__(cls)
            view._fill(state["text"], state["ids"], state["tokens"],
                       [(start, end) for start, end in state["spans"]], attention.float(),
                       state["layers"], state["model"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError("this is no view that AttentionView.to_json of this version wrote: "
                             f"{error!r}") from None
        return view


def vocab_size_of(model: nn.Module) -> int | None:
    """How many ids a model knows, where it says so."""
    return getattr(getattr(model, "config", None), "vocab_size", None)


def _check_length(model: nn.Module, count: int) -> None:
    config = getattr(model, "config", None)
    room = getattr(config, "max_seq_len", getattr(config, "max_position_embeddings", None))
    if count < 1:
        raise ValueError("the text has no tokens: there is nothing to see")
    if room is not None and count > room:
        raise ValueError(f"the text is {count} tokens long and the model reads {room}: shorten it")
