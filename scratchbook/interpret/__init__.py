"""Looking inside of a model while it works, and at what its attention does.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from scratchbook.interpret.capture import Seen, capture
from scratchbook.interpret.flow import logit_lens, rollout, value_lengths, value_weighted
from scratchbook.interpret.importance import importance
from scratchbook.interpret.view import AttentionView

__all__ = ["AttentionView", "Seen", "capture", "importance", "logit_lens", "rollout",
           "value_lengths", "value_weighted"]
