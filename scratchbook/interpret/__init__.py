"""Looking inside of a model while it works, and at what its attention does.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from scratchbook.interpret.capture import Seen, capture
from scratchbook.interpret.view import AttentionView

__all__ = ["AttentionView", "Seen", "capture"]
