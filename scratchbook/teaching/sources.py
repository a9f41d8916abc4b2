"""Show the package's own source in a notebook, so that a chapter never pastes a copy of it."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable

from IPython.display import Markdown, display


def show_source(*objects: Callable | type, docstring: bool = True) -> None:
    """Display the source of functions or classes, highlighted in the page's own theme.

    Raises:   TypeError when an object has no Python source (built-ins, instances)
    """
    parts = [textwrap.dedent(inspect.getsource(o)).rstrip() for o in objects]
    if not docstring:
        parts = [_without_docstring(part) for part in parts]
    display(Markdown("```python\n" + "\n\n\n".join(parts) + "\n```"))


def _without_docstring(source: str) -> str:
    import ast

    node = ast.parse(source).body[0]
    first = node.body[0]
    if ast.get_docstring(node) is None or len(node.body) == 1:
        return source
    lines = source.splitlines()
    kept = lines[: first.lineno - 1] + lines[first.end_lineno :]
    return "\n".join(kept)
