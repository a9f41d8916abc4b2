"""How good is a model? Surprise, overlap, signals, tests that run, and what chance explains.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

from scratchbook.evaluation.comparing import (
    Interval,
    bootstrap,
    bound_verdict,
    compare_tests,
    mean_and_spread,
    paired_bootstrap,
    paired_shares,
    spearman,
    verdict,
    verdict_on,
    wilson,
)
from scratchbook.evaluation.perplexity import Score, band, score_batches, score_text

__all__ = ["Interval", "Score", "band", "bootstrap", "bound_verdict", "compare_tests",
           "mean_and_spread", "paired_bootstrap", "paired_shares", "score_batches", "score_text",
           "spearman", "verdict", "verdict_on", "wilson"]
