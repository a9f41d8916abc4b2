"""The Smalltalk model as the attention explorer of the published page reads with it.

    explorer(view, language="smalltalk", model=reading_model())

The model's file lies once beside the pages of the site and is loaded when the reader asks for it.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

from typing import Any

from scratchbook.companions.smalltalk_page import BEGINNINGS, PLACE, writer_data
from scratchbook.smalltalk import parts


def reading_model(place: str = PLACE, name: str = "smalltalk") -> dict[str, Any]:
    """Where the model lies, seen from the page, how large it is, what stands before a text.

    Raises:   FileNotFoundError when the shipped model is missing
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    return {"source": place, "megabytes": writer_data(BEGINNINGS)["megabytes"],
            "before": [parts.METHOD], "name": name}
