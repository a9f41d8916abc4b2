"""The overlay of a view's text counted in tokens, and what it knows of each of them.

The explorer in the page, the widgets and the app all read this one form; `facts` says in words
what they show of a selected token.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scratchbook.interpret.overlays import Overlay, align, kinds_of, overlay

if TYPE_CHECKING:
    from scratchbook.interpret.view import AttentionView

LABEL = 40  # characters of a text that is shown
Place = dict[str, Any]  # first and last (one past the end), in tokens


def token_overlay(view: AttentionView, language: str | None) -> dict[str, Any] | None:
    """What is known of a view's text, every place as tokens: `first`, and `last` one past the end.

    A node's `head` is the token that stands for it in the tree: of a send the first word of its
    selector, of everything else the first token. None for a text in no language.

    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    if language is None:
        return None
    found = overlay(view.text, language)
    spans = view.spans

    def place(start: int, stop: int, label: bool = False) -> dict[str, Any]:
        first, last = align(spans, [_Place(start, stop)])[0]
        text = {"text": short(found.source[start:stop])} if label else {}
        return {"first": first, "last": last} | text

    return {
        "language": language, "error": found.error,
        "classes": [kinds[0] if kinds else "" for kinds in kinds_of(spans, found.classes)],
        "roles": kinds_of(spans, found.roles),
        "nodes": _nodes(found, spans),
        "scopes": [{"kind": each.kind, "name": each.name, "depth": each.depth,
                    "parent": each.parent, **place(each.start, each.stop),
                    "declares": [{"name": own.name, "what": own.what,
                                  **place(own.start, own.stop)} for own in each.declares]}
                   for each in found.scopes],
        "uses": [{"name": each.name, "scope": each.scope, **place(each.start, each.stop)}
                 for each in found.uses],
        "sends": [{"selector": each.selector, "kind": each.kind, "cascade": each.cascade,
                   "receiverSend": each.receiver_send,
                   "words": [place(*word) for word in each.words],
                   "receiver": place(*each.receiver, True) if each.receiver[0] >= 0 else None,
                   "arguments": [{"word": own.word, **place(own.start, own.stop, True)}
                                 for own in each.arguments],
                   **place(each.start, each.stop)} for each in found.sends]}


class _Place:
    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop


def short(text: str) -> str:
    """A text on one line, cut where it is long."""
    words = " ".join(text.split())
    return words if len(words) <= LABEL else f"{words[:LABEL - 1]}\u2026"


def _nodes(found: Overlay, spans: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """The nodes of the tree, each with the token that stands for it."""
    words = {(send.start, send.stop): send.words[0] for send in found.sends if send.words}
    ranges = align(spans, found.nodes)
    heads = align(spans, [_Place(*words.get((each.start, each.stop), (each.start, each.stop)))
                          for each in found.nodes])
    return [{"kind": each.kind, "role": each.role, "text": short(each.text), "first": first,
             "last": last, "parent": each.parent, "head": head}
            for each, (first, last), (head, _) in zip(found.nodes, ranges, heads, strict=True)]


def holds(place: Place, token: int) -> bool:
    """Whether a token lies between `first` and `last`."""
    return place["first"] <= token < place["last"]


def send_at(found: dict[str, Any], token: int) -> tuple[int, str, str] | None:
    """The send that a token belongs to most closely, the part it plays, and the word before it."""
    best, chosen = float("inf"), None
    for at, send in enumerate(found["sends"]):
        parts = [("selector", place, "") for place in send["words"]]
        parts += [("receiver", send["receiver"], "")] if send["receiver"] else []
        parts += [("argument", place, place["word"]) for place in send["arguments"]]
        for part, place, word in parts:
            size = place["last"] - place["first"] - (0.5 if part == "selector" else 0)
            if holds(place, token) and size < best:
                best, chosen = size, (at, part, word)
    return chosen


def variable_at(found: dict[str, Any], token: int) -> tuple[str, dict | None, dict | None] | None:
    """The variable that a token names: (name, the scope that declares it, where), or None."""
    for scope in found["scopes"]:
        for own in scope["declares"]:
            if holds(own, token):
                return own["name"], scope, own
    use = next((each for each in found["uses"] if holds(each, token)), None)
    if use is None:
        return None
    scope = found["scopes"][use["scope"]] if use["scope"] >= 0 else None
    own = [each for each in scope["declares"] if each["name"] == use["name"]] if scope else []
    return use["name"], scope, own[0] if own else None


def facts(found: dict[str, Any] | None, token: int) -> list[tuple[str, str]]:
    """What is known of a token, in words: syntax, role, message, variable, scopes.

    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    if found is None:
        return []
    said = [("Syntax", found["classes"][token] or "white space")]
    sent = send_at(found, token)
    if roles := found["roles"][token]:
        of = f" of {sent[2]}" if sent and sent[1] == "argument" and sent[2] else ""
        said.append(("Role", ", ".join(role + of if role == "argument" else role
                                       for role in roles)))
    if sent:
        said += _of_send(found, sent[0])
    if variable := variable_at(found, token):
        said.append(("Variable", _of_variable(*variable)))
    around = [scope for scope in found["scopes"] if holds(scope, token)]
    if around:
        around.sort(key=lambda scope: scope["depth"])
        said.append(("Scopes", " \u203a ".join(map(_scope, around))))
    return said


def _of_send(found: dict[str, Any], at: int) -> list[tuple[str, str]]:
    send = found["sends"][at]
    said = [("Message", f"{send['selector']}  ({send['kind']})")]
    if send["receiver"]:
        said.append(("Receiver", send["receiver"]["text"]))
    for place, own in enumerate(send["arguments"]):
        name = f"Argument of {own['word']}" if own["word"] else f"Argument {place + 1}"
        said.append((name, own["text"]))
    path, here = [], at
    while here >= 0:
        step = found["sends"][here]
        path.append(step["selector"])
        if step["receiverSend"] < 0 and step["receiver"]:
            path.append(step["receiver"]["text"])
        here = step["receiverSend"]
    if len(path) > 1:
        said.append(("Path", " \u2192 ".join(path[::-1])))
    if send["cascade"] >= 0:
        others = [each["selector"] for each in found["sends"]
                  if each["cascade"] == send["cascade"]]
        said.append(("Cascade", f"{'; '.join(others)}, all to {send['receiver']['text']}"))
    return said


def _scope(scope: dict[str, Any]) -> str:
    name = f" {scope['name']}" if scope["name"] else ""
    return f"{scope['kind']}{name} (tokens {scope['first']} to {scope['last'] - 1})"


def _of_variable(name: str, scope: dict | None, own: dict | None) -> str:
    if scope is None:
        return f"{name}: no scope of this text declares it"
    where = f", at token {own['first']}" if own else ""
    return f"{name}: {own['what'] if own else 'variable'} of the {_scope(scope)}{where}"
