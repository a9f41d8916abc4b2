"""A model at work for many at once: an inference engine, and a server around it.

Chapter:  chapters/07b_inference_engine.ipynb
"""

from scratchbook.serving.engine import Engine
from scratchbook.serving.requests import Event, Request, Stats

__all__ = [
    "Engine",
    "Event",
    "Request",
    "Stats",
]
