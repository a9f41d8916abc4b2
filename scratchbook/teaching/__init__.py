"""What the notebooks use to teach: checks, figures, tables, seeded draws, recorded results."""

from scratchbook.evaluation.comparing import bound_verdict, mean_and_spread, verdict
from scratchbook.teaching.checking import exercise, expect
from scratchbook.teaching.conclusions import conclude, summary
from scratchbook.teaching.draws import draw
from scratchbook.teaching.figures import insights, palette, show, table, use_style
from scratchbook.teaching.live_figures import living
from scratchbook.teaching.results import load_result, record
from scratchbook.teaching.sources import show_source
from scratchbook.teaching.verdicts import comparisons

__all__ = ["bound_verdict", "comparisons", "conclude", "draw", "exercise", "expect", "insights",
           "living", "load_result", "mean_and_spread", "palette", "record", "show", "show_source",
           "summary", "table", "use_style", "verdict"]
