"""How a chapter ends: the numbers recorded, and sentences that those numbers write."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from scratchbook.teaching.figures import insights
from scratchbook.teaching.results import load_result, record


def conclude(name: str, numbers: Mapping, findings: Callable[[Mapping], Sequence[str]], *,
             seeds: Sequence[int], full: bool, last: Sequence[str] = ()) -> None:
    """Show the Insights: `findings` of this run, the same of the recorded one, then `last`.

    With `full` the numbers are recorded first, under the chapter's own name. `findings` is given
    them as JSON returns them: keys are strings, tuples are lists.
    """
    command = f"scratchbook run {name} --profile full"
    if full:
        record(name, numbers, seeds=seeds, command=command)
    lines = list(findings(json.loads(json.dumps(numbers))))
    try:
        recorded = load_result(name)
        lines += [f"Full run: {line}" for line in findings(recorded.numbers)]
        lines.append(f"The full run was {recorded.provenance()}.")
    except FileNotFoundError as missing:
        lines.append(str(missing))
    except KeyError as missing:
        lines.append(f"The recorded run is older than this page and has no {missing}; `{command}` "
                     "renews it.")
    insights([*lines, *last])


def summary(*lines: str) -> None:
    """Display a chapter's Summary as a list; what is a verdict in it, a `Comparison` wrote."""
    from IPython.display import Markdown, display

    display(Markdown("\n".join(f"* {line}" for line in lines)))
