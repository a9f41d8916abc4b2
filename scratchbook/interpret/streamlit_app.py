"""The attention explorer as an app: `streamlit run` this file, with a view as a file behind --.

    scratchbook view smalltalk --text "double ^ self * 2" --json view.json
    streamlit run scratchbook/interpret/streamlit_app.py -- view.json smalltalk

Needs the extra `streamlit`.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import sys
from pathlib import Path

from scratchbook.interpret.view import AttentionView
from scratchbook.interpret.widgets import NO_TOKEN, Explorer, facts_html


def main(arguments: list[str] | None = None) -> None:
    """Draw the page once; Streamlit calls it again at every change.

    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    import streamlit as st

    arguments = sys.argv[1:] if arguments is None else arguments
    st.title("What a model looks at")
    if not arguments:
        st.error("Name a view: streamlit run streamlit_app.py -- view.json [python or smalltalk]. "
                 "AttentionView.to_json writes one.")
        return
    try:
        view = AttentionView.from_json(Path(arguments[0]).read_text(encoding="utf-8"))
        model = Explorer(view, arguments[1] if len(arguments) > 1 else None)
    except (OSError, ValueError) as error:
        st.error(f"{arguments[0]}: {error}")
        return
    choose(st, model)
    show(st, model)


def choose(st: object, model: Explorer) -> None:
    """The controls, at the side."""
    side, view, chosen = st.sidebar, model.view, model.chosen
    layers, heads = view.attention.shape[:2]
    chosen.layer = side.selectbox("Layer", range(layers),
                                  format_func=lambda at: str(view.layers[at]))
    chosen.head = side.selectbox("Head", range(heads))
    names = {at: name for name, at in model.tokens()}
    token = side.selectbox("Token", list(names), format_func=names.get)
    chosen.token = None if token == NO_TOKEN else token
    chosen.direction = side.radio(
        "Edges of the token", ["from", "to"],
        format_func={"from": "what it looks at", "to": "what looks at it"}.get)
    chosen.threshold = side.slider("Weight from", 0.0, 1.0, 0.05, 0.01)
    chosen.most = side.number_input("Edges at most", 1, 60, 12)
    chosen.mark = side.slider("Mark heads whose weight on the token before is at least", 0.0, 1.0,
                              0.4, 0.01)


def show(st: object, model: Explorer) -> None:
    """The text, the pictures, the edges as a table, and the view as a file."""
    st.code(model.view.text, language=None)
    st.caption("The shade is the square root of the weight. A star marks a head.")
    st.html(model.grid())
    st.html(model.map())
    if facts := model.facts():
        st.html(facts_html(facts))
    st.html(model.graph())
    st.table([{"looks": start, "is looked at": stop, "weight": f"{weight:.3f}"}
              for start, stop, weight in model.rows()])
    st.download_button("Save JSON", model.view.to_json(), "attention.json", "application/json")


if __name__ == "__main__":
    main()
