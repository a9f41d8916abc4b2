"""The conversation of chapter 07c whose model works in the page, and what stands there without it.

The model is the one of chapter 00, whose weights lie once beside the site's pages. The figure
frames its answer as the server does; a test compares the bytes.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import html
import json

from scratchbook.companions.live_weights import PAGE_WEIGHTS
from scratchbook.serving.chat_templates import PLAIN_STOPS
from scratchbook.teaching.live_figures import living, living_html

FIGURE = "chat_stream"
COMPUTED_BY = ("tiny_model", "sampler")
PLACE = "../live/tiny_model_weights.js"  # from a chapter of the built site
FIRST, LAST = 3, 2  # events of the still


def chat_in_page(question: str, streamed: bytes) -> None:
    """Show the figure in which one chats with a model in the page, and sees the stream.

    `streamed` is what a server sent for `question`: it stands there until the model is loaded.

    Raises:   ValueError when `streamed` is no stream of chat chunks
    Chapter:  chapters/07c_serving_and_chat.ipynb
    """
    living(FIGURE, chat_data(question), chat_still(question, streamed), COMPUTED_BY)


def chat_html(question: str, streamed: bytes, place: str = PLACE) -> str:
    """The figure as HTML, with the model's weights at `place`, seen from the page."""
    data = chat_data(question) | {"source": place}
    return living_html(FIGURE, data, chat_still(question, streamed), COMPUTED_BY)


def chat_data(question: str) -> dict:
    """What the figure is told: where the model lies, what ends an answer, and what to ask first."""
    return {"source": PLACE, "megabytes": f"{PAGE_WEIGHTS.stat().st_size / 1e6:.1f}",
            "stops": list(PLAIN_STOPS), "question": question}


def chat_still(question: str, streamed: bytes) -> str:
    """A question, its answer, and the first and last events of the stream that brought it."""
    events = streamed.decode().split("\n\n")[:-1]
    try:
        if events[-1] != "data: [DONE]":
            raise ValueError(f"its last event is {events[-1]!r:.60}")
        chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
        answer = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks
                         if chunk["choices"])
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{streamed[:60]!r} is no whole stream of chat chunks: {error}") from None
    left = len(events) - FIRST - LAST
    shown = events if left <= 1 else [*events[:FIRST], f"({left} more events)", *events[-LAST:]]
    return (f"<p>Asked “{html.escape(question)}”, a server answered "
            f"“{html.escape(answer.strip())}”, in {len(events)} events:</p>\n"
            f'<pre style="white-space:pre-wrap;overflow-wrap:anywhere">'
            f"{html.escape(chr(10).join(each + chr(10) for each in shown))}</pre>")
