"""A model at work for many at once: an inference engine, and a server around it.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from scratchbook.serving.block_pool import BlockPool, Table
from scratchbook.serving.engine import Engine
from scratchbook.serving.paged import PagedCache, Places, places_of
from scratchbook.serving.requests import Event, Request, Stats
from scratchbook.serving.speculation import Speculation, speculate_cached

__all__ = [
    "BlockPool",
    "Engine",
    "Event",
    "PagedCache",
    "Places",
    "Request",
    "Speculation",
    "Stats",
    "Table",
    "places_of",
    "speculate_cached",
]
